//! What routing and delivery share, behind one lock: the state and the triggers at work.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sluice_adapters::Refusal;
use tokio::sync::{Notify, watch};

use super::census::Census;
use super::courier::{self, Fresh};
use super::history::{Matches, Piece};
use super::order::{Key, LookUp};
use super::trigger::{Runtime, Step};
use crate::delivery::Reason;
use crate::routing::Table;
use crate::store::{
    Attempted, DeliveryId, Gap, Log, LogRecord, Next, Offset, Pause, Record, Routed, State, TriggerId,
    TriggerState, clock,
};

/// Matches (an event that three triggers match is three) and ranges kept in memory, so that a trigger that reads the log
/// can change over to the live ones.
const RECENT_MATCHES: usize = 1 << 18;
const RECENT_RANGES: usize = 4096;
/// So many matches, and those of one event more, are recorded together: a segment must have room for them.
const RECORD_MATCHES: usize = 1 << 17;
/// What every trigger may hold in memory, however many there are.
const SHARE_MIN: usize = 64;
/// Wait for room on a full disk before a delivery is looked at again.
const ROOM_WAIT_MS: u64 = 200;

pub struct Core {
    pub log: Log,
    pub state: State,
    pub runtimes: BTreeMap<TriggerId, Runtime>,
    /// Triggers that are gone from the configuration: what they have in flight ends, nothing is begun.
    pub frozen: BTreeMap<TriggerId, Runtime>,
    pub table: Arc<Table>,
    pub census: Census,
    recent: VecDeque<Routed>,
    recent_matches: usize,
    /// When each trigger is to be looked at again; the look says when the next one is.
    wakes: BTreeSet<(u64, TriggerId)>,
    wake_of: HashMap<TriggerId, u64>,
    /// Told when something is due earlier than all that was known.
    earlier: Arc<Notify>,
    outstanding_max: usize,
    /// Attempts and dead letters that were begun and are not over. Counted under the lock that stops them: whoever waits for
    /// the last one misses none.
    in_flight: watch::Sender<usize>,
    pub is_stopping: bool,
    /// A task routes the past of new triggers.
    pub is_routing_history: bool,
    /// Triggers at work that are still to see some of their past: what the state says, kept beside it.
    pub with_past: BTreeSet<TriggerId>,
    /// Triggers whose dead-letter sink may be told something now: at first all that owe it something, then those about which
    /// something has changed.
    pub to_tell: BTreeSet<TriggerId>,
    /// Why nothing is routed at the moment: an event that a former run left cannot be read.
    pub routing_waits: Option<String>,
    pub fresh: Fresh,
}

impl Core {
    pub fn new(
        log: Log,
        state: State,
        outstanding_max: usize,
        earlier: Arc<Notify>,
        in_flight: watch::Sender<usize>,
    ) -> Self {
        Self {
            log,
            state,
            runtimes: BTreeMap::new(),
            frozen: BTreeMap::new(),
            table: Arc::default(),
            census: Census::default(),
            recent: VecDeque::new(),
            recent_matches: 0,
            wakes: BTreeSet::new(),
            wake_of: HashMap::new(),
            earlier,
            outstanding_max,
            in_flight,
            is_stopping: false,
            is_routing_history: false,
            with_past: BTreeSet::new(),
            to_tell: BTreeSet::new(),
            routing_waits: None,
            fresh: Fresh::default(),
        }
    }

    /// Works out anew which triggers have something to be done for them.
    pub fn derive(&mut self) {
        let has_past = |id: &&TriggerId| self.state.triggers.get(id).is_some_and(|t| t.history.is_some());
        self.with_past = self.runtimes.keys().filter(has_past).copied().collect();
        self.to_tell = courier::owing(&self.state.owed);
    }

    /// A trigger, frozen or not: what it has under way ends here.
    pub fn runtime_mut(&mut self, id: TriggerId) -> Option<&mut Runtime> {
        self.runtimes.get_mut(&id).or_else(|| self.frozen.get_mut(&id))
    }

    /// How many deliveries one trigger may hold in memory.
    pub fn share(&self) -> usize {
        (self.outstanding_max / self.runtimes.len().max(1)).max(SHARE_MIN)
    }

    /// Folds a record in that is on its way to the log.
    pub fn apply(&mut self, record: &LogRecord) {
        let share = self.share();
        self.state.apply(record, &|trigger: &TriggerState| trigger.outstanding.len() < share);
    }

    /// Folds a record in and writes it.
    pub fn record(&mut self, record: LogRecord) {
        self.apply(&record);
        self.log.append_later(vec![record]);
    }

    /// As [`Self::record`]; what is returned is done once the record is on disk. It is in the log in the order in which it was
    /// folded in, whoever waits for it.
    pub fn record_durably(&mut self, record: LogRecord) -> impl Future<Output = Result<(), Refusal>> + use<> {
        self.apply(&record);
        let written = self.log.append(Vec::new(), vec![record]);
        async move { written.await.map(drop) }
    }

    /// Takes note of events that have become durable.
    pub fn stored(&mut self, records: &[Arc<Record>]) {
        if let (Some(first), Some(last)) = (records.first(), records.last()) {
            self.state.events(first.offset, last.offset.next(), last.received_at_ms);
        }
    }

    /// Routes events that were noted, as a table matched them; `None` when another one is in force by now.
    pub fn route(&mut self, records: &[Arc<Record>], matches: Matches, by: &Arc<Table>) -> Option<Vec<Step>> {
        let (first, last) = (records.first()?, records.last()?);
        let records = records.iter().map(|record| &**record);
        self.route_range(first.offset, last.offset, records, matches, by)
    }

    /// Routes a piece that was read from the log after a restart.
    pub fn route_leftovers(
        &mut self,
        from: Offset,
        piece: &Piece,
        matches: Matches,
        by: &Arc<Table>,
    ) -> Option<Vec<Step>> {
        let to = Offset(piece.end.0.checked_sub(1)?);
        self.route_range(from, to, piece.records.iter(), matches, by)
    }

    fn route_range<'r>(
        &mut self,
        from: Offset,
        to: Offset,
        records: impl Iterator<Item = &'r Record>,
        matches: Matches,
        by: &Arc<Table>,
    ) -> Option<Vec<Step>> {
        if !Arc::ptr_eq(&self.table, by) {
            return None;
        }
        let mut matched = matches.iter().map(|(offset, _)| *offset).peekable();
        for record in records {
            self.census.note(record, matched.next_if_eq(&record.offset).is_some());
        }
        let epoch = self.state.set.epoch;
        let pieces = in_pieces(from, to, matches).into_iter();
        let routed = pieces.map(|(from, to, matches)| Routed { epoch, from, to, matches, only: None });
        Some(routed.flat_map(|routed| self.routed(routed)).collect())
    }

    /// Routes a piece of a new trigger's past.
    pub fn route_past(
        &mut self,
        id: TriggerId,
        from: Offset,
        end: Offset,
        matches: Matches,
        by: &Arc<Table>,
    ) -> Option<Vec<Step>> {
        let to = Offset(end.0.checked_sub(1)?);
        if !Arc::ptr_eq(&self.table, by) || !self.runtimes.contains_key(&id) {
            return None;
        }
        let steps = self.routed(Routed { epoch: self.state.set.epoch, from, to, matches, only: Some(id) });
        if self.state.triggers.get(&id).is_none_or(|trigger| trigger.history.is_none()) {
            self.with_past.remove(&id);
        }
        Some(steps)
    }

    /// Takes match records in: writes them, and lets the triggers they concern go on.
    pub fn routed(&mut self, routed: Routed) -> Vec<Step> {
        let mut concerned = Vec::new();
        for (offset, ids) in &routed.matches {
            for id in ids {
                if let Some(runtime) = self.runtimes.get_mut(id) {
                    runtime.active.counters.matched.fetch_add(1, Ordering::Relaxed);
                    runtime.matched(*offset);
                }
            }
            concerned.extend_from_slice(ids);
        }
        concerned.sort_unstable();
        concerned.dedup();
        let record = LogRecord::Routed(routed);
        self.apply(&record);
        if let LogRecord::Routed(routed) = &record {
            // Ranges in memory follow each other: from the first on, all matches are there.
            if routed.only.is_none() && self.recent_range().is_some_and(|(_, end)| end != routed.from) {
                self.recent.clear();
                self.recent_matches = 0;
            }
            self.recent_matches += routed.matches.iter().map(|(_, ids)| ids.len()).sum::<usize>();
            self.recent.push_back(routed.clone());
            while self.recent.len() > RECENT_RANGES || self.recent_matches > RECENT_MATCHES {
                let Some(oldest) = self.recent.pop_front() else { break };
                self.recent_matches -= oldest.matches.iter().map(|(_, ids)| ids.len()).sum::<usize>();
            }
        }
        self.log.append_later(vec![record]);
        concerned.into_iter().flat_map(|id| self.fill(id)).collect()
    }

    /// All that a trigger may do now.
    pub fn fill(&mut self, id: TriggerId) -> Vec<Step> {
        std::iter::from_fn(|| self.step(id)).collect()
    }

    /// What a trigger does next, if it may do anything now.
    pub fn step(&mut self, id: TriggerId) -> Option<Step> {
        if self.is_stopping {
            return None;
        }
        let now = clock::steady_ms();
        let runtime = self.runtimes.get_mut(&id)?;
        let trigger = self.state.triggers.get(&id)?;
        if !self.log.has_outcome_room() {
            self.wake(id, now + ROOM_WAIT_MS);
            return None;
        }
        let was_draining = runtime.is_draining();
        match runtime.claim(trigger, self.state.base_ms, now, self.log.reader()) {
            Ok(step) => {
                if was_draining {
                    // Whoever ended before the last one has left with nothing to do.
                    self.wake(id, now);
                }
                if matches!(step, Step::Attempt(_)) {
                    self.begun();
                }
                Some(step)
            }
            Err(Some(at)) => {
                self.wake(id, at.max(now + 1));
                None
            }
            Err(None) => None,
        }
    }

    /// Counts an attempt, or a dead letter that is told, as under way: a stop waits for it.
    pub fn begun(&self) {
        self.in_flight.send_modify(|count| *count += 1);
    }

    /// When something is due next.
    pub fn next_wake(&self) -> Option<u64> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// The attempts that have become due.
    pub fn due(&mut self) -> Vec<Step> {
        let now = clock::steady_ms();
        let mut ids = BTreeSet::new();
        while let Some((at, id)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&(at, id));
            self.wake_of.remove(&id);
            ids.insert(id);
        }
        ids.into_iter().flat_map(|id| self.fill(id)).collect()
    }

    /// Has a trigger looked at again at a time.
    pub fn wake(&mut self, id: TriggerId, at: u64) {
        match self.wake_of.insert(id, at) {
            Some(known) if known <= at => {
                self.wake_of.insert(id, known);
                return;
            }
            Some(later) => drop(self.wakes.remove(&(later, id))),
            None => {}
        }
        let is_earliest = self.wakes.first().is_none_or(|(first, _)| at < *first);
        self.wakes.insert((at, id));
        if is_earliest {
            self.earlier.notify_one();
        }
    }

    /// An attempt is over: what follows is folded in. The caller writes the record.
    pub fn settle(&mut self, attempted: &Attempted) {
        let id = attempted.id;
        let due = match attempted.next {
            Next::RetryAt { due_ms, .. } => Some(due_ms),
            Next::Delivered | Next::Dead(_) => None,
        };
        self.apply(&LogRecord::Outcomes(vec![attempted.clone()]));
        if attempted.owes_letter {
            self.to_tell.insert(id.trigger);
        }
        let trigger = self.state.triggers.get(&id.trigger);
        let runtime = self.runtimes.get_mut(&id.trigger).or_else(|| self.frozen.get_mut(&id.trigger));
        if let Some(runtime) = runtime {
            runtime.ended(id, due, trigger);
        }
        if let Some(due) = due {
            self.wake(id.trigger, due);
        }
    }

    /// How many more deliveries a trigger may hold in memory.
    pub fn room_of(&self, id: TriggerId) -> usize {
        let held = self.state.triggers.get(&id).map_or(0, |trigger| trigger.outstanding.len());
        self.share().saturating_sub(held)
    }

    /// Deliveries of a trigger that reads the log may be fetched: from which offset, when it has room.
    pub fn lagging(&mut self, id: TriggerId) -> Option<Offset> {
        let share = self.share();
        let trigger = self.state.triggers.get(&id)?;
        let runtime = self.runtimes.get_mut(&id)?;
        let from =
            trigger.behind.filter(|_| !runtime.is_catching_up && trigger.outstanding.len() <= share / 2)?;
        runtime.is_catching_up = true;
        Some(from)
    }

    /// Whether a trigger is removed and has not come back.
    pub fn is_removed(&self, id: TriggerId) -> bool {
        self.state.set.entry(id).is_some_and(|entry| entry.removed_at_ms.is_some())
    }

    /// The events whose matches are all in memory (end exclusive). The past of a new trigger says nothing of the others.
    fn recent_range(&self) -> Option<(Offset, Offset)> {
        let mut ranges = self.recent.iter().filter(|routed| routed.only.is_none());
        let first = ranges.next()?;
        Some((first.from, ranges.next_back().unwrap_or(first).to.next()))
    }

    /// Takes up matches from memory if they are all there; else says from where they must be read.
    pub fn catch_up_from_memory(&mut self, id: TriggerId) -> Option<Offset> {
        let (share, routed_end, recent_range) = (self.share(), self.state.routed_end(), self.recent_range());
        let State { triggers, gaps, .. } = &mut self.state;
        let trigger = triggers.get_mut(&id)?;
        let from = trigger.behind?;
        if from >= routed_end {
            trigger.caught_up(gaps);
            return None;
        }
        if recent_range.is_none_or(|(kept_from, end)| kept_from > from || end < routed_end) {
            return Some(from);
        }
        let ranges = self
            .recent
            .iter()
            .filter(|routed| routed.to >= from && routed.only.is_none_or(|only| only == id));
        let offsets: Vec<Offset> = ranges
            .flat_map(|routed| {
                routed.matches.iter().filter(|(o, ids)| *o >= from && ids.contains(&id)).map(|(o, _)| *o)
            })
            .collect();
        if take_up(trigger, &offsets, share, gaps) {
            trigger.caught_up(gaps);
        }
        None
    }

    /// Takes up matches that were read from the log, from an offset on, and notes where it goes on. What someone else
    /// has taken up meanwhile is not taken up again.
    pub fn catch_up(&mut self, id: TriggerId, from: Offset, offsets: &[Offset], next: Offset) {
        let share = self.share();
        let State { triggers, gaps, .. } = &mut self.state;
        if let Some(trigger) = triggers.get_mut(&id).filter(|trigger| trigger.behind == Some(from))
            && take_up(trigger, offsets, share, gaps)
        {
            trigger.behind = Some(next);
        }
    }

    /// Takes keys in that were looked up; returns what the trigger does next.
    pub fn looked_up(&mut self, look_up: &LookUp, keys: HashMap<Offset, Key>) -> Vec<Step> {
        let id = look_up.trigger.id;
        if let Some(runtime) = self.runtime_mut(id) {
            runtime.looked_up(look_up, keys);
        }
        self.fill(id)
    }

    /// Everything pending of a trigger that is not in flight becomes a dead letter; at most `limit`. What is in flight follows
    /// when an operator asked for it, unless it is accepted; a removed trigger may come back before that.
    pub fn discard(&mut self, id: TriggerId, reason: Reason, limit: usize) -> Vec<Attempted> {
        let Some(trigger) = self.state.triggers.get(&id) else { return Vec::new() };
        let runtime = self.runtimes.get(&id).or_else(|| self.frozen.get(&id));
        let in_flight = runtime.map(|runtime| &runtime.in_flight);
        let owes_letter = runtime.is_some_and(|runtime| runtime.active.dead_letter.is_some());
        let own = trigger.outstanding.iter().map(|slot| (slot.offset(), 0));
        let all: Vec<_> = own
            .chain(trigger.redriven.keys().copied())
            .map(|(offset, redrive)| DeliveryId { trigger: id, offset, redrive })
            .filter(|delivery| in_flight.is_none_or(|set| !set.contains(delivery)))
            .take(limit)
            .map(|delivery| Attempted { owes_letter, ..ended_without_attempt(delivery, reason) })
            .collect();
        if let Some(runtime) = runtime {
            runtime.active.counters.dead[reason as usize].fetch_add(all.len() as u64, Ordering::Relaxed);
        }
        for attempted in &all {
            self.settle(attempted);
        }
        if reason == Reason::Discarded
            && let Some(runtime) = self.runtime_mut(id)
        {
            runtime.discard_in_flight();
        }
        all
    }
}

/// Cuts a range where its matches are too many for one record.
fn in_pieces(from: Offset, to: Offset, matches: Matches) -> Vec<(Offset, Offset, Matches)> {
    let (mut pieces, mut piece, mut count, mut start) = (Vec::new(), Vec::new(), 0, from);
    for (offset, ids) in matches {
        count += ids.len();
        piece.push((offset, ids));
        if count >= RECORD_MATCHES && offset < to {
            pieces.push((start, offset, std::mem::take(&mut piece)));
            (count, start) = (0, offset.next());
        }
    }
    pieces.push((start, to, piece));
    pieces
}

/// A trigger is paused for a reason, or goes on.
pub fn pause(trigger: TriggerId, reason: Option<&str>) -> LogRecord {
    LogRecord::Pause(Pause { trigger, at_ms: clock::steady_ms(), reason: reason.map(str::to_owned) })
}

/// The ending of a delivery that nothing was sent for.
pub fn ended_without_attempt(id: DeliveryId, reason: Reason) -> Attempted {
    Attempted {
        id,
        attempt: 0,
        at_ms: clock::wall_ms(),
        duration_ms: 0,
        status: None,
        error: Some(reason.detail().into()),
        body: bytes::Bytes::new(),
        owes_letter: false,
        next: Next::Dead(reason),
    }
}

/// Takes matches up as far as there is room, and notes where there was none; true if there was for all.
fn take_up(trigger: &mut TriggerState, offsets: &[Offset], share: usize, gaps: &[Gap]) -> bool {
    for offset in offsets {
        if trigger.outstanding.len() >= share {
            trigger.behind = Some(*offset);
            return false;
        }
        trigger.take_up_unless_lost(*offset, gaps);
    }
    true
}
