//! Events: listed newest first, shown with what became of them.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::answer::{self, Answer};
use super::trail::{self, Trail};
use super::{Admin, view};
use crate::dispatch::Core;
use crate::edge::Problem;
use crate::store::{DeliveryId, Offset, ReadError, Record, TriggerEntry, Wanted};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;

fn wanted(query: &HashMap<String, String>) -> Result<Wanted, Problem> {
    let text = |name: &str| query.get(name).cloned();
    let before = query.get("cursor").map(|text| text.parse().map(Offset)).transpose();
    Ok(Wanted {
        ty: text("type"),
        source: text("source"),
        subject: text("subject"),
        via: text("via"),
        since_ms: moment(query, "since")?.unwrap_or(0),
        until_ms: moment(query, "until")?,
        before: before.map_err(|_| answer::bad("cursor", "`cursor` is what `next` of a list said"))?,
        limit: answer::limit(query, LIMIT_DEFAULT, LIMIT_MAX)?,
    })
}

/// An RFC 3339 time in a query, or a duration back from now, in milliseconds.
pub fn moment(query: &HashMap<String, String>, name: &str) -> Result<Option<u64>, Problem> {
    let Some(text) = query.get(name) else { return Ok(None) };
    let parsed = text.parse::<jiff::Timestamp>().ok().or_else(|| ago(text));
    let wanted = || format!("`{name}` is an RFC 3339 time or a duration such as `2h`, not `{text}`");
    let parsed = parsed.ok_or_else(|| answer::bad(name, wanted()))?;
    Ok(Some(u64::try_from(parsed.as_millisecond()).unwrap_or(0)))
}

fn ago(text: &str) -> Option<jiff::Timestamp> {
    let back =
        text.parse::<jiff::Span>().ok()?.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
    if back.is_negative() {
        return None;
    }
    jiff::Timestamp::now().checked_sub(back).ok()
}

pub async fn list(State(admin): State<Admin>, Query(query): Query<HashMap<String, String>>) -> Answer {
    let wanted = wanted(&query)?;
    let index = Arc::clone(admin.dispatch.log().index());
    let limit = wanted.limit;
    let records =
        trail::blocking(move || index.events(&wanted)).await?.map_err(|error| trail::problem(&error))?;
    let next = records.get(limit.wrapping_sub(1)).map(|last| last.offset.to_string());
    let rows: Vec<Value> = records.iter().take(limit).map(view::event_row).collect();
    answer::list(&rows, next.as_deref())
}

#[derive(Serialize)]
struct Shown {
    offset: String,
    received_at: Value,
    via: String,
    parent: Option<String>,
    hops: u32,
    event: Option<Box<RawValue>>,
    deliveries: Vec<Value>,
    unmatched: Vec<String>,
}

pub async fn show(
    State(admin): State<Admin>,
    Path(offset): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let absent = || answer::not_found("event at offset", &offset);
    let number = offset.parse().map(Offset).map_err(|_| absent())?;
    let reader = Arc::clone(admin.dispatch.log().reader());
    let read = trail::blocking(move || reader.read(number)).await?;
    let record = read.map_err(|error| match error {
        ReadError::Absent(_) => absent(),
        other => trail::problem(&other),
    })?;
    if query.contains_key("raw") {
        return raw(&record);
    }
    shown(&admin, record).await
}

pub async fn by_id(State(admin): State<Admin>, Query(query): Query<HashMap<String, String>>) -> Answer {
    let part = |name: &str| {
        query.get(name).cloned().ok_or_else(|| answer::bad(name, format!("`{name}` is missing")))
    };
    let (source, id) = (part("source")?, part("id")?);
    let index = Arc::clone(admin.dispatch.log().index());
    let name = format!("{source} {id}");
    let found = trail::blocking(move || index.by_id(&source, &id)).await?;
    let record =
        found.map_err(|error| trail::problem(&error))?.ok_or_else(|| answer::not_found("event", &name))?;
    shown(&admin, Arc::new(record)).await
}

fn raw(record: &Record) -> Result<Response, Problem> {
    answer::json(&view::whole_event(&record.event))
}

async fn shown(admin: &Admin, record: Arc<Record>) -> Answer {
    trail::written(admin.dispatch.log()).await;
    let log = admin.dispatch.log().clone();
    let offset = record.offset;
    let mut trail =
        trail::blocking(move || trail::trail(&log, offset)).await?.map_err(|error| trail::problem(&error))?;
    add_unwritten(admin, offset, &mut trail);
    let event = view::whole_event(&record.event);
    let core = admin.dispatch.core();
    let mut deliveries = Vec::new();
    for ((trigger, redrive), attempts) in &trail.deliveries {
        let id = DeliveryId { trigger: *trigger, offset, redrive: *redrive };
        let runtime = core.runtimes.get(trigger);
        let is_in_flight = runtime.is_some_and(|runtime| runtime.in_flight.contains(&id));
        let slot = core.state.triggers.get(trigger).and_then(|state| state.slot(id));
        let last = attempts.last();
        let is_purged = trail.purged.contains(&(*trigger, *redrive));
        let next_at = slot
            .filter(|slot| slot.attempts > 0)
            .map_or(Value::Null, |slot| view::due(slot.due_ms(core.state.base_ms)));
        deliveries.push(json!({
            "trigger": view::name_of(&core, *trigger),
            "redrive": redrive,
            "state": view::state_word(last, is_in_flight, is_purged),
            "attempts": view::attempts(attempts),
            "attempts_omitted": attempts.omitted,
            "next_at": next_at,
        }));
    }
    let is_unmatched = |entry: &&TriggerEntry| {
        trail.is_routed && !trail.matched.contains(&entry.id) && has_seen(&core, entry, offset)
    };
    let unmatched = core.state.set.triggers.iter().filter(is_unmatched);
    let shown = Shown {
        offset: offset.to_string(),
        received_at: view::time(record.received_at_ms),
        via: record.via.to_string(),
        parent: record.parent.map(|parent| parent.to_string()),
        hops: record.hops,
        event,
        deliveries,
        unmatched: unmatched.map(|entry| entry.name.clone()).collect(),
    };
    drop(core);
    answer::json(&shown)
}

/// Whether an event that was routed was matched with a trigger's filters, too: not before its birth, and in its past not yet.
fn has_seen(core: &Core, entry: &TriggerEntry, offset: Offset) -> bool {
    let past = core.state.triggers.get(&entry.id).and_then(|state| state.history);
    entry.birth <= offset && past.is_none_or(|(from, to)| offset < from || to <= offset)
}

/// Adds deliveries that no attempt is on the log of yet.
fn add_unwritten(admin: &Admin, offset: Offset, trail: &mut Trail) {
    let core = admin.dispatch.core();
    for (id, state) in &core.state.triggers {
        if state.outstanding.get(offset).is_some() {
            trail.deliveries.entry((*id, 0)).or_default();
            if !trail.matched.contains(id) {
                trail.matched.push(*id);
            }
        }
        for ((_, redrive), _) in state.redriven.range((offset, 0)..=(offset, u32::MAX)) {
            trail.deliveries.entry((*id, *redrive)).or_default();
        }
    }
    for id in trail.matched.clone() {
        trail.deliveries.entry((id, 0)).or_default();
    }
}
