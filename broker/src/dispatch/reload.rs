//! From a configuration to triggers at work: at start, and again at every reload.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use sluice_adapters::Refusal;
use sluice_config::{self as config, Start};
use sluice_language::Filter;

use super::core::Core;
use super::trigger::{Active, Runtime};
use super::{Dispatch, history};
use crate::delivery::RetryPolicy;
use crate::routing::{Rule, Table};
use crate::sink::{OpenError, Sink};
use crate::store::{LogRecord, Offset, ReadError, Reader, TriggerEntry, TriggerId, TriggerSet, clock};

/// A trigger, its sink and its dead-letter sink.
type Opened = (config::Trigger, Arc<Sink>, Option<Arc<Sink>>);

/// A configuration whose sinks could be opened.
pub struct Prepared {
    triggers: BTreeMap<String, Opened>,
}

/// A sink that cannot be opened, and where it stands.
#[derive(Debug, thiserror::Error)]
#[error("{}`{key}` of trigger `{trigger}`: {error}", before(.at.as_ref()))]
pub struct WrongSink {
    key: &'static str,
    trigger: String,
    at: Option<config::Place>,
    #[source]
    error: OpenError,
}

/// Nothing for a dead-letter sink that all triggers have.
fn before(at: Option<&config::Place>) -> String {
    at.map(|at| format!("{at}: ")).unwrap_or_default()
}

/// Opens the sinks of all triggers; nothing is changed by it.
pub fn prepare(triggers: &BTreeMap<String, config::Trigger>) -> Result<Prepared, Box<WrongSink>> {
    prepare_with(triggers, &Sink::open)
}

pub(super) fn prepare_with(
    triggers: &BTreeMap<String, config::Trigger>,
    open: &dyn Fn(&config::Sink, usize) -> Result<Sink, OpenError>,
) -> Result<Prepared, Box<WrongSink>> {
    let mut prepared = BTreeMap::new();
    for (name, trigger) in triggers {
        let open = |key, sink| {
            let at = trigger.places.find(key).cloned();
            open(sink, trigger.delivery.concurrency)
                .map(Arc::new)
                .map_err(|error| Box::new(WrongSink { key, trigger: name.clone(), at, error }))
        };
        let sink = open("sink", &trigger.sink)?;
        let dead_letter = trigger.dead_letter.as_ref().map(|sink| open("dead_letter", sink)).transpose()?;
        prepared.insert(name.clone(), (trigger.clone(), sink, dead_letter));
    }
    Ok(Prepared { triggers: prepared })
}

impl Dispatch {
    /// Puts triggers in force, and returns once that is on disk.
    pub async fn adopt(&self, prepared: Prepared) -> Result<(), Refusal> {
        let births = self.births(&prepared).await?;
        let resumed = self.put_in_force(prepared, &births)?;
        self.log().flush().await?;
        for id in resumed {
            self.nudge(id);
        }
        history::begin_history(self);
        self.shared.owed.notify_one();
        Ok(())
    }

    /// Puts triggers in force at one moment: whoever is told of a trigger knows that events are matched with it, and no
    /// event behind its birth is matched without it. What is matched with them stands behind the set in the log.
    fn put_in_force(
        &self,
        prepared: Prepared,
        births: &BTreeMap<String, Offset>,
    ) -> Result<Vec<TriggerId>, Refusal> {
        let mut core = self.core();
        let (next_trigger, next_offset) = (core.state.next_trigger, core.state.next_offset);
        let birth = |name: &str, start| match start {
            Start::Latest => next_offset,
            Start::Earliest => self.log().reader().first_offset(),
            Start::At(_) => births.get(name).copied().unwrap_or(next_offset),
        };
        let set = next_set(&core.state.set, next_trigger, &birth, &prepared);
        if let Some(record) = set.map(LogRecord::Triggers) {
            // Nothing is in force that the log cannot hold.
            self.log().check_size(&record)?;
            core.record(record);
        }
        Ok(install(&mut core, prepared))
    }

    /// Where triggers begin that are to begin at a time; it is read from the log, and not under the lock. None of them
    /// begins when that cannot be found: nowhere else would be right.
    async fn births(&self, prepared: &Prepared) -> Result<BTreeMap<String, Offset>, Refusal> {
        let starts = prepared.triggers.iter().filter_map(|(name, (trigger, ..))| match trigger.start {
            Start::At(ms) => Some((name.clone(), u64::try_from(ms).unwrap_or(0))),
            Start::Latest | Start::Earliest => None,
        });
        let mut starts: Vec<(String, u64)> = starts.collect();
        {
            let core = self.core();
            let known: HashSet<&str> = core.state.set.triggers.iter().map(|entry| &*entry.name).collect();
            starts.retain(|(name, _)| !known.contains(&**name));
        }
        if starts.is_empty() {
            return Ok(BTreeMap::new());
        }
        let reader = Arc::clone(self.log().reader());
        let find = move || {
            let mut births = BTreeMap::new();
            for (name, ms) in starts {
                let found = first_received_at(&reader, ms).map_err(|error| Refusal::Unavailable {
                    reason: format!("cannot find where trigger `{name}` begins: {error}"),
                })?;
                births.extend(found.map(|offset| (name, offset)));
            }
            Ok(births)
        };
        let failed = || Refusal::Unavailable { reason: "the search for where triggers begin failed".into() };
        history::blocking(find).await.ok_or_else(failed)?
    }
}

/// Sets triggers of the set to work, and stops all others; returns those at work.
fn install(core: &mut Core, prepared: Prepared) -> Vec<TriggerId> {
    let mut rules = Vec::new();
    let mut installed = Vec::new();
    let mut runtimes = std::mem::take(&mut core.runtimes);
    let present = core.state.set.triggers.iter().filter(|entry| entry.removed_at_ms.is_none());
    let present: HashMap<String, (TriggerId, Offset)> =
        present.map(|entry| (entry.name.clone(), (entry.id, entry.birth))).collect();
    for (name, (trigger, sink, dead_letter)) in prepared.triggers {
        let Some(&(id, birth)) = present.get(&name) else { continue };
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
                runtime.reconfigure(active, state);
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
    core.derive();
    installed
}

/// The trigger set that follows from the one in force; `None` when nothing of it changes.
fn next_set(
    old: &TriggerSet,
    next_trigger: u32,
    birth: &dyn Fn(&str, Start) -> Offset,
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
    let places: HashMap<&str, usize> =
        old.triggers.iter().enumerate().map(|(at, entry)| (entry.name.as_str(), at)).collect();
    for (name, (trigger, ..)) in &prepared.triggers {
        let filters = describe(trigger);
        match places.get(name.as_str()) {
            Some(&at) => triggers[at].filters = filters,
            None => {
                let birth = birth(name, trigger.start);
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

/// Behind the last event received before a time, if there may be one that was received later: what cannot be read there
/// is not begun behind.
fn first_received_at(reader: &Reader, ms: u64) -> Result<Option<Offset>, ReadError> {
    let segments = reader.segments();
    let within = segments.iter().find(|segment| segment.extent().last_received_ms >= ms);
    let Some(within) = within else { return Ok(None) };
    let mut first = within.header.first_offset;
    reader.walk(first, &mut |record, _| match record {
        LogRecord::Event(record) if record.received_at_ms >= ms => false,
        LogRecord::Event(record) => {
            first = record.offset.next();
            true
        }
        _ => true,
    })?;
    Ok(Some(first))
}
