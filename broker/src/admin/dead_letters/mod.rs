//! Dead letters: listed, shown, redriven, purged.

mod change;
mod selection;
mod summary;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::answer::{self, Answer};
use super::trail::{self, Attempts};
use super::{Admin, view};
use crate::dispatch::Core;
use crate::store::{AsideEntry, DeadLetter, DeliveryId, Log, Record};

pub use self::change::{purge, redrive};
use self::selection::{Letter, Place, Selection};
use self::summary::{Summary, summaries};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;
pub async fn list(State(admin): State<Admin>, Query(query): Query<HashMap<String, String>>) -> Answer {
    let text = |name: &str| query.get(name).cloned();
    let limit = answer::limit(&query, LIMIT_DEFAULT, LIMIT_MAX)?;
    let after: Option<Place> = query
        .get("cursor")
        .map(|text| text.parse())
        .transpose()
        .map_err(|()| answer::bad("cursor", "`cursor` is what `next` of a list said"))?;
    let selection = Selection {
        trigger: text("trigger"),
        via: text("via"),
        reason: text("reason"),
        ty: text("type"),
        since: text("since"),
        ..Selection::default()
    };
    let mut found = walk::page(&admin, &Arc::new(selection), after, limit + 1).await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| has_more).map(|last| last.place().to_string());
    trail::written(admin.dispatch.log()).await;
    let log = admin.dispatch.log().clone();
    let (page, summaries) = trail::blocking(move || {
        let delivery = |letter: &Letter| match letter {
            Letter::Delivery(id, _) => Some(*id),
            Letter::Aside(..) => None,
        };
        let summaries = summaries(&log, &found.iter().filter_map(delivery).collect());
        let record = |letter: &Letter| log.reader().read(delivery(letter)?.offset).ok();
        (found.into_iter().map(|letter| (record(&letter), letter)).collect::<Vec<_>>(), summaries)
    })
    .await?;
    let core = admin.dispatch.core();
    let rows: Vec<Value> =
        page.iter().map(|(record, letter)| row(&core, letter, record.as_deref(), &summaries)).collect();
    drop(core);
    answer::list(&rows, next.as_deref())
}

fn row(
    core: &Core,
    letter: &Letter,
    record: Option<&Record>,
    summaries: &BTreeMap<DeliveryId, Summary>,
) -> Value {
    let (trigger, via, offset) = match letter {
        Letter::Delivery(id, _) => (
            Some(view::name_of(core, id.trigger)),
            record.map(|record| record.via.to_string()),
            Some(id.offset.to_string()),
        ),
        Letter::Aside(_, entry) => (None, Some(entry.source.to_string()), None),
    };
    let summary = match letter {
        Letter::Delivery(id, _) => summaries.get(id),
        Letter::Aside(..) => None,
    };
    let at = letter.at_ms();
    json!({
        "id": letter.name(core),
        "trigger": trigger,
        "via": via,
        "reason": letter.reason().as_str(),
        "detail": summary.and_then(|summary| summary.error.as_deref()).unwrap_or(letter.reason().detail()),
        "status": summary.and_then(|summary| summary.status),
        "attempts": summary.map_or(0, |summary| summary.attempts),
        "offset": offset,
        "event": record.map(|record| view::attributes(&record.event)),
        "first_at": view::time(summary.map_or(at, |summary| summary.first_at_ms)),
        "last_at": view::time(summary.map_or(at, |summary| summary.last_at_ms)),
    })
}

#[derive(Serialize)]
struct Shown {
    id: String,
    trigger: String,
    via: String,
    offset: String,
    reason: &'static str,
    detail: String,
    event: Option<Box<RawValue>>,
    attempts: Vec<Value>,
    attempts_omitted: u64,
    first_at: Value,
    last_at: Value,
}

pub async fn show(State(admin): State<Admin>, Path(text): Path<String>) -> Answer {
    let letter = Letter::find(&admin.dispatch.core(), &text)?;
    trail::written(admin.dispatch.log()).await;
    match letter {
        Letter::Delivery(id, letter) => show_delivery(&admin, text, id, letter).await,
        Letter::Aside(number, entry) => show_aside(&admin, text, number, entry).await,
    }
}

async fn show_aside(admin: &Admin, text: String, number: u64, entry: AsideEntry) -> Answer {
    let reader = Arc::clone(admin.dispatch.log().reader());
    let near = entry.near;
    let read = trail::blocking(move || reader.read_aside(number, near)).await?;
    let aside = read.map_err(|error| trail::problem(&error))?;
    let aside = aside.ok_or_else(|| answer::not_found("dead letter", &text))?.aside;
    let at = view::time(entry.at_ms);
    answer::json(&json!({
        "id": text,
        "trigger": null,
        "via": &*entry.source,
        "reason": entry.reason().as_str(),
        "detail": aside.unfit.detail,
        "event": null,
        "record": view::record(&aside),
        "attempts": [],
        "attempts_omitted": 0,
        "first_at": at,
        "last_at": at,
    }))
}

async fn show_delivery(admin: &Admin, text: String, id: DeliveryId, letter: DeadLetter) -> Answer {
    let log = admin.dispatch.log().clone();
    let read = trail::blocking(move || read(&log, id)).await?;
    let (record, attempts) = read.map_err(|error| trail::problem(&error))?;
    let last = attempts.last();
    let detail = last.and_then(|last| last.error.as_deref()).unwrap_or(letter.reason.detail()).to_owned();
    let shown = Shown {
        id: text,
        trigger: view::name_of(&admin.dispatch.core(), id.trigger),
        via: record.via.to_string(),
        offset: id.offset.to_string(),
        reason: letter.reason.as_str(),
        detail,
        event: view::whole_event(&record.event),
        attempts: view::attempts(&attempts),
        attempts_omitted: attempts.omitted,
        first_at: attempts.iter().next().map_or(view::time(letter.at_ms), |first| view::time(first.at_ms)),
        last_at: last.map_or(view::time(letter.at_ms), |last| view::time(last.at_ms)),
    };
    answer::json(&shown)
}

fn read(log: &Log, id: DeliveryId) -> Result<(Arc<Record>, Attempts), crate::store::ReadError> {
    let record = log.reader().read(id.offset)?;
    let mut trail = trail::trail(log, id.offset)?;
    Ok((record, trail.deliveries.remove(&(id.trigger, id.redrive)).unwrap_or_default()))
}
