//! Deliveries into message systems: how sending ended becomes an outcome, so that retries and dead letters are those of HTTP.

use std::future::Future;

use bytes::Bytes;
use sluice_adapters::Unsent;

use super::{Answer, Attempt};
use crate::delivery::{Failure, Outcome, Reason};

/// Sends once, within the time an attempt has. `trouble` is what a client that tries again by itself has met.
pub async fn deliver(
    attempt: Attempt<'_>,
    sending: impl Future<Output = Result<(), Unsent>>,
    trouble: impl Fn() -> Option<String>,
) -> Answer {
    let sent = match tokio::time::timeout(attempt.timeout, sending).await {
        Ok(sent) => sent,
        Err(_) => {
            let trouble = trouble().map_or_else(String::new, |trouble| format!(": {trouble}"));
            Err(Unsent::Retriable(format!("timed out after {:?}{trouble}", attempt.timeout)))
        }
    };
    Answer { status: None, outcome: outcome(sent) }
}

fn outcome(sent: Result<(), Unsent>) -> Outcome {
    let cause = |error: String| Failure { status: None, error, body: Bytes::new() };
    match sent {
        Ok(()) => Outcome::Accepted { reply: Vec::new() },
        Err(Unsent::Retriable(error)) => Outcome::Retriable { cause: cause(error), retry_after: None },
        Err(Unsent::Rejected(error)) => Outcome::Rejected { cause: cause(error), reason: Reason::Rejected },
    }
}
