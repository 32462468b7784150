//! When to try again, and when to stop.

use std::time::Duration;

use sluice_config::{Backoff, Delivery, Retry};

use super::{Outcome, Reason};

/// What becomes of a delivery after an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Disposition {
    Settle,
    /// Another attempt after this; before it, [`RetryPolicy::is_expired`] decides whether it is made.
    RetryIn(Duration),
    DeadLetter(Reason),
}

/// The `delivery` of a trigger as far as it is about time and number.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    retry: Retry,
    backoff: Backoff,
    delay: Duration,
    max: Duration,
    max_age: Duration,
}

impl From<&Delivery> for RetryPolicy {
    fn from(delivery: &Delivery) -> Self {
        Self {
            retry: delivery.retry,
            backoff: delivery.backoff,
            delay: delivery.backoff_delay,
            max: delivery.backoff_max,
            max_age: delivery.max_age,
        }
    }
}

impl RetryPolicy {
    /// `attempt` counts from 1, `age` runs from the first one, `jitter` is in [0, 1).
    pub fn decide(&self, attempt: u32, outcome: &Outcome, age: Duration, jitter: f64) -> Disposition {
        let retry_after = match outcome {
            Outcome::Accepted { .. } => return Disposition::Settle,
            Outcome::Rejected { reason, .. } => return Disposition::DeadLetter(*reason),
            Outcome::Retriable { retry_after, .. } => *retry_after,
        };
        if matches!(self.retry, Retry::AtMost(further) if attempt > further) {
            return Disposition::DeadLetter(Reason::Attempts);
        }
        if self.is_expired(age) {
            return Disposition::DeadLetter(Reason::Age);
        }
        let wait = self.wait(attempt, jitter).max(retry_after.unwrap_or_default());
        // An attempt that would come too late is not waited for: the age decides when it is over.
        Disposition::RetryIn(wait.min(self.left(age)))
    }

    /// Whether a delivery of this age is not attempted again.
    pub fn is_expired(&self, age: Duration) -> bool {
        age >= self.max_age
    }

    /// How long until a delivery of this age is not attempted again.
    pub fn left(&self, age: Duration) -> Duration {
        self.max_age.saturating_sub(age)
    }

    /// The wait after the n-th attempt: a share of the backoff, which is capped.
    pub fn wait(&self, attempt: u32, jitter: f64) -> Duration {
        self.backoff_after(attempt).mul_f64(jitter.clamp(0.0, 1.0))
    }

    fn backoff_after(&self, attempt: u32) -> Duration {
        let steps = attempt.saturating_sub(1);
        let wait = match self.backoff {
            Backoff::Constant => self.delay,
            Backoff::Linear => self.delay.saturating_mul(attempt),
            Backoff::Exponential => self.delay.saturating_mul(1u32.checked_shl(steps).unwrap_or(u32::MAX)),
        };
        wait.min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use sluice_config::Backoff;

    use super::*;
    use crate::delivery::Failure;

    fn policy(retry: Retry, backoff: Backoff) -> RetryPolicy {
        let (delay, max, max_age) =
            (Duration::from_secs(1), Duration::from_secs(600), Duration::from_secs(86_400));
        RetryPolicy { retry, backoff, delay, max, max_age }
    }

    fn status(code: u16) -> Outcome {
        if code == 200 {
            return Outcome::Accepted { reply: Vec::new() };
        }
        let cause =
            Failure { status: Some(code), error: format!("the sink answered {code}"), ..Failure::default() };
        Outcome::Retriable { cause, retry_after: None }
    }

    /// Plays a story at the upper bound of every wait, which is what no jitter comes to.
    fn check(policy: &RetryPolicy, story: &[Outcome], expected: &Expect) {
        let (mut at, mut text) = (Duration::ZERO, String::new());
        for (n, outcome) in story.iter().enumerate() {
            let attempt = n as u32 + 1;
            let disposition = policy.decide(attempt, outcome, at, 1.0);
            text += &format!("{at:?}  attempt {attempt}  {disposition:?}\n");
            match disposition {
                Disposition::RetryIn(wait) => at += wait,
                _ => break,
            }
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn gives_up_after_the_last_attempt() {
        let policy = policy(Retry::AtMost(2), Backoff::Exponential);
        check(
            &policy,
            &[status(503), status(503), status(503)],
            &expect![[r#"
            0ns  attempt 1  RetryIn(1s)
            1s  attempt 2  RetryIn(2s)
            3s  attempt 3  DeadLetter(Attempts)
        "#]],
        );
    }

    #[test]
    fn success_settles_at_any_attempt() {
        let policy = policy(Retry::Unlimited, Backoff::Linear);
        check(
            &policy,
            &[status(503), status(503), status(200)],
            &expect![[r#"
            0ns  attempt 1  RetryIn(1s)
            1s  attempt 2  RetryIn(2s)
            3s  attempt 3  Settle
        "#]],
        );
    }

    #[test]
    fn max_age_cuts_the_last_wait_short_and_ends_the_delivery() {
        let policy =
            RetryPolicy { max_age: Duration::from_secs(5), ..policy(Retry::Unlimited, Backoff::Exponential) };
        check(
            &policy,
            &[status(503), status(503), status(503), status(503)],
            &expect![[r#"
            0ns  attempt 1  RetryIn(1s)
            1s  attempt 2  RetryIn(2s)
            3s  attempt 3  RetryIn(2s)
            5s  attempt 4  DeadLetter(Age)
        "#]],
        );
    }

    #[test]
    fn retry_after_is_a_floor_and_beats_the_backoff() {
        let policy = policy(Retry::Unlimited, Backoff::Constant);
        let outcome =
            Outcome::Retriable { cause: Failure::default(), retry_after: Some(Duration::from_secs(9)) };
        check(
            &policy,
            &[outcome, status(200)],
            &expect![[r#"
            0ns  attempt 1  RetryIn(9s)
            9s  attempt 2  Settle
        "#]],
        );
    }

    #[test]
    fn no_number_of_attempts_overflows_the_backoff() {
        for backoff in [Backoff::Exponential, Backoff::Linear, Backoff::Constant] {
            let policy = policy(Retry::Unlimited, backoff);
            assert!(
                (1..100)
                    .chain([u32::MAX])
                    .all(|attempt| policy.wait(attempt, 0.999) <= Duration::from_secs(600))
            );
        }
    }
}
