//! AMQP 0.9.1: a queue into the log, and events into exchanges.

mod record;
mod to_event;

pub use to_event::to_event;
