//! Why a publisher's request is refused, and how that is said.

use http::{HeaderValue, StatusCode};
use sluice_adapters::Refusal;
use sluice_schemas::http::Rejection;

use super::body::BODY_DEADLINE;
use super::{GateState, Reason};
use crate::edge::Problem;

/// Until a request finished and gave back its bytes.
const BUSY_RETRY_SECONDS: u32 = 1;
/// Until an operator lets a paused source go on.
const PAUSED_RETRY_SECONDS: u32 = 60;
/// Until a start or restart is over, or somebody made room.
const STORE_RETRY_SECONDS: u32 = 5;

#[derive(Debug)]
pub(super) enum Refused {
    Gate(GateState),
    ContentEncoding(HeaderValue),
    TooLarge {
        bytes_max: usize,
    },
    /// The byte budget has no room.
    Busy,
    /// The body did not come in time.
    Late,
    /// The body ended early, or its chunks are malformed.
    BrokenBody,
    Event(Rejection),
    Store(Refusal),
    /// No source is delivered to by this name.
    NoHook,
    /// The sender of a delivery did not prove who he is.
    Denied,
    /// The source takes nothing for the moment.
    Paused,
}

/// The same for a source that does not exist and for a sender that is none of its: it tells neither what to try next.
const NOT_YOURS: &str = "there is no such hook, or the delivery does not prove that it may use it";

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self::Event(rejection)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Store(refusal)
    }
}

impl Refused {
    /// The label of the metric; nothing for a path that does not exist.
    pub(super) fn reason(&self) -> Option<Reason> {
        Some(match self {
            Self::NoHook => return None,
            Self::Denied => Reason::Unauthorized,
            Self::Gate(GateState::Full(_)) | Self::Store(Refusal::Full { .. }) => Reason::Full,
            Self::Gate(_) | Self::Busy | Self::Paused | Self::Store(Refusal::Unavailable { .. }) => {
                Reason::Busy
            }
            Self::Store(Refusal::Conflict { .. }) => Reason::Conflict,
            Self::ContentEncoding(_) => Reason::MediaType,
            Self::TooLarge { .. } | Self::Store(Refusal::TooLarge { .. }) => Reason::TooLarge,
            Self::Late => Reason::Timeout,
            Self::BrokenBody => Reason::Malformed,
            Self::Event(rejection) => event_reason(rejection),
        })
    }

    pub(super) fn problem(&self) -> Problem {
        match self {
            Self::Gate(state) => gate(state),
            Self::Busy => unavailable("too many bytes are in flight", BUSY_RETRY_SECONDS),
            Self::ContentEncoding(found) => {
                let found = String::from_utf8_lossy(found.as_bytes());
                let detail = format!(
                    "unsupported content encoding `{found}`: bodies are taken as they are, without Content-Encoding"
                );
                Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).field("Content-Encoding")
            }
            Self::TooLarge { bytes_max } => {
                let detail = format!("the body is larger than {bytes_max} bytes");
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).closing()
            }
            Self::Late => {
                let detail = format!("the body did not come within {} seconds", BODY_DEADLINE.as_secs());
                Problem::new(StatusCode::REQUEST_TIMEOUT, detail).closing()
            }
            Self::BrokenBody => {
                Problem::new(StatusCode::BAD_REQUEST, "the body is cut off or its chunks are malformed")
                    .closing()
            }
            Self::Event(rejection) => event(rejection),
            Self::Store(refusal) => store(refusal),
            // Nothing of the body may have been read.
            Self::NoHook => Problem::new(StatusCode::NOT_FOUND, NOT_YOURS).closing(),
            Self::Denied => Problem::new(StatusCode::UNAUTHORIZED, NOT_YOURS).closing(),
            Self::Paused => unavailable("the source is paused", PAUSED_RETRY_SECONDS).closing(),
        }
    }
}

fn unavailable(detail: impl Into<String>, retry_after_seconds: u32) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after_seconds(retry_after_seconds)
}

fn gate(state: &GateState) -> Problem {
    let detail = match state {
        GateState::Full(reason) => format!("the store is full: {reason}"),
        GateState::Failed(reason) => format!("the store has failed: {reason}"),
        GateState::Draining => "the broker is stopping".into(),
        GateState::Starting | GateState::Ready => "the broker is starting".into(),
    };
    unavailable(detail, STORE_RETRY_SECONDS)
}

fn store(refusal: &Refusal) -> Problem {
    match refusal {
        Refusal::Conflict { .. } => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, refusal.to_string()).field("id")
        }
        Refusal::TooLarge { .. } => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, refusal.to_string()),
        Refusal::Full { .. } | Refusal::Unavailable { .. } => {
            unavailable(refusal.to_string(), STORE_RETRY_SECONDS)
        }
    }
}

fn event_reason(rejection: &Rejection) -> Reason {
    match rejection.status() {
        413 => Reason::TooLarge,
        415 => Reason::MediaType,
        _ if rejection.field().is_some() => Reason::Invalid,
        _ => Reason::Malformed,
    }
}

/// The text of a rejection names the attribute and, in a batch, the index.
fn event(rejection: &Rejection) -> Problem {
    let status = StatusCode::from_u16(rejection.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let problem = Problem::new(status, rejection.to_string());
    match rejection.field() {
        Some(field) => problem.field(field),
        None => problem,
    }
}
