//! Reads frames in order and tells a torn tail from damage.
//!
//! A frame is only written when the one before it is on disk. So a frame that is not whole and has a whole one with a
//! higher number behind it was on disk and is damaged; without one it is the tail that a crash tore.

use std::io;
use std::sync::Arc;

use super::Offset;
use super::format::{
    self, ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, RawRecord, RecordType, SEGMENT_HEADER_BYTES,
};
use super::segment::Segment;

/// A place between two frames: all up to and including frame `frame` is before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Position {
    pub segment: u64,
    pub at: u64,
    /// The number of the frame before; 0 at the start of the log.
    pub frame: u64,
}

/// A frame that was found whole.
pub struct Found<'a> {
    pub segment: &'a Segment,
    pub at: u64,
    pub header: FrameHeader,
    pub records: Vec<RawRecord<'a>>,
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
}

/// How a scan ended.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    pub frames: u64,
    pub events: u64,
    /// The last whole frame: its segment, where it stands, its header.
    pub last: Option<(u64, u64, FrameHeader)>,
    pub next_offset: Offset,
    /// The last frame is a closing one.
    pub closed: bool,
    /// Bytes behind the last whole frame that are the start of one: segment, position, bytes.
    pub torn: Option<(u64, u64, Vec<u8>)>,
    pub damage: Vec<Damage>,
}

const WINDOW_BYTES: usize = 1 << 20;

/// Reads all frames behind a position. `segments` are all that exist, oldest first.
pub fn scan(
    segments: &[Arc<Segment>],
    from: Position,
    next_offset: Offset,
    visit: &mut dyn FnMut(&Found<'_>) -> io::Result<()>,
) -> io::Result<Ending> {
    let mut ending = Ending { next_offset, ..Ending::default() };
    let mut last_frame = from.frame;
    let mut end_of_last: Option<(&Segment, u64)> = None;
    for segment in segments.iter().filter(|segment| segment.number() >= from.segment) {
        let mut window = FileWindow::new(segment);
        let mut at = if segment.number() == from.segment { from.at } else { SEGMENT_HEADER_BYTES };
        ending.torn = None;
        loop {
            if let Some((header, records)) = window.whole(at)? {
                if header.frame > last_frame {
                    if header.frame > last_frame + 1
                        && let Some((before, end)) =
                            end_of_last.filter(|(before, _)| before.number() != segment.number())
                    {
                        // The end of the segment before, or whole segments, are missing.
                        ending.damage.push(damage(
                            before,
                            end,
                            before.file.len()?,
                            ending.next_offset,
                            &header,
                        ));
                    }
                    ending.closed = records.last().is_some_and(|last| last.kind == RecordType::Close as u8);
                    visit(&Found { segment, at, header, records })?;
                    ending.last = Some((segment.number(), at, header));
                    ending.frames += 1;
                    ending.events += u64::from(header.events);
                    ending.next_offset = ending.next_offset.max(header.end_offset());
                    last_frame = header.frame;
                }
                at += header.span();
                end_of_last = Some((segment, at));
                continue;
            }
            // Behind a closing frame there is nothing to look for, if this is where the log ends.
            let is_last = segments.last().is_some_and(|last| last.number() == segment.number());
            if ending.closed
                && is_last
                && end_of_last.is_some_and(|(last, end)| last.number() == segment.number() && end == at)
            {
                break;
            }
            let Some((position, header)) = window.next_header(at, last_frame)? else {
                ending.torn = window.torn(at)?.map(|bytes| (segment.number(), at, bytes));
                break;
            };
            if header.frame == last_frame + 1 && window.whole(position)?.is_none() {
                // Nothing behind it was ever written: it may be the tail itself, begun a second time.
                ending.torn = window.torn(position)?.map(|bytes| (segment.number(), at, bytes));
                break;
            }
            ending.damage.push(damage(segment, at, position, ending.next_offset, &header));
            at = position;
            end_of_last = Some((segment, at));
            last_frame = header.frame - 1;
        }
    }
    Ok(ending)
}

fn damage(segment: &Segment, start: u64, end: u64, next_offset: Offset, resumed: &FrameHeader) -> Damage {
    let offsets = (next_offset, resumed.first_offset.max(next_offset));
    Damage { file: file_name(segment), segment: segment.number(), start, end, offsets }
}

pub fn file_name(segment: &Segment) -> String {
    segment.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A sliding piece of a segment file.
pub struct FileWindow<'a> {
    segment: &'a Segment,
    start: u64,
    bytes: Vec<u8>,
}

type Records<'a> = (&'a [u8], Vec<RawRecord<'a>>);

impl<'a> FileWindow<'a> {
    pub fn new(segment: &'a Segment) -> Self {
        Self { segment, start: 0, bytes: Vec::new() }
    }

    /// The frame header at a position, if one of this segment is there.
    pub fn header(&mut self, at: u64) -> io::Result<Option<FrameHeader>> {
        let (store, segment) = (self.segment.header.store, self.segment.number());
        Ok(FrameHeader::decode(self.get(at, FRAME_HEADER_BYTES)?, store, segment))
    }

    /// The frame's bytes and records, if all of it is whole.
    pub fn records(&mut self, at: u64, header: &FrameHeader) -> io::Result<Option<Records<'_>>> {
        let length = FRAME_HEADER_BYTES + header.body_bytes as usize;
        let header = *header;
        let bytes = self.get(at, length)?;
        if bytes.len() < length {
            return Ok(None);
        }
        Ok(format::records(&header, bytes).map(|records| (bytes, records)))
    }

    pub fn get(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        let have = self.start + self.bytes.len() as u64;
        if at < self.start || at + length as u64 > have {
            self.bytes.resize(length.max(WINDOW_BYTES), 0);
            let read = self.segment.file.read_at(&mut self.bytes, at)?;
            self.bytes.truncate(read);
            self.start = at;
        }
        let from = ((at - self.start) as usize).min(self.bytes.len());
        let to = (from + length).min(self.bytes.len());
        Ok(&self.bytes[from..to])
    }

    /// The frame at a position, if all of it is whole.
    fn whole(&mut self, at: u64) -> io::Result<Option<(FrameHeader, Vec<RawRecord<'_>>)>> {
        let Some(header) = self.header(at)? else { return Ok(None) };
        Ok(self.records(at, &header)?.map(|(_, records)| (header, records)))
    }

    /// The next frame header behind a position whose number is above `last_frame`.
    fn next_header(&mut self, from: u64, last_frame: u64) -> io::Result<Option<(u64, FrameHeader)>> {
        let mut at = from + ALIGNMENT;
        while self.get(at, FRAME_HEADER_BYTES)?.len() == FRAME_HEADER_BYTES {
            match self.header(at)? {
                Some(header) if header.frame > last_frame => return Ok(Some((at, header))),
                _ => at += ALIGNMENT,
            }
        }
        Ok(None)
    }

    /// What is left of a torn frame, if anything was written there.
    fn torn(&mut self, at: u64) -> io::Result<Option<Vec<u8>>> {
        let length = match self.header(at)? {
            Some(header) => FRAME_HEADER_BYTES + header.body_bytes as usize,
            None => ALIGNMENT as usize,
        };
        let bytes = self.get(at, length)?;
        Ok(bytes.iter().any(|byte| *byte != 0).then(|| bytes.to_vec()))
    }
}
