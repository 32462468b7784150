//! The supervisor of sources: each runs in a task of its own, is run again after a while when it is down, and tells how it is.
//! A source that is down stops nothing else.

mod backoff;
mod status;
mod supervise;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sluice_adapters::hook::Hooks;
use sluice_adapters::{Opened, Publisher, Record, Refusal, Source, Unfit, WrongSource};
use sluice_config as config;
use sluice_schemas::Event;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::dispatch::Dispatch;
use crate::intake::Intake;
use crate::store::{LogRecord, SourcePause, clock};

use self::status::Status;
pub use self::status::{Counts, State};
use self::supervise::Supervised;

/// What a source that is paused, changed or removed has for an orderly end.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Sources whose configuration was compiled; nothing outside has been touched.
pub struct Prepared(BTreeMap<String, (config::Source, Opened)>);

/// Compiles all sources of a configuration.
pub fn prepare(sources: &BTreeMap<String, config::Source>) -> Result<Prepared, WrongSource> {
    let opened = sources.iter().map(|(name, source)| {
        let opened = sluice_adapters::open(name, source)?;
        Ok((name.clone(), (source.clone(), opened)))
    });
    opened.collect::<Result<_, _>>().map(Prepared)
}

/// The sources of a running broker. Cheap to clone.
#[derive(Clone)]
pub struct Sources(Arc<Inner>);

struct Inner {
    dispatch: Dispatch,
    hooks: Hooks,
    put_aside_bytes: usize,
    running: Mutex<BTreeMap<String, Running>>,
    /// Held over whatever starts or stops sources, so that a reload and a pause do not cross.
    changing: tokio::sync::Mutex<()>,
}

struct Running {
    config: config::Source,
    opened: Opened,
    /// Kept while it is paused, too: whoever sends to it is then told to come again.
    source: Arc<dyn Source>,
    status: Arc<Status>,
    /// `None` while it is paused.
    task: Option<Task>,
}

struct Task {
    stop: watch::Sender<bool>,
    ended: JoinHandle<()>,
}

/// Why a source was not paused or resumed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("there is no source `{0}`")]
    Unknown(String),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Sources {
    pub fn new(dispatch: Dispatch, hooks: Hooks, put_aside_bytes: usize) -> Self {
        let (running, changing) = (Mutex::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { dispatch, hooks, put_aside_bytes, running, changing }))
    }

    /// Puts sources in force: those that are gone or changed stop, those that are new or changed start, the others go on. Hooks
    /// are open when it returns.
    pub async fn adopt(&self, prepared: Prepared) {
        let _changing = self.0.changing.lock().await;
        let outdated: Vec<String> = {
            let running = self.running();
            let differs = |(name, running): &(&String, &Running)| {
                prepared.0.get(*name).is_none_or(|(config, _)| *config != running.config)
            };
            running.iter().filter(differs).map(|(name, _)| name.clone()).collect()
        };
        // In place before the old ones go, so that no name is unknown in between.
        let mut new = BTreeMap::new();
        for (name, (config, opened)) in prepared.0 {
            if outdated.contains(&name) || !self.running().contains_key(&name) {
                let source = opened.source(&self.0.hooks);
                new.insert(name, (config, opened, source));
            }
        }
        let mut statuses = self.stop_all(outdated.clone(), STOP_DEADLINE).await;
        for name in &outdated {
            self.running().remove(name);
        }
        for (name, (config, opened, source)) in new {
            let status = statuses.remove(&name).unwrap_or_default();
            let mut running = Running { config, opened, source, status, task: None };
            match self.paused(&name) {
                Some((reason, at_ms)) => {
                    running.status.set(State::Paused, Some(reason), at_ms);
                }
                None => running.task = Some(self.start(&name, &running)),
            }
            self.running().insert(name, running);
        }
        self.hooks_opened().await;
    }

    /// Whoever is told that the broker is ready, or a source resumed, sends at once; a hook opens with the first poll of its task.
    async fn hooks_opened(&self) {
        let hooks: Vec<_> = {
            let running = self.running();
            let hooks = running.values().filter(|running| running.opened.is_pushed_to());
            hooks.map(|running| Arc::clone(&running.status)).collect()
        };
        for status in hooks {
            status.settled().await;
        }
    }

    /// Stops them all, the first thing of a shutdown.
    pub async fn stop(&self, deadline: Duration) {
        let _changing = self.0.changing.lock().await;
        let names = self.running().keys().cloned().collect();
        self.stop_all(names, deadline).await;
    }

    /// Pauses a source until it is resumed, also across restarts.
    pub async fn pause(&self, name: &str) -> Result<Value, ChangeError> {
        let _changing = self.0.changing.lock().await;
        self.known(name)?;
        let reason = "paused by an operator".to_owned();
        self.record_pause(name, Some(reason.clone())).await?;
        self.stop_all(vec![name.to_owned()], STOP_DEADLINE).await;
        if let Some(running) = self.running().get(name) {
            running.status.set(State::Paused, Some(reason), clock::wall_ms());
        }
        tracing::info!(source = name, "paused source");
        self.known(name)
    }

    pub async fn resume(&self, name: &str) -> Result<Value, ChangeError> {
        let _changing = self.0.changing.lock().await;
        self.known(name)?;
        self.record_pause(name, None).await?;
        if let Some(running) = self.running().get_mut(name)
            && running.task.is_none()
        {
            running.task = Some(self.start(name, running));
        }
        self.hooks_opened().await;
        tracing::info!(source = name, "resumed source");
        self.known(name)
    }

    async fn record_pause(&self, name: &str, reason: Option<String>) -> Result<(), Refusal> {
        let record =
            LogRecord::SourcePause(SourcePause { source: name.into(), at_ms: clock::wall_ms(), reason });
        self.0.dispatch.log().append(Vec::new(), vec![record.clone()]).await?;
        self.0.dispatch.core().apply(&record);
        Ok(())
    }

    /// Why and since when a source is paused.
    fn paused(&self, name: &str) -> Option<(String, u64)> {
        let core = self.0.dispatch.core();
        core.state.paused_sources.get(name).map(|paused| (paused.reason.clone(), paused.at_ms))
    }

    /// What a record that a source put aside becomes under the present configuration.
    pub fn to_events(&self, name: &str, record: &Record) -> Result<Vec<Event>, Unfit> {
        let opened = self.running().get(name).map(|running| running.opened.clone());
        match opened {
            Some(opened) => opened.to_events(record),
            None => {
                let detail = format!("there is no source `{name}` any more");
                Err(Unfit { is_conflict: false, detail })
            }
        }
    }

    /// Entries of the list, in order of their names.
    pub fn list(&self) -> Vec<Value> {
        self.running()
            .iter()
            .map(|(name, running)| status::entry(name, &running.config, &running.status))
            .collect()
    }

    pub fn show(&self, name: &str) -> Option<Value> {
        self.running().get(name).map(|running| status::entry(name, &running.config, &running.status))
    }

    /// Whether others send to a source, who may not send again what it does not take.
    pub fn is_pushed_to(&self, name: &str) -> bool {
        self.running().get(name).is_some_and(|running| running.opened.is_pushed_to())
    }

    /// Sources that are not up and not paused either, with the reason.
    pub fn not_up(&self) -> BTreeMap<String, String> {
        let running = self.running();
        running.iter().filter_map(|(name, running)| Some((name.clone(), running.status.problem()?))).collect()
    }

    /// Whether each is up, and what it counted.
    pub fn counts(&self) -> Vec<(String, bool, Counts)> {
        let running = self.running();
        running
            .iter()
            .map(|(name, running)| {
                (name.clone(), running.status.state() == State::Running, running.status.counts())
            })
            .collect()
    }

    /// Waits until each source is up, down or paused, but not longer than this.
    pub async fn settled(&self, deadline: Duration) {
        let statuses: Vec<_> = self.running().values().map(|running| Arc::clone(&running.status)).collect();
        let all = async {
            for status in statuses {
                status.settled().await;
            }
        };
        drop(tokio::time::timeout(deadline, all).await);
    }

    fn known(&self, name: &str) -> Result<Value, ChangeError> {
        self.show(name).ok_or_else(|| ChangeError::Unknown(name.to_owned()))
    }

    fn start(&self, name: &str, running: &Running) -> Task {
        let (stop, stopped) = watch::channel(false);
        let (dispatch, named) = (self.0.dispatch.clone(), name.to_owned());
        let supervised = Supervised {
            name: name.into(),
            kind: running.config.kind.name(),
            source: Arc::clone(&running.source),
            publisher: Publisher::new(name, Arc::new(Intake::new(self.0.dispatch.clone()))),
            status: Arc::clone(&running.status),
            mark: Box::new(move || dispatch.core().state.marks.get(&*named).cloned()),
            put_aside_bytes: self.0.put_aside_bytes,
            oversize: running.config.oversize,
            stopped,
        };
        running.status.set(State::Starting, None, clock::wall_ms());
        Task { stop, ended: tokio::spawn(supervised.run()) }
    }

    /// Tells sources to stop and waits for their ends. Returns what they counted.
    async fn stop_all(&self, names: Vec<String>, deadline: Duration) -> BTreeMap<String, Arc<Status>> {
        let mut statuses = BTreeMap::new();
        let mut tasks = Vec::new();
        for name in names {
            let mut sources = self.running();
            let Some(running) = sources.get_mut(&name) else { continue };
            statuses.insert(name.clone(), Arc::clone(&running.status));
            if let Some(task) = running.task.take() {
                task.stop.send_replace(true);
                tasks.push((name, task));
            }
        }
        let until = tokio::time::Instant::now() + deadline;
        for (name, mut task) in tasks {
            if tokio::time::timeout_at(until, &mut task.ended).await.is_err() {
                tracing::warn!(source = %name, "the source did not end in time and was dropped");
                task.ended.abort();
                // The run is over, and its hook closed, when this returns.
                drop(task.ended.await);
            }
        }
        statuses
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
