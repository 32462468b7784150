//! One suite of behaviour over Kafka, RabbitMQ and NATS as they are: real servers, foreign senders, broken wires.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

#[expect(dead_code, reason = "`main.rs` counts connections")]
mod proxy;
mod rig;
mod services;
mod stories;
#[expect(dead_code, reason = "sinks are told of in `main.rs`")]
mod systems;
