//! What no trigger takes, triggers that nothing matches, fields that no event has.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;

use axum::extract::{Query, State};
use serde_json::{Value, json};
use sluice_language::Filter;

use super::answer::{self, Answer};
use super::events::moment;
use super::{Admin, view};
use crate::dispatch::{Core, Runtime};
use crate::store::clock;

/// Types are kept for so long, and a trigger is idle after so long.
const HOUR_MS: u64 = 3_600_000;

pub async fn unmatched(State(admin): State<Admin>, Query(query): Query<HashMap<String, String>>) -> Answer {
    let now = clock::wall_ms();
    let hour_ago = now.saturating_sub(HOUR_MS);
    // When asked for a time, a trigger is idle that matched nothing since; else the process must have run for so long, too.
    let idle_since = moment(&query, "idle_since")?;
    let (before, began) = (idle_since.unwrap_or(hour_ago), idle_since.map_or(admin.started_at_ms, |_| 0));
    let core = admin.dispatch.core();
    let types = core.census.unmatched(hour_ago).into_iter();
    let types: Vec<Value> = types
        .map(|found| json!({ "type": found.ty, "count": found.count, "last_at": view::time(found.last_ms) }))
        .collect();
    let (mut idle, mut never_seen) = (Vec::new(), Vec::new());
    for (id, runtime) in &core.runtimes {
        let name = &runtime.active.name;
        let last_ms = core.state.triggers.get(id).map_or(0, |state| state.last_matched_at_ms);
        if last_ms.max(began) < before {
            idle.push(json!({ "trigger": name, "last_matched_at": view::time(last_ms) }));
        }
        let fields = unseen(&core, runtime);
        never_seen.extend(fields.into_iter().map(|field| json!({ "trigger": name, "field": field })));
    }
    drop(core);
    answer::json(&json!({ "types": types, "idle": idle, "never_seen": never_seen }))
}

/// Fields that a trigger's filters name and no event has had. Of the data only some events are looked at: where a trigger has
/// matched, what it asks for was there.
fn unseen(core: &Core, runtime: &Runtime) -> BTreeSet<String> {
    let has_matched = runtime.active.counters.matched.load(Ordering::Relaxed) > 0;
    let fields = runtime.active.config.filters.iter().flat_map(Filter::fields);
    let is_data = |field: &str| field == "data" || field.starts_with("data.");
    fields.filter(|field| core.census.is_unseen(field) && !(has_matched && is_data(field))).collect()
}
