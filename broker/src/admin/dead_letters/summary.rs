//! What a list says of the attempts of its deliveries.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::{Attempted, DeliveryId, Log, LogRecord, Offset, ReadError};

/// The attempts of one delivery.
#[derive(Clone, Debug)]
pub struct Summary {
    /// How many there were; an ending without one does not count.
    pub attempts: u32,
    pub first_at_ms: u64,
    pub last_at_ms: u64,
    /// What the sink answered last.
    pub status: Option<u16>,
    /// Why the delivery ended.
    pub error: Option<Box<str>>,
}

/// Those of several deliveries, read from the log in one pass. What cannot be read is left out: which dead letters there are
/// does not depend on it.
pub fn summaries(log: &Log, ids: &BTreeSet<DeliveryId>) -> BTreeMap<DeliveryId, Summary> {
    let mut found = BTreeMap::new();
    if let Err(error) = collect(log, ids, &mut found) {
        tracing::warn!(%error, "a list of dead letters lacks attempts");
    }
    found
}

fn collect(
    log: &Log,
    ids: &BTreeSet<DeliveryId>,
    found: &mut BTreeMap<DeliveryId, Summary>,
) -> Result<(), ReadError> {
    let mut offsets: Vec<Offset> = ids.iter().map(|id| id.offset).collect();
    offsets.sort_unstable();
    offsets.dedup();
    let mut add = |attempted: Attempted| {
        if ids.contains(&attempted.id) {
            add(found, attempted);
        }
    };
    for offset in &offsets {
        log.reader().kept_attempts(*offset)?.into_iter().for_each(&mut add);
    }
    log.index().outcomes(&offsets, &mut |record| {
        if let LogRecord::Outcomes(attempts) = record {
            attempts.into_iter().for_each(&mut add);
        }
    })
}

fn add(found: &mut BTreeMap<DeliveryId, Summary>, attempted: Attempted) {
    let Attempted { id, attempt, at_ms, status, error, .. } = attempted;
    let summary = found.entry(id).or_insert(Summary {
        attempts: 0,
        first_at_ms: at_ms,
        last_at_ms: at_ms,
        status: None,
        error: None,
    });
    summary.last_at_ms = at_ms;
    summary.error = error;
    if attempt > 0 {
        summary.attempts = summary.attempts.max(attempt);
        summary.status = status;
    }
}
