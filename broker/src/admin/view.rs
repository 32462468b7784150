//! The JSON forms of section "JSON" of the README: one function each.

use serde_json::{Map, Value, json, value::RawValue};
use sluice_schemas::Event;

use crate::dispatch::{Core, Runtime};
use crate::store::{Attempted, Next, Record, TriggerEntry, TriggerId, TriggerState, clock};

use super::trail::Attempts;

pub fn time(ms: u64) -> Value {
    if ms == 0 { Value::Null } else { Value::String(clock::rfc3339(ms)) }
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
    let entry = core.state.set.triggers.iter().find(|entry| entry.id == id);
    entry.map_or_else(|| format!("removed-{}", id.0), |entry| entry.name.clone())
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

/// A trigger with its books.
pub fn trigger(core: &Core, entry: &TriggerEntry, state: &TriggerState) -> Value {
    let runtime = core.runtimes.get(&entry.id);
    let books = core.state.books(state);
    let in_flight = runtime.map_or(0, |runtime| runtime.in_flight.len());
    let retrying = state.outstanding.iter().filter(|slot| slot.attempts > 0).count();
    let last_error = runtime
        .and_then(|runtime| runtime.last_error.as_ref())
        .map(|last| json!({ "at": time(last.at_ms), "status": last.status, "error": last.error }));
    json!({
        "name": entry.name,
        "sink": runtime.map(|runtime| runtime.active.sink.url()),
        "paused": state.paused.is_some(),
        "paused_reason": state.paused.as_ref().map(|paused| paused.reason.as_str()),
        "removed": entry.removed_at_ms.is_some(),
        "seen": books.seen(),
        "matched": books.matched,
        "unmatched": books.unmatched,
        "delivered": books.delivered,
        "dead": books.dead,
        "purged": books.purged,
        "lost": books.lost,
        "pending": books.pending(),
        "in_flight": in_flight,
        "retrying": retrying,
        "oldest_pending_at": oldest_pending_ms(core, state).map_or(Value::Null, time),
        "last_matched_at": time(state.last_matched_at_ms),
        "next_at": next_ms(core, runtime, state).map_or(Value::Null, time),
        "last_error": last_error,
    })
}

/// When the oldest event was received that a trigger still owes an answer for.
pub fn oldest_pending_ms(core: &Core, state: &TriggerState) -> Option<u64> {
    let redriven = state.redriven.keys().map(|(offset, _)| *offset).next();
    let oldest = [state.outstanding.first(), redriven, state.behind].into_iter().flatten().min()?;
    core.log.reader().recent(oldest).map(|record| record.received_at_ms).or_else(|| {
        let segments = core.log.reader().segments();
        let holder = segments.iter().find(|segment| segment.extent().next_offset > oldest)?;
        Some(holder.extent().last_received_ms)
    })
}

fn next_ms(core: &Core, runtime: Option<&Runtime>, state: &TriggerState) -> Option<u64> {
    runtime?;
    let base = core.state.base_ms;
    state.outstanding.iter().filter(|slot| slot.attempts > 0).map(|slot| slot.due_ms(base)).min()
}
