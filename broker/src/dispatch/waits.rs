//! What a trigger's deliveries wait for besides their turn: a time, and a rate.

use std::collections::{BTreeSet, HashSet};

use crate::store::DeliveryId;

/// Deliveries that are set aside until a time.
#[derive(Default)]
pub struct Postponed {
    by_time: BTreeSet<(u64, DeliveryId)>,
    ids: HashSet<DeliveryId>,
}

impl Postponed {
    pub fn push(&mut self, until_ms: u64, id: DeliveryId) {
        if self.ids.insert(id) {
            self.by_time.insert((until_ms, id));
        }
    }

    pub fn pop_due(&mut self, now_ms: u64) -> Option<DeliveryId> {
        let (at, id) = self.by_time.first().copied().filter(|(at, _)| *at <= now_ms)?;
        self.by_time.remove(&(at, id));
        self.ids.remove(&id);
        Some(id)
    }

    pub fn contains(&self, id: DeliveryId) -> bool {
        self.ids.contains(&id)
    }

    pub fn first_ms(&self) -> Option<u64> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

/// One second's worth of attempts.
pub struct Bucket {
    per_second: f64,
    tokens: f64,
    at_ms: u64,
}

impl Bucket {
    pub fn full(per_second: f64) -> Self {
        Self { per_second, tokens: per_second.max(1.0), at_ms: 0 }
    }

    /// Takes a token, or says when there will be one.
    pub fn take(&mut self, now_ms: u64) -> Result<(), u64> {
        self.tokens = self.tokens_at(now_ms);
        self.at_ms = now_ms;
        if let Some(next) = self.empty_until(now_ms) {
            return Err(next);
        }
        self.tokens -= 1.0;
        Ok(())
    }

    /// When there will be a token, if there is none now.
    pub fn empty_until(&self, now_ms: u64) -> Option<u64> {
        let tokens = self.tokens_at(now_ms);
        let wait = ((1.0 - tokens) / self.per_second * 1e3).ceil().max(1.0) as u64;
        (tokens < 1.0).then(|| now_ms + wait)
    }

    fn tokens_at(&self, now_ms: u64) -> f64 {
        let passed = now_ms.saturating_sub(self.at_ms) as f64 / 1e3;
        (self.tokens + passed * self.per_second).min(self.per_second.max(1.0))
    }
}
