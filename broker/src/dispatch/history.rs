//! What is not in memory: events read from the log, matches of triggers that fell behind, the past of new triggers.

use std::sync::Arc;
use std::time::Duration;

use sluice_language::Facts;
use tracing::{debug, error};

use super::Dispatch;
use super::core::Core;
use super::order::LookUp;
use crate::store::{LogRecord, Offset, ReadError, Reader, Record, Routed, TriggerId};

/// Events routed in one go after a restart or for a trigger's past.
const PIECE: usize = 512;
/// Matches taken from the log in one go.
const MATCHES_MAX: usize = 20_000;
pub(super) const CATCH_UP_PAUSE: Duration = Duration::from_millis(5);
/// The past of a trigger without room for it is looked at again after this.
const HISTORY_PAUSE: Duration = Duration::from_millis(50);
/// What cannot be read is tried again after this, and then after longer.
const UNREADABLE_WAIT_MIN: Duration = Duration::from_millis(100);
const UNREADABLE_WAIT_MAX: Duration = Duration::from_secs(60);

/// Runs what blocks on the disk where it may.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    #[expect(
        clippy::disallowed_methods,
        reason = "reads of what is not in memory any more, bounded by concurrency"
    )]
    let task = tokio::task::spawn_blocking(work);
    task.await.ok()
}

pub async fn read(dispatch: &Dispatch, offset: Offset) -> Result<Arc<Record>, ReadError> {
    let reader = Arc::clone(dispatch.log().reader());
    blocking(move || reader.read(offset)).await.unwrap_or(Err(ReadError::Absent(offset)))
}

/// Looks up what events are ordered by.
pub async fn look_up(dispatch: Dispatch, look_up: LookUp) {
    let reader = Arc::clone(dispatch.log().reader());
    let look_up = Arc::new(look_up);
    let reading = Arc::clone(&look_up);
    let keys = blocking(move || reading.read(&reader)).await.unwrap_or_else(|| look_up.unreadable());
    let steps = dispatch.core().looked_up(&look_up, keys);
    dispatch.start(steps);
}

/// Routes the events that a former run stored and did not route. Nothing is routed past one that cannot be read: it would
/// be lost without a word.
pub async fn route_leftovers(dispatch: &Dispatch) {
    let mut waits = Waits::default();
    loop {
        let Some((from, to)) = dispatch.core().state.unrouted.first().copied() else { return };
        let end = Offset(to.0.min(from.0 + PIECE as u64));
        let records = match read_range(dispatch, from, end).await {
            Ok(records) if records.len() as u64 == end.0 - from.0 => records,
            Ok(records) => {
                error!(%from, %end, missing = end.0 - from.0 - records.len() as u64, "events that are to be routed are damaged: nothing is routed before they can be read, or are given up with `sluice store repair`");
                waits.wait().await;
                continue;
            }
            Err(error) => {
                error!(%from, %end, %error, "cannot read events that are to be routed");
                waits.wait().await;
                continue;
            }
        };
        waits = Waits::default();
        let steps = dispatch.core().route_range(from, Offset(end.0 - 1), &records);
        dispatch.start(steps);
    }
}

/// Lets triggers that are to begin in the past see it, in a task of its own if there is none yet.
pub fn begin_history(dispatch: &Dispatch) {
    if !std::mem::replace(&mut dispatch.core().is_routing_history, true) {
        tokio::spawn(route_history(dispatch.clone()));
    }
}

async fn route_history(dispatch: Dispatch) {
    let mut waits = Waits::default();
    loop {
        let past = next_history(&mut dispatch.core());
        let (id, (from, to)) = match past {
            Past::Of(id, range) => (id, range),
            Past::LaterOn => {
                tokio::time::sleep(HISTORY_PAUSE).await;
                continue;
            }
            Past::Over => return,
        };
        let end = Offset(to.0.min(from.0 + PIECE as u64));
        let records = match read_range(&dispatch, from, end).await {
            Ok(records) => records,
            Err(error) => {
                error!(%from, %end, %error, "cannot read events that a new trigger is to see");
                waits.wait().await;
                continue;
            }
        };
        waits = Waits::default();
        let steps = {
            let mut core = dispatch.core();
            let table = Arc::clone(&core.table);
            // A reload may have removed it meanwhile.
            let Some(rule) = table.rule(id) else { continue };
            let matched = records
                .iter()
                .filter(|record| rule.matches(&Facts::of(&record.event), &record.via, record.offset));
            let matches = matched.map(|record| (record.offset, vec![id])).collect();
            let epoch = core.state.set.epoch;
            core.routed(Routed { epoch, from, to: Offset(end.0 - 1), matches, only: Some(id) })
        };
        dispatch.start(steps);
    }
}

/// The past that is to be routed next.
enum Past {
    Of(TriggerId, (Offset, Offset)),
    /// Those that have one have no room for it.
    LaterOn,
    Over,
}

fn next_history(core: &mut Core) -> Past {
    let share = core.share();
    let with_past =
        core.state.triggers.iter().filter_map(|(id, trigger)| Some((*id, trigger, trigger.history?)));
    let mut with_past = with_past.filter(|(id, ..)| core.runtimes.contains_key(id)).peekable();
    if with_past.peek().is_none() || core.is_stopping {
        drop(with_past);
        core.is_routing_history = false;
        return Past::Over;
    }
    // The past is matched below what is outstanding, and so is taken up whether there is room or not.
    let has_room = with_past.find(|(_, trigger, _)| trigger.outstanding.len() < share);
    has_room.map_or(Past::LaterOn, |(id, _, range)| Past::Of(id, range))
}

/// Waits between attempts to read what could not be read, longer each time.
struct Waits(Duration);

impl Default for Waits {
    fn default() -> Self {
        Self(UNREADABLE_WAIT_MIN)
    }
}

impl Waits {
    async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(UNREADABLE_WAIT_MAX);
    }
}

async fn read_range(dispatch: &Dispatch, from: Offset, end: Offset) -> Result<Vec<Record>, ReadError> {
    let reader = Arc::clone(dispatch.log().reader());
    blocking(move || events(&reader, from, end)).await.unwrap_or(Err(ReadError::Absent(from)))
}

fn events(reader: &Reader, from: Offset, end: Offset) -> Result<Vec<Record>, ReadError> {
    let mut records = Vec::new();
    reader.walk(from, &mut |record, _| {
        if let LogRecord::Event(record) = record {
            if record.offset >= end {
                return false;
            }
            if record.offset >= from && records.last().is_none_or(|last: &Record| last.offset < record.offset)
            {
                records.push(record);
            }
        }
        true
    })?;
    Ok(records)
}

/// Has a trigger that fell behind fetch its matches, as long as it has room for them.
pub fn catch_up_if_behind(dispatch: &Dispatch, id: TriggerId) {
    if dispatch.core().lagging(id).is_none() {
        return;
    }
    let dispatch = dispatch.clone();
    tokio::spawn(async move {
        let mut waits = Waits::default();
        loop {
            match catch_up(&dispatch, id).await {
                Ok(()) => waits = Waits::default(),
                Err(error) => {
                    error!(trigger = id.0, %error, "cannot read match records");
                    waits.wait().await;
                }
            }
            let steps = {
                let mut core = dispatch.core();
                if let Some(runtime) = core.runtime_mut(id) {
                    runtime.is_catching_up = false;
                }
                core.fill(id)
            };
            dispatch.start(steps);
            if dispatch.core().lagging(id).is_none() {
                return;
            }
            // What is still missing is on its way to the log.
            tokio::time::sleep(CATCH_UP_PAUSE).await;
        }
    });
}

/// One piece of a trigger's matches, from memory if they are there, else from the log.
pub async fn catch_up(dispatch: &Dispatch, id: TriggerId) -> Result<(), ReadError> {
    let Some(from) = dispatch.core().catch_up_from_memory(id) else { return Ok(()) };
    let reader = Arc::clone(dispatch.log().reader());
    let found = blocking(move || matches(&reader, id, from)).await;
    let (offsets, next) = found.unwrap_or(Err(ReadError::Absent(from)))?;
    dispatch.core().catch_up(id, from, &offsets, next);
    Ok(())
}

fn matches(reader: &Reader, id: TriggerId, from: Offset) -> Result<(Vec<Offset>, Offset), ReadError> {
    let (mut offsets, mut next) = (Vec::new(), from);
    reader.matches(from, &mut |routed| {
        if routed.to < from || routed.only.is_some_and(|only| only != id) {
            return true;
        }
        let matched = routed.matches.iter().filter(|(offset, ids)| *offset >= from && ids.contains(&id));
        offsets.extend(matched.map(|(offset, _)| *offset));
        next = next.max(routed.to.next());
        offsets.len() < MATCHES_MAX
    })?;
    offsets.sort_unstable();
    offsets.dedup();
    debug!(trigger = id.0, from = %from, to = %next, "fetched {} matches from the log", offsets.len());
    Ok((offsets, next))
}
