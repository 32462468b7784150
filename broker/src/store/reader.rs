//! Reads single events and ranges of frames, from memory while they are young, else from the segments.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::Offset;
use super::format::{self, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES, RecordType, SEGMENT_HEADER_BYTES};
use super::letters::Letters;
use super::record::{Aside, Attempted, LogRecord, Record, Routed};
use super::scan::{FileWindow, file_name};
use super::segment::Segment;

/// Why an event cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("offset {0} is not in the log (any more)")]
    Absent(Offset),
    #[error("the frame of offset {offset} in {file} at byte {at} is damaged")]
    Damaged { offset: Offset, file: String, at: u64 },
    #[error("cannot read {file}")]
    Io { file: String, source: io::Error },
}

/// The durable part of the log, shared by all who read it.
pub struct Reader {
    letters: Letters,
    segments: RwLock<Vec<Arc<Segment>>>,
    tail: Mutex<Tail>,
}

/// The newest events, so many bytes of them.
struct Tail {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    bytes_max: usize,
}

/// Read at once when one event is looked for: about what lies between two entries of the sparse index.
const READ_BYTES: usize = 64 << 10;
/// What a record takes in memory besides its data, roughly.
const RECORD_OVERHEAD_BYTES: usize = 700;

impl Reader {
    pub fn new(segments: Vec<Arc<Segment>>, letters: Letters, tail_bytes_max: usize) -> Self {
        let tail = Tail { records: VecDeque::new(), bytes: 0, bytes_max: tail_bytes_max };
        Self { letters, segments: RwLock::new(segments), tail: Mutex::new(tail) }
    }

    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The segment of this number.
    pub fn segment(&self, number: u64) -> Option<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.iter().rfind(|segment| segment.number() == number).cloned()
    }

    /// The newest segment with a lower number: who goes through the log backwards leases one segment at a time.
    pub fn newest_below(&self, number: u64) -> Option<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.iter().rfind(|segment| segment.number() < number).cloned()
    }

    /// The oldest segment with a higher number: who goes through the log leases one segment at a time.
    pub fn oldest_above(&self, number: u64) -> Option<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.iter().find(|segment| segment.number() > number).cloned()
    }

    pub fn add_segment(&self, segment: Arc<Segment>) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).push(segment);
    }

    /// Takes the oldest segment out of the log if nobody leases it.
    pub fn take_oldest(&self, number: u64) -> Option<Arc<Segment>> {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let free =
            segments.len() > 1 && segments[0].number() == number && Arc::strong_count(&segments[0]) == 1;
        free.then(|| segments.remove(0))
    }

    pub fn remember(&self, records: &[Arc<Record>]) {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            tail.bytes += size(record);
            tail.records.push_back(Arc::clone(record));
        }
        while tail.bytes > tail.bytes_max {
            let Some(oldest) = tail.records.pop_front() else { break };
            tail.bytes -= size(&oldest);
        }
    }

    /// The event if it is still in memory.
    pub fn recent(&self, offset: Offset) -> Option<Arc<Record>> {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let first = tail.records.front()?.offset;
        let record = tail.records.get(usize::try_from(offset.0.checked_sub(first.0)?).ok()?)?;
        (record.offset == offset).then(|| Arc::clone(record))
    }

    /// The oldest offset in the log.
    pub fn first_offset(&self) -> Offset {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.first().map_or(Offset(0), |segment| segment.header.first_offset)
    }

    /// Reads an event, its checksum verified. Blocks on the disk when it is not in memory.
    pub fn read(&self, offset: Offset) -> Result<Arc<Record>, ReadError> {
        if let Some(record) = self.recent(offset) {
            return Ok(record);
        }
        let Some(segment) = self.segment_of(offset) else { return self.read_letter(offset) };
        let mut at = segment.seek(offset);
        let end = segment.extent().end;
        let mut window = FileWindow::sized(&segment, READ_BYTES);
        let io = |source| ReadError::Io { file: file_name(&segment), source };
        let (mut last_frame, mut damaged_at) = (0, None);
        while at < end {
            let Some(header) = window.header(at).map_err(io)? else {
                // Behind damage there are whole frames again.
                damaged_at.get_or_insert(at);
                let Some((position, _)) = window.next_header(at, last_frame).map_err(io)? else { break };
                at = position;
                continue;
            };
            last_frame = header.frame;
            if offset >= header.end_offset() || header.events == 0 {
                at += header.span();
                continue;
            }
            if offset < header.first_offset {
                break;
            }
            let damaged = || ReadError::Damaged { offset, file: file_name(&segment), at };
            let body_end = at + (FRAME_HEADER_BYTES as u64) + u64::from(header.body_bytes);
            let mut position = at + FRAME_HEADER_BYTES as u64;
            let mut next = header.first_offset;
            while position < body_end {
                // Only the record asked for is read and verified: one damaged neighbour does not hide it.
                let head = window.get(position, RECORD_HEADER_BYTES).map_err(io)?;
                let (kind, length) = format::record_head(head).ok_or_else(damaged)?;
                if position + length as u64 > body_end {
                    break;
                }
                if kind == RecordType::Event as u8 {
                    if next == offset {
                        let before = (offset.0 - header.first_offset.0) as u32;
                        let bytes = window.get(position, length).map_err(io)?;
                        let (raw, _) = format::record_at(&header, bytes, 0, before).ok_or_else(damaged)?;
                        let Ok(Some(LogRecord::Event(record))) = LogRecord::decode(&raw, offset) else {
                            return Err(damaged());
                        };
                        return Ok(Arc::new(record));
                    }
                    next = next.next();
                }
                position += length as u64;
            }
            return Err(damaged());
        }
        Err(match damaged_at {
            Some(at) => ReadError::Damaged { offset, file: file_name(&segment), at },
            None => ReadError::Absent(offset),
        })
    }

    /// The event of a dead letter whose segment has been retired.
    fn read_letter(&self, offset: Offset) -> Result<Arc<Record>, ReadError> {
        self.letters.event(offset).map_err(letters_error)?.map(Arc::new).ok_or(ReadError::Absent(offset))
    }

    /// What is kept of dead letters beside the log.
    pub fn letters(&self) -> &Letters {
        &self.letters
    }

    /// A record that was put aside, and where in the log to look for it.
    pub fn read_aside(&self, number: u64, near: Offset) -> Result<Option<Aside>, ReadError> {
        let mut found = self.letters.aside(number).map_err(letters_error)?;
        if found.is_none() {
            // The event before it was on disk when it was written; one with this offset may stand in front of it or behind.
            self.walk(Offset(near.0.saturating_sub(1)), &mut |record, _| {
                if let LogRecord::Aside(aside) = record
                    && aside.number == number
                {
                    found = Some(aside);
                }
                found.is_none()
            })?;
        }
        Ok(found)
    }

    /// Attempts of an event's deliveries that are in no segment any more.
    pub fn kept_attempts(&self, offset: Offset) -> Result<Vec<Attempted>, ReadError> {
        self.letters.attempts(offset).map_err(letters_error)
    }

    /// Walks the records of durable frames, from the frame that holds `from` on; `visit` says whether to go on. A frame
    /// that recovery wrote again is visited once. From 0 on, what stands in front of the first event is visited too.
    pub fn walk(&self, from: Offset, visit: &mut dyn FnMut(LogRecord, u64) -> bool) -> Result<(), ReadError> {
        let (mut last_frame, mut number) = (0, 0);
        while let Some(segment) = self.oldest_above(number) {
            number = segment.number();
            let extent = segment.extent();
            if extent.next_offset < from && extent.last_frame.is_some() {
                continue;
            }
            let at = if from == Offset(0) { SEGMENT_HEADER_BYTES } else { segment.seek(from) };
            if !walk_frames(&segment, at, &mut last_frame, visit)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Walks the records of one segment from its start, those before its first event included.
    pub fn walk_segment(
        &self,
        segment: &Segment,
        visit: &mut dyn FnMut(LogRecord, u64) -> bool,
    ) -> Result<(), ReadError> {
        walk_frames(segment, SEGMENT_HEADER_BYTES, &mut 0, visit).map(drop)
    }

    /// Matches on the log from an offset on: ranges in order, until one ends at or behind `to` or `limit` matches of
    /// the trigger are read.
    pub fn matches(&self, from: Offset, visit: &mut dyn FnMut(&Routed) -> bool) -> Result<(), ReadError> {
        self.walk(from, &mut |record, _| match record {
            LogRecord::Routed(routed) => visit(&routed),
            _ => true,
        })
    }

    fn segment_of(&self, offset: Offset) -> Option<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let at = segments.partition_point(|segment| segment.header.first_offset <= offset);
        // A segment's first frame may repeat the last one of the segment before it.
        segments[..at].iter().rev().find(|segment| segment.extent().next_offset > offset).cloned()
    }
}

fn letters_error(source: io::Error) -> ReadError {
    ReadError::Io { file: "dead-letters".into(), source }
}

fn size(record: &Record) -> usize {
    RECORD_OVERHEAD_BYTES + record.event.data().map_or(0, |data| data.bytes.len())
}

/// Walks the frames of a segment that come after `last_frame`; says whether to go on with the next segment.
fn walk_frames(
    segment: &Segment,
    mut at: u64,
    last_frame: &mut u64,
    visit: &mut dyn FnMut(LogRecord, u64) -> bool,
) -> Result<bool, ReadError> {
    let end = segment.extent().end;
    let io = |source| ReadError::Io { file: file_name(segment), source };
    let mut window = FileWindow::new(segment);
    while let Some((position, header)) = window.frame(at, end, *last_frame).map_err(io)? {
        at = position;
        // Recovery wrote the last frame a second time, at the start of the next segment.
        if header.frame > *last_frame
            && let Some(records) = window.records(at, &header).map_err(io)?
        {
            *last_frame = header.frame;
            let mut offset = header.first_offset;
            for raw in records {
                if let Ok(Some(record)) = LogRecord::decode(&raw, offset) {
                    if matches!(record, LogRecord::Event(_)) {
                        offset = offset.next();
                    }
                    if !visit(record, header.frame) {
                        return Ok(false);
                    }
                }
            }
        }
        at += header.span();
    }
    Ok(true)
}
