//! Reads sealed segments again, slowly, and says where one is damaged: at start only what follows the snapshot is
//! verified.

use std::io;

use super::format::SEGMENT_HEADER_BYTES;
use super::reader::Reader;
use super::scan::{FileWindow, file_name};

/// Read in one step; ten steps a second.
const STEP_BYTES: u64 = 1 << 20;

/// One pass over the segments that there are, oldest first.
#[derive(Debug, Default)]
pub struct Scrub {
    segment: u64,
    at: u64,
    last_frame: u64,
    /// Where damage was found: file and position.
    pub damage: Vec<(String, u64)>,
}

impl Scrub {
    /// Verifies the next piece of a sealed segment.
    pub fn step(&mut self, reader: &Reader) -> io::Result<()> {
        let segments = reader.segments();
        let mut sealed = segments.iter().zip(segments.iter().skip(1));
        let Some((segment, next)) = sealed.find(|(segment, _)| segment.number() >= self.segment) else {
            return Ok(());
        };
        if segment.number() > self.segment {
            (self.segment, self.at, self.last_frame) = (segment.number(), SEGMENT_HEADER_BYTES, 0);
        }
        let (mut window, end) = (FileWindow::new(segment), segment.extent().end);
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
            if header.is_none() && following.is_none() && next.header.first_frame <= self.last_frame + 1 {
                // What a snapshot covers is as long as its file: behind the last frame is unused space.
                self.at = end;
                break;
            }
            let (file, at) = (file_name(segment), self.at);
            tracing::error!(
                file,
                at,
                "the log is damaged here: events in this place cannot be read any more"
            );
            self.damage.push((file, at));
            self.at = following.map_or(end, |(position, _)| position);
        }
        if self.at >= end {
            self.segment += 1;
            self.at = SEGMENT_HEADER_BYTES;
            self.last_frame = 0;
        }
        Ok(())
    }

    /// What there is to say of it.
    pub fn problem(&self) -> Option<String> {
        let (file, at) = self.damage.first()?;
        Some(format!("{} damaged places in the log, the first in {file} at byte {at}", self.damage.len()))
    }
}
