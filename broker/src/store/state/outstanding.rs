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

    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        for part in [self.offset[0], self.offset[1], self.first, self.due, u32::from(self.attempts)] {
            bytes.extend_from_slice(&part.to_le_bytes());
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let part = |at: usize| Some(u32::from_le_bytes(bytes.get(at * 4..at * 4 + 4)?.try_into().ok()?));
        let offset = [part(0)?, part(1)?];
        Some(Self { offset, first: part(2)?, due: part(3)?, attempts: part(4)? as u16, settled: false })
    }
}

fn hundredths(ms: u64) -> u32 {
    u32::try_from(ms / 10).unwrap_or(u32::MAX)
}

/// Outstanding deliveries of one trigger in log order. Settled ones stay as gravestones until a quarter are.
#[derive(Clone, Debug, Default)]
pub struct Outstanding {
    pub(super) slots: VecDeque<Slot>,
    settled: usize,
}

impl Outstanding {
    pub fn len(&self) -> usize {
        self.slots.len() - self.settled
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn first(&self) -> Option<Offset> {
        self.slots.front().map(Slot::offset)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| !slot.settled)
    }

    /// Those at or behind an offset, in log order.
    pub fn iter_from(&self, offset: Offset) -> impl Iterator<Item = &Slot> {
        let start = self.slots.partition_point(|slot| slot.offset() < offset);
        self.slots.range(start..).filter(|slot| !slot.settled)
    }

    pub fn get(&self, offset: Offset) -> Option<&Slot> {
        self.find(offset).map(|at| &self.slots[at])
    }

    pub fn push(&mut self, slot: Slot) {
        match self.slots.back() {
            Some(last) if last.offset() >= slot.offset() => {
                let at = self.slots.partition_point(|known| known.offset() < slot.offset());
                match self.slots.get_mut(at) {
                    Some(known) if known.offset() == slot.offset() => {
                        if known.settled {
                            *known = slot;
                            self.settled -= 1;
                        }
                    }
                    _ => self.slots.insert(at, slot),
                }
            }
            _ => self.slots.push_back(slot),
        }
    }

    pub(super) fn get_mut(&mut self, offset: Offset) -> Option<&mut Slot> {
        self.find(offset).map(|at| &mut self.slots[at])
    }

    pub(super) fn find(&self, offset: Offset) -> Option<usize> {
        let at = self.slots.binary_search_by_key(&offset, Slot::offset).ok()?;
        (!self.slots[at].settled).then_some(at)
    }

    pub(in crate::store) fn remove(&mut self, offset: Offset) -> bool {
        let Some(at) = self.find(offset) else { return false };
        self.slots[at].settled = true;
        self.settled += 1;
        while self.slots.front().is_some_and(|slot| slot.settled) {
            self.slots.pop_front();
            self.settled -= 1;
        }
        if self.settled * 4 > self.slots.len().max(64) {
            self.slots.retain(|slot| !slot.settled);
            self.settled = 0;
        }
        if self.slots.capacity() > 64 && self.slots.len() * 4 < self.slots.capacity() {
            self.slots.shrink_to(self.slots.len() * 2);
        }
        true
    }
}
