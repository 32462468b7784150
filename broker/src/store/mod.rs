//! The store: one segmented log that is the truth, and what is derived from it.
//!
//! # Format
//!
//! ```text
//! DIR/store.json            format version, id of the store, when it was made
//! DIR/lock                  held by the one process that uses the directory
//! DIR/reached.json          how far the log went when it was last stopped, see `reached`
//! DIR/begun.json            the newest segment that the keeper has seen a frame in, likewise
//! DIR/log/000000000001.seg  segments, numbered without holes; a number is never used twice
//! DIR/log/000000000001.spare  space for segments to come: retired ones and new ones
//! DIR/snapshots/FRAME.snap  the state after that frame; the two newest are kept
//! DIR/dead-letters/         copies of dead letters whose segments have been retired, see `letters`
//! DIR/index/                look-ups, derived from the log by `index`; `index.broken` is one that was set aside
//! DIR/set-aside/            torn tails that recovery cut off
//!
//! segment  ┌────────────────┬───────────────┬─────────┬────
//!          │ header, 4 KiB  │ frame         │ frame   │ ...       frames begin at multiples of 512 bytes
//!          └────────────────┴───────────────┴─────────┴────
//! frame    ┌─────────────────────────────────────────┬────────┬────────┬─────────┐
//!          │ header, 64 bytes: checksum, segment,    │ record │ record │ padding │
//!          │ frame number, first offset, body length │        │        │         │
//!          └─────────────────────────────────────────┴────────┴────────┴─────────┘
//! record   ┌──────┬───────┬────┬────────┬──────────┬───────────────────────────┐
//!          │ type │ flags │ 00 │ length │ checksum │ body: fields (tag, length, │
//!          │ u8   │ u8    │    │ u32    │ u32      │ bytes)                     │
//!          └──────┴───────┴────┴────────┴──────────┴───────────────────────────┘
//! ```
//!
//! The checksum of a record (CRC-32C) is seeded with that of its frame's header, which covers segment and frame
//! number, plus the number of events before it in the frame: bytes of a recycled file's former life never pass as new
//! ones, one record can be verified alone, and a damaged neighbour cannot make it pass as another offset's.
//!
//! # What holds
//!
//! - A frame is what was synced together. The next one is written when the sync has returned, so at most one frame is
//!   unsynced, and an append is answered after its sync.
//! - Events take offsets, one each, without holes; other records take none.
//! - After the first write or sync error the writer ends and the process with it.
//! - Nothing touches the directory when its lock is released, however the writer ended.
//! - What cannot be read is said, where it is, and never taken for what is not there.
//! - What the records add up to is [`State`]; it is never written to but by folding records in.
//!
//! # A crash, and after it
//!
//! Recovery folds the newest snapshot and the frames behind it. A closing frame at the end says that all before it is
//! on disk; it is synced once more, and writing goes on behind it. Without one the last whole frame may be in the page
//! cache only: it is written again, at the start of a new segment, and file and directory are synced, before anything
//! is dispatched or answered. A frame that is not whole and has a later one behind it, or a segment that was begun after
//! it, or that was on disk when the store was stopped or a snapshot taken, is damage: the store refuses to open (or writes a gap, see `store.on_damage`). One that has nothing behind it is
//! a torn tail: it is copied to `set-aside` and cut off. A crash does not shorten files: a last segment that is shorter
//! than its header says it was made is damage, too, and so is a newest segment that was noted and is not there.
//! A block that cannot be read is damage as well, wherever it is, since it may be whole and readable another time: only an
//! operator gives it up, `store.on_damage: skip` does not. The gap then says for good that nothing is there: what could not
//! be read stays in its file, reads as nothing, and of frames that it may have held at the end no number is used again.
//! Whoever dies while recovering leaves a directory from which recovery comes to the same end.

pub mod clock;
pub mod digest;
mod disk;
mod fields;
mod format;
mod index;
mod keeper;
mod letters;
mod metrics;
mod open;
mod pace;
mod queue;
mod reached;
mod reader;
mod record;
mod recovery;
mod scan;
mod scrub;
mod segment;
mod snapshot;
mod state;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod unreadable;
mod verify;
mod window;
mod writer;

use std::sync::Arc;

use sluice_adapters::{Receipt, Refusal};
use tokio::sync::oneshot;

pub use disk::{Disk, DiskFile, Lock, ReadOnlyDisk, RealDisk};
pub use index::{Index, IndexState, Wanted};
pub use keeper::Report;
pub use metrics::{Measures, SyncTimes};
#[cfg(test)]
pub use open::open_stepwise;
pub use open::{OpenError, Opened, Options, Recovery, Upkeep, open};
pub use queue::{Append, NewEvent};
pub use reader::{Passed, ReadError, Reader, Unread};
pub use record::{
    Aside, AsidesGone, Attempted, DeliveryId, Digest, Gap, LogRecord, Mark, Next, Pause, Purge, Record,
    Redrive, Routed, SourcePause, TriggerEntry, TriggerSet,
};
pub use scan::Damage;
pub use state::{AsideEntry, Books, DeadLetter, Paused, Slot, State, TriggerState};
pub use verify::{RepairError, VerifyError, VerifyReport, repair, verify};
pub use window::WindowSize;

/// Where an event is in the log. To users an opaque decimal.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a trigger in the log. A name that comes back after its trigger was forgotten gets a new one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct TriggerId(pub u32);

/// A handle on the open log. Dropping the last one does not stop the writer: [`Log::stop`] does.
#[derive(Clone)]
pub struct Log {
    queue: Arc<queue::Queue>,
    reader: Arc<Reader>,
    measures: Arc<Measures>,
    keeper: Arc<keeper::Shared>,
    index: Arc<Index>,
    frame_bytes_max: usize,
}

impl Log {
    /// Stores events and records together. Their place in the log is that of the call; what it returns is done once they are
    /// on disk.
    pub fn append(
        &self,
        events: Vec<NewEvent>,
        records: Vec<LogRecord>,
    ) -> impl Future<Output = Result<Vec<Receipt>, Refusal>> + use<> {
        let (answer, answered) = oneshot::channel();
        self.queue.append(Append { events, records, answer: Some(answer) });
        async move {
            let gone = || Refusal::Unavailable { reason: "the store has stopped".into() };
            Ok(answered.await.map_err(|_| gone())??.receipts)
        }
    }

    /// Refuses a record that no segment can hold. Whoever folds a record in before it is on disk asks first, if it has no
    /// other bound.
    pub fn check_size(&self, record: &LogRecord) -> Result<(), Refusal> {
        let mut frame = vec![0; format::FRAME_HEADER_BYTES];
        record.append_to(&mut frame);
        let bytes_max = self.frame_bytes_max;
        if frame.len() > bytes_max { Err(Refusal::TooLarge { bytes_max }) } else { Ok(()) }
    }

    /// Stores records soon: within 50 ms, or with the next events.
    pub fn append_later(&self, records: Vec<LogRecord>) {
        self.queue.append(Append::later(records));
    }

    /// Returns once everything that was appended before is on disk, and so can be read.
    pub async fn flush(&self) -> Result<(), Refusal> {
        self.append(Vec::new(), Vec::new()).await.map(drop)
    }

    pub fn submit(&self, append: Append) {
        self.queue.append(append);
    }

    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    pub fn measures(&self) -> &Measures {
        &self.measures
    }

    /// Look-ups of events. It stays closed, and they scan, until it is started.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// Why events are refused at the moment, if they are.
    pub fn full(&self) -> Option<String> {
        self.queue.full()
    }

    /// Whether the outcome of one more delivery is sure to find room.
    pub fn has_outcome_room(&self) -> bool {
        self.queue.has_outcome_room()
    }

    /// Tells the keeper the lowest offset that a trigger still needs.
    pub fn note_floor(&self, floor: Offset) {
        self.keeper.set_floor(floor);
    }

    /// What the keeper last found.
    pub fn report(&self) -> Report {
        self.keeper.report()
    }

    /// Writes what waits and a closing frame; [`Opened::ended`] tells when that is done.
    pub fn stop(&self) {
        self.queue.stop();
        self.keeper.stop();
        self.index.stop();
    }
}
