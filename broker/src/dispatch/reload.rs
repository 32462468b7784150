//! From a configuration to triggers at work: at start, and again at every reload.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_adapters::Refusal;
use sluice_config::{self as config, Start};
use sluice_language::Filter;

use super::trigger::{Active, Runtime};
use super::{Dispatch, history};
use crate::delivery::RetryPolicy;
use crate::routing::{Rule, Table};
use crate::sink::{OpenError, Sink};
use crate::store::{LogRecord, Offset, Reader, TriggerEntry, TriggerId, TriggerSet, clock};

/// A trigger, its sink and its dead-letter sink.
type Opened = (config::Trigger, Arc<Sink>, Option<Arc<Sink>>);

/// A configuration whose sinks could be opened.
pub struct Prepared {
    triggers: BTreeMap<String, Opened>,
}

/// Opens the sinks of all triggers; nothing is changed by it.
pub fn prepare(triggers: &BTreeMap<String, config::Trigger>) -> Result<Prepared, (String, OpenError)> {
    let mut prepared = BTreeMap::new();
    for (name, trigger) in triggers {
        let failed = |error| (name.clone(), error);
        let concurrency = trigger.delivery.concurrency;
        let sink = Arc::new(Sink::open(&trigger.sink, concurrency).map_err(failed)?);
        let dead_letter =
            trigger.dead_letter.as_ref().map(|sink| Sink::open(sink, concurrency).map(Arc::new));
        prepared.insert(name.clone(), (trigger.clone(), sink, dead_letter.transpose().map_err(failed)?));
    }
    Ok(Prepared { triggers: prepared })
}

impl Dispatch {
    /// Puts triggers in force. The set is in the log before anything is matched with it.
    pub async fn adopt(&self, prepared: Prepared) -> Result<(), Refusal> {
        let new_set = {
            let core = self.core();
            next_set(
                &core.state.set,
                core.state.next_trigger,
                core.state.next_offset,
                self.log().reader(),
                &prepared,
            )
        };
        if let Some(set) = new_set {
            let record = LogRecord::Triggers(set);
            // Folded in before it is written: a new trigger is born behind every event stored by now.
            self.core().apply(&record);
            self.log().append(Vec::new(), vec![record]).await?;
        }
        let resumed = self.install(prepared);
        for id in resumed {
            self.nudge(id);
        }
        tokio::spawn(history::route_history(self.clone()));
        Ok(())
    }

    fn install(&self, prepared: Prepared) -> Vec<TriggerId> {
        let mut core = self.core();
        let mut rules = Vec::new();
        let mut installed = Vec::new();
        let mut runtimes = std::mem::take(&mut core.runtimes);
        for (name, (trigger, sink, dead_letter)) in prepared.triggers {
            let Some(entry) = core
                .state
                .set
                .triggers
                .iter()
                .find(|entry| entry.name == name && entry.removed_at_ms.is_none())
            else {
                continue;
            };
            let (id, birth) = (entry.id, entry.birth);
            let filters = trigger.filters.clone();
            let filter = if filters.len() == 1 {
                filters.into_iter().next().unwrap_or(Filter::All(Vec::new()))
            } else {
                Filter::All(filters)
            };
            let former = runtimes.remove(&id).or_else(|| core.frozen.remove(&id));
            let counters =
                former.as_ref().map(|runtime| Arc::clone(&runtime.active.counters)).unwrap_or_default();
            rules.push(Rule {
                trigger: id,
                name: name.as_str().into(),
                birth,
                sources: trigger.sources.clone(),
                filter,
                errors: Arc::clone(&counters.filter_errors),
            });
            let policy = RetryPolicy::from(&trigger.delivery);
            let has_moved = former.as_ref().is_some_and(|former| former.active.config.sink != trigger.sink);
            let active = Arc::new(Active { id, name, config: trigger, sink, dead_letter, policy, counters });
            let Some(state) = core.state.triggers.get(&id) else { continue };
            let is_gone = state.paused.as_ref().is_some_and(|paused| paused.reason.contains("410"));
            let runtime = match former {
                Some(mut runtime) => {
                    runtime.reconfigure(active);
                    runtime
                }
                None => Runtime::new(active, state, core.state.books(state).unmatched),
            };
            core.runtimes.insert(id, runtime);
            if has_moved && is_gone {
                let record = core.pause(id, None);
                core.log.append_later(vec![record]);
            }
            installed.push(id);
        }
        core.frozen.append(&mut runtimes);
        let named = core.runtimes.values().map(|runtime| &*runtime.active.config.filters);
        let fields: BTreeSet<String> = named.flatten().flat_map(Filter::fields).collect();
        core.census.look_for(fields);
        core.table = Arc::new(Table::new(rules));
        installed
    }
}

/// The trigger set that follows from the one in force; `None` when nothing of it changes.
fn next_set(
    old: &TriggerSet,
    next_trigger: u32,
    next_offset: Offset,
    reader: &Reader,
    prepared: &Prepared,
) -> Option<TriggerSet> {
    let now = clock::wall_ms();
    let mut next_id = next_trigger.max(1);
    let mut triggers: Vec<TriggerEntry> = old.triggers.clone();
    for entry in &mut triggers {
        entry.removed_at_ms = match prepared.triggers.contains_key(&entry.name) {
            true => None,
            false => entry.removed_at_ms.or(Some(now)),
        };
    }
    for (name, (trigger, ..)) in &prepared.triggers {
        let filters = describe(trigger);
        match triggers.iter_mut().find(|entry| entry.name == *name) {
            Some(entry) => entry.filters = filters,
            None => {
                let birth = birth(trigger.start, next_offset, reader);
                triggers.push(TriggerEntry {
                    id: TriggerId(next_id),
                    name: name.clone(),
                    birth,
                    filters,
                    removed_at_ms: None,
                });
                next_id += 1;
            }
        }
    }
    (triggers != old.triggers).then(|| TriggerSet { epoch: old.epoch + 1, at_ms: now, triggers })
}

/// What decides a match and what the sink gets, as the log keeps it.
fn describe(trigger: &config::Trigger) -> serde_json::Value {
    let filters: Vec<_> = trigger.filters.iter().map(Filter::to_json).collect();
    let mut described = serde_json::json!({ "sources": trigger.sources, "filters": filters });
    if let Some(transform) = &trigger.transform {
        described["transform"] = transform.to_json();
    }
    described
}

fn birth(start: Start, next_offset: Offset, reader: &Reader) -> Offset {
    match start {
        Start::Latest => next_offset,
        Start::Earliest => reader.first_offset(),
        Start::At(ms) => first_received_at(reader, u64::try_from(ms).unwrap_or(0)).unwrap_or(next_offset),
    }
}

/// The first event received at or after a time.
fn first_received_at(reader: &Reader, ms: u64) -> Option<Offset> {
    let segments = reader.segments();
    let within = segments.iter().find(|segment| segment.extent().last_received_ms >= ms)?;
    let mut found = None;
    let walked = reader.walk(within.header.first_offset, &mut |record, _| match record {
        LogRecord::Event(record) if record.received_at_ms >= ms => {
            found = Some(record.offset);
            false
        }
        _ => true,
    });
    walked.ok().and(found)
}
