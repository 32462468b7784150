//! What the store measures of itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the histogram of sync times, in microseconds.
pub const SYNC_BOUNDS_US: [u64; 12] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000];
/// Upper bounds of the histogram of events in a frame.
pub const BATCH_BOUNDS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 512, 4096];

#[derive(Debug, Default)]
pub struct Measures {
    sync: [AtomicU64; SYNC_BOUNDS_US.len() + 1],
    sync_us: AtomicU64,
    batch: [AtomicU64; BATCH_BOUNDS.len() + 1],
    events: AtomicU64,
    bytes: AtomicU64,
}

/// A histogram: how many fell at or below each bound, how many there were, and their sum.
#[derive(Clone, Debug)]
pub struct SyncTimes {
    pub buckets: Vec<(f64, u64)>,
    pub count: u64,
    pub sum: f64,
}

impl Measures {
    pub fn synced(&self, took: Duration, events: usize, bytes: usize) {
        let us = took.as_micros() as u64;
        self.sync[SYNC_BOUNDS_US.partition_point(|bound| *bound < us)].fetch_add(1, Ordering::Relaxed);
        self.sync_us.fetch_add(us, Ordering::Relaxed);
        if events > 0 {
            let bucket = BATCH_BOUNDS.partition_point(|bound| *bound < events as u64);
            self.batch[bucket].fetch_add(1, Ordering::Relaxed);
            self.events.fetch_add(events as u64, Ordering::Relaxed);
        }
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// In seconds.
    pub fn sync_times(&self) -> SyncTimes {
        let bounds = SYNC_BOUNDS_US.map(|us| us as f64 / 1e6);
        histogram(&bounds, &self.sync, self.sync_us.load(Ordering::Relaxed) as f64 / 1e6)
    }

    /// In events a frame, frames without events left out.
    pub fn batches(&self) -> SyncTimes {
        histogram(&BATCH_BOUNDS.map(|n| n as f64), &self.batch, self.events.load(Ordering::Relaxed) as f64)
    }
}

fn histogram(bounds: &[f64], counts: &[AtomicU64], sum: f64) -> SyncTimes {
    let mut count = 0;
    let mut buckets = Vec::with_capacity(bounds.len());
    for (at, cell) in counts.iter().enumerate() {
        count += cell.load(Ordering::Relaxed);
        if let Some(bound) = bounds.get(at) {
            buckets.push((*bound, count));
        }
    }
    SyncTimes { buckets, count, sum }
}
