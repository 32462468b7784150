//! What the records add up to for one trigger.

use std::collections::{BTreeMap, BTreeSet};

use super::{Outstanding, Paused, Slot};
use crate::store::Offset;
use crate::store::record::{Attempted, DeliveryId, Gap, Next};

/// How events of a trigger came out: `seen = matched + unmatched + lost` events since its birth, and
/// `matched = delivered + dead + purged + pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Books {
    pub matched: u64,
    pub unmatched: u64,
    pub delivered: u64,
    pub dead: u64,
    pub purged: u64,
    pub lost: u64,
}

impl Books {
    /// Events routed since the trigger's birth.
    pub fn seen(&self) -> u64 {
        self.matched + self.unmatched + self.lost
    }

    pub fn pending(&self) -> u64 {
        self.matched.saturating_sub(self.delivered + self.dead + self.purged)
    }
}

#[derive(Clone, Debug, Default)]
pub struct TriggerState {
    pub birth: Offset,
    /// Without `unmatched`, which [`State::books`] works out.
    pub(super) books: Books,
    pub(super) routing: RoutingCount,
    pub outstanding: Outstanding,
    /// Events before the trigger's first appearance that it is still to see: `start: earliest`.
    pub history: Option<(Offset, Offset)>,
    /// Redriven deliveries, outside the order of the log.
    pub redriven: BTreeMap<(Offset, u32), Slot>,
    /// Set when the window is full: matches from this offset on are only on the log.
    pub behind: Option<Offset>,
    /// Above all offsets that matched so far.
    pub matched_to: Offset,
    /// Settlements beyond what `outstanding` has been told of: this run's window is smaller than a former one's.
    pub ahead: BTreeMap<Offset, Option<Slot>>,
    pub paused: Option<Paused>,
    /// Time spent paused, which does not count as age.
    pub paused_total_ms: u64,
    pub last_matched_at_ms: u64,
}

/// What tells how many events a trigger has seen, without touching every trigger for every event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct RoutingCount {
    /// [`State::routed_total`] when the trigger saw its first event.
    pub(super) base: u64,
    /// Events of its history.
    pub(super) history: u64,
    /// How many of both matched.
    pub(super) matched: u64,
}

impl TriggerState {
    /// All below is settled, as far as this trigger has been told; redrives are outside of it.
    pub fn floor(&self, routed_to: Offset) -> Offset {
        let history = self.history.map(|(next, _)| next);
        [self.outstanding.first(), self.behind, history].into_iter().flatten().min().unwrap_or(routed_to)
    }

    /// The oldest event that is not settled.
    pub fn oldest_pending(&self) -> Option<Offset> {
        let redriven = self.redriven.keys().map(|(offset, _)| *offset).next();
        [self.outstanding.first(), redriven, self.behind].into_iter().flatten().min()
    }

    /// Milliseconds that count as age, at a moment.
    pub fn active_ms(&self, now_ms: u64) -> u64 {
        let until = self.paused.as_ref().map_or(now_ms, |paused| paused.at_ms.min(now_ms));
        until.saturating_sub(self.paused_total_ms)
    }

    pub fn slot(&self, id: DeliveryId) -> Option<&Slot> {
        if id.redrive > 0 {
            self.redriven.get(&(id.offset, id.redrive))
        } else {
            self.outstanding.get(id.offset)
        }
    }

    /// Takes a match that the window has room for, with what is already known of it.
    pub fn take_up(&mut self, offset: Offset) {
        match self.ahead.remove(&offset) {
            None => self.outstanding.push(Slot::new(offset)),
            Some(Some(slot)) => self.outstanding.push(slot),
            Some(None) => {}
        }
    }

    pub(super) fn enqueue(&mut self, offset: Offset, room: bool) {
        self.books.matched += 1;
        self.routing.matched += 1;
        // What is matched late, below others, is taken up without room for it: what is behind must be above all that
        // is outstanding.
        let is_newest = offset >= self.matched_to;
        self.matched_to = self.matched_to.max(offset.next());
        if self.behind.is_none() && !room && is_newest {
            self.behind = Some(offset);
        }
        if self.behind.is_none_or(|behind| offset < behind) {
            self.take_up(offset);
        }
    }

    /// Takes up matches that are only on the log, all those it has from `behind` on, as far as there is room; the
    /// rest stays behind. What lies in a gap is lost. Matches from `unread` on cannot be known.
    pub fn catch_up(
        &mut self,
        matches: &BTreeSet<Offset>,
        room: usize,
        gaps: &[Gap],
        unread: Option<Offset>,
    ) {
        let open = |offset: &&Offset| !matches!(self.ahead.get(offset), Some(None));
        let behind = matches.iter().filter(open).nth(room).copied().or(unread);
        let within =
            matches.iter().copied().take_while(|offset| behind.is_none_or(|behind| *offset < behind));
        for offset in within {
            self.take_up_unless_lost(offset, gaps);
        }
        self.behind = behind;
        if behind.is_none() {
            self.caught_up(gaps);
        }
        self.ahead.retain(|offset, _| behind.is_some_and(|behind| *offset >= behind));
    }

    /// Takes a match that is only on the log, unless a gap says that its event is lost.
    pub fn take_up_unless_lost(&mut self, offset: Offset, gaps: &[Gap]) {
        let is_settled = matches!(self.ahead.get(&offset), Some(None));
        if !is_settled && gaps.iter().any(|gap| gap.from <= offset && offset < gap.to) {
            self.ahead.remove(&offset);
            self.lose(1);
        } else {
            self.take_up(offset);
        }
    }

    /// Has taken up all that the log tells of. What it does not tell of any more, since a gap took the records of it, is
    /// lost.
    pub fn caught_up(&mut self, gaps: &[Gap]) {
        self.behind = None;
        let held = (self.outstanding.len() + self.redriven.len()) as u64;
        if !gaps.is_empty() {
            self.lose(self.books.pending().saturating_sub(held));
        }
    }

    pub(super) fn lose(&mut self, count: u64) {
        self.books.matched -= count;
        self.books.lost += count;
    }

    /// Folds an attempt in; false when it concerns nothing that is outstanding.
    pub(super) fn settle(&mut self, attempted: &Attempted, base_ms: u64) -> bool {
        let id = attempted.id;
        let paused = self.paused_total_ms;
        if matches!(attempted.next, Next::RetryAt { .. }) {
            let slot = if id.redrive > 0 {
                self.redriven.get_mut(&(id.offset, id.redrive))
            } else if self.behind.is_some_and(|behind| id.offset >= behind) {
                let slot = self.ahead.entry(id.offset).or_insert_with(|| Some(Slot::new(id.offset)));
                slot.as_mut()
            } else {
                self.outstanding.get_mut(id.offset)
            };
            return slot.map(|slot| slot.retry(attempted, base_ms, paused)).is_some();
        }
        let was_outstanding = if id.redrive > 0 {
            self.redriven.remove(&(id.offset, id.redrive)).is_some()
        } else if self.behind.is_some_and(|behind| id.offset >= behind) {
            !matches!(self.ahead.insert(id.offset, None), Some(None))
        } else {
            self.outstanding.remove(id.offset)
        };
        if was_outstanding {
            match attempted.next {
                Next::Delivered => self.books.delivered += 1,
                Next::Dead(_) => self.books.dead += 1,
                Next::RetryAt { .. } => {}
            }
        }
        was_outstanding
    }
}
