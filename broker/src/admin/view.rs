//! The JSON forms of section "JSON" of the README: one function each.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value, json, value::RawValue};
use sluice_schemas::Event;

use crate::dispatch::{Active, Core, LastError};
use crate::store::{
    Attempted, Books, Log, Next, Offset, Record, TriggerEntry, TriggerId, TriggerState, clock,
};

use super::trail::{self, Attempts};

pub fn time(ms: u64) -> Value {
    if ms == 0 { Value::Null } else { Value::String(clock::rfc3339(ms)) }
}

/// The time of day of a moment on the clock of waits.
pub fn due(steady_ms: u64) -> Value {
    time(clock::wall_at(steady_ms))
}

/// The attributes of an event, without its data.
pub fn attributes(event: &Event) -> Value {
    let members =
        event.attributes().map(|(name, value)| (name.to_owned(), Value::String(value.text.to_string())));
    Value::Object(members.collect::<Map<_, _>>())
}

/// An event in the JSON format, data included, as it stands.
pub fn whole_event(event: &Event) -> Option<Box<RawValue>> {
    String::from_utf8(sluice_schemas::json::encode(event))
        .ok()
        .and_then(|text| RawValue::from_string(text).ok())
}

/// What a source received that became no event. Its size is that of the body as it was received.
pub fn record(aside: &sluice_adapters::Aside) -> Value {
    let record = &aside.record;
    use base64::Engine as _;
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let headers = record.headers.iter().map(|(name, value)| json!([name, text_or_base64(value)]));
    json!({
        "position": record.position,
        "topic": record.topic,
        "subject": record.subject,
        "key": record.key.as_ref().map(|key| text_or_base64(key)),
        "time": record.time_ms.and_then(|ms| u64::try_from(ms).ok()).map(time),
        "headers": headers.collect::<Vec<_>>(),
        "body": record.body.as_ref().map(|body| base64(body)),
        "size": aside.size,
    })
}

/// A row of `events list`.
pub fn event_row(record: &Record) -> Value {
    let event = &record.event;
    json!({
        "offset": record.offset.to_string(),
        "received_at": time(record.received_at_ms),
        "via": &*record.via,
        "id": event.id(),
        "source": event.source(),
        "type": event.ty(),
        "subject": event.subject(),
    })
}

pub fn attempt(attempted: &Attempted) -> Value {
    json!({
        "attempt": attempted.attempt,
        "at": time(attempted.at_ms),
        "status": attempted.status,
        "error": attempted.error,
        "body": text_or_base64(&attempted.body),
        "duration_ms": attempted.duration_ms,
        "by": "delivery",
    })
}

pub fn attempts(attempts: &Attempts) -> Vec<Value> {
    attempts.iter().filter(|attempted| attempted.attempt > 0).map(attempt).collect()
}

fn text_or_base64(bytes: &[u8]) -> Value {
    use base64::Engine as _;
    match std::str::from_utf8(bytes) {
        Ok("") => Value::Null,
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => Value::String(base64::engine::general_purpose::STANDARD.encode(bytes)),
    }
}

pub fn name_of(core: &Core, id: TriggerId) -> String {
    core.state.set.entry(id).map_or_else(|| format!("removed-{}", id.0), |entry| entry.name.clone())
}

pub fn state_word(attempted: Option<&Attempted>, is_in_flight: bool, is_purged: bool) -> &'static str {
    match attempted.map(|attempted| attempted.next) {
        _ if is_in_flight => "in_flight",
        Some(Next::Delivered) => "delivered",
        Some(Next::Dead(_)) if is_purged => "purged",
        Some(Next::Dead(_)) => "dead",
        Some(Next::RetryAt { .. }) | None => "pending",
    }
}

/// A trigger with its books, as far as it is copied under the lock.
pub struct Row {
    name: String,
    active: Option<Arc<Active>>,
    paused_reason: Option<String>,
    is_removed: bool,
    books: Books,
    in_flight: usize,
    retrying: usize,
    oldest: Option<Offset>,
    last_matched_at_ms: u64,
    next_ms: Option<u64>,
    last_error: Option<LastError>,
}

impl Row {
    pub fn of(core: &Core, entry: &TriggerEntry, state: &TriggerState) -> Self {
        let runtime = core.runtimes.get(&entry.id);
        let quiet_until = runtime.and_then(|runtime| runtime.quiet_until(clock::steady_ms())).unwrap_or(0);
        let (mut retrying, mut next_ms) = (0, None);
        for slot in state.outstanding.iter().filter(|slot| slot.attempts > 0) {
            retrying += 1;
            let due_ms = slot.due_ms(core.state.base_ms).max(quiet_until);
            next_ms = Some(next_ms.map_or(due_ms, |next: u64| next.min(due_ms)));
        }
        Self {
            name: entry.name.clone(),
            active: runtime.map(|runtime| Arc::clone(&runtime.active)),
            paused_reason: state.paused.as_ref().map(|paused| paused.reason.clone()),
            is_removed: entry.removed_at_ms.is_some(),
            books: core.state.books(state),
            in_flight: runtime.map_or(0, |runtime| runtime.in_flight.len()),
            retrying,
            oldest: state.oldest_pending(),
            last_matched_at_ms: state.last_matched_at_ms,
            next_ms: next_ms.filter(|_| runtime.is_some()),
            last_error: runtime.and_then(|runtime| runtime.last_error.clone()),
        }
    }

    pub fn pending(&self) -> u64 {
        self.books.pending()
    }

    pub fn oldest(&self) -> Option<Offset> {
        self.oldest
    }

    pub fn to_json(&self, ages: &Ages) -> Value {
        let books = &self.books;
        let last_error = self
            .last_error
            .as_ref()
            .map(|last| json!({ "at": time(last.at_ms), "status": last.status, "error": last.error }));
        json!({
            "name": self.name,
            "sink": self.active.as_ref().map(|active| active.sink.url()),
            "paused": self.paused_reason.is_some(),
            "paused_reason": self.paused_reason,
            "removed": self.is_removed,
            "seen": books.seen(),
            "matched": books.matched,
            "unmatched": books.unmatched,
            "delivered": books.delivered,
            "dead": books.dead,
            "purged": books.purged,
            "lost": books.lost,
            "pending": books.pending(),
            "in_flight": self.in_flight,
            "retrying": self.retrying,
            "oldest_pending_at": self.oldest.and_then(|oldest| ages.received_ms(oldest)).map_or(Value::Null, time),
            "last_matched_at": time(self.last_matched_at_ms),
            "next_at": self.next_ms.map_or(Value::Null, due),
            "last_error": last_error,
        })
    }
}

/// When events were received: asked for the oldest of many triggers at once.
pub struct Ages {
    known: HashMap<Offset, u64>,
    /// The offset behind each segment, and when its last event was received.
    segments: Vec<(Offset, u64)>,
}

/// Events that are read for their time in one go. Others that are not in memory are as old as the last one of their segment.
const AGES_READ_MAX: usize = 256;

impl Ages {
    pub async fn of(log: &Log, offsets: impl Iterator<Item = Offset>) -> Self {
        let reader = Arc::clone(log.reader());
        let extents = reader.segments().iter().map(|segment| segment.extent()).collect::<Vec<_>>();
        let segments = extents.iter().map(|extent| (extent.next_offset, extent.last_received_ms)).collect();
        let (mut known, mut absent) = (HashMap::new(), Vec::new());
        for offset in offsets.collect::<BTreeSet<_>>() {
            match reader.recent(offset) {
                Some(record) => drop(known.insert(offset, record.received_at_ms)),
                None => absent.push(offset),
            }
        }
        absent.truncate(AGES_READ_MAX);
        if !absent.is_empty() {
            let time_of = move |offset| Some((offset, reader.read(offset).ok()?.received_at_ms));
            let read = trail::blocking(move || absent.into_iter().filter_map(time_of).collect::<Vec<_>>());
            known.extend(read.await.unwrap_or_default());
        }
        Self { known, segments }
    }

    pub fn received_ms(&self, offset: Offset) -> Option<u64> {
        self.known.get(&offset).copied().or_else(|| {
            let holder = self.segments.partition_point(|(next, _)| *next <= offset);
            self.segments.get(holder).map(|(_, last_received_ms)| *last_received_ms)
        })
    }
}
