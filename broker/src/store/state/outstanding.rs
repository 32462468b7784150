//! Deliveries that are not settled, in twenty bytes each.

use std::collections::VecDeque;

use crate::store::Offset;
use crate::store::record::Attempted;

/// An outstanding delivery in twenty bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    offset: [u32; 2],
    /// Hundredths of a second since the base plus one, pauses left out; 0 before the first attempt.
    first: u32,
    /// Hundredths of a second since the base; 0 when it may go at once.
    due: u32,
    pub attempts: u16,
    settled: bool,
}

impl Slot {
    pub fn new(offset: Offset) -> Self {
        Self {
            offset: [(offset.0 >> 32) as u32, offset.0 as u32],
            first: 0,
            due: 0,
            attempts: 0,
            settled: false,
        }
    }

    pub fn offset(&self) -> Offset {
        Offset(u64::from(self.offset[0]) << 32 | u64::from(self.offset[1]))
    }

    /// When the next attempt may start, in milliseconds since 1970.
    pub fn due_ms(&self, base_ms: u64) -> u64 {
        if self.due == 0 { 0 } else { base_ms + u64::from(self.due) * 10 }
    }

    /// When the first attempt was made, on the clock that stands still while the trigger is paused.
    pub fn first_ms(&self, base_ms: u64) -> Option<u64> {
        (self.first != 0).then(|| base_ms + u64::from(self.first - 1) * 10)
    }

    pub(super) fn retry(&mut self, attempted: &Attempted, due_ms: u64, base_ms: u64, paused_total_ms: u64) {
        if self.first == 0 {
            let active = attempted.at_ms.saturating_sub(base_ms + paused_total_ms);
            self.first = hundredths(active).saturating_add(1);
        }
        self.attempts = u16::try_from(attempted.attempt).unwrap_or(u16::MAX);
        self.due = hundredths(due_ms.saturating_sub(base_ms).saturating_add(9)).max(1);
    }

    pub(super) fn encode(&self) -> [u8; 20] {
        let parts = [self.offset[0], self.offset[1], self.first, self.due, u32::from(self.attempts)];
        let mut bytes = [0; 20];
        for (four, part) in bytes.as_chunks_mut().0.iter_mut().zip(parts) {
            *four = part.to_le_bytes();
        }
        bytes
    }

    pub(super) fn decode(bytes: [u8; 20]) -> Self {
        let part = |at: usize| u32::from_le_bytes(bytes.as_chunks().0[at]);
        let (first, due, attempts) = (part(2), part(3), part(4) as u16);
        Self { offset: [part(0), part(1)], first, due, attempts, settled: false }
    }
}

fn hundredths(ms: u64) -> u32 {
    u32::try_from(ms / 10).unwrap_or(u32::MAX)
}

/// Outstanding deliveries of one trigger in log order, in pieces, so that a long backlog grows and shrinks without being
/// copied. Settled ones stay as gravestones until a quarter of their piece are.
#[derive(Clone, Debug, Default)]
pub struct Outstanding {
    pieces: VecDeque<Piece>,
    open: usize,
}

/// Never empty, and its first slot is not settled.
#[derive(Clone, Debug, Default)]
struct Piece {
    slots: VecDeque<Slot>,
    settled: usize,
}

/// Small in tests, so that they cross from piece to piece.
const PIECE_SLOTS: usize = if cfg!(test) { 8 } else { 4096 };

impl Outstanding {
    pub fn len(&self) -> usize {
        self.open
    }

    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    pub fn first(&self) -> Option<Offset> {
        self.pieces.front().and_then(|piece| piece.slots.front()).map(Slot::offset)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.iter_from(Offset(0))
    }

    /// Those at or behind an offset, in log order.
    pub fn iter_from(&self, offset: Offset) -> impl Iterator<Item = &Slot> {
        let first = self.piece(offset);
        let start = self.pieces.get(first).map_or(0, |piece| piece.before(offset));
        let starts = std::iter::once(start).chain(std::iter::repeat(0));
        let slots =
            self.pieces.range(first..).zip(starts).flat_map(|(piece, start)| piece.slots.range(start..));
        slots.filter(|slot| !slot.settled)
    }

    pub fn get(&self, offset: Offset) -> Option<&Slot> {
        let (piece, at) = self.find(offset)?;
        Some(&self.pieces[piece].slots[at])
    }

    pub fn push(&mut self, slot: Slot) {
        let piece = self.piece(slot.offset()).min(self.pieces.len().saturating_sub(1));
        let Some(found) = self.pieces.get_mut(piece) else {
            self.pieces.push_back(Piece { slots: VecDeque::from([slot]), settled: 0 });
            self.open += 1;
            return;
        };
        let at = found.before(slot.offset());
        if let Some(known) = found.slots.get_mut(at).filter(|known| known.offset() == slot.offset()) {
            if known.settled {
                *known = slot;
                found.settled -= 1;
                self.open += 1;
            }
            return;
        }
        if found.slots.len() < PIECE_SLOTS {
            found.slots.insert(at, slot);
        } else if at == PIECE_SLOTS {
            self.pieces.insert(piece + 1, Piece { slots: VecDeque::from([slot]), settled: 0 });
        } else {
            found.sweep();
            if found.slots.len() > PIECE_SLOTS / 2 {
                let behind = Piece { slots: found.slots.split_off(PIECE_SLOTS / 4), settled: 0 };
                self.pieces.insert(piece + 1, behind);
            }
            return self.push(slot);
        }
        self.open += 1;
    }

    pub(super) fn get_mut(&mut self, offset: Offset) -> Option<&mut Slot> {
        let (piece, at) = self.find(offset)?;
        Some(&mut self.pieces[piece].slots[at])
    }

    /// The first piece that ends at or behind an offset.
    fn piece(&self, offset: Offset) -> usize {
        self.pieces.partition_point(|piece| piece.slots.back().is_some_and(|last| last.offset() < offset))
    }

    fn find(&self, offset: Offset) -> Option<(usize, usize)> {
        let piece = self.piece(offset);
        let slots = &self.pieces.get(piece)?.slots;
        let at = slots.binary_search_by_key(&offset, Slot::offset).ok()?;
        (!slots[at].settled).then_some((piece, at))
    }

    pub(in crate::store) fn remove(&mut self, offset: Offset) -> bool {
        let Some((piece, at)) = self.find(offset) else { return false };
        self.open -= 1;
        let found = &mut self.pieces[piece];
        found.slots[at].settled = true;
        found.settled += 1;
        while found.slots.pop_front_if(|slot| slot.settled).is_some() {
            found.settled -= 1;
        }
        if found.slots.is_empty() {
            self.pieces.remove(piece);
            return true;
        }
        if found.settled * 4 > found.slots.len().max(64) {
            found.sweep();
        }
        if found.slots.capacity() > 64 && found.slots.len() * 4 < found.slots.capacity() {
            found.slots.shrink_to(found.slots.len() * 2);
        }
        true
    }
}

impl Piece {
    /// How many slots are before an offset.
    fn before(&self, offset: Offset) -> usize {
        self.slots.partition_point(|slot| slot.offset() < offset)
    }

    /// Takes the gravestones out.
    fn sweep(&mut self) {
        self.slots.retain(|slot| !slot.settled);
        self.settled = 0;
    }
}
