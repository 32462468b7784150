//! The duplicate window: which keys were seen lately, in about thirteen bytes an entry.
//!
//! Entries are a fingerprint and the low half of an offset. They only say where to look: a hit is confirmed with the
//! digests in the log, so a false one costs a read and nothing else. They stand in runs, open-addressing tables in the
//! order of the log: the newest is filled, and the oldest goes as a whole when all of it lies below the floor. So nothing is
//! ever copied to make room, and a window takes no more memory at one moment than at another.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use super::Offset;
use super::record::Digest;

/// How far back a duplicate is noticed: whichever of the two ends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    pub window_ms: u64,
    pub entries: usize,
}

impl WindowSize {
    /// How many entries a run takes.
    fn run(self) -> usize {
        self.entries.div_ceil(RUNS).max(RUN_MIN)
    }
}

/// A full window is in so many runs, and one more is being filled. Each costs a look-up a line of memory.
const RUNS: usize = 4;
const RUN_MIN: usize = 256;
const SLOTS_MIN: usize = 64;
const ENTRY_BYTES: usize = 8;
/// The floor by time moves in steps of this.
const MARK_MS: u64 = 500;

#[derive(Clone, Debug)]
pub struct Window {
    size: WindowSize,
    /// Oldest first.
    runs: VecDeque<Run>,
    next: Offset,
    floor: Offset,
    /// When offsets were received, one mark each half second.
    marks: VecDeque<(u64, Offset)>,
}

impl Window {
    pub fn new(size: WindowSize) -> Self {
        let (runs, marks) = (VecDeque::new(), VecDeque::new());
        Self { size, runs, next: Offset(0), floor: Offset(0), marks }
    }

    pub fn size(&self) -> WindowSize {
        self.size
    }

    /// Enters an event; offsets come in order.
    pub fn insert(&mut self, key: &Digest, offset: Offset, received_ms: u64) {
        self.advance(offset.next(), received_ms);
        while self.runs.front().is_some_and(|oldest| oldest.end <= self.floor) {
            self.runs.pop_front();
        }
        let entries = self.size.run();
        if self.runs.back().is_none_or(|newest| newest.used >= entries) {
            self.runs.push_back(Run::default());
        }
        if let Some(newest) = self.runs.back_mut() {
            newest.insert(fingerprint(key), offset, entries);
        }
    }

    /// Offsets within the window whose key may be this one, newest first.
    pub fn candidates(&self, key: &Digest, now_ms: u64) -> Vec<Offset> {
        let fingerprint = fingerprint(key);
        let floor = self.floor.max(self.floor_by_time(now_ms));
        let mut found = Vec::new();
        for run in &self.runs {
            found.extend(run.find(fingerprint).map(|low| self.whole(low)));
        }
        found.retain(|offset| *offset >= floor);
        found.sort_unstable_by(|a, b| b.cmp(a));
        found
    }

    /// Retention must not cut at or above this.
    pub fn floor(&self, now_ms: u64) -> Offset {
        self.floor.max(self.floor_by_time(now_ms))
    }

    fn advance(&mut self, next: Offset, received_ms: u64) {
        self.next = next;
        if self.marks.back().is_none_or(|(at, _)| received_ms >= at + MARK_MS) {
            self.marks.push_back((received_ms, Offset(next.0 - 1)));
        }
        while self.marks.get(1).is_some_and(|(at, _)| at + self.size.window_ms < received_ms) {
            let offset = self.marks[1].1;
            self.marks.pop_front();
            self.floor = self.floor.max(offset);
        }
        self.floor = self.floor.max(Offset(next.0.saturating_sub(self.size.entries as u64)));
    }

    fn floor_by_time(&self, now_ms: u64) -> Offset {
        let expired = self.marks.partition_point(|(at, _)| at + self.size.window_ms < now_ms);
        // What came before the last expired mark has expired; behind it only reading the record can tell, unless even
        // what would have made a mark of its own had expired.
        if self.marks.back().is_some_and(|(at, _)| at + MARK_MS + self.size.window_ms < now_ms) {
            return self.next;
        }
        if expired == 0 { Offset(0) } else { self.marks[expired - 1].1 }
    }

    /// The offset nearest below `next` with these low bits.
    fn whole(&self, low: u32) -> Offset {
        let below = (self.next.0 as u32).wrapping_sub(1).wrapping_sub(low);
        Offset(self.next.0.saturating_sub(1).saturating_sub(u64::from(below)))
    }

    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let used: usize = self.runs.iter().map(|run| run.used).sum();
        for number in [self.next.0, self.floor.0, self.marks.len() as u64, used as u64] {
            out.write_all(&number.to_le_bytes())?;
        }
        for (at, offset) in &self.marks {
            out.write_all(&at.to_le_bytes())?;
            out.write_all(&offset.0.to_le_bytes())?;
        }
        for (fingerprint, low) in self.runs.iter().flat_map(Run::entries) {
            out.write_all(&fingerprint.to_le_bytes())?;
            out.write_all(&low.to_le_bytes())?;
        }
        Ok(())
    }

    pub fn decode(input: &mut impl Read, size: WindowSize) -> io::Result<Self> {
        let mut number = || {
            let mut bytes = [0; 8];
            input.read_exact(&mut bytes).map(|()| u64::from_le_bytes(bytes))
        };
        let (next, floor, marks, used) = (number()?, number()?, number()?, number()?);
        let mut window = Self::new(size);
        window.next = Offset(next);
        window.floor = Offset(floor.max(next.saturating_sub(size.entries as u64)));
        for _ in 0..marks {
            let (at, offset) = (number()?, number()?);
            window.marks.push_back((at, Offset(offset)));
        }
        // Entries of a run are in no order: they are dealt out by their offsets.
        let entries = (next.saturating_sub(window.floor.0) as usize).div_ceil(RUNS).max(1);
        let mut runs = vec![Run::default(); RUNS];
        let mut entry = [0; ENTRY_BYTES];
        for _ in 0..used {
            input.read_exact(&mut entry)?;
            let [a, b, c, d, e, f, g, h] = entry;
            let offset = window.whole(u32::from_le_bytes([e, f, g, h]));
            if let Some(within) = offset.0.checked_sub(window.floor.0) {
                let run = &mut runs[(within as usize / entries).min(RUNS - 1)];
                run.insert(u32::from_le_bytes([a, b, c, d]).max(1), offset, entries);
            }
        }
        window.runs = runs.into_iter().filter(|run| run.used > 0).collect();
        Ok(window)
    }
}

/// Entries that follow each other in the log.
#[derive(Clone, Debug, Default)]
struct Run {
    /// (fingerprint, low half of the offset); a fingerprint of 0 is a free slot, and there always is one.
    slots: Vec<(u32, u32)>,
    used: usize,
    /// Above all its offsets.
    end: Offset,
}

impl Run {
    /// Enters one of at most so many entries.
    fn insert(&mut self, fingerprint: u32, offset: Offset, entries: usize) {
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            let wanted = (self.slots.len() * 2).min(entries * 4 / 3 + 2).max(SLOTS_MIN);
            let old = std::mem::replace(&mut self.slots, vec![(0, 0); wanted]);
            for (fingerprint, low) in old.into_iter().filter(|(fingerprint, _)| *fingerprint != 0) {
                self.place(fingerprint, low);
            }
        }
        self.place(fingerprint, offset.0 as u32);
        self.used += 1;
        self.end = self.end.max(offset.next());
    }

    fn place(&mut self, fingerprint: u32, low: u32) {
        if let Some(free) = self.probe(fingerprint).find(|at| self.slots[*at].0 == 0) {
            self.slots[free] = (fingerprint, low);
        }
    }

    /// Low halves of offsets whose key has this fingerprint.
    fn find(&self, fingerprint: u32) -> impl Iterator<Item = u32> {
        let probed = self.probe(fingerprint).map(|at| self.slots[at]);
        let taken = probed.take_while(|(found, _)| *found != 0);
        taken.filter(move |(found, _)| *found == fingerprint).map(|(_, low)| low)
    }

    /// The slots where an entry may stand, in the order in which they are taken.
    fn probe(&self, fingerprint: u32) -> impl Iterator<Item = usize> + use<> {
        // Multiplicative hashing spreads fingerprints that share bits; its upper half is scaled to the table.
        let hash = u64::from(fingerprint).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let slots = self.slots.len();
        let start = ((hash * slots as u64) >> 32) as usize;
        (start..slots).chain(0..start)
    }

    fn entries(&self) -> impl Iterator<Item = (u32, u32)> {
        self.slots.iter().copied().filter(|(fingerprint, _)| *fingerprint != 0)
    }
}

/// Never 0.
fn fingerprint(key: &Digest) -> u32 {
    u32::from_le_bytes([key.0[0], key.0[1], key.0[2], key.0[3]]).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> Digest {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(&n.to_le_bytes()).as_bytes()[..16]);
        Digest(bytes)
    }

    fn filled(count: u64, size: WindowSize) -> Window {
        let mut window = Window::new(size);
        (0..count).for_each(|n| window.insert(&key(n), Offset(n), n));
        window
    }

    #[test]
    fn a_key_within_the_window_is_found_and_an_older_one_is_not() {
        let window = filled(30_000, WindowSize { window_ms: 1 << 40, entries: 10_000 });
        assert!((20_000..30_000).all(|n| window.candidates(&key(n), 0).contains(&Offset(n))));
        assert!((0..20_000).all(|n| !window.candidates(&key(n), 0).contains(&Offset(n))));
    }

    #[test]
    fn time_ends_the_window_too() {
        let window = filled(10_000, WindowSize { window_ms: 2_000, entries: 1 << 20 });
        assert_eq!(window.candidates(&key(9_000), 9_999), [Offset(9_000)]);
        assert_eq!(window.candidates(&key(6_000), 9_999), []);
        // Behind the last mark that has expired only the record can tell: see `floor_by_time`.
        assert_eq!(window.candidates(&key(8_500), 13_000), []);
    }

    #[test]
    fn an_entry_takes_at_most_sixteen_bytes() {
        let window = filled(3_100_000, WindowSize { window_ms: 1 << 40, entries: 1_000_000 });
        let slots: usize = window.runs.iter().map(|run| run.slots.len()).sum();
        assert!(slots * ENTRY_BYTES <= 16 * 1_000_000, "{slots} slots");
    }

    #[test]
    fn a_window_reads_as_it_was_written() {
        let size = WindowSize { window_ms: 1 << 40, entries: 5_000 };
        let window = filled(8_000, size);
        let mut bytes = Vec::new();
        window.write_to(&mut bytes).expect("memory");
        let mut again = Window::decode(&mut &bytes[..], size).expect("whole");
        assert!((3_000..8_000).all(|n| again.candidates(&key(n), 0) == [Offset(n)]));
        (8_000..20_000).for_each(|n| again.insert(&key(n), Offset(n), n));
        assert!((15_000..20_000).all(|n| again.candidates(&key(n), 0) == [Offset(n)]));
        assert!(again.runs.len() <= RUNS + 2, "{} runs", again.runs.len());
    }
}
