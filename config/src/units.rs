//! Durations, sizes and rates as text, both ways.

use std::time::Duration;

const UNITS_MS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const UNITS_BYTES: [(&str, u64); 4] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Reads `200ms`, `1s`, `5m`, `24h`, `7d`, or an ISO 8601 duration without years and months.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.starts_with('P') {
        return parse_iso_duration(text).ok_or_else(|| "not an ISO 8601 duration such as PT5S or P1D".into());
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("expected a duration such as 200ms, 1s, 5m, 24h, 7d or PT5S".into());
    }
    if unit.is_empty() {
        return Err("the unit is missing: write ms, s, m, h or d after the number".into());
    }
    let Some((_, unit_ms)) = UNITS_MS.iter().find(|(name, _)| *name == unit) else {
        return Err("expected a whole number and ms, s, m, h or d, such as 200ms or 5m".into());
    };
    let milliseconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit_ms));
    milliseconds.map(Duration::from_millis).ok_or_else(|| "out of range".into())
}

fn parse_iso_duration(text: &str) -> Option<Duration> {
    let span: jiff::Span = text.parse().ok()?;
    if span.get_years() != 0 || span.get_months() != 0 {
        return None;
    }
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    Duration::try_from(span.to_duration(days).ok()?).ok()
}

/// Writes a duration in the largest unit that is exact.
pub(crate) fn duration_text(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".into();
    }
    if !duration.subsec_nanos().is_multiple_of(1_000_000) {
        return format!("PT{}S", duration.as_secs_f64());
    }
    let milliseconds = duration.as_millis();
    // A day is written as 24h, as in the reference.
    let units = if milliseconds == 86_400_000 { &UNITS_MS[..4] } else { &UNITS_MS[..] };
    let exact = units.iter().rev().find(|(_, unit_ms)| milliseconds.is_multiple_of(u128::from(*unit_ms)));
    let (name, unit_ms) = exact.unwrap_or(&UNITS_MS[0]);
    format!("{}{name}", milliseconds / u128::from(*unit_ms))
}

/// Reads `1MiB`, `10GiB`, or a plain number of bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => Some(1),
        unit => UNITS_BYTES.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes),
    };
    let (false, Some(factor)) = (number.is_empty(), factor) else {
        let near = |(name, _): &&(&str, u64)| {
            let first = |text: &str| text.chars().next().map(|c| c.to_ascii_uppercase());
            first(name) == first(unit)
        };
        let hint = match UNITS_BYTES.iter().find(near) {
            Some((name, _)) if !number.is_empty() => format!(" (did you mean {number}{name}?)"),
            _ => String::new(),
        };
        return Err(format!("expected a size in KiB, MiB, GiB or TiB, such as 64MiB{hint}"));
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(|| "out of range".into())
}

pub(crate) fn size_text(bytes: u64) -> String {
    let exact = UNITS_BYTES.iter().rev().find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit));
    match exact {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// Reads `100/s`, `30/m`, `0.5/h`, as a number per second.
pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    let expected = || "expected a number per second, minute or hour, such as 100/s, 30/m or 5/h".to_owned();
    let (number, unit) = text.split_once('/').ok_or_else(expected)?;
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(expected()),
    };
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = number.parse().ok().filter(|_| plain).ok_or_else(expected)?;
    let per_second = number / seconds;
    if !(1.0 / 86_400.0..=1_000_000.0).contains(&per_second) {
        return Err("out of range: at least one a day, at most 1000000/s".into());
    }
    Ok(per_second)
}

/// Writes a rate so that it reads back as the same.
pub(crate) fn rate_text(per_second: f64) -> String {
    let whole = [("s", 1.0), ("m", 60.0), ("h", 3600.0)].into_iter().find_map(|(unit, seconds)| {
        let number = per_second * seconds;
        ((number - number.round()).abs() < 1e-9 && number >= 1.0)
            .then(|| format!("{}/{unit}", number.round()))
    });
    whole.unwrap_or_else(|| format!("{per_second}/s"))
}
