//! NATS: a JetStream consumer or plain subjects into the log, and events into subjects.

mod to_event;

pub use to_event::to_event;
