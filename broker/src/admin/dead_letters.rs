//! Dead letters: listed, shown, redriven, purged.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::answer::{self, Answer};
use super::events::moment;
use super::trail::{self, Attempts};
use super::{Admin, view};
use crate::dispatch::Core;
use crate::edge::Problem;
use crate::store::{
    DeadLetter, DeliveryId, Log, LogRecord, Offset, Purge, Record, Redrive, TriggerId, clock,
};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;
/// Dead letters moved by one record.
const PIECE: usize = 5000;

/// `OFFSET.TRIGGER`, or `OFFSET.TRIGGER.N` for the n-th redrive.
fn name(core: &Core, id: DeliveryId) -> String {
    let trigger = view::name_of(core, id.trigger);
    if id.redrive == 0 {
        format!("{}.{trigger}", id.offset)
    } else {
        format!("{}.{trigger}.{}", id.offset, id.redrive)
    }
}

fn find(core: &Core, text: &str) -> Result<DeliveryId, Problem> {
    let absent = || answer::not_found("dead letter", text);
    let mut parts = text.split('.');
    let offset = parts.next().and_then(|part| part.parse().ok()).map(Offset).ok_or_else(absent)?;
    let trigger = parts.next().ok_or_else(absent)?;
    let redrive = parts.next().map_or(Some(0), |part| part.parse().ok()).ok_or_else(absent)?;
    let entries = core.state.set.triggers.iter().filter(|entry| entry.name == trigger);
    let ids = entries.map(|entry| DeliveryId { trigger: entry.id, offset, redrive });
    ids.filter(|id| core.state.dead.contains_key(id)).next_back().ok_or_else(absent)
}

/// What is asked for, in a query or in the body of a writing call.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    #[serde(default)]
    ids: Option<Vec<String>>,
    #[serde(default)]
    all: bool,
    trigger: Option<String>,
    via: Option<String>,
    reason: Option<String>,
    #[serde(rename = "type")]
    ty: Option<String>,
    since: Option<String>,
    to: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

impl Selection {
    fn is_empty(&self) -> bool {
        let filters = [&self.trigger, &self.via, &self.reason, &self.ty, &self.since];
        self.ids.is_none() && !self.all && filters.iter().all(|filter| filter.is_none())
    }

    /// Ids that the state alone can tell are asked for.
    fn candidates(&self, core: &Core) -> Result<Vec<(DeliveryId, DeadLetter)>, Problem> {
        if let Some(ids) = &self.ids {
            let found = ids.iter().map(|id| find(core, id).map(|id| (id, core.state.dead[&id])));
            return found.collect();
        }
        let since = self.since.iter().map(|text| ("since".to_owned(), text.clone())).collect();
        let since = moment(&since, "since")?.unwrap_or(0);
        let triggers: Option<Vec<TriggerId>> = self.trigger.as_ref().map(|name| {
            core.state.set.triggers.iter().filter(|entry| entry.name == *name).map(|entry| entry.id).collect()
        });
        let dead = core.state.dead.iter().filter(|(id, letter)| {
            triggers.as_ref().is_none_or(|triggers| triggers.contains(&id.trigger))
                && self.reason.as_deref().is_none_or(|reason| letter.reason.as_str() == reason)
                && letter.at_ms >= since
        });
        Ok(dead.map(|(id, letter)| (*id, *letter)).collect())
    }

    fn needs_event(&self) -> bool {
        self.ty.is_some() || self.via.is_some()
    }

    fn takes(&self, record: &Record) -> bool {
        self.ty.as_deref().is_none_or(|ty| record.event.ty() == ty)
            && self.via.as_deref().is_none_or(|via| *record.via == *via)
    }
}

/// Keeps those whose event fits too.
async fn narrowed(
    admin: &Admin,
    selection: Arc<Selection>,
) -> Result<Vec<(DeliveryId, DeadLetter)>, Problem> {
    let candidates = selection.candidates(&admin.dispatch.core())?;
    if !selection.needs_event() {
        return Ok(candidates);
    }
    let reader = Arc::clone(admin.dispatch.log().reader());
    trail::blocking(move || {
        let fits = |id: &DeliveryId| reader.read(id.offset).is_ok_and(|record| selection.takes(&record));
        candidates.into_iter().filter(|(id, _)| fits(id)).collect()
    })
    .await
}

pub async fn list(State(admin): State<Admin>, Query(query): Query<HashMap<String, String>>) -> Answer {
    let text = |name: &str| query.get(name).cloned();
    let limit = query.get("limit").map_or(Ok(LIMIT_DEFAULT), |text| text.parse());
    let limit = limit.map_err(|_| answer::bad("limit", "`limit` is a number"))?.min(LIMIT_MAX);
    let skip: usize = query
        .get("cursor")
        .map_or(Ok(0), |text| text.parse())
        .map_err(|_| answer::bad("cursor", "`cursor` is what `next` of a list said"))?;
    let selection = Selection {
        trigger: text("trigger"),
        via: text("via"),
        reason: text("reason"),
        ty: text("type"),
        since: text("since"),
        ..Selection::default()
    };
    let mut found = narrowed(&admin, Arc::new(selection)).await?;
    found.sort_by_key(|(id, letter)| std::cmp::Reverse((letter.at_ms, id.offset)));
    let next = (found.len() > skip + limit).then(|| (skip + limit).to_string());
    let page: Vec<_> = found.into_iter().skip(skip).take(limit).collect();
    let reader = Arc::clone(admin.dispatch.log().reader());
    let page = trail::blocking(move || {
        page.into_iter().map(|(id, letter)| (id, letter, reader.read(id.offset).ok())).collect::<Vec<_>>()
    })
    .await?;
    let core = admin.dispatch.core();
    let rows: Vec<Value> = page
        .into_iter()
        .map(|(id, letter, record)| {
            json!({
                "id": name(&core, id),
                "trigger": view::name_of(&core, id.trigger),
                "via": record.as_ref().map(|record| record.via.to_string()),
                "reason": letter.reason.as_str(),
                "offset": id.offset.to_string(),
                "event": record.as_ref().map(|record| view::attributes(&record.event)),
                "last_at": view::time(letter.at_ms),
            })
        })
        .collect();
    drop(core);
    answer::list(&rows, next)
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
    let (id, letter) = {
        let core = admin.dispatch.core();
        let id = find(&core, &text)?;
        (id, core.state.dead[&id])
    };
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
    let mut trail = trail::trail(log.index(), id.offset)?;
    Ok((record, trail.deliveries.remove(&(id.trigger, id.redrive)).unwrap_or_default()))
}

async fn selected(admin: &Admin, body: &Bytes) -> Result<(Arc<Selection>, Vec<DeliveryId>), Problem> {
    let selection: Arc<Selection> = Arc::new(answer::body(body)?);
    if selection.is_empty() {
        return Err(answer::bad(
            "ids",
            "say which: `ids`, `all`, or filters (`trigger`, `via`, `reason`, `type`, `since`)",
        ));
    }
    let found = narrowed(admin, Arc::clone(&selection)).await?;
    Ok((selection, found.into_iter().map(|(id, _)| id).collect()))
}

pub async fn redrive(State(admin): State<Admin>, body: Bytes) -> Answer {
    let (selection, ids) = selected(&admin, &body).await?;
    let mut concerned = BTreeMap::new();
    let mut pieces = Vec::new();
    {
        let mut core = admin.dispatch.core();
        let to = selection.to.as_deref().map(|name| target(&core, name)).transpose()?;
        if let Some(id) = ids.iter().find(|id| to.is_none() && !core.runtimes.contains_key(&id.trigger)) {
            return Err(answer::conflict(format!(
                "trigger `{}` of dead letter `{}` is gone; say `to`",
                view::name_of(&core, id.trigger),
                name(&core, *id)
            )));
        }
        if selection.dry_run {
            return answer::json(&json!({ "redriven": ids.len(), "dry_run": true }));
        }
        for piece in ids.chunks(PIECE) {
            let mut moved = Vec::with_capacity(piece.len());
            for id in piece {
                let redrive = core.state.redrives + moved.len() as u32 + 1;
                moved.push((
                    *id,
                    DeliveryId { trigger: to.unwrap_or(id.trigger), offset: id.offset, redrive },
                ));
            }
            let record = LogRecord::Redrive(Redrive { at_ms: clock::wall_ms(), moved });
            core.apply(&record);
            pieces.push(record);
        }
    }
    for record in pieces {
        let written = admin.dispatch.log().append(Vec::new(), vec![record.clone()]).await;
        written.map_err(|refusal| answer::unavailable(&refusal))?;
        if let LogRecord::Redrive(Redrive { moved, .. }) = record {
            let mut core = admin.dispatch.core();
            for (_, to) in moved {
                if let Some(runtime) = core.runtimes.get_mut(&to.trigger) {
                    runtime.redrive(to);
                    concerned.insert(to.trigger, ());
                }
            }
        }
    }
    tracing::info!(count = ids.len(), "redrove dead letters");
    concerned.into_keys().for_each(|id| admin.dispatch.nudge(id));
    answer::json(&json!({ "redriven": ids.len() }))
}

fn target(core: &Core, name: &str) -> Result<TriggerId, Problem> {
    let entry = core
        .state
        .set
        .triggers
        .iter()
        .find(|entry| entry.name == name && core.runtimes.contains_key(&entry.id));
    entry
        .map(|entry| entry.id)
        .ok_or_else(|| answer::conflict(format!("there is no trigger `{name}` to redrive to")))
}

pub async fn purge(State(admin): State<Admin>, body: Bytes) -> Answer {
    let (selection, ids) = selected(&admin, &body).await?;
    if selection.dry_run {
        return answer::json(&json!({ "purged": ids.len(), "dry_run": true }));
    }
    for piece in ids.chunks(PIECE) {
        let record = LogRecord::Purge(Purge { at_ms: clock::wall_ms(), ids: piece.to_vec() });
        admin.dispatch.core().apply(&record);
        let written = admin.dispatch.log().append(Vec::new(), vec![record]).await;
        written.map_err(|refusal| answer::unavailable(&refusal))?;
    }
    tracing::info!(count = ids.len(), "purged dead letters");
    answer::json(&json!({ "purged": ids.len() }))
}
