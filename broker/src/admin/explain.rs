//! `POST explain`: which triggers an event matches, and why not the others.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::answer::{self, Answer};
use super::{Admin, trail};
use crate::dispatch::{Core, Dispatch};
use crate::edge::Problem;
use crate::explain::{self, Asked, Candidate};
use crate::store::{LogRecord, Offset, ReadError, Reader, Record, TriggerEntry, TriggerSet, TriggerState};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an event, or an object with `event` or `offset`")]
struct Question {
    event: Option<Box<RawValue>>,
    /// Text as everywhere, or a number.
    offset: Option<Value>,
    /// The entry point of an event that is not stored.
    via: Option<String>,
    #[serde(default)]
    config: When,
}

/// Under which configuration.
#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum When {
    #[default]
    Now,
    /// When the event was routed.
    Then,
}

impl Question {
    /// A bare CloudEvent asks about itself.
    fn read(body: &Bytes) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Bare {
            #[serde(rename = "specversion")]
            _specversion: serde::de::IgnoredAny,
        }
        match serde_json::from_slice::<Bare>(body).and_then(|_| serde_json::from_slice(body)) {
            Ok(event) => Ok(Self { event: Some(event), offset: None, via: None, config: When::Now }),
            Err(_) => answer::body(body),
        }
    }
}

pub async fn explain(State(admin): State<Admin>, body: Bytes) -> Answer {
    let question = Question::read(&body)?;
    match (&question.event, &question.offset) {
        (Some(event), None) => {
            if question.config == When::Then {
                return Err(answer::bad("config", "`then` is for stored events: say `offset`"));
            }
            let bytes = Bytes::copy_from_slice(event.get().as_bytes());
            let event = sluice_schemas::json::decode(&bytes);
            let event = event.map_err(|error| answer::bad("event", format!("`event`: {error}")))?;
            let via = question.via.as_deref().unwrap_or("http");
            if !explain::is_entry_point(via, |name| admin.sources.show(name).is_some()) {
                return Err(answer::bad("via", explain::no_entry_point(via)));
            }
            let candidates = now(&admin.dispatch).await;
            explained(&admin, &Asked { event: &event, via, offset: None }, &candidates, When::Now).await
        }
        (None, Some(offset)) => {
            if question.via.is_some() {
                return Err(answer::bad("via", "a stored event has its entry point"));
            }
            let offset = offset.as_str().map_or_else(|| offset.to_string(), str::to_owned);
            stored(&admin, &offset, question.config).await
        }
        _ => Err(answer::bad("event", "say which: `event` or `offset`")),
    }
}

async fn stored(admin: &Admin, offset: &str, when: When) -> Answer {
    let absent = || answer::not_found("event at offset", offset);
    let number = offset.parse().map(Offset).map_err(|_| absent())?;
    let reader = Arc::clone(admin.dispatch.log().reader());
    let record = trail::blocking(move || reader.read(number)).await?;
    let record: Arc<Record> = record.map_err(|error| match error {
        ReadError::Absent(_) => absent(),
        other => trail::problem(&other),
    })?;
    let candidates = match when {
        When::Now => now(&admin.dispatch).await,
        When::Then => then(admin, number).await?,
    };
    let asked = Asked { event: &record.event, via: &record.via, offset: Some(number) };
    explained(admin, &asked, &candidates, when).await
}

async fn explained(admin: &Admin, asked: &Asked<'_>, candidates: &[Candidate], when: When) -> Answer {
    let mut event =
        json!({ "source": asked.event.source(), "id": asked.event.id(), "type": asked.event.ty() });
    if let Some(offset) = asked.offset {
        event["offset"] = Value::String(offset.to_string());
        event["via"] = Value::String(asked.via.to_owned());
    }
    let config = if when == When::Then { "then" } else { "now" };
    let triggers = explain::explain(admin.dispatch.transforms(), asked, candidates).await;
    answer::json(&json!({ "event": event, "config": config, "triggers": triggers }))
}

/// The triggers in force.
async fn now(dispatch: &Dispatch) -> Vec<Candidate> {
    let look = |core: &Core, entry: &TriggerEntry, state: &TriggerState| {
        let active = Arc::clone(&core.runtimes.get(&entry.id)?.active);
        Some((active, entry.birth, state.paused.as_ref().map(|paused| paused.reason.clone())))
    };
    let seen = dispatch.each_trigger(look).await;
    let candidates = seen.into_iter().map(|(active, birth, paused)| {
        let candidate = Candidate::of_config(&active.name, &active.config);
        Candidate { birth: Some(birth), paused, ..candidate }
    });
    let mut candidates: Vec<_> = candidates.collect();
    candidates.sort_by(|a, b| a.name.cmp(&b.name));
    candidates
}

/// The triggers that were in force when an event was routed.
async fn then(admin: &Admin, offset: Offset) -> Result<Vec<Candidate>, Problem> {
    trail::written(admin.dispatch.log()).await;
    let current = Arc::clone(&admin.dispatch.core().state.set);
    let reader = Arc::clone(admin.dispatch.log().reader());
    let set = trail::blocking(move || set_of(&reader, offset, current)).await?;
    let set = set.map_err(|error| trail::problem(&error))?.ok_or_else(|| {
        let detail = format!("the log no longer holds the triggers that were in force at offset {offset}");
        Problem::new(StatusCode::NOT_FOUND, detail)
    })?;
    let mut candidates: Vec<_> =
        set.triggers.iter().filter(|entry| entry.removed_at_ms.is_none()).map(Candidate::of_entry).collect();
    candidates.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(candidates)
}

/// The set that an event was routed with. An event that no record says that of was routed with the last set before it.
fn set_of(
    reader: &Reader,
    offset: Offset,
    current: Arc<TriggerSet>,
) -> Result<Option<Arc<TriggerSet>>, ReadError> {
    let mut epoch = None;
    reader.walk(offset, &mut |record, _| {
        if let LogRecord::Routed(routed) = record
            && routed.only.is_none()
            && (routed.from..=routed.to).contains(&offset)
        {
            epoch = Some(routed.epoch);
        }
        epoch.is_none()
    })?;
    if epoch == Some(current.epoch) {
        return Ok(Some(current));
    }
    let segments = reader.segments();
    let (before, behind): (Vec<_>, Vec<_>) =
        segments.iter().partition(|segment| segment.header.first_offset <= offset);
    // A set may be written behind an event that was routed with it, but not far.
    for segment in before.into_iter().rev().chain(behind) {
        let mut found: Option<Arc<TriggerSet>> = None;
        reader.walk_segment(segment, &mut |record, _| {
            match (record, epoch) {
                (LogRecord::Triggers(set), Some(epoch)) if set.epoch == epoch => found = Some(set),
                (LogRecord::Triggers(set), None) => found = Some(set),
                (LogRecord::Event(record), None) if record.offset >= offset => return false,
                _ => {}
            }
            epoch.is_none() || found.is_none()
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    // The first set of all is in force as long as there is no other.
    Ok((epoch.is_none() && current.epoch <= 1).then_some(current))
}
