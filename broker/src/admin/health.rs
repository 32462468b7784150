//! Is it alive, is it ready, how full is it, what is in force.

use std::sync::PoisonError;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::answer::{self, Answer};
use super::view::{self, Ages, Row};
use super::{Admin, Reload};
use crate::edge::Problem;
use crate::ingress::GateState;
use crate::store::clock;

pub async fn live() -> &'static str {
    "ok\n"
}

pub async fn ready(State(admin): State<Admin>) -> Response {
    let (status, word, reason) = readiness_of(&admin);
    let report = admin.dispatch.log().report();
    let body = json!({
        "status": word,
        "reason": reason,
        "holds_oldest_segment": holder(&admin),
        "store_problem": report.problem,
        "sources": admin.sources.not_up(),
        "index": index(&admin),
    });
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn readiness_of(admin: &Admin) -> (StatusCode, &'static str, Option<String>) {
    // The gate hears of a full store a moment later than the publisher whose event found no room.
    let state = match admin.gate.state() {
        GateState::Ready => admin.dispatch.log().full().map_or(GateState::Ready, GateState::Full),
        state => state,
    };
    let waits = admin.dispatch.core().routing_waits.clone();
    readiness(state, waits, !admin.sources.not_up().is_empty())
}

/// Degraded is a broker that takes events, and has something to say of what becomes of them.
fn readiness(
    gate: GateState,
    routing_waits: Option<String>,
    is_a_source_down: bool,
) -> (StatusCode, &'static str, Option<String>) {
    let (word, reason) = match gate {
        GateState::Ready if routing_waits.is_some() || is_a_source_down => {
            return (StatusCode::OK, "degraded", routing_waits);
        }
        GateState::Ready => return (StatusCode::OK, "ready", None),
        GateState::Starting => ("starting", Some("the sources are being started".to_owned())),
        GateState::Draining => ("draining", Some("the broker was told to stop".to_owned())),
        GateState::Full(reason) => ("full", Some(reason)),
        GateState::Failed(reason) => ("failed", Some(reason)),
    };
    (StatusCode::SERVICE_UNAVAILABLE, word, reason)
}

/// How look-ups do. Without an index they take longer, so it does not make the broker less ready.
fn index(admin: &Admin) -> Value {
    let index = admin.dispatch.log().index();
    json!({ "state": index.state().as_str(), "lag": index.lag(), "unreadable": index.passed_over() })
}

/// The trigger whose oldest delivery keeps the most of the log.
fn holder(admin: &Admin) -> Option<String> {
    let core = admin.dispatch.core();
    let routed_to = core.state.routed_to();
    let floors = core.state.triggers.iter().map(|(id, trigger)| (trigger.floor(routed_to), *id));
    let (floor, id) = floors.min()?;
    (floor < routed_to).then(|| view::name_of(&core, id))
}

pub async fn status(State(admin): State<Admin>) -> Answer {
    let report = admin.dispatch.log().report();
    let mut rows = admin.dispatch.each_trigger(|core, entry, state| Some(Row::of(core, entry, state))).await;
    rows.sort_by_key(|row| std::cmp::Reverse(row.pending()));
    let ages = Ages::of(admin.dispatch.log(), rows.iter().filter_map(Row::oldest)).await;
    let triggers: Vec<_> = rows.iter().map(|row| row.to_json(&ages)).collect();
    let (next_offset, dead_letters) = {
        let core = admin.dispatch.core();
        (core.state.next_offset, core.state.dead.len())
    };
    let (_, word, reason) = readiness_of(&admin);
    answer::json(&json!({
        "status": word,
        "reason": reason,
        "started_at": view::time(admin.started_at_ms),
        "now": view::time(clock::wall_ms()),
        "store": {
            "bytes": report.bytes,
            "limit_bytes": report.limit_bytes,
            "owed_bytes": report.owed_bytes,
            "free_bytes": report.free_bytes,
            "segments": report.segments,
            "next_offset": next_offset.to_string(),
            "full": admin.dispatch.log().full(),
        },
        "index": index(&admin),
        "sources": admin.sources.list(),
        "triggers": triggers,
        "dead_letters": dead_letters,
    }))
}

pub async fn config(State(admin): State<Admin>) -> Answer {
    let config = admin.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
    answer::json(&config)
}

pub async fn reload(State(admin): State<Admin>, body: Bytes) -> Answer {
    answer::no_arguments(&body)?;
    let (answer, answered) = oneshot::channel();
    let gone = || answer::unavailable(&"the broker is stopping");
    admin.reloads.send(Reload { answer }).await.map_err(|_| gone())?;
    match answered.await.map_err(|_| gone())? {
        Ok(changes) => answer::json(&changes),
        Err(errors) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, errors).in_lines()),
    }
}

pub async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_takes_events_and_cannot_route_them_says_why() {
        let waits = Some("no event is routed until offset 7 can be read".to_owned());
        let (status, word, reason) = readiness(GateState::Ready, waits.clone(), false);
        assert_eq!((status, word, &reason), (StatusCode::OK, "degraded", &waits));
        assert_eq!(readiness(GateState::Ready, None, true), (StatusCode::OK, "degraded", None));
        assert_eq!(readiness(GateState::Ready, None, false), (StatusCode::OK, "ready", None));
        let full = readiness(GateState::Full("the disk".into()), waits, false);
        assert_eq!(full, (StatusCode::SERVICE_UNAVAILABLE, "full", Some("the disk".into())));
    }
}
