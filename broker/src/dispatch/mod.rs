//! Routing and delivery at work: tasks around one shared [`Core`].
//!
//! Frames become durable, are matched once, and give claims; a claim is an attempt that a task makes; the outcome is
//! folded into the state and written to the log, and the task takes the trigger's next claim. Waits are kept in the
//! state, not in sleeping tasks.

mod attempt;
mod census;
mod core;
mod courier;
mod dead_letters;
mod history;
mod order;
mod reload;
#[cfg(test)]
pub(crate) mod tests;
mod trigger;
mod waits;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};

use self::census::Search;
pub use self::census::{Census, UnmatchedType};
pub use self::core::{Core, ended_without_attempt, pause};
pub use self::reload::{Prepared, WrongSink, prepare};
pub use self::trigger::{Active, Counters, LastError, Runtime, SECONDS_BOUNDS_MS, Step};
use crate::store::{Log, Record, State, TriggerEntry, TriggerId, TriggerState, clock};
use crate::transform;

/// Triggers looked at under the lock in one go.
const LOOK_PIECE: usize = 256;

/// A handle on routing and delivery. Cheap to clone.
#[derive(Clone)]
pub struct Dispatch {
    shared: Arc<Shared>,
}

/// Events that came in as replies, since the process began.
#[derive(Debug, Default)]
pub struct ReplyCounters {
    pub accepted: AtomicU64,
    pub duplicates: AtomicU64,
}

struct Shared {
    core: Mutex<Core>,
    log: Log,
    hops_max: u32,
    replies: ReplyCounters,
    reply_limits: sluice_config::Limits,
    /// Something is due earlier than the timer thinks.
    earlier: Arc<Notify>,
    /// A dead-letter sink is owed something that it was not a moment ago.
    owed: Notify,
    in_flight: watch::Sender<usize>,
    /// Which share of a backoff is waited, in [0, 1): evenly distributed (full jitter) outside of tests.
    jitter: fn() -> f64,
    transforms: transform::Pool,
}

impl Dispatch {
    pub fn new(log: Log, state: State, limits: sluice_config::Limits, outstanding_max: usize) -> Self {
        Self::with_jitter(log, state, limits, outstanding_max, fastrand::f64)
    }

    fn with_jitter(
        log: Log,
        state: State,
        limits: sluice_config::Limits,
        outstanding_max: usize,
        jitter: fn() -> f64,
    ) -> Self {
        let earlier = Arc::new(Notify::new());
        let in_flight = watch::Sender::new(0);
        let core = Core::new(log.clone(), state, outstanding_max, Arc::clone(&earlier), in_flight.clone());
        Self {
            shared: Arc::new(Shared {
                core: Mutex::new(core),
                log,
                hops_max: limits.hops,
                replies: ReplyCounters::default(),
                reply_limits: limits,
                earlier,
                owed: Notify::new(),
                in_flight,
                jitter,
                transforms: transform::Pool::default(),
            }),
        }
    }

    /// The state, for as long as the guard lives; nothing is routed or settled meanwhile.
    pub fn core(&self) -> MutexGuard<'_, Core> {
        self.shared.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn replies(&self) -> &ReplyCounters {
        &self.shared.replies
    }

    /// Looks at every trigger of the set, those that were removed and owe something included. So many at a time: what
    /// was seen is put together by the caller, and between two looks the lock is free.
    pub async fn each_trigger<T>(
        &self,
        look: impl Fn(&Core, &TriggerEntry, &TriggerState) -> Option<T>,
    ) -> Vec<T> {
        let mut seen = Vec::new();
        let mut next = TriggerId(0);
        loop {
            {
                let core = self.core();
                // Ids go up in the set.
                let entries = &core.state.set.triggers;
                let from = entries.partition_point(|entry| entry.id < next);
                let piece = &entries[from..entries.len().min(from + LOOK_PIECE)];
                let Some(last) = piece.last() else { return seen };
                next = TriggerId(last.id.0 + 1);
                let looks = piece.iter().map(|entry| look(&core, entry, core.state.triggers.get(&entry.id)?));
                seen.extend(looks.flatten());
            }
            tokio::task::yield_now().await;
        }
    }

    /// What runs the transforms.
    pub fn transforms(&self) -> &transform::Pool {
        &self.shared.transforms
    }

    pub fn log(&self) -> &Log {
        &self.shared.log
    }

    /// Routes what becomes durable, until the log ends. What a former run left unrouted comes first.
    pub async fn route(self, mut tail: mpsc::Receiver<Vec<Arc<Record>>>) {
        history::route_leftovers(&self, &mut tail).await;
        while let Some(records) = tail.recv().await {
            if records.is_empty() {
                continue;
            }
            let (mut table, search) = {
                let mut core = self.core();
                core.stored(&records);
                (Arc::clone(&core.table), core.census.search(records.iter().map(|record| &**record)))
            };
            let steps = loop {
                let matches = table.match_all(&records);
                let mut core = self.core();
                match core.route(&records, matches, &table) {
                    Some(steps) => break steps,
                    // There was a reload meanwhile.
                    None => table = Arc::clone(&core.table),
                }
            };
            self.start(steps);
            self.look_into(search);
        }
    }

    /// Looks for fields that no event has had, not under the lock.
    fn look_into(&self, search: Option<Search>) {
        let Some(search) = search else { return };
        let found = search.run();
        self.core().census.found(&found);
    }

    /// Tells dead-letter sinks, for ever.
    pub async fn tell(self) {
        courier::run(self).await;
    }

    /// Starts what becomes due, for ever.
    pub async fn tick(self) {
        loop {
            let wake = self.core().next_wake();
            let wait = wake.map_or(Duration::from_secs(60), clock::until);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shared.earlier.notified() => {}
            }
            let steps = self.core().due();
            self.start(steps);
        }
    }

    /// Makes attempts and looks keys up, each in a task of its own that goes on with the trigger's next step.
    pub fn start(&self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Attempt(claim) => drop(tokio::spawn(attempt::make(self.clone(), claim))),
                Step::LookUp(look_up) => drop(tokio::spawn(history::look_up(self.clone(), look_up))),
            }
        }
    }

    /// Lets a trigger go on after something about it has changed.
    pub fn nudge(&self, id: TriggerId) {
        let steps = self.core().fill(id);
        self.start(steps);
        history::catch_up_if_behind(self, id);
    }

    /// Starts no further attempt, tells no further dead letter, and waits for those under way, so long at most. Returns how
    /// many were left.
    pub async fn drain(&self, timeout: Duration) -> usize {
        self.core().is_stopping = true;
        let mut in_flight = self.shared.in_flight.subscribe();
        let _ = tokio::time::timeout(timeout, in_flight.wait_for(|count| *count == 0)).await;
        *in_flight.borrow()
    }
}
