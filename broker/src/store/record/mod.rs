//! The typed records of the log and their bytes.

mod sources;

use std::sync::Arc;

use bytes::Bytes;
use sluice_adapters::TraceContext;
use sluice_schemas::{Data, DataForm, Event, Kind, Value};

use super::fields::{self, Reader, Writer, put_number, take_number};
use super::format::{self, RecordType};
use super::{Offset, TriggerId};
use crate::delivery::Reason;

pub use self::sources::{Aside, AsidesGone, Mark, SourcePause};

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

/// What the log holds. Only events take offsets.
#[derive(Clone, Debug, PartialEq)]
pub enum LogRecord {
    Event(Record),
    Triggers(TriggerSet),
    Routed(Routed),
    Outcomes(Vec<Attempted>),
    Pause(Pause),
    Redrive(Redrive),
    Purge(Purge),
    Gap(Gap),
    /// The backlog of a removed trigger is settled and the trigger is forgotten.
    Dropped(TriggerId),
    Aside(Aside),
    AsidesGone(AsidesGone),
    Mark(Mark),
    SourcePause(SourcePause),
    /// The dead-letter sink has taken these dead letters, or will never.
    Told(Vec<DeliveryId>),
    /// Written by a clean stop: all before it is on disk.
    Close,
}

/// The triggers in force from here on.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TriggerSet {
    pub epoch: u64,
    pub at_ms: u64,
    pub triggers: Vec<TriggerEntry>,
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TriggerEntry {
    pub id: TriggerId,
    pub name: String,
    /// The first offset the trigger sees.
    pub birth: Offset,
    /// What it was configured to match and to make of it, for `explain` of stored events.
    pub filters: serde_json::Value,
    /// Set while the name is gone from the configuration and the backlog is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at_ms: Option<u64>,
}

/// Which triggers the events of a range matched. An offset of the range without a match matched none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routed {
    pub epoch: u64,
    pub from: Offset,
    /// Inclusive.
    pub to: Offset,
    pub matches: Vec<(Offset, Vec<TriggerId>)>,
    /// Set when a trigger born in the past is caught up with its history: only it is concerned.
    pub only: Option<TriggerId>,
}

/// Names a delivery: redrives of one event to one trigger are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    pub trigger: TriggerId,
    pub offset: Offset,
    pub redrive: u32,
}

/// One attempt and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempted {
    pub id: DeliveryId,
    /// From 1; 0 for an ending without an attempt (discarded, trigger removed, too old).
    pub attempt: u32,
    pub at_ms: u64,
    pub duration_ms: u32,
    pub status: Option<u16>,
    pub error: Option<Box<str>>,
    /// The first KiB of a refusing answer.
    pub body: Bytes,
    /// The dead-letter sink is still to be told of this ending.
    pub owes_letter: bool,
    pub next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Delivered,
    RetryAt { due_ms: u64 },
    Dead(Reason),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pause {
    pub trigger: TriggerId,
    pub at_ms: u64,
    /// Why, or `None` when this resumes.
    pub reason: Option<String>,
}

/// Dead letters that are delivered anew, to the trigger given or their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Redrive {
    pub at_ms: u64,
    /// Each with the delivery it becomes.
    pub moved: Vec<(DeliveryId, DeliveryId)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Purge {
    pub at_ms: u64,
    pub ids: Vec<DeliveryId>,
}

/// Offsets that are lost to damage, accepted as lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    pub at_ms: u64,
    pub from: Offset,
    /// Exclusive: equal to `from` when the damaged frames held no event.
    pub to: Offset,
    pub segment: u64,
    /// Bytes of the segment file.
    pub start: u64,
    pub end: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a record of type {0} that this program does not know and must not skip")]
    Unknown(u8),
    #[error("a record of type {0:?} without its `{1}`")]
    Incomplete(RecordType, &'static str),
}

impl LogRecord {
    /// Appends the record to a frame.
    pub fn append_to(&self, frame: &mut Vec<u8>) {
        match self {
            Self::Event(record) => append_event(frame, record),
            Self::Triggers(set) => format::push_record(frame, RecordType::Triggers, |body| {
                let text = serde_json::to_vec(set).unwrap_or_default();
                Writer(body).bytes(1, &text);
            }),
            Self::Routed(routed) => {
                format::push_record(frame, RecordType::Routed, |body| put_routed(body, routed));
            }
            Self::Outcomes(list) => format::push_record(frame, RecordType::Outcomes, |body| {
                for attempted in list {
                    Writer(body).group(1, |body| put_attempted(body, attempted));
                }
            }),
            Self::Pause(pause) => format::push_record(frame, RecordType::Pause, |body| {
                let mut fields = Writer(body);
                fields.number(1, u64::from(pause.trigger.0)).number(2, pause.at_ms);
                if let Some(reason) = &pause.reason {
                    fields.text(3, reason);
                }
            }),
            Self::Redrive(redrive) => format::push_record(frame, RecordType::Redrive, |body| {
                Writer(body).number(1, redrive.at_ms);
                for (from, to) in &redrive.moved {
                    Writer(body).group(2, |body| {
                        put_id(body, *from);
                        put_id(body, *to);
                    });
                }
            }),
            Self::Purge(purge) => format::push_record(frame, RecordType::Purge, |body| {
                Writer(body).number(1, purge.at_ms);
                for id in &purge.ids {
                    Writer(body).group(2, |body| put_id(body, *id));
                }
            }),
            Self::Gap(gap) => format::push_record(frame, RecordType::Gap, |body| {
                let mut fields = Writer(body);
                fields.number(1, gap.at_ms).number(2, gap.from.0).number(3, gap.to.0);
                fields.number(4, gap.segment).number(5, gap.start).number(6, gap.end);
            }),
            Self::Dropped(trigger) => format::push_record(frame, RecordType::Dropped, |body| {
                Writer(body).number(1, u64::from(trigger.0));
            }),
            Self::Aside(aside) => format::push_record(frame, RecordType::Aside, |body| aside.put(body)),
            Self::AsidesGone(gone) => {
                format::push_record(frame, RecordType::AsidesGone, |body| gone.put(body));
            }
            Self::Mark(mark) => format::push_record(frame, RecordType::Mark, |body| mark.put(body)),
            Self::SourcePause(pause) => {
                format::push_record(frame, RecordType::SourcePause, |body| pause.put(body));
            }
            Self::Told(ids) => format::push_record(frame, RecordType::Told, |body| {
                ids.iter().for_each(|id| put_id(body, *id));
            }),
            Self::Close => format::push_record(frame, RecordType::Close, |_| {}),
        }
    }

    /// Reads a record; `None` for one of an unknown kind that may be skipped. `offset` is that of the next event.
    pub fn decode(raw: &format::RawRecord<'_>, offset: Offset) -> Result<Option<Self>, DecodeError> {
        let Some(kind) = RecordType::from_byte(raw.kind) else {
            return if raw.flags & format::CRITICAL != 0 {
                Err(DecodeError::Unknown(raw.kind))
            } else {
                Ok(None)
            };
        };
        let missing = |what| DecodeError::Incomplete(kind, what);
        let body = raw.body;
        Ok(Some(match kind {
            RecordType::Event => Self::Event(decode_event(body, offset).ok_or_else(|| missing("event"))?),
            RecordType::Triggers => {
                let text = field(body, 1).ok_or_else(|| missing("set"))?;
                Self::Triggers(serde_json::from_slice(text).map_err(|_| missing("set"))?)
            }
            RecordType::Routed => Self::Routed(take_routed(body).ok_or_else(|| missing("range"))?),
            RecordType::Outcomes => {
                let attempts =
                    Reader(body).filter(|(tag, _)| *tag == 1).map(|(_, bytes)| decode_attempted(bytes));
                Self::Outcomes(attempts.collect::<Option<_>>().ok_or_else(|| missing("attempt"))?)
            }
            RecordType::Pause => Self::Pause(Pause {
                trigger: TriggerId(number(body, 1).ok_or_else(|| missing("trigger"))? as u32),
                at_ms: number(body, 2).unwrap_or_default(),
                reason: field(body, 3).and_then(fields::text).map(str::to_owned),
            }),
            RecordType::Redrive => {
                let pair = |mut bytes: &[u8]| Some((take_id(&mut bytes)?, take_id(&mut bytes)?));
                let moved = Reader(body).filter(|(tag, _)| *tag == 2).map(|(_, bytes)| pair(bytes));
                let moved = moved.collect::<Option<_>>().ok_or_else(|| missing("delivery"))?;
                Self::Redrive(Redrive { at_ms: number(body, 1).unwrap_or_default(), moved })
            }
            RecordType::Purge => {
                let ids = Reader(body).filter(|(tag, _)| *tag == 2).map(|(_, mut bytes)| take_id(&mut bytes));
                let ids = ids.collect::<Option<_>>().ok_or_else(|| missing("delivery"))?;
                Self::Purge(Purge { at_ms: number(body, 1).unwrap_or_default(), ids })
            }
            RecordType::Gap => {
                let part = |tag| number(body, tag).ok_or_else(|| missing("range"));
                Self::Gap(Gap {
                    at_ms: part(1)?,
                    from: Offset(part(2)?),
                    to: Offset(part(3)?),
                    segment: part(4)?,
                    start: part(5)?,
                    end: part(6)?,
                })
            }
            RecordType::Dropped => {
                Self::Dropped(TriggerId(number(body, 1).ok_or_else(|| missing("trigger"))? as u32))
            }
            RecordType::Aside => Self::Aside(Aside::take(body).ok_or_else(|| missing("record"))?),
            RecordType::AsidesGone => {
                Self::AsidesGone(AsidesGone::take(body).ok_or_else(|| missing("number"))?)
            }
            RecordType::Mark => Self::Mark(Mark::take(body).ok_or_else(|| missing("text"))?),
            RecordType::SourcePause => {
                Self::SourcePause(SourcePause::take(body).ok_or_else(|| missing("source"))?)
            }
            RecordType::Told => {
                let (mut bytes, mut ids) = (body, Vec::new());
                while !bytes.is_empty() {
                    ids.push(take_id(&mut bytes).ok_or_else(|| missing("delivery"))?);
                }
                Self::Told(ids)
            }
            RecordType::Close => Self::Close,
        }))
    }
}

fn field(body: &[u8], tag: u8) -> Option<&[u8]> {
    Reader(body).find(|(found, _)| *found == tag).map(|(_, bytes)| bytes)
}

fn number(body: &[u8], tag: u8) -> Option<u64> {
    field(body, tag).and_then(fields::number)
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

fn take_attributes(mut bytes: &[u8]) -> Option<Vec<(Box<str>, Value)>> {
    let mut attributes = Vec::with_capacity(8);
    while !bytes.is_empty() {
        let name = take_text(&mut bytes)?;
        let (kind, rest) = bytes.split_first()?;
        bytes = rest;
        let kind = match kind {
            0 => Kind::String,
            1 => Kind::Integer,
            2 => Kind::Boolean,
            _ => return None,
        };
        attributes.push((name.into(), Value { text: take_text(&mut bytes)?.into(), kind }));
    }
    Some(attributes)
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

fn put_routed(body: &mut Vec<u8>, routed: &Routed) {
    let mut fields = Writer(body);
    fields.number(1, routed.epoch).number(2, routed.from.0).number(3, routed.to.0);
    if let Some(only) = routed.only {
        fields.number(5, u64::from(only.0));
    }
    fields.group(4, |body| {
        for (offset, triggers) in &routed.matches {
            put_number(body, offset.0 - routed.from.0);
            put_number(body, triggers.len() as u64);
            for trigger in triggers {
                put_number(body, u64::from(trigger.0));
            }
        }
    });
}

fn take_routed(body: &[u8]) -> Option<Routed> {
    let from = number(body, 2)?;
    let mut routed = Routed {
        epoch: number(body, 1)?,
        from: Offset(from),
        to: Offset(number(body, 3)?),
        matches: Vec::new(),
        only: number(body, 5).map(|id| TriggerId(id as u32)),
    };
    let mut bytes = field(body, 4)?;
    while !bytes.is_empty() {
        let offset = Offset(from + take_number(&mut bytes)?);
        let count = take_number(&mut bytes)?;
        let triggers = (0..count).map(|_| take_number(&mut bytes).map(|id| TriggerId(id as u32)));
        routed.matches.push((offset, triggers.collect::<Option<_>>()?));
    }
    Some(routed)
}

fn put_id(body: &mut Vec<u8>, id: DeliveryId) {
    put_number(body, u64::from(id.trigger.0));
    put_number(body, id.offset.0);
    put_number(body, u64::from(id.redrive));
}

fn take_id(bytes: &mut &[u8]) -> Option<DeliveryId> {
    let trigger = TriggerId(take_number(bytes)? as u32);
    let offset = Offset(take_number(bytes)?);
    Some(DeliveryId { trigger, offset, redrive: take_number(bytes)? as u32 })
}

/// The fixed part first, then fields, so that most attempts (delivered at once) take a dozen bytes.
pub fn put_attempted(body: &mut Vec<u8>, attempted: &Attempted) {
    put_id(body, attempted.id);
    put_number(body, u64::from(attempted.attempt));
    put_number(body, attempted.at_ms);
    put_number(body, u64::from(attempted.duration_ms));
    put_number(body, u64::from(attempted.status.unwrap_or(0)));
    let mut fields = Writer(body);
    match attempted.next {
        Next::Delivered => {}
        Next::RetryAt { due_ms } => {
            fields.number(1, due_ms);
        }
        Next::Dead(reason) => {
            fields.text(2, reason.as_str());
        }
    }
    if let Some(error) = &attempted.error {
        fields.text(3, error);
    }
    if !attempted.body.is_empty() {
        fields.bytes(4, &attempted.body);
    }
    if attempted.owes_letter {
        fields.number(5, 1);
    }
}

/// Reads an attempt of an outcome record.
pub fn decode_attempted(mut bytes: &[u8]) -> Option<Attempted> {
    let id = take_id(&mut bytes)?;
    let attempt = take_number(&mut bytes)? as u32;
    let at_ms = take_number(&mut bytes)?;
    let duration_ms = take_number(&mut bytes)? as u32;
    let status = Some(take_number(&mut bytes)? as u16).filter(|status| *status != 0);
    let mut attempted = Attempted {
        id,
        attempt,
        at_ms,
        duration_ms,
        status,
        error: None,
        body: Bytes::new(),
        owes_letter: false,
        next: Next::Delivered,
    };
    for (tag, field) in Reader(bytes) {
        match tag {
            1 => attempted.next = Next::RetryAt { due_ms: fields::number(field)? },
            2 => attempted.next = Next::Dead(Reason::parse(fields::text(field)?)?),
            3 => attempted.error = fields::text(field).map(Into::into),
            4 => attempted.body = Bytes::copy_from_slice(field),
            5 => attempted.owes_letter = true,
            _ => {}
        }
    }
    Some(attempted)
}
