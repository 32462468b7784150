//! What follows from an answer: pure, without a clock, without I/O.

mod classify;
mod dead_letter;
mod policy;

use std::time::Duration;

use bytes::Bytes;
use sluice_schemas::Event;

pub use classify::{Answered, classify, retry_after};
pub use dead_letter::dead_letter_event;
pub use policy::{Disposition, RetryPolicy};

/// How an attempt came out.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The sink has the event; `reply` is what it answered with.
    Accepted { reply: Vec<Event> },
    /// Trying again may help.
    Retriable { cause: Failure, retry_after: Option<Duration> },
    /// Trying again is no use.
    Rejected { cause: Failure, reason: Reason },
}

impl Outcome {
    /// How long the sink wants no further request, whichever event it is about (CloudEvents webhook 2.2). With another
    /// status, `Retry-After` speaks of the event that was sent.
    pub fn wants_quiet(&self) -> Option<Duration> {
        match self {
            Self::Retriable { cause, retry_after } if cause.status == Some(429) => *retry_after,
            Self::Retriable { .. } | Self::Accepted { .. } | Self::Rejected { .. } => None,
        }
    }
}

/// Why an attempt failed, for people to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// `None` when there was no answer.
    pub status: Option<u16>,
    pub error: String,
    /// The first KiB of the answer.
    pub body: Bytes,
}

/// Why an event became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    Attempts,
    Age,
    Rejected,
    Gone,
    Reply,
    Loop,
    Transform,
    TriggerRemoved,
    Discarded,
    Quarantine,
    Conflict,
}

impl Reason {
    pub const ALL: [Self; 11] = [
        Self::Attempts,
        Self::Age,
        Self::Rejected,
        Self::Gone,
        Self::Reply,
        Self::Loop,
        Self::Transform,
        Self::TriggerRemoved,
        Self::Discarded,
        Self::Quarantine,
        Self::Conflict,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Age => "age",
            Self::Rejected => "rejected",
            Self::Gone => "gone",
            Self::Reply => "reply",
            Self::Loop => "loop",
            Self::Transform => "transform",
            Self::TriggerRemoved => "trigger_removed",
            Self::Discarded => "discarded",
            Self::Quarantine => "quarantine",
            Self::Conflict => "conflict",
        }
    }

    /// One sentence for the list of dead letters.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Attempts => "all attempts failed",
            Self::Age => "max_age was over before an attempt succeeded",
            Self::Rejected => "the sink refused the event",
            Self::Gone => "the sink is gone for good",
            Self::Reply => "the answer claimed to be an event and could not be stored as one",
            Self::Loop => "the reply would have exceeded limits.hops",
            Self::Transform => "the transformation failed",
            Self::TriggerRemoved => "the trigger was removed from the configuration",
            Self::Discarded => "discarded by an operator",
            Self::Quarantine => "what came in is no valid event",
            Self::Conflict => "source and id were used before with other content",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// From its number in a snapshot.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}
