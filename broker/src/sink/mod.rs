//! Where deliveries go. A sink cannot fail: every ending of an attempt is an [`Outcome`].

mod client;
mod connect;
mod http;
mod stdout;

use std::time::Duration;

use sluice_adapters::TraceContext;
use sluice_config as config;
use sluice_schemas::Event;

pub use self::connect::OpenError;
use crate::delivery::Outcome;

/// An open sink.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each trigger, and nearly all are of the large kind"
)]
pub enum Sink {
    Http(http::HttpSink),
    Stdout,
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
            config::Sink::Kafka(_) => Err(OpenError::BuiltWithout("kafka")),
            config::Sink::Amqp(_) => Err(OpenError::BuiltWithout("amqp")),
            config::Sink::Nats(_) => Err(OpenError::BuiltWithout("nats")),
        }
    }

    /// For people: the URL, or `stdout`.
    pub fn url(&self) -> &str {
        match self {
            Self::Http(http) => http.url(),
            Self::Stdout => "stdout",
        }
    }

    pub async fn deliver(&self, attempt: Attempt<'_>) -> Answer {
        match self {
            Self::Http(http) => http.deliver(attempt).await,
            Self::Stdout => stdout::print(attempt.event).await,
        }
    }
}
