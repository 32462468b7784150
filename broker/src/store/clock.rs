//! The two clocks: the wall's, which people read and which may jump, and a steady one for waits.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01T00:00:00Z.
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The wall's time when this was first asked, and the time that has passed since: it never jumps.
pub fn steady_ms() -> u64 {
    static START: OnceLock<(u64, Instant)> = OnceLock::new();
    let (wall, started) = START.get_or_init(|| (wall_ms(), Instant::now()));
    wall + started.elapsed().as_millis() as u64
}

/// RFC 3339 in UTC with milliseconds.
pub fn rfc3339(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| format!("{at:.3}"))
}

pub fn until(steady: u64) -> Duration {
    Duration::from_millis(steady.saturating_sub(steady_ms()))
}
