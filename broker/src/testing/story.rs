//! A delivery to a scripted sink: the dispatcher's own rules on a clock that jumps from one attempt to the next.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use sluice_config::{Ends, Limits, ScriptedAnswer, Story, Trigger};

use super::Difference;
use crate::delivery::{self, Answered, Disposition, Failure, Outcome, Reason, RetryPolicy};

/// Longer stories are left unfinished.
const ATTEMPTS_MAX: usize = 10_000;
/// So many attempts are shown.
const SHOWN_MAX: usize = 20;

/// How a delivery went.
#[derive(Debug)]
pub struct Told {
    /// When each attempt began.
    attempts: Vec<Duration>,
    /// `None`: it goes on.
    end: Option<Result<(), Reason>>,
    /// Why the transform failed, in which case nothing was attempted.
    detail: Option<String>,
}

/// Plays a delivery. The last answer repeats; waits are at their upper bound.
pub fn tell(
    trigger: &Trigger,
    limits: &Limits,
    answers: &[ScriptedAnswer],
    transformed: Result<(), String>,
) -> Told {
    let mut told = Told { attempts: Vec::new(), end: None, detail: None };
    if let Err(detail) = transformed {
        return Told { end: Some(Err(Reason::Transform)), detail: Some(detail), ..told };
    }
    let policy = RetryPolicy::from(&trigger.delivery);
    let mut now = Duration::ZERO;
    while told.attempts.len() < ATTEMPTS_MAX {
        let attempt = told.attempts.len() as u32 + 1;
        // The dispatcher knows when a delivery began once its first attempt is over.
        let age = |now: Duration| if attempt == 1 { Duration::ZERO } else { now };
        if attempt > 1 && policy.is_expired(age(now)) {
            told.end = Some(Err(Reason::Age));
            return told;
        }
        told.attempts.push(now);
        let Some(answer) = answers.get(attempt as usize - 1).or(answers.last()) else { return told };
        let outcome = match answer {
            ScriptedAnswer::Status(status) => classify(*status, trigger, limits),
            ScriptedAnswer::Timeout => {
                now += trigger.delivery.timeout;
                let error = format!("timed out after {:?}", trigger.delivery.timeout);
                Outcome::Retriable { cause: Failure { error, ..Failure::default() }, retry_after: None }
            }
        };
        match policy.decide(attempt, &outcome, age(now), 1.0) {
            Disposition::Settle => told.end = Some(Ok(())),
            Disposition::RetryIn(wait) => now += wait,
            Disposition::DeadLetter(reason) => told.end = Some(Err(reason)),
        }
        if told.end.is_some() {
            return told;
        }
    }
    told
}

fn classify(status: u16, trigger: &Trigger, limits: &Limits) -> Outcome {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let answered = Answered { status, headers: HeaderMap::new(), body: Bytes::new(), is_cut: false };
    delivery::classify(&answered, &trigger.delivery, limits, 0)
}

/// How a delivery differs from the story that was expected. Attempts beyond the scripted answers count only where they are listed.
pub fn differences(what: &str, expected: &Story, told: &Told) -> Vec<Difference> {
    let mut differences = Vec::new();
    if let Some(attempts) = &expected.attempts {
        let compared = told.attempts.len().min(expected.answers.len().max(attempts.len()));
        if told.attempts[..compared] != attempts[..] {
            let actual = times(&told.attempts[..compared]);
            differences.push(Difference::new(format!("{what}.attempts"), times(attempts), actual));
        }
    }
    let is_as_expected = match (expected.ends, told.end) {
        (None, _) => true,
        (Some(Ends::Delivered), end) => end == Some(Ok(())),
        (Some(Ends::Dead), end) => matches!(end, Some(Err(_))),
        (Some(Ends::DeadOf(reason)), Some(Err(actual))) => actual.as_str() == reason,
        (Some(Ends::DeadOf(_)), _) => false,
    };
    if let (Some(ends), false) = (expected.ends, is_as_expected) {
        differences.push(Difference::new(format!("{what}.ends"), ends.as_str(), told.ending()));
    }
    differences
}

impl Told {
    fn ending(&self) -> String {
        match (self.end, &self.detail) {
            (Some(Ok(())), _) => "delivered".into(),
            (Some(Err(reason)), Some(detail)) => format!("{}: {detail}", reason.as_str()),
            (Some(Err(reason)), None) => reason.as_str().into(),
            (None, _) => format!("still being retried after {} attempts", self.attempts.len()),
        }
    }
}

/// `[0s, 1s, 3s]`, as it is written in a test.
fn times(all: &[Duration]) -> String {
    let time = |at: &Duration| {
        let ms = at.as_millis();
        if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
    };
    let shown: Vec<String> = all.iter().take(SHOWN_MAX).map(time).collect();
    let more = if all.len() > SHOWN_MAX { format!(", … {} in all", all.len()) } else { String::new() };
    format!("[{}{more}]", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::tests::rig::Setup;

    const ANSWERS: [(&str, ScriptedAnswer); 6] = [
        ("200", ScriptedAnswer::Status(200)),
        ("503", ScriptedAnswer::Status(503)),
        ("429", ScriptedAnswer::Status(429)),
        ("400", ScriptedAnswer::Status(400)),
        ("410", ScriptedAnswer::Status(410)),
        ("hang", ScriptedAnswer::Timeout),
    ];

    /// A delivery's settings; times are whole hundredths of a second, which is how exactly the dispatcher keeps them.
    fn delivery(random: &mut fastrand::Rng) -> String {
        let retry = if random.bool() { random.u32(0..6).to_string() } else { "unlimited".into() };
        let backoff = ["constant", "linear", "exponential"][random.usize(0..3)];
        let delay = random.u32(1..300) * 10;
        format!(
            "retry: {retry}, backoff: {backoff}, backoff_delay: {delay}ms, backoff_max: {}ms, max_age: {}s, timeout: {}s",
            delay + random.u32(0..300) * 10,
            random.u32(1..40),
            random.u32(1..10),
        )
    }

    /// What `sluice test` foretells is what the dispatcher does.
    #[test]
    fn a_story_is_told_as_the_dispatcher_plays_it() {
        for seed in 0..80 {
            let mut random = fastrand::Rng::with_seed(seed);
            let delivery = delivery(&mut random);
            // Failures mostly, so that stories are long enough to differ.
            let mut script: Vec<usize> =
                (0..random.usize(0..5)).map(|_| [1, 2, 5][random.usize(0..3)]).collect();
            script.push(random.usize(0..6));
            let triggers = format!("t: {{ sink: \"http://shop\", delivery: {{ {delivery} }} }}");
            let config =
                sluice_config::check_text("t.yaml", &format!("triggers: {{ {triggers} }}"), &|_| None);
            let config = config.expect("a configuration").config;
            let answers: Vec<ScriptedAnswer> = script.iter().map(|at| ANSWERS[*at].1).collect();
            let told = tell(&config.triggers["t"], &config.limits, &answers, Ok(()));

            let played = Setup::new(&triggers, move |_, _, attempt| {
                ANSWERS[script[(attempt - 1).min(script.len() - 1)]].0
            });
            let text = played.play(async |broker| {
                broker.publish("a").await;
                broker.at(1000.0).await;
            });
            let begins = text.lines().filter(|line| line.contains(" try "));
            let begins: Vec<&str> =
                begins.map(|line| line.split_whitespace().next().unwrap_or_default()).collect();
            let foretold: Vec<String> =
                told.attempts.iter().map(|at| format!("+{}s", at.as_millis() as f64 / 1e3)).collect();
            assert_eq!(begins, foretold, "seed {seed}: {triggers}\n{text}");
            let end = match told.end {
                Some(Err(reason)) => format!("dead letter: {}", reason.as_str()),
                Some(Ok(())) => "-> 200".into(),
                None => panic!("seed {seed}: `max_age` ends every story"),
            };
            assert_eq!(text.matches(&end).count(), 1, "seed {seed}: {end}: {triggers}\n{text}");
        }
    }
}
