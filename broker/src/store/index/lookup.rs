//! Look-ups: with the index where it has been, by reading where it has not.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::super::Offset;
use super::super::format::{self, FRAME_HEADER_BYTES, FrameHeader, RecordType, SEGMENT_HEADER_BYTES};
use super::super::reader::ReadError;
use super::super::record::{LogRecord, Record};
use super::super::scan::{FileWindow, file_name};
use super::super::segment::Segment;
use super::block::{self, EVENTS_MAX, Meta};
use super::tree::{IndexError, Trees};
use super::{Generation, Index};

/// Candidates of a block are read so many at a time at first, the newest first, or `limit` if that is more.
const CANDIDATES_MIN: usize = 64;
/// Read at once where a few frames of a block are wanted.
const READ_BYTES: usize = 64 << 10;

/// What a list of events is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub ty: Option<String>,
    pub source: Option<String>,
    pub subject: Option<String>,
    pub via: Option<String>,
    /// Milliseconds since 1970, inclusive both.
    pub since_ms: u64,
    pub until_ms: Option<u64>,
    /// Only offsets below.
    pub before: Option<Offset>,
    /// At most so many events.
    pub limit: usize,
}

impl Wanted {
    pub fn takes(&self, record: &Record) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        let event = &record.event;
        is(&self.ty, Some(event.ty()))
            && is(&self.source, Some(event.source()))
            && is(&self.subject, event.subject())
            && is(&self.via, Some(&record.via))
            && record.received_at_ms >= self.since_ms
            && self.until_ms.is_none_or(|until| record.received_at_ms <= until)
            && self.before.is_none_or(|before| record.offset < before)
    }

    /// Whether a block can hold an event that is wanted, by what its meta says.
    fn may_be_in(&self, meta: &Meta) -> bool {
        meta.count > 0
            && meta.received_max_ms >= self.since_ms
            && self.until_ms.is_none_or(|until| meta.received_min_ms <= until)
            && self.before.is_none_or(|before| meta.first < before.0)
    }
}

/// A segment as a look-up sees it: blocks, and the part that has to be scanned.
pub(super) struct View {
    /// Which database and segment the blocks are of.
    pub(super) indexed: Option<(Generation, u64)>,
    blocks: Vec<Meta>,
    unread: Stretch,
}

/// A stretch of a segment.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    at: u64,
    end: u64,
    /// The last frame before `at`: behind damage only later ones are looked for.
    frame: u64,
}

impl Stretch {
    fn of(meta: &Meta) -> Self {
        Self { at: meta.at, end: meta.end, frame: meta.frame }
    }
}

impl Index {
    /// The newest events that are wanted, newest first.
    pub fn events(&self, wanted: &Wanted) -> Result<Vec<Record>, ReadError> {
        let mut found: Vec<Record> = Vec::new();
        if wanted.limit == 0 {
            return Ok(found);
        }
        let mut at_once = wanted.limit.max(CANDIDATES_MIN);
        let mut below = u64::MAX;
        while let Some(segment) = self.reader.newest_below(below) {
            below = segment.number();
            let extent = segment.extent();
            // The newest segment may hold nothing yet.
            let is_too_old = extent.last_frame.is_some() && extent.last_received_ms < wanted.since_ms;
            if is_too_old || found.len() >= wanted.limit {
                break;
            }
            if wanted.before.is_some_and(|before| before <= segment.header.first_offset) {
                continue;
            }
            self.events_of(&segment, wanted, &mut at_once, &mut found)?;
        }
        Ok(found)
    }

    fn events_of(
        &self,
        segment: &Segment,
        wanted: &Wanted,
        at_once: &mut usize,
        found: &mut Vec<Record>,
    ) -> Result<(), ReadError> {
        let view = self.view(segment);
        let room = wanted.limit - found.len();
        let mut piece = VecDeque::new();
        walk(segment, view.unread, &mut |record| {
            if let LogRecord::Event(record) = record
                && wanted.takes(&record)
                && is_older(found, record.offset)
            {
                piece.push_back(row(record));
                if piece.len() > room {
                    piece.pop_front();
                }
            }
        })?;
        found.extend(piece.into_iter().rev());
        for (number, meta) in view.blocks.iter().enumerate().rev() {
            if found.len() >= wanted.limit {
                break;
            }
            if !wanted.may_be_in(meta) {
                continue;
            }
            let candidates = self.candidates(&view, number, meta, wanted);
            let mut candidates = &candidates[..];
            while !candidates.is_empty() && found.len() < wanted.limit {
                let (older, newest) = candidates.split_at(candidates.len().saturating_sub(*at_once));
                let newest_first = pick(segment, meta, newest)?.into_iter().rev();
                let fitting: Vec<_> = newest_first
                    .filter(|record| wanted.takes(record) && is_older(found, record.offset))
                    .take(wanted.limit - found.len())
                    .map(row)
                    .collect();
                found.extend(fitting);
                candidates = older;
                // The more have been read in vain, the more are read together: each time reads the block anew.
                *at_once = (*at_once * 2).min(EVENTS_MAX);
            }
        }
        Ok(())
    }

    /// Offsets of a block that may be wanted, ascending.
    fn candidates(&self, view: &View, number: usize, meta: &Meta, wanted: &Wanted) -> Vec<Offset> {
        let of_type = self.posting(view, number, meta, (b't', &meta.types, wanted.ty.as_deref()));
        let of_source = self.posting(view, number, meta, (b's', &meta.sources, wanted.source.as_deref()));
        let mut candidates = match (of_type, of_source) {
            (None, None) => meta.offsets(),
            (Some(one), None) | (None, Some(one)) => one,
            (Some(mut one), Some(other)) => {
                one.retain(|offset| other.binary_search(offset).is_ok());
                one
            }
        };
        if let Some(before) = wanted.before {
            candidates.truncate(candidates.partition_point(|offset| *offset < before));
        }
        candidates
    }

    /// The offsets of a value; `None` when the index does not say, so that all have to be read.
    fn posting(
        &self,
        view: &View,
        number: usize,
        meta: &Meta,
        (kind, hashes, text): (u8, &Option<Vec<u32>>, Option<&str>),
    ) -> Option<Vec<Offset>> {
        let (hash, hashes) = (block::hash(text?), hashes.as_ref()?);
        if hashes.binary_search(&hash).is_err() {
            return Some(Vec::new());
        }
        let take = |bytes: &[u8]| block::take_posting(meta, bytes);
        self.value(view, kind, number, Some(hash), take)
    }

    /// The newest event with a source and id.
    pub fn by_id(&self, source: &str, id: &str) -> Result<Option<Record>, ReadError> {
        let hash = block::id_hash(source, id);
        let is_it = |record: &Record| record.event.id() == id && record.event.source() == source;
        let mut below = u64::MAX;
        while let Some(segment) = self.reader.newest_below(below) {
            below = segment.number();
            let view = self.view(&segment);
            let mut found = None;
            walk(&segment, view.unread, &mut |record| {
                if let LogRecord::Event(record) = record
                    && is_it(&record)
                {
                    found = Some(record);
                }
            })?;
            if found.is_some() {
                return Ok(found);
            }
            for (number, meta) in view.blocks.iter().enumerate().rev().filter(|(_, meta)| meta.count > 0) {
                let take = |bytes: &[u8]| block::take_ids(meta, bytes, hash);
                let candidates = self.value(&view, b'i', number, None, take);
                let candidates = candidates.unwrap_or_else(|| meta.offsets());
                if candidates.is_empty() {
                    continue;
                }
                if let Some(found) = pick(&segment, meta, &candidates)?.into_iter().rev().find(is_it) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Visits, in log order, every record of the log that says which triggers some events matched or what became of them,
    /// and others of the same frames. The offsets are in order; what the index has not reached is read once for all of them.
    pub fn outcomes(&self, offsets: &[Offset], visit: &mut dyn FnMut(LogRecord)) -> Result<(), ReadError> {
        let Some(first) = offsets.first().copied() else { return Ok(()) };
        let (mut last_frame, mut above, mut is_last) = (0, 0, false);
        while !is_last && let Some(segment) = self.reader.oldest_above(above) {
            above = segment.number();
            // Looked for first: a segment with another behind it grows no more, and is read to its end.
            is_last = self.reader.oldest_above(above).is_none();
            let extent = segment.extent();
            if extent.next_offset < first && extent.last_frame.is_some() {
                continue;
            }
            let view = self.view(&segment);
            let mut see = |at: u64, header: &FrameHeader, window: &mut FileWindow<'_>| {
                // The first frame of a segment may be the last of the one before, written again.
                if header.frame > last_frame
                    && let Some(records) = window.records(at, header)?
                {
                    last_frame = header.frame;
                    let others = records.iter().filter(|raw| raw.kind != RecordType::Event as u8);
                    let decoded = others.filter_map(|raw| LogRecord::decode(raw, first).ok().flatten());
                    decoded.for_each(&mut *visit);
                }
                Ok(true)
            };
            let mut window = FileWindow::sized(&segment, READ_BYTES);
            for at in self.references(&segment, &view, offsets)? {
                if let Some(header) = window.header(at).map_err(io_error(&segment))? {
                    see(at, &header, &mut window).map_err(io_error(&segment))?;
                }
            }
            frames(&segment, view.unread, &mut FileWindow::new(&segment), &mut see)?;
        }
        Ok(())
    }

    /// Where the frames of the indexed part begin that say something of the offsets, ascending.
    fn references(&self, segment: &Segment, view: &View, offsets: &[Offset]) -> Result<Vec<u64>, ReadError> {
        let mut found = Vec::new();
        for (number, meta) in view.blocks.iter().enumerate().filter(|(_, meta)| meta.refers_to(offsets)) {
            for piece in 0..meta.pieces as u32 {
                let take = |bytes: &[u8]| block::take_references(meta, bytes, offsets, &mut found);
                if self.value(view, b'o', number, Some(piece), take).is_none() {
                    // Every frame of the block then.
                    let mut window = FileWindow::sized(segment, READ_BYTES);
                    frames(segment, Stretch::of(meta), &mut window, &mut |at, _, _| {
                        found.push(at);
                        Ok(true)
                    })?;
                    break;
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// What the index has of a segment; nothing of it when it cannot be read.
    pub(super) fn view(&self, segment: &Segment) -> View {
        let end = segment.extent().end;
        let number = segment.number();
        let whole = Stretch { at: SEGMENT_HEADER_BYTES, end, frame: 0 };
        let unread = View { indexed: None, blocks: Vec::new(), unread: whole };
        match self.ask(|generation, trees| (generation, trees.blocks(number))) {
            Some((generation, Ok(Some((reached, blocks))))) => {
                let at = if reached.is_done { end } else { reached.at };
                let unread = Stretch { at, end, frame: reached.frame };
                View { indexed: Some((generation, number)), blocks, unread }
            }
            Some((generation, Err(error))) => {
                self.report(generation, error);
                unread
            }
            Some((_, Ok(None))) | None => unread,
        }
    }

    /// A value of a block, decoded; `None` when it cannot be had: then the index is built anew, or has been.
    pub(super) fn value<T>(
        &self,
        view: &View,
        kind: u8,
        block: usize,
        part: Option<u32>,
        take: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let (generation, segment) = view.indexed?;
        let ask =
            |current, trees: &Trees| (current == generation).then(|| trees.value(segment, kind, block, part));
        let value = self.ask(ask)??;
        let taken = value.and_then(|bytes| {
            take(&bytes).ok_or(IndexError::Inconsistent("a value is not what its block says"))
        });
        taken.map_err(|error| self.report(generation, error)).ok()
    }
}

/// Whether an offset is below all that was found: a repeated frame shows its events once.
fn is_older(found: &[Record], offset: Offset) -> bool {
    found.last().is_none_or(|last| offset < last.offset)
}

fn io_error(segment: &Segment) -> impl Fn(io::Error) -> ReadError + '_ {
    move |source| ReadError::Io { file: file_name(segment), source }
}

/// Sees a frame: where it begins, its header, and the window to read it through; says whether to go on.
type See<'a> = dyn FnMut(u64, &FrameHeader, &mut FileWindow<'_>) -> io::Result<bool> + 'a;

/// Visits the frames of a stretch as a walk of the log does: what can be read behind damage is.
fn frames(
    segment: &Segment,
    stretch: Stretch,
    window: &mut FileWindow<'_>,
    see: &mut See<'_>,
) -> Result<(), ReadError> {
    let Stretch { mut at, end, mut frame } = stretch;
    while let Some((found, header)) = window.frame(at, end, frame).map_err(io_error(segment))? {
        if !see(found, &header, window).map_err(io_error(segment))? {
            break;
        }
        (at, frame) = (found + header.span(), header.frame);
    }
    Ok(())
}

/// Visits the records of whole frames.
fn walk(segment: &Segment, stretch: Stretch, visit: &mut dyn FnMut(LogRecord)) -> Result<(), ReadError> {
    frames(segment, stretch, &mut FileWindow::new(segment), &mut |at, header, window| {
        let mut offset = header.first_offset;
        for raw in window.records(at, header)?.unwrap_or_default() {
            if let Ok(Some(record)) = LogRecord::decode(&raw, offset) {
                visit(record);
            }
            if raw.kind == RecordType::Event as u8 {
                offset = offset.next();
            }
        }
        Ok(true)
    })
}

/// Reads some events of a block, ascending, and decodes no others.
fn pick(segment: &Segment, meta: &Meta, offsets: &[Offset]) -> Result<Vec<Record>, ReadError> {
    let mut picked = Vec::with_capacity(offsets.len());
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return Ok(picked) };
    let mut window = FileWindow::sized(segment, READ_BYTES);
    frames(segment, Stretch::of(meta), &mut window, &mut |at, header, window| {
        if header.events > 0 && header.end_offset() > *first && header.first_offset <= *last {
            let bytes = window.get(at, FRAME_HEADER_BYTES + header.body_bytes as usize)?;
            pick_of(header, bytes, offsets, &mut picked);
        }
        Ok(header.first_offset <= *last)
    })?;
    Ok(picked)
}

/// Decodes the events that are asked for out of a frame: a damaged one does not hide its neighbours.
fn pick_of(header: &FrameHeader, frame: &[u8], offsets: &[Offset], picked: &mut Vec<Record>) {
    let (mut position, mut events) = (FRAME_HEADER_BYTES, 0);
    while let Some((kind, length)) = format::record_head(frame.get(position..).unwrap_or_default()) {
        if kind == RecordType::Event as u8 {
            let offset = Offset(header.first_offset.0 + u64::from(events));
            if offsets.binary_search(&offset).is_ok()
                && let Some((raw, _)) = format::record_at(header, frame, position, events)
                && let Ok(Some(LogRecord::Event(record))) = LogRecord::decode(&raw, offset)
            {
                picked.push(record);
            }
            events += 1;
        }
        position += length;
    }
}

/// What a list shows of an event: the data of a thousand may not fit in memory.
fn row(record: Record) -> Record {
    Record { event: Arc::new(Arc::unwrap_or_clone(record.event).without_data()), ..record }
}
