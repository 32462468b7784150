//! Finds events by id, type or source, and what became of an event, without reading the whole log.
//!
//! The index is a reader of the log with a position of its own in every segment. It answers as a scan does: it only
//! says which frames to read. What it has not reached is scanned, and every record it names is read and compared, so a
//! stale or colliding entry cannot show. It holds nothing that the log does not. A segment that cannot be read is passed
//! over, said in `/readyz` and scanned; after any error or panic of the database the directory is set aside (one is kept)
//! and built anew, and look-ups scan meanwhile. So is one that a process died of while it was opened: the file `opening`
//! is in it until then. A disk that is full is no such error: the index stops growing while there is less room than the
//! log wants to keep free, and when a write finds none after all the directory is removed, which gives the log its room.
//!
//! Off the path of events: one thread, started when the broker is ready, which while events come in works a tenth of a
//! millisecond at a time and then rests nine times as long. It indexes whole blocks; the end of the log, up to
//! [`block::BYTES_MAX`], is always scanned. It works on the newest segment that has a block to index, and leases that one
//! only, until the block is read: the oldest, which retention waits for, is free most of the time. A retired segment's tree
//! is dropped with it.

mod block;
mod lookup;
#[cfg(test)]
mod tests;
mod tree;
mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

pub use lookup::Wanted;

use super::disk::Disk;
use super::reader::Reader;
use super::segment::Segment;
use tree::{IndexError, Reached, Trees};

/// Left free besides what the log wants, so that a block cannot take it.
const SPARED_BYTES: u64 = 8 << 20;

/// What the index is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IndexState {
    /// Not opened yet; all look-ups scan.
    #[default]
    Starting,
    /// Behind the log by a block or more.
    Building,
    /// All but the last, unfinished block is indexed.
    Ready,
    /// There is no room on the disk for more of it.
    Waiting,
    /// It could not be opened or written and is tried again.
    Failed,
    Stopped,
}

impl IndexState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Building => "building",
            Self::Ready => "ready",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// The index of a log, and the look-ups that need no index but are faster with one.
pub struct Index {
    reader: Arc<Reader>,
    dir: PathBuf,
    room: Room,
    control: Mutex<Control>,
    wake: Condvar,
    /// Look-ups ask it under the lock and take no handle along: whoever drops the last one closes the database, which
    /// writes, blocks, and may panic, and that is for the thread `store-index`.
    open: RwLock<Option<(Generation, Arc<Trees>)>>,
}

/// Tells one opening of the database from the next: what a look-up says of one that is gone concerns no other.
type Generation = u64;

/// The disk that the index shares with the log.
pub struct Room {
    pub disk: Arc<dyn Disk>,
    /// What the log wants to keep free.
    pub free_bytes_min: u64,
}

impl Room {
    /// Whether the index may grow. A disk that does not say how much is free is found full when it is written to.
    fn is_left(&self, dir: &Path) -> bool {
        let needed = self.free_bytes_min.saturating_add(SPARED_BYTES);
        dir.parent().and_then(|dir| self.disk.free_bytes(dir).ok()).is_none_or(|free| free >= needed)
    }
}

#[derive(Default)]
struct Control {
    is_started: bool,
    is_stopping: bool,
    /// Of the database that is open or was last.
    generation: Generation,
    /// Segments that could not be read, and when that is tried again: look-ups scan them.
    passed_over: BTreeMap<u64, Instant>,
    /// A look-up met an error: the index is to be built anew.
    broken: Option<IndexError>,
    state: IndexState,
    has_ended: bool,
}

impl Index {
    /// An index in a directory. Nothing is opened before [`Index::start`].
    pub fn new(reader: Arc<Reader>, dir: PathBuf, room: Room) -> Self {
        Self { reader, dir, room, control: Mutex::default(), wake: Condvar::new(), open: RwLock::default() }
    }

    /// Lets the thread `store-index` open the index and catch up.
    pub fn start(&self) {
        self.control().is_started = true;
        self.wake.notify_all();
    }

    pub fn stop(&self) {
        self.control().is_stopping = true;
        self.wake.notify_all();
    }

    /// Whether [`Index::run`] returns within so long.
    pub(super) fn has_ended_within(&self, patience: Duration) -> bool {
        let runs = |control: &mut Control| !control.has_ended;
        let waited = self.wake.wait_timeout_while(self.control(), patience, runs);
        waited.unwrap_or_else(PoisonError::into_inner).0.has_ended
    }

    /// Events in the log that a look-up has to scan.
    pub fn lag(&self) -> u64 {
        let segments = self.reader.segments();
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let behind = |segment: &Arc<Segment>| {
            let reached = open.as_ref().and_then(|(_, trees)| trees.reached(segment.number()));
            let indexed = reached.map_or(0, Reached::events_until);
            segment.extent().next_offset.0.saturating_sub(indexed.max(segment.header.first_offset.0))
        };
        segments.iter().map(behind).sum()
    }

    pub fn state(&self) -> IndexState {
        let state = self.control().state;
        // The thread looks only now and then whether events have come in.
        if state == IndexState::Ready && self.lag() >= block::EVENTS_MAX as u64 {
            return IndexState::Building;
        }
        state
    }

    /// Numbers of the segments that could not be read when they were to be indexed.
    pub fn passed_over(&self) -> Vec<u64> {
        self.control().passed_over.keys().copied().collect()
    }

    /// Asks the database, if it is open.
    fn ask<T>(&self, ask: impl FnOnce(Generation, &Trees) -> T) -> Option<T> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().map(|(generation, trees)| ask(*generation, trees))
    }

    #[cfg(test)]
    fn trees(&self) -> Option<Arc<Trees>> {
        self.open.read().unwrap().as_ref().map(|(_, trees)| Arc::clone(trees))
    }

    /// Look-ups ask this one from here on. The one before is closed, when none of them asks it any more.
    fn set_trees(&self, trees: Option<Arc<Trees>>) {
        let generation = {
            let mut control = self.control();
            control.generation += 1;
            control.broken = None;
            control.generation
        };
        let before = {
            let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *open, trees.map(|trees| (generation, trees)))
        };
        // Closing writes, and may panic as anything else in there.
        drop(tree::guarded(|| {
            drop(before);
            Ok(())
        }));
    }

    /// A look-up goes on without the index; the thread builds it anew.
    fn report(&self, generation: Generation, error: IndexError) {
        let mut control = self.control();
        if control.generation == generation {
            control.broken.get_or_insert(error);
            drop(control);
            self.wake.notify_all();
        }
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is time to stop (true) or so long has passed or something is broken (false).
    fn is_stopped_after(&self, pause: Duration) -> bool {
        let waiting = |control: &mut Control| !control.is_stopping && control.broken.is_none();
        let waited = self.wake.wait_timeout_while(self.control(), pause, waiting);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_stopping
    }
}
