//! Triggers: their books, what is pending and why, and what can be done to them.

use std::collections::HashMap;

use axum::extract::{Path, Query, State};
use bytes::Bytes;
use serde_json::{Value, json};

use super::Admin;
use super::answer::{self, Answer};
use super::view::{self, Ages, Row};
use crate::delivery::Reason;
use crate::dispatch::{self, Core, Dispatch};
use crate::edge::Problem;
use crate::store::{DeliveryId, Offset, TriggerEntry, clock};

const PENDING_DEFAULT: usize = 100;
const PENDING_MAX: usize = 10_000;

fn find<'a>(core: &'a Core, name: &str) -> Result<&'a TriggerEntry, Problem> {
    let mut entries = core.state.set.triggers.iter();
    entries.rfind(|entry| entry.name == name).ok_or_else(|| answer::not_found("trigger", name))
}

pub async fn list(State(admin): State<Admin>) -> Answer {
    let rows = admin.dispatch.each_trigger(|core, entry, state| Some(Row::of(core, entry, state))).await;
    let ages = Ages::of(admin.dispatch.log(), rows.iter().filter_map(Row::oldest)).await;
    let items: Vec<Value> = rows.iter().map(|row| row.to_json(&ages)).collect();
    answer::list(&items, None)
}

async fn shown(dispatch: &Dispatch, name: &str) -> Result<Value, Problem> {
    let row = {
        let core = dispatch.core();
        let entry = find(&core, name)?;
        let state = core.state.triggers.get(&entry.id).ok_or_else(|| answer::not_found("trigger", name))?;
        Row::of(&core, entry, state)
    };
    Ok(row.to_json(&Ages::of(dispatch.log(), row.oldest().into_iter()).await))
}

pub async fn show(State(admin): State<Admin>, Path(name): Path<String>) -> Answer {
    answer::json(&shown(&admin.dispatch, &name).await?)
}

/// What is pending and what each waits for.
pub async fn pending(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let limit = answer::limit(&query, PENDING_DEFAULT, PENDING_MAX)?;
    let from = query.get("cursor").map(|text| place(text)).unwrap_or(Some((0, Offset(0))));
    let from = from.ok_or_else(|| answer::bad("cursor", "`cursor` is what `next` of a list said"))?;
    let mut waiting = waiting(&admin.dispatch.core(), &name, from, limit.saturating_add(1))?;
    let next = waiting.get(limit).map(|next| format!("{}-{}", next.redrive, next.offset));
    waiting.truncate(limit);
    let items = waiting.into_iter().map(|waiting| {
        json!({
            "offset": waiting.offset.to_string(),
            "trigger": name,
            "attempts": waiting.attempts,
            "reason": waiting.why,
            "next_at": waiting.next_ms.map_or(Value::Null, view::due),
        })
    });
    let items: Vec<_> = items.collect();
    answer::json(&json!({ "items": items, "next": next, "behind": behind(&admin.dispatch.core(), &name)? }))
}

/// What is pending besides, in the log only: a trigger that is behind takes it up as it gets room.
fn behind(core: &Core, name: &str) -> Result<u64, Problem> {
    let Some(state) = core.state.triggers.get(&find(core, name)?.id) else { return Ok(0) };
    let listed = state.outstanding.len() + state.redriven.len();
    Ok(core.state.books(state).pending().saturating_sub(listed as u64))
}

/// Where a page begins: redrives come after what was matched.
fn place(text: &str) -> Option<(u32, Offset)> {
    let (redrive, offset) = text.split_once('-')?;
    Some((redrive.parse().ok()?, Offset(offset.parse().ok()?)))
}

struct Waiting {
    offset: Offset,
    redrive: u32,
    attempts: u16,
    why: &'static str,
    /// When the next attempt is due.
    next_ms: Option<u64>,
}

fn waiting(core: &Core, name: &str, from: (u32, Offset), limit: usize) -> Result<Vec<Waiting>, Problem> {
    let id = find(core, name)?.id;
    let Some(state) = core.state.triggers.get(&id) else { return Ok(Vec::new()) };
    let runtime = core.runtimes.get(&id);
    let first = if from.0 == 0 { from.1 } else { Offset(u64::MAX) };
    let own = state.outstanding.iter_from(first).map(|slot| (slot, 0));
    let redriven = state.redriven.iter().map(|((_, n), slot)| (slot, *n));
    let redriven = redriven.filter(|(slot, n)| from.0 == 0 || (slot.offset(), *n) >= (from.1, from.0));
    let now = clock::steady_ms();
    let waits = own.chain(redriven).take(limit).map(|(slot, redrive)| {
        let delivery = DeliveryId { trigger: id, offset: slot.offset(), redrive };
        let is_in_flight = runtime.is_some_and(|runtime| runtime.in_flight.contains(&delivery));
        let due = (slot.attempts > 0).then(|| slot.due_ms(core.state.base_ms));
        let quiet_until = runtime.and_then(|runtime| runtime.quiet_until(now));
        let (why, next_ms) = match (is_in_flight, runtime) {
            (true, _) => ("in_flight", due),
            (_, None) => ("trigger_removed", due),
            _ if state.paused.is_some() => ("paused", due),
            (_, Some(runtime)) if runtime.is_held(slot.offset()) || runtime.is_draining() => ("order", due),
            _ if due.max(quiet_until).is_some_and(|at| at > now) => ("retry", due.max(quiet_until)),
            (_, Some(runtime)) => match runtime.rate_holds_until(now) {
                Some(until) => ("rate", Some(until)),
                None => ("concurrency", due),
            },
        };
        Waiting { offset: slot.offset(), redrive, attempts: slot.attempts, why, next_ms }
    });
    Ok(waits.collect())
}

pub async fn pause(State(admin): State<Admin>, Path(name): Path<String>, body: Bytes) -> Answer {
    answer::no_arguments(&body)?;
    set_paused(&admin, &name, Some("paused by an operator")).await
}

pub async fn resume(State(admin): State<Admin>, Path(name): Path<String>, body: Bytes) -> Answer {
    answer::no_arguments(&body)?;
    set_paused(&admin, &name, None).await
}

async fn set_paused(admin: &Admin, name: &str, reason: Option<&str>) -> Answer {
    let (id, written) = {
        let mut core = admin.dispatch.core();
        let id = find(&core, name)?.id;
        (id, core.record_durably(dispatch::pause(id, reason)))
    };
    tracing::info!(trigger = name, "{}", if reason.is_some() { "paused trigger" } else { "resumed trigger" });
    written.await.map_err(|refusal| answer::unavailable(&refusal))?;
    admin.dispatch.nudge(id);
    answer::json(&shown(&admin.dispatch, name).await?)
}

pub async fn retry(State(admin): State<Admin>, Path(name): Path<String>, body: Bytes) -> Answer {
    answer::no_arguments(&body)?;
    let id = {
        let mut core = admin.dispatch.core();
        let id = find(&core, &name)?.id;
        let Core { state, runtimes, .. } = &mut *core;
        let Some(runtime) = runtimes.get_mut(&id) else {
            return Err(answer::conflict(format!("trigger `{name}` is removed: nothing of it is tried")));
        };
        if let Some(state) = state.triggers.get(&id) {
            if state.paused.is_some() {
                return Err(answer::conflict(format!(
                    "trigger `{name}` is paused: resume it, and it goes on"
                )));
            }
            runtime.retry_all_now(state);
        }
        id
    };
    admin.dispatch.nudge(id);
    answer::json(&shown(&admin.dispatch, &name).await?)
}

/// Everything pending becomes a dead letter; what is in flight does unless its sink accepts it.
pub async fn discard(State(admin): State<Admin>, Path(name): Path<String>, body: Bytes) -> Answer {
    answer::no_arguments(&body)?;
    let id = find(&admin.dispatch.core(), &name)?.id;
    let discarded = admin.dispatch.discard(id, Reason::Discarded).await;
    let discarded = discarded.map_err(|refusal| answer::unavailable(&refusal))?;
    let in_flight = admin.dispatch.core().runtime_mut(id).map_or(0, |runtime| runtime.discarded_in_flight());
    tracing::info!(trigger = %name, discarded, in_flight, "discarded what was pending");
    answer::json(&json!({ "trigger": name, "discarded": discarded, "in_flight": in_flight }))
}
