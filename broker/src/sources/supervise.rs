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
use crate::store::clock;

/// A run that lasted so long and was up counts as good, so that the next failure is the first again.
const GOOD_RUN: Duration = Duration::from_secs(30);

pub(super) struct Supervised {
    pub name: Arc<str>,
    pub kind: &'static str,
    pub source: Arc<dyn Source>,
    pub publisher: Publisher,
    pub status: Arc<Status>,
    /// What the source said last of where it stands.
    pub mark: Box<dyn Fn() -> Option<String> + Send + Sync>,
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
        let context = Context {
            name: Arc::clone(&self.name),
            publisher: self.publisher.clone(),
            health,
            stop: Stop::new(self.stopped.clone()),
            mark: (self.mark)(),
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

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Mutex;

    use sluice_adapters::{Intake, Report, Request};

    use super::*;

    struct Untouched;

    impl Intake for Untouched {
        fn submit(&self, _: Request) {
            panic!("nothing is published here");
        }
    }

    type Run = fn(Context) -> Pin<Box<dyn Future<Output = Result<(), Down>> + Send>>;

    /// A source whose runs go as listed, and the seconds at which they began.
    struct Listed {
        runs: Mutex<Vec<Run>>,
        began: Mutex<Vec<u64>>,
        start: Instant,
    }

    impl Source for Listed {
        fn run(&self, context: Context) -> Pin<Box<dyn Future<Output = Result<(), Down>> + Send + '_>> {
            self.began.lock().unwrap().push(self.start.elapsed().as_secs());
            let run = self.runs.lock().unwrap().pop().expect("another run");
            run(context)
        }
    }

    fn refused(_: Context) -> Pin<Box<dyn Future<Output = Result<(), Down>> + Send>> {
        Box::pin(async { Err(Down::because("h:1: connection refused")) })
    }

    fn panics(_: Context) -> Pin<Box<dyn Future<Output = Result<(), Down>> + Send>> {
        Box::pin(async { panic!("out of bounds") })
    }

    fn up(mut context: Context) -> Pin<Box<dyn Future<Output = Result<(), Down>> + Send>> {
        Box::pin(async move {
            assert_eq!(context.mark.as_deref(), Some("here"));
            context.health.tell(Report::Up);
            context.stop.requested().await;
            Ok(())
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_is_down_is_run_again_with_growing_waits_and_a_panic_is_a_failure() {
        let runs: Vec<Run> = vec![up, panics, refused, refused];
        let source = Arc::new(Listed { runs: runs.into(), began: Mutex::default(), start: Instant::now() });
        let status = Arc::new(Status::default());
        let (stop, stopped) = watch::channel(false);
        let supervised = Supervised {
            name: "s".into(),
            kind: "kafka",
            source: Arc::<Listed>::clone(&source),
            publisher: Publisher::new("s", Arc::new(Untouched)),
            status: Arc::clone(&status),
            mark: Box::new(|| Some("here".into())),
            put_aside_bytes: 1,
            oversize: Oversize::Stop,
            stopped,
        };
        let task = tokio::spawn(supervised.run());
        status.settled().await;
        assert_eq!(status.problem().as_deref(), Some("h:1: connection refused"));
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!((status.state(), status.problem()), (State::Running, None));
        let began = source.began.lock().unwrap().clone();
        assert_eq!(began.len(), 4, "{began:?}");
        // 1 s, 2 s and 4 s, of which jitter takes up to half.
        assert!(began[1] <= 1 && began[2] <= 3 && (1..=7).contains(&began[3]), "{began:?}");
        stop.send_replace(true);
        task.await.expect("ends well");
    }
}
