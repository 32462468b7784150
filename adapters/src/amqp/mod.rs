//! AMQP 0.9.1: a queue into the log, and events into exchanges.

mod client;
mod record;
mod sink;
mod source;
mod to_event;

pub use sink::AmqpSink;
pub use source::AmqpSource;
pub use to_event::to_event;
