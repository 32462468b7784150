//! What the records add up to: a fold over the log, in log order.
//!
//! The broker folds each record when it hands it to the log, recovery and snapshots fold what they read there, and
//! all of them with [`State::apply`]: so what a restart finds is what the disk has, and nothing else decides.

mod asides;
mod bytes;
mod outstanding;
mod trigger;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::delivery::Reason;
use crate::store::record::{
    Attempted, DeliveryId, Gap, LogRecord, Next, Pause, Routed, SourcePause, TriggerSet,
};
use crate::store::{Offset, TriggerId};

use trigger::RoutingCount;

pub use asides::{AsideEntry, Asides};
pub use outstanding::{Outstanding, Slot};
pub use trigger::{Books, TriggerState};

/// Everything that outlives a restart besides the events themselves.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// When the store was made: times of deliveries are kept as hundredths of a second since then.
    pub base_ms: u64,
    pub next_offset: Offset,
    pub last_received_ms: u64,
    /// Shared, so that it can be looked at without the lock under which it changes.
    pub set: Arc<TriggerSet>,
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
    /// Dead letters that the dead-letter sink of their trigger is still to be told of.
    pub owed: BTreeSet<DeliveryId>,
    /// Records that sources put aside, by number.
    pub asides: Asides,
    /// The number of the last one that was put aside.
    pub last_aside: u64,
    /// The latest mark of each source.
    pub marks: BTreeMap<Arc<str>, String>,
    pub paused_sources: BTreeMap<Arc<str>, Paused>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub reason: Reason,
    pub at_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Paused {
    pub reason: String,
    pub at_ms: u64,
}

const ANSWERED_GONE: &str = " answered 410 Gone";

impl Paused {
    /// The reason of the one pause that an operator does not ask for: another sink ends it.
    pub fn gone(sink: &str) -> String {
        format!("{sink}{ANSWERED_GONE}")
    }

    pub fn is_gone(&self) -> bool {
        self.reason.ends_with(ANSWERED_GONE)
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

    /// All that was routed is below. What is to be routed again, after a gap that took the records of it, may be, too.
    pub fn routed_end(&self) -> Offset {
        let last = self.unrouted.last().filter(|(_, to)| *to == self.next_offset);
        last.map_or(self.next_offset, |(from, _)| *from)
    }

    pub fn outstanding(&self) -> usize {
        self.triggers.values().map(|trigger| trigger.outstanding.len() + trigger.redriven.len()).sum()
    }

    /// The lowest offset that a trigger still needs of the log. Dead letters and their redrives are copied when their
    /// segment goes.
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
                        self.owed.remove(id);
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
                Arc::make_mut(&mut self.set).triggers.retain(|entry| entry.id != *trigger);
            }
            LogRecord::Aside(aside) => {
                self.last_aside = self.last_aside.max(aside.number);
                self.asides.add(aside);
            }
            LogRecord::AsidesGone(gone) => {
                for number in &gone.numbers {
                    self.asides.remove(*number);
                }
            }
            LogRecord::Mark(mark) => {
                self.marks.insert(Arc::clone(&mark.source), mark.text.clone());
            }
            LogRecord::SourcePause(pause) => self.pause_source(pause),
            LogRecord::Told(ids) => {
                for id in ids {
                    self.owed.remove(id);
                }
            }
            LogRecord::Close => {}
        }
    }

    fn adopt(&mut self, set: &Arc<TriggerSet>) {
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
        self.set = Arc::clone(set);
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
            // The frame of these events may be damaged, and this the first that tells of them.
            self.events(routed.from, end, self.last_received_ms);
            self.routed_total += subtract(&mut self.unrouted, routed.from, end);
        }
        for (offset, matched) in &routed.matches {
            for id in matched {
                if let Some(trigger) = self.triggers.get_mut(id).filter(|trigger| trigger.birth <= *offset) {
                    // `behind` is never within a trigger's past: whoever routes that waits for room instead.
                    let may = routed.only.is_some() || room(trigger);
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
            if attempted.owes_letter {
                self.owed.insert(attempted.id);
            }
        }
    }

    fn pause(&mut self, pause: &Pause) {
        let Some(trigger) = self.triggers.get_mut(&pause.trigger) else { return };
        match (&pause.reason, &mut trigger.paused) {
            (Some(reason), None) => {
                trigger.paused = Some(Paused { reason: reason.clone(), at_ms: pause.at_ms });
            }
            // What an operator says holds longer than what the sink did, whichever comes first.
            (Some(reason), Some(paused)) if paused.is_gone() => paused.reason.clone_from(reason),
            (Some(_), Some(_)) => {}
            (None, _) => {
                if let Some(paused) = trigger.paused.take() {
                    trigger.paused_total_ms += pause.at_ms.saturating_sub(paused.at_ms);
                }
            }
        }
    }

    fn pause_source(&mut self, pause: &SourcePause) {
        match &pause.reason {
            Some(reason) => {
                let paused = Paused { reason: reason.clone(), at_ms: pause.at_ms };
                self.paused_sources.entry(Arc::clone(&pause.source)).or_insert(paused);
            }
            None => {
                self.paused_sources.remove(&pause.source);
            }
        }
    }

    /// A dead letter becomes pending again. Sent to another trigger it is purged here and one more match there.
    fn redrive(&mut self, from: DeliveryId, to: DeliveryId) {
        if !self.triggers.contains_key(&to.trigger) || self.dead.remove(&from).is_none() {
            return;
        }
        self.owed.remove(&from);
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
        // The end of the log may be what is lost: nothing behind it has brought these offsets up.
        self.events(self.next_offset, gap.to, self.last_received_ms);
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
            trigger.lose((offsets.len() + redriven.len()) as u64);
            for (from, to) in &unrouted {
                trigger.books.lost += to.0.saturating_sub(from.0.max(trigger.birth.0));
            }
        }
        let dead: Vec<_> = self.dead.keys().filter(|id| within(id.offset)).copied().collect();
        for id in dead {
            self.dead.remove(&id);
            self.owed.remove(&id);
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
