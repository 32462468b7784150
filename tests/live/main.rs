//! The real binary between Kafka, RabbitMQ and NATS as they are. What only a source does is told in `adapters.rs`, over the same
//! servers and without a store.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

#[expect(dead_code, reason = "the harness is shared, and not all of it is needed here")]
#[path = "../harness/mod.rs"]
mod harness;
mod samples;
mod services;
mod systems;
mod whole;
