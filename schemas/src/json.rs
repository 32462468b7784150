//! The JSON event format (CloudEvents JSON format, sections 2 to 4).
//!
//! `data` is kept as the source text of its value and written as it was: no tree is built, so key order, duplicate
//! keys and the spelling of numbers survive. Only white space around the value is not part of it.
//!
//! ```text
//! datacontenttype      member read      data of the event                 member written
//! JSON, e.g. */*+json  data             source text of the value          data, if the bytes are JSON, else data_base64
//! none                 data             the same, `ImpliedJson`           data
//! text/*, */*+xml      data (a string)  the text of the string            data, if the bytes are UTF-8, else data_base64
//! anything else        data (a string)  the text of the string            data_base64
//! any or none          data_base64      the decoded bytes                 as above; with no content type data_base64
//! ```

mod read;
mod write;

use crate::rules::Invalid;
use crate::syntax::MediaType;

pub use read::{decode, decode_batch};
pub use write::{encode, encode_batch};

/// How deep `data` may nest. Most parsers stop at 127 levels or so, and an array and an object come on top in a batch:
/// deeper `data` is refused, and deeper JSON that came in another format is written as `data_base64`.
pub const DATA_DEPTH_MAX: usize = 125;

/// Why bytes are not an event in the JSON format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("not valid UTF-8 at line {line} column {column}")]
    NotUtf8 { line: usize, column: usize },
    #[error("not valid JSON at line {line} column {column}: {reason}")]
    Syntax { line: usize, column: usize, reason: String },
    #[error("expected {expected}, found {found}")]
    Shape { expected: &'static str, found: &'static str },
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("`data` and `data_base64` exclude each other")]
    BothData,
    #[error("`data` must be a string, because `datacontenttype` names no JSON: found {found}")]
    DataNotAString { found: &'static str },
    #[error("`data` holds a surrogate that has no partner, or a broken escape")]
    DataEscape,
    #[error("`data` nests deeper than {DATA_DEPTH_MAX} levels")]
    DataDepth,
    #[error("`data_base64` must be a string of padded standard base64 (RFC 4648, section 4)")]
    Base64,
    #[error("the event has {bytes} bytes, at most {bytes_max} are taken")]
    TooLarge { bytes: usize, bytes_max: usize },
}

impl Error {
    /// Whether a smaller event might be taken: the answer then is 413, else 400.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. })
    }

    /// The attribute or member that is at fault, if it is a certain one.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Invalid(invalid) => Some(&invalid.attribute),
            Self::BothData | Self::DataNotAString { .. } | Self::DataEscape | Self::DataDepth => Some("data"),
            Self::Base64 => Some("data_base64"),
            Self::NotUtf8 { .. } | Self::Syntax { .. } | Self::Shape { .. } | Self::TooLarge { .. } => None,
        }
    }
}

/// Why bytes are not a batch, and which of its events is at fault (counted from 0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchError {
    pub index: Option<usize>,
    pub error: Error,
}

impl std::error::Error for BatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl std::fmt::Display for BatchError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.index {
            Some(index) => write!(out, "event {index} of the batch: {}", self.error),
            None => self.error.fmt(out),
        }
    }
}

/// Whether a content type says that the data is JSON: `*/json` or `*/*+json` (section 3.1).
pub fn is_json(content_type: &str) -> bool {
    MediaType::parse(content_type).is_some_and(|parsed| parsed.is_json())
}

/// The type of a JSON value that begins with this byte, in words.
fn type_name(first: Option<u8>) -> &'static str {
    match first {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        Some(b'-' | b'0'..=b'9') => "a number",
        Some(_) => "no JSON value",
        None => "nothing",
    }
}

/// Whether JSON text nests deeper than [`DATA_DEPTH_MAX`]. The text is valid JSON.
fn is_too_deep(text: &[u8]) -> bool {
    let openings = text.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if openings <= DATA_DEPTH_MAX {
        return false;
    }
    let (mut depth, mut is_in_string, mut at) = (0_usize, false, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => is_in_string = !is_in_string,
            b'[' | b'{' if !is_in_string => depth += 1,
            b']' | b'}' if !is_in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DATA_DEPTH_MAX {
            return true;
        }
        at += 1;
    }
    false
}
