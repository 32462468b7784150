//! From a configuration to triggers at work: at start, and again at every reload.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use sluice_adapters::Refusal;
use sluice_config::{self as config, Start};
use sluice_language::Filter;

use super::core::{Core, pause};
use super::trigger::{Active, Counters, Runtime};
use super::{Dispatch, history};
use crate::delivery::RetryPolicy;
use crate::routing::{Rule, Table};
use crate::sink::{OpenError, Sink};
use crate::store::{
    LogRecord, Offset, Paused, ReadError, Reader, TriggerEntry, TriggerId, TriggerSet, clock,
};

/// A trigger, its sinks, and what the log keeps of it.
struct Opened {
    trigger: config::Trigger,
    sink: Arc<Sink>,
    dead_letter: Option<Arc<Sink>>,
    described: serde_json::Value,
}

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
        let described = describe(trigger);
        prepared.insert(name.clone(), Opened { trigger: trigger.clone(), sink, dead_letter, described });
    }
    Ok(Prepared { triggers: prepared })
}

/// What is put in force, worked out from a set of triggers that must still be the one in force then.
pub(super) struct Plan {
    old: Arc<TriggerSet>,
    /// The set that follows, when it is another; where its new triggers begin is still to be said.
    new: Option<Arc<TriggerSet>>,
    active: Vec<Arc<Active>>,
    table: Table,
    /// What its filters name.
    fields: BTreeSet<String>,
}

impl Dispatch {
    /// Puts triggers in force, and returns once that is on disk.
    pub async fn adopt(&self, prepared: Prepared) -> Result<(), Refusal> {
        let resumed = loop {
            let births = self.births(&prepared).await?;
            // What takes longer the more triggers there are is not done under the lock.
            let plan = self.plan(&prepared)?;
            if let Some(resumed) = self.put_in_force(plan, &births) {
                break resumed;
            }
        };
        self.log().flush().await?;
        for id in resumed {
            self.nudge(id);
        }
        history::begin_history(self);
        self.shared.owed.notify_one();
        Ok(())
    }

    /// Works out what follows from the triggers in force. Nothing is planned that the log cannot hold.
    pub(super) fn plan(&self, prepared: &Prepared) -> Result<Plan, Refusal> {
        let (old, next_trigger, counters) = {
            let core = self.core();
            let all = core.runtimes.iter().chain(&core.frozen);
            let counters: HashMap<TriggerId, Arc<Counters>> =
                all.map(|(id, runtime)| (*id, Arc::clone(&runtime.active.counters))).collect();
            (Arc::clone(&core.state.set), core.state.next_trigger, counters)
        };
        let new = next_set(&old, next_trigger, prepared).map(Arc::new);
        if let Some(set) = &new {
            self.log().check_size(&LogRecord::Triggers(Arc::clone(set)))?;
        }
        let set = &new.as_ref().unwrap_or(&old).triggers;
        let present: HashMap<&str, &TriggerEntry> = set.iter().map(|entry| (&*entry.name, entry)).collect();
        let (mut rules, mut active) = (Vec::new(), Vec::new());
        for (name, opened) in &prepared.triggers {
            let Some(entry) = present.get(&**name) else { continue };
            let counters = counters.get(&entry.id).cloned().unwrap_or_default();
            rules.push(rule(entry, &opened.trigger, &counters));
            active.push(Arc::new(Active {
                id: entry.id,
                name: name.clone(),
                config: opened.trigger.clone(),
                sink: Arc::clone(&opened.sink),
                dead_letter: opened.dead_letter.clone(),
                policy: RetryPolicy::from(&opened.trigger.delivery),
                counters,
            }));
        }
        let filters = prepared.triggers.values().flat_map(|opened| &*opened.trigger.filters);
        let fields = filters.flat_map(Filter::fields).collect();
        Ok(Plan { old, new, active, table: Table::new(rules), fields })
    }

    /// Puts triggers in force at one moment: whoever is told of a trigger knows that events are matched with it, and no
    /// event behind its birth is matched without it. What is matched with them stands behind the set in the log. `None` when
    /// other triggers are in force than those that were planned from.
    pub(super) fn put_in_force(
        &self,
        mut plan: Plan,
        births: &BTreeMap<String, Offset>,
    ) -> Option<Vec<TriggerId>> {
        let mut core = self.core();
        if !Arc::ptr_eq(&core.state.set, &plan.old) {
            return None;
        }
        if let Some(mut set) = plan.new.take() {
            let next_offset = core.state.next_offset;
            let mut born = HashMap::new();
            let starts: HashMap<&str, Start> =
                plan.active.iter().map(|active| (&*active.name, active.config.start)).collect();
            // New triggers are behind those that were there.
            for entry in &mut Arc::make_mut(&mut set).triggers[plan.old.triggers.len()..] {
                entry.birth = match starts.get(&*entry.name) {
                    Some(Start::Earliest) => self.log().reader().first_offset(),
                    Some(Start::At(_)) => births.get(&entry.name).copied().unwrap_or(next_offset),
                    Some(Start::Latest) | None => next_offset,
                };
                born.insert(entry.id, entry.birth);
            }
            plan.table.set_births(&born);
            core.record(LogRecord::Triggers(set));
        }
        Some(install(&mut core, plan))
    }

    /// Where triggers begin that are to begin at a time; it is read from the log, and not under the lock. None of them
    /// begins when that cannot be found: nowhere else would be right.
    async fn births(&self, prepared: &Prepared) -> Result<BTreeMap<String, Offset>, Refusal> {
        let starts = prepared.triggers.iter().filter_map(|(name, opened)| match opened.trigger.start {
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

/// What decides whether a trigger matches.
fn rule(entry: &TriggerEntry, trigger: &config::Trigger, counters: &Counters) -> Rule {
    let filter = match &*trigger.filters {
        [only] => only.clone(),
        all => Filter::All(all.to_vec()),
    };
    Rule {
        trigger: entry.id,
        name: entry.name.as_str().into(),
        birth: entry.birth,
        sources: trigger.sources.clone(),
        filter,
        errors: Arc::clone(&counters.filter_errors),
    }
}

/// Sets triggers of the set to work, and stops all others; returns those at work.
fn install(core: &mut Core, plan: Plan) -> Vec<TriggerId> {
    let mut installed = Vec::with_capacity(plan.active.len());
    let mut runtimes = std::mem::take(&mut core.runtimes);
    for active in plan.active {
        let id = active.id;
        let former = runtimes.remove(&id).or_else(|| core.frozen.remove(&id));
        let Some(state) = core.state.triggers.get(&id) else { continue };
        let gone = state.paused.as_ref().filter(|paused| paused.is_gone());
        let has_other_sink = gone.is_some_and(|paused| match &former {
            Some(former) => former.active.config.sink != active.config.sink,
            // The process has just begun.
            None => paused.reason != Paused::gone(active.sink.url()),
        });
        let runtime = match former {
            Some(mut runtime) => {
                runtime.reconfigure(active, state);
                runtime
            }
            None => Runtime::new(active, state, core.state.books(state).unmatched),
        };
        core.runtimes.insert(id, runtime);
        if has_other_sink {
            core.record(pause(id, None));
        }
        installed.push(id);
    }
    core.frozen.append(&mut runtimes);
    core.census.look_for(plan.fields);
    core.table = Arc::new(plan.table);
    core.derive();
    installed
}

/// The trigger set that follows from the one in force; `None` when nothing of it changes. Where new triggers begin is said
/// when it is put in force.
fn next_set(old: &TriggerSet, next_trigger: u32, prepared: &Prepared) -> Option<TriggerSet> {
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
    for (name, opened) in &prepared.triggers {
        let filters = opened.described.clone();
        match places.get(name.as_str()) {
            Some(&at) => triggers[at].filters = filters,
            None => {
                let birth = Offset(u64::MAX);
                let id = TriggerId(next_id);
                triggers.push(TriggerEntry { id, name: name.clone(), birth, filters, removed_at_ms: None });
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
