//! Reads frames in order and tells a torn tail from damage.
//!
//! A frame is only written when the one before it is on disk. So a frame that is not whole and has a whole one with a
//! higher number behind it was on disk and is damaged; without one it is the tail that a crash tore. What cannot be read
//! now is neither: a frame may be there again another time, so it is noted, and nothing takes it for unused or torn.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::Offset;
use super::format::{
    self, ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, RawRecord, RecordType, SEGMENT_HEADER_BYTES,
};
use super::reached::Reached;
use super::record::Gap;
use super::segment::{Segment, segment_name};
use super::unreadable::{Unreadable, meet};

/// A place between two frames: all up to and including frame `frame` is before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Position {
    pub segment: u64,
    pub at: u64,
    /// The number of the frame before; 0 at the start of the log.
    pub frame: u64,
}

impl Position {
    /// In front of the first frame of a segment.
    pub fn start_of(segment: &Segment) -> Self {
        let frame = segment.header.first_frame.saturating_sub(1);
        Self { segment: segment.number(), at: SEGMENT_HEADER_BYTES, frame }
    }
}

/// A frame that was found whole.
pub struct Found<'a> {
    pub segment: &'a Segment,
    pub at: u64,
    pub header: FrameHeader,
    pub records: Vec<RawRecord<'a>>,
    /// Recovery wrote it a second time: what it says is known, but this may be the copy that is on disk.
    pub is_repeated: bool,
}

/// Frames that were on disk once and are not whole any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub file: String,
    pub segment: u64,
    pub start: u64,
    pub end: u64,
    /// Offsets of the events that were there (end exclusive).
    pub offsets: (Offset, Offset),
    /// Some of it cannot be read now. It may be whole, and readable another time.
    pub is_unreadable: bool,
}

impl Damage {
    fn meets(&self, other: &Self) -> bool {
        self.segment == other.segment && meet(&(self.start..self.end), &(other.start..other.end))
    }

    /// The events in question as `store repair` takes them: the first and the last.
    pub fn events(&self) -> String {
        match self.offsets {
            (from, to) if from < to => format!("offsets {from}..{}", to.0 - 1),
            (from, _) => format!("no event that is known of, from offset {from} on"),
        }
    }

    /// Whether a gap on the log says that all of this is lost.
    pub fn is_within(&self, gap: &Gap) -> bool {
        // Of several segments that are missing at the end the gap names the first.
        let is_of_end = (gap.start, gap.end, self.start, self.end) == (0, 0, 0, 0)
            && gap.segment < self.segment
            && self.offsets.1 == gap.to
            && gap.from <= self.offsets.0;
        if is_of_end {
            return true;
        }
        gap.segment == self.segment
            && gap.takes(&(self.start..self.end))
            && (self.offsets.0 == self.offsets.1 || gap.from <= self.offsets.0 && self.offsets.1 <= gap.to)
    }
}

/// How a scan ended.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    pub frames: u64,
    pub events: u64,
    /// The last whole frame: its segment, where it stands, its header.
    pub last: Option<(u64, u64, FrameHeader)>,
    /// The highest number of a frame that was on disk, be it damaged or not.
    pub last_frame: u64,
    pub next_offset: Offset,
    /// Where the whole frames of the last segment end.
    pub end: u64,
    /// The last frame is a closing one.
    pub closed: bool,
    /// Bytes behind the last whole frame that are the start of one: segment, position, bytes.
    pub torn: Option<(u64, u64, Vec<u8>)>,
    /// Where frames are missing.
    pub damage: Vec<Damage>,
    /// What could not be read, whether a frame is missing there or not.
    pub unreadable: Vec<Damage>,
    /// Something behind the last whole frame cannot be read: frames may be there.
    pub may_go_on: bool,
}

const WINDOW_BYTES: usize = 1 << 20;
/// Of a segment that is gone nothing says how long it was.
const SEGMENT_BYTES_USUAL: u64 = 64 << 20;
/// No frame is longer, but one that holds a single larger append.
const TORN_BYTES_MAX: usize = 16 << 20;

/// Reads all frames behind a position. `segments` are all that exist, oldest first.
pub fn scan(
    segments: &[Arc<Segment>],
    from: Position,
    next_offset: Offset,
    visit: &mut dyn FnMut(&Found<'_>) -> io::Result<()>,
) -> io::Result<Ending> {
    scan_until(segments, from, u64::MAX, next_offset, visit)
}

/// Reads frames as [`scan`] does, and nothing behind frame `until`: the writer may be at it.
pub fn scan_until(
    segments: &[Arc<Segment>],
    from: Position,
    until: u64,
    next_offset: Offset,
    visit: &mut dyn FnMut(&Found<'_>) -> io::Result<()>,
) -> io::Result<Ending> {
    let mut ending = Ending { next_offset, last_frame: from.frame, ..Ending::default() };
    // The segment before, and where its last whole frame ends.
    let mut before: Option<(&Segment, u64)> = None;
    let mut following = segments.iter().skip_while(|segment| segment.number() < from.segment).peekable();
    while let Some(segment) = following.next() {
        let next = following.peek().map(|next| &next.header);
        let mut window = FileWindow::new(segment).around_unreadable();
        let mut at = SEGMENT_HEADER_BYTES;
        if segment.number() == from.segment {
            at = from.at;
        } else if segment.header.first_frame > ending.last_frame + 1 {
            // A segment is begun when all before it is on disk.
            let missing = Missing::before(segment, before, from.segment);
            ending.miss(missing, segment.header.first_frame, segment.header.first_offset)?;
        }
        (ending.torn, ending.may_go_on) = (None, false);
        loop {
            if ending.last_frame >= until {
                return Ok(ending);
            }
            if let Some((header, records)) = window.whole(at)? {
                if next.is_some_and(|next| next.gives_up(&header)) {
                    break;
                }
                if header.frame > ending.last_frame + 1 {
                    ending.miss(Missing::Part(segment, at, at), header.frame, header.first_offset)?;
                    continue;
                }
                let is_repeated = header.frame <= ending.last_frame;
                if !is_repeated {
                    ending.closed = records.last().is_some_and(|last| last.kind == RecordType::Close as u8);
                    ending.last = Some((segment.number(), at, header));
                    ending.frames += 1;
                    ending.events += u64::from(header.events);
                    ending.next_offset = ending.next_offset.max(header.end_offset());
                    ending.last_frame = header.frame;
                }
                visit(&Found { segment, at, header, records, is_repeated })?;
                at += header.span();
                continue;
            }
            // Also behind a closing frame: a later run may have gone on there.
            let Some((position, header)) = window.next_header(at, ending.last_frame)? else {
                ending.may_go_on = window.unreadable().among(&(at..u64::MAX)).is_some();
                if !ending.may_go_on {
                    ending.torn = window.torn(at)?.map(|bytes| (segment.number(), at, bytes));
                }
                break;
            };
            ending.miss(Missing::Part(segment, at, position), header.frame, header.first_offset)?;
            at = position;
        }
        ending.end = at;
        // Where the next segment goes on with the next frame, what is behind the last one is space that was never used.
        let is_joined = next.is_some_and(|next| next.first_frame <= ending.last_frame + 1);
        let places = window.unreadable().places.iter().filter(|place| !is_joined || place.start < at);
        ending.unreadable.extend(places.map(|place| unreadable(segment, place, ending.next_offset)));
        before = Some((segment, at));
    }
    Ok(ending)
}

/// Where frames are missing.
#[derive(Clone, Copy)]
enum Missing<'a> {
    /// In a segment, from here to there.
    Part(&'a Segment, u64, u64),
    /// From here to the end of a segment.
    End(&'a Segment, u64),
    /// The whole of the segment with this number, and maybe of others behind it.
    Segment(u64),
}

impl<'a> Missing<'a> {
    /// Between a segment and the one before it, whose last whole frame ends here; without one, from segment `first` on.
    fn before(segment: &Segment, before: Option<(&'a Segment, u64)>, first: u64) -> Self {
        match before {
            Some((last, end)) if last.number() + 1 == segment.number() => Self::End(last, end),
            before => Self::Segment(before.map_or(first, |(last, _)| last.number() + 1)),
        }
    }
}

impl Ending {
    /// Of a log that is not there. What was not settled is lost with it.
    pub fn of_nothing(floor: Offset) -> Self {
        Self { next_offset: floor, ..Self::default() }
    }

    /// All that is wrong: what cannot be read is it, too, when no frame is known to be missing there.
    pub fn all_damage(&self) -> Vec<Damage> {
        let mut all = self.damage.clone();
        for place in &self.unreadable {
            let mut is_part = false;
            for part in all.iter_mut().filter(|part| part.meets(place)) {
                (part.is_unreadable, is_part) = (true, true);
            }
            if !is_part {
                all.push(place.clone());
            }
        }
        all
    }

    /// Notes as damage that the log ends before what was on disk, or that its last file is shorter than it was made, or
    /// that it cannot be read where it seems to end. Whether the end is missing.
    pub fn miss_end(&mut self, last: Option<&Segment>, reached: &Reached) -> io::Result<bool> {
        let Reached { position, next_offset } = *reached;
        let file_bytes = last.map_or(Ok(0), |last| last.file.len())?;
        let made_bytes = last.map_or(0, |last| last.header.file_bytes);
        let is_behind = self.last_frame < position.frame;
        let is_gone = position.frame > 0 && last.map_or(0, Segment::number) < position.segment;
        if !is_behind && !is_gone && file_bytes >= made_bytes && !self.may_go_on {
            return Ok(false);
        }
        let (frame, offset) = if is_behind {
            (position.frame + 1, next_offset)
        } else {
            (self.last_frame + 1, self.next_offset)
        };
        // One that recovery cut off is shorter by right when others are missing behind it.
        let Some(holder) = last.filter(|_| !is_gone) else {
            self.miss(Missing::Segment(last.map_or(0, Segment::number) + 1), frame, offset)?;
            self.leave_numbers(made_bytes.max(SEGMENT_BYTES_USUAL));
            return Ok(true);
        };
        self.miss(Missing::End(holder, self.end), frame, offset)?;
        let known = if holder.number() == position.segment { position.at } else { 0 };
        if let Some(damage) = self.damage.last_mut() {
            damage.end = damage.end.max(made_bytes).max(known);
        }
        if self.may_go_on {
            self.leave_numbers(file_bytes.saturating_sub(self.end));
        }
        Ok(true)
    }

    /// Of frames that may be in so many bytes no number is used again: they may be there again another time.
    fn leave_numbers(&mut self, bytes: u64) {
        self.last_frame += bytes / ALIGNMENT;
    }

    /// Notes damage; the log goes on with this frame and this offset.
    fn miss(&mut self, missing: Missing<'_>, frame: u64, offset: Offset) -> io::Result<()> {
        let (file, segment, start, end) = match missing {
            Missing::Part(segment, start, end) => (file_name(segment), segment.number(), start, end),
            Missing::End(segment, start) => {
                (file_name(segment), segment.number(), start, segment.file.len()?.max(start))
            }
            Missing::Segment(number) => (segment_name(number), number, 0, 0),
        };
        let offsets = (self.next_offset, offset.max(self.next_offset));
        self.damage.push(Damage { file, segment, start, end, offsets, is_unreadable: false });
        self.next_offset = offsets.1;
        self.last_frame = frame - 1;
        self.closed = false;
        Ok(())
    }
}

fn unreadable(segment: &Segment, place: &Range<u64>, next_offset: Offset) -> Damage {
    Damage {
        file: file_name(segment),
        segment: segment.number(),
        start: place.start,
        end: place.end,
        offsets: (next_offset, next_offset),
        is_unreadable: true,
    }
}

pub fn file_name(segment: &Segment) -> String {
    segment.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A sliding piece of a segment file.
pub struct FileWindow<'a> {
    segment: &'a Segment,
    start: u64,
    bytes: Vec<u8>,
    window_bytes: usize,
    unreadable: Unreadable,
    reads_around: bool,
}

impl<'a> FileWindow<'a> {
    pub fn new(segment: &'a Segment) -> Self {
        Self::sized(segment, WINDOW_BYTES)
    }

    /// Reads so much at once.
    pub fn sized(segment: &'a Segment, window_bytes: usize) -> Self {
        let unreadable = Unreadable::default();
        Self { segment, start: 0, bytes: Vec::new(), window_bytes, unreadable, reads_around: false }
    }

    /// Has what cannot be read read as zeros, instead of failing who asks for it.
    pub fn around_unreadable(self) -> Self {
        Self { reads_around: true, ..self }
    }

    /// What could not be read so far.
    pub fn unreadable(&self) -> &Unreadable {
        &self.unreadable
    }

    /// The frame header at a position, if one of this segment is there.
    pub fn header(&mut self, at: u64) -> io::Result<Option<FrameHeader>> {
        let (store, segment) = (self.segment.header.store, self.segment.number());
        Ok(FrameHeader::decode(self.get(at, FRAME_HEADER_BYTES)?, store, segment))
    }

    /// The frame's records, if all of it is whole.
    pub fn records(&mut self, at: u64, header: &FrameHeader) -> io::Result<Option<Vec<RawRecord<'_>>>> {
        let length = FRAME_HEADER_BYTES + header.body_bytes as usize;
        let header = *header;
        let bytes = self.get(at, length)?;
        if bytes.len() < length {
            return Ok(None);
        }
        Ok(format::records(&header, bytes))
    }

    pub fn get(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        let have = self.start + self.bytes.len() as u64;
        if at < self.start || at + length as u64 > have {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.resize(length.max(self.window_bytes), 0);
            let read = self.segment.read_around(&mut bytes, at, &mut self.unreadable)?;
            bytes.truncate(read);
            (self.start, self.bytes) = (at, bytes);
        }
        if !self.reads_around {
            self.unreadable.check(&self.segment.path, at..at + length as u64)?;
        }
        let from = ((at - self.start) as usize).min(self.bytes.len());
        let to = (from + length).min(self.bytes.len());
        Ok(&self.bytes[from..to])
    }

    /// The first frame header in the segment.
    pub fn first_header(&mut self) -> io::Result<Option<FrameHeader>> {
        match self.header(SEGMENT_HEADER_BYTES)? {
            Some(header) => Ok(Some(header)),
            None => Ok(self.next_header(SEGMENT_HEADER_BYTES, 0)?.map(|(_, header)| header)),
        }
    }

    /// The frame at a position, if all of it is whole.
    fn whole(&mut self, at: u64) -> io::Result<Option<(FrameHeader, Vec<RawRecord<'_>>)>> {
        let Some(header) = self.header(at)? else { return Ok(None) };
        Ok(self.records(at, &header)?.map(|records| (header, records)))
    }

    /// The next frame header behind a position whose number is above `last_frame`.
    pub fn next_header(&mut self, from: u64, last_frame: u64) -> io::Result<Option<(u64, FrameHeader)>> {
        let mut at = from + ALIGNMENT;
        while self.get(at, FRAME_HEADER_BYTES)?.len() == FRAME_HEADER_BYTES {
            match self.header(at)? {
                Some(header) if header.frame > last_frame => return Ok(Some((at, header))),
                _ => at += ALIGNMENT,
            }
        }
        Ok(None)
    }

    /// The frame that begins at a position or, when damage is there, the next one whose number is above `last_frame`;
    /// none that begins at `end` or behind it. What is reported of damage is recovery's and the scrub's to report.
    pub fn frame(&mut self, at: u64, end: u64, last_frame: u64) -> io::Result<Option<(u64, FrameHeader)>> {
        if at >= end {
            return Ok(None);
        }
        if let Some(header) = self.header(at)? {
            return Ok(Some((at, header)));
        }
        Ok(self.next_header(at, last_frame)?.filter(|(next, _)| *next < end))
    }

    /// How far it is from a position to a frame of what the file was before it was recycled, or to the file's end.
    fn bytes_to_former(&mut self, at: u64) -> io::Result<usize> {
        let (store, mut length) = (self.segment.header.store, ALIGNMENT as usize);
        while length < TORN_BYTES_MAX {
            let head = self.get(at + length as u64, FRAME_HEADER_BYTES)?;
            if head.is_empty() || FrameHeader::decode_any(head, store).is_some() {
                break;
            }
            length += ALIGNMENT as usize;
        }
        Ok(length)
    }

    /// What is left of a torn frame, if anything was written there.
    fn torn(&mut self, at: u64) -> io::Result<Option<Vec<u8>>> {
        let length = match self.header(at)? {
            Some(header) => FRAME_HEADER_BYTES + header.body_bytes as usize,
            // Its header may be all that is damaged or did not reach the disk, and then nothing says how long it is.
            None => self.bytes_to_former(at)?,
        };
        let bytes = self.get(at, length)?;
        let used =
            bytes.iter().rposition(|byte| *byte != 0).map(|last| format::aligned(last as u64 + 1) as usize);
        Ok(used.map(|used| bytes[..used.min(bytes.len())].to_vec()))
    }
}
