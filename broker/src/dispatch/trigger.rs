//! One trigger at work: what it may send next.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_config as config;

use super::order::{Key, LOOK_UP_MAX, LookUp, Order, key_at_hand};
use super::waits::{Bucket, Postponed};
use crate::delivery::{Reason, RetryPolicy};
use crate::routing::FilterErrors;
use crate::sink::Sink;
use crate::store::{DeliveryId, Offset, Reader, Record, Slot, TriggerId, TriggerState};

/// A trigger as it is configured now.
pub struct Active {
    pub id: TriggerId,
    pub name: String,
    pub config: config::Trigger,
    pub sink: Arc<Sink>,
    pub dead_letter: Option<Arc<Sink>>,
    pub policy: RetryPolicy,
    pub counters: Arc<Counters>,
}

/// Since the process began.
#[derive(Debug, Default)]
pub struct Counters {
    pub matched: AtomicU64,
    pub filter_errors: Arc<FilterErrors>,
    pub accepted: AtomicU64,
    pub retriable: AtomicU64,
    pub rejected: AtomicU64,
    pub retries: AtomicU64,
    pub replies: AtomicU64,
    pub unkeyed: AtomicU64,
    pub dead: [AtomicU64; Reason::ALL.len()],
    pub seconds: [AtomicU64; SECONDS_BOUNDS_MS.len() + 1],
    pub total_ms: AtomicU64,
}

/// Upper bounds of the histogram of attempts, in milliseconds.
pub const SECONDS_BOUNDS_MS: [u64; 10] = [1, 5, 10, 50, 100, 500, 1_000, 5_000, 10_000, 30_000];

impl Counters {
    pub fn took(&self, ms: u64) {
        self.seconds[SECONDS_BOUNDS_MS.partition_point(|bound| *bound < ms)].fetch_add(1, Ordering::Relaxed);
        self.total_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

/// What a trigger does next.
pub enum Step {
    Attempt(Claim),
    LookUp(LookUp),
}

/// What an attempt needs to be made.
pub struct Claim {
    pub id: DeliveryId,
    /// From 1.
    pub attempt: u32,
    /// When the first attempt was made, on the trigger's clock; `None` when this is the first.
    pub first_ms: Option<u64>,
    pub trigger: Arc<Active>,
    /// In memory still, or to be read from the log.
    pub record: Option<Arc<Record>>,
}

/// The last attempt that failed.
#[derive(Clone, Debug)]
pub struct LastError {
    /// On the wall's clock.
    pub at_ms: u64,
    pub status: Option<u16>,
    pub error: String,
}

/// What is known of a trigger in this process only.
pub struct Runtime {
    pub active: Arc<Active>,
    pub in_flight: HashSet<DeliveryId>,
    /// Deliveries below this have been taken up in log order: they were sent, wait for a retry, or are held.
    admitted: Offset,
    /// Ready before anything fresh: retries that are due, redrives, held ones whose key has become free.
    ready: VecDeque<DeliveryId>,
    /// Set aside without counting an attempt, and until when.
    postponed: Postponed,
    order: Option<Order>,
    /// The order has changed: nothing is begun while attempts are under way whose keys it does not know.
    drains_first: bool,
    hasher: RandomState,
    /// When the earliest waiting retry is due, as far as the last look at them all says.
    retry_due_ms: u64,
    bucket: Option<Bucket>,
    /// The sink wants no request before this (429 with `Retry-After`).
    quiet_until_ms: u64,
    /// Was ready for its first attempt when the sink asked for that.
    shelved: VecDeque<DeliveryId>,
    /// In flight when what was pending was discarded: a dead letter unless the sink accepts it.
    discarded: HashSet<DeliveryId>,
    pub last_error: Option<LastError>,
    /// Whether the last attempt succeeded: the first failure after that is a warning.
    pub is_well: bool,
    pub is_catching_up: bool,
    /// Of the books, when this process took the trigger up: its counters start at 0.
    pub unmatched_at_start: u64,
}

/// What is next of a trigger's deliveries.
enum Next {
    Delivery(DeliveryId, Option<Arc<Record>>),
    LookUp(LookUp),
    Nothing,
}

enum Turn {
    Its,
    /// An earlier event with its key is not settled.
    Held,
    /// Its key must be looked up.
    Unknown,
}

/// Retries looked at in one go are sent before the next look.
const READY_MAX: usize = 1024;

impl Runtime {
    pub fn new(active: Arc<Active>, state: &TriggerState, unmatched_at_start: u64) -> Self {
        let order = (active.config.delivery.order != config::Order::None).then(Order::default);
        let mut runtime = Self {
            in_flight: HashSet::new(),
            admitted: Offset(0),
            ready: fresh_redrives(active.id, state).collect(),
            postponed: Postponed::default(),
            order,
            drains_first: false,
            hasher: RandomState::new(),
            retry_due_ms: 0,
            bucket: None,
            quiet_until_ms: 0,
            shelved: VecDeque::new(),
            discarded: HashSet::new(),
            last_error: None,
            is_well: true,
            is_catching_up: false,
            unmatched_at_start,
            active,
        };
        runtime.reset_rate();
        runtime
    }

    /// Takes over a changed configuration; what is in flight stays so.
    pub fn reconfigure(&mut self, active: Arc<Active>, state: &TriggerState) {
        let same_order = active.config.delivery.order == self.active.config.delivery.order;
        if active.config.sink != self.active.config.sink {
            self.quiet_until_ms = 0;
            self.retry_due_ms = 0;
        }
        self.active = active;
        self.reset_rate();
        if !same_order {
            // Everything that waits is taken up anew, in log order, under the new keys.
            self.drains_first = true;
            self.order = (self.active.config.delivery.order != config::Order::None).then(Order::default);
            self.admitted = Offset(0);
            self.retry_due_ms = 0;
            self.ready.clear();
            self.shelved.clear();
        }
        // Redrives are in no log order to be found in again: those that were dropped here, or came while it was frozen.
        let known: HashSet<DeliveryId> = self.ready.iter().chain(&self.shelved).copied().collect();
        let is_new = |id: &DeliveryId| !known.contains(id) && !self.is_taken_up(*id);
        let missing: Vec<_> = fresh_redrives(self.active.id, state).filter(is_new).collect();
        self.ready.extend(missing);
    }

    fn reset_rate(&mut self) {
        let rate = self.active.config.delivery.rate;
        self.bucket = rate.map(|rate| Bucket::full(rate.per_second));
    }

    /// A match was found behind what has been taken up (the past of a new trigger is routed while new events come in):
    /// goes back to it.
    pub fn matched(&mut self, offset: Offset) {
        self.admitted = self.admitted.min(offset);
    }

    /// Taken up before, and waiting for something else than its turn.
    fn is_taken_up(&self, id: DeliveryId) -> bool {
        self.in_flight.contains(&id) || self.is_held(id.offset) || self.postponed.contains(id)
    }

    pub fn redrive(&mut self, id: DeliveryId) {
        self.ready.push_back(id);
    }

    /// A delivery that could not be attempted; it is not counted.
    pub fn postpone(&mut self, id: DeliveryId, until_ms: u64) {
        self.in_flight.remove(&id);
        self.discarded.remove(&id);
        self.postponed.push(until_ms, id);
    }

    /// Sends nothing before a time, because the sink has asked for that.
    pub fn keep_quiet(&mut self, until_ms: u64, now_ms: u64) {
        if self.quiet_until(now_ms).is_none() {
            // Of what waits, each is to be looked at with that in mind. When it is prolonged, they are at the end it had.
            self.retry_due_ms = 0;
        }
        self.quiet_until_ms = self.quiet_until_ms.max(until_ms);
    }

    /// Until when the sink wants no request, if that is still to come.
    pub fn quiet_until(&self, now_ms: u64) -> Option<u64> {
        (now_ms < self.quiet_until_ms).then_some(self.quiet_until_ms)
    }

    /// What is in flight is not tried again.
    pub fn discard_in_flight(&mut self) {
        self.discarded.extend(&self.in_flight);
    }

    /// How many attempts are under way that will not be followed by another.
    pub fn discarded_in_flight(&self) -> usize {
        self.discarded.len()
    }

    pub fn is_discarded(&self, id: DeliveryId) -> bool {
        self.discarded.contains(&id)
    }

    /// An attempt has ended; `due_ms` is when the next one may be made, and without it there will be none.
    pub fn ended(&mut self, id: DeliveryId, due_ms: Option<u64>, state: Option<&TriggerState>) {
        self.in_flight.remove(&id);
        self.discarded.remove(&id);
        match due_ms {
            Some(due) => self.retry_due_ms = self.retry_due_ms.min(due),
            None => self.release_key(id, state),
        }
    }

    fn release_key(&mut self, id: DeliveryId, state: Option<&TriggerState>) {
        let Some(next) = self.order.as_mut().and_then(|order| order.release(id)) else { return };
        let was_tried = state.and_then(|state| state.slot(next)).is_some_and(|slot| slot.attempts > 0);
        if was_tried {
            // It has its turn, and a time to wait for besides.
            self.retry_due_ms = 0;
        } else {
            self.ready.push_front(next);
        }
    }

    /// Forgets waits, so that every waiting retry goes at once.
    pub fn retry_all_now(&mut self, state: &TriggerState) {
        self.quiet_until_ms = 0;
        while let Some(id) = self.postponed.pop_due(u64::MAX) {
            self.ready.push_back(id);
        }
        let order = self.order.as_ref();
        let waiting =
            state.outstanding.iter().filter(|slot| slot.attempts > 0 && slot.offset() < self.admitted);
        let waiting =
            waiting.map(|slot| DeliveryId { trigger: self.active.id, offset: slot.offset(), redrive: 0 });
        let redriven = state.redriven.iter().filter(|(_, slot)| slot.attempts > 0);
        let redriven = redriven.map(|((offset, n), _)| DeliveryId {
            trigger: self.active.id,
            offset: *offset,
            redrive: *n,
        });
        let ready: HashSet<DeliveryId> = self.ready.iter().copied().collect();
        let is_free = |id: &DeliveryId| {
            !self.in_flight.contains(id)
                && !ready.contains(id)
                && order.is_none_or(|order| !order.is_held(id.offset))
        };
        let all: Vec<_> = waiting.chain(redriven).filter(is_free).collect();
        self.ready.extend(all);
    }

    /// The next attempt to make, if there is one now; else when to ask again.
    pub fn claim(
        &mut self,
        state: &TriggerState,
        base_ms: u64,
        now_ms: u64,
        reader: &Reader,
    ) -> Result<Step, Option<u64>> {
        if state.paused.is_some() || self.in_flight.len() >= self.active.config.delivery.concurrency {
            return Err(None);
        }
        if self.drains_first && !self.in_flight.is_empty() {
            return Err(None);
        }
        self.drains_first = false;
        self.look_at_retries(state, base_ms, now_ms);
        let (id, record) = match self.next(state, now_ms, reader) {
            Next::Delivery(id, record) => (id, record),
            Next::LookUp(look_up) => return Ok(Step::LookUp(look_up)),
            Next::Nothing => {
                return Err(self.next_due(state).into_iter().chain(self.quiet_until(now_ms)).min());
            }
        };
        if let Some(Err(at)) = self.bucket.as_mut().map(|bucket| bucket.take(now_ms)) {
            self.ready.push_front(id);
            return Err(Some(at));
        }
        let slot = state.slot(id).copied();
        let attempts = slot.map_or(0, |slot| u32::from(slot.attempts));
        self.in_flight.insert(id);
        let first_ms = slot.and_then(|slot| slot.first_ms(base_ms));
        let trigger = Arc::clone(&self.active);
        Ok(Step::Attempt(Claim { id, attempt: attempts + 1, first_ms, trigger, record }))
    }

    fn next_due(&self, state: &TriggerState) -> Option<u64> {
        let retry = (self.retry_due_ms != u64::MAX
            && !(state.outstanding.is_empty() && state.redriven.is_empty()))
        .then_some(self.retry_due_ms);
        retry.into_iter().chain(self.postponed.first_ms()).min()
    }

    /// Collects the retries that are due. One look reads every slot, so the next one waits in proportion.
    fn look_at_retries(&mut self, state: &TriggerState, base_ms: u64, now_ms: u64) {
        while let Some(id) = self.postponed.pop_due(now_ms) {
            if self.lacks_key(id) {
                // It is taken up anew, and waits for its turn.
                self.matched(id.offset);
            } else {
                self.ready.push_back(id);
            }
        }
        match self.quiet_until(now_ms) {
            Some(_) => self.shelve(state, base_ms, now_ms),
            None => self.ready.extend(self.shelved.drain(..)),
        }
        if now_ms < self.retry_due_ms || !self.ready.is_empty() {
            return;
        }
        let mut due = Vec::new();
        let mut next = u64::MAX;
        let trigger = self.active.id;
        let own = state.outstanding.iter().filter(|slot| slot.offset() < self.admitted).map(|slot| (slot, 0));
        let redriven = state.redriven.iter().map(|((_, n), slot)| (slot, *n));
        for (slot, redrive) in own.chain(redriven).filter(|(slot, _)| slot.attempts > 0) {
            let at = self.due_ms(slot, state, base_ms, now_ms);
            if at > now_ms {
                next = next.min(at);
                continue;
            }
            let id = DeliveryId { trigger, offset: slot.offset(), redrive };
            match self.in_flight.contains(&id)
                || self.postponed.contains(id)
                || (redrive == 0 && self.is_held(id.offset))
            {
                true => {}
                false if due.len() == READY_MAX => next = now_ms,
                false => due.push((at, id)),
            }
        }
        due.sort_unstable();
        let cost_ms = state.outstanding.len() as u64 / 20_000;
        self.retry_due_ms = next.max(now_ms + cost_ms);
        self.ready.extend(due.into_iter().map(|(_, id)| id));
    }

    /// When a delivery that was tried is looked at again. While the sink wants no request, that is not before its age is
    /// over, when none is made.
    fn due_ms(&self, slot: &Slot, state: &TriggerState, base_ms: u64, now_ms: u64) -> u64 {
        let due = slot.due_ms(base_ms);
        let Some(quiet_until) = self.quiet_until(now_ms) else { return due };
        let age_ms = slot.first_ms(base_ms).map_or(0, |first| state.active_ms(now_ms).saturating_sub(first));
        let left = self.active.policy.left(Duration::from_millis(age_ms));
        due.max(quiet_until.min(now_ms.saturating_add(left.as_millis() as u64)))
    }

    /// Sets aside what is ready, because the sink wants no request. What was tried before is found again by its time, and
    /// goes on now if its age is over.
    fn shelve(&mut self, state: &TriggerState, base_ms: u64, now_ms: u64) {
        for id in std::mem::take(&mut self.ready) {
            let Some(slot) = state.slot(id) else { continue };
            if slot.attempts == 0 {
                self.shelved.push_back(id);
                continue;
            }
            match self.due_ms(slot, state, base_ms, now_ms) {
                due if due <= now_ms => self.ready.push_back(id),
                due => self.retry_due_ms = self.retry_due_ms.min(due),
            }
        }
    }

    fn next(&mut self, state: &TriggerState, now_ms: u64, reader: &Reader) -> Next {
        while let Some(id) = self.ready.pop_front() {
            if state.slot(id).is_some() && !self.in_flight.contains(&id) {
                return Next::Delivery(id, reader.recent(id.offset));
            }
        }
        let unsure = self.order.as_ref().and_then(Order::unsure);
        if self.quiet_until(now_ms).is_some() || unsure.is_some_and(|id| self.in_flight.contains(&id)) {
            return Next::Nothing;
        }
        loop {
            let Some(slot) = state.outstanding.iter_from(self.admitted).next().copied() else {
                return Next::Nothing;
            };
            let id = DeliveryId { trigger: self.active.id, offset: slot.offset(), redrive: 0 };
            if self.is_taken_up(id) {
                self.admitted = slot.offset().next();
                continue;
            }
            let record = reader.recent(id.offset);
            match self.take_key(id, record.as_deref()) {
                Turn::Its => {}
                Turn::Held => {
                    self.admitted = slot.offset().next();
                    continue;
                }
                Turn::Unknown => return self.look_up(state),
            }
            self.admitted = slot.offset().next();
            if slot.attempts > 0 {
                // It was tried before a restart and waits for its time.
                self.retry_due_ms = 0;
                continue;
            }
            return Next::Delivery(id, record);
        }
    }

    /// Whether it is a delivery's turn, as far as order goes.
    fn take_key(&mut self, id: DeliveryId, record: Option<&Record>) -> Turn {
        let Some(order) = &mut self.order else { return Turn::Its };
        if order.has_key(id) {
            return Turn::Its;
        }
        let at_hand = || key_at_hand(&self.active.config.delivery.order, record?, &self.hasher);
        match order.known_key(id.offset).or_else(at_hand) {
            None => Turn::Unknown,
            Some(Key::Of(key)) if order.take(id, key) => Turn::Its,
            Some(Key::Of(_)) => Turn::Held,
            Some(Key::None) => {
                self.active.counters.unkeyed.fetch_add(1, Ordering::Relaxed);
                Turn::Its
            }
            Some(Key::Unreadable) => {
                order.pass_unsure(id);
                Turn::Its
            }
        }
    }

    /// Ends the wait of others for the key of a delivery; false if they did not wait.
    pub fn forget_unsure(&mut self, id: DeliveryId) -> bool {
        self.order.as_mut().is_some_and(|order| order.forget_unsure(id))
    }

    /// Whether it was not told from others of its key, if it has one.
    pub fn lacks_key(&self, id: DeliveryId) -> bool {
        id.redrive == 0 && self.order.as_ref().is_some_and(|order| !order.has_key(id))
    }

    /// Has the keys of what comes next looked up, unless that is under way.
    fn look_up(&mut self, state: &TriggerState) -> Next {
        let Some(order) = &mut self.order else { return Next::Nothing };
        if !order.begin_look_up() {
            return Next::Nothing;
        }
        let missing = state.outstanding.iter_from(self.admitted).map(Slot::offset);
        let offsets = missing.filter(|offset| !order.is_held(*offset)).take(LOOK_UP_MAX).collect();
        Next::LookUp(LookUp { trigger: Arc::clone(&self.active), hasher: self.hasher.clone(), offsets })
    }

    /// Takes keys that were looked up, if they are still those that order this trigger.
    pub fn looked_up(&mut self, look_up: &LookUp, keys: HashMap<Offset, Key>) {
        let is_current = look_up.trigger.config.delivery.order == self.active.config.delivery.order;
        if let Some(order) = self.order.as_mut().filter(|_| is_current) {
            order.end_look_up(keys);
        }
    }

    /// Until when the rate holds back what else could go, if it does.
    pub fn rate_holds_until(&self, now_ms: u64) -> Option<u64> {
        let has_room = self.in_flight.len() < self.active.config.delivery.concurrency;
        self.bucket.as_ref().filter(|_| has_room && !self.drains_first)?.empty_until(now_ms)
    }

    /// Waits for what was begun before its order changed.
    pub fn is_draining(&self) -> bool {
        self.drains_first
    }

    /// Held back because an earlier event with the same key is not settled.
    pub fn is_held(&self, offset: Offset) -> bool {
        self.order.as_ref().is_some_and(|order| order.is_held(offset))
    }
}

/// Redriven deliveries that have not been attempted yet.
fn fresh_redrives(trigger: TriggerId, state: &TriggerState) -> impl Iterator<Item = DeliveryId> {
    let fresh = state.redriven.iter().filter(|(_, slot)| slot.attempts == 0);
    fresh.map(move |((offset, redrive), _)| DeliveryId { trigger, offset: *offset, redrive: *redrive })
}
