//! NATS: a JetStream consumer or plain subjects into the log, and events into subjects.

mod audit;
mod client;
mod pull;
mod sink;
mod source;
mod to_event;

pub use sink::NatsSink;
pub use source::NatsSource;
pub use to_event::to_event;
