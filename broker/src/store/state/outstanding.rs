//! Deliveries that are not settled, in sixteen bytes each.

use std::collections::VecDeque;

use crate::store::Offset;
use crate::store::record::{Attempted, Next};

/// An outstanding delivery in sixteen bytes.
///
/// Of its offset there are 48 bits: at a million events a second they last for nine years. Times are hundredths of a
/// second: 36 bits for the first attempt since the base, which is 21 years, five of them before the store was made, and 28
/// for the next one, see [`put_wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    offset_high: u16,
    pub attempts: u16,
    offset_low: u32,
    /// Of one number: the first attempt since the base plus one, pauses left out (0 before it), and how long after it
    /// the next one is due (0 when it may go at once).
    times: [u32; 2],
}

impl Slot {
    pub fn new(offset: Offset) -> Self {
        debug_assert!(offset.0 >> 48 == 0, "{offset}");
        Self { offset_high: (offset.0 >> 32) as u16, attempts: 0, offset_low: offset.0 as u32, times: [0; 2] }
    }

    pub fn offset(&self) -> Offset {
        Offset(u64::from(self.offset_high) << 32 | u64::from(self.offset_low))
    }

    /// When the next attempt may start, in milliseconds since 1970.
    pub fn due_ms(&self, base_ms: u64) -> u64 {
        match self.times() {
            (0, _) | (_, 0) => 0,
            (first, wait) => base_ms + (first - 1 + take_wait(wait)) * 10,
        }
    }

    /// When the first attempt was made, on the clock that stands still while the trigger is paused.
    pub fn first_ms(&self, base_ms: u64) -> Option<u64> {
        let (first, _) = self.times();
        (first != 0).then(|| base_ms + (first - 1) * 10)
    }

    /// Notes when it is tried again, if it is.
    pub(super) fn retry(&mut self, attempted: &Attempted, base_ms: u64, paused_total_ms: u64) {
        let Next::RetryAt { begun_ms, due_ms } = attempted.next else { return };
        let (mut first, _) = self.times();
        if first == 0 {
            first = begun_ms.saturating_sub(base_ms + paused_total_ms) / 10 + 1;
        }
        self.attempts = u16::try_from(attempted.attempt).unwrap_or(u16::MAX);
        let due = due_ms.saturating_sub(base_ms).div_ceil(10);
        self.set_times(first, put_wait(due.saturating_sub(first - 1).max(1)));
    }

    fn times(&self) -> (u64, u64) {
        let both = u64::from(self.times[0]) << 32 | u64::from(self.times[1]);
        (both >> WAIT_BITS, both & WAIT_MAX)
    }

    fn set_times(&mut self, first: u64, wait: u64) {
        let both = first.min(u64::MAX >> WAIT_BITS) << WAIT_BITS | wait;
        self.times = [(both >> 32) as u32, both as u32];
    }

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let high = u32::from(self.offset_high);
        let parts = [high, self.offset_low, self.times[0], self.times[1], u32::from(self.attempts)];
        let mut bytes = [0; Self::BYTES];
        for (to, part) in bytes.chunks_exact_mut(4).zip(parts) {
            to.copy_from_slice(&part.to_le_bytes());
        }
        bytes
    }

    /// In a snapshot.
    pub(super) const BYTES: usize = 20;

    pub(super) fn decode(bytes: [u8; Self::BYTES]) -> Self {
        let part = |at: usize| {
            u32::from_le_bytes([bytes[at * 4], bytes[at * 4 + 1], bytes[at * 4 + 2], bytes[at * 4 + 3]])
        };
        let times = [part(2), part(3)];
        Self { offset_high: part(0) as u16, attempts: part(4) as u16, offset_low: part(1), times }
    }

    /// From a snapshot of version 1: 32 bits for each, both since the base.
    pub(super) fn decode_version_1(bytes: [u8; Self::BYTES]) -> Self {
        let mut slot = Self::decode(bytes);
        let [first, due] = slot.times.map(u64::from);
        let wait = if due == 0 { 0 } else { put_wait(due.saturating_sub(first.saturating_sub(1)).max(1)) };
        slot.set_times(first, wait);
        slot
    }
}

const WAIT_BITS: u32 = 28;
const WAIT_MAX: u64 = (1 << WAIT_BITS) - 1;
const IS_LONG: u64 = 1 << (WAIT_BITS - 1);
const LONG_UNIT: u64 = 128;

/// A wait in hundredths of a second: exact up to fifteen days, from then on in steps of a second and a quarter, for five
/// years.
fn put_wait(wait: u64) -> u64 {
    if wait < IS_LONG { wait } else { IS_LONG | wait.div_ceil(LONG_UNIT).min(IS_LONG - 1) }
}

fn take_wait(bits: u64) -> u64 {
    if bits & IS_LONG == 0 { bits } else { (bits & (IS_LONG - 1)) * LONG_UNIT }
}

/// Slots that are kept together.
const PIECE_SLOTS: usize = 256;

/// Outstanding deliveries of one trigger in log order, in pieces: there is never more than one piece of unused room at
/// the end, and to grow is to add a piece, not to copy all there is.
#[derive(Clone, Debug, Default)]
pub struct Outstanding {
    /// None is empty; offsets go up within and from one to the next.
    pieces: VecDeque<Vec<Slot>>,
    len: usize,
}

impl Outstanding {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn first(&self) -> Option<Offset> {
        self.pieces.front().and_then(|piece| piece.first()).map(Slot::offset)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.pieces.iter().flatten()
    }

    /// Those at or behind an offset, in log order.
    pub fn iter_from(&self, offset: Offset) -> impl Iterator<Item = &Slot> {
        let (piece, at) = self.seek(offset);
        let rest = self.pieces.get(piece).map(|piece| &piece[at..]).unwrap_or_default();
        rest.iter().chain(self.pieces.iter().skip(piece + 1).flatten())
    }

    pub fn get(&self, offset: Offset) -> Option<&Slot> {
        let (piece, at) = self.find(offset)?;
        Some(&self.pieces[piece][at])
    }

    /// Adds one; what is known of an offset already stays.
    pub fn push(&mut self, slot: Slot) {
        let (piece, at) = self.seek(slot.offset());
        let Some(found) = self.pieces.get_mut(piece) else {
            // Behind all others.
            match self.pieces.back_mut() {
                Some(last) if last.len() < PIECE_SLOTS => last.push(slot),
                _ => self.pieces.push_back(vec![slot]),
            }
            self.len += 1;
            return;
        };
        if found[at].offset() == slot.offset() {
            return;
        }
        self.len += 1;
        found.insert(at, slot);
        if found.len() > PIECE_SLOTS {
            let behind = found.split_off(PIECE_SLOTS / 2);
            found.shrink_to_fit();
            self.pieces.insert(piece + 1, behind);
        }
    }

    pub(super) fn get_mut(&mut self, offset: Offset) -> Option<&mut Slot> {
        let (piece, at) = self.find(offset)?;
        Some(&mut self.pieces[piece][at])
    }

    pub(in crate::store) fn remove(&mut self, offset: Offset) -> bool {
        let Some((piece, at)) = self.find(offset) else { return false };
        self.len -= 1;
        let found = &mut self.pieces[piece];
        found.remove(at);
        let left = found.len();
        if left == 0 {
            self.pieces.remove(piece);
            if self.pieces.len() * 4 < self.pieces.capacity() {
                self.pieces.shrink_to(self.pieces.len() * 2);
            }
            return true;
        }
        if left * 2 < found.capacity() {
            found.shrink_to(left + left / 4);
        }
        if let Some(next) = self.pieces.get(piece + 1)
            && left + next.len() <= PIECE_SLOTS / 4
            && let Some(next) = self.pieces.remove(piece + 1)
        {
            self.pieces[piece].extend_from_slice(&next);
        }
        true
    }

    fn find(&self, offset: Offset) -> Option<(usize, usize)> {
        let (piece, at) = self.seek(offset);
        let found = self.pieces.get(piece)?;
        (found[at].offset() == offset).then_some((piece, at))
    }

    /// Where the first one at or behind an offset stands; behind the last piece when there is none.
    fn seek(&self, offset: Offset) -> (usize, usize) {
        let is_before = |piece: &Vec<Slot>| piece.last().is_none_or(|last| last.offset() < offset);
        let piece = self.pieces.partition_point(is_before);
        let at =
            self.pieces.get(piece).map_or(0, |piece| piece.partition_point(|slot| slot.offset() < offset));
        (piece, at)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::TriggerId;
    use crate::store::record::DeliveryId;

    const DAY_MS: u64 = 24 * 3600 * 1000;

    fn retried(base_ms: u64, begun_ms: u64, due_ms: u64) -> Slot {
        let offset = Offset((1 << 48) - 1);
        let attempted = Attempted {
            id: DeliveryId { trigger: TriggerId(1), offset, redrive: 0 },
            attempt: 3,
            at_ms: 5,
            duration_ms: 1,
            status: None,
            error: None,
            body: Bytes::new(),
            owes_letter: false,
            next: Next::RetryAt { begun_ms, due_ms },
        };
        let mut slot = Slot::new(offset);
        assert_eq!((slot.due_ms(base_ms), slot.first_ms(base_ms)), (0, None));
        slot.retry(&attempted, base_ms, 0);
        assert_eq!(slot.offset(), offset);
        assert_eq!(Slot::decode(slot.encode()), slot);
        slot
    }

    #[test]
    fn a_store_of_twenty_years_still_knows_when_a_delivery_is_due() {
        assert_eq!(size_of::<Slot>(), 16);
        let base_ms = 1_700_000_000_000;
        for age_days in [0, 1, 400, 600, 20 * 365] {
            let at_ms = base_ms + age_days * DAY_MS + 1230;
            for wait_ms in [10, 1000, 3_600_000, 14 * DAY_MS] {
                let slot = retried(base_ms, at_ms, at_ms + wait_ms);
                assert_eq!(slot.first_ms(base_ms), Some(at_ms), "{age_days} days");
                assert_eq!(slot.due_ms(base_ms), at_ms + wait_ms, "{age_days} days, {wait_ms} ms");
            }
            let due_ms = retried(base_ms, at_ms, at_ms + 400 * DAY_MS).due_ms(base_ms) - at_ms;
            assert!((400 * DAY_MS..400 * DAY_MS + 1300).contains(&due_ms), "{due_ms}");
        }
    }

    #[test]
    fn a_slot_of_a_snapshot_of_version_1_means_the_same() {
        let mut bytes = [0; Slot::BYTES];
        for (to, part) in bytes.chunks_exact_mut(4).zip([1_u32, 7, 101, 350, 2]) {
            to.copy_from_slice(&part.to_le_bytes());
        }
        let slot = Slot::decode_version_1(bytes);
        assert_eq!((slot.offset(), slot.attempts), (Offset((1 << 32) + 7), 2));
        assert_eq!((slot.first_ms(5), slot.due_ms(5)), (Some(1005), 3505));
        bytes[8..].fill(0);
        let slot = Slot::decode_version_1(bytes);
        assert_eq!((slot.first_ms(5), slot.due_ms(5)), (None, 0));
    }
}
