//! Into the list of dead letters and out of it, as operators want it: what is discarded, and what is redriven.

use std::collections::BTreeSet;

use sluice_adapters::Refusal;

use super::{Dispatch, history};
use crate::delivery::Reason;
use crate::store::{DeliveryId, LogRecord, Redrive, TriggerId, clock};

/// Deliveries discarded by one record.
const DISCARDED: usize = 1000;
/// Dead letters moved by one record.
const MOVED: usize = 5000;

impl Dispatch {
    /// Makes everything pending of a trigger a dead letter, in pieces; returns how many that were. What is in flight is one
    /// unless its sink accepts it.
    pub async fn discard(&self, id: TriggerId, reason: Reason) -> Result<u64, Refusal> {
        let mut total = 0;
        loop {
            let (written, discarded, behind) = {
                let mut core = self.core();
                if reason == Reason::TriggerRemoved && !core.is_removed(id) {
                    // It has come back meanwhile.
                    return Ok(total);
                }
                let ended = core.discard(id, reason, DISCARDED);
                let behind = core.state.triggers.get(&id).is_some_and(|state| state.behind.is_some());
                let discarded = ended.len();
                let record = LogRecord::Outcomes(ended);
                let written = (discarded > 0).then(|| core.log.append(Vec::new(), vec![record]));
                (written, discarded, behind)
            };
            if discarded == 0 && !behind {
                return Ok(total);
            }
            total += discarded as u64;
            if let Some(written) = written {
                written.await?;
                self.shared.owed.notify_one();
            }
            if behind {
                let caught_up = history::catch_up(self, id).await;
                caught_up.map_err(|error| Refusal::Unavailable { reason: error.to_string() })?;
                if discarded == 0 {
                    // What is in flight must end first, or what was matched reach the log.
                    tokio::time::sleep(history::CATCH_UP_PAUSE).await;
                }
            }
        }
    }

    /// Makes dead letters pending again, each with its own trigger or all with one; returns how many that were. What has left
    /// the list meanwhile is passed over.
    pub async fn redrive(&self, letters: &[DeliveryId], to: Option<TriggerId>) -> Result<u64, Refusal> {
        let mut total = 0;
        for piece in letters.chunks(MOVED) {
            let (written, concerned) = {
                let mut core = self.core();
                let first = core.state.redrives + 1;
                let numbered = piece.iter().zip(first..);
                let moved: Vec<_> = numbered
                    .map(|(from, redrive)| {
                        (*from, DeliveryId { trigger: to.unwrap_or(from.trigger), redrive, ..*from })
                    })
                    .collect();
                let new: Vec<_> = moved.iter().map(|(_, id)| *id).collect();
                let listed = core.state.dead.len();
                let written =
                    core.record_durably(LogRecord::Redrive(Redrive { at_ms: clock::wall_ms(), moved }));
                total += (listed - core.state.dead.len()) as u64;
                for id in &new {
                    if let Some(runtime) = core.runtimes.get_mut(&id.trigger) {
                        runtime.redrive(*id);
                    }
                }
                (written, new.iter().map(|id| id.trigger).collect::<BTreeSet<_>>())
            };
            written.await?;
            concerned.into_iter().for_each(|id| self.nudge(id));
        }
        Ok(total)
    }
}
