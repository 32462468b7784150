//! What became of an event, read from the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::http::StatusCode;

use crate::edge::Problem;
use crate::store::{Attempted, Log, LogRecord, Offset, ReadError, TriggerId};

/// Attempts shown of a delivery: the first ones and the last ones; what lies between is counted.
const FIRST: usize = 2;
const LAST: usize = 8;
const WRITTEN_WAIT: Duration = Duration::from_secs(1);

/// The attempts of one delivery that are shown.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    first: Vec<Attempted>,
    last: std::collections::VecDeque<Attempted>,
    pub omitted: u64,
}

impl Attempts {
    fn push(&mut self, attempted: Attempted) {
        if self.first.len() < FIRST {
            return self.first.push(attempted);
        }
        self.last.push_back(attempted);
        if self.last.len() > LAST {
            self.last.pop_front();
            self.omitted += 1;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Attempted> {
        self.first.iter().chain(&self.last)
    }

    pub fn last(&self) -> Option<&Attempted> {
        self.last.back().or(self.first.last())
    }
}

/// Deliveries of an event by trigger and number of redrive, and the triggers it matched.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    pub matched: Vec<TriggerId>,
    /// Whether the log says which those are: not yet when it is not routed, and not any more when it is a dead letter that
    /// has outlived its segment.
    pub is_routed: bool,
    pub deliveries: BTreeMap<(TriggerId, u32), Attempts>,
    /// Dead letters that were removed for good; others that have left the list were redriven.
    pub purged: BTreeSet<(TriggerId, u32)>,
}

impl Trail {
    /// Takes in an attempt of a dead letter that has outlived the segment of its event.
    fn keep(&mut self, attempted: Attempted) {
        let id = attempted.id;
        // A redrive may have gone to a trigger that did not match.
        if id.redrive == 0 {
            self.matched.push(id.trigger);
        }
        self.deliveries.entry((id.trigger, id.redrive)).or_default().push(attempted);
    }
}

/// Collects everything the log says of an event.
pub fn trail(log: &Log, offset: Offset) -> Result<Trail, ReadError> {
    let mut trail = Trail::default();
    let kept = log.reader().kept_attempts(offset)?;
    kept.iter().for_each(|attempted| trail.keep(attempted.clone()));
    log.index().outcomes(&[offset], &mut |record| match record {
        LogRecord::Routed(routed) if routed.from <= offset && offset <= routed.to => {
            // The past of a new trigger says nothing of the others.
            trail.is_routed |= routed.only.is_none();
            let found = routed.matches.into_iter().find(|(at, _)| *at == offset);
            trail.matched.extend(found.into_iter().flat_map(|(_, ids)| ids));
        }
        LogRecord::Outcomes(attempts) => {
            // Until the segment goes that it was copied from, it is there twice.
            let is_new = |attempted: &Attempted| attempted.id.offset == offset && !kept.contains(attempted);
            for attempted in attempts.into_iter().filter(is_new) {
                let id = attempted.id;
                trail.deliveries.entry((id.trigger, id.redrive)).or_default().push(attempted);
            }
        }
        LogRecord::Purge(purge) => {
            let ids = purge.ids.into_iter().filter(|id| id.offset == offset);
            trail.purged.extend(ids.map(|id| (id.trigger, id.redrive)));
        }
        _ => {}
    })?;
    trail.matched.sort_unstable();
    trail.matched.dedup();
    Ok(trail)
}

/// Waits until what was decided by now can be read; on a full disk only for a while.
pub async fn written(log: &Log) {
    let _ = tokio::time::timeout(WRITTEN_WAIT, log.flush()).await;
}

/// How a failed read is answered.
pub fn problem(error: &ReadError) -> Problem {
    let status = match error {
        ReadError::Absent(_) => StatusCode::NOT_FOUND,
        ReadError::Damaged { .. } | ReadError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Problem::new(status, error.to_string())
}

/// Reads of the log, off the threads that serve.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    #[expect(clippy::disallowed_methods, reason = "operators' look-ups read the disk; there are few of them")]
    let task = tokio::task::spawn_blocking(work);
    task.await.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the look-up failed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Reason;
    use crate::dispatch::ended_without_attempt;
    use crate::store::tests::disk::SimDisk;
    use crate::store::tests::rig::{Run, event, one_trigger, options, outcome};
    use crate::store::{DeliveryId, Next, Options, Routed};

    #[test]
    fn a_trigger_that_a_dead_letter_was_redriven_to_has_not_matched_its_event() {
        let mut trail = Trail::default();
        for (trigger, redrive) in [(1, 0), (2, 1)] {
            let id = DeliveryId { trigger: TriggerId(trigger), offset: Offset(7), redrive };
            trail.keep(ended_without_attempt(id, Reason::Discarded));
        }
        assert_eq!(trail.matched, [TriggerId(1)]);
        let deliveries: Vec<_> = trail.deliveries.keys().copied().collect();
        assert_eq!(deliveries, [(TriggerId(1), 0), (TriggerId(2), 1)]);
    }

    #[test]
    fn an_attempt_that_has_been_copied_and_whose_segment_is_still_there_is_shown_once() {
        let options = Options { window: None, segment_bytes: 12 << 10, retention_age_ms: 0, ..options() };
        let mut run = Run::open(&SimDisk::new(), &options).unwrap();
        run.append(&[], vec![one_trigger()]).unwrap();
        let trigger = TriggerId(1);
        let lease = run.log.reader().segments()[0].clone();
        for n in 0..40 {
            let offset = Offset(n);
            let matches = vec![(offset, vec![trigger])];
            let routed = Routed { epoch: 1, from: offset, to: offset, matches, only: None };
            let records =
                vec![LogRecord::Routed(routed), outcome(trigger, n, 0, Next::Dead(Reason::Attempts))];
            run.append(&[event(&n.to_string(), 1400)], records).unwrap();
            run.keeper.step();
        }
        assert_eq!(run.log.reader().segments()[0].number(), 1, "it is leased");
        assert_eq!(run.log.reader().kept_attempts(Offset(0)).unwrap().len(), 1, "it has been copied");
        let trail = trail(&run.log, Offset(0)).unwrap();
        assert_eq!(trail.deliveries[&(trigger, 0)].iter().count(), 1);
        drop(lease);
        run.stop().unwrap();
    }
}
