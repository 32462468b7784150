//! The record of an event.

use std::sync::Arc;

use bytes::Bytes;
use sluice_adapters::TraceContext;
use sluice_schemas::{Data, DataForm, Event, Kind, Value};

use super::super::Offset;
use super::super::fields::{self, Reader, Writer, put_number, take_number};
use super::super::format::{self, RecordType};
use super::{field, number};

/// 128 bits of a collision-resistant hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 16]);

/// An event as the log holds it: what came in, and where and how it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub offset: Offset,
    /// Milliseconds since 1970; never decreases from one event to the next.
    pub received_at_ms: u64,
    /// The entry point: `http`, `reply`, or the name of a source.
    pub via: Arc<str>,
    pub trace: Option<TraceContext>,
    /// The event whose delivery was answered with this one.
    pub parent: Option<Offset>,
    pub hops: u32,
    /// Of entry point, source and id.
    pub key: Digest,
    /// Of type, subject, content type and data.
    pub content: Digest,
    pub event: Arc<Event>,
}

mod tag {
    pub const KEY: u8 = 1;
    pub const CONTENT: u8 = 2;
    pub const RECEIVED_AT: u8 = 3;
    pub const VIA: u8 = 4;
    pub const ATTRIBUTES: u8 = 5;
    pub const DATA: u8 = 6;
    pub const IMPLIED_JSON: u8 = 7;
    pub const TRACE_PARENT: u8 = 8;
    pub const TRACE_STATE: u8 = 9;
    pub const PARENT: u8 = 10;
    pub const HOPS: u8 = 11;
}

/// Appends an event record. The key comes first, so that the duplicate window is rebuilt without parsing.
pub fn append_event(frame: &mut Vec<u8>, record: &Record) {
    format::push_record(frame, RecordType::Event, |body| {
        let mut fields = Writer(body);
        fields.bytes(tag::KEY, &record.key.0).bytes(tag::CONTENT, &record.content.0);
        fields.number(tag::RECEIVED_AT, record.received_at_ms).text(tag::VIA, &record.via);
        if let Some(trace) = &record.trace {
            fields.text(tag::TRACE_PARENT, &trace.parent);
            if let Some(state) = &trace.state {
                fields.text(tag::TRACE_STATE, state);
            }
        }
        if let Some(parent) = record.parent {
            fields.number(tag::PARENT, parent.0);
        }
        if record.hops > 0 {
            fields.number(tag::HOPS, u64::from(record.hops));
        }
        fields.group(tag::ATTRIBUTES, |body| put_attributes(body, &record.event));
        if let Some(data) = record.event.data() {
            let tag = if data.form == DataForm::ImpliedJson { tag::IMPLIED_JSON } else { tag::DATA };
            fields.bytes(tag, &data.bytes);
        }
    });
}

/// The key of an event record's body, and when it was received, without reading the rest.
pub fn event_key(body: &[u8]) -> Option<(Digest, u64)> {
    let key = field(body, tag::KEY)?.try_into().ok()?;
    Some((Digest(key), number(body, tag::RECEIVED_AT)?))
}

fn put_attributes(body: &mut Vec<u8>, event: &Event) {
    for (name, value) in event.attributes() {
        put_number(body, name.len() as u64);
        body.extend_from_slice(name.as_bytes());
        body.push(match value.kind {
            Kind::String => 0,
            Kind::Integer => 1,
            Kind::Boolean => 2,
        });
        put_number(body, value.text.len() as u64);
        body.extend_from_slice(value.text.as_bytes());
    }
}

/// What look-ups ask of an event, as it stands in a record's body.
#[derive(Debug)]
pub struct Heading<'a> {
    pub id: &'a str,
    pub source: &'a str,
    pub ty: &'a str,
    pub received_at_ms: u64,
}

/// The heading of an event record's body, without copying or reading the rest.
pub fn event_heading(body: &[u8]) -> Option<Heading<'_>> {
    let (mut id, mut source, mut ty) = (None, None, None);
    let mut attributes = field(body, tag::ATTRIBUTES)?;
    while !attributes.is_empty() {
        let (name, _, text) = take_attribute(&mut attributes)?;
        match name {
            "id" => id = Some(text),
            "source" => source = Some(text),
            "type" => ty = Some(text),
            _ => {}
        }
    }
    Some(Heading { id: id?, source: source?, ty: ty?, received_at_ms: number(body, tag::RECEIVED_AT)? })
}

fn take_attributes(mut bytes: &[u8]) -> Option<Vec<(Box<str>, Value)>> {
    let mut attributes = Vec::with_capacity(8);
    while !bytes.is_empty() {
        let (name, kind, text) = take_attribute(&mut bytes)?;
        attributes.push((name.into(), Value { text: text.into(), kind }));
    }
    Some(attributes)
}

fn take_attribute<'a>(bytes: &mut &'a [u8]) -> Option<(&'a str, Kind, &'a str)> {
    let name = take_text(bytes)?;
    let (kind, rest) = bytes.split_first()?;
    *bytes = rest;
    let kind = match kind {
        0 => Kind::String,
        1 => Kind::Integer,
        2 => Kind::Boolean,
        _ => return None,
    };
    Some((name, kind, take_text(bytes)?))
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = take_number(bytes)? as usize;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

pub fn decode_event(body: &[u8], offset: Offset) -> Option<Record> {
    let (mut key, mut content, mut received_at_ms, mut via) = (None, None, None, None);
    let (mut attributes, mut data, mut parent, mut hops) = (None, None, None, 0);
    let (mut trace_parent, mut trace_state) = (None, None);
    for (tag, bytes) in Reader(body) {
        match tag {
            tag::KEY => key = Some(Digest(bytes.try_into().ok()?)),
            tag::CONTENT => content = Some(Digest(bytes.try_into().ok()?)),
            tag::RECEIVED_AT => received_at_ms = fields::number(bytes),
            tag::VIA => via = fields::text(bytes),
            tag::ATTRIBUTES => attributes = Some(take_attributes(bytes)?),
            tag::DATA => data = Some(Data { bytes: Bytes::copy_from_slice(bytes), form: DataForm::Opaque }),
            tag::IMPLIED_JSON => {
                data = Some(Data { bytes: Bytes::copy_from_slice(bytes), form: DataForm::ImpliedJson });
            }
            tag::TRACE_PARENT => trace_parent = fields::text(bytes),
            tag::TRACE_STATE => trace_state = fields::text(bytes),
            tag::PARENT => parent = fields::number(bytes).map(Offset),
            tag::HOPS => hops = fields::number(bytes)? as u32,
            _ => {}
        }
    }
    Some(Record {
        offset,
        received_at_ms: received_at_ms?,
        via: via?.into(),
        trace: trace_parent
            .map(|parent| TraceContext { parent: parent.into(), state: trace_state.map(Into::into) }),
        parent,
        hops,
        key: key?,
        content: content?,
        event: Arc::new(Event::from_stored(attributes?, data)),
    })
}
