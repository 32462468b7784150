//! A sink for looking: one JSON event per line.

use std::io::Write;

use sluice_schemas::{Event, json};

use super::Answer;
use crate::delivery::{Failure, Outcome};

pub async fn print(event: &Event) -> Answer {
    let mut line = json::encode(event);
    line.push(b'\n');
    #[expect(
        clippy::disallowed_methods,
        reason = "standard output may be a pipe that nobody reads at the moment"
    )]
    let printed = tokio::task::spawn_blocking(move || {
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
