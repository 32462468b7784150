//! What no trigger takes, triggers that nothing matches, fields that no event has.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Query, State};
use serde_json::{Value, json};
use sluice_language::Filter;

use super::answer::{self, Answer};
use super::events::moment;
use super::{Admin, view};
use crate::dispatch::Active;
use crate::store::clock;

/// Types are kept for so long, and a trigger is idle after so long.
const HOUR_MS: u64 = 3_600_000;

pub async fn unmatched(State(admin): State<Admin>, Query(query): Query<HashMap<String, String>>) -> Answer {
    let now = clock::wall_ms();
    let hour_ago = now.saturating_sub(HOUR_MS);
    // When asked for a time, a trigger is idle that matched nothing since; else the process must have run for so long, too.
    let idle_since = moment(&query, "idle_since")?;
    let (before, began) = (idle_since.unwrap_or(hour_ago), idle_since.map_or(admin.started_at_ms, |_| 0));
    // Taken under the lock, and put together outside: nothing is routed meanwhile.
    let (types, unseen, triggers) = {
        let core = admin.dispatch.core();
        let last_ms = |id| core.state.triggers.get(id).map_or(0, |state| state.last_matched_at_ms);
        let triggers = core.runtimes.iter().map(|(id, runtime)| (Arc::clone(&runtime.active), last_ms(id)));
        (core.census.unmatched(hour_ago), core.census.unseen(), triggers.collect::<Vec<_>>())
    };
    let types: Vec<Value> = types
        .into_iter()
        .map(|found| json!({ "type": found.ty, "count": found.count, "last_at": view::time(found.last_ms) }))
        .collect();
    let (mut idle, mut never_seen) = (Vec::new(), Vec::new());
    for (trigger, last_ms) in &triggers {
        let name = &trigger.name;
        if (*last_ms).max(began) < before {
            idle.push(json!({ "trigger": name, "last_matched_at": view::time(*last_ms) }));
        }
        let fields = unseen_of(trigger, &unseen);
        never_seen.extend(fields.into_iter().map(|field| json!({ "trigger": name, "field": field })));
    }
    answer::json(&json!({ "types": types, "idle": idle, "never_seen": never_seen }))
}

/// Fields that a trigger's filters name and no event has had. Of the data only some events are looked at: where a trigger has
/// matched, what it asks for was there.
fn unseen_of(trigger: &Active, unseen: &HashSet<String>) -> BTreeSet<String> {
    let has_matched = trigger.counters.matched.load(Ordering::Relaxed) > 0;
    let is_data = |field: &str| field == "data" || field.starts_with("data.");
    let fields = trigger.config.filters.iter().flat_map(Filter::fields);
    fields.filter(|field| unseen.contains(field) && !(has_matched && is_data(field))).collect()
}
