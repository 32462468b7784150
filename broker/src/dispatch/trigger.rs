//! One trigger at work: what it may send next.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_config as config;

use crate::delivery::{Reason, RetryPolicy};
use crate::routing::FilterErrors;
use crate::sink::Sink;
use crate::store::{DeliveryId, Offset, Reader, Record, TriggerId, TriggerState};

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
    postponed: Vec<(u64, DeliveryId)>,
    order: Option<Order>,
    /// When the earliest waiting retry is due, as far as the last look at them all says.
    retry_due_ms: u64,
    bucket: Option<Bucket>,
    pub last_error: Option<LastError>,
    /// Whether the last attempt succeeded: the first failure after that is a warning.
    pub is_well: bool,
    pub is_catching_up: bool,
    /// Of the books, when this process took the trigger up: its counters start at 0.
    pub unmatched_at_start: u64,
}

/// Keys of an ordered trigger that are taken, and who waits for them.
#[derive(Default)]
struct Order {
    keys: HashMap<DeliveryId, Box<[u8]>>,
    busy: HashMap<Box<[u8]>, VecDeque<Offset>>,
    held: HashSet<Offset>,
}

/// One second's worth of deliveries.
struct Bucket {
    per_second: f64,
    tokens: f64,
    at_ms: u64,
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
            postponed: Vec::new(),
            order,
            retry_due_ms: 0,
            bucket: None,
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
        self.active = active;
        self.reset_rate();
        if !same_order {
            // Everything that waits is taken up anew, in log order, under the new keys.
            self.order = (self.active.config.delivery.order != config::Order::None).then(Order::default);
            self.admitted = Offset(0);
            self.ready.clear();
        }
        // Redrives are in no log order to be found in again: those that were dropped here, or came while it was frozen.
        let known: HashSet<DeliveryId> = self.ready.iter().copied().collect();
        let is_new = |id: &DeliveryId| !known.contains(id) && !self.is_taken_up(*id);
        let missing: Vec<_> = fresh_redrives(self.active.id, state).filter(is_new).collect();
        self.ready.extend(missing);
    }

    fn reset_rate(&mut self) {
        let rate = self.active.config.delivery.rate;
        self.bucket = rate.map(|rate| Bucket {
            per_second: rate.per_second,
            tokens: rate.per_second.max(1.0),
            at_ms: 0,
        });
    }

    /// A match was found behind what has been taken up (the past of a new trigger is routed while new events come in):
    /// goes back to it.
    pub fn matched(&mut self, offset: Offset) {
        self.admitted = self.admitted.min(offset);
    }

    /// Taken up before, and waiting for something else than its turn.
    fn is_taken_up(&self, id: DeliveryId) -> bool {
        self.in_flight.contains(&id)
            || self.is_held(id.offset)
            || self.postponed.iter().any(|(_, postponed)| *postponed == id)
    }

    pub fn redrive(&mut self, id: DeliveryId) {
        self.ready.push_back(id);
    }

    /// A delivery that could not be attempted; it is not counted.
    pub fn postpone(&mut self, id: DeliveryId, until_ms: u64) {
        self.in_flight.remove(&id);
        self.postponed.push((until_ms, id));
    }

    /// An attempt has ended; `is_settled` when there will be no other.
    pub fn ended(&mut self, id: DeliveryId, due_ms: Option<u64>) {
        self.in_flight.remove(&id);
        match due_ms {
            Some(due) => self.retry_due_ms = self.retry_due_ms.min(due),
            None => self.release_key(id),
        }
    }

    fn release_key(&mut self, id: DeliveryId) {
        let Some(order) = &mut self.order else { return };
        if id.redrive == 0 && order.held.remove(&id.offset) {
            // It ended without an attempt; whoever has the key passes over it.
            return;
        }
        let Some(key) = order.keys.remove(&id) else { return };
        let Some(waiting) = order.busy.get_mut(&key) else { return };
        while let Some(offset) = waiting.pop_front() {
            if order.held.remove(&offset) {
                let next = DeliveryId { trigger: id.trigger, offset, redrive: 0 };
                order.keys.insert(next, key);
                self.ready.push_front(next);
                return;
            }
        }
        order.busy.remove(&key);
    }

    /// Forgets waits, so that every waiting retry goes at once.
    pub fn retry_all_now(&mut self, state: &TriggerState) {
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
                && order.is_none_or(|order| !order.held.contains(&id.offset))
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
    ) -> Result<Claim, Option<u64>> {
        if state.paused.is_some() || self.in_flight.len() >= self.active.config.delivery.concurrency {
            return Err(None);
        }
        self.look_at_retries(state, base_ms, now_ms);
        let Some((id, record)) = self.next(state, reader) else { return Err(self.next_due(state)) };
        if let Some(at) = self.wait_for_token(now_ms) {
            self.ready.push_front(id);
            return Err(Some(at));
        }
        let slot = state.slot(id).copied();
        let attempts = slot.map_or(0, |slot| u32::from(slot.attempts));
        self.in_flight.insert(id);
        let first_ms = slot.and_then(|slot| slot.first_ms(base_ms));
        Ok(Claim { id, attempt: attempts + 1, first_ms, trigger: Arc::clone(&self.active), record })
    }

    fn next_due(&self, state: &TriggerState) -> Option<u64> {
        let retry = (self.retry_due_ms != u64::MAX
            && !(state.outstanding.is_empty() && state.redriven.is_empty()))
        .then_some(self.retry_due_ms);
        retry.into_iter().chain(self.postponed.iter().map(|(at, _)| *at)).min()
    }

    /// Collects the retries that are due. One look reads every slot, so the next one waits in proportion.
    fn look_at_retries(&mut self, state: &TriggerState, base_ms: u64, now_ms: u64) {
        if !self.postponed.is_empty() {
            let (ready, left) = self.postponed.drain(..).partition(|(at, _)| *at <= now_ms);
            self.postponed = left;
            let ready: Vec<(u64, DeliveryId)> = ready;
            self.ready.extend(ready.into_iter().map(|(_, id)| id));
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
            let id = DeliveryId { trigger, offset: slot.offset(), redrive };
            if self.in_flight.contains(&id) {
                continue;
            }
            match slot.due_ms(base_ms) {
                at if at > now_ms => next = next.min(at),
                _ if due.len() == READY_MAX => next = now_ms,
                at => due.push((at, id)),
            }
        }
        due.sort_unstable();
        let cost_ms = state.outstanding.len() as u64 / 20_000;
        self.retry_due_ms = next.max(now_ms + cost_ms);
        self.ready.extend(due.into_iter().map(|(_, id)| id));
    }

    fn next(&mut self, state: &TriggerState, reader: &Reader) -> Option<(DeliveryId, Option<Arc<Record>>)> {
        while let Some(id) = self.ready.pop_front() {
            if state.slot(id).is_some() && !self.in_flight.contains(&id) {
                return Some((id, reader.recent(id.offset)));
            }
        }
        let trigger = self.active.id;
        loop {
            let slot = *state.outstanding.iter_from(self.admitted).next()?;
            let id = DeliveryId { trigger, offset: slot.offset(), redrive: 0 };
            self.admitted = slot.offset().next();
            if self.is_taken_up(id) {
                continue;
            }
            let record = reader.recent(id.offset);
            if let Some(order) = self.order.as_mut().filter(|order| !order.keys.contains_key(&id)) {
                let record = record.clone().or_else(|| reader.read(id.offset).ok());
                match record.as_ref().and_then(|record| order_key(&self.active.config.delivery.order, record))
                {
                    None => {
                        self.active.counters.unkeyed.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(key) => {
                        if let Some(waiting) = order.busy.get_mut(&key) {
                            waiting.push_back(id.offset);
                            order.held.insert(id.offset);
                            continue;
                        }
                        order.busy.insert(key.clone(), VecDeque::new());
                        order.keys.insert(id, key);
                    }
                }
            }
            if slot.attempts > 0 {
                // It was tried before a restart and waits for its time.
                self.retry_due_ms = 0;
                continue;
            }
            return Some((id, record));
        }
    }

    /// Takes a token, or says when there will be one.
    fn wait_for_token(&mut self, now_ms: u64) -> Option<u64> {
        let bucket = self.bucket.as_mut()?;
        let passed = now_ms.saturating_sub(bucket.at_ms) as f64 / 1e3;
        bucket.tokens = (bucket.tokens + passed * bucket.per_second).min(bucket.per_second.max(1.0));
        bucket.at_ms = now_ms;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return None;
        }
        Some(now_ms + (((1.0 - bucket.tokens) / bucket.per_second) * 1e3).ceil().max(1.0) as u64)
    }

    /// Held back because an earlier event with the same key is not settled.
    pub fn is_held(&self, offset: Offset) -> bool {
        self.order.as_ref().is_some_and(|order| order.held.contains(&offset))
    }
}

/// Redriven deliveries that have not been attempted yet.
fn fresh_redrives(trigger: TriggerId, state: &TriggerState) -> impl Iterator<Item = DeliveryId> {
    let fresh = state.redriven.iter().filter(|(_, slot)| slot.attempts == 0);
    fresh.map(move |((offset, redrive), _)| DeliveryId { trigger, offset: *offset, redrive: *redrive })
}

/// What events of a trigger are ordered by; `None` when this one has no key.
fn order_key(order: &config::Order, record: &Record) -> Option<Box<[u8]>> {
    match order {
        config::Order::None => None,
        config::Order::Attribute(name) => record.event.text(name).map(|text| text.as_bytes().into()),
        config::Order::Data(path) => {
            let data: serde_json::Value = serde_json::from_slice(&record.event.data()?.bytes).ok()?;
            let found = path.iter().try_fold(&data, |value, part| value.get(part))?;
            Some(found.to_string().into_bytes().into())
        }
    }
}
