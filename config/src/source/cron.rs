//! `cron` as a source.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use sluice_language::{Schedule, zone};

use crate::diagnostic::Problems;
use crate::keys::{Keys, choice, text, whole, wrong};
use crate::model::{CatchUp, CronSource, CronWhen};
use crate::template::within;
use crate::tree::{Node, Scalar, Value};

pub(crate) const CRON_KEYS: &[&str] = &["schedule", "at", "timezone", "catch_up", "catch_up_max"];
pub(crate) const CATCH_UPS: &[(&str, CatchUp)] =
    &[("skip", CatchUp::Skip), ("latest", CatchUp::Latest), ("all", CatchUp::All)];
pub(crate) const CATCH_UP_MAX: RangeInclusive<u64> = 1..=1_000_000;

pub(super) fn read(what: &str, node: &Node, problems: &mut Problems) -> Option<CronSource> {
    let keys = Keys::of(node, what, CRON_KEYS, problems)?;
    let zone = match keys.get("timezone") {
        Some(node) => read_zone(node, problems),
        None => Some(TimeZone::UTC),
    };
    let when = match (keys.entry("schedule"), keys.entry("at")) {
        (Some(schedule), None) => read_schedule(&schedule.value, problems).map(CronWhen::Schedule),
        (None, Some(at)) => {
            let at_ms = read_at(&at.value, zone.as_ref(), problems);
            if let Some(at_ms) = at_ms {
                let message =
                    "`at` has passed: nothing comes of it any more, unless the source was there before it";
                problems.warning_from(at_ms, at.value.at, message);
            }
            at_ms.map(CronWhen::At)
        }
        (Some(_), Some(at)) => {
            problems.error(at.key_at, "`schedule` and `at` exclude each other");
            None
        }
        (None, None) => {
            problems.error(node.at, format!("{what} has no `schedule`, and no `at`"));
            None
        }
    };
    let catch_up = keys.get("catch_up").and_then(|node| choice("catch_up", node, CATCH_UPS, problems));
    let catch_up_max =
        keys.get("catch_up_max").and_then(|node| whole("catch_up_max", node, CATCH_UP_MAX, problems));
    Some(CronSource {
        when: when?,
        timezone: zone?,
        catch_up: catch_up.unwrap_or(CatchUp::Latest),
        catch_up_max: catch_up_max.unwrap_or(1000) as usize,
    })
}

fn read_schedule(node: &Node, problems: &mut Problems) -> Option<Schedule> {
    let text = match &node.value {
        // What is missing is told like any other wrong number of fields.
        Value::Scalar(Scalar { text, quoted: true, reference: None, .. }) if text.is_empty() => "",
        _ => text("schedule", node, problems)?,
    };
    match Schedule::parse(text) {
        Ok(schedule) => Some(schedule),
        Err(error) => {
            let at = if text.is_empty() { node.at } else { within(node, text, error.at) };
            problems.error(at, format!("`schedule`: {}", error.message));
            None
        }
    }
}

fn read_zone(node: &Node, problems: &mut Problems) -> Option<TimeZone> {
    let name = text("timezone", node, problems)?;
    let found = zone(name);
    if found.is_none() {
        let why = "expected a time zone of the IANA database, such as Europe/Berlin or UTC";
        wrong("timezone", node, why, problems);
    }
    found
}

/// A time with its distance from UTC, or one in the source's zone.
fn read_at(node: &Node, zone: Option<&TimeZone>, problems: &mut Problems) -> Option<i64> {
    let text = text("at", node, problems)?;
    let has_time = text.len() >= 16 && text.as_bytes()[10].eq_ignore_ascii_case(&b'T') && !text.contains('[');
    if let (true, Ok(instant)) = (has_time, text.parse::<Timestamp>()) {
        return Some(instant.as_millisecond());
    }
    let local = text.parse::<DateTime>().ok().filter(|_| has_time);
    let Some(local) = local else {
        wrong(
            "at",
            node,
            "expected a time such as 2026-01-31T12:00:00Z, or 2026-01-31T12:00:00 in `timezone`",
            problems,
        );
        return None;
    };
    let instant = zone?.to_ambiguous_zoned(local).compatible().ok()?;
    Some(instant.timestamp().as_millisecond())
}
