//! One suite of behaviour over Kafka, RabbitMQ and NATS as they are: real servers, foreign senders, broken wires.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod of_amqp;
mod of_identity;
mod of_kafka;
mod of_mock;
mod of_nats;
mod of_sinks;
#[expect(dead_code, reason = "`main.rs` counts connections")]
mod proxy;
mod python;
mod rig;
mod said;
mod services;
mod stories;
#[expect(dead_code, reason = "sinks are told of in `main.rs`")]
mod systems;
