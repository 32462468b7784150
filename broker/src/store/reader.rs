//! Reads single events and ranges of frames, from memory while they are young, else from the segments.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::Offset;
use super::format::{
    self, FRAME_HEADER_BYTES, FrameHeader, RECORD_HEADER_BYTES, RawRecord, RecordType, SEGMENT_HEADER_BYTES,
    SegmentHeader,
};
use super::letters::Letters;
use super::record::{Aside, Attempted, Gap, LogRecord, Record};
use super::scan::{FileWindow, file_name};
use super::segment::{Segment, segment_name};

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

/// What a walk comes by.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is looked at and dropped; a box for each record would cost more"
)]
pub enum Passed {
    /// A record, and the number of its frame.
    Record(LogRecord, u64),
    /// Frames that were on disk once and cannot be read; the walk goes on behind them.
    Damage(Unread),
}

/// A place in the log that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    pub file: String,
    pub segment: u64,
    pub start: u64,
    pub end: u64,
    /// Records behind this place are about events from here on, and about those before.
    pub next_offset: Offset,
}

impl Unread {
    /// Whether a gap on the log says that all of this is lost.
    pub fn is_within(&self, gap: &Gap) -> bool {
        gap.segment == self.segment && gap.takes(&(self.start..self.end))
    }
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
        let mut failed = None;
        for segment in self.segments_of(offset) {
            match read_from(&segment, offset) {
                Ok(record) => return Ok(Arc::new(record)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or_else(|| self.read_letter(offset), Err)
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
    /// that recovery wrote again is visited once, and one that is damaged is passed over. So is what the disk does not
    /// give, and the walk fails at its end, unless `visit` has ended it. From 0 on, what stands in front of the first
    /// event is visited too.
    pub fn walk(&self, from: Offset, visit: &mut dyn FnMut(LogRecord, u64) -> bool) -> Result<(), ReadError> {
        let mut walk = Walk { goes_on: true, ..Walk::default() };
        self.walk_with(&mut walk, from, &mut records_only(visit))
    }

    /// Walks as [`Self::walk`] does, and says where frames are damaged. It fails at the first place that the disk does not
    /// give.
    pub fn walk_all(&self, from: Offset, visit: &mut dyn FnMut(Passed) -> bool) -> Result<(), ReadError> {
        self.walk_with(&mut Walk::default(), from, visit)
    }

    fn walk_with(
        &self,
        walk: &mut Walk,
        from: Offset,
        visit: &mut dyn FnMut(Passed) -> bool,
    ) -> Result<(), ReadError> {
        let mut leased = self.oldest_above(0);
        while let Some(segment) = leased {
            let number = segment.number();
            // Looked for first: a segment with another behind it grows no more, and is walked to its end. What is needed
            // of the next one is its header, and no lease.
            let next = self.oldest_above(number).map(|next| next.header);
            let extent = segment.extent();
            if extent.next_offset >= from || extent.last_frame.is_none() {
                let start = if from == Offset(0) { SEGMENT_HEADER_BYTES } else { segment.seek(from) };
                if !walk.segment(&segment, next, start, visit)? {
                    return Ok(());
                }
            }
            // What has been written since stands behind what was not walked. The next one is leased before this one is
            // let go: else retention might take both.
            leased = next.and_then(|_| self.oldest_above(number));
        }
        walk.failed.take().map_or(Ok(()), Err)
    }

    /// Walks the records of one segment from its start as [`Self::walk`] does, those before its first event included.
    pub fn walk_segment(
        &self,
        segment: &Segment,
        visit: &mut dyn FnMut(LogRecord, u64) -> bool,
    ) -> Result<(), ReadError> {
        let mut walk = Walk { goes_on: true, ..Walk::default() };
        match walk.segment(segment, None, SEGMENT_HEADER_BYTES, &mut records_only(visit))? {
            true => walk.failed.map_or(Ok(()), Err),
            false => Ok(()),
        }
    }

    /// The segments that hold an offset: a segment's first frame may repeat the last one of the segment before it.
    fn segments_of(&self, offset: Offset) -> Vec<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let at = segments.partition_point(|segment| segment.header.first_offset <= offset);
        let holds = |segment: &&Arc<Segment>| segment.extent().next_offset > offset;
        let older = segments[..at].iter().rev().skip_while(|segment| !holds(segment));
        older.take_while(holds).take(2).cloned().collect()
    }
}

/// Reads an event from a segment that holds it. What cannot be read fails it only where the event itself may be.
fn read_from(segment: &Segment, offset: Offset) -> Result<Record, ReadError> {
    let mut window = FileWindow::sized(segment, READ_BYTES).around_unreadable();
    let io = |source| ReadError::Io { file: file_name(segment), source };
    find_in(&mut window, segment, offset).map_err(io)?.map_err(|place| {
        let Some(place) = place else { return ReadError::Absent(offset) };
        match window.unreadable().check(&segment.path, place.clone()) {
            Ok(()) => ReadError::Damaged { offset, file: file_name(segment), at: place.start },
            Err(source) => io(source),
        }
    })
}

/// The event, or the place where it may have been, or nothing when it was not there.
fn find_in(
    window: &mut FileWindow<'_>,
    segment: &Segment,
    offset: Offset,
) -> io::Result<Result<Record, Option<Range<u64>>>> {
    let mut at = segment.seek(offset);
    let end = segment.extent().end;
    let (mut last_frame, mut damage) = (0, None::<Range<u64>>);
    while at < end {
        let Some(header) = window.header(at)? else {
            // Behind damage there are whole frames again.
            let next = window.next_header(at, last_frame)?.map(|(position, _)| position);
            let start = damage.map_or(at, |damage| damage.start);
            damage = Some(start..next.unwrap_or(end));
            let Some(position) = next else { break };
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
        return Ok(record_in(window, at, &header, offset)?.ok_or(Some(at..at + header.span())));
    }
    Ok(Err(damage))
}

/// The event that a frame holds, if it is whole: only its record is verified, one damaged neighbour does not hide it.
fn record_in(
    window: &mut FileWindow<'_>,
    at: u64,
    header: &FrameHeader,
    offset: Offset,
) -> io::Result<Option<Record>> {
    let mut position = at + FRAME_HEADER_BYTES as u64;
    let body_end = position + u64::from(header.body_bytes);
    let mut next = header.first_offset;
    while position < body_end {
        let head = window.get(position, RECORD_HEADER_BYTES)?;
        let Some((kind, length)) = format::record_head(head) else { return Ok(None) };
        if position + length as u64 > body_end {
            return Ok(None);
        }
        if kind == RecordType::Event as u8 {
            if next == offset {
                let before = (offset.0 - header.first_offset.0) as u32;
                let bytes = window.get(position, length)?;
                let raw = format::record_at(header, bytes, 0, before);
                let decoded = raw.and_then(|(raw, _)| LogRecord::decode(&raw, offset).ok().flatten());
                return Ok(match decoded {
                    Some(LogRecord::Event(record)) => Some(record),
                    _ => None,
                });
            }
            next = next.next();
        }
        position += length as u64;
    }
    Ok(None)
}

fn letters_error(source: io::Error) -> ReadError {
    ReadError::Io { file: "dead-letters".into(), source }
}

fn size(record: &Record) -> usize {
    RECORD_OVERHEAD_BYTES + record.event.data().map_or(0, |data| data.bytes.len())
}

/// How far a walk has come.
#[derive(Default)]
struct Walk {
    /// The last frame that was passed; unknown at first when the walk begins within a segment.
    last_frame: Option<u64>,
    /// The segment that was walked before, and where its last frame ends.
    before: Option<(u64, String, u64)>,
    /// Whether what the disk does not give is passed over; and the first of it.
    goes_on: bool,
    failed: Option<ReadError>,
}

fn records_only(visit: &mut dyn FnMut(LogRecord, u64) -> bool) -> impl FnMut(Passed) -> bool {
    move |passed| match passed {
        Passed::Record(record, frame) => visit(record, frame),
        Passed::Damage(_) => true,
    }
}

impl Walk {
    /// Walks the frames of a segment that come after those that were passed; says whether to go on with the next segment.
    fn segment(
        &mut self,
        segment: &Segment,
        next: Option<SegmentHeader>,
        mut at: u64,
        visit: &mut dyn FnMut(Passed) -> bool,
    ) -> Result<bool, ReadError> {
        let end = segment.extent().end;
        let io = |source| ReadError::Io { file: file_name(segment), source };
        let before_first = segment.header.first_frame.saturating_sub(1);
        if at == SEGMENT_HEADER_BYTES {
            let is_missing = self.last_frame.is_some_and(|last| before_first > last);
            if is_missing && !visit(Passed::Damage(self.before(segment))) {
                return Ok(false);
            }
            self.last_frame = Some(self.last_frame.map_or(before_first, |last| last.max(before_first)));
        }
        let mut window = FileWindow::new(segment).around_unreadable();
        while at < end {
            let last_frame = self.last_frame.unwrap_or(before_first);
            let header = window.header(at).map_err(io)?;
            if header.zip(next).is_some_and(|(header, next)| next.gives_up(&header)) {
                break;
            }
            if let Some(header) = header
                // Recovery wrote the last frame a second time, at the start of the next segment.
                && self.last_frame.is_some_and(|last| header.frame <= last)
            {
                at += header.span();
                continue;
            }
            if let Some(header) = header
                && let Some(records) = window.records(at, &header).map_err(io)?
            {
                let is_missing = self.last_frame.is_some_and(|last| header.frame > last + 1);
                if is_missing && !visit(Passed::Damage(unread(segment, at, at, header.first_offset))) {
                    return Ok(false);
                }
                self.last_frame = Some(header.frame);
                if !visit_records(&records, &header, visit) {
                    return Ok(false);
                }
                at += header.span();
                continue;
            }
            let following = window.next_header(at, last_frame).map_err(io)?;
            let (until, next_offset) = match following.filter(|(position, _)| *position < end) {
                Some((position, header)) => {
                    self.last_frame = Some(header.frame.saturating_sub(1));
                    (position, header.first_offset)
                }
                // What a snapshot covers is as long as its file: behind the last frame is unused space, or a torn tail.
                None if next.is_some_and(|next| next.first_frame <= last_frame + 1) => break,
                None => {
                    self.last_frame = next.map(|next| next.first_frame.saturating_sub(1)).or(self.last_frame);
                    (end, next.map_or(segment.extent().next_offset, |next| next.first_offset))
                }
            };
            match window.unreadable().check(&segment.path, at..until).map_err(io) {
                Err(error) if !self.goes_on => return Err(error),
                Err(error) => self.failed = self.failed.take().or(Some(error)),
                Ok(()) if !visit(Passed::Damage(unread(segment, at, until, next_offset))) => {
                    return Ok(false);
                }
                Ok(()) => {}
            }
            at = until;
        }
        self.before = Some((segment.number(), file_name(segment), at));
        Ok(true)
    }

    /// The place before a segment that does not go on where the last one ended.
    fn before(&self, segment: &Segment) -> Unread {
        let next_offset = segment.header.first_offset;
        match &self.before {
            Some((number, file, at)) if number + 1 == segment.number() => {
                Unread { file: file.clone(), segment: *number, start: *at, end: *at, next_offset }
            }
            before => {
                let missing = before.as_ref().map_or(segment.number(), |(number, ..)| number + 1);
                Unread { file: segment_name(missing), segment: missing, start: 0, end: 0, next_offset }
            }
        }
    }
}

fn unread(segment: &Segment, start: u64, end: u64, next_offset: Offset) -> Unread {
    Unread { file: file_name(segment), segment: segment.number(), start, end, next_offset }
}

/// Visits the records of a whole frame; says whether to go on.
fn visit_records(
    records: &[RawRecord<'_>],
    header: &FrameHeader,
    visit: &mut dyn FnMut(Passed) -> bool,
) -> bool {
    let mut offset = header.first_offset;
    for raw in records {
        let decoded = LogRecord::decode(raw, offset);
        offset = if raw.kind == RecordType::Event as u8 { offset.next() } else { offset };
        if let Ok(Some(record)) = decoded
            && !visit(Passed::Record(record, header.frame))
        {
            return false;
        }
    }
    true
}
