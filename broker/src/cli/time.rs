//! Durations and moments as the command line takes them.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Timestamp};

/// `700ms`, `1s`, `5m`, `24h`, `7d` or ISO 8601 (`PT5S`).
pub fn duration(text: &str) -> Result<Duration, String> {
    let wanted = || format!("expected a duration such as `700ms`, `5s` or `24h`, found `{text}`");
    let span: Span = text.trim().parse().map_err(|_| wanted())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wanted())?;
    Duration::try_from(duration).map_err(|_| format!("a duration cannot be negative: `{text}`"))
}

/// A duration back from now, or an RFC 3339 timestamp.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(timestamp) = text.parse() {
        return Ok(timestamp);
    }
    let back = duration(text).map_err(|_| {
        format!("expected a duration (`2h`) or a timestamp (`2026-01-31T12:00:00Z`), found `{text}`")
    })?;
    Timestamp::now().checked_sub(back).map_err(|_| format!("`{text}` ago is out of range"))
}

#[cfg(test)]
mod tests {
    use super::{duration, moment};

    #[test]
    fn durations_read_as_in_the_configuration() {
        let read = |text: &str| duration(text).map(|d| d.as_millis()).map_err(|_| ());
        assert_eq!(read("700ms"), Ok(700));
        assert_eq!(read("1s"), Ok(1000));
        assert_eq!(read("5m"), Ok(300_000));
        assert_eq!(read("7d"), Ok(604_800_000));
        assert_eq!(read("PT5S"), Ok(5000));
        for wrong in ["", "5", "soon", "-1s", "1y"] {
            assert_eq!(read(wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn a_moment_is_a_timestamp_or_a_duration_ago() {
        assert_eq!(moment("2026-01-31T12:00:00Z").unwrap().to_string(), "2026-01-31T12:00:00Z");
        assert_eq!(moment("2026-01-31T12:00:00+02:00").unwrap().to_string(), "2026-01-31T10:00:00Z");
        let ago = jiff::Timestamp::now().duration_since(moment("2h").unwrap());
        assert!((7199..=7201).contains(&ago.as_secs()));
        assert!(moment("yesterday").is_err());
    }
}
