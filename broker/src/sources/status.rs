//! How a source is: what `/readyz`, the list of sources and the metrics say of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use sluice_adapters::Report;
use sluice_config as config;
use tokio::sync::watch;

use crate::store::clock;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Starting,
    Running,
    Paused,
    Down,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Down => "down",
        }
    }
}

/// Counts since the process started, or since the source was first configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub accepted: u64,
    pub duplicates: u64,
    pub quarantined: u64,
    pub conflicts: u64,
    /// Ticks that a timer left out.
    pub skipped: u64,
}

/// Shared by the task that runs a source and whoever asks how it is.
pub(super) struct Status {
    state: watch::Sender<State>,
    rest: Mutex<Rest>,
}

#[derive(Default)]
struct Rest {
    /// Why it is down, paused, or takes nothing.
    error: Option<String>,
    since_ms: u64,
    position: Option<String>,
    counts: Counts,
}

impl Default for Status {
    fn default() -> Self {
        Self { state: watch::Sender::new(State::Starting), rest: Mutex::default() }
    }
}

impl Status {
    /// Changes the state, and says whether it or its reason is another than before.
    pub fn set(&self, state: State, error: Option<String>, at_ms: u64) -> bool {
        let mut rest = self.rest();
        let has_changed = self.state() != state;
        let is_news = has_changed || rest.error != error;
        rest.error = error;
        if has_changed || rest.since_ms == 0 {
            rest.since_ms = at_ms;
        }
        drop(rest);
        self.state.send_replace(state);
        is_news
    }

    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    pub fn counts(&self) -> Counts {
        self.rest().counts
    }

    /// Why the source is not up. A paused one has no problem.
    pub fn problem(&self) -> Option<String> {
        match self.state() {
            State::Running | State::Paused => None,
            State::Starting => Some("starting".into()),
            State::Down => Some(self.rest().error.clone().unwrap_or_else(|| "down".into())),
        }
    }

    pub async fn settled(&self) {
        let mut state = self.state.subscribe();
        // The sender lives as long as `self`.
        drop(state.wait_for(|state| *state != State::Starting).await);
    }

    /// Takes what a source tells. Says whether this brought it up.
    pub fn take(&self, report: Report) -> bool {
        match report {
            Report::Up => return self.set(State::Running, None, clock::wall_ms()),
            // Up, for it will go on by itself.
            Report::Stalled(why) => {
                self.set(State::Running, Some(why), clock::wall_ms());
            }
            Report::Position(position) => self.rest().position = Some(position),
            Report::Accepted { events, duplicates } => {
                let counts = &mut self.rest().counts;
                counts.accepted += events;
                counts.duplicates += duplicates;
            }
            Report::PutAside { is_conflict: true } => self.rest().counts.conflicts += 1,
            Report::PutAside { is_conflict: false } => self.rest().counts.quarantined += 1,
            Report::Skipped { ticks } => self.rest().counts.skipped += ticks,
        }
        false
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry of the list of sources.
pub(super) fn entry(name: &str, config: &config::Source, status: &Status) -> Value {
    let state = status.state();
    let rest = status.rest();
    json!({
        "name": name,
        "kind": config.kind.name(),
        "state": state.name(),
        "error": rest.error,
        "since": clock::rfc3339(rest.since_ms),
        "position": rest.position,
        "accepted": rest.counts.accepted,
        "put_aside": rest.counts.quarantined + rest.counts.conflicts,
        "duplicates": rest.counts.duplicates,
    })
}
