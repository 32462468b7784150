//! Look-ups: with the index where it has been, by reading where it has not.

use std::collections::VecDeque;
use std::io;

use super::super::Offset;
use super::super::format::{self, FRAME_HEADER_BYTES, RecordType, SEGMENT_HEADER_BYTES};
use super::super::reader::ReadError;
use super::super::record::{LogRecord, Record};
use super::super::scan::{FileWindow, file_name};
use super::super::segment::Segment;
use super::Index;
use super::block::{self, Meta};
use super::tree::{IndexError, Indexed};

/// Candidates of a block are read so many at a time, the newest first, or `limit` if that is more.
const CANDIDATES_MIN: usize = 64;

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

/// A segment as a look-up sees it: blocks, and where the part begins that has to be scanned.
struct View {
    indexed: Option<Indexed>,
    blocks: Vec<Meta>,
    scan_from: u64,
}

impl Index {
    /// The newest events that are wanted, newest first.
    pub fn events(&self, wanted: &Wanted) -> Result<Vec<Record>, ReadError> {
        let mut found: Vec<Record> = Vec::new();
        if wanted.limit == 0 {
            return Ok(found);
        }
        for segment in self.reader.segments().iter().rev() {
            let extent = segment.extent();
            // A segment that was only found at start, not read, does not know when its last event came: 0.
            let is_too_old = extent.last_received_ms > 0 && extent.last_received_ms < wanted.since_ms;
            if is_too_old || found.len() >= wanted.limit {
                break;
            }
            if wanted.before.is_some_and(|before| before <= segment.header.first_offset) {
                continue;
            }
            self.events_of(segment, wanted, &mut found)?;
        }
        Ok(found)
    }

    fn events_of(
        &self,
        segment: &Segment,
        wanted: &Wanted,
        found: &mut Vec<Record>,
    ) -> Result<(), ReadError> {
        let view = self.view(segment);
        let room = wanted.limit - found.len();
        let mut piece = VecDeque::new();
        walk(segment, view.scan_from, &mut |record| {
            if let LogRecord::Event(record) = record
                && wanted.takes(&record)
                && is_older(found, record.offset)
            {
                piece.push_back(record);
                if piece.len() > room {
                    piece.pop_front();
                }
            }
            true
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
            for candidates in candidates.rchunks(wanted.limit.max(CANDIDATES_MIN)) {
                let records = pick(segment, meta, candidates)?;
                let newest_first = records.into_iter().rev();
                let fitting: Vec<_> = newest_first
                    .filter(|record| wanted.takes(record) && is_older(found, record.offset))
                    .take(wanted.limit - found.len())
                    .collect();
                found.extend(fitting);
                if found.len() >= wanted.limit {
                    break;
                }
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
        for segment in self.reader.segments().iter().rev() {
            let view = self.view(segment);
            let mut found = None;
            walk(segment, view.scan_from, &mut |record| {
                if let LogRecord::Event(record) = record
                    && is_it(&record)
                {
                    found = Some(record);
                }
                true
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
                if let Some(found) = pick(segment, meta, &candidates)?.into_iter().rev().find(is_it) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Visits, in log order, every record of the log that says which triggers an event matched or what became of it,
    /// and others of the same frames.
    pub fn outcomes(&self, offset: Offset, visit: &mut dyn FnMut(LogRecord)) -> Result<(), ReadError> {
        let mut last_frame = 0;
        for segment in self.reader.segments() {
            let extent = segment.extent();
            if extent.next_offset < offset && extent.last_frame.is_some() {
                continue;
            }
            let view = self.view(&segment);
            let mut see = |header: &format::FrameHeader, records: &[format::RawRecord<'_>]| {
                // The first frame of a segment may be the last of the one before, written again.
                if header.frame > last_frame {
                    last_frame = header.frame;
                    let others = records.iter().filter(|raw| raw.kind != RecordType::Event as u8);
                    let decoded = others.filter_map(|raw| LogRecord::decode(raw, offset).ok().flatten());
                    decoded.for_each(&mut *visit);
                }
                true
            };
            let mut window = FileWindow::new(&segment);
            for at in self.references(&segment, &view, offset) {
                frames(&segment, &mut window, at..at + 1, &mut see)?;
            }
            frames(&segment, &mut window, view.scan_from..extent.end, &mut see)?;
        }
        Ok(())
    }

    /// Frames of the indexed part that say something of an offset, ascending.
    fn references(&self, segment: &Segment, view: &View, offset: Offset) -> Vec<u64> {
        let mut found = Vec::new();
        for (number, meta) in view.blocks.iter().enumerate().filter(|(_, meta)| meta.refers_to(offset)) {
            for piece in 0..meta.pieces as u32 {
                let take = |bytes: &[u8]| block::take_references(meta, bytes, offset, &mut found);
                if self.value(view, b'o', number, Some(piece), take).is_none() {
                    // Every frame of the block then.
                    let mut window = FileWindow::new(segment);
                    let mut at = meta.at;
                    while at < meta.end {
                        if let Ok(Some(header)) = window.header(at) {
                            found.push(at);
                            at += header.span();
                        } else if let Ok(Some((next, _))) = window.next_header(at, 0) {
                            at = next;
                        } else {
                            break;
                        }
                    }
                    break;
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// What the index has of a segment; nothing of it when it cannot be read.
    fn view(&self, segment: &Segment) -> View {
        let indexed = self.trees().and_then(|trees| trees.segment(segment.number()));
        let unread = View { indexed: None, blocks: Vec::new(), scan_from: SEGMENT_HEADER_BYTES };
        let Some(indexed) = indexed else { return unread };
        match indexed.blocks() {
            Ok(blocks) => {
                let scan_from = if indexed.reached.is_done { u64::MAX } else { indexed.reached.at };
                View { indexed: Some(indexed), blocks, scan_from }
            }
            Err(error) => {
                self.report(&error);
                unread
            }
        }
    }

    /// A value of a block, decoded; `None` when it cannot be had, and then the index is built anew.
    fn value<T>(
        &self,
        view: &View,
        kind: u8,
        block: usize,
        part: Option<u32>,
        take: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let value = view.indexed.as_ref()?.value(kind, block, part);
        let taken = value.and_then(|bytes| {
            take(&bytes).ok_or(IndexError::Inconsistent("a value is not what its block says"))
        });
        taken.inspect_err(|error| self.report(error)).ok()
    }
}

/// Whether an offset is below all that was found: a repeated frame shows its events once.
fn is_older(found: &[Record], offset: Offset) -> bool {
    found.last().is_none_or(|last| offset < last.offset)
}

fn io_error(segment: &Segment) -> impl Fn(io::Error) -> ReadError + '_ {
    move |source| ReadError::Io { file: file_name(segment), source }
}

/// Visits the whole frames that begin in a range, as far as headers can be read.
fn frames(
    segment: &Segment,
    window: &mut FileWindow<'_>,
    range: std::ops::Range<u64>,
    visit: &mut dyn FnMut(&format::FrameHeader, &[format::RawRecord<'_>]) -> bool,
) -> Result<(), ReadError> {
    let mut at = range.start;
    while at < range.end {
        // As a walk of the log does: what can be read behind damage is.
        let Some(header) = window.header(at).map_err(io_error(segment))? else {
            let Some((next, _)) = window.next_header(at, 0).map_err(io_error(segment))? else { break };
            at = next;
            continue;
        };
        if let Some(records) = window.records(at, &header).map_err(io_error(segment))?
            && !visit(&header, &records)
        {
            break;
        }
        at += header.span();
    }
    Ok(())
}

/// Visits the records of a segment from a position on.
fn walk(segment: &Segment, from: u64, visit: &mut dyn FnMut(LogRecord) -> bool) -> Result<(), ReadError> {
    let mut window = FileWindow::new(segment);
    frames(segment, &mut window, from..segment.extent().end, &mut |header, records| {
        let mut offset = header.first_offset;
        for raw in records {
            if let Ok(Some(record)) = LogRecord::decode(raw, offset) {
                if matches!(record, LogRecord::Event(_)) {
                    offset = offset.next();
                }
                if !visit(record) {
                    return false;
                }
            }
        }
        true
    })
}

/// Reads some events of a block, ascending, and decodes no others.
fn pick(segment: &Segment, meta: &Meta, offsets: &[Offset]) -> Result<Vec<Record>, ReadError> {
    let mut picked = Vec::with_capacity(offsets.len());
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return Ok(picked) };
    let mut window = FileWindow::new(segment);
    let mut at = meta.at;
    while at < meta.end {
        let Some(header) = window.header(at).map_err(io_error(segment))? else {
            let Some((next, _)) = window.next_header(at, 0).map_err(io_error(segment))? else { break };
            at = next;
            continue;
        };
        if header.first_offset > *last {
            break;
        }
        if header.end_offset() <= *first {
            at += header.span();
            continue;
        }
        let length = FRAME_HEADER_BYTES + header.body_bytes as usize;
        let bytes = window.get(at, length).map_err(io_error(segment))?;
        let (mut position, mut offset) = (FRAME_HEADER_BYTES, header.first_offset);
        while let Some((kind, length)) = format::record_head(bytes.get(position..).unwrap_or_default()) {
            if kind == RecordType::Event as u8 {
                let before = (offset.0 - header.first_offset.0) as u32;
                if offsets.binary_search(&offset).is_ok()
                    && let Some((raw, _)) = format::record_at(&header, bytes, position, before)
                    && let Ok(Some(LogRecord::Event(record))) = LogRecord::decode(&raw, offset)
                {
                    picked.push(record);
                }
                offset = offset.next();
            }
            position += length;
        }
        at += header.span();
    }
    Ok(picked)
}
