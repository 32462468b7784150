//! Keeps the store in shape, off the path of events: spares, snapshots, retention, and how full it is.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::letters::Kept;
use super::open::{Identity, Options};
use super::queue::{Append, Queue};
use super::reached::Reached;
use super::reader::Reader;
use super::scan::Position;
use super::scrub::Scrub;
use super::segment::{Layout, Segment, Spares};
use super::snapshot::{self, Folded};
use super::{LogRecord, Offset, clock};

/// One to go on with and one in reserve for outcomes.
const SPARES_WANTED: usize = 2;
const SPARES_MAX: usize = 4;
/// Space that is written out ahead while a store is young: later ones are recycled.
const WRITTEN_AHEAD: u64 = 4;

/// What the keeper last found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub bytes: u64,
    pub segments: usize,
    /// From the oldest event on that a trigger needs, and copies of dead letters.
    pub owed_bytes: u64,
    pub limit_bytes: u64,
    pub free_bytes: u64,
    pub snapshot_frame: u64,
    pub problem: Option<String>,
}

#[derive(Default)]
pub struct Shared {
    report: Mutex<Report>,
    /// Below this all is settled in this process, though perhaps not on disk yet.
    floor: AtomicU64,
    stopping: Mutex<bool>,
    wake: Condvar,
}

impl Shared {
    pub fn report(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of the lowest offset that a trigger still needs.
    pub fn set_floor(&self, floor: Offset) {
        self.floor.store(floor.0, Ordering::Relaxed);
    }

    fn floor(&self) -> Offset {
        Offset(self.floor.load(Ordering::Relaxed))
    }

    pub fn stop(&self) {
        *self.stopping.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    #[cfg(test)]
    pub fn is_stopping(&self) -> bool {
        *self.stopping.lock().unwrap()
    }

    /// Waits a tick; true when it is time to end.
    fn is_stopped_after(&self, tick: Duration) -> bool {
        let stopping = self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake.wait_timeout_while(stopping, tick, |stopping| !*stopping);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

pub struct Keeper {
    disk: Arc<dyn Disk>,
    layout: Layout,
    options: Options,
    reader: Arc<Reader>,
    spares: Arc<Spares>,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    /// Where the newest snapshot stands, and what the older one still needs.
    snapshot: Option<Position>,
    settled: Option<Settled>,
    /// The same of the newest snapshot: it counts when that has become the older one.
    newest: Option<Settled>,
    snapshot_at: Instant,
    /// The number of the newest segment that is written down.
    begun: u64,
    full: bool,
    /// Set when the oldest segment could not be retired: none is until the next start.
    is_stuck: bool,
    /// Up to where the dead letters of the oldest segment have been copied.
    copied: Option<Position>,
    /// When they could not be, and why.
    uncopied: Option<(Instant, String)>,
    /// What the last step failed with.
    failure: Option<String>,
    /// Why there are fewer spares than wanted.
    no_spare: Option<String>,
    scrub: Scrub,
}

/// What the older snapshot says is not needed any more.
#[derive(Clone, Debug)]
struct Settled {
    /// Segments before this one are not needed to recover.
    segment: u64,
    /// Events before this one are settled and routed.
    floor: Offset,
    /// What is copied before its segment goes.
    kept: Arc<Kept>,
    window_floor: Offset,
}

impl Settled {
    fn of(folded: &Folded) -> Self {
        let window_floor = folded.window.as_ref().map(|window| window.floor(clock::wall_ms()));
        Self {
            segment: folded.position.segment,
            floor: folded.state.floor(),
            kept: Arc::new(Kept::of(&folded.state)),
            window_floor: window_floor.unwrap_or(Offset(u64::MAX)),
        }
    }

    /// Whether neither recovery, nor a trigger, nor the duplicate window needs a segment.
    fn says_unneeded(&self, segment: &Segment) -> bool {
        let next_offset = segment.extent().next_offset;
        segment.number() < self.segment && next_offset <= self.floor.min(self.window_floor)
    }
}

impl Keeper {
    pub fn new(
        disk: Arc<dyn Disk>,
        layout: Layout,
        options: Options,
        reader: Arc<Reader>,
        spares: Arc<Spares>,
        queue: Arc<Queue>,
        shared: Arc<Shared>,
    ) -> Self {
        let snapshot_at = Instant::now();
        Self {
            disk,
            layout,
            options,
            reader,
            spares,
            queue,
            shared,
            snapshot: None,
            settled: None,
            newest: None,
            snapshot_at,
            begun: 0,
            full: false,
            is_stuck: false,
            copied: None,
            uncopied: None,
            failure: None,
            no_spare: None,
            scrub: Scrub::default(),
        }
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn run(mut self) {
        while !self.shared.is_stopped_after(self.options.upkeep.tick) {
            self.step();
        }
    }

    /// Does what there is to do, once.
    pub fn step(&mut self) {
        let failure = self.keep().err().map(|error| error.to_string());
        if let Some(error) = failure.as_ref().filter(|_| failure != self.failure) {
            tracing::warn!(error, "the store's upkeep failed and is tried again");
        }
        self.failure.clone_from(&failure);
        self.scrub.step(&self.reader);
        let no_spare = self.no_spare.clone().filter(|_| !self.full);
        let problems = [failure, no_spare, self.scrub.problem(), self.letters_problem()];
        let problems: Vec<String> = problems.into_iter().flatten().collect();
        self.tell((!problems.is_empty()).then(|| problems.join("; ")));
    }

    fn keep(&mut self) -> io::Result<()> {
        self.prepare_spares();
        if self.spares.count() > 0 {
            // The writer looks for room when it writes, and deliveries that are held back cause no writes.
            self.queue.room_returned();
        }
        let segments = self.reader.segments();
        // The first time at once: what is owed is not known before. What failed costs as much when it is tried again.
        let is_first = self.snapshot.is_none() && self.failure.is_none();
        let is_due = is_first || self.snapshot_at.elapsed() >= self.options.upkeep.snapshot_interval;
        if is_due && let Some(covered) = self.worth_a_snapshot(&segments) {
            self.snapshot_at = Instant::now();
            self.take_snapshot(covered)?;
        }
        let noted = self.note_begun(&segments);
        drop(segments);
        self.retire()?;
        noted
    }

    /// Writes down which segment is the newest, once it has a frame: should it be deleted after a kill, it is missed.
    fn note_begun(&mut self, segments: &[Arc<Segment>]) -> io::Result<()> {
        let Some(newest) = segments.last() else { return Ok(()) };
        let reached = Reached::of_segment(newest);
        if reached.position.frame == 0 || self.begun == reached.position.segment {
            return Ok(());
        }
        reached.write_begun(&*self.disk, &self.layout, newest.header.store)?;
        self.begun = reached.position.segment;
        Ok(())
    }

    /// The segments that a snapshot should cover now. The active one is among them only when retention waits for what
    /// it says, since no other segment may ever be sealed while events are refused.
    fn worth_a_snapshot<'s>(&self, segments: &'s [Arc<Segment>]) -> Option<&'s [Arc<Segment>]> {
        let (_, sealed) = segments.split_last()?;
        let covered = self.snapshot.map_or(0, |position| position.frame);
        if sealed.last()?.extent().last_frame.is_some_and(|frame| frame > covered) {
            return Some(sealed);
        }
        let is_pressed = self.full || self.bytes(segments) > self.options.retention_bytes;
        let would_help = self.settled.as_ref().is_none_or(|settled| settled.floor < self.shared.floor());
        (is_pressed && would_help || self.is_pressed_by_age(segments)).then_some(segments)
    }

    /// Whether the oldest of several segments only waits for the older snapshot to say that nobody needs it.
    fn is_pressed_by_age(&self, segments: &[Arc<Segment>]) -> bool {
        let [oldest, _, ..] = segments else { return false };
        let extent = oldest.extent();
        let window_ms = self.options.window.map_or(0, |window| window.window_ms);
        let until_ms = extent.last_received_ms + self.options.retention_age_ms.max(window_ms);
        let is_said = self.settled.as_ref().is_some_and(|settled| settled.says_unneeded(oldest));
        until_ms < clock::wall_ms() && extent.next_offset <= self.shared.floor() && !is_said
    }

    /// Makes room ahead of the writer. Without space the store is full until there is some.
    fn prepare_spares(&mut self) {
        let seen = Cell::new(self.queue.appended());
        while self.spares.count() < SPARES_WANTED {
            let young = self.queue.active.load(Ordering::Acquire) <= WRITTEN_AHEAD;
            let is_idle = || young && seen.replace(self.queue.appended()) == self.queue.appended();
            if let Err(error) = self.spares.make_ahead(&is_idle) {
                // A full disk is said in other words.
                let said = format!("a spare segment cannot be made: {error}");
                if !self.full && self.no_spare.as_ref() != Some(&said) {
                    tracing::warn!(%error, "a spare segment cannot be made, it is tried again");
                }
                self.no_spare = Some(said);
                return;
            }
        }
        self.no_spare = None;
    }

    /// Folds segments, as far as they are on disk, and writes down what they add up to.
    fn take_snapshot(&mut self, segments: &[Arc<Segment>]) -> io::Result<()> {
        let identity = Identity::load(&*self.disk, &self.layout).map_err(io::Error::other)?;
        let Some((identity, last)) = identity.zip(segments.last()) else { return Ok(()) };
        let Some(until) = last.extent().last_frame else { return Ok(()) };
        let (window, keep) = (self.options.window, self.options.skip_damage);
        if self.newest.is_none() {
            let older = snapshot::older(&*self.disk, &self.layout, window)?;
            self.settled = older.map(|older| Settled::of(&older));
        }
        let base = snapshot::base(&*self.disk, &self.layout, window, segments, &identity, keep)?;
        let Some(mut folded) = base else {
            return Err(io::Error::other(
                "no snapshot is whole any more, and the log before it has been retired",
            ));
        };
        let before = folded.position;
        folded.catch_up(segments, until, self.options.outstanding)?;
        folded.take_up(segments, self.options.outstanding)?;
        let newest = Settled::of(&folded);
        if folded.position > before {
            snapshot::write(&*self.disk, &self.layout, &folded)?;
            self.settled = self.newest.take().or(self.settled.take());
            self.sweep()?;
        } else if segments.first().is_some_and(|oldest| newest.says_unneeded(oldest))
            && self.is_pressed_by_age(segments)
        {
            // There is nothing to fold, and this snapshot counts when there is one behind it.
            self.queue.append(Append::later(vec![LogRecord::Outcomes(Vec::new())]));
        }
        self.snapshot = Some(folded.position);
        self.newest = Some(newest);
        Ok(())
    }

    /// What there is to say of the copies of dead letters.
    fn letters_problem(&self) -> Option<String> {
        match self.reader.letters().holes() {
            Ok(holes) => {
                let (file, at) = holes.first()?;
                let count = holes.len();
                Some(format!(
                    "{count} damaged places in dead-letters, the first in {file:012}.letters at byte {at}"
                ))
            }
            Err(error) => Some(format!("dead-letters: {error}")),
        }
    }

    /// Recycles the oldest segments that nobody needs and that age or size say may go.
    fn retire(&mut self) -> io::Result<()> {
        let Some(settled) = self.settled.clone().filter(|_| !self.is_stuck) else { return Ok(()) };
        loop {
            let segments = self.reader.segments();
            let Some(oldest) = segments.first() else { return Ok(()) };
            let (number, extent) = (oldest.number(), oldest.extent());
            let is_settled = segments.len() > 1 && settled.says_unneeded(oldest);
            let bytes = self.bytes(&segments);
            let is_old = extent.last_received_ms + self.options.retention_age_ms < clock::wall_ms();
            if !is_settled || !(is_old || bytes > self.options.retention_bytes) {
                return Ok(());
            }
            self.copy_letters(&settled.kept, oldest)?;
            drop(segments);
            let Some(segment) = self.reader.take_oldest(number) else { return Ok(()) };
            // A younger one must not go while this one may still be there: the log would have a hole.
            self.spares.retire(&segment, SPARES_MAX).inspect_err(|_| self.is_stuck = true)?;
        }
    }

    /// Copies what is kept of a segment. What has been copied is not copied again when the rest is tried again.
    fn copy_letters(&mut self, kept: &Kept, oldest: &Segment) -> io::Result<()> {
        if let Some((at, error)) = &self.uncopied
            && at.elapsed() < self.options.upkeep.snapshot_interval
        {
            return Err(io::Error::other(error.clone()));
        }
        let from = self.copied.filter(|copied| copied.segment == oldest.number());
        let letters = self.reader.letters();
        let copied = kept.copies_from(
            oldest,
            from.unwrap_or_else(|| Position::start_of(oldest)),
            &mut |copies, until| {
                letters.keep(copies)?;
                self.copied = Some(until);
                Ok(())
            },
        );
        self.uncopied = copied.as_ref().err().map(|error| (Instant::now(), error.to_string()));
        copied
    }

    /// Lets copies go of which the older snapshot says that nobody needs them.
    fn sweep(&self) -> io::Result<()> {
        let Some(settled) = &self.settled else { return Ok(()) };
        self.reader.letters().sweep(&|key| settled.kept.needs(key))
    }

    /// What is to stay free, and a segment while spares are to be made.
    fn free_bytes_needed(&self) -> u64 {
        let is_prepared = self.spares.count() >= SPARES_WANTED;
        self.options.free_bytes.saturating_add(if is_prepared { 0 } else { self.options.segment_bytes })
    }

    fn bytes(&self, segments: &[Arc<Segment>]) -> u64 {
        segments.iter().map(|segment| segment.extent().end).sum()
    }

    /// Publishes how things are and decides whether events are taken.
    pub fn tell(&mut self, problem: Option<String>) {
        let segments = self.reader.segments();
        let settled = self.settled.as_ref().map_or(Offset(0), |settled| settled.floor);
        let floor = settled.max(self.shared.floor());
        let letters_bytes = self.reader.letters().bytes().unwrap_or(0);
        let owed_bytes = owed(&segments, floor) + letters_bytes;
        let free_bytes = self.disk.free_bytes(&self.layout.dir).unwrap_or(u64::MAX);
        let limit = self.options.retention_bytes;
        let share = |percent: u8| limit / 100 * u64::from(percent);
        let reason = if owed_bytes
            > share(if self.full { self.options.resume_percent } else { self.options.stop_percent })
        {
            Some(format!("{owed_bytes} bytes are owed to triggers and dead letters, the limit is {limit}"))
        } else if free_bytes < self.free_bytes_needed() {
            Some(format!("the file system has {free_bytes} bytes left"))
        } else {
            None
        };
        if reason.is_some() != self.full {
            match &reason {
                Some(reason) => tracing::warn!(%reason, "the store is full: events are refused"),
                None => tracing::info!("the store takes events again"),
            }
        }
        self.full = reason.is_some();
        self.queue.set_full(reason);
        let report = Report {
            bytes: self.bytes(&segments) + letters_bytes,
            segments: segments.len(),
            owed_bytes,
            limit_bytes: limit,
            free_bytes,
            snapshot_frame: self.snapshot.map_or(0, |position| position.frame),
            problem,
        };
        *self.shared.report.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }
}

/// The bytes from an offset on. What is settled of the segment it lies in is not owed, though it goes with the segment only.
fn owed(segments: &[Arc<Segment>], floor: Offset) -> u64 {
    let owed_of = |segment: &Arc<Segment>| {
        let extent = segment.extent();
        match extent.next_offset > floor {
            true if segment.header.first_offset < floor => extent.end.saturating_sub(segment.seek(floor)),
            true => extent.end,
            false => 0,
        }
    };
    segments.iter().map(owed_of).sum()
}
