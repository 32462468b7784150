//! What waits for the writer, and the gathering of many into one sync.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_adapters::{Published, Refusal, TraceContext};
use sluice_schemas::Event;
use tokio::sync::oneshot;

use super::Offset;
use super::record::{Digest, LogRecord};

/// How long records that nobody waits for may wait for company.
const LINGER: Duration = Duration::from_millis(10);
/// Gathering pauses for half a sync at most, and never longer than this.
const GATHER_MAX: Duration = Duration::from_millis(2);
const GATHER_MIN: Duration = Duration::from_micros(40);
/// What found no room is tried again after this, or at once when the keeper has made some.
pub const NO_ROOM_PAUSE: Duration = Duration::from_millis(100);

/// An event to be stored.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub event: Arc<Event>,
    pub via: Arc<str>,
    pub trace: Option<TraceContext>,
    pub parent: Option<Offset>,
    pub hops: u32,
    pub key: Digest,
    pub content: Digest,
    /// Not set for events that are never held to be duplicates.
    pub unique: bool,
}

/// Who waits for an append.
pub type Answer = oneshot::Sender<Result<Published, Refusal>>;

/// Records that are written together or not at all.
#[derive(Debug)]
pub struct Append {
    pub events: Vec<NewEvent>,
    pub records: Vec<LogRecord>,
    /// Told once all of it is on disk. Without one the records may wait a little for company.
    pub answer: Option<Answer>,
}

impl Append {
    /// Whether this brings something in from outside: a full store refuses it, and the reserve is not for it.
    pub fn is_intake(&self) -> bool {
        !self.events.is_empty() || self.records.iter().any(|record| matches!(record, LogRecord::Aside(_)))
    }

    /// Records that nobody waits for.
    pub fn later(records: Vec<LogRecord>) -> Self {
        Self { events: Vec::new(), records, answer: None }
    }
}

/// What the writer shares with those who append.
pub struct Queue {
    state: Mutex<Waiting>,
    wake: Condvar,
    /// Why events are refused at the moment; the empty string when they are not.
    full: Mutex<String>,
    is_full: AtomicBool,
    outcome_room: AtomicBool,
    /// The segment number that is being written.
    pub active: AtomicU64,
    appended: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    appends: Vec<Append>,
    urgent: usize,
    since: Option<Instant>,
    sleeping_until: usize,
    /// There was no room for what waits: it rests until then, unless the queue stops or there is some.
    no_room_until: Option<Instant>,
    stop: bool,
    dead: bool,
}

impl Waiting {
    fn take(&mut self) -> Vec<Append> {
        self.urgent = 0;
        self.since = None;
        std::mem::take(&mut self.appends)
    }
}

impl Queue {
    pub fn new() -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            full: Mutex::default(),
            is_full: AtomicBool::new(false),
            outcome_room: AtomicBool::new(true),
            active: AtomicU64::new(0),
            appended: AtomicU64::new(0),
        }
    }

    /// Queues an append. What bounds the queue is what bounds its callers: bytes in flight and deliveries in flight.
    pub fn append(&self, append: Append) {
        self.appended.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.lock();
        if waiting.dead {
            refuse(append, &unavailable());
            return;
        }
        waiting.urgent += usize::from(append.answer.is_some());
        waiting.since.get_or_insert_with(Instant::now);
        waiting.appends.push(append);
        let enough = waiting.urgent >= waiting.sleeping_until || waiting.appends.len() == 1;
        drop(waiting);
        if enough {
            self.wake.notify_one();
        }
    }

    /// Asks the writer to write what waits and a closing frame, and to end.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_one();
    }

    /// Refuses all that waits and all that comes.
    pub fn end(&self) {
        let left = {
            let mut waiting = self.lock();
            waiting.dead = true;
            std::mem::take(&mut waiting.appends)
        };
        left.into_iter().for_each(|append| refuse(append, &unavailable()));
    }

    /// How many appends there have been: who sees it move is not alone on the disk.
    pub fn appended(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    pub fn full(&self) -> Option<String> {
        if !self.is_full.load(Ordering::Relaxed) {
            return None;
        }
        Some(self.full.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    pub fn set_full(&self, reason: Option<String>) {
        let is_full = reason.is_some();
        *self.full.lock().unwrap_or_else(PoisonError::into_inner) = reason.unwrap_or_default();
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    /// There is a spare segment: what found no room is tried at once.
    pub fn room_returned(&self) {
        self.set_outcome_room(true);
        if self.lock().no_room_until.take().is_some() {
            self.wake.notify_one();
        }
    }

    pub fn set_outcome_room(&self, has_room: bool) {
        self.outcome_room.store(has_room, Ordering::Relaxed);
    }

    /// Whether the outcome of one more delivery is sure to find room.
    pub fn has_outcome_room(&self) -> bool {
        self.outcome_room.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait for an answer.
    pub fn urgent(&self) -> usize {
        self.lock().urgent
    }

    /// Waits for work. With more than one `expected` it gathers for a fraction of the time a sync takes, until so many
    /// wait for an answer.
    pub fn take(&self, expected: usize, sync: Duration) -> Option<Vec<Append>> {
        let mut waiting = self.lock();
        let gather = (sync / 2).min(GATHER_MAX);
        let mut gather_until = None;
        loop {
            if waiting.stop {
                break;
            }
            let resting = waiting.no_room_until.filter(|until| *until > Instant::now());
            let (target, deadline) = if let Some(until) = resting {
                (usize::MAX, until)
            } else if waiting.urgent > 0 {
                if expected <= 1 || gather < GATHER_MIN || waiting.urgent >= expected {
                    break;
                }
                (expected, *gather_until.get_or_insert_with(|| Instant::now() + gather))
            } else if let Some(since) = waiting.since {
                (1, since + LINGER)
            } else {
                waiting.sleeping_until = 1;
                waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting.sleeping_until = target;
            waiting = self.wake.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.sleeping_until = usize::MAX;
        waiting.no_room_until = None;
        let appends = waiting.take();
        (!appends.is_empty() || !waiting.stop).then_some(appends)
    }

    /// What waits at the moment.
    #[cfg(test)]
    pub fn take_now(&self) -> Vec<Append> {
        self.lock().take()
    }

    /// Queues what found no room again, to be tried after a pause; false when there is no time to wait for some.
    pub fn put_back(&self, mut appends: Vec<Append>, pause: Duration) -> bool {
        let mut waiting = self.lock();
        if waiting.stop {
            drop(waiting);
            appends.into_iter().for_each(|append| refuse(append, &unavailable()));
            return false;
        }
        waiting.urgent += appends.iter().filter(|append| append.answer.is_some()).count();
        waiting.since.get_or_insert_with(Instant::now);
        waiting.no_room_until = (!appends.is_empty()).then(|| Instant::now() + pause);
        appends.append(&mut waiting.appends);
        waiting.appends = appends;
        true
    }
}

pub fn refuse(append: Append, refusal: &Refusal) {
    if let Some(answer) = append.answer {
        let _ = answer.send(Err(refusal.clone()));
    }
}

pub fn unavailable() -> Refusal {
    Refusal::Unavailable { reason: "the store has stopped".into() }
}
