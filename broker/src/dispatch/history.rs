//! What is not in memory: events read from the log, matches of triggers that fell behind, the past of new triggers.

use std::sync::Arc;
use std::time::Duration;

use sluice_language::Facts;
use tracing::{debug, error};

use super::Dispatch;
use crate::store::{LogRecord, Offset, ReadError, Reader, Record, Routed, TriggerId};

/// Events routed in one go after a restart or for a trigger's past.
const PIECE: usize = 512;
/// Matches taken from the log in one go.
const MATCHES_MAX: usize = 20_000;
const CATCH_UP_PAUSE: Duration = Duration::from_millis(5);

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

/// Routes the events that a former run stored and did not route.
pub async fn route_leftovers(dispatch: &Dispatch) {
    loop {
        let Some((from, to)) = dispatch.core().state.unrouted.first().copied() else { return };
        let end = Offset(to.0.min(from.0 + PIECE as u64));
        let records = read_range(dispatch, from, end).await;
        let claims = dispatch.core().route_range(from, Offset(end.0 - 1), &records);
        dispatch.start(claims);
    }
}

/// Lets triggers that are to begin in the past see it.
pub async fn route_history(dispatch: Dispatch) {
    loop {
        let next = {
            let core = dispatch.core();
            let find = core.state.triggers.iter().find_map(|(id, trigger)| Some((*id, trigger.history?)));
            find.filter(|(id, _)| core.runtimes.contains_key(id) && !core.is_stopping)
        };
        let Some((id, (from, to))) = next else { return };
        let end = Offset(to.0.min(from.0 + PIECE as u64));
        let records = read_range(&dispatch, from, end).await;
        let claims = {
            let mut core = dispatch.core();
            let table = Arc::clone(&core.table);
            let Some(rule) = table.rule(id) else { return };
            let matched = records
                .iter()
                .filter(|record| rule.matches(&Facts::of(&record.event), &record.via, record.offset));
            let matches = matched.map(|record| (record.offset, vec![id])).collect();
            let epoch = core.state.set.epoch;
            core.routed(Routed { epoch, from, to: Offset(end.0 - 1), matches, only: Some(id) })
        };
        dispatch.start(claims);
    }
}

async fn read_range(dispatch: &Dispatch, from: Offset, end: Offset) -> Vec<Record> {
    let reader = Arc::clone(dispatch.log().reader());
    let read = blocking(move || events(&reader, from, end)).await;
    match read {
        Some(Ok(records)) => records,
        Some(Err(error)) => {
            error!(%from, %end, %error, "cannot read events that are to be routed");
            Vec::new()
        }
        None => Vec::new(),
    }
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
        loop {
            catch_up(&dispatch, id).await;
            let claims = dispatch.core().fill(id);
            dispatch.start(claims);
            if dispatch.core().lagging(id).is_none() {
                return;
            }
            // What is still missing is on its way to the log.
            tokio::time::sleep(CATCH_UP_PAUSE).await;
        }
    });
}

/// One piece of a trigger's matches, from memory if they are there, else from the log.
pub async fn catch_up(dispatch: &Dispatch, id: TriggerId) {
    let from = dispatch.core().catch_up_from_memory(id);
    if let Some(from) = from {
        let reader = Arc::clone(dispatch.log().reader());
        let found = blocking(move || matches(&reader, id, from)).await;
        match found {
            Some(Ok((offsets, next))) => dispatch.core().catch_up(id, &offsets, next),
            Some(Err(error)) => error!(%error, "cannot read match records"),
            None => {}
        }
    }
    if let Some(runtime) = dispatch.core().runtimes.get_mut(&id) {
        runtime.is_catching_up = false;
    }
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
