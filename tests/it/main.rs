//! What users of the broker see, told as stories about the real binary: one behaviour each, on ports the system picks,
//! with sinks that live in the test.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod broker;
mod http;
mod sink;

mod command_line;
mod dead_letters;
mod delivery;
mod documents;
mod explain;
mod filter_errors;
mod git;
mod kafka;
mod lookups;
mod operators;
mod publishing;
mod reload;
mod replies;
mod routing;
mod sources;
mod testing;
mod transform;
mod webhooks;
mod wire;

use std::future::Future;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine; nothing waits for it unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again until the answer is there.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
