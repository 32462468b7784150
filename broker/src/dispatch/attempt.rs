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
use super::trigger::{Active, Claim, LastError, Step};
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
            Ok(record) => record,
            Err(error) => return unreadable(dispatch, &trigger, id, &error),
        },
    };
    let (at_ms, started) = (clock::wall_ms(), clock::steady_ms());
    if attempt > 1 && trigger.policy.is_expired(age(dispatch, id, first_ms, started)) {
        let attempted = ended_without_attempt(id, Reason::Age);
        return dead(dispatch, &trigger, &record, attempted, attempt - 1, Failure::default());
    }
    let answer = match send(dispatch, &trigger, &record).await {
        Ok(answer) => answer,
        Err(detail) => return untransformed(dispatch, &trigger, &record, id, attempt - 1, &detail),
    };
    if attempt > 1 {
        trigger.counters.retries.fetch_add(1, Ordering::Relaxed);
    }
    let now = clock::steady_ms();
    trigger.counters.took(now - started);
    let attempted = Attempted {
        id,
        attempt,
        at_ms,
        duration_ms: u32::try_from(now - started).unwrap_or(u32::MAX),
        status: answer.status,
        error: None,
        body: Bytes::new(),
        owes_letter: false,
        next: Next::Delivered,
    };
    match answered(dispatch, &trigger, &record, answer.outcome, &attempted).await {
        Verdict::Accepted => accepted(dispatch, &trigger, attempted),
        Verdict::Replied => settle_accepted(&mut dispatch.core(), &trigger, &attempted),
        Verdict::Failed(outcome) => {
            let age = age(dispatch, id, first_ms, now);
            failed(dispatch, &trigger, &record, &outcome, attempted, (now, age));
        }
        Verdict::NoRoom(refusal) => wait_for_room(dispatch, &trigger, id, &refusal),
    }
}

/// How old a delivery is, pauses of its trigger left out.
fn age(dispatch: &Dispatch, id: DeliveryId, first_ms: Option<u64>, now: u64) -> Duration {
    let Some(first) = first_ms else { return Duration::ZERO };
    let core = dispatch.core();
    let active_ms = core.state.triggers.get(&id.trigger).map_or(now, |state| state.active_ms(now));
    Duration::from_millis(active_ms.saturating_sub(first))
}

/// Stores what the sink replied, if it did, and so says what its answer comes to.
async fn answered(
    dispatch: &Dispatch,
    trigger: &Active,
    record: &Record,
    outcome: Outcome,
    attempted: &Attempted,
) -> Verdict {
    match outcome {
        Outcome::Accepted { reply } if reply.is_empty() => Verdict::Accepted,
        Outcome::Accepted { reply } => {
            let verdict = store_reply(dispatch, record, reply, attempted).await;
            if matches!(verdict, Verdict::Replied) {
                trigger.counters.replies.fetch_add(1, Ordering::Relaxed);
            }
            verdict
        }
        failure @ (Outcome::Retriable { .. } | Outcome::Rejected { .. }) => Verdict::Failed(failure),
    }
}

/// Decides what becomes of a delivery whose attempt failed, at a time and an age.
fn failed(
    dispatch: &Dispatch,
    trigger: &Arc<Active>,
    record: &Arc<Record>,
    outcome: &Outcome,
    mut attempted: Attempted,
    (now, age): (u64, Duration),
) {
    let (id, attempt) = (attempted.id, attempted.attempt);
    let failure = note_failure(dispatch, trigger, outcome, &attempted);
    attempted.status = failure.status.or(attempted.status);
    attempted.error = Some(failure.error.as_str().into());
    attempted.body = failure.body.clone();
    note_quiet(dispatch, trigger, outcome, now);
    match trigger.policy.decide(attempt, outcome, age, (dispatch.shared.jitter)()) {
        Disposition::Settle => accepted(dispatch, trigger, attempted),
        Disposition::RetryIn(wait) => {
            let begun_ms = now - u64::from(attempted.duration_ms);
            attempted.next = Next::RetryAt { begun_ms, due_ms: now + wait.as_millis() as u64 };
            match try_again(dispatch, attempted) {
                Ok(()) => {
                    debug!(trigger = %trigger.name, offset = %id.offset, attempt, "attempt failed, retry in {wait:?}");
                }
                Err(mut attempted) => {
                    attempted.next = Next::Dead(Reason::Discarded);
                    dead(dispatch, trigger, record, attempted, attempt, failure);
                }
            }
        }
        Disposition::DeadLetter(reason) => {
            attempted.next = Next::Dead(reason);
            dead(dispatch, trigger, record, attempted, attempt, failure);
        }
    }
}

/// Leaves a sink alone that wants to be, unless it is not the trigger's any more.
fn note_quiet(dispatch: &Dispatch, trigger: &Active, outcome: &Outcome, now: u64) {
    let Some(wait) = outcome.wants_quiet() else { return };
    let mut core = dispatch.core();
    if let Some(runtime) = core.runtime_mut(trigger.id)
        && runtime.active.config.sink == trigger.config.sink
    {
        runtime.keep_quiet(now + wait.as_millis() as u64, now);
    }
}

/// Records when a delivery is tried again. Gives it back if what was pending has been discarded meanwhile.
fn try_again(dispatch: &Dispatch, attempted: Attempted) -> Result<(), Attempted> {
    let mut core = dispatch.core();
    if core.runtime_mut(attempted.id.trigger).is_some_and(|runtime| runtime.is_discarded(attempted.id)) {
        return Err(attempted);
    }
    core.settle(&attempted);
    core.log.append_later(vec![LogRecord::Outcomes(vec![attempted])]);
    Ok(())
}

/// Transforms the event, if the trigger says so, and has the sink deliver it. An error is why it cannot be transformed.
async fn send(dispatch: &Dispatch, trigger: &Active, record: &Record) -> Result<sink::Answer, String> {
    let transformed = match &trigger.config.transform {
        None => None,
        Some(transform) => {
            match transform::apply(&dispatch.shared.transforms, transform, &record.event).await {
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
        event: transformed.as_ref().unwrap_or(&record.event),
        trace: record.trace.as_ref(),
        timeout: trigger.config.delivery.timeout,
        config: &trigger.config.delivery,
        limits: &dispatch.shared.reply_limits,
    };
    Ok(trigger.sink.deliver(attempt).await)
}

/// Ends a delivery whose event cannot be transformed: the sink hears nothing of it, the dead letter has the event as it came.
fn untransformed(
    dispatch: &Dispatch,
    trigger: &Arc<Active>,
    record: &Arc<Record>,
    id: DeliveryId,
    attempts: u32,
    detail: &str,
) {
    let error = format!("{}: {detail}", Reason::Transform.detail());
    let mut attempted = ended_without_attempt(id, Reason::Transform);
    attempted.error = Some(error.as_str().into());
    if let Some(runtime) = dispatch.core().runtimes.get_mut(&id.trigger) {
        runtime.last_error = Some(LastError { at_ms: attempted.at_ms, status: None, error: error.clone() });
    }
    dead(dispatch, trigger, record, attempted, attempts, Failure { error, ..Failure::default() });
}

fn accepted(dispatch: &Dispatch, trigger: &Active, attempted: Attempted) {
    let mut core = dispatch.core();
    settle_accepted(&mut core, trigger, &attempted);
    core.log.append_later(vec![LogRecord::Outcomes(vec![attempted])]);
}

/// Folds in that a sink accepted; the caller writes the record, or has.
fn settle_accepted(core: &mut Core, trigger: &Active, attempted: &Attempted) {
    trigger.counters.accepted.fetch_add(1, Ordering::Relaxed);
    core.settle(attempted);
    if let Some(runtime) = core.runtimes.get_mut(&trigger.id) {
        runtime.is_well = true;
    }
}

/// Counts a failure and says so where someone looks: as a warning when it follows a success.
fn note_failure(dispatch: &Dispatch, trigger: &Active, outcome: &Outcome, attempted: &Attempted) -> Failure {
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
    let mut core = dispatch.core();
    if let Some(runtime) = core.runtimes.get_mut(&trigger.id) {
        let error = failure.error.clone();
        runtime.last_error = Some(LastError { at_ms: attempted.at_ms, status: failure.status, error });
        if std::mem::take(&mut runtime.is_well) {
            let url = trigger.sink.url();
            warn!(trigger = %trigger.name, offset = %attempted.id.offset, attempt = attempted.attempt, sink = url, "delivery failed: {}", failure.error);
        }
    }
    failure
}

/// Writes a dead letter, and pauses the trigger when its sink is gone for good. The dead-letter sink is told by the courier.
fn dead(
    dispatch: &Dispatch,
    trigger: &Arc<Active>,
    record: &Arc<Record>,
    mut attempted: Attempted,
    attempts: u32,
    failure: Failure,
) {
    let Next::Dead(reason) = attempted.next else { return };
    let id = attempted.id;
    trigger.counters.dead[reason as usize].fetch_add(1, Ordering::Relaxed);
    warn!(trigger = %trigger.name, offset = %id.offset, attempt = attempts, "dead-lettered event: {}", reason.detail());
    {
        let mut core = dispatch.core();
        if trigger.dead_letter.is_some() {
            attempted.owes_letter = true;
            let letter = Letter { record: Arc::clone(record), attempts, reason, failure };
            let Core { fresh, state, .. } = &mut *core;
            fresh.put(id, letter, &state.owed);
        }
        core.settle(&attempted);
        let mut records = vec![LogRecord::Outcomes(vec![attempted])];
        if reason == Reason::Gone {
            let pause = pause(id.trigger, Some(&Paused::gone(trigger.sink.url())));
            core.apply(&pause);
            records.push(pause);
            warn!(trigger = %trigger.name, "paused trigger: its sink is gone (410)");
        }
        core.log.append_later(records);
    }
    dispatch.shared.owed.notify_one();
}

/// Stores the events a sink answered with, together with the outcome of the delivery they answer.
async fn store_reply(
    dispatch: &Dispatch,
    cause: &Record,
    reply: Vec<Event>,
    attempted: &Attempted,
) -> Verdict {
    let hops = cause.hops + 1;
    let rejected = |error: String, reason| {
        Verdict::Failed(Outcome::Rejected { cause: Failure { error, ..Failure::default() }, reason })
    };
    if hops > dispatch.shared.hops_max {
        let error = format!("the reply would be hop {hops} of at most {}", dispatch.shared.hops_max);
        return rejected(error, Reason::Loop);
    }
    let entry_point = format!("reply/{}", attempted.id.trigger.0);
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
    match dispatch.log().append(events.collect(), vec![outcome]).await {
        Ok(receipts) => {
            let counters = dispatch.replies();
            for receipt in &receipts {
                let count = if receipt.duplicate { &counters.duplicates } else { &counters.accepted };
                count.fetch_add(1, Ordering::Relaxed);
            }
            Verdict::Replied
        }
        Err(refusal @ (Refusal::Conflict { .. } | Refusal::TooLarge { .. })) => {
            rejected(format!("the reply was not stored: {refusal}"), Reason::Reply)
        }
        Err(refusal @ Refusal::Full { .. }) => Verdict::NoRoom(refusal),
        Err(refusal @ Refusal::Unavailable { .. }) => {
            let cause =
                Failure { error: format!("the reply was not stored: {refusal}"), ..Failure::default() };
            Verdict::Failed(Outcome::Retriable { cause, retry_after: None })
        }
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

/// Looks at a delivery again after a while; this was no attempt.
fn put_back(dispatch: &Dispatch, id: DeliveryId, wait_ms: u64) {
    let until = clock::steady_ms() + wait_ms;
    let mut core = dispatch.core();
    if let Some(runtime) = core.runtime_mut(id.trigger) {
        runtime.postpone(id, until);
    }
    core.wake(id.trigger, until);
}

/// A trigger whose sink replies waits while the store has no room for a reply, and so does this delivery.
fn wait_for_room(dispatch: &Dispatch, trigger: &Active, id: DeliveryId, refusal: &Refusal) {
    let error = format!("the reply was not stored: {refusal}");
    debug!(trigger = %trigger.name, offset = %id.offset, "{error}");
    if let Some(runtime) = dispatch.core().runtime_mut(id.trigger) {
        let now = clock::steady_ms();
        runtime.keep_quiet(now + FULL_WAIT_MS, now);
        runtime.last_error = Some(LastError { at_ms: clock::wall_ms(), status: None, error });
    }
    put_back(dispatch, id, FULL_WAIT_MS);
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
