//! One attempt after another: send, decide, record.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use sluice_adapters::Refusal;
use sluice_schemas::Event;
use tracing::{debug, error, warn};

use super::core::{Core, ended_without_attempt, pause};
use super::courier::Letter;
use super::order::has_key;
use super::trigger::{Active, Claim, LastError, Runtime, Step};
use super::{Dispatch, history};
use crate::delivery::{Disposition, Failure, Outcome, Reason};
use crate::sink;
use crate::store::{
    Attempted, DeliveryId, LogRecord, NewEvent, Next, Paused, ReadError, Record, clock, digest,
};
use crate::transform;

/// An event that cannot be read now is looked at again after this.
const UNREADABLE_WAIT_MS: u64 = 60_000;
/// One whose attempt panicked, after this.
const PANIC_WAIT_MS: u64 = 1000;
/// A trigger whose sink's reply found no room in the store waits so long: each attempt may come to the same.
const FULL_WAIT_MS: u64 = 10_000;

/// What a sink's answer comes to.
enum Verdict {
    Accepted,
    /// With a reply, and both are on the log.
    Replied,
    Failed(Outcome),
    /// With a reply for which the store has no room.
    NoRoom(Refusal),
}

/// Says that a claim is over, whatever becomes of its task.
struct InFlight {
    dispatch: Dispatch,
    /// Set while the attempt has not been settled.
    id: Option<DeliveryId>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(id) = self.id
            // Else the runtime ends with the attempt under way, which is made again at the next start.
            && std::thread::panicking()
        {
            // The task panicked: the event is not lost, it is attempted again, and the others go on.
            error!(offset = %id.offset, "an attempt ended in a panic");
            put_back(&self.dispatch, id, PANIC_WAIT_MS);
        }
        self.dispatch.shared.in_flight.send_modify(|count| *count -= 1);
    }
}

/// Makes an attempt and then whatever the trigger has next, until it has nothing.
pub async fn make(dispatch: Dispatch, claim: Claim) {
    let mut next = Some(claim);
    while let Some(claim) = next {
        let trigger = claim.id.trigger;
        let mut in_flight = InFlight { dispatch: dispatch.clone(), id: Some(claim.id) };
        one(&dispatch, claim).await;
        in_flight.id = None;
        history::catch_up_if_behind(&dispatch, trigger);
        let step = dispatch.core().step(trigger);
        next = match step {
            Some(Step::Attempt(claim)) => Some(claim),
            Some(step @ Step::LookUp(_)) => {
                dispatch.start(vec![step]);
                None
            }
            None => None,
        };
    }
}

async fn one(dispatch: &Dispatch, claim: Claim) {
    let Claim { id, attempt, first_ms, trigger, record } = claim;
    let record = match record {
        Some(record) => record,
        None => match history::read(dispatch, id.offset).await {
            Ok(record) if is_out_of_turn(dispatch, id, &record) => return put_back(dispatch, id, 0),
            Ok(record) => {
                let_others_go(dispatch, id);
                record
            }
            Err(error) => {
                unreadable(dispatch, &trigger, id, &error);
                return let_others_go(dispatch, id);
            }
        },
    };
    Delivery { dispatch, id, attempt, first_ms, trigger, record }.attempt().await;
}

/// A delivery and its next attempt.
struct Delivery<'d> {
    dispatch: &'d Dispatch,
    id: DeliveryId,
    /// From 1.
    attempt: u32,
    /// When the first one was made, on the trigger's clock; `None` when this is it.
    first_ms: Option<u64>,
    /// As it was configured when this attempt was begun.
    trigger: Arc<Active>,
    record: Arc<Record>,
}

impl Delivery<'_> {
    async fn attempt(&self) {
        let (at_ms, started) = (clock::wall_ms(), clock::steady_ms());
        if self.attempt > 1 && self.trigger.policy.is_expired(self.age(started)) {
            return self.dead(ended_without_attempt(self.id, Reason::Age), Failure::default());
        }
        let answer = match self.send().await {
            Ok(answer) => answer,
            Err(detail) => return self.untransformed(&detail),
        };
        let counters = &self.trigger.counters;
        if self.attempt > 1 {
            counters.retries.fetch_add(1, Ordering::Relaxed);
        }
        let now = clock::steady_ms();
        counters.took(now - started);
        let attempted = Attempted {
            id: self.id,
            attempt: self.attempt,
            at_ms,
            duration_ms: u32::try_from(now - started).unwrap_or(u32::MAX),
            status: answer.status,
            error: None,
            body: Bytes::new(),
            owes_letter: false,
            next: Next::Delivered,
        };
        match self.answered(answer.outcome, &attempted).await {
            Verdict::Accepted => self.accepted(attempted),
            Verdict::Replied => self.settle_accepted(&mut self.dispatch.core(), &attempted),
            Verdict::Failed(outcome) => self.failed(&outcome, attempted, now),
            Verdict::NoRoom(refusal) => self.wait_for_room(attempted, &refusal),
        }
    }

    /// How old it is, pauses of its trigger left out.
    fn age(&self, now: u64) -> Duration {
        let Some(first) = self.first_ms else { return Duration::ZERO };
        let core = self.dispatch.core();
        let state = core.state.triggers.get(&self.id.trigger);
        let active_ms = state.map_or(now, |state| state.active_ms(now));
        Duration::from_millis(active_ms.saturating_sub(first))
    }

    /// Transforms the event, if the trigger says so, and has the sink deliver it. An error is why it cannot be transformed.
    async fn send(&self) -> Result<sink::Answer, String> {
        let (config, shared) = (&self.trigger.config, &self.dispatch.shared);
        let transformed = match &config.transform {
            None => None,
            Some(transform) => {
                match transform::apply(&shared.transforms, transform, &self.record.event).await {
                    Ok(event) => Some(event),
                    Err(transform::Failed::Always(detail)) => return Err(detail),
                    Err(error @ transform::Failed::NotNow(_)) => {
                        let cause = Failure { error: error.to_string(), ..Failure::default() };
                        let outcome = Outcome::Retriable { cause, retry_after: None };
                        return Ok(sink::Answer { status: None, outcome });
                    }
                }
            }
        };
        let attempt = sink::Attempt {
            event: transformed.as_ref().unwrap_or(&self.record.event),
            trace: self.record.trace.as_ref(),
            timeout: config.delivery.timeout,
            config: &config.delivery,
            limits: &shared.reply_limits,
        };
        Ok(self.trigger.sink.deliver(attempt).await)
    }

    /// Stores what the sink replied, if it did, and so says what its answer comes to.
    async fn answered(&self, outcome: Outcome, attempted: &Attempted) -> Verdict {
        match outcome {
            Outcome::Accepted { reply } if reply.is_empty() => Verdict::Accepted,
            Outcome::Accepted { reply } => self.store_reply(reply, attempted).await,
            failure @ (Outcome::Retriable { .. } | Outcome::Rejected { .. }) => Verdict::Failed(failure),
        }
    }

    /// Stores the events a sink answered with, together with the outcome of the delivery they answer.
    async fn store_reply(&self, reply: Vec<Event>, attempted: &Attempted) -> Verdict {
        let (cause, hops_max) = (&self.record, self.dispatch.shared.hops_max);
        let hops = cause.hops + 1;
        let failure = |error: String| Failure { error, ..Failure::default() };
        let rejected = |error, reason| Verdict::Failed(Outcome::Rejected { cause: failure(error), reason });
        if hops > hops_max {
            return rejected(format!("the reply would be hop {hops} of at most {hops_max}"), Reason::Loop);
        }
        let entry_point = format!("reply/{}", self.id.trigger.0);
        let events = reply.into_iter().map(|event| NewEvent {
            key: digest::key(&entry_point, &event),
            content: digest::content(&event),
            unique: crate::intake::is_unique(&event),
            via: Arc::from("reply"),
            trace: cause.trace.clone(),
            parent: Some(cause.offset),
            hops,
            event: Arc::new(event),
        });
        let outcome = LogRecord::Outcomes(vec![attempted.clone()]);
        let refusal = match self.dispatch.log().append(events.collect(), vec![outcome]).await {
            Ok(receipts) => {
                let counters = self.dispatch.replies();
                for receipt in &receipts {
                    let count = if receipt.duplicate { &counters.duplicates } else { &counters.accepted };
                    count.fetch_add(1, Ordering::Relaxed);
                }
                self.trigger.counters.replies.fetch_add(1, Ordering::Relaxed);
                return Verdict::Replied;
            }
            Err(refusal) => refusal,
        };
        let error = format!("the reply was not stored: {refusal}");
        match refusal {
            Refusal::Conflict { .. } | Refusal::TooLarge { .. } => rejected(error, Reason::Reply),
            Refusal::Full { .. } => Verdict::NoRoom(refusal),
            Refusal::Unavailable { .. } => {
                Verdict::Failed(Outcome::Retriable { cause: failure(error), retry_after: None })
            }
        }
    }

    fn accepted(&self, attempted: Attempted) {
        let mut core = self.dispatch.core();
        self.settle_accepted(&mut core, &attempted);
        core.log.append_later(vec![LogRecord::Outcomes(vec![attempted])]);
    }

    /// Folds in that the sink accepted; the caller writes the record, or has.
    fn settle_accepted(&self, core: &mut Core, attempted: &Attempted) {
        self.trigger.counters.accepted.fetch_add(1, Ordering::Relaxed);
        core.settle(attempted);
        if let Some(runtime) = core.runtimes.get_mut(&self.id.trigger) {
            runtime.is_well = true;
        }
    }

    /// A trigger whose sink replies waits while the store has no room for a reply, and so does this delivery, unless what was
    /// pending has been discarded meanwhile.
    fn wait_for_room(&self, mut attempted: Attempted, refusal: &Refusal) {
        let error = format!("the reply was not stored: {refusal}");
        debug!(trigger = %self.trigger.name, offset = %self.id.offset, "{error}");
        let now = clock::steady_ms();
        let mut core = self.dispatch.core();
        if let Some(runtime) = core.runtime_mut(self.id.trigger) {
            if runtime.is_discarded(self.id) {
                drop(core);
                attempted.next = Next::Dead(Reason::Discarded);
                attempted.error = Some(error.as_str().into());
                return self.dead(attempted, Failure { error, ..Failure::default() });
            }
            runtime.keep_quiet(now + FULL_WAIT_MS, now);
            runtime.last_error = Some(LastError { at_ms: attempted.at_ms, status: None, error });
            runtime.postpone(self.id, now + FULL_WAIT_MS);
        }
        core.wake(self.id.trigger, now + FULL_WAIT_MS);
    }

    /// Decides what becomes of it, whose attempt has failed now.
    fn failed(&self, outcome: &Outcome, mut attempted: Attempted, now: u64) {
        let failure = self.note_failure(outcome, &attempted);
        attempted.status = failure.status.or(attempted.status);
        attempted.error = Some(failure.error.as_str().into());
        attempted.body = failure.body.clone();
        self.note_quiet(outcome, now);
        let jitter = (self.dispatch.shared.jitter)();
        match self.trigger.policy.decide(self.attempt, outcome, self.age(now), jitter) {
            Disposition::Settle => self.accepted(attempted),
            Disposition::RetryIn(wait) => {
                let begun_ms = now - u64::from(attempted.duration_ms);
                attempted.next = Next::RetryAt { begun_ms, due_ms: now + wait.as_millis() as u64 };
                match self.try_again(attempted) {
                    Ok(()) => {
                        debug!(trigger = %self.trigger.name, offset = %self.id.offset, attempt = self.attempt, "attempt failed, retry in {wait:?}");
                    }
                    Err(mut attempted) => {
                        attempted.next = Next::Dead(Reason::Discarded);
                        self.dead(attempted, failure);
                    }
                }
            }
            Disposition::DeadLetter(reason) => {
                attempted.next = Next::Dead(reason);
                self.dead(attempted, failure);
            }
        }
    }

    /// Counts a failure and says so where someone looks: as a warning when it follows a success.
    fn note_failure(&self, outcome: &Outcome, attempted: &Attempted) -> Failure {
        let trigger = &self.trigger;
        let failure = match outcome {
            Outcome::Retriable { cause, .. } => {
                trigger.counters.retriable.fetch_add(1, Ordering::Relaxed);
                cause.clone()
            }
            Outcome::Rejected { cause, .. } => {
                trigger.counters.rejected.fetch_add(1, Ordering::Relaxed);
                cause.clone()
            }
            Outcome::Accepted { .. } => Failure::default(),
        };
        let mut core = self.dispatch.core();
        if let Some(runtime) = core.runtimes.get_mut(&trigger.id) {
            let error = failure.error.clone();
            runtime.last_error = Some(LastError { at_ms: attempted.at_ms, status: failure.status, error });
            if std::mem::take(&mut runtime.is_well) {
                let url = trigger.sink.url();
                warn!(trigger = %trigger.name, offset = %self.id.offset, attempt = self.attempt, sink = url, "delivery failed: {}", failure.error);
            }
        }
        failure
    }

    /// Leaves a sink alone that wants to be, unless it is not the trigger's any more.
    fn note_quiet(&self, outcome: &Outcome, now: u64) {
        let Some(wait) = outcome.wants_quiet() else { return };
        let mut core = self.dispatch.core();
        if let Some(runtime) = core.runtime_mut(self.id.trigger)
            && runtime.active.config.sink == self.trigger.config.sink
        {
            runtime.keep_quiet(now + wait.as_millis() as u64, now);
        }
    }

    /// Records when it is tried again. Gives that back if what was pending has been discarded meanwhile.
    fn try_again(&self, attempted: Attempted) -> Result<(), Attempted> {
        let mut core = self.dispatch.core();
        if core.runtime_mut(self.id.trigger).is_some_and(|runtime| runtime.is_discarded(self.id)) {
            return Err(attempted);
        }
        core.settle(&attempted);
        core.log.append_later(vec![LogRecord::Outcomes(vec![attempted])]);
        Ok(())
    }

    /// Ends it when its event cannot be transformed: the sink hears nothing of it, the dead letter has the event as it came.
    fn untransformed(&self, detail: &str) {
        let error = format!("{}: {detail}", Reason::Transform.detail());
        let mut attempted = ended_without_attempt(self.id, Reason::Transform);
        attempted.error = Some(error.as_str().into());
        if let Some(runtime) = self.dispatch.core().runtimes.get_mut(&self.id.trigger) {
            let error = error.clone();
            runtime.last_error = Some(LastError { at_ms: attempted.at_ms, status: None, error });
        }
        self.dead(attempted, Failure { error, ..Failure::default() });
    }

    /// Writes a dead letter, and pauses the trigger when its sink is gone for good. The dead-letter sink is told by the courier.
    fn dead(&self, mut attempted: Attempted, failure: Failure) {
        let Next::Dead(reason) = attempted.next else { return };
        let (id, trigger) = (self.id, &self.trigger);
        let attempts = if attempted.attempt > 0 { attempted.attempt } else { self.attempt - 1 };
        trigger.counters.dead[reason as usize].fetch_add(1, Ordering::Relaxed);
        warn!(trigger = %trigger.name, offset = %id.offset, attempt = attempts, "dead-lettered event: {}", reason.detail());
        {
            let mut core = self.dispatch.core();
            if trigger.dead_letter.is_some() {
                attempted.owes_letter = true;
                let letter = Letter { record: Arc::clone(&self.record), attempts, reason, failure };
                let Core { fresh, state, .. } = &mut *core;
                fresh.put(id, letter, &state.owed);
            }
            core.settle(&attempted);
            let mut records = vec![LogRecord::Outcomes(vec![attempted])];
            let is_its_sink = |runtime: &mut Runtime| runtime.active.config.sink == trigger.config.sink;
            if reason == Reason::Gone && core.runtime_mut(id.trigger).is_some_and(is_its_sink) {
                let pause = pause(id.trigger, Some(&Paused::gone(self.trigger.sink.url())));
                core.apply(&pause);
                records.push(pause);
                warn!(trigger = %trigger.name, "paused trigger: its sink is gone (410)");
            }
            core.log.append_later(records);
        }
        self.dispatch.shared.owed.notify_one();
    }
}

/// Whether an event has a key that could not be read when it was asked for: others of that key may be under way.
fn is_out_of_turn(dispatch: &Dispatch, id: DeliveryId, record: &Record) -> bool {
    let order = {
        let core = dispatch.core();
        let runtime = core.runtimes.get(&id.trigger).filter(|runtime| runtime.lacks_key(id));
        runtime.map(|runtime| runtime.active.config.delivery.order.clone())
    };
    order.is_some_and(|order| has_key(&order, record))
}

/// What waited for this delivery's key to be known waits no longer: it has none, or it still cannot be read.
fn let_others_go(dispatch: &Dispatch, id: DeliveryId) {
    let mut core = dispatch.core();
    if core.runtimes.get_mut(&id.trigger).is_some_and(|runtime| runtime.forget_unsure(id)) {
        core.wake(id.trigger, clock::steady_ms());
    }
}

/// Looks at a delivery again after a while; this was no attempt.
fn put_back(dispatch: &Dispatch, id: DeliveryId, wait_ms: u64) {
    let until = clock::steady_ms() + wait_ms;
    let mut core = dispatch.core();
    if let Some(runtime) = core.runtime_mut(id.trigger) {
        runtime.postpone(id, until);
    }
    core.wake(id.trigger, until);
}

/// An event that cannot be read is neither delivered nor dead: it stays pending, visibly, and is tried again.
fn unreadable(dispatch: &Dispatch, trigger: &Active, id: DeliveryId, cause: &ReadError) {
    error!(trigger = %trigger.name, offset = %id.offset, error = %cause, "cannot read an event that is to be delivered");
    if let Some(runtime) = dispatch.core().runtime_mut(id.trigger) {
        let error = cause.to_string();
        runtime.last_error = Some(LastError { at_ms: clock::wall_ms(), status: None, error });
    }
    put_back(dispatch, id, UNREADABLE_WAIT_MS);
}
