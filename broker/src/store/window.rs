//! The duplicate window: which keys were seen lately, in at most sixteen bytes an entry.
//!
//! An open-addressing table of (fingerprint, low half of the offset). It only says where to look: a hit is confirmed
//! with the digests in the log, so a false one costs a read and nothing else. Entries expire by falling below the
//! floor and are dropped when the table is rebuilt.

use std::collections::VecDeque;

use super::Offset;
use super::record::Digest;

/// How far back a duplicate is noticed: whichever of the two ends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    pub window_ms: u64,
    pub entries: usize,
}

const SLOTS_MIN: usize = 1 << 10;
/// The floor by time moves in steps of this.
const MARK_MS: u64 = 500;

#[derive(Clone, Debug)]
pub struct Window {
    size: WindowSize,
    slots: Vec<(u32, u32)>,
    used: usize,
    next: Offset,
    floor: Offset,
    /// When offsets were received, one mark each half second.
    marks: VecDeque<(u64, Offset)>,
}

impl Window {
    pub fn new(size: WindowSize) -> Self {
        let (slots, marks) = (vec![(0, 0); SLOTS_MIN], VecDeque::new());
        Self { size, slots, used: 0, next: Offset(0), floor: Offset(0), marks }
    }

    pub fn size(&self) -> WindowSize {
        self.size
    }

    /// Enters an event; offsets come in order.
    pub fn insert(&mut self, key: &Digest, offset: Offset, received_ms: u64) {
        self.advance(offset.next(), received_ms);
        if (self.used + 1) * 10 > self.slots.len() * 7 {
            self.rebuild();
        }
        let (fingerprint, start) = split(key);
        self.place(fingerprint, start, offset.0 as u32);
    }

    /// Offsets within the window whose key may be this one, newest first.
    pub fn candidates(&self, key: &Digest, now_ms: u64) -> Vec<Offset> {
        let (fingerprint, start) = split(key);
        let floor = self.floor.max(self.floor_by_time(now_ms));
        let mask = self.slots.len() - 1;
        let mut found = Vec::new();
        for step in 0..self.slots.len() {
            match self.slots[(start + step) & mask] {
                (0, _) => break,
                (found_print, low) if found_print == fingerprint => {
                    let offset = self.whole(low);
                    if offset >= floor && offset < self.next {
                        found.push(offset);
                    }
                }
                _ => {}
            }
        }
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

    fn rebuild(&mut self) {
        let live =
            self.slots.iter().filter(|(print, low)| *print != 0 && self.whole(*low) >= self.floor).count();
        let wanted = ((live + 1) * 2).next_power_of_two().max(SLOTS_MIN);
        // Entries do not hold what their place was computed from but the low bits: rehash by the fingerprint.
        let old = std::mem::replace(&mut self.slots, vec![(0, 0); wanted]);
        self.used = 0;
        for (fingerprint, low) in old {
            if fingerprint != 0 && self.whole(low) >= self.floor {
                self.place(fingerprint, place(fingerprint), low);
            }
        }
    }

    fn place(&mut self, fingerprint: u32, start: usize, low: u32) {
        let mask = self.slots.len() - 1;
        let mut at = start & mask;
        while self.slots[at].0 != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = (fingerprint, low);
        self.used += 1;
    }

    /// The offset nearest below `next` with these low bits.
    fn whole(&self, low: u32) -> Offset {
        let below = (self.next.0 as u32).wrapping_sub(1).wrapping_sub(low);
        Offset(self.next.0.saturating_sub(1).saturating_sub(u64::from(below)))
    }

    pub fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.reserve(self.used * 8 + self.marks.len() * 16 + 32);
        for number in [self.next.0, self.floor.0, self.marks.len() as u64, self.used as u64] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for (at, offset) in &self.marks {
            bytes.extend_from_slice(&at.to_le_bytes());
            bytes.extend_from_slice(&offset.0.to_le_bytes());
        }
        for (fingerprint, low) in self.slots.iter().filter(|(print, _)| *print != 0) {
            bytes.extend_from_slice(&fingerprint.to_le_bytes());
            bytes.extend_from_slice(&low.to_le_bytes());
        }
    }

    pub fn decode(bytes: &[u8], size: WindowSize) -> Option<Self> {
        let mut rest = bytes;
        let mut take = |count: usize| {
            let (taken, after) = rest.split_at_checked(count)?;
            rest = after;
            Some(taken)
        };
        let mut number = || Some(u64::from_le_bytes(take(8)?.try_into().ok()?));
        let (next, floor, marks, used) = (number()?, number()?, number()?, number()?);
        let mut window = Self::new(size);
        window.next = Offset(next);
        window.floor = Offset(floor.max(next.saturating_sub(size.entries as u64)));
        for _ in 0..marks {
            let (at, offset) = (number()?, number()?);
            window.marks.push_back((at, Offset(offset)));
        }
        window.slots = vec![(0, 0); ((used as usize + 1) * 2).next_power_of_two().max(SLOTS_MIN)];
        for entry in rest.chunks_exact(8) {
            let fingerprint = u32::from_le_bytes(entry[..4].try_into().ok()?);
            let low = u32::from_le_bytes(entry[4..].try_into().ok()?);
            if window.whole(low) >= window.floor {
                window.place(fingerprint, place(fingerprint), low);
            }
        }
        Some(window)
    }
}

/// A fingerprint (never 0) and where its entry would stand.
fn split(key: &Digest) -> (u32, usize) {
    let fingerprint = u32::from_le_bytes([key.0[0], key.0[1], key.0[2], key.0[3]]).max(1);
    (fingerprint, place(fingerprint))
}

/// Multiplicative hashing spreads fingerprints that share low bits.
fn place(fingerprint: u32) -> usize {
    (u64::from(fingerprint).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
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
        let window = filled(1_000_000, WindowSize { window_ms: 1 << 40, entries: 1_000_000 });
        assert!(window.slots.len() * 8 <= 16 * (1 << 20), "{} slots", window.slots.len());
    }

    #[test]
    fn a_window_reads_as_it_was_written() {
        let size = WindowSize { window_ms: 1 << 40, entries: 5_000 };
        let window = filled(8_000, size);
        let mut bytes = Vec::new();
        window.encode_into(&mut bytes);
        let again = Window::decode(&bytes, size).expect("whole");
        assert!((3_000..8_000).all(|n| again.candidates(&key(n), 0) == [Offset(n)]));
    }
}
