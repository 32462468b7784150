//! A sink for looking: one JSON event per line.

use std::io::Write;

use sluice_schemas::{Event, json};
use tokio::sync::Mutex;

use super::Answer;
use crate::delivery::{Failure, Outcome};

/// Standard output may be a pipe that nobody reads at the moment. Then one thread waits for it, and the others go on reading
/// the log.
static STDOUT: Mutex<()> = Mutex::const_new(());

pub async fn print(event: &Event) -> Answer {
    let mut line = json::encode(event);
    line.push(b'\n');
    let turn = STDOUT.lock().await;
    #[expect(clippy::disallowed_methods, reason = "printing may block, one thread at a time")]
    let printed = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&line).and_then(|()| stdout.flush())
    });
    let error = match printed.await {
        Ok(Ok(())) => return Answer { status: None, outcome: Outcome::Accepted { reply: Vec::new() } },
        Ok(Err(error)) => error.to_string(),
        Err(_) => "printing was interrupted".into(),
    };
    let cause = Failure { error: format!("cannot print: {error}"), ..Failure::default() };
    Answer { status: None, outcome: Outcome::Retriable { cause, retry_after: None } }
}
