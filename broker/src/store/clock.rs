//! The two clocks: the wall's, which people read and which may jump, and a steady one for waits.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01T00:00:00Z.
pub fn wall_ms() -> u64 {
    since_epoch().as_millis() as u64
}

/// The wall's time when this was first asked, and the time that has passed since: it never jumps. It is the clock of
/// tokio's timers, which tests stop and move on.
pub fn steady_ms() -> u64 {
    static START: OnceLock<(Duration, Instant)> = OnceLock::new();
    let (wall, started) = START.get_or_init(|| (since_epoch(), Instant::now()));
    let now = tokio::time::Instant::now().into_std();
    // A stopped clock may have been stopped before the first question.
    let early = started.saturating_duration_since(now);
    (*wall + now.saturating_duration_since(*started)).saturating_sub(early).as_millis() as u64
}

/// What the wall's clock shows at a moment of the steady one, as far as is known now.
pub fn wall_at(steady: u64) -> u64 {
    (wall_ms() + steady).saturating_sub(steady_ms())
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// RFC 3339 in UTC with milliseconds.
pub fn rfc3339(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| format!("{at:.3}"))
}

pub fn until(steady: u64) -> Duration {
    Duration::from_millis(steady.saturating_sub(steady_ms()))
}
