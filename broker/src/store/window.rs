//! The duplicate window: which keys were seen lately, in less than twelve bytes an entry.
//!
//! A [`Window`] holds a fingerprint for each offset; that is all a snapshot needs. The writer's [`Twins`] adds a hash
//! table of offsets to find them by. Neither holds a key: a hit is confirmed with the digests in the log, so a false one
//! costs a read and nothing else. Entries fall out one by one as others come, so nothing is ever rebuilt at full size.

use std::collections::VecDeque;
use std::io;

use super::Offset;
use super::record::Digest;
use super::stream::{Input, invalid};

/// How far back a duplicate is noticed: whichever of the two ends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    pub window_ms: u64,
    pub entries: usize,
}

/// The floor by time moves in steps of this, or of one in [`MARKS_MAX`] of a long window.
const MARK_MS_MIN: u64 = 500;
const MARKS_MAX: u64 = 4096;
/// Fingerprints that are kept together.
const PIECE: u64 = 4096;

/// Fingerprints by offset, from the floor on.
#[derive(Clone, Debug)]
pub struct Window {
    size: WindowSize,
    /// The first one begins at `start`; 0 stands for an offset without an entry.
    pieces: VecDeque<Box<[u32]>>,
    start: u64,
    next: Offset,
    floor: Offset,
    /// When offsets were received, one mark each step.
    marks: VecDeque<(u64, Offset)>,
}

impl Window {
    pub fn new(size: WindowSize) -> Self {
        let (pieces, marks) = (VecDeque::new(), VecDeque::new());
        Self { size, pieces, start: 0, next: Offset(0), floor: Offset(0), marks }
    }

    pub fn size(&self) -> WindowSize {
        self.size
    }

    /// Enters an event; offsets come in order.
    pub fn insert(&mut self, key: &Digest, offset: Offset, received_ms: u64) {
        self.push(key, offset, received_ms);
        self.forget_below(self.floor);
    }

    /// Retention must not cut at or above this.
    pub fn floor(&self, now_ms: u64) -> Offset {
        self.floor.max(self.floor_by_time(now_ms))
    }

    fn push(&mut self, key: &Digest, offset: Offset, received_ms: u64) {
        self.advance(offset.next(), received_ms);
        self.put(offset, fingerprint(key));
    }

    fn put(&mut self, offset: Offset, fingerprint: u32) {
        let end = self.start + self.pieces.len() as u64 * PIECE;
        if self.pieces.is_empty() || offset.0 >= end + self.size.entries as u64 {
            // Nothing before it is in the window.
            self.pieces.clear();
            self.start = offset.0 - offset.0 % PIECE;
        }
        let Some(at) = offset.0.checked_sub(self.start) else { return };
        while at >= self.pieces.len() as u64 * PIECE {
            self.pieces.push_back(vec![0; PIECE as usize].into_boxed_slice());
        }
        if let Some(piece) = self.pieces.get_mut((at / PIECE) as usize) {
            piece[(at % PIECE) as usize] = fingerprint;
        }
    }

    /// The fingerprint of an offset; 0 when there is none.
    fn get(&self, offset: Offset) -> u32 {
        let Some(at) = offset.0.checked_sub(self.start) else { return 0 };
        self.pieces.get((at / PIECE) as usize).map_or(0, |piece| piece[(at % PIECE) as usize])
    }

    fn forget_below(&mut self, offset: Offset) {
        while self.start + PIECE <= offset.0 && self.pieces.pop_front().is_some() {
            self.start += PIECE;
        }
    }

    fn advance(&mut self, next: Offset, received_ms: u64) {
        self.next = next;
        let step = MARK_MS_MIN.max(self.size.window_ms / MARKS_MAX);
        if self.marks.back().is_none_or(|(at, _)| received_ms >= at + step) {
            self.marks.push_back((received_ms, Offset(next.0 - 1)));
        }
        while self.marks.get(1).is_some_and(|(at, _)| at + self.size.window_ms < received_ms) {
            let offset = self.marks[1].1;
            self.marks.pop_front();
            self.floor = self.floor.max(offset);
        }
        self.floor = self.floor.max(Offset(next.0.saturating_sub(self.size.entries as u64)));
        while self.marks.get(1).is_some_and(|(_, offset)| *offset <= self.floor) {
            self.marks.pop_front();
        }
    }

    fn floor_by_time(&self, now_ms: u64) -> Offset {
        let expired = self.marks.partition_point(|(at, _)| at + self.size.window_ms < now_ms);
        let step = MARK_MS_MIN.max(self.size.window_ms / MARKS_MAX);
        // What came before the last expired mark has expired; behind it only reading the record can tell, unless even
        // what would have made a mark of its own had expired.
        if self.marks.back().is_some_and(|(at, _)| at + step + self.size.window_ms < now_ms) {
            return self.next;
        }
        if expired == 0 { Offset(0) } else { self.marks[expired - 1].1 }
    }

    /// Entries from the floor on, oldest first.
    fn entries(&self) -> impl Iterator<Item = (u32, Offset)> {
        let pieces = self.pieces.iter().flat_map(|piece| piece.iter().copied());
        let entries = pieces.zip(self.start..).map(|(fingerprint, offset)| (fingerprint, Offset(offset)));
        entries.filter(|(fingerprint, offset)| *fingerprint != 0 && *offset >= self.floor)
    }

    pub fn encode_into(&self, put: &mut dyn FnMut(&[u8])) {
        let count = self.entries().count() as u64;
        for number in [self.next.0, self.floor.0, self.marks.len() as u64, count] {
            put(&number.to_le_bytes());
        }
        for (at, offset) in &self.marks {
            put(&at.to_le_bytes());
            put(&offset.0.to_le_bytes());
        }
        for (fingerprint, offset) in self.entries() {
            put(&fingerprint.to_le_bytes());
            put(&(offset.0 as u32).to_le_bytes());
        }
    }

    pub fn decode(input: &mut Input<'_>, size: WindowSize) -> io::Result<Self> {
        let (next, floor, marks) = (input.u64()?, input.u64()?, input.count(16)?);
        let count = input.u64()?;
        let mut window = Self::new(size);
        window.next = Offset(next);
        window.floor = Offset(floor.max(next.saturating_sub(size.entries as u64)));
        for _ in 0..marks {
            window.marks.push_back((input.u64()?, Offset(input.u64()?)));
        }
        // Entries may come in any order: the first piece must stand below all of them.
        window.start = window.floor.0 - window.floor.0 % PIECE;
        if window.floor.0 < next {
            window.pieces.push_back(vec![0; PIECE as usize].into_boxed_slice());
        }
        for _ in 0..count {
            let (fingerprint, low) = (input.u32()?, input.u32()?);
            // The offset nearest below `next` with these low bits.
            let below = (next as u32).wrapping_sub(1).wrapping_sub(low);
            let offset = next.checked_sub(1 + u64::from(below)).map(Offset);
            let offset = offset.ok_or_else(|| invalid("an entry of the window is behind its end"))?;
            if offset >= window.floor {
                window.put(offset, fingerprint);
            }
        }
        Ok(window)
    }
}

fn fingerprint(key: &Digest) -> u32 {
    u32::from_le_bytes([key.0[0], key.0[1], key.0[2], key.0[3]]).max(1)
}

const SLOTS_MIN: usize = 1 << 10;
/// So many entries with one fingerprint are found again, the newest: events that are not held to be duplicates may all
/// have one key, and must not make a search long.
const ALIKE_MAX: usize = 4;

/// The window of the writer, which looks keys up: an open-addressing table of offsets beside the fingerprints.
#[derive(Debug)]
pub struct Twins {
    window: Window,
    /// 0 where nothing is, else an offset as [`to_slot`] makes it.
    slots: Vec<u32>,
    used: usize,
    /// Entries below are not in the table any more. Expired ones are taken out few at a time.
    tail: Offset,
}

impl Twins {
    pub fn new(window: Window) -> Self {
        let tail = window.floor;
        let mut twins = Self { window, slots: Vec::new(), used: 0, tail };
        let entries = twins.window.entries().count();
        twins.resize(slots_for(entries).max(SLOTS_MIN));
        twins
    }

    pub fn size(&self) -> WindowSize {
        self.window.size
    }

    /// Enters an event; offsets come in order.
    pub fn insert(&mut self, key: &Digest, offset: Offset, received_ms: u64) {
        self.window.push(key, offset, received_ms);
        // Two go for one that comes, so the table is never larger than the window.
        for _ in 0..2 {
            if self.tail < self.window.floor {
                self.remove(self.tail);
                self.tail = self.tail.next();
            }
        }
        if self.window.start > self.tail.0 {
            // A hole in the log as wide as the window.
            self.tail = self.window.floor.max(Offset(self.window.start));
            self.resize(SLOTS_MIN);
            return;
        }
        self.window.forget_below(self.tail);
        if slots_for(self.used + 1) > self.slots.len() {
            let most = slots_for(self.window.size.entries + 1).max(SLOTS_MIN);
            self.resize((self.slots.len() * 2).min(most));
        } else if offset >= self.tail {
            self.place(offset);
        }
    }

    /// Offsets within the window whose key may be this one, newest first.
    pub fn candidates(&self, key: &Digest, now_ms: u64) -> Vec<Offset> {
        let fingerprint = fingerprint(key);
        let floor = self.window.floor(now_ms);
        let mut found: Vec<Offset> = self
            .run(self.home(fingerprint))
            .map(|(_, offset)| offset)
            .filter(|offset| *offset >= floor && self.window.get(*offset) == fingerprint)
            .collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found
    }

    /// Makes the table anew in another size, of all that the window holds. The old one goes first.
    fn resize(&mut self, slots: usize) {
        self.slots = Vec::new();
        self.slots = vec![0; slots];
        self.used = 0;
        for offset in (self.tail.0..self.window.next.0).map(Offset) {
            if self.window.get(offset) != 0 {
                self.place(offset);
            }
        }
    }

    fn place(&mut self, offset: Offset) {
        let fingerprint = self.window.get(offset);
        let (mut alike, mut oldest, mut end) = (0, (usize::MAX, offset), self.home(fingerprint));
        for (at, known) in self.run(end) {
            end = self.after(at);
            if self.window.get(known) == fingerprint {
                alike += 1;
                if known < oldest.1 {
                    oldest = (at, known);
                }
            }
        }
        if alike >= ALIKE_MAX {
            self.slots[oldest.0] = to_slot(offset);
        } else {
            self.slots[end] = to_slot(offset);
            self.used += 1;
        }
    }

    fn remove(&mut self, offset: Offset) {
        let home = self.home(self.window.get(offset));
        let Some((mut hole, _)) = self.run(home).find(|(_, known)| *known == offset) else { return };
        // What stands behind it moves up as long as that brings it no nearer to its home than it may be.
        let mut at = self.after(hole);
        while self.slots[at] != 0 {
            let home = self.home(self.window.get(self.offset(self.slots[at])));
            let distance = |from: usize, to: usize| (to + self.slots.len() - from) % self.slots.len();
            if distance(home, at) >= distance(hole, at) {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = self.after(at);
        }
        self.slots[hole] = 0;
        self.used -= 1;
    }

    /// The slots from one on up to the next free one, and what they hold.
    fn run(&self, start: usize) -> impl Iterator<Item = (usize, Offset)> {
        let (behind, before) = (self.slots[start..].iter().zip(start..), self.slots[..start].iter().zip(0..));
        let taken = behind.chain(before).take_while(|(slot, _)| **slot != 0);
        taken.map(|(slot, at)| (at, self.offset(*slot)))
    }

    /// Fingerprints are spread evenly, being the first bytes of a cryptographic hash.
    fn home(&self, fingerprint: u32) -> usize {
        ((u64::from(fingerprint) * self.slots.len() as u64) >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// The offset nearest below the end that makes this slot.
    fn offset(&self, slot: u32) -> Offset {
        let last = self.window.next.0.saturating_sub(1);
        let back = (last % SLOT_CYCLE + SLOT_CYCLE - u64::from(slot - 1)) % SLOT_CYCLE;
        Offset(last.saturating_sub(back))
    }
}

/// A table is at most three fifths full.
fn slots_for(entries: usize) -> usize {
    entries * 5 / 3 + 1
}

const SLOT_CYCLE: u64 = u32::MAX as u64;

fn to_slot(offset: Offset) -> u32 {
    (offset.0 % SLOT_CYCLE) as u32 + 1
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::super::disk::Disk;
    use super::super::stream::Output;
    use super::super::tests::disk::SimDisk;
    use super::*;

    fn key(n: u64) -> Digest {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(&n.to_le_bytes()).as_bytes()[..16]);
        Digest(bytes)
    }

    fn filled(count: u64, size: WindowSize) -> Twins {
        let mut twins = Twins::new(Window::new(size));
        (0..count).for_each(|n| twins.insert(&key(n), Offset(n), n));
        twins
    }

    fn again(window: &Window, size: WindowSize) -> Window {
        let file = SimDisk::new().create(Path::new("/window")).unwrap();
        let mut output = Output::new(&*file, 0);
        window.encode_into(&mut |bytes| output.put(bytes));
        output.finish().unwrap();
        Window::decode(&mut Input::new(&*file, 0).unwrap(), size).unwrap()
    }

    #[test]
    fn a_key_within_the_window_is_found_and_an_older_one_is_not() {
        let twins = filled(30_000, WindowSize { window_ms: 1 << 40, entries: 10_000 });
        assert!((20_000..30_000).all(|n| twins.candidates(&key(n), 0).contains(&Offset(n))));
        assert!((0..20_000).all(|n| !twins.candidates(&key(n), 0).contains(&Offset(n))));
    }

    #[test]
    fn time_ends_the_window_too() {
        let twins = filled(10_000, WindowSize { window_ms: 2_000, entries: 1 << 20 });
        assert_eq!(twins.candidates(&key(9_000), 9_999), [Offset(9_000)]);
        assert_eq!(twins.candidates(&key(6_000), 9_999), []);
        // Behind the last mark that has expired only the record can tell: see `floor_by_time`.
        assert_eq!(twins.candidates(&key(8_500), 13_000), []);
    }

    #[test]
    fn an_entry_takes_less_than_twelve_bytes_and_a_full_window_does_not_grow() {
        let size = WindowSize { window_ms: 1 << 40, entries: 1_000_000 };
        let mut twins = filled(1_000_000, size);
        let bytes = |twins: &Twins| {
            let pieces = twins.window.pieces.len() * PIECE as usize * 4;
            pieces + twins.window.pieces.capacity() * 16 + twins.slots.capacity() * 4
        };
        let full = bytes(&twins);
        assert!(full < 12 * size.entries, "{full} bytes");
        (1_000_000..1_500_000).for_each(|n| twins.insert(&key(n), Offset(n), n));
        assert!(bytes(&twins) <= full + 4 * PIECE as usize, "{} bytes", bytes(&twins));
        assert!(twins.used <= size.entries);
    }

    #[test]
    fn a_window_reads_as_it_was_written_and_goes_on() {
        let size = WindowSize { window_ms: 1 << 40, entries: 5_000 };
        let mut twins = Twins::new(again(&filled(8_000, size).window, size));
        assert!((3_000..8_000).all(|n| twins.candidates(&key(n), 0) == [Offset(n)]));
        (8_000..20_000).for_each(|n| twins.insert(&key(n), Offset(n), n));
        assert!((15_000..20_000).all(|n| twins.candidates(&key(n), 0) == [Offset(n)]));
        let smaller = WindowSize { entries: 10, ..size };
        let twins = Twins::new(again(&twins.window, smaller));
        assert!(twins.candidates(&key(19_989), 0).is_empty());
        assert_eq!(twins.candidates(&key(19_990), 0), [Offset(19_990)]);
    }

    /// Against a map: keys that come again, times that stand still and jump, holes of any width, restarts.
    #[test]
    fn a_window_is_a_bounded_map() {
        for seed in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed);
            let size = WindowSize { window_ms: 3_000, entries: random.usize(1..6_000) };
            let mut twins = Twins::new(Window::new(size));
            let (mut model, mut next, mut now_ms) =
                (HashMap::new(), random.u64(0..3) * u64::from(u32::MAX), 0);
            for _ in 0..random.usize(0..20_000) {
                match random.u32(0..3_000) {
                    0 => next += random.u64(0..20_000),
                    1 => now_ms += random.u64(0..5_000),
                    2 => twins = Twins::new(again(&twins.window, size)),
                    _ => now_ms += random.u64(0..2),
                }
                let n = random.u64(0..4_000) + seed * 10_000;
                twins.insert(&key(n), Offset(next), now_ms);
                model.insert(n, (Offset(next), now_ms));
                next += 1;
            }
            for (n, (offset, at)) in model {
                let is_within = offset.0 + size.entries as u64 >= next && at + size.window_ms >= now_ms;
                let found = twins.candidates(&key(n), now_ms);
                assert!(!is_within || found.first() == Some(&offset), "seed {seed}: {offset} in {found:?}");
                let is_long_gone = offset.0 + (size.entries as u64) < next;
                assert!(!is_long_gone || !found.contains(&offset), "seed {seed}: {offset} in {found:?}");
            }
        }
    }

    #[test]
    fn many_events_with_one_key_make_no_search_long() {
        let size = WindowSize { window_ms: 1 << 40, entries: 100_000 };
        let mut twins = Twins::new(Window::new(size));
        (0..90_000).for_each(|n| twins.insert(&key(7), Offset(n), n));
        assert_eq!(twins.candidates(&key(7), 0).first(), Some(&Offset(89_999)));
        assert_eq!(twins.used, ALIKE_MAX);
        (90_000..400_000).for_each(|n| twins.insert(&key(n), Offset(n), n));
        assert!((300_000..400_000).all(|n| twins.candidates(&key(n), 0).contains(&Offset(n))));
    }
}
