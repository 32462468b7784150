//! What waits for the writer, and how long the writer waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sluice_adapters::{Published, Refusal, TraceContext};
use sluice_schemas::Event;
use tokio::sync::oneshot;

use super::Offset;
use super::pace::Pace;
use super::record::{Digest, LogRecord};

/// How long records that nobody waits for may wait for company.
const LINGER: Duration = Duration::from_millis(10);
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

    /// Whether a delivery ends with this, so that a store that is full of what is owed owes less.
    pub fn settles(&self) -> bool {
        self.records.iter().any(|record| matches!(record, LogRecord::Outcomes(_)))
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
    /// How many of these somebody waits for.
    asked: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    appends: Vec<Append>,
    urgent: usize,
    since: Option<Instant>,
    pace: Pace,
    /// So many who wait for an answer wake the writer.
    wakes_at: usize,
    /// The writer sleeps without a deadline, so that records nobody waits for have to wake it.
    sleeping_soundly: bool,
    /// There was no room for what waits: it rests until then, unless the queue stops or there is some.
    no_room_until: Option<Instant>,
    stop: bool,
    dead: bool,
}

impl Waiting {
    fn take(&mut self) -> Vec<Append> {
        self.urgent = 0;
        self.since = None;
        // As many are likely to come again.
        let room = Vec::with_capacity(self.appends.len());
        std::mem::replace(&mut self.appends, room)
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
            asked: AtomicU64::new(0),
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
        let now = Instant::now();
        if append.answer.is_some() {
            waiting.urgent += 1;
            waiting.pace.arrived(now);
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
        waiting.since.get_or_insert(now);
        waiting.appends.push(append);
        let enough = waiting.urgent >= waiting.wakes_at || waiting.sleeping_soundly;
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

    /// Notes that so many are answered now, after a sync that took so long if there was one.
    pub fn answering(&self, publishers: usize, sync: Option<Duration>) {
        let mut waiting = self.lock();
        let urgent = waiting.urgent;
        waiting.pace.answered(publishers, urgent, Instant::now());
        if let Some(took) = sync {
            waiting.pace.synced(took);
        }
    }

    /// Waits for work, and for company where that pays.
    pub fn take(&self) -> Option<Vec<Append>> {
        let mut waiting = self.stay_awake(self.lock());
        let began = Instant::now();
        let mut gather = None;
        while !waiting.stop {
            let now = Instant::now();
            let (target, deadline) = if let Some(until) = waiting.no_room_until.filter(|until| *until > now) {
                (usize::MAX, Some(until))
            } else if waiting.urgent > 0 {
                let Some((expected, pause)) = waiting.pace.gather(waiting.urgent) else { break };
                (expected, Some(*gather.get_or_insert(now + pause)))
            } else if let Some(since) = waiting.since {
                (1, Some(since + LINGER))
            } else {
                // As long as it may be in time for what comes meanwhile, it need not be woken for that.
                (1, Some(began + LINGER).filter(|until| *until > now))
            };
            waiting.wakes_at = target;
            waiting.sleeping_soundly = deadline.is_none();
            waiting = match deadline {
                None => self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(until) if until <= now => break,
                Some(until) => {
                    let (waiting, _) =
                        self.wake.wait_timeout(waiting, until - now).unwrap_or_else(PoisonError::into_inner);
                    waiting
                }
            };
        }
        waiting.wakes_at = usize::MAX;
        waiting.sleeping_soundly = false;
        waiting.no_room_until = None;
        let appends = waiting.take();
        (!appends.is_empty() || !waiting.stop).then_some(appends)
    }

    /// Looks for the next event of a publisher that comes back at once, for a moment, while others use the processor.
    fn stay_awake<'a>(&'a self, waiting: MutexGuard<'a, Waiting>) -> MutexGuard<'a, Waiting> {
        let Some(until) = waiting.pace.stay_awake().filter(|_| waiting.urgent == 0 && !waiting.stop) else {
            return waiting;
        };
        let asked = self.asked.load(Ordering::Relaxed);
        drop(waiting);
        while self.asked.load(Ordering::Relaxed) == asked && Instant::now() < until {
            thread::yield_now();
        }
        self.lock()
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
