//! What the broker does beside the events: looks for room, keeps its promises to removed triggers, purges by age.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time;
use tracing::{info, warn};

use crate::delivery::Reason;
use crate::dispatch::Dispatch;
use crate::ingress::{Gate, GateState};
use crate::store::{DeadLetter, DeliveryId, LogRecord, Offset, Purge, Report, TriggerId, clock};

const GATE_INTERVAL: Duration = Duration::from_millis(50);
const FLOOR_INTERVAL: Duration = Duration::from_secs(1);
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);
/// Dead letters looked at under the lock in one go.
const LOOK_PIECE: usize = 5000;
const GRACE_INTERVAL: Duration = Duration::from_secs(5);

/// Closes the gate while the store is full and opens it again; tells the store what is still needed of it.
pub async fn watch_room(dispatch: Dispatch, gate: Gate) {
    let mut floor_told = time::Instant::now();
    loop {
        time::sleep(GATE_INTERVAL).await;
        if floor_told.elapsed() >= FLOOR_INTERVAL || is_near_its_limit(&dispatch.log().report()) {
            floor_told = time::Instant::now();
            let floor = dispatch.core().state.floor();
            dispatch.log().note_floor(floor);
        }
        gate.set(dispatch.log().full().map_or(GateState::Ready, GateState::Full));
    }
}

/// Whether what is settled should be known at once: until it is, it counts as owed, and events would be refused for it.
fn is_near_its_limit(report: &Report) -> bool {
    report.owed_bytes > report.limit_bytes / 2
}

/// Moves the backlog of triggers that stay removed to the dead letters, and forgets those that owe nothing.
pub async fn keep_promises(dispatch: Dispatch, grace: Duration) {
    let mut look = time::interval(GRACE_INTERVAL.min(grace.max(GATE_INTERVAL)));
    look.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let now = clock::wall_ms();
        let expired: Vec<_> = {
            let core = dispatch.core();
            let is_expired = |at: Option<u64>| at.is_some_and(|at| at + grace.as_millis() as u64 <= now);
            let entries = core.state.set.triggers.iter().filter(|entry| is_expired(entry.removed_at_ms));
            entries.map(|entry| (entry.id, entry.name.clone())).collect()
        };
        for (id, name) in expired {
            match dispatch.discard(id, Reason::TriggerRemoved).await {
                Ok(0) => {}
                Ok(moved) => {
                    warn!(trigger = %name, moved, "moved the backlog of a removed trigger to the dead letters");
                }
                Err(refusal) => {
                    warn!(trigger = %name, %refusal, "cannot move the backlog of a removed trigger yet");
                }
            }
            let mut core = dispatch.core();
            let owes_nothing =
                core.state.triggers.get(&id).is_none_or(|state| core.state.books(state).pending() == 0);
            let first = DeliveryId { trigger: id, offset: Offset(0), redrive: 0 };
            let next = DeliveryId { trigger: TriggerId(id.0 + 1), ..first };
            let has_dead_letters = core.state.dead.range(first..next).next().is_some();
            if core.is_removed(id) && owes_nothing && !has_dead_letters {
                core.frozen.remove(&id);
                core.record(LogRecord::Dropped(id));
            }
        }
    }
}

/// Purges dead letters that are older than the configuration keeps them.
pub async fn expire_dead_letters(dispatch: Dispatch, age: Duration) {
    loop {
        time::sleep(EXPIRY_INTERVAL.min(age.max(GATE_INTERVAL))).await;
        let mut next = Some(DeliveryId { trigger: TriggerId(0), offset: Offset(0), redrive: 0 });
        while let Some(from) = next {
            let now = clock::wall_ms();
            let written = {
                let mut core = dispatch.core();
                let (ids, following) =
                    older(&core.state.dead, from, now.saturating_sub(age.as_millis() as u64));
                next = following;
                (!ids.is_empty()).then(|| {
                    info!(count = ids.len(), "purged dead letters older than dead_letters.age");
                    core.record_durably(LogRecord::Purge(Purge { at_ms: now, ids }))
                })
            };
            let Some(written) = written else {
                tokio::task::yield_now().await;
                continue;
            };
            if let Err(refusal) = written.await {
                warn!(%refusal, "dead letters that were purged by age may be listed again after a restart");
            }
        }
    }
}

/// Those from before a time among some dead letters, and which come next.
fn older(
    dead: &BTreeMap<DeliveryId, DeadLetter>,
    from: DeliveryId,
    until_ms: u64,
) -> (Vec<DeliveryId>, Option<DeliveryId>) {
    let mut dead = dead.range(from..);
    let looked_at = dead.by_ref().take(LOOK_PIECE);
    let ids = looked_at.filter(|(_, letter)| letter.at_ms <= until_ms).map(|(id, _)| *id).collect();
    (ids, dead.next().map(|(id, _)| *id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_settled_is_told_at_once_when_the_store_is_near_its_limit() {
        let report = |owed_bytes| Report { owed_bytes, limit_bytes: 1000, ..Report::default() };
        assert!(!is_near_its_limit(&Report::default()), "nothing is known before the first look");
        assert!(!is_near_its_limit(&report(500)));
        assert!(is_near_its_limit(&report(501)));
    }
}
