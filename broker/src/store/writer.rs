//! The one writer: takes all that waits, writes one frame, syncs it, answers, and begins again.
//!
//! At most one frame is unsynced. After the first write or sync error the writer ends: nothing is answered with
//! success any more in this process's life, since what a later sync says of these pages proves nothing.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sluice_adapters::{Published, Receipt, Refusal};
use tokio::sync::mpsc;

use super::disk::Disk;
use super::format::{self, FRAME_HEADER_BYTES, FrameHeader, SegmentHeader};
use super::metrics::Measures;
use super::queue::{Append, NO_ROOM_PAUSE, NewEvent, Queue, refuse};
use super::reached::Reached;
use super::reader::Reader;
use super::record::{self, Digest, LogRecord, Record};
use super::scan::Position;
use super::segment::{Layout, Segment, Spares};
use super::window::Twins;
use super::{Offset, clock};

/// A frame is closed when it holds this much; one append is never split.
const FRAME_BYTES: usize = 4 << 20;
/// A sync after the first write to a block commits the file system's journal too. So small frames have blocks written
/// ahead of them, this many bytes at a time: one sync pays for many. A large frame would only be written twice.
static BLOCKS_AHEAD: [u8; 256 << 10] = [0; 256 << 10];
const SMALL_FRAME_BYTES: u64 = 32 << 10;
/// Room that must be left for outcomes before deliveries are held back.
const OUTCOME_ROOM_BYTES: u64 = 4 << 20;

/// The thread that writes.
pub struct Writer {
    pub queue: Arc<Queue>,
    pub disk: Arc<dyn Disk>,
    pub layout: Layout,
    pub reader: Arc<Reader>,
    pub spares: Arc<Spares>,
    pub segment: Arc<Segment>,
    /// How long the segment's file is.
    pub segment_bytes: u64,
    pub store: u128,
    pub next_frame: u64,
    pub next_offset: Offset,
    pub last_received_ms: u64,
    pub window: Option<Twins>,
    pub committed: mpsc::Sender<Vec<Arc<Record>>>,
    pub measures: Arc<Measures>,
    pub buffer: Vec<u8>,
}

/// Refuses all that waits and all that comes when the writer ends, by a panic too: nobody waits for ever.
struct Ending(Arc<Queue>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Appends of one frame, encoded, not yet on disk.
#[derive(Default)]
struct Batch {
    records: u32,
    is_intake: bool,
    events: Vec<Arc<Record>>,
    /// Of the events, those that others may repeat.
    twins: HashMap<Digest, Twin>,
    /// Told when all of the frame is on disk.
    conflicts: Vec<(Append, Refusal)>,
    /// What was asked for and its answer, kept until it is on disk: without room for the frame, records without
    /// events are written later.
    appends: Vec<(Append, Vec<Receipt>)>,
}

/// An event of the frame: the receipt of who repeats it, and what must be equal in a repetition.
struct Twin {
    receipt: Receipt,
    content: Digest,
    parent: Option<Offset>,
}

/// An event that is to be stored, at an offset.
type Fresh<'a> = (Offset, &'a NewEvent);

impl Batch {
    fn with_capacity(appends: usize) -> Self {
        Self {
            events: Vec::with_capacity(appends),
            twins: HashMap::with_capacity(appends),
            appends: Vec::with_capacity(appends),
            ..Self::default()
        }
    }

    /// Takes events out of the twins that are not stored after all.
    fn forget(&mut self, fresh: &[Fresh<'_>]) {
        fresh.iter().filter(|(_, event)| event.unique).for_each(|(_, event)| {
            self.twins.remove(&event.key);
        });
    }

    /// Answers everybody, after a sync that took so long unless there was nothing to write.
    fn answer(&mut self, queue: &Queue, sync: Option<Duration>) {
        let publishers = self.appends.iter().filter(|(append, _)| append.answer.is_some()).count();
        // Before they are answered, since they come back while the last ones are.
        queue.answering(publishers + self.conflicts.len(), sync);
        for (append, receipts) in &mut self.appends {
            if let Some(answer) = append.answer.take() {
                let receipts = std::mem::take(receipts);
                // Whoever asked has gone away: what it sent is stored all the same.
                let _ = answer.send(Ok(Published { receipts }));
            }
        }
        for (append, conflict) in self.conflicts.drain(..) {
            refuse(append, &conflict);
        }
    }
}

impl Writer {
    /// Runs until it is stopped (`Ok`) or the disk fails.
    pub fn run(mut self) -> io::Result<()> {
        let _ending = Ending(Arc::clone(&self.queue));
        while let Some(appends) = self.queue.take() {
            self.write_all(appends)?;
        }
        self.close()
    }

    /// Writes all that waits at the moment, without waiting for company; `look` sees it first.
    #[cfg(test)]
    pub fn step(&mut self, look: &mut dyn FnMut(&Append)) -> io::Result<()> {
        while self.spares.count() < 2 && self.spares.make(&|| false).is_ok() {}
        loop {
            let appends = self.queue.take_now();
            if appends.is_empty() {
                return Ok(());
            }
            appends.iter().for_each(&mut *look);
            self.write_all(appends)?;
        }
    }

    /// Writes what was taken, in as many frames as it needs.
    fn write_all(&mut self, appends: Vec<Append>) -> io::Result<()> {
        let mut rest = appends.into_iter().peekable();
        while rest.peek().is_some() {
            let mut batch = Batch::with_capacity(rest.len());
            self.buffer.clear();
            self.buffer.resize(FRAME_HEADER_BYTES, 0);
            let now_ms = clock::wall_ms().max(self.last_received_ms);
            while self.buffer.len() < FRAME_BYTES
                && let Some(append) = rest.next()
            {
                if let Some(append) = self.encode(append, now_ms, &mut batch) {
                    // The frame was full without it.
                    rest = std::iter::once(append).chain(rest).collect::<Vec<_>>().into_iter().peekable();
                    break;
                }
            }
            if batch.records == 0 {
                batch.answer(&self.queue, None);
                continue;
            }
            if let Some(batch) = self.commit(batch, now_ms)? {
                let Batch { is_intake, appends, conflicts, .. } = *batch;
                let kept = appends.into_iter().map(|(append, _)| append);
                let kept = kept.chain(conflicts.into_iter().map(|(append, _)| append));
                self.without_room(kept.chain(rest.by_ref()).collect(), is_intake);
            }
        }
        Ok(())
    }

    /// Adds an append to the frame, or notes that it is refused, or answers it when that depends on no frame. Gives it
    /// back when a segment has no room for what is in the frame and this too.
    fn encode(&mut self, append: Append, now_ms: u64, batch: &mut Batch) -> Option<Append> {
        // A reply settles its cause: refused, it would keep the store full. But the reserve is not for it.
        let may_when_full = !append.is_intake() || (append.settles() && self.spares.count() > 0);
        if !may_when_full && let Some(reason) = self.queue.full() {
            refuse(append, &Refusal::Full { reason });
            return None;
        }
        let (receipts, fresh) = match self.compare(&append, now_ms, batch) {
            Ok(compared) => compared,
            Err(conflict) => {
                // What it conflicts with may be in this frame, and then is not on disk yet.
                batch.conflicts.push((append, conflict));
                return None;
            }
        };
        let start = self.buffer.len();
        let mut records = Vec::with_capacity(fresh.len());
        for (offset, new) in &fresh {
            let record = Record {
                offset: *offset,
                received_at_ms: now_ms,
                via: Arc::clone(&new.via),
                trace: new.trace.clone(),
                parent: new.parent,
                hops: new.hops,
                key: new.key,
                content: new.content,
                event: Arc::clone(&new.event),
            };
            record::append_event(&mut self.buffer, &record);
            records.push(Arc::new(record));
        }
        append.records.iter().for_each(|record| record.append_to(&mut self.buffer));
        if self.buffer.len() > self.spares.frame_bytes_max() {
            self.buffer.truncate(start);
            batch.forget(&fresh);
            if batch.records > 0 {
                return Some(append);
            }
            if append.answer.is_none() {
                tracing::error!("records that are larger than a segment are not stored");
            }
            refuse(append, &Refusal::TooLarge { bytes_max: self.spares.frame_bytes_max() });
            return None;
        }
        batch.is_intake |= append.is_intake();
        batch.records += (records.len() + append.records.len()) as u32;
        batch.events.append(&mut records);
        batch.appends.push((append, receipts));
        None
    }

    /// The receipts of an append's events, and those that are to be stored, which are twins of the frame from here on;
    /// or the conflict that it is refused for.
    fn compare<'a>(
        &self,
        append: &'a Append,
        now_ms: u64,
        batch: &mut Batch,
    ) -> Result<(Vec<Receipt>, Vec<Fresh<'a>>), Refusal> {
        let first = self.next_offset.0 + batch.events.len() as u64;
        let mut receipts = Vec::with_capacity(append.events.len());
        let mut fresh = Vec::with_capacity(append.events.len());
        for (index, event) in append.events.iter().enumerate() {
            let offset = Offset(first + fresh.len() as u64);
            match self.twin(event, &batch.twins, now_ms) {
                Some(Ok(receipt)) => receipts.push(receipt),
                Some(Err(earlier)) => {
                    batch.forget(&fresh);
                    return Err(Refusal::Conflict { index, offset: earlier.0 });
                }
                None => {
                    let receipt = Receipt { offset: offset.0, duplicate: false };
                    if event.unique && self.window.is_some() {
                        let shared = Receipt { duplicate: true, ..receipt };
                        let twin = Twin { receipt: shared, content: event.content, parent: event.parent };
                        batch.twins.insert(event.key, twin);
                    }
                    receipts.push(receipt);
                    fresh.push((offset, event));
                }
            }
        }
        Ok((receipts, fresh))
    }

    /// The event that a new one repeats: its receipt, or its offset when the content differs.
    fn twin(
        &self,
        new: &NewEvent,
        twins: &HashMap<Digest, Twin>,
        now_ms: u64,
    ) -> Option<Result<Receipt, Offset>> {
        let window = self.window.as_ref().filter(|_| new.unique)?;
        let same = |content: Digest, parent: Option<Offset>| {
            content == new.content || (parent.is_some() && parent == new.parent)
        };
        if let Some(Twin { receipt, content, parent }) = twins.get(&new.key) {
            return Some(if same(*content, *parent) { Ok(*receipt) } else { Err(Offset(receipt.offset)) });
        }
        for offset in window.candidates(&new.key, now_ms) {
            // A record that cannot be read cannot be confirmed: storing a duplicate loses nothing.
            let Ok(record) = self.reader.read(offset) else { continue };
            if record.key == new.key && record.received_at_ms + window.size().window_ms >= now_ms {
                let receipt = Receipt { offset: offset.0, duplicate: true };
                return Some(if same(record.content, record.parent) { Ok(receipt) } else { Err(offset) });
            }
        }
        None
    }

    /// Writes and syncs the frame in the buffer, then answers. Gives it back when there is no room for it.
    fn commit(&mut self, mut batch: Batch, now_ms: u64) -> io::Result<Option<Box<Batch>>> {
        let span = format::aligned(self.buffer.len() as u64);
        if self.segment.extent().end + span > self.segment_bytes && !self.roll(batch.is_intake)? {
            return Ok(Some(Box::new(batch)));
        }
        let at = self.segment.extent().end;
        let header = format::seal(
            &mut self.buffer,
            FrameHeader {
                segment: self.segment.number(),
                frame: self.next_frame,
                first_offset: self.next_offset,
                written_at_ms: now_ms,
                body_bytes: 0,
                records: batch.records,
                events: batch.events.len() as u32,
                store: self.store as u64,
                checksum: 0,
            },
        );
        let started = Instant::now();
        self.segment.file.write_at(&self.buffer, at)?;
        self.write_ahead(at + span, span)?;
        self.segment.file.sync()?;
        let took = started.elapsed();
        self.measures.synced(took, batch.events.len(), self.buffer.len());
        self.next_frame += 1;
        self.next_offset = header.end_offset();
        self.segment.advance(&header, at);
        batch.answer(&self.queue, Some(took));
        if !batch.events.is_empty() {
            self.last_received_ms = now_ms;
        }
        if let Some(window) = &mut self.window {
            batch.events.iter().for_each(|record| window.insert(&record.key, record.offset, now_ms));
        }
        if self.buffer.capacity() > 2 * FRAME_BYTES {
            self.buffer = Vec::new();
        }
        self.reader.remember(&batch.events);
        self.note_room();
        if !batch.events.is_empty() && self.committed.blocking_send(batch.events).is_err() {
            // Nobody routes any more: the broker is stopping, and what is stored is routed at the next start.
            tracing::debug!("events are stored and will be routed at the next start");
        }
        Ok(None)
    }

    /// Writes the blocks after a small frame that ends where the written ones do, if there is one.
    fn write_ahead(&mut self, end: u64, span: u64) -> io::Result<()> {
        if end <= self.segment.written_to() {
            return Ok(());
        }
        let mut written = end;
        if span <= SMALL_FRAME_BYTES {
            let left = self.segment_bytes.saturating_sub(end);
            let ahead = BLOCKS_AHEAD.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.segment.file.write_at(&BLOCKS_AHEAD[..ahead], end)?;
            written += ahead as u64;
        }
        self.segment.wrote_to(written);
        Ok(())
    }

    /// Goes on in a new segment; false when there is none for this frame. The last spare is for outcomes only.
    fn roll(&mut self, has_events: bool) -> io::Result<bool> {
        let header = SegmentHeader {
            store: self.store,
            segment: self.segment.number() + 1,
            first_frame: self.next_frame,
            first_offset: self.next_offset,
            file_bytes: 0,
        };
        let reserve = usize::from(has_events);
        while self.spares.count() <= reserve {
            // What has been done is recorded as long as there is any room.
            let made = match has_events {
                true => self.spares.make_ahead(&|| false),
                false => self.spares.make(&|| false),
            };
            let Err(error) = made else { continue };
            if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                return Err(error);
            }
            if has_events && self.queue.full().is_none() {
                tracing::warn!(%error, "no space for another segment: events are refused until there is");
                self.queue.set_full(Some(format!("no space for another segment: {error}")));
            }
            break;
        }
        match self.spares.take(header, reserve)? {
            Some(segment) => {
                self.segment_bytes = segment.file.len()?;
                self.segment = Arc::new(segment);
                self.reader.add_segment(Arc::clone(&self.segment));
                self.queue.active.store(self.segment.number(), Ordering::Release);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// The disk is full: events are refused, what else there is waits for space. What stood in a frame with events
    /// may still find room without them, in the reserve, and is tried at once.
    fn without_room(&mut self, appends: Vec<Append>, had_intake: bool) {
        let (from_outside, others): (Vec<_>, Vec<_>) = appends.into_iter().partition(Append::is_intake);
        let reason = self.queue.full().unwrap_or_else(|| "no space on the disk".into());
        if had_intake {
            // None is taken until the keeper says so, or the next frame might find no room for the same reason.
            self.queue.set_full(Some(reason.clone()));
        }
        for append in from_outside {
            refuse(append, &Refusal::Full { reason: reason.clone() });
        }
        let lost = others.len();
        let pause = if had_intake { Duration::ZERO } else { NO_ROOM_PAUSE };
        if !self.queue.put_back(others, pause) {
            tracing::warn!(
                appends = lost,
                "no room for the last outcomes: these deliveries will be repeated"
            );
        }
        self.note_room();
    }

    fn note_room(&self) {
        let left = self.segment_bytes.saturating_sub(self.segment.extent().end);
        let room = left >= OUTCOME_ROOM_BYTES || self.spares.count() > 0;
        self.queue.set_outcome_room(room);
    }

    /// Says that all before it is on disk, and how far that is.
    fn close(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.resize(FRAME_HEADER_BYTES, 0);
        LogRecord::Close.append_to(&mut self.buffer);
        let batch = Batch { records: 1, ..Batch::default() };
        self.commit(batch, clock::wall_ms().max(self.last_received_ms))?;
        let (segment, at) = (self.segment.number(), self.segment.extent().end);
        let position = Position { segment, at, frame: self.next_frame - 1 };
        let reached = Reached { position, next_offset: self.next_offset };
        if let Err(error) = reached.write(&*self.disk, &self.layout, self.store) {
            // The log is whole all the same.
            tracing::warn!(%error, "how far the log goes is not noted: should its end be deleted, it will not be missed");
        }
        Ok(())
    }
}
