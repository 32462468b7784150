//! Reading the JSON format.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{BatchError, Error, is_json, is_too_deep, type_name};
use crate::event::{Data, DataForm, Event, Kind, Value};
use crate::rules::{self, Invalid, Rule};

/// Reads one event (JSON format, section 3). A leading byte order mark is skipped.
pub fn decode(body: &Bytes) -> Result<Event, Error> {
    let text = utf8(body)?;
    expect_opening(text, b'{', "a JSON object with one event")?;
    event(body, text).map_err(|error| in_body(error, body, text))
}

/// Reads a batch (JSON format, section 4) up to its first error. Each event may have `event_bytes_max` bytes of source
/// text; that the whole has a bound is for the caller to see to.
pub fn decode_batch(body: &Bytes, event_bytes_max: usize) -> Result<Vec<Event>, BatchError> {
    let whole = |error| BatchError { index: None, error };
    let text = utf8(body).map_err(whole)?;
    expect_opening(text, b'[', "a JSON array of events").map_err(whole)?;
    let mut batch = Batch { body, event_bytes_max, events: Vec::new(), failure: None };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let outcome = deserializer.deserialize_seq(&mut batch).and_then(|()| deserializer.end());
    match (batch.failure, outcome) {
        (Some(failure), _) => Err(failure),
        (None, Err(error)) => Err(whole(in_body(syntax(&error), body, text))),
        (None, Ok(())) => Ok(batch.events),
    }
}

fn utf8(body: &[u8]) -> Result<&str, Error> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let (line, column) = position(body, error.valid_up_to());
        Error::NotUtf8 { line, column }
    })?;
    Ok(text.strip_prefix('\u{FEFF}').unwrap_or(text))
}

fn expect_opening(text: &str, opening: u8, expected: &'static str) -> Result<(), Error> {
    let first = text.bytes().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    if first == Some(opening) {
        return Ok(());
    }
    Err(Error::Shape { expected, found: type_name(first) })
}

struct Batch<'a> {
    body: &'a Bytes,
    event_bytes_max: usize,
    events: Vec<Event>,
    failure: Option<BatchError>,
}

impl Batch<'_> {
    fn element(&self, text: &str) -> Result<Event, Error> {
        if text.len() > self.event_bytes_max {
            return Err(Error::TooLarge { bytes: text.len(), bytes_max: self.event_bytes_max });
        }
        expect_opening(text, b'{', "a JSON object")?;
        event(self.body, text).map_err(|error| in_body(error, self.body, text))
    }
}

impl<'de> Visitor<'de> for &mut Batch<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(raw) = elements.next_element::<&RawValue>()? {
            match self.element(raw.get()) {
                Ok(event) => self.events.push(event),
                Err(error) => {
                    self.failure = Some(BatchError { index: Some(self.events.len()), error });
                    return Err(A::Error::custom("an event is at fault"));
                }
            }
        }
        Ok(())
    }
}

/// Reads an event from its source text, which lies in `body`. Positions in errors are relative to the text.
fn event(body: &Bytes, text: &str) -> Result<Event, Error> {
    let members = Members::read(text)?.0;
    if let Some(name) = rules::first_duplicate(members.iter().map(|(name, _)| &*name.0)) {
        return Err(Invalid::new(name, Rule::Duplicate).into());
    }
    let mut attributes = Vec::with_capacity(members.len());
    let (mut data, mut data_base64) = (None, None);
    for (name, raw) in members {
        match &*name.0 {
            "data" => data = Some(raw),
            "data_base64" if raw.get() == "null" => {}
            "data_base64" => data_base64 = Some(raw),
            _ if raw.get() == "null" => {
                rules::check_name(&name.0).map_err(|rule| Invalid::new(&name.0, rule))?;
            }
            _ => {
                let value = value(raw.get()).map_err(|rule| Invalid::new(&name.0, rule))?;
                attributes.push((name.0.into(), value));
            }
        }
    }
    rules::check(&attributes)?;
    let content_type = attributes.iter().find(|(name, _)| **name == *"datacontenttype");
    let content_type = content_type.map(|(_, value)| &*value.text);
    let data = match (data, data_base64) {
        (None, None) => None,
        (Some(_), Some(_)) => return Err(Error::BothData),
        (Some(raw), None) => Some(plain_data(body, raw.get(), content_type)?),
        (None, Some(raw)) => Some(base64_data(raw.get())?),
    };
    Ok(Event::from_stored(attributes, data))
}

/// The members of an object in received order, values as source text.
struct Members<'a>(Vec<(Name<'a>, &'a RawValue)>);

impl<'a> Members<'a> {
    fn read(text: &'a str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|error| syntax(&error))
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

/// A string that is borrowed where it has no escapes, which serde's own `Cow` is not.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}

fn value(raw: &str) -> Result<Value, Rule> {
    let first = raw.bytes().next();
    match first {
        Some(b'"') => {
            let text = string(raw).ok_or(Rule::Escape)?;
            Ok(Value { text: text.into(), kind: Kind::String })
        }
        Some(b't' | b'f') => Ok(Value { text: raw.into(), kind: Kind::Boolean }),
        // `-0` is an integer of JSON; its canonical text has no sign.
        Some(b'-') if raw == "-0" => Ok(Value { text: "0".into(), kind: Kind::Integer }),
        Some(b'-' | b'0'..=b'9') => Ok(Value { text: raw.into(), kind: Kind::Integer }),
        _ => Err(Rule::Type { found: type_name(first) }),
    }
}

/// The text of a JSON string, or nothing if its escapes make no Unicode text.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).ok().map(Cow::Owned)
}

fn plain_data(body: &Bytes, raw: &str, content_type: Option<&str>) -> Result<Data, Error> {
    if content_type.is_none_or(is_json) {
        if is_too_deep(raw.as_bytes()) {
            return Err(Error::DataDepth);
        }
        let form = if content_type.is_none() { DataForm::ImpliedJson } else { DataForm::Opaque };
        return Ok(Data { bytes: body.slice_ref(raw.as_bytes()), form });
    }
    if !raw.starts_with('"') {
        return Err(Error::DataNotAString { found: type_name(raw.bytes().next()) });
    }
    let bytes = match string(raw).ok_or(Error::DataEscape)? {
        Cow::Borrowed(text) => body.slice_ref(text.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    };
    Ok(Data { bytes, form: DataForm::Opaque })
}

fn base64_data(raw: &str) -> Result<Data, Error> {
    let text = string(raw).ok_or(Error::Base64)?;
    let bytes = BASE64_STANDARD.decode(text.as_bytes()).map_err(|_| Error::Base64)?;
    Ok(Data { bytes: bytes.into(), form: DataForm::Opaque })
}

fn syntax(error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(&*text, |(reason, _)| reason);
    Error::Syntax { line: error.line(), column: error.column(), reason: rules::shorten(reason) }
}

/// Turns the position of a syntax error in a part of the body into one in the whole.
fn in_body(error: Error, body: &[u8], part: &str) -> Error {
    let Error::Syntax { line, column, reason } = error else { return error };
    let (first_line, first_column) = position(body, part.as_ptr().addr() - body.as_ptr().addr());
    let column = if line <= 1 { first_column - 1 + column } else { column };
    Error::Syntax { line: first_line - 1 + line, column, reason }
}

/// Line and column, both from 1, the column in bytes.
fn position(body: &[u8], at: usize) -> (usize, usize) {
    let before = &body[..at.min(body.len())];
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
    (memchr::memchr_iter(b'\n', before).count() + 1, before.len() - line_start + 1)
}
