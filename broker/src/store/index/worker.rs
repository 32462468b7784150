//! The thread that opens the index, builds it block by block behind the log, and starts over when it breaks.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::format::RecordType;
use super::super::record::{LogRecord, event_heading};
use super::super::scan::FileWindow;
use super::super::segment::{Extent, Segment};
use super::block::{BYTES_MAX, Block, Draft, EVENTS_MAX};
use super::tree::{self, IndexError, Reached, Trees};
use super::{Index, IndexState};

/// How often an index that has caught up looks whether there is a block more.
const TICK: Duration = Duration::from_millis(250);
/// While events come in the thread rests so many times as long as it worked: a tenth of a core.
const REST_FACTOR: u32 = 9;
/// It works so long at a time: whoever has to answer meanwhile may wait for its processor.
const WORK_MAX: Duration = Duration::from_micros(100);
/// Read at a time, for the same reason.
const WINDOW_BYTES: usize = 64 << 10;
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(60);

impl Index {
    /// Runs until [`Index::stop`]. Nothing happens before [`Index::start`].
    pub fn run(&self) {
        self.rest_until_started();
        let mut retry = RETRY_MIN;
        while !self.control().is_stopping {
            let opened = Instant::now();
            match tree::guarded(|| self.keep()) {
                Ok(()) => break,
                Err(error) => self.start_over(&error),
            }
            if opened.elapsed() > RETRY_MAX {
                retry = RETRY_MIN;
            }
            if self.is_stopped_after(retry) {
                break;
            }
            retry = (retry * 2).min(RETRY_MAX);
        }
        self.set_trees(None);
        let mut control = self.control();
        control.state = IndexState::Stopped;
        control.has_ended = true;
        drop(control);
        self.wake.notify_all();
    }

    fn rest_until_started(&self) {
        let rests = |control: &mut super::Control| !control.is_started && !control.is_stopping;
        drop(self.wake.wait_while(self.control(), rests));
    }

    pub(super) fn start_over(&self, error: &IndexError) {
        self.set_trees(None);
        if error.is_full() {
            self.control().state = IndexState::Waiting;
            tracing::warn!("there is no room for the event index: it is removed, and look-ups scan the log");
            for dir in [self.dir.with_extension("broken"), self.dir.clone()] {
                match fs::remove_dir_all(&dir) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        tracing::warn!(%error, dir = %dir.display(), "the event index cannot be removed");
                    }
                    _ => {}
                }
            }
            return;
        }
        self.control().state = IndexState::Failed;
        if error.is_lock() {
            tracing::warn!("the event index is still in use by another process; look-ups scan the log");
            return;
        }
        tracing::warn!(%error, "the event index is broken: it is set aside and rebuilt from the log");
        if let Err(error) = set_aside(&self.dir) {
            tracing::warn!(%error, "the broken event index cannot be set aside");
        }
    }

    /// Opens the index and follows the log; returns when it is time to stop.
    fn keep(&self) -> Result<(), IndexError> {
        loop {
            let has_room = self.room.is_left(&self.dir);
            if has_room && (self.dir.exists() || self.has_block()) {
                break;
            }
            // An open database takes some megabytes and threads. A log without a block needs none.
            self.control().state = if has_room { IndexState::Ready } else { IndexState::Waiting };
            if self.is_stopped_after(TICK) {
                return Ok(());
            }
        }
        let trees = self.open()?;
        self.set_trees(Some(Arc::clone(&trees)));
        self.control().state = IndexState::Building;
        let mut end_before = self.end();
        loop {
            let end = self.end();
            let mut throttle = Throttle::new(self, end != end_before);
            end_before = end;
            let has_room = self.room.is_left(&self.dir);
            let segments = self.reader.segments();
            self.control().passed_over.retain(|number, _| segments.iter().any(|one| one.number() == *number));
            trees.retain(&segments)?;
            drop(segments);
            let has_worked = has_room && self.step(&trees, &mut throttle)?;
            let state = match (has_room, has_worked) {
                (false, _) => IndexState::Waiting,
                (true, true) if self.lag() > EVENTS_MAX as u64 => IndexState::Building,
                (true, true) => self.control().state,
                (true, false) => IndexState::Ready,
            };
            self.control().state = state;
            let is_stopping = self.is_stopped_after(if has_worked { throttle.rest_due() } else { TICK });
            if let Some(error) = self.control().broken.take() {
                return Err(error);
            }
            if is_stopping {
                return trees.flush();
            }
        }
    }

    /// Opens the database. What damage can do to it ends in an error or a panic, or in an end of the whole process, say when
    /// it asks for more memory than there is: then the mark is still there, and the next process does not try again.
    pub(super) fn open(&self) -> Result<Arc<Trees>, IndexError> {
        let (disk, mark) = (&self.room.disk, self.dir.join("opening"));
        disk.create_dir(&self.dir).map_err(sled::Error::Io)?;
        if mark.exists() {
            return Err(IndexError::Inconsistent("a process ended while it opened it"));
        }
        disk.create(&mark).map_err(sled::Error::Io)?;
        let opened = Trees::open(&self.dir, &self.reader.segments());
        let unmarked = disk.remove(&mark);
        let trees = opened?;
        unmarked.map_err(sled::Error::Io)?;
        Ok(Arc::new(trees))
    }

    /// Whether there is a block in the log.
    fn has_block(&self) -> bool {
        let segments = self.reader.segments();
        segments.len() > 1 || segments.iter().any(|only| has_block(only, &Reached::start(only)))
    }

    /// Where the log ends, to see whether it grows.
    fn end(&self) -> Option<(u64, u64)> {
        self.reader.segments().last().map(|last| (last.number(), last.extent().end))
    }

    /// Indexes a block of the newest segment that has one; false when there is none.
    pub(super) fn step(&self, trees: &Trees, throttle: &mut Throttle<'_>) -> Result<bool, IndexError> {
        let mut numbers: Vec<u64> = self.reader.segments().iter().map(|segment| segment.number()).collect();
        let newest = numbers.last().copied();
        while let Some(number) = numbers.pop() {
            let reached = trees.reached(number);
            if reached.is_some_and(|reached| reached.is_done) {
                continue;
            }
            if self.control().passed_over.get(&number).is_some_and(|until| Instant::now() < *until) {
                continue;
            }
            let Some(segment) = self.reader.segment(number) else { continue };
            let reached = reached.unwrap_or_else(|| Reached::start(&segment));
            match read_block(&segment, reached, Some(number) != newest, throttle) {
                Ok(None) => {}
                Ok(Some((blocks, reached))) => {
                    self.control().passed_over.remove(&number);
                    trees.write(&segment, &blocks, reached)?;
                    return Ok(true);
                }
                Err(error) => self.pass_over(number, &error),
            }
        }
        Ok(false)
    }

    /// Leaves a segment to look-ups, which scan it, and says so.
    fn pass_over(&self, segment: u64, error: &io::Error) {
        let until = Instant::now() + RETRY_MAX;
        if self.control().passed_over.insert(segment, until).is_none() {
            tracing::warn!(%error, "the event index passes over a segment that cannot be read");
        }
    }
}

/// How the thread keeps out of the way of those who take and deliver events.
pub(super) struct Throttle<'a> {
    index: &'a Index,
    /// Events come in.
    rests: bool,
    /// When it last rested.
    since: Instant,
}

impl<'a> Throttle<'a> {
    pub(super) fn new(index: &'a Index, rests: bool) -> Self {
        Self { index, rests, since: Instant::now() }
    }

    /// How long to rest after what was done since the last rest.
    fn rest_due(&self) -> Duration {
        if self.rests { self.since.elapsed() * REST_FACTOR } else { Duration::ZERO }
    }

    /// Rests when it has worked long enough; false when it is time to stop.
    fn goes_on(&mut self) -> bool {
        if self.since.elapsed() < WORK_MAX {
            return true;
        }
        let is_stopping = self.index.is_stopped_after(self.rest_due());
        self.since = Instant::now();
        !is_stopping
    }
}

/// Whether a segment holds a whole block behind a position, as far as can be told without reading it.
fn has_block(segment: &Segment, reached: &Reached) -> bool {
    let Extent { end, next_offset, .. } = segment.extent();
    let pending = next_offset.0.saturating_sub(reached.next_offset);
    end.saturating_sub(reached.at) >= BYTES_MAX || pending >= EVENTS_MAX as u64
}

/// Reads up to the end of a block; `None` when the segment does not hold a whole one yet and may still grow.
fn read_block(
    segment: &Segment,
    mut reached: Reached,
    is_sealed: bool,
    throttle: &mut Throttle<'_>,
) -> io::Result<Option<(Vec<Block>, Reached)>> {
    if !is_sealed && !has_block(segment, &reached) {
        return Ok(None);
    }
    let end = segment.extent().end;
    let mut draft = Draft::new(reached.at, reached.frame);
    let mut window = FileWindow::sized(segment, WINDOW_BYTES);
    while !draft.is_full(reached.at) {
        if !throttle.goes_on() {
            return Ok(None);
        }
        // Damage is passed over, by the index as by a scan.
        let Some((at, header)) = window.frame(reached.at, end, reached.frame)? else {
            reached.at = end.max(reached.at);
            break;
        };
        if let Some(records) = window.records(at, &header)? {
            let mut offset = header.first_offset;
            for raw in records {
                if raw.kind == RecordType::Event as u8 {
                    if let Some(heading) = event_heading(raw.body) {
                        draft.add_event(offset, &heading);
                    }
                    offset = offset.next();
                } else if let Ok(Some(record)) = LogRecord::decode(&raw, offset) {
                    draft.add(&record, at);
                }
            }
        }
        reached.at = at + header.span();
        (reached.frame, reached.frame_at, reached.frame_checksum) = (header.frame, at, header.checksum);
        reached.next_offset = reached.next_offset.max(header.end_offset().0);
    }
    reached.is_done = is_sealed && reached.at >= end;
    if !reached.is_done && !draft.is_full(reached.at) {
        return Ok(None);
    }
    let blocks = if draft.is_empty() { Vec::new() } else { draft.cut(reached.at) };
    Ok(Some((blocks, reached)))
}

/// Renames a broken index out of the way; the one set aside before goes.
fn set_aside(dir: &Path) -> io::Result<()> {
    let aside = dir.with_extension("broken");
    let removed = match fs::symlink_metadata(&aside) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(&aside),
        Ok(_) => fs::remove_file(&aside),
        Err(error) => Err(error),
    };
    match removed.and_then(|()| fs::rename(dir, &aside)).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => fs::rename(dir, &aside),
        _ => Err(error),
    }) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
