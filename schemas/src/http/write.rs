//! Writing events as HTTP messages.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};

use crate::event::{DataForm, Event};
use crate::json;

/// The content type of structured mode, in lower case: a widely used SDK refuses it otherwise.
pub const STRUCTURED_CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";

/// The content type of batch mode.
pub const BATCH_CONTENT_TYPE: &str = "application/cloudevents-batch+json; charset=utf-8";

/// An event that does not fit into headers. Structured mode takes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unencodable {
    #[error("attribute `{attribute}` makes no legal header")]
    Header { attribute: String },
    #[error("the event has more attributes than a message can have headers")]
    TooManyHeaders,
}

/// Writes the attributes into headers and returns the body (HTTP binding, section 3.1). Headers of these names that are
/// there are replaced; if the event has no content type and implies none, `Content-Type` is removed.
pub fn encode_binary(event: &Event, headers: &mut HeaderMap) -> Result<Bytes, Unencodable> {
    headers.remove(CONTENT_TYPE);
    if implies_json(event) {
        insert(headers, CONTENT_TYPE, HeaderValue::from_static("application/json"))?;
    }
    for (attribute, value) in event.attributes() {
        let illegal = || Unencodable::Header { attribute: attribute.to_owned() };
        if attribute == "datacontenttype" {
            let value = HeaderValue::from_str(&value.text).map_err(|_| illegal())?;
            insert(headers, CONTENT_TYPE, value)?;
            continue;
        }
        let name = header_name(attribute).ok_or_else(illegal)?;
        let value = header_value(&value.text).ok_or_else(illegal)?;
        insert(headers, name, value)?;
    }
    Ok(event.data().map(|data| data.bytes.clone()).unwrap_or_default())
}

/// What the headers of [`encode_binary`] take on the wire: names, values, `: ` and line ends. Many receivers take no
/// more than 8 KiB, so a sender may want structured mode for more.
pub fn binary_header_bytes(event: &Event) -> usize {
    const SEPARATORS: usize = ": \r\n".len();
    let implied =
        if implies_json(event) { "content-type".len() + "application/json".len() + SEPARATORS } else { 0 };
    let attribute_bytes = |(name, text): (&str, &str)| {
        if name == "datacontenttype" {
            return "content-type".len() + text.len() + SEPARATORS;
        }
        "ce-".len() + name.len() + encoded_len(text) + SEPARATORS
    };
    implied + event.attributes().map(|(name, value)| attribute_bytes((name, &value.text))).sum::<usize>()
}

/// Writes one event in structured mode: the content type and the body.
pub fn encode_structured(event: &Event) -> (&'static str, Bytes) {
    (STRUCTURED_CONTENT_TYPE, json::encode(event).into())
}

/// Writes events in batch mode: the content type and the body.
pub fn encode_batch(events: &[&Event]) -> (&'static str, Bytes) {
    (BATCH_CONTENT_TYPE, json::encode_batch(events).into())
}

fn implies_json(event: &Event) -> bool {
    let is_implied = event.data().is_some_and(|data| data.form == DataForm::ImpliedJson);
    is_implied && event.datacontenttype().is_none()
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) -> Result<(), Unencodable> {
    match headers.try_insert(name, value) {
        Ok(_replaced) => Ok(()),
        Err(_too_many) => Err(Unencodable::TooManyHeaders),
    }
}

/// The header of an attribute. The names of every event cost no allocation.
fn header_name(attribute: &str) -> Option<HeaderName> {
    match attribute {
        "specversion" => Some(HeaderName::from_static("ce-specversion")),
        "id" => Some(HeaderName::from_static("ce-id")),
        "source" => Some(HeaderName::from_static("ce-source")),
        "type" => Some(HeaderName::from_static("ce-type")),
        "subject" => Some(HeaderName::from_static("ce-subject")),
        "time" => Some(HeaderName::from_static("ce-time")),
        "dataschema" => Some(HeaderName::from_static("ce-dataschema")),
        _ => HeaderName::try_from(["ce-", attribute].concat()).ok(),
    }
}

fn header_value(text: &str) -> Option<HeaderValue> {
    match encode_value(text) {
        Cow::Borrowed(plain) => HeaderValue::from_str(plain).ok(),
        Cow::Owned(encoded) => HeaderValue::from_maybe_shared(Bytes::from(encoded)).ok(),
    }
}

/// Percent-encodes space, `"`, `%` and all beyond printable ASCII, per byte of UTF-8 (HTTP binding, section 3.1.3.2; the
/// NATS binding does the same).
pub fn encode_value(text: &str) -> Cow<'_, str> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let encoded_len = encoded_len(text);
    if encoded_len == text.len() {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(encoded_len);
    for byte in text.bytes() {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            let digit = |nibble: u8| char::from(HEX[usize::from(nibble)]);
            encoded.extend(['%', digit(byte >> 4), digit(byte & 0xF)]);
        }
    }
    Cow::Owned(encoded)
}

fn encoded_len(text: &str) -> usize {
    text.len() + 2 * text.bytes().filter(|byte| !is_plain(*byte)).count()
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'%')
}
