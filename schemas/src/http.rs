//! The HTTP protocol binding (CloudEvents HTTP binding, section 3).
//!
//! Reading is liberal where senders in the field are: a `%` that starts no escape stands for itself, and raw UTF-8 in a
//! header is taken. Writing is strict. What is read must then be a valid event; nothing is repaired or dropped.

mod read;
mod write;

use crate::json;
use crate::rules::Invalid;

pub use read::{Decoded, Limits, claims_to_be_event, decode, decode_value};
pub use write::{
    BATCH_CONTENT_TYPE, STRUCTURED_CONTENT_TYPE, Unencodable, binary_header_bytes, encode_batch,
    encode_binary, encode_structured, encode_value,
};

/// How events stand in an HTTP message (HTTP binding, section 1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Attributes in headers, the body is the data.
    Binary,
    /// The body is one event in the JSON format.
    Structured,
    /// The body is an array of events in the JSON format.
    Batch,
}

/// Why a message is refused. Its text is meant for the sender: it names the attribute and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("not a CloudEvent: need ce-specversion or application/cloudevents+json")]
    NotAnEvent,
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Structured(#[from] json::Error),
    #[error(transparent)]
    Batch(#[from] json::BatchError),
    #[error("the body has {bytes} bytes, at most {bytes_max} are taken")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error(
        "unsupported media type `{found}`: events are taken as application/cloudevents+json, as \
         application/cloudevents-batch+json, or with ce- headers for all of specversion, id, source and type"
    )]
    MediaType { found: String },
    #[error("unsupported charset `{found}`: events in JSON are taken in UTF-8")]
    Charset { found: String },
    #[error("unsupported content encoding `{found}`: bodies are taken as they are, without Content-Encoding")]
    ContentEncoding { found: String },
}

impl Rejection {
    /// The status to answer with: 400, 413 or 415.
    pub fn status(&self) -> u16 {
        match self {
            Self::MediaType { .. } | Self::Charset { .. } | Self::ContentEncoding { .. } => 415,
            Self::TooLarge { .. } => 413,
            Self::Structured(error) | Self::Batch(json::BatchError { error, .. }) if error.is_too_large() => {
                413
            }
            Self::NotAnEvent | Self::Invalid(_) | Self::Structured(_) | Self::Batch(_) => 400,
        }
    }

    /// The attribute or member at fault, if it is a certain one.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Invalid(invalid) => Some(&invalid.attribute),
            Self::Structured(error) | Self::Batch(json::BatchError { error, .. }) => error.field(),
            Self::NotAnEvent | Self::TooLarge { .. } => None,
            Self::MediaType { .. } | Self::Charset { .. } | Self::ContentEncoding { .. } => None,
        }
    }

    /// Which event of a batch is at fault, counted from 0.
    pub fn index(&self) -> Option<usize> {
        if let Self::Batch(error) = self { error.index } else { None }
    }
}
