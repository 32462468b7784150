//! One source, from its start to its stop.

use std::sync::Arc;
use std::time::Duration;

use sluice_adapters::{Context, Down, Health, Publisher, Source, Stop};
use sluice_config::Oversize;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::backoff;
use super::status::{State, Status};
use crate::dispatch::Dispatch;
use crate::store::clock;

/// A run that lasted so long and was up counts as good, so that the next failure is the first again.
const GOOD_RUN: Duration = Duration::from_secs(30);

pub(super) struct Supervised {
    pub name: Arc<str>,
    pub kind: &'static str,
    pub source: Arc<dyn Source>,
    pub publisher: Publisher,
    pub status: Arc<Status>,
    pub dispatch: Dispatch,
    pub put_aside_bytes: usize,
    pub oversize: Oversize,
    pub stopped: watch::Receiver<bool>,
}

impl Supervised {
    /// Runs the source until it is told to stop.
    pub async fn run(self) {
        let mut stop = Stop::new(self.stopped.clone());
        let mut failures = 0;
        loop {
            let started = Instant::now();
            let ended = self.run_once().await;
            if stop.is_requested() {
                return;
            }
            let was_good = self.status.state() == State::Running && started.elapsed() >= GOOD_RUN;
            failures = if was_good { 1 } else { failures + 1 };
            let reason = match ended {
                Ok(()) => "it ended without being told to".to_owned(),
                Err(Down { reason }) => reason,
            };
            // Said once, however often the same is tried again.
            if self.status.set(State::Down, Some(reason.clone()), clock::wall_ms()) {
                let (source, kind) = (&self.name, self.kind);
                warn!(%source, kind, "source `{source}` is down: {reason}");
            }
            tokio::select! {
                () = tokio::time::sleep(backoff::wait(failures, fastrand::f64())) => {}
                () = stop.requested() => return,
            }
        }
    }

    /// One run, in a task of its own: a panic takes down this source and nothing else.
    async fn run_once(&self) -> Result<(), Down> {
        let (status, name, kind) = (Arc::clone(&self.status), Arc::clone(&self.name), self.kind);
        let health = Health::new(move |report| {
            if status.take(report) {
                info!(source = %name, kind, "source `{name}` is up");
            }
        });
        let mark = self.dispatch.core().state.marks.get(&self.name).cloned();
        let context = Context {
            name: Arc::clone(&self.name),
            publisher: self.publisher.clone(),
            health,
            stop: Stop::new(self.stopped.clone()),
            mark,
            put_aside_bytes: self.put_aside_bytes,
            oversize: self.oversize,
        };
        let source = Arc::clone(&self.source);
        let mut run = AbortOnDrop(tokio::spawn(async move { source.run(context).await }));
        match (&mut run.0).await {
            Ok(ended) => ended,
            Err(error) => Err(Down::because(format!("it panicked: {error}"))),
        }
    }
}

/// The run ends with its supervisor.
struct AbortOnDrop(tokio::task::JoinHandle<Result<(), Down>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
