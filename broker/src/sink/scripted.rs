//! The sink of tests: answers as it is told, without a network, on the clock of the test.

use std::sync::Arc;
use std::time::Duration;

use sluice_schemas::Event;

use super::{Answer, Attempt};
use crate::delivery::{self, Answered, Failure, Outcome};

/// What a sink does with a request.
pub struct Play {
    pub after: Duration,
    /// `None`: it never answers.
    pub answered: Option<Answered>,
}

/// Told the sink's URL and the event it gets.
pub type Script = Arc<dyn Fn(&str, &Event) -> Play + Send + Sync>;

pub struct ScriptedSink {
    url: String,
    script: Script,
}

impl ScriptedSink {
    pub fn new(url: &str, script: &Script) -> Self {
        Self { url: url.to_owned(), script: Arc::clone(script) }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// As the sink for HTTP does it, from the answer on.
    pub async fn deliver(&self, attempt: Attempt<'_>) -> Answer {
        let Play { after, answered } = (self.script)(&self.url, attempt.event);
        let answering = async {
            tokio::time::sleep(after).await;
            match answered {
                Some(answered) => answered,
                None => std::future::pending().await,
            }
        };
        let Ok(answered) = tokio::time::timeout(attempt.timeout, answering).await else {
            let error = format!("timed out after {:?}", attempt.timeout);
            let cause = Failure { error, ..Failure::default() };
            return Answer { status: None, outcome: Outcome::Retriable { cause, retry_after: None } };
        };
        let outcome = delivery::classify(&answered, attempt.config, attempt.limits, 0);
        Answer { status: Some(answered.status.as_u16()), outcome }
    }
}
