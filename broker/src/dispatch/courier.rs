//! Tells dead-letter sinks. What they are owed is in the state, so a restart goes on where it was; a sink that fails
//! makes its own dead letters wait, in order, and no others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sluice_config as config;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;

use super::core::Core;
use super::trigger::Active;
use super::{Dispatch, history};
use crate::delivery::{self, Failure, Outcome, Reason};
use crate::sink;
use crate::store::{Attempted, DeliveryId, LogRecord, Next, Offset, Reader, Record, TriggerId};

/// Dead letters on their way at the same time: to one sink, and to all.
const LANE_MAX: usize = 16;
const IN_FLIGHT_MAX: usize = 256;
/// Letters that need not be read from the log, and what their events may come to.
const FRESH_MAX: usize = 1024;
const FRESH_BYTES_MAX: usize = 8 << 20;
/// Dead letters that nobody is told of any more are written off so many in a record.
const VOID_MAX: usize = 10_000;
/// A dead letter that cannot be read now is looked at again after this.
const UNREADABLE_WAIT: Duration = Duration::from_secs(60);

/// What a dead-letter sink is told besides the event.
#[derive(Clone)]
pub struct Letter {
    pub record: Arc<Record>,
    pub attempts: u32,
    pub reason: Reason,
    pub failure: Failure,
}

/// Letters as they were when their deliveries ended, some of them.
#[derive(Default)]
pub struct Fresh {
    letters: HashMap<DeliveryId, Letter>,
    bytes: usize,
}

impl Fresh {
    /// Keeps a letter if there is room, once those that nobody is to be told of any more have gone.
    pub fn put(&mut self, id: DeliveryId, letter: Letter, owed: &BTreeSet<DeliveryId>) {
        let size = letter.size();
        let is_full = |fresh: &Self| fresh.letters.len() >= FRESH_MAX || fresh.bytes + size > FRESH_BYTES_MAX;
        if is_full(self) {
            self.letters.retain(|id, _| owed.contains(id));
            self.bytes = self.letters.values().map(Letter::size).sum();
        }
        if !is_full(self) {
            self.bytes += size;
            self.letters.insert(id, letter);
        }
    }

    fn remove(&mut self, id: DeliveryId) {
        if let Some(letter) = self.letters.remove(&id) {
            self.bytes -= letter.size();
        }
    }
}

impl Letter {
    fn size(&self) -> usize {
        self.record.event.data().map_or(0, |data| data.bytes.len()) + self.failure.body.len()
    }
}

/// The dead letters of one trigger.
#[derive(Default)]
struct Lane {
    in_flight: BTreeSet<DeliveryId>,
    failures: u32,
    /// Nothing is sent before.
    rests_until: Option<Instant>,
}

/// How telling ended.
#[derive(Clone, Copy)]
enum Told {
    /// Taken, or refused for good.
    Done,
    Again,
    Unreadable,
}

struct Task {
    id: DeliveryId,
    trigger: Arc<Active>,
    sink: Arc<sink::Sink>,
    letter: Option<Letter>,
}

/// Runs for ever.
pub async fn run(dispatch: Dispatch) {
    let mut lanes: BTreeMap<TriggerId, Lane> = BTreeMap::new();
    let mut under_way: JoinSet<(DeliveryId, Arc<Active>, Told)> = JoinSet::new();
    loop {
        let tasks = next(&mut dispatch.core(), &mut lanes);
        for task in tasks {
            let dispatch = dispatch.clone();
            under_way.spawn(async move {
                let (id, trigger) = (task.id, Arc::clone(&task.trigger));
                let told = tell(&dispatch, task).await;
                (id, trigger, told)
            });
        }
        let rest = lanes.values().filter_map(|lane| lane.rests_until).min();
        tokio::select! {
            () = dispatch.shared.owed.notified() => {}
            () = tokio::time::sleep_until(rest.unwrap_or_else(Instant::now)), if rest.is_some() => {}
            Some(ended) = under_way.join_next() => {
                // A task that panicked is begun again: nothing says that it was told.
                let Ok((id, trigger, told)) = ended else { lanes.clear(); continue };
                note(&dispatch, lanes.entry(id.trigger).or_default(), id, &trigger, told);
            }
        }
    }
}

fn note(dispatch: &Dispatch, lane: &mut Lane, id: DeliveryId, trigger: &Active, told: Told) {
    lane.in_flight.remove(&id);
    match told {
        Told::Done => {
            lane.failures = 0;
            let mut core = dispatch.core();
            core.fresh.remove(id);
            core.record(LogRecord::Told(vec![id]));
        }
        // Others that were under way have failed for the same cause.
        Told::Again if lane.rests_until.is_some() => {}
        Told::Again => {
            lane.failures += 1;
            lane.rests_until =
                Some(Instant::now() + trigger.policy.wait(lane.failures, (dispatch.shared.jitter)()));
        }
        Told::Unreadable => lane.rests_until = Some(Instant::now() + UNREADABLE_WAIT),
    }
}

/// What is to be sent now, the oldest of each lane first.
fn next(core: &mut Core, lanes: &mut BTreeMap<TriggerId, Lane>) -> Vec<Task> {
    let now = Instant::now();
    // A lane that has rested enough is looked at now, or owes nothing any more: nobody waits for it.
    for lane in lanes.values_mut() {
        lane.rests_until = lane.rests_until.filter(|until| *until > now);
    }
    let mut tasks = Vec::new();
    let mut void = Vec::new();
    let mut free = IN_FLIGHT_MAX.saturating_sub(lanes.values().map(|lane| lane.in_flight.len()).sum());
    let mut from = first_of(TriggerId(0));
    while let Some(first) = core.state.owed.range(from..).next().copied() {
        from = first_of(TriggerId(first.trigger.0 + 1));
        let runtime = core.runtimes.get(&first.trigger).or_else(|| core.frozen.get(&first.trigger));
        let Some(runtime) = runtime else { continue };
        let owed = core.state.owed.range(first..from);
        let Some(sink) = &runtime.active.dead_letter else {
            // There is no such sink any more; the dead letters stay listed.
            void.extend(owed.copied());
            continue;
        };
        let lane = lanes.entry(first.trigger).or_default();
        if lane.rests_until.is_some() {
            continue;
        }
        // A sink that failed is tried with one.
        let most = if lane.failures > 0 { 1 } else { LANE_MAX };
        let room = most.saturating_sub(lane.in_flight.len()).min(free);
        let chosen: Vec<_> = owed.filter(|id| !lane.in_flight.contains(id)).take(room).copied().collect();
        free -= chosen.len();
        for id in chosen {
            lane.in_flight.insert(id);
            let (trigger, sink) = (Arc::clone(&runtime.active), Arc::clone(sink));
            tasks.push(Task { id, trigger, sink, letter: core.fresh.letters.get(&id).cloned() });
        }
    }
    for piece in void.chunks(VOID_MAX) {
        core.record(LogRecord::Told(piece.to_vec()));
    }
    tasks
}

fn first_of(trigger: TriggerId) -> DeliveryId {
    DeliveryId { trigger, offset: Offset(0), redrive: 0 }
}

async fn tell(dispatch: &Dispatch, task: Task) -> Told {
    let Task { id, trigger, sink, letter } = task;
    // What is appended later is on disk later: the sink hears of nothing that a crash could still undo.
    if dispatch.log().flush().await.is_err() {
        return Told::Again;
    }
    let letter = match letter {
        Some(letter) => letter,
        None => match read(dispatch, id).await {
            Some(letter) => letter,
            None => return Told::Unreadable,
        },
    };
    let Letter { record, attempts, reason, failure } = &letter;
    let event = delivery::dead_letter_event(
        &record.event,
        &trigger.name,
        trigger.sink.url(),
        *attempts,
        *reason,
        failure,
    );
    let mut config = trigger.config.delivery.clone();
    config.reply = config::Reply::Ignore;
    let attempt = sink::Attempt {
        event: &event,
        trace: None,
        timeout: config.timeout,
        config: &config,
        limits: &dispatch.shared.reply_limits,
    };
    match sink.deliver(attempt).await.outcome {
        Outcome::Accepted { .. } => Told::Done,
        Outcome::Rejected { cause, .. } => {
            warn!(trigger = %trigger.name, offset = %id.offset, "the dead-letter sink refused: {}", cause.error);
            Told::Done
        }
        Outcome::Retriable { cause, .. } => {
            warn!(trigger = %trigger.name, offset = %id.offset, "the dead-letter sink failed, it is tried again: {}", cause.error);
            Told::Again
        }
    }
}

/// Reads a dead letter of a former run from the log.
async fn read(dispatch: &Dispatch, id: DeliveryId) -> Option<Letter> {
    let record = history::read(dispatch, id.offset).await.ok()?;
    let reader = Arc::clone(dispatch.log().reader());
    let last = history::blocking(move || last_attempt(&reader, id)).await.flatten()?;
    let Next::Dead(reason) = last.next else { return None };
    let error = last.error.as_deref().unwrap_or(reason.detail()).to_owned();
    let failure = Failure { status: last.status, error, body: last.body };
    Some(Letter { record, attempts: last.attempt, reason, failure })
}

/// The attempt that a delivery ended with. One that ended without an attempt has the number of the last one made.
fn last_attempt(reader: &Reader, id: DeliveryId) -> Option<Attempted> {
    let (mut made, mut ending) = (0, None);
    let mut visit = |attempted: Attempted| {
        if attempted.id == id {
            made = made.max(attempted.attempt);
            if matches!(attempted.next, Next::Dead(_)) {
                ending = Some(attempted);
            }
        }
        ending.is_none()
    };
    let kept = reader.kept_attempts(id.offset).ok()?;
    if !kept.into_iter().map(&mut visit).any(|goes_on| !goes_on) {
        let walked = reader.walk(id.offset, &mut |record, _| match record {
            LogRecord::Outcomes(attempts) => attempts.into_iter().all(&mut visit),
            _ => true,
        });
        walked.ok()?;
    }
    ending.map(|ending| Attempted { attempt: made, ..ending })
}
