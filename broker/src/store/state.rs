//! What the records add up to: a fold over the log, in log order.
//!
//! The broker folds each record when it hands it to the log, recovery and snapshots fold what they read there, and
//! all of them with [`State::apply`]: so what a restart finds is what the disk has, and nothing else decides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::record::{Attempted, DeliveryId, Gap, LogRecord, Next, Pause, Routed, TriggerSet};
use super::{Offset, TriggerId};
use crate::delivery::Reason;

/// Everything that outlives a restart besides the events themselves.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// When the store was made: times of deliveries are kept as hundredths of a second since then.
    pub base_ms: u64,
    pub next_offset: Offset,
    pub last_received_ms: u64,
    pub set: TriggerSet,
    pub triggers: BTreeMap<TriggerId, TriggerState>,
    /// Ranges of offsets (end exclusive) that no record says the matches of.
    pub unrouted: Vec<(Offset, Offset)>,
    /// How many events have been routed in the life of the store.
    pub routed_total: u64,
    pub dead: BTreeMap<DeliveryId, DeadLetter>,
    pub gaps: Vec<Gap>,
    /// The number of the last redrive; each gets one of its own.
    pub redrives: u32,
    pub next_trigger: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub reason: Reason,
    pub at_ms: u64,
}

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
    books: Books,
    routing: RoutingCount,
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
struct RoutingCount {
    /// [`State::routed_total`] when the trigger saw its first event.
    base: u64,
    /// Events of its history.
    history: u64,
    /// How many of both matched.
    matched: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Paused {
    pub reason: String,
    pub at_ms: u64,
}

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

    fn retry(&mut self, attempted: &Attempted, due_ms: u64, base_ms: u64, paused_total_ms: u64) {
        if self.first == 0 {
            let active = attempted.at_ms.saturating_sub(base_ms + paused_total_ms);
            self.first = hundredths(active).saturating_add(1);
        }
        self.attempts = u16::try_from(attempted.attempt).unwrap_or(u16::MAX);
        self.due = hundredths(due_ms.saturating_sub(base_ms).saturating_add(9)).max(1);
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        for part in [self.offset[0], self.offset[1], self.first, self.due, u32::from(self.attempts)] {
            bytes.extend_from_slice(&part.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
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
    slots: VecDeque<Slot>,
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

    fn get_mut(&mut self, offset: Offset) -> Option<&mut Slot> {
        self.find(offset).map(|at| &mut self.slots[at])
    }

    fn find(&self, offset: Offset) -> Option<usize> {
        let at = self.slots.binary_search_by_key(&offset, Slot::offset).ok()?;
        (!self.slots[at].settled).then_some(at)
    }

    pub(super) fn remove(&mut self, offset: Offset) -> bool {
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

impl TriggerState {
    /// All below is settled, as far as this trigger has been told.
    pub fn floor(&self, routed_to: Offset) -> Offset {
        let redriven = self.redriven.keys().map(|(offset, _)| *offset).next();
        let history = self.history.map(|(next, _)| next);
        [self.outstanding.first(), self.behind, redriven, history]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(routed_to)
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

    fn enqueue(&mut self, offset: Offset, room: bool) {
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
    /// rest stays behind. What lies in a gap is lost.
    pub fn catch_up(&mut self, matches: &BTreeSet<Offset>, room: usize, gaps: &[Gap]) {
        let open = |offset: &&Offset| !matches!(self.ahead.get(offset), Some(None));
        let behind = matches.iter().filter(open).nth(room).copied();
        let within =
            matches.iter().copied().take_while(|offset| behind.is_none_or(|behind| *offset < behind));
        for offset in within {
            let is_settled = matches!(self.ahead.get(&offset), Some(None));
            if !is_settled && gaps.iter().any(|gap| gap.from <= offset && offset < gap.to) {
                self.ahead.remove(&offset);
                self.books.matched -= 1;
                self.books.lost += 1;
            } else {
                self.take_up(offset);
            }
        }
        self.ahead.retain(|offset, _| behind.is_some_and(|behind| *offset >= behind));
        self.behind = behind;
    }

    /// Folds an attempt in; false when it concerns nothing that is outstanding.
    fn settle(&mut self, attempted: &Attempted, base_ms: u64) -> bool {
        let id = attempted.id;
        let paused = self.paused_total_ms;
        if let Next::RetryAt { due_ms } = attempted.next {
            let slot = if id.redrive > 0 {
                self.redriven.get_mut(&(id.offset, id.redrive))
            } else if self.behind.is_some_and(|behind| id.offset >= behind) {
                let slot = self.ahead.entry(id.offset).or_insert_with(|| Some(Slot::new(id.offset)));
                slot.as_mut()
            } else {
                self.outstanding.get_mut(id.offset)
            };
            return slot.map(|slot| slot.retry(attempted, due_ms, base_ms, paused)).is_some();
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

impl State {
    pub fn new(base_ms: u64) -> Self {
        Self { base_ms, next_trigger: 1, ..Self::default() }
    }

    /// All offsets below have been routed.
    pub fn routed_to(&self) -> Offset {
        self.unrouted.first().map_or(self.next_offset, |(from, _)| *from)
    }

    pub fn outstanding(&self) -> usize {
        self.triggers.values().map(|trigger| trigger.outstanding.len() + trigger.redriven.len()).sum()
    }

    /// The lowest offset that a trigger or a dead letter still needs.
    pub fn needed_from(&self) -> Offset {
        self.dead.keys().map(|id| id.offset).fold(self.floor(), Offset::min)
    }

    /// The lowest offset that a trigger still needs.
    pub fn floor(&self) -> Offset {
        let routed_to = self.routed_to();
        self.triggers.values().map(|trigger| trigger.floor(routed_to)).fold(routed_to, Offset::min)
    }

    /// Folds events in: offsets `first..end`, the last of them received at the given time.
    pub fn events(&mut self, first: Offset, end: Offset, received_ms: u64) {
        if end <= self.next_offset {
            return;
        }
        // Offsets between are missing: lost to damage, until a gap says so they are owed an answer.
        let from = self.next_offset.min(first);
        match self.unrouted.last_mut() {
            Some((_, last)) if *last == from => *last = end,
            _ => self.unrouted.push((from, end)),
        }
        self.next_offset = end;
        self.last_received_ms = self.last_received_ms.max(received_ms);
    }

    /// Folds a record in. `room` says whether a trigger may hold one more delivery in memory.
    pub fn apply(&mut self, record: &LogRecord, room: &dyn Fn(&TriggerState) -> bool) {
        match record {
            LogRecord::Event(event) => {
                self.events(event.offset, event.offset.next(), event.received_at_ms);
            }
            LogRecord::Triggers(set) => self.adopt(set),
            LogRecord::Routed(routed) => self.route(routed, room),
            LogRecord::Outcomes(attempts) => attempts.iter().for_each(|attempted| self.attempt(attempted)),
            LogRecord::Pause(pause) => self.pause(pause),
            LogRecord::Redrive(redrive) => {
                for (from, to) in &redrive.moved {
                    self.redrive(*from, *to);
                }
            }
            LogRecord::Purge(purge) => {
                for id in &purge.ids {
                    if self.dead.remove(id).is_some() {
                        self.with_books(id.trigger, |books| {
                            books.dead -= 1;
                            books.purged += 1;
                        });
                    }
                }
            }
            LogRecord::Gap(gap) => self.lose(gap),
            LogRecord::Dropped(trigger) => {
                self.triggers.remove(trigger);
                self.set.triggers.retain(|entry| entry.id != *trigger);
            }
            LogRecord::Close => {}
        }
    }

    fn adopt(&mut self, set: &TriggerSet) {
        let routed_to = self.routed_to();
        for entry in &set.triggers {
            self.next_trigger = self.next_trigger.max(entry.id.0 + 1);
            // Events before its birth that are still to be routed are none that it sees.
            let others = self
                .unrouted
                .iter()
                .map(|(from, to)| to.0.min(entry.birth.0).saturating_sub(from.0))
                .sum::<u64>();
            let routing = RoutingCount { base: self.routed_total + others, ..RoutingCount::default() };
            let history = (entry.birth < routed_to).then_some((entry.birth, routed_to));
            let new = || TriggerState { birth: entry.birth, routing, history, ..TriggerState::default() };
            self.triggers.entry(entry.id).or_insert_with(new);
        }
        self.set = set.clone();
    }

    /// The books of a trigger.
    pub fn books(&self, trigger: &TriggerState) -> Books {
        let seen = self.routed_total.saturating_sub(trigger.routing.base) + trigger.routing.history;
        Books { unmatched: seen.saturating_sub(trigger.routing.matched), ..trigger.books }
    }

    fn route(&mut self, routed: &Routed, room: &dyn Fn(&TriggerState) -> bool) {
        let end = routed.to.next();
        if let Some(only) = routed.only {
            let Some(trigger) = self.triggers.get_mut(&only) else { return };
            let Some((next, last)) = trigger.history.filter(|(next, _)| *next < end) else { return };
            trigger.routing.history += end.0 - next.0;
            trigger.history = (end < last).then_some((end, last));
        } else {
            self.routed_total += subtract(&mut self.unrouted, routed.from, end);
        }
        for (offset, matched) in &routed.matches {
            for id in matched {
                if let Some(trigger) = self.triggers.get_mut(id).filter(|trigger| trigger.birth <= *offset) {
                    let may = room(trigger);
                    trigger.enqueue(*offset, may);
                    trigger.last_matched_at_ms = self.last_received_ms;
                }
            }
        }
    }

    fn attempt(&mut self, attempted: &Attempted) {
        let base_ms = self.base_ms;
        let Some(trigger) = self.triggers.get_mut(&attempted.id.trigger) else { return };
        if trigger.settle(attempted, base_ms)
            && let Next::Dead(reason) = attempted.next
        {
            self.dead.insert(attempted.id, DeadLetter { reason, at_ms: attempted.at_ms });
        }
    }

    fn pause(&mut self, pause: &Pause) {
        let Some(trigger) = self.triggers.get_mut(&pause.trigger) else { return };
        match &pause.reason {
            Some(reason) if trigger.paused.is_none() => {
                trigger.paused = Some(Paused { reason: reason.clone(), at_ms: pause.at_ms });
            }
            Some(_) => {}
            None => {
                if let Some(paused) = trigger.paused.take() {
                    trigger.paused_total_ms += pause.at_ms.saturating_sub(paused.at_ms);
                }
            }
        }
    }

    /// A dead letter becomes pending again. Sent to another trigger it is purged here and one more match there.
    fn redrive(&mut self, from: DeliveryId, to: DeliveryId) {
        if !self.triggers.contains_key(&to.trigger) || self.dead.remove(&from).is_none() {
            return;
        }
        self.redrives = self.redrives.max(to.redrive);
        let elsewhere = from.trigger != to.trigger;
        self.with_books(from.trigger, |books| {
            books.dead -= 1;
            books.purged += u64::from(elsewhere);
        });
        self.with_books(to.trigger, |books| books.matched += u64::from(elsewhere));
        if let Some(trigger) = self.triggers.get_mut(&to.trigger) {
            trigger.redriven.insert((to.offset, to.redrive), Slot::new(to.offset));
        }
    }

    /// What lies in a gap is lost: it moves from matched to lost, settled or not as it may have been.
    fn lose(&mut self, gap: &Gap) {
        self.gaps.push(gap.clone());
        let unrouted: Vec<_> =
            self.unrouted.iter().filter_map(|range| overlap(*range, (gap.from, gap.to))).collect();
        subtract(&mut self.unrouted, gap.from, gap.to);
        let within = |offset: Offset| gap.from <= offset && offset < gap.to;
        for trigger in self.triggers.values_mut() {
            let offsets: Vec<_> =
                trigger.outstanding.iter().map(Slot::offset).filter(|o| within(*o)).collect();
            for offset in &offsets {
                trigger.outstanding.remove(*offset);
            }
            let redriven: Vec<_> = trigger.redriven.keys().filter(|(o, _)| within(*o)).copied().collect();
            for key in &redriven {
                trigger.redriven.remove(key);
            }
            let lost = (offsets.len() + redriven.len()) as u64;
            trigger.books.matched -= lost;
            trigger.books.lost += lost;
            for (from, to) in &unrouted {
                trigger.books.lost += to.0.saturating_sub(from.0.max(trigger.birth.0));
            }
        }
        let dead: Vec<_> = self.dead.keys().filter(|id| within(id.offset)).copied().collect();
        for id in dead {
            self.dead.remove(&id);
            self.with_books(id.trigger, |books| {
                books.dead -= 1;
                books.matched -= 1;
                books.lost += 1;
            });
        }
        self.next_offset = self.next_offset.max(gap.to);
    }

    fn with_books(&mut self, id: TriggerId, change: impl FnOnce(&mut Books)) {
        if let Some(trigger) = self.triggers.get_mut(&id) {
            change(&mut trigger.books);
        }
    }
}

fn overlap(a: (Offset, Offset), b: (Offset, Offset)) -> Option<(Offset, Offset)> {
    let (from, to) = (a.0.max(b.0), a.1.min(b.1));
    (from < to).then_some((from, to))
}

/// Takes a range out of others; returns how many offsets that were.
fn subtract(ranges: &mut Vec<(Offset, Offset)>, from: Offset, to: Offset) -> u64 {
    let taken =
        ranges.iter().filter_map(|range| overlap(*range, (from, to))).map(|(from, to)| to.0 - from.0).sum();
    if let [only] = ranges.as_mut_slice()
        && from <= only.0
        && to < only.1
    {
        only.0 = only.0.max(to);
        return taken;
    }
    let parts = ranges.iter().flat_map(|(start, end)| [(*start, (*end).min(from)), ((*start).max(to), *end)]);
    *ranges = parts.filter(|(start, end)| start < end).collect();
    taken
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Head {
    base_ms: u64,
    next_offset: Offset,
    last_received_ms: u64,
    set: TriggerSet,
    unrouted: Vec<(Offset, Offset)>,
    routed_total: u64,
    redrives: u32,
    next_trigger: u32,
    gaps: Vec<[u64; 6]>,
    triggers: Vec<TriggerHead>,
    dead: usize,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct TriggerHead {
    id: TriggerId,
    birth: Offset,
    books: Books,
    routing: RoutingCount,
    history: Option<(Offset, Offset)>,
    behind: Option<Offset>,
    paused: Option<Paused>,
    paused_total_ms: u64,
    last_matched_at_ms: u64,
    outstanding: usize,
    redriven: Vec<u32>,
    ahead: usize,
    #[serde(default)]
    matched_to: Offset,
}

const SLOT_BYTES: usize = 20;

impl State {
    /// Appends the bytes of a snapshot: a head in JSON with its length, then slots and dead letters in fixed width.
    pub fn encode_into(&self, bytes: &mut Vec<u8>) {
        let head = serde_json::to_vec(&self.head()).unwrap_or_default();
        bytes.extend_from_slice(&(head.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&head);
        for trigger in self.triggers.values() {
            trigger.outstanding.iter().for_each(|slot| slot.encode(bytes));
            trigger.redriven.values().for_each(|slot| slot.encode(bytes));
            for (offset, slot) in &trigger.ahead {
                bytes.push(u8::from(slot.is_some()));
                slot.unwrap_or(Slot::new(*offset)).encode(bytes);
            }
        }
        for (id, letter) in &self.dead {
            bytes.extend_from_slice(&id.trigger.0.to_le_bytes());
            bytes.extend_from_slice(&id.offset.0.to_le_bytes());
            bytes.extend_from_slice(&id.redrive.to_le_bytes());
            bytes.push(letter.reason as u8);
            bytes.extend_from_slice(&letter.at_ms.to_le_bytes());
        }
    }

    fn head(&self) -> Head {
        let trigger = |(id, trigger): (&TriggerId, &TriggerState)| TriggerHead {
            id: *id,
            birth: trigger.birth,
            books: trigger.books,
            routing: trigger.routing,
            history: trigger.history,
            behind: trigger.behind,
            paused: trigger.paused.clone(),
            paused_total_ms: trigger.paused_total_ms,
            last_matched_at_ms: trigger.last_matched_at_ms,
            outstanding: trigger.outstanding.len(),
            redriven: trigger.redriven.keys().map(|(_, n)| *n).collect(),
            ahead: trigger.ahead.len(),
            matched_to: trigger.matched_to,
        };
        let gap = |g: &Gap| [g.at_ms, g.from.0, g.to.0, g.segment, g.start, g.end];
        Head {
            base_ms: self.base_ms,
            next_offset: self.next_offset,
            last_received_ms: self.last_received_ms,
            set: self.set.clone(),
            unrouted: self.unrouted.clone(),
            routed_total: self.routed_total,
            redrives: self.redrives,
            next_trigger: self.next_trigger,
            gaps: self.gaps.iter().map(gap).collect(),
            triggers: self.triggers.iter().map(trigger).collect(),
            dead: self.dead.len(),
        }
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_at_checked(8)?;
        let (head, mut tail) = rest.split_at_checked(u64::from_le_bytes(length.try_into().ok()?) as usize)?;
        let head: Head = serde_json::from_slice(head).ok()?;
        let mut take = |count: usize| {
            let (taken, rest) = tail.split_at_checked(count)?;
            tail = rest;
            Some(taken)
        };
        let mut state = Self {
            base_ms: head.base_ms,
            next_offset: head.next_offset,
            last_received_ms: head.last_received_ms,
            set: head.set,
            unrouted: head.unrouted,
            routed_total: head.routed_total,
            redrives: head.redrives,
            next_trigger: head.next_trigger,
            ..Self::default()
        };
        for [at_ms, from, to, segment, start, end] in head.gaps {
            state.gaps.push(Gap { at_ms, from: Offset(from), to: Offset(to), segment, start, end });
        }
        for known in head.triggers {
            let mut trigger = TriggerState {
                birth: known.birth,
                books: known.books,
                routing: known.routing,
                history: known.history,
                behind: known.behind,
                paused: known.paused,
                paused_total_ms: known.paused_total_ms,
                last_matched_at_ms: known.last_matched_at_ms,
                matched_to: known.matched_to,
                ..TriggerState::default()
            };
            trigger.outstanding.slots.reserve(known.outstanding);
            for _ in 0..known.outstanding {
                trigger.outstanding.push(Slot::decode(take(SLOT_BYTES)?)?);
            }
            for redrive in known.redriven {
                let slot = Slot::decode(take(SLOT_BYTES)?)?;
                trigger.redriven.insert((slot.offset(), redrive), slot);
            }
            for _ in 0..known.ahead {
                let open = take(1)?[0] == 1;
                let slot = Slot::decode(take(SLOT_BYTES)?)?;
                trigger.ahead.insert(slot.offset(), open.then_some(slot));
            }
            state.triggers.insert(known.id, trigger);
        }
        for _ in 0..head.dead {
            let trigger = TriggerId(u32::from_le_bytes(take(4)?.try_into().ok()?));
            let offset = Offset(u64::from_le_bytes(take(8)?.try_into().ok()?));
            let redrive = u32::from_le_bytes(take(4)?.try_into().ok()?);
            let reason = Reason::from_code(take(1)?[0])?;
            let at_ms = u64::from_le_bytes(take(8)?.try_into().ok()?);
            state.dead.insert(DeliveryId { trigger, offset, redrive }, DeadLetter { reason, at_ms });
        }
        Some(state)
    }
}

#[cfg(test)]
impl State {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode_into(&mut bytes);
        bytes
    }
}
