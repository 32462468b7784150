//! What a source received, before it is an event.

use bytes::Bytes;

/// One message of any system, whole: what `to_event` needs, and all of it that is kept when it cannot become an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Where it was, unique within its source: `topic/partition/offset`, `stream/sequence`, a delivery id.
    pub position: String,
    /// Kafka's topic, AMQP's routing key.
    pub topic: Option<String>,
    /// NATS' subject.
    pub subject: Option<String>,
    pub key: Option<Bytes>,
    /// When the system says it was made, in milliseconds since 1970-01-01T00:00:00Z.
    pub time_ms: Option<i64>,
    /// In received order; names may repeat.
    pub headers: Vec<(String, Bytes)>,
    /// `None` is a tombstone, which is not the same as an empty body.
    pub body: Option<Bytes>,
}

impl Record {
    /// The first value of a header whose name is this one in upper or lower case, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }
}

/// Why a record cannot become an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Unfit {
    /// `quarantine`, or `conflict` when an event with its source and id has other content.
    pub is_conflict: bool,
    pub detail: String,
}
