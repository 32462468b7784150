//! What every source is to the supervisor that runs it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sluice_config::Oversize;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::{Aside, AsideTooLarge, Entry, Published, Publisher, Record, Refusal, Unfit};

/// Something that brings events in until it is told to stop. A source acknowledges upstream in the line after `publish` or
/// `put_aside` returned `Ok`. It does not reconnect: the error that took it down is returned, and the supervisor runs it again
/// after a while.
pub trait Source: Send + Sync + 'static {
    /// Runs until `context.stop`, which ends in `Ok` once everything received is settled or given back.
    fn run(&self, context: Context) -> Pin<Box<dyn Future<Output = Result<(), Down>> + Send + '_>>;
}

/// What a source gets to work with.
#[derive(Clone)]
pub struct Context {
    pub name: Arc<str>,
    pub publisher: Publisher,
    pub health: Health,
    pub stop: Stop,
    /// The mark of the source's last `publish_with` that was stored.
    pub mark: Option<String>,
    /// `limits.put_aside_bytes`.
    pub put_aside_bytes: usize,
    pub oversize: Oversize,
}

/// Between two attempts to store what the store had no room for.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// How an attempt to store something ended.
#[derive(Debug)]
pub enum Outcome {
    Stored(Published),
    /// The entry at `index` shares source and id with the event at `offset`, and nothing was stored.
    Conflict {
        index: usize,
        offset: u64,
    },
    /// More than a segment holds, and nothing was stored.
    TooLarge {
        bytes_max: usize,
    },
    /// Told to stop before there was room.
    Stopped,
}

impl Context {
    /// Stores all of it together. While the store has no room it is asked again, and the health says so; nothing is to be
    /// acknowledged upstream meanwhile.
    pub async fn store(&mut self, entries: Vec<Entry>, aside: Vec<Aside>, mark: Option<String>) -> Outcome {
        let mut wait = RETRY_MIN;
        let mut was_stalled = false;
        loop {
            let refusal = match self.publisher.send(entries.clone(), aside.clone(), mark.clone()).await {
                Ok(published) => {
                    if was_stalled {
                        self.health.tell(Report::Up);
                    }
                    return Outcome::Stored(published);
                }
                Err(Refusal::Conflict { index, offset }) => return Outcome::Conflict { index, offset },
                Err(Refusal::TooLarge { bytes_max }) => return Outcome::TooLarge { bytes_max },
                Err(refusal @ (Refusal::Full { .. } | Refusal::Unavailable { .. })) => refusal,
            };
            was_stalled = true;
            self.health.tell(Report::Stalled(refusal.to_string()));
            tokio::select! {
                () = sleep(wait) => {}
                () = self.stop.requested() => return Outcome::Stopped,
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// A record that no segment of the store has room for takes the source down, as one that cannot be put aside does.
    pub fn no_room_ever(position: &str, bytes_max: usize) -> Down {
        Down::because(format!(
            "the record at {position} is more than the {bytes_max} bytes that a segment of the store holds: `store.segment` names \
             larger ones"
        ))
    }

    /// A record as it is kept with its reason. One that is too large takes the source down, unless it may be cut.
    pub fn aside(&self, record: Record, unfit: Unfit) -> Result<Aside, Down> {
        let max = self.put_aside_bytes;
        let position = record.position.clone();
        let why = unfit.to_string();
        Aside::new(record, unfit, max, self.oversize).map_err(|AsideTooLarge { size }| {
            Down::because(format!(
                "the record at {position} cannot become an event ({why}), and its {size} bytes are more than the {max} of \
                 `limits.put_aside_bytes`; `oversize: truncate` keeps the beginning"
            ))
        })
    }
}

/// Why a source is down.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Down {
    /// One line that names the server, topic, queue or stream and what is wrong.
    pub reason: String,
}

impl Down {
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// Turns true once, when the source is to stop.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    pub fn new(receiver: watch::Receiver<bool>) -> Self {
        Self(receiver)
    }

    /// Returns when the source is to stop.
    pub async fn requested(&mut self) {
        // A supervisor that is gone wants nothing to run on.
        drop(self.0.wait_for(|stop| *stop).await);
    }

    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

/// What a source says about itself while it runs.
#[derive(Clone)]
pub struct Health(Arc<dyn Fn(Report) + Send + Sync>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Connected, and able to receive.
    Up,
    /// Connected, but nothing can be taken for the moment; the reason says why.
    Stalled(String),
    /// Everything up to here is stored and acknowledged upstream.
    Position(String),
    Accepted {
        events: u64,
        duplicates: u64,
    },
    PutAside {
        is_conflict: bool,
    },
    /// Ticks that a timer missed and does not make up for.
    Skipped {
        ticks: u64,
    },
}

impl Health {
    pub fn new(tell: impl Fn(Report) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub fn tell(&self, report: Report) {
        (self.0)(report);
    }
}
