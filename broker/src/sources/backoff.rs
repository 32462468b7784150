//! How long a source that is down is left alone.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(30);

/// The wait before run n + 1 after n that failed in a row: it doubles from 1 s to 30 s; `jitter` from 0 to 1 takes up to half away.
pub(super) fn wait(failures: u32, jitter: f64) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(MAX);
    doubled.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_cap() {
        let waits: Vec<u64> = [1, 2, 3, 5, 6, 40].map(|n| wait(n, 0.0).as_secs()).into();
        assert_eq!(waits, [1, 2, 4, 16, 30, 30]);
        assert_eq!(wait(40, 1.0), Duration::from_secs(15));
    }
}
