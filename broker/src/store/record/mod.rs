//! The typed records of the log and their bytes.

mod attempt;
mod event;
mod sources;

use std::ops::Range;
use std::sync::Arc;

use super::fields::{self, Reader, Writer, put_number, take_number};
use super::format::{self, RecordType};
use super::{Offset, TriggerId};

use self::attempt::{put_id, take_id};

pub use self::attempt::{Attempted, DeliveryId, Next, decode_attempted, put_attempted};
pub use self::event::{Digest, Heading, Record, append_event, decode_event, event_heading, event_key};
pub use self::sources::{Aside, AsidesGone, Mark, SourcePause};

/// What the log holds. Only events take offsets.
#[derive(Clone, Debug, PartialEq)]
pub enum LogRecord {
    Event(Record),
    Triggers(Arc<TriggerSet>),
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

impl TriggerSet {
    /// The entry of a trigger. Ids go up in a set.
    pub fn entry(&self, id: TriggerId) -> Option<&TriggerEntry> {
        let at = self.triggers.binary_search_by_key(&id, |entry| entry.id).ok()?;
        self.triggers.get(at)
    }
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

#[derive(Clone, Debug, PartialEq)]
pub struct Pause {
    pub trigger: TriggerId,
    /// On the clock of waits.
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

impl Gap {
    /// Which bytes of the segment are lost: of one that was missing, all.
    pub fn bytes(&self) -> Range<u64> {
        if (self.start, self.end) == (0, 0) { 0..u64::MAX } else { self.start..self.end }
    }

    /// Whether these bytes of the segment are lost.
    pub fn takes(&self, bytes: &Range<u64>) -> bool {
        let lost = self.bytes();
        lost.start <= bytes.start && bytes.end <= lost.end
    }
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
                let text = serde_json::to_vec(&**set).unwrap_or_default();
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
                Self::Triggers(Arc::new(serde_json::from_slice(text).map_err(|_| missing("set"))?))
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
