//! What is not in memory: events read from the log, matches of triggers that fell behind, the past of new triggers.
//!
//! Nothing that cannot be read is passed over as if it were not there, unless a gap on the log says that it is lost: whoever
//! needs it waits, says so, and looks again; nobody else waits with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_language::Facts;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::Dispatch;
use super::core::Core;
use super::order::LookUp;
use super::trigger::LastError;
use crate::routing::Table;
use crate::store::{Gap, LogRecord, Offset, Passed, ReadError, Reader, Record, TriggerId, Unread, clock};

/// Events routed in one go after a restart or for a trigger's past, and what their data may come to.
const PIECE: usize = 512;
const PIECE_BYTES: usize = 4 << 20;
/// Matches taken from the log in one go, and no more than there is room for.
const MATCHES_MAX: usize = 4096;
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
/// be lost without a word. Meanwhile the writer, and those who publish, do not wait.
pub async fn route_leftovers(dispatch: &Dispatch, tail: &mut mpsc::Receiver<Vec<Arc<Record>>>) {
    let mut waits = Backoff::default();
    loop {
        let Some((from, to)) = dispatch.core().state.unrouted.first().copied() else { return };
        let read = read_piece(dispatch, from, to, Table::match_all).await;
        dispatch.core().routing_waits = read.as_ref().err().map(|error| waiting(from, error));
        match read {
            Ok((piece, matched, table)) => {
                waits = Backoff::default();
                let search = dispatch.core().census.search(&piece.records);
                let steps = dispatch.core().route_leftovers(from, &piece, matched, &table);
                dispatch.start(steps.unwrap_or_default());
                dispatch.look_into(search);
            }
            Err(error) => {
                error!(offset = %from, "{}", waiting(from, &error));
                note_meanwhile(dispatch, tail, waits.next()).await;
            }
        }
    }
}

fn waiting(offset: Offset, error: &ReadError) -> String {
    format!(
        "no event is routed until offset {offset} can be read or is given up (stop the broker, `sluice store verify DIR`, \
         `sluice store repair DIR --accept-loss A..B`): {error}"
    )
}

/// Waits, and notes what becomes durable meanwhile: it is read from the log when its turn comes.
async fn note_meanwhile(dispatch: &Dispatch, tail: &mut mpsc::Receiver<Vec<Arc<Record>>>, wait: Duration) {
    let mut over = std::pin::pin!(tokio::time::sleep(wait));
    loop {
        tokio::select! {
            () = &mut over => return,
            Some(records) = tail.recv() => dispatch.core().stored(&records),
        }
    }
}

/// Lets triggers that are to begin in the past see it, in a task of its own if there is none yet.
pub fn begin_history(dispatch: &Dispatch) {
    if !std::mem::replace(&mut dispatch.core().is_routing_history, true) {
        tokio::spawn(route_history(dispatch.clone()));
    }
}

async fn route_history(dispatch: Dispatch) {
    // Pasts that could not be read, each with a pace of its own.
    let mut resting: BTreeMap<TriggerId, (Instant, Backoff)> = BTreeMap::new();
    loop {
        let past = next_history(&mut dispatch.core(), &resting);
        let (id, (from, to)) = match past {
            Past::Of(id, range) => (id, range),
            Past::LaterOn(at) => {
                tokio::time::sleep_until(at).await;
                continue;
            }
            Past::Over => return,
        };
        let find = move |table: &Table, records: &[Record]| matched_by(table, id, records);
        match read_piece(&dispatch, from, to, find).await {
            Ok((piece, matches, table)) => {
                resting.remove(&id);
                let steps = dispatch.core().route_past(id, from, piece.end, matches, &table);
                dispatch.start(steps.unwrap_or_default());
            }
            Err(error) => {
                let (until, waits) =
                    resting.entry(id).or_insert_with(|| (Instant::now(), Backoff::default()));
                *until = Instant::now() + waits.next();
                let text = format!("the past of the trigger waits for offset {from}: {error}");
                say_unreadable(&dispatch, id, &text);
            }
        }
    }
}

/// What a trigger matches of some events.
fn matched_by(table: &Table, id: TriggerId, records: &[Record]) -> Matches {
    let Some(rule) = table.rule(id) else { return Vec::new() };
    let matched =
        records.iter().filter(|record| rule.matches(&Facts::of(&record.event), &record.via, record.offset));
    matched.map(|record| (record.offset, vec![id])).collect()
}

/// Says what a trigger waits for, in the log and where the trigger is shown.
fn say_unreadable(dispatch: &Dispatch, id: TriggerId, text: &str) {
    let mut core = dispatch.core();
    let Some(runtime) = core.runtime_mut(id) else { return };
    error!(trigger = %runtime.active.name, "{text}");
    runtime.last_error = Some(LastError { at_ms: clock::wall_ms(), status: None, error: text.to_owned() });
}

/// The past that is to be routed next.
enum Past {
    Of(TriggerId, (Offset, Offset)),
    /// Those that have one have no room for it, or it could not be read.
    LaterOn(Instant),
    Over,
}

fn next_history(core: &mut Core, resting: &BTreeMap<TriggerId, (Instant, Backoff)>) -> Past {
    let (share, now) = (core.share(), Instant::now());
    let mut later = None;
    if !core.is_stopping {
        for id in &core.with_past {
            let Some(trigger) = core.state.triggers.get(id) else { continue };
            let Some(range) = trigger.history else { continue };
            let rests_until = resting.get(id).map(|(until, _)| *until).filter(|until| *until > now);
            // The past is matched below what is outstanding, and so is taken up whether there is room or not.
            let has_room = trigger.outstanding.len() < share;
            if has_room && rests_until.is_none() {
                return Past::Of(*id, range);
            }
            let at = rests_until.unwrap_or(now + HISTORY_PAUSE);
            later = Some(later.map_or(at, |later: Instant| later.min(at)));
        }
    }
    later.map_or_else(
        || {
            core.is_routing_history = false;
            Past::Over
        },
        Past::LaterOn,
    )
}

/// Waits between attempts to read what could not be read, longer each time.
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(UNREADABLE_WAIT_MIN)
    }
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(UNREADABLE_WAIT_MAX);
        wait
    }
}

/// Offsets, and the triggers that each matches.
pub type Matches = Vec<(Offset, Vec<TriggerId>)>;

/// Events from an offset on, all that are not lost for good.
pub struct Piece {
    pub records: Vec<Record>,
    /// They are those before this.
    pub end: Offset,
}

/// Reads some of the events in a range and finds what they match, off the lock; also says with what they were matched.
async fn read_piece(
    dispatch: &Dispatch,
    from: Offset,
    to: Offset,
    find: impl FnOnce(&Table, &[Record]) -> Matches + Send + 'static,
) -> Result<(Piece, Matches, Arc<Table>), ReadError> {
    let reader = Arc::clone(dispatch.log().reader());
    let (table, gaps) = {
        let core = dispatch.core();
        (Arc::clone(&core.table), core.state.gaps.clone())
    };
    let read = move || {
        let piece = piece(&reader, from, to, &gaps)?;
        let matches = find(&table, &piece.records);
        Ok((piece, matches, table))
    };
    blocking(read).await.unwrap_or(Err(ReadError::Absent(from)))
}

/// Reads some of the events in a range, those that a gap took left out. Blocks on the disk.
pub fn piece(reader: &Reader, from: Offset, to: Offset, gaps: &[Gap]) -> Result<Piece, ReadError> {
    let end = Offset(to.0.min(from.0 + PIECE as u64));
    let (mut found, mut bytes) = (Vec::new(), 0);
    reader.walk(from, &mut |record, _| {
        let LogRecord::Event(record) = record else { return true };
        if record.offset >= end {
            return false;
        }
        let is_next = found.last().is_none_or(|last: &Record| last.offset < record.offset);
        if record.offset >= from && is_next {
            bytes += data_bytes(&record);
            found.push(record);
        }
        bytes < PIECE_BYTES
    })?;
    let mut piece = Piece { records: Vec::with_capacity(found.len()), end: from };
    let until = if bytes < PIECE_BYTES { end } else { found.last().map_or(end, |last| last.offset.next()) };
    let kept_from = reader.first_offset();
    let mut found = found.into_iter().peekable();
    let mut bytes_beside = 0;
    while piece.end < until && bytes_beside < PIECE_BYTES {
        let offset = piece.end;
        if let Some(record) = found.next_if(|record| record.offset == offset) {
            piece.records.push(record);
        } else if offset < kept_from {
            warn!(from = %offset, to = %kept_from, "retention was faster than the trigger that was to see these events");
            piece.end = kept_from.min(to);
            continue;
        } else if !gaps.iter().any(|gap| gap.from <= offset && offset < gap.to) {
            // It may be whole in a frame that is not.
            match reader.read(offset) {
                Ok(record) => {
                    bytes_beside += data_bytes(&record);
                    piece.records.push(Arc::unwrap_or_clone(record));
                }
                Err(error) if offset == from => return Err(error),
                Err(_) => break,
            }
        }
        piece.end = offset.next();
    }
    Ok(piece)
}

fn data_bytes(record: &Record) -> usize {
    record.event.data().map_or(0, |data| data.bytes.len())
}

/// Has a trigger that fell behind fetch its matches, as long as it has room for them.
pub fn catch_up_if_behind(dispatch: &Dispatch, id: TriggerId) {
    if dispatch.core().lagging(id).is_none() {
        return;
    }
    let dispatch = dispatch.clone();
    tokio::spawn(async move {
        let mut waits = Backoff::default();
        loop {
            match catch_up(&dispatch, id).await {
                Ok(()) => waits = Backoff::default(),
                Err(error) => {
                    let text = format!("cannot read what the trigger matched: {error}");
                    say_unreadable(&dispatch, id, &text);
                    tokio::time::sleep(waits.next()).await;
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
    let (from, gaps, most) = {
        let mut core = dispatch.core();
        let Some(from) = core.catch_up_from_memory(id) else { return Ok(()) };
        (from, core.state.gaps.clone(), core.room_of(id).clamp(1, MATCHES_MAX))
    };
    let reader = Arc::clone(dispatch.log().reader());
    let found = blocking(move || matches(&reader, id, from, &gaps, most)).await;
    let (offsets, next) = found.unwrap_or(Err(ReadError::Absent(from)))?;
    dispatch.core().catch_up(id, from, &offsets, next);
    Ok(())
}

/// Some matches of a trigger from an offset on, and where those that were not read begin. Records that cannot be read may hold
/// some: it goes no further than to these, and nowhere when there is a gap in the log.
pub(super) fn matches(
    reader: &Reader,
    id: TriggerId,
    from: Offset,
    gaps: &[Gap],
    most: usize,
) -> Result<(Vec<Offset>, Offset), ReadError> {
    let (mut offsets, mut next) = (Vec::new(), from);
    let mut unread = None;
    // The lowest of those that were let go: those above it, however many are kept of them, are read again.
    let mut left_out = None;
    // What was recorded in a place that is lost was routed again, and is recorded behind what came after it.
    let is_in_order = gaps.is_empty();
    reader.walk_all(from, &mut |passed| match passed {
        Passed::Record(LogRecord::Routed(routed), _) => {
            if routed.to < from || routed.only.is_some_and(|only| only != id) {
                return true;
            }
            let is_wanted =
                |offset: Offset| offset >= from && left_out.is_none_or(|left_out| offset < left_out);
            let matched =
                routed.matches.iter().filter(|(offset, ids)| is_wanted(*offset) && ids.contains(&id));
            offsets.extend(matched.map(|(offset, _)| *offset));
            next = next.max(routed.to.next());
            if offsets.len() > 2 * MATCHES_MAX {
                left_out = keep_lowest(&mut offsets, most).or(left_out);
            }
            offsets.len() < most || !is_in_order
        }
        Passed::Record(..) => true,
        Passed::Damage(place) => {
            // Matches are recorded behind their events.
            let may_tell_of_it = place.next_offset > from && !gaps.iter().any(|gap| place.is_within(gap));
            unread = may_tell_of_it.then_some(place);
            unread.is_none()
        }
    })?;
    // Without an order, what was recorded behind may be about any event.
    if let Some(Unread { file, start, .. }) = unread.filter(|_| next == from || !is_in_order) {
        return Err(ReadError::Damaged { offset: from, file, at: start });
    }
    let left_out = keep_lowest(&mut offsets, most).or(left_out);
    let next = left_out.map_or(next, |left_out| left_out.min(next));
    debug!(trigger = id.0, from = %from, to = %next, "fetched {} matches from the log", offsets.len());
    Ok((offsets, next))
}

/// Sorts matches and keeps so many of them; returns the first that was left out.
fn keep_lowest(offsets: &mut Vec<Offset>, most: usize) -> Option<Offset> {
    offsets.sort_unstable();
    offsets.dedup();
    let left_out = offsets.get(most).copied();
    offsets.truncate(most);
    left_out
}
