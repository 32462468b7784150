//! Reads sealed segments again, slowly, and says where one is damaged or cannot be read: at start only what follows the
//! snapshot is verified.

use std::io;

use super::format::SEGMENT_HEADER_BYTES;
use super::reader::Reader;
use super::scan::{FileWindow, file_name};
use super::segment::Segment;

/// Read in one step; ten steps a second.
const STEP_BYTES: u64 = 1 << 20;

/// One pass over the segments that there are, oldest first.
#[derive(Debug, Default)]
pub struct Scrub {
    segment: u64,
    at: u64,
    last_frame: u64,
    /// Where damage was found: segment, file and position.
    pub damage: Vec<(u64, String, u64)>,
}

impl Scrub {
    /// Verifies the next piece of a sealed segment.
    pub fn step(&mut self, reader: &Reader) {
        let segments = reader.segments();
        // What has been retired is damaged no longer.
        if let Some(first) = segments.first() {
            self.damage.retain(|(segment, ..)| *segment >= first.number());
        }
        let mut sealed = segments.iter().zip(segments.iter().skip(1));
        let Some((segment, next)) = sealed.find(|(segment, _)| segment.number() >= self.segment) else {
            return;
        };
        if segment.number() > self.segment {
            self.begin(segment.number());
        }
        let end = segment.extent().end;
        if let Err(error) = self.verify(segment, next, end) {
            tracing::warn!(%error, "a segment cannot be looked at");
            return;
        }
        if self.at >= end {
            self.begin(segment.number() + 1);
        }
    }

    fn begin(&mut self, segment: u64) {
        (self.segment, self.at, self.last_frame) = (segment, SEGMENT_HEADER_BYTES, 0);
    }

    fn verify(&mut self, segment: &Segment, next: &Segment, end: u64) -> io::Result<()> {
        let mut window = FileWindow::new(segment).around_unreadable();
        let until = end.min(self.at + STEP_BYTES);
        while self.at < until {
            let header = window.header(self.at)?;
            let whole = match &header {
                Some(header) => window.records(self.at, header)?.is_some(),
                None => false,
            };
            if let Some(header) = header.filter(|_| whole) {
                self.at += header.span();
                self.last_frame = header.frame;
                continue;
            }
            let following = window.next_header(self.at, self.last_frame)?;
            let is_unused = following.is_none() && next.header.first_frame <= self.last_frame + 1;
            let (file, at) = (file_name(segment), self.at);
            self.at = following.map_or(end, |(position, _)| position);
            // What a snapshot covers is as long as its file: behind the last frame is unused space.
            if header.is_none() && is_unused || segment.has_given_up(&(at..self.at)) {
                continue;
            }
            let unreadable = window.unreadable().check(&segment.path, at..self.at).err();
            let cause =
                unreadable.map_or_else(|| "not what was written".to_owned(), |error| error.to_string());
            tracing::error!(
                file,
                at,
                cause,
                "the log is damaged: events in this place cannot be read any more"
            );
            self.damage.push((segment.number(), file, at));
        }
        Ok(())
    }

    /// What there is to say of it.
    pub fn problem(&self) -> Option<String> {
        let (_, file, at) = self.damage.first()?;
        Some(format!("{} damaged places in the log, the first in {file} at byte {at}", self.damage.len()))
    }
}
