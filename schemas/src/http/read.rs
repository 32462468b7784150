//! Reading events from HTTP messages.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use super::{Mode, Rejection};
use crate::event::{Data, DataForm, Event, Kind, Value};
use crate::json;
use crate::rules::{self, Invalid, Rule};
use crate::syntax::MediaType;

/// Bounds on what is taken. Headers are bounded by the server, before they get here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one event as it was sent: the body in binary and structured mode, the source text of an element of a batch.
    pub event_bytes_max: usize,
    /// Of the body of a batch.
    pub batch_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { event_bytes_max: 1 << 20, batch_bytes_max: 8 << 20 }
    }
}

/// What a message held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// One event, or as many as the batch has.
    pub events: Vec<Event>,
    pub mode: Mode,
}

/// Reads the events of a request or response.
///
/// The mode follows from the content type (HTTP binding, section 3). In structured and batch mode the body alone
/// counts and `ce-` headers are ignored. An event format other than JSON is passed through as the data of a binary
/// event if the headers describe one.
pub fn decode(headers: &HeaderMap, body: Bytes, limits: &Limits) -> Result<Decoded, Rejection> {
    check_content_encoding(headers)?;
    let content_type = content_type(headers)?;
    let mode = mode(headers, content_type)?;
    let bytes_max = match mode {
        Mode::Binary | Mode::Structured => limits.event_bytes_max,
        Mode::Batch => limits.batch_bytes_max,
    };
    if body.len() > bytes_max {
        return Err(Rejection::TooLarge { bytes: body.len(), bytes_max });
    }
    let events = match mode {
        Mode::Binary => vec![binary(headers, content_type, body)?],
        Mode::Structured => vec![json::decode(&body)?],
        Mode::Batch => json::decode_batch(&body, limits.event_bytes_max)?,
    };
    Ok(Decoded { events, mode })
}

/// Whether a message says that it is a CloudEvent, valid or not: by a `ce-specversion` header or its content type.
pub fn claims_to_be_event(headers: &HeaderMap) -> bool {
    let has_cloudevents_type = |value: &HeaderValue| has_prefix(value.as_bytes(), CLOUDEVENTS);
    headers.contains_key("ce-specversion") || headers.get_all(CONTENT_TYPE).iter().any(has_cloudevents_type)
}

const CLOUDEVENTS: &[u8] = b"application/cloudevents";
const CLOUDEVENTS_BATCH: &[u8] = b"application/cloudevents-batch";

fn has_prefix(value: &[u8], prefix: &[u8]) -> bool {
    value.trim_ascii_start().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn check_content_encoding(headers: &HeaderMap) -> Result<(), Rejection> {
    let encodes = |value: &&HeaderValue| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    match headers.get_all(CONTENT_ENCODING).iter().find(encodes) {
        Some(value) => Err(Rejection::ContentEncoding { found: lossy(value.as_bytes()) }),
        None => Ok(()),
    }
}

fn content_type(headers: &HeaderMap) -> Result<Option<&str>, Rejection> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Invalid::new("datacontenttype", Rule::Duplicate).into());
    }
    let text =
        std::str::from_utf8(value.as_bytes()).map_err(|_| Invalid::new("datacontenttype", Rule::Utf8))?;
    Ok(Some(text.trim_matches([' ', '\t'])))
}

fn mode(headers: &HeaderMap, content_type: Option<&str>) -> Result<Mode, Rejection> {
    let is_event_format = |text: &&str| has_prefix(text.as_bytes(), CLOUDEVENTS);
    let Some(text) = content_type.filter(is_event_format) else { return binary_mode(headers) };
    // The prefix of the structured types is one of the batch types too.
    let (mode, json_type) = if has_prefix(text.as_bytes(), CLOUDEVENTS_BATCH) {
        (Mode::Batch, "application/cloudevents-batch+json")
    } else {
        (Mode::Structured, "application/cloudevents+json")
    };
    let Some(media_type) = MediaType::parse(text).filter(|media_type| media_type.is(json_type)) else {
        let describes_event = ["ce-specversion", "ce-id", "ce-source", "ce-type"]
            .iter()
            .all(|name| headers.contains_key(*name));
        return if describes_event {
            Ok(Mode::Binary)
        } else {
            Err(Rejection::MediaType { found: rules::shorten(text) })
        };
    };
    match media_type.foreign_charset() {
        Some(charset) => Err(Rejection::Charset { found: rules::shorten(charset) }),
        None => Ok(mode),
    }
}

fn binary_mode(headers: &HeaderMap) -> Result<Mode, Rejection> {
    if headers.keys().any(|name| name.as_str().starts_with("ce-")) {
        return Ok(Mode::Binary);
    }
    Err(Rejection::NotAnEvent)
}

fn binary(headers: &HeaderMap, content_type: Option<&str>, body: Bytes) -> Result<Event, Rejection> {
    let mut attributes = Vec::with_capacity(12);
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        let text = decode_value(value.as_bytes()).map_err(|rule| Invalid::new(name, rule))?;
        if name == "datacontenttype" && content_type.is_some_and(|known| known.eq_ignore_ascii_case(&text)) {
            continue;
        }
        if name == "datacontenttype" && content_type.is_some() {
            return Err(Invalid::new(name, Rule::ContentTypeConflict).into());
        }
        attributes.push((name.into(), Value { text, kind: Kind::String }));
    }
    if let Some(text) = content_type {
        attributes.push(("datacontenttype".into(), Value { text: text.into(), kind: Kind::String }));
    }
    rules::check(&attributes)?;
    let data = (!body.is_empty()).then_some(Data { bytes: body, form: DataForm::Opaque });
    Ok(Event::from_stored(attributes, data))
}

/// Reads the value of an attribute from a header (HTTP binding, section 3.1.3.2; the NATS binding does the same).
///
/// White space goes, a quoted string is unquoted, then follows one round of percent-decoding. A value that begins with
/// a quote and is not one whole quoted string stands for itself. Fails with [`Rule::Utf8`] only.
pub fn decode_value(value: &[u8]) -> Result<Box<str>, Rule> {
    let value = match value {
        [b' ' | b'\t', ..] | [.., b' ' | b'\t'] => trim_white_space(value),
        _ => value,
    };
    let unquoted = if value.first() == Some(&b'"') { unquote(value) } else { None };
    let bytes = unquoted.as_deref().unwrap_or(value);
    let Some(first_percent) = memchr::memchr(b'%', bytes) else {
        return std::str::from_utf8(bytes).map(Box::from).map_err(|_| Rule::Utf8);
    };
    let decoded = percent_decode(bytes, first_percent);
    String::from_utf8(decoded).map(String::into_boxed_str).map_err(|_| Rule::Utf8)
}

fn trim_white_space(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The content of a value that is one quoted string (RFC 9110, section 5.6.4) from its first byte to its last.
fn unquote(value: &[u8]) -> Option<Vec<u8>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => text.push(*bytes.next()?),
            b'"' => return None,
            _ => text.push(byte),
        }
    }
    Some(text)
}

fn percent_decode(bytes: &[u8], first_percent: usize) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(&bytes[..first_percent]);
    let mut rest = &bytes[first_percent..];
    while let [first, after @ ..] = rest {
        match rest {
            [b'%', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(hex_digit(*high) << 4 | hex_digit(*low));
                rest = after;
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

fn lossy(bytes: &[u8]) -> String {
    rules::shorten(&String::from_utf8_lossy(bytes))
}
