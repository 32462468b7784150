//! What every source is to the supervisor that runs it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

use crate::Publisher;

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
}

impl Health {
    pub fn new(tell: impl Fn(Report) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub fn tell(&self, report: Report) {
        (self.0)(report);
    }
}
