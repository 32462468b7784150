//! Where deliveries go. A sink cannot fail: every ending of an attempt is an [`Outcome`].

mod client;
mod connect;
mod http;
mod resolve;
#[cfg(test)]
pub(crate) mod scripted;
mod stdout;
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
mod systems;
mod trust;

use std::time::Duration;

use sluice_adapters::TraceContext;
use sluice_config as config;
use sluice_schemas::Event;

pub use self::connect::OpenError;
use crate::delivery::Outcome;

/// An open sink.
pub enum Sink {
    Http(http::HttpSink),
    Stdout,
    #[cfg(feature = "kafka")]
    Kafka(Named<sluice_adapters::kafka::KafkaSink>),
    #[cfg(feature = "amqp")]
    Amqp(Named<sluice_adapters::amqp::AmqpSink>),
    #[cfg(feature = "nats")]
    Nats(Named<sluice_adapters::nats::NatsSink>),
    #[cfg(test)]
    Scripted(scripted::ScriptedSink),
}

/// A sink of an adapter, with what people call it.
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
pub struct Named<S> {
    sink: S,
    url: String,
}

/// One event to be sent once.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    pub event: &'a Event,
    pub trace: Option<&'a TraceContext>,
    /// For all of it, the answer included.
    pub timeout: Duration,
    pub config: &'a config::Delivery,
    pub limits: &'a config::Limits,
}

/// How an attempt ended.
#[derive(Debug)]
pub struct Answer {
    pub status: Option<u16>,
    pub outcome: Outcome,
}

impl Sink {
    /// Reads what the sink needs (certificates, keys). Connects to nothing.
    pub fn open(sink: &config::Sink, concurrency: usize) -> Result<Self, OpenError> {
        match sink {
            config::Sink::Http(http) => http::HttpSink::open(http, concurrency).map(Self::Http),
            config::Sink::Stdout => Ok(Self::Stdout),
            #[cfg(feature = "kafka")]
            config::Sink::Kafka(kafka) => {
                let sink = sluice_adapters::kafka::KafkaSink::open(kafka)?;
                Ok(Self::Kafka(Named { url: sink.shown(), sink }))
            }
            #[cfg(not(feature = "kafka"))]
            config::Sink::Kafka(_) => Err(OpenError::BuiltWithout("kafka")),
            #[cfg(feature = "amqp")]
            config::Sink::Amqp(amqp) => {
                let sink = sluice_adapters::amqp::AmqpSink::open(amqp)?;
                Ok(Self::Amqp(Named { url: sink.shown(), sink }))
            }
            #[cfg(not(feature = "amqp"))]
            config::Sink::Amqp(_) => Err(OpenError::BuiltWithout("amqp")),
            #[cfg(feature = "nats")]
            config::Sink::Nats(nats) => {
                let sink = sluice_adapters::nats::NatsSink::open(nats)?;
                Ok(Self::Nats(Named { url: sink.shown(), sink }))
            }
            #[cfg(not(feature = "nats"))]
            config::Sink::Nats(_) => Err(OpenError::BuiltWithout("nats")),
        }
    }

    /// For people: the URL, or `stdout`.
    pub fn url(&self) -> &str {
        match self {
            Self::Http(http) => http.url(),
            Self::Stdout => "stdout",
            #[cfg(feature = "kafka")]
            Self::Kafka(named) => &named.url,
            #[cfg(feature = "amqp")]
            Self::Amqp(named) => &named.url,
            #[cfg(feature = "nats")]
            Self::Nats(named) => &named.url,
            #[cfg(test)]
            Self::Scripted(scripted) => scripted.url(),
        }
    }

    pub async fn deliver(&self, attempt: Attempt<'_>) -> Answer {
        match self {
            Self::Http(http) => http.deliver(attempt).await,
            Self::Stdout => stdout::print(attempt.event).await,
            #[cfg(feature = "kafka")]
            Self::Kafka(named) => {
                systems::deliver(attempt, named.sink.send(attempt.event), || named.sink.trouble()).await
            }
            #[cfg(feature = "amqp")]
            Self::Amqp(named) => systems::deliver(attempt, named.sink.send(attempt.event), || None).await,
            #[cfg(feature = "nats")]
            Self::Nats(named) => systems::deliver(attempt, named.sink.send(attempt.event), || None).await,
            #[cfg(test)]
            Self::Scripted(scripted) => scripted.deliver(attempt).await,
        }
    }
}
