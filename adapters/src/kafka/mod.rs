//! Kafka: a consumer group into the log, and events into topics.

mod client;
mod sink;
mod source;
mod to_event;

pub use sink::KafkaSink;
pub use source::KafkaSource;
pub use to_event::to_event;
