//! Tells dead-letter sinks. What they are owed is in the state, so a restart goes on where it was; a sink that fails
//! makes its own dead letters wait, in order, and no others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sluice_config as config;
use tokio::task::{self, JoinSet};
use tokio::time::Instant;
use tracing::{error, warn};

use super::core::Core;
use super::trigger::{Active, LastError};
use super::{Dispatch, history};
use crate::delivery::{self, Failure, Outcome, Reason};
use crate::sink;
use crate::store::{
    Attempted, DeliveryId, LogRecord, Next, Offset, ReadError, Reader, Record, TriggerId, clock,
};

/// Dead letters on their way at the same time: to one sink, and to all.
const LANE_MAX: usize = 16;
const IN_FLIGHT_MAX: usize = 256;
/// Letters that need not be read from the log, and what their events may come to.
const FRESH_MAX: usize = 1024;
const FRESH_BYTES_MAX: usize = 8 << 20;
/// Dead letters that nobody is told of any more are written off so many in a record.
const VOID_MAX: usize = 10_000;
/// A dead letter that cannot be read now is looked at again after this. Looking may read much of the log in vain.
const UNREADABLE_WAIT: Duration = Duration::from_secs(300);
/// A lane with so many of them rests: they are passed over whenever others are chosen.
const UNREADABLE_MAX: usize = 10_000;

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
    /// Those that could not be read, and when they are looked at again; they hold up no other.
    unreadable: BTreeMap<DeliveryId, Instant>,
}

impl Lane {
    fn is_resting(&self) -> bool {
        self.rests_until.is_some() || self.unreadable.len() >= UNREADABLE_MAX
    }

    fn is_free(&self, id: &DeliveryId) -> bool {
        !self.in_flight.contains(id) && !self.unreadable.contains_key(id)
    }
}

/// The dead letters of all triggers.
#[derive(Default)]
struct Lanes {
    of: BTreeMap<TriggerId, Lane>,
    in_flight: usize,
    /// When lanes are to be looked at again, each of their waits.
    looks: BTreeSet<(Instant, TriggerId)>,
    /// Whose turn it is, when there is not room for all.
    turn: TriggerId,
}

impl Lanes {
    fn begin(&mut self, id: DeliveryId) {
        self.of.entry(id.trigger).or_default().in_flight.insert(id);
        self.in_flight += 1;
    }

    fn end(&mut self, id: DeliveryId) -> &mut Lane {
        self.in_flight -= 1;
        let lane = self.of.entry(id.trigger).or_default();
        lane.in_flight.remove(&id);
        lane
    }

    /// Lets waits go that are over; returns whose they were.
    fn wake(&mut self, now: Instant) -> BTreeSet<TriggerId> {
        let mut woken = BTreeSet::new();
        while let Some((_, id)) = self.looks.first().copied().filter(|(until, _)| *until <= now) {
            self.looks.pop_first();
            woken.insert(id);
        }
        for id in &woken {
            let lane = self.of.entry(*id).or_default();
            lane.rests_until = lane.rests_until.filter(|until| *until > now);
            lane.unreadable.retain(|_, until| *until > now);
        }
        woken
    }

    /// The next of those that are to be told of something, each in its turn.
    fn next_of(&mut self, waiting: &mut BTreeSet<TriggerId>) -> Option<TriggerId> {
        let id = waiting.range(self.turn..).next().or(waiting.first()).copied()?;
        waiting.remove(&id);
        self.turn = TriggerId(id.0 + 1);
        Some(id)
    }
}

/// How telling ended.
enum Told {
    /// Taken, or refused for good.
    Done,
    /// Not before the wait that the sink asked for.
    Again {
        wait: Option<Duration>,
    },
    Unreadable(Unreadable),
}

/// Why a dead letter cannot be told.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Event(#[from] ReadError),
    #[error("how its delivery ended cannot be found in the log")]
    Ending,
}

struct Task {
    id: DeliveryId,
    trigger: Arc<Active>,
    sink: Arc<sink::Sink>,
    letter: Option<Letter>,
}

/// Dead letters that are being told.
#[derive(Default)]
struct UnderWay {
    tasks: JoinSet<Told>,
    letters: HashMap<task::Id, (DeliveryId, Arc<Active>)>,
}

impl UnderWay {
    fn begin(&mut self, dispatch: &Dispatch, task: Task) {
        let letter = (task.id, Arc::clone(&task.trigger));
        let dispatch = dispatch.clone();
        let begun = self.tasks.spawn(async move { tell(&dispatch, task).await });
        self.letters.insert(begun.id(), letter);
    }

    /// The next that ends. One that ended in a panic is told again: nothing says that it was told.
    async fn ended(&mut self) -> Option<(DeliveryId, Arc<Active>, Told)> {
        let (task, told) = match self.tasks.join_next_with_id().await? {
            Ok((task, told)) => (task, told),
            Err(error) => {
                error!(%error, "telling a dead-letter sink ended in a panic");
                (error.id(), Told::Again { wait: None })
            }
        };
        self.letters.remove(&task).map(|(id, trigger)| (id, trigger, told))
    }
}

/// Runs for ever.
pub async fn run(dispatch: Dispatch) {
    let mut lanes = Lanes::default();
    let mut under_way = UnderWay::default();
    loop {
        let tasks = next(&mut dispatch.core(), &mut lanes);
        tasks.into_iter().for_each(|task| under_way.begin(&dispatch, task));
        let look = lanes.looks.first().map(|(at, _)| *at);
        tokio::select! {
            () = dispatch.shared.owed.notified() => {}
            () = tokio::time::sleep_until(look.unwrap_or_else(Instant::now)), if look.is_some() => {}
            Some((id, trigger, told)) = under_way.ended() => {
                note(&dispatch, &mut lanes, id, &trigger, told);
                // What is recorded by now is not repeated after a stop, which waits for this.
                dispatch.shared.in_flight.send_modify(|count| *count -= 1);
            }
        }
    }
}

fn note(dispatch: &Dispatch, lanes: &mut Lanes, id: DeliveryId, trigger: &Active, told: Told) {
    let now = Instant::now();
    let lane = lanes.end(id);
    let mut core = dispatch.core();
    core.to_tell.insert(id.trigger);
    match told {
        Told::Done => {
            lane.failures = 0;
            core.fresh.remove(id);
            core.record(LogRecord::Told(vec![id]));
        }
        Told::Again { wait } => {
            let backoff = match lane.rests_until {
                // Others that were under way have failed for the same cause.
                Some(until) => until - now,
                None => {
                    lane.failures += 1;
                    trigger.policy.wait(lane.failures, (dispatch.shared.jitter)())
                }
            };
            let until = now + backoff.max(wait.unwrap_or_default());
            lane.rests_until = Some(until);
            lanes.looks.insert((until, id.trigger));
        }
        Told::Unreadable(cause) => {
            let until = now + UNREADABLE_WAIT;
            lane.unreadable.insert(id, until);
            lanes.looks.insert((until, id.trigger));
            error!(trigger = %trigger.name, offset = %id.offset, error = %cause, "cannot read a dead letter that the dead-letter sink is to be told of");
            if let Some(runtime) = core.runtime_mut(id.trigger) {
                let error = format!("cannot tell the dead-letter sink of offset {}: {cause}", id.offset);
                runtime.last_error = Some(LastError { at_ms: clock::wall_ms(), status: None, error });
            }
        }
    }
}

/// What is to be sent now, the oldest of each lane first. Only triggers are looked at about which something has changed.
fn next(core: &mut Core, lanes: &mut Lanes) -> Vec<Task> {
    core.to_tell.append(&mut lanes.wake(Instant::now()));
    let mut tasks = Vec::new();
    let mut void = Vec::new();
    while !core.is_stopping
        && lanes.in_flight < IN_FLIGHT_MAX
        && let Some(trigger) = lanes.next_of(&mut core.to_tell)
    {
        let runtime = core.runtimes.get(&trigger).or_else(|| core.frozen.get(&trigger));
        let Some(runtime) = runtime else { continue };
        let owed = core.state.owed.range(first_of(trigger)..first_of(TriggerId(trigger.0 + 1)));
        let Some(sink) = &runtime.active.dead_letter else {
            // There is no such sink any more; the dead letters stay listed.
            void.extend(owed.copied());
            continue;
        };
        let lane = lanes.of.entry(trigger).or_default();
        if lane.is_resting() {
            continue;
        }
        // A sink that failed is tried with one.
        let most = if lane.failures > 0 { 1 } else { LANE_MAX };
        let free = IN_FLIGHT_MAX - lanes.in_flight;
        let room = most.saturating_sub(lane.in_flight.len()).min(free);
        let chosen: Vec<_> = owed.filter(|id| lane.is_free(id)).take(room).copied().collect();
        if chosen.len() == free {
            core.to_tell.insert(trigger);
        }
        for id in chosen {
            lanes.begin(id);
            core.begun();
            let (trigger, sink) = (Arc::clone(&runtime.active), Arc::clone(sink));
            tasks.push(Task { id, trigger, sink, letter: core.fresh.letters.get(&id).cloned() });
        }
    }
    if !void.is_empty() {
        warn!(
            count = void.len(),
            "dead letters are told to nobody: their triggers have no dead-letter sink any more"
        );
    }
    for piece in void.chunks(VOID_MAX) {
        core.record(LogRecord::Told(piece.to_vec()));
    }
    tasks
}

/// The triggers whose dead-letter sinks are owed something.
pub fn owing(owed: &BTreeSet<DeliveryId>) -> BTreeSet<TriggerId> {
    let mut triggers = BTreeSet::new();
    let mut from = TriggerId(0);
    while let Some(first) = owed.range(first_of(from)..).next() {
        triggers.insert(first.trigger);
        from = TriggerId(first.trigger.0 + 1);
    }
    triggers
}

fn first_of(trigger: TriggerId) -> DeliveryId {
    DeliveryId { trigger, offset: Offset(0), redrive: 0 }
}

async fn tell(dispatch: &Dispatch, task: Task) -> Told {
    let Task { id, trigger, sink, letter } = task;
    // What is appended later is on disk later: the sink hears of nothing that a crash could still undo.
    if dispatch.log().flush().await.is_err() {
        return Told::Again { wait: None };
    }
    let letter = match letter {
        Some(letter) => letter,
        None => match read(dispatch, id).await {
            Ok(letter) => letter,
            Err(cause) => return Told::Unreadable(cause),
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
        Outcome::Retriable { cause, retry_after } => {
            warn!(trigger = %trigger.name, offset = %id.offset, "the dead-letter sink failed, it is tried again: {}", cause.error);
            Told::Again { wait: retry_after }
        }
    }
}

/// Reads a dead letter of a former run from the log.
async fn read(dispatch: &Dispatch, id: DeliveryId) -> Result<Letter, Unreadable> {
    let record = history::read(dispatch, id.offset).await?;
    let reader = Arc::clone(dispatch.log().reader());
    let last = history::blocking(move || last_attempt(&reader, id)).await.unwrap_or(Ok(None))?;
    let last = last.ok_or(Unreadable::Ending)?;
    let Next::Dead(reason) = last.next else { return Err(Unreadable::Ending) };
    let error = last.error.as_deref().unwrap_or(reason.detail()).to_owned();
    let failure = Failure { status: last.status, error, body: last.body };
    Ok(Letter { record, attempts: last.attempt, reason, failure })
}

/// The attempt that a delivery ended with. One that ended without an attempt has the number of the last one made.
fn last_attempt(reader: &Reader, id: DeliveryId) -> Result<Option<Attempted>, ReadError> {
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
    let kept = reader.kept_attempts(id.offset)?;
    if !kept.into_iter().map(&mut visit).any(|goes_on| !goes_on) {
        reader.walk(id.offset, &mut |record, _| match record {
            LogRecord::Outcomes(attempts) => attempts.into_iter().all(&mut visit),
            _ => true,
        })?;
    }
    Ok(ending.map(|ending| Attempted { attempt: made, ..ending }))
}
