//! One suite of behaviour over Kafka, RabbitMQ and NATS as they are: real servers, foreign senders, broken wires.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod proxy;
mod rig;
mod services;
mod stories;
mod systems;
