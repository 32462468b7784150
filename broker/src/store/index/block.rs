//! What the index keeps of a stretch of a segment, and its bytes.
//!
//! A block covers some frames. Its `Meta` announces every other value of it, so that a value that is missing is noticed
//! and never taken for "no such event".

use super::super::Offset;
use super::super::fields::{put_number, take_number};
use super::super::format::ALIGNMENT;
use super::super::record::{Heading, LogRecord};

/// A block ends at so many events or bytes of log, whichever comes first. 4096 events make 24 KiB of ids: values stay
/// far below the 128 KiB from which sled 0.34 writes a file for each, which it never syncs.
pub const EVENTS_MAX: usize = 4096;
pub const BYTES_MAX: u64 = 512 << 10;
pub const REFERENCES_MAX: usize = 4096;
/// Distinct types (or sources) of a block that are told apart; with more of them the block is read.
const DISTINCT_MAX: usize = 64;
const ID_ENTRY_BYTES: usize = 6;

/// Frames that say something of these offsets: which triggers they matched, outcomes of their deliveries, or that those
/// were purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub from: Offset,
    /// Inclusive.
    pub to: Offset,
    /// Where the frame begins.
    pub at: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The frames it covers; blocks cut from one frame share them.
    pub at: u64,
    pub end: u64,
    /// The last frame before `at`; 0 when there is none.
    pub frame: u64,
    /// First and last event; none when `count` is 0.
    pub first: u64,
    pub last: u64,
    pub count: u64,
    pub received_min_ms: u64,
    pub received_max_ms: u64,
    /// Offsets that the references reach from and to, and in how many values they stand.
    pub referred_min: u64,
    pub referred_max: u64,
    pub pieces: u64,
    /// Hashes of the types and sources that occur, sorted; `None` when there are too many of them.
    pub types: Option<Vec<u32>>,
    pub sources: Option<Vec<u32>>,
}

impl Meta {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [
            self.at,
            self.end,
            self.frame,
            self.first,
            self.last,
            self.count,
            self.received_min_ms,
            self.received_max_ms,
            self.referred_min,
            self.referred_max,
            self.pieces,
        ] {
            put_number(&mut bytes, number);
        }
        for hashes in [&self.types, &self.sources] {
            put_number(&mut bytes, hashes.as_ref().map_or(0, |hashes| hashes.len() as u64 + 1));
            hashes.iter().flatten().for_each(|hash| put_number(&mut bytes, u64::from(*hash)));
        }
        bytes
    }

    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        Some(Self {
            at: take_number(bytes)?,
            end: take_number(bytes)?,
            frame: take_number(bytes)?,
            first: take_number(bytes)?,
            last: take_number(bytes)?,
            count: take_number(bytes)?,
            received_min_ms: take_number(bytes)?,
            received_max_ms: take_number(bytes)?,
            referred_min: take_number(bytes)?,
            referred_max: take_number(bytes)?,
            pieces: take_number(bytes)?,
            types: take_hashes(bytes)?,
            sources: take_hashes(bytes)?,
        })
    }

    /// Every event of the block.
    pub fn offsets(&self) -> Vec<Offset> {
        if self.count == 0 { Vec::new() } else { (self.first..=self.last).map(Offset).collect() }
    }

    pub fn refers_to(&self, offsets: &[Offset]) -> bool {
        let next = offsets.get(offsets.partition_point(|offset| offset.0 < self.referred_min));
        self.pieces > 0 && next.is_some_and(|offset| offset.0 <= self.referred_max)
    }
}

#[expect(clippy::option_option, reason = "not readable, and too many to list, are two things")]
fn take_hashes(bytes: &mut &[u8]) -> Option<Option<Vec<u32>>> {
    let Some(count) = take_number(bytes)?.checked_sub(1) else { return Some(None) };
    (0..count).map(|_| u32::try_from(take_number(bytes)?).ok()).collect::<Option<Vec<_>>>().map(Some)
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: Offset,
    id: u32,
    ty: u32,
    source: u32,
    received_at_ms: u64,
}

/// Frames on their way into blocks.
#[derive(Debug)]
pub struct Draft {
    at: u64,
    frame: u64,
    entries: Vec<Entry>,
    references: Vec<Reference>,
}

/// A block with all its values, by the kind of their keys.
#[derive(Debug)]
pub struct Block {
    pub meta: Meta,
    pub ids: Vec<u8>,
    pub types: Vec<(u32, Vec<u8>)>,
    pub sources: Vec<(u32, Vec<u8>)>,
    pub references: Vec<Vec<u8>>,
}

impl Draft {
    /// Of the frames from a position on, behind the frame of this number.
    pub fn new(at: u64, frame: u64) -> Self {
        Self { at, frame, entries: Vec::new(), references: Vec::new() }
    }

    pub fn add_event(&mut self, offset: Offset, heading: &Heading<'_>) {
        self.entries.push(Entry {
            offset,
            id: id_hash(heading.source, heading.id),
            ty: hash(heading.ty),
            source: hash(heading.source),
            received_at_ms: heading.received_at_ms,
        });
    }

    /// What a record in the frame at a position says of events.
    pub fn add(&mut self, record: &LogRecord, at: u64) {
        match record {
            LogRecord::Routed(routed) => {
                self.references.push(Reference { from: routed.from, to: routed.to, at });
            }
            LogRecord::Outcomes(attempts) => {
                self.refer(attempts.iter().map(|attempted| attempted.id.offset).collect(), at);
            }
            LogRecord::Purge(purge) => self.refer(purge.ids.iter().map(|id| id.offset).collect(), at),
            _ => {}
        }
    }

    fn refer(&mut self, mut offsets: Vec<Offset>, at: u64) {
        offsets.sort_unstable();
        for offset in offsets {
            match self.references.last_mut() {
                // Neighbours in one frame are one reference.
                Some(last) if last.at == at && last.from <= offset && offset <= last.to.next() => {
                    last.to = last.to.max(offset);
                }
                _ => self.references.push(Reference { from: offset, to: offset, at }),
            }
        }
    }

    pub fn is_full(&self, at: u64) -> bool {
        self.entries.len() >= EVENTS_MAX
            || self.references.len() >= REFERENCES_MAX
            || at - self.at >= BYTES_MAX
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.references.is_empty()
    }

    /// Cuts what was added into blocks: several when one frame holds more than a block does.
    pub fn cut(mut self, end: u64) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut rest = &self.entries[..];
        while let Some(first) = rest.first() {
            let near = rest.partition_point(|entry| entry.offset.0 - first.offset.0 <= u64::from(u16::MAX));
            let (piece, behind) = rest.split_at(near.min(EVENTS_MAX));
            blocks.push(block(piece, (self.at, end), self.frame));
            rest = behind;
        }
        if blocks.is_empty() {
            blocks.push(block(&[], (self.at, end), self.frame));
        }
        self.references.sort_unstable();
        if let Some(first) = blocks.first_mut()
            && !self.references.is_empty()
        {
            first.references =
                self.references.chunks(REFERENCES_MAX).map(|piece| put_references(piece, self.at)).collect();
            first.meta.pieces = first.references.len() as u64;
            first.meta.referred_min = self.references.first().map_or(0, |first| first.from.0);
            first.meta.referred_max = self.references.iter().map(|one| one.to.0).max().unwrap_or(0);
        }
        blocks
    }
}

fn block(entries: &[Entry], (at, end): (u64, u64), frame: u64) -> Block {
    let first = entries.first().map_or(0, |entry| entry.offset.0);
    let (type_hashes, types) = postings(entries, first, |entry| entry.ty);
    let (source_hashes, sources) = postings(entries, first, |entry| entry.source);
    let mut ids: Vec<_> = entries.iter().map(|entry| (entry.id, (entry.offset.0 - first) as u16)).collect();
    ids.sort_unstable();
    let ids = ids.iter().flat_map(|(id, delta)| {
        let (id, delta) = (id.to_be_bytes(), delta.to_be_bytes());
        [id[0], id[1], id[2], id[3], delta[0], delta[1]]
    });
    let meta = Meta {
        at,
        end,
        frame,
        first,
        last: entries.last().map_or(0, |entry| entry.offset.0),
        count: entries.len() as u64,
        received_min_ms: entries.first().map_or(0, |entry| entry.received_at_ms),
        received_max_ms: entries.last().map_or(0, |entry| entry.received_at_ms),
        types: type_hashes,
        sources: source_hashes,
        ..Meta::default()
    };
    Block { meta, ids: ids.collect(), types, sources, references: Vec::new() }
}

type Postings = (Option<Vec<u32>>, Vec<(u32, Vec<u8>)>);

/// The offsets of each value as differences; no bytes when every event has it.
fn postings(entries: &[Entry], first: u64, of: impl Fn(&Entry) -> u32) -> Postings {
    let mut hashes: Vec<u32> = entries.iter().map(&of).collect();
    hashes.sort_unstable();
    hashes.dedup();
    if hashes.len() > DISTINCT_MAX {
        return (None, Vec::new());
    }
    let mut lists = vec![(Vec::new(), first); hashes.len()];
    if hashes.len() > 1 {
        for entry in entries {
            let Ok(slot) = hashes.binary_search(&of(entry)) else { continue };
            let (bytes, before) = &mut lists[slot];
            put_number(bytes, entry.offset.0 - *before);
            *before = entry.offset.0;
        }
    }
    let values = hashes.iter().copied().zip(lists.into_iter().map(|(bytes, _)| bytes)).collect();
    (Some(hashes), values)
}

/// The offsets a posting lists.
pub fn take_posting(meta: &Meta, mut bytes: &[u8]) -> Option<Vec<Offset>> {
    if bytes.is_empty() {
        return Some(meta.offsets());
    }
    let mut offsets = Vec::new();
    let mut before = meta.first;
    while !bytes.is_empty() {
        before = before.checked_add(take_number(&mut bytes)?).filter(|offset| *offset <= meta.last)?;
        offsets.push(Offset(before));
    }
    Some(offsets)
}

/// Offsets that may have an id, ascending; `None` when the value is not this block's.
pub fn take_ids(meta: &Meta, bytes: &[u8], id: u32) -> Option<Vec<Offset>> {
    if bytes.len() as u64 != meta.count * ID_ENTRY_BYTES as u64 {
        return None;
    }
    let (entries, _) = bytes.as_chunks::<ID_ENTRY_BYTES>();
    let hash = |entry: &[u8; ID_ENTRY_BYTES]| u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]);
    let start = entries.partition_point(|entry| hash(entry) < id);
    let found = entries[start..].iter().take_while(|entry| hash(entry) == id);
    let offset = |entry: &[u8; ID_ENTRY_BYTES]| {
        Offset(meta.first + u64::from(u16::from_be_bytes([entry[4], entry[5]])))
    };
    Some(found.map(offset).collect())
}

fn put_references(references: &[Reference], at: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut before = 0;
    for reference in references {
        put_number(&mut bytes, reference.from.0 - before);
        put_number(&mut bytes, reference.to.0 - reference.from.0);
        put_number(&mut bytes, (reference.at - at) / ALIGNMENT);
        before = reference.from.0;
    }
    bytes
}

/// Adds the positions of frames that say something of one of some offsets, which are in order.
pub fn take_references(
    meta: &Meta,
    mut bytes: &[u8],
    offsets: &[Offset],
    found: &mut Vec<u64>,
) -> Option<()> {
    let mut from = 0_u64;
    while !bytes.is_empty() {
        from = from.checked_add(take_number(&mut bytes)?)?;
        let to = from.checked_add(take_number(&mut bytes)?)?;
        let at = meta.at.checked_add(take_number(&mut bytes)?.checked_mul(ALIGNMENT)?)?;
        let next = offsets.get(offsets.partition_point(|offset| offset.0 < from));
        if next.is_some_and(|offset| offset.0 <= to) {
            found.push(at);
        }
    }
    Some(())
}

/// Hashes only choose what is read; every candidate is compared in full.
pub fn hash(text: &str) -> u32 {
    crc32c::crc32c(text.as_bytes())
}

pub fn id_hash(source: &str, id: &str) -> u32 {
    crc32c::crc32c_append(hash(source).rotate_left(7), id.as_bytes())
}
