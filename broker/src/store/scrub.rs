//! Reads sealed segments again, slowly, and says where one is damaged or cannot be read: at start only what follows the
//! snapshot is verified.

use std::io;

use super::Offset;
use super::format::SEGMENT_HEADER_BYTES;
use super::reader::Reader;
use super::scan::{Damage, FileWindow, file_name};
use super::segment::Segment;

/// Read in one step; ten steps a second.
const STEP_BYTES: u64 = 1 << 20;

/// One pass over the segments that there are, oldest first.
#[derive(Debug, Default)]
pub struct Scrub {
    segment: u64,
    at: u64,
    last_frame: u64,
    next_offset: Offset,
    pub damage: Vec<Damage>,
}

impl Scrub {
    /// Verifies the next piece of a sealed segment.
    pub fn step(&mut self, reader: &Reader) {
        let segments = reader.segments();
        // What has been retired is damaged no longer.
        if let Some(first) = segments.first() {
            self.damage.retain(|damage| damage.segment >= first.number());
        }
        let mut sealed = segments.iter().zip(segments.iter().skip(1));
        let Some((segment, next)) = sealed.find(|(segment, _)| segment.number() >= self.segment) else {
            return;
        };
        if segment.number() > self.segment {
            self.begin(segment.number());
        }
        self.next_offset = self.next_offset.max(segment.header.first_offset);
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
                self.next_offset = header.end_offset();
                continue;
            }
            let following = window.next_header(self.at, self.last_frame)?;
            let is_unused = following.is_none() && next.header.first_frame <= self.last_frame + 1;
            let start = self.at;
            self.at = following.map_or(end, |(position, _)| position);
            let offsets =
                (self.next_offset, following.map_or(next.header.first_offset, |(_, next)| next.first_offset));
            // What a snapshot covers is as long as its file: behind the last frame is unused space.
            if header.is_none() && is_unused || segment.has_given_up(&(start..self.at)) {
                continue;
            }
            let unreadable = window.unreadable().check(&segment.path, start..self.at).err();
            let damage = Damage {
                file: file_name(segment),
                segment: segment.number(),
                start,
                end: self.at,
                offsets,
                is_unreadable: unreadable.is_some(),
            };
            let cause =
                unreadable.map_or_else(|| "not what was written".to_owned(), |error| error.to_string());
            tracing::error!(
                cause,
                "the log is damaged: {}; `sluice store verify` says what can be done",
                place(&damage)
            );
            self.damage.push(damage);
        }
        Ok(())
    }

    /// What there is to say of it.
    pub fn problem(&self) -> Option<String> {
        let first = place(self.damage.first()?);
        Some(match self.damage.len() {
            1 => format!("the log is damaged: {first}"),
            places => format!("the log is damaged in {places} places, the first: {first}"),
        })
    }
}

fn place(damage: &Damage) -> String {
    let Damage { file, start, end, .. } = damage;
    format!("{file} bytes {start} to {end} ({})", damage.events())
}
