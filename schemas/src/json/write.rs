//! Writing the JSON format.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::value::RawValue;

use super::is_too_deep;
use crate::event::{Data, DataForm, Event, Kind};
use crate::syntax::MediaType;

/// Writes one event: attributes in received order, then the data. Nothing is ever written as null.
pub fn encode(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(size_estimate(event));
    write_event(&mut out, event);
    out
}

/// Writes a batch.
pub fn encode_batch(events: &[&Event]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + events.iter().map(|event| size_estimate(event) + 1).sum::<usize>());
    out.push(b'[');
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_event(&mut out, event);
    }
    out.push(b']');
    out
}

/// What the event takes when nothing needs an escape and the data no base64.
fn size_estimate(event: &Event) -> usize {
    let attributes: usize = event.attributes().map(|(name, value)| name.len() + value.text.len() + 6).sum();
    attributes + event.data().map_or(0, |data| data.bytes.len() + 16) + 2
}

fn write_event(out: &mut Vec<u8>, event: &Event) {
    out.push(b'{');
    for (index, (name, value)) in event.attributes().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, name);
        out.push(b':');
        match value.kind {
            Kind::String => write_string(out, &value.text),
            Kind::Integer | Kind::Boolean => out.extend_from_slice(value.text.as_bytes()),
        }
    }
    if let Some(data) = event.data() {
        out.push(b',');
        write_data(out, data, event.datacontenttype());
    }
    out.push(b'}');
}

fn write_data(out: &mut Vec<u8>, data: &Data, content_type: Option<&str>) {
    match member(data, content_type) {
        Member::Json => {
            out.extend_from_slice(b"\"data\":");
            out.extend_from_slice(&data.bytes);
        }
        Member::Text(text) => {
            out.extend_from_slice(b"\"data\":");
            write_string(out, text);
        }
        Member::Base64 => {
            out.extend_from_slice(b"\"data_base64\":\"");
            out.extend_from_slice(BASE64_STANDARD.encode(&data.bytes).as_bytes());
            out.push(b'"');
        }
    }
}

/// How the data is written.
enum Member<'a> {
    Json,
    Text(&'a str),
    Base64,
}

fn member<'a>(data: &'a Data, content_type: Option<&str>) -> Member<'a> {
    let media_type = content_type.and_then(MediaType::parse);
    let is_json = match content_type {
        Some(_) => media_type.is_some_and(|parsed| parsed.is_json()),
        None => data.form == DataForm::ImpliedJson,
    };
    if is_json {
        return if is_embeddable(&data.bytes) { Member::Json } else { Member::Base64 };
    }
    let is_text = media_type.is_some_and(|parsed| parsed.is_text());
    match std::str::from_utf8(&data.bytes) {
        Ok(text) if is_text => Member::Text(text),
        Ok(_) | Err(_) => Member::Base64,
    }
}

/// Whether the bytes are one JSON value that other parsers will read. A raw value is scanned without a tree and
/// without recursion.
fn is_embeddable(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok() && !is_too_deep(bytes)
}

/// Writes a JSON string; only what JSON demands is escaped.
fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut written = 0;
    out.push(b'"');
    for (at, &byte) in bytes.iter().enumerate() {
        if !matches!(byte, b'"' | b'\\' | 0..=0x1F) {
            continue;
        }
        out.extend_from_slice(&bytes[written..at]);
        written = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 0xF)]);
            }
        }
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}
