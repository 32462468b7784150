//! Sources as the supervisor runs them, in front of a store that a test can fill.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluice_adapters::{
    Aside, Context, Health, Intake, Published, Publisher, Receipt, Refusal, Report, Request, Source, Stop,
    hook::Hooks, open as open_source,
};
use sluice_config as config;
use sluice_schemas::Event;
use tokio::sync::{Notify, watch};

pub const DEADLINE: Duration = Duration::from_secs(60);

/// A store in memory that finds duplicates, refuses when it is told to, and tells when something changed.
#[derive(Default)]
pub struct Store {
    pub is_full: AtomicBool,
    state: Mutex<Stored>,
    changed: Notify,
}

#[derive(Default)]
pub struct Stored {
    pub events: Vec<Arc<Event>>,
    pub aside: Vec<Aside>,
    pub duplicates: usize,
    pub refused: usize,
    known: HashSet<(String, String)>,
    /// The reasons why sources went down, and what they said of themselves.
    pub down: Vec<String>,
    pub reports: Vec<Report>,
}

impl Intake for Store {
    fn submit(&self, request: Request) {
        let mut stored = self.lock();
        let answer = if self.is_full.load(Ordering::Relaxed) {
            stored.refused += 1;
            Err(Refusal::Full { reason: "the test says so".into() })
        } else {
            Ok(stored.take(request.entries.into_iter().map(|entry| entry.event), request.aside))
        };
        drop(stored);
        drop(request.answer.send(answer));
        self.changed.notify_waiters();
    }
}

impl Stored {
    fn take(&mut self, events: impl Iterator<Item = Arc<Event>>, aside: Vec<Aside>) -> Published {
        let mut receipts = Vec::new();
        for event in events {
            let duplicate = !self.known.insert((event.source().to_owned(), event.id().to_owned()));
            self.duplicates += usize::from(duplicate);
            receipts.push(Receipt { offset: self.events.len() as u64, duplicate });
            if !duplicate {
                self.events.push(event);
            }
        }
        self.aside.extend(aside);
        Published { receipts }
    }

    pub fn ids(&self) -> Vec<usize> {
        self.events.iter().map(|event| event.id().parse().expect("a number")).collect()
    }

    pub fn is_up(&self) -> bool {
        self.reports.contains(&Report::Up)
    }
}

impl Store {
    pub fn lock(&self) -> MutexGuard<'_, Stored> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: impl FnOnce(&mut Stored)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    /// Waits until something holds of it.
    pub async fn until(&self, what: &str, holds: impl Fn(&Stored) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if holds(&self.lock()) {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(DEADLINE, waiting).await.is_err() {
            let stored = self.lock();
            panic!(
                "not within {DEADLINE:?}: {what}; {} events, {} duplicates, {} aside, down: {:?}, said: {:?}",
                stored.events.len(),
                stored.duplicates,
                stored.aside.len(),
                stored.down,
                stored.reports
            );
        }
    }
}

/// A source that is started again while it is not told to stop. Dropping it is a kill: nothing is finished.
pub struct Running {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        tokio::time::timeout(DEADLINE, &mut self.task).await.expect("it stops").expect("it does not panic");
    }
}

const AGAIN: Duration = Duration::from_millis(200);

pub fn run(store: &Arc<Store>, yaml: &str) -> Running {
    let source = open(yaml);
    let (stop, stopped) = watch::channel(false);
    let told = Arc::clone(store);
    let context = Context {
        name: "live".into(),
        publisher: Publisher::new("live", Arc::clone(store) as Arc<dyn Intake>),
        health: Health::new(move |report| told.tell(|stored| stored.reports.push(report))),
        stop: Stop::new(stopped),
        mark: None,
        put_aside_bytes: 16 << 20,
        oversize: config::Oversize::Stop,
    };
    let store = Arc::clone(store);
    let task = tokio::spawn(async move {
        while let Err(down) = source.run(context.clone()).await {
            store.tell(|stored| stored.down.push(down.reason));
            if context.stop.is_requested() {
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
    Running { stop, task }
}

fn open(yaml: &str) -> Arc<dyn Source> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("live.yaml");
    std::fs::write(&path, format!("sources:\n  live:\n    {}\n", yaml.replace('\n', "\n    ")))
        .expect("writes");
    let loaded = match config::load(&[path], &|_| None) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{errors}\n{yaml}"),
    };
    let source = loaded.config.sources["live"].clone();
    match open_source("live", &source) {
        Ok(opened) => opened.source(&Hooks::default()),
        Err(error) => panic!("{error}"),
    }
}
