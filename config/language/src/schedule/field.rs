//! From text to sets. Every error names the field, its place and what it takes; the sets themselves come from the `cron` crate.

use cron::TimeUnitSpec;

use super::Schedule;
use crate::SyntaxError;

struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Field; 6] = [
    Field { name: "seconds", min: 0, max: 59, names: &[] },
    Field { name: "minutes", min: 0, max: 59, names: &[] },
    Field { name: "hours", min: 0, max: 23, names: &[] },
    Field { name: "day of month", min: 1, max: 31, names: &[] },
    Field { name: "month", min: 1, max: 12, names: &MONTHS },
    Field { name: "day of week", min: 0, max: 7, names: &WEEKDAYS },
];

/// One part of a list: a range, with its step.
struct Part {
    first: u32,
    last: u32,
    step: u32,
}

pub(super) fn parse(text: &str) -> Result<Schedule, SyntaxError> {
    let words = words(text);
    let fields = match words.len() {
        5 => &FIELDS[1..],
        6 => &FIELDS[..],
        7 => {
            let message = "seven fields: there is no year field; a run that comes once is written `at:`";
            return Err(SyntaxError { at: words[6].0, message: message.into() });
        }
        count => {
            let fields = if count == 1 { "field" } else { "fields" };
            let message = format!("expected five fields, or six with seconds first, found {count} {fields}");
            return Err(SyntaxError { at: 0, message });
        }
    };
    let mut parts = Vec::with_capacity(6);
    if words.len() == 5 {
        parts.push(vec![Part { first: 0, last: 0, step: 1 }]);
    }
    for (field, (at, word)) in fields.iter().zip(&words) {
        parts.push(parse_list(field, word, *at)?);
    }
    let stars: Vec<bool> = words.iter().map(|(_, word)| word.starts_with('*')).collect();
    let has_star = |word: &str| word.split(',').any(|part| part.starts_with('*'));
    let clock_fields = words.len() - 3;
    let mut schedule = sets(&parts)?;
    schedule.either_day = !stars[words.len() - 3] && !stars[words.len() - 1];
    schedule.is_interval = words[..clock_fields].iter().any(|(_, word)| has_star(word));
    Ok(schedule)
}

/// Words with the place where each begins.
fn words(text: &str) -> Vec<(usize, &str)> {
    let start = text.as_ptr() as usize;
    text.split_whitespace().map(|word| (word.as_ptr() as usize - start, word)).collect()
}

fn parse_list(field: &Field, word: &str, at: usize) -> Result<Vec<Part>, SyntaxError> {
    let mut parts = Vec::new();
    let mut offset = at;
    for text in word.split(',') {
        let part = parse_part(field, text).map_err(|why| {
            let name = field.name;
            SyntaxError { at: offset, message: format!("{name}: {why}") }
        })?;
        parts.push(part);
        offset += text.len() + 1;
    }
    Ok(parts)
}

fn parse_part(field: &Field, text: &str) -> Result<Part, String> {
    let (range, step) = match text.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (text, None),
    };
    let is_open = step.is_some();
    let step = match step {
        None => 1,
        Some(step) => match number(step) {
            Some(step) if step >= 1 && step <= field.max => step,
            Some(_) | None => return Err(format!("expected a step from 1 to {} after `/`", field.max)),
        },
    };
    let (first, last) = match (range, range.split_once('-')) {
        ("*", _) => (field.min, if field.max == 7 { 6 } else { field.max }),
        (_, Some((first, last))) => (value(field, first)?, value(field, last)?),
        (single, None) => {
            let first = value(field, single)?;
            // `5/15` is from 5 on, every 15.
            (first, if is_open { field.max } else { first })
        }
    };
    // `fri-sun` is a range to most people, and Sunday is 7 as well.
    let last = if field.max == 7 && last == 0 && first > 0 { 7 } else { last };
    if first > last {
        return Err(format!("the range `{range}` ends before it begins"));
    }
    Ok(Part { first, last, step })
}

fn value(field: &Field, text: &str) -> Result<u32, String> {
    if let Some(hint) = dialect_hint(text) {
        return Err(hint.into());
    }
    if let Some(number) = number(text).filter(|number| (field.min..=field.max).contains(number)) {
        return Ok(number);
    }
    let lower = text.to_ascii_lowercase();
    if let Some(place) = field.names.iter().position(|name| *name == lower) {
        return Ok(place as u32 + if field.max == 7 { 0 } else { field.min });
    }
    let shown: String = text.chars().take(20).collect();
    let names = match field.names {
        [first, .., last] => format!(" or {first} to {last}"),
        _ => String::new(),
    };
    let found = if shown.is_empty() { "nothing".into() } else { format!("`{shown}`") };
    Err(format!("expected {} to {}{names}, found {found}", field.min, field.max))
}

/// Signs of other dialects, and what to write here.
fn dialect_hint(text: &str) -> Option<&'static str> {
    let last = text.chars().last()?;
    if text.contains('?') {
        return Some("`?` is of another dialect: write `*`");
    }
    if text.contains('#') {
        return Some("`#` (the nth weekday of a month) is of another dialect, and not known here");
    }
    let digits = text[..text.len() - last.len_utf8()].bytes().all(|byte| byte.is_ascii_digit());
    match last {
        'L' | 'l' if digits => Some("`L` (the last day) is of another dialect, and not known here"),
        'W' | 'w' if digits => Some("`W` (the nearest weekday) is of another dialect, and not known here"),
        _ => None,
    }
}

fn number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// Has the `cron` crate make sets of the fields, in numbers. Its days of the week go from 1, Sunday, to 7, so those are
/// listed one by one.
fn sets(parts: &[Vec<Part>]) -> Result<Schedule, SyntaxError> {
    let in_numbers = |parts: &Vec<Part>| {
        let texts = parts.iter().map(|Part { first, last, step }| format!("{first}-{last}/{step}"));
        texts.collect::<Vec<_>>().join(",")
    };
    let mut fields: Vec<String> = parts[..5].iter().map(in_numbers).collect();
    let days = parts[5].iter().flat_map(|part| (part.first..=part.last).step_by(part.step as usize));
    let days: Vec<String> = days.map(|day| (day % 7 + 1).to_string()).collect();
    fields.push(days.join(","));
    let parsed: cron::Schedule = fields
        .join(" ")
        .parse()
        .map_err(|error: cron::error::Error| SyntaxError { at: 0, message: error.to_string() })?;
    Ok(Schedule {
        text: "".into(),
        seconds: bits(parsed.seconds(), 0),
        minutes: bits(parsed.minutes(), 0),
        hours: bits(parsed.hours(), 0),
        days: bits(parsed.days_of_month(), 0),
        months: bits(parsed.months(), 0),
        weekdays: bits(parsed.days_of_week(), 1),
        either_day: false,
        is_interval: false,
    })
}

fn bits(unit: &impl TimeUnitSpec, base: u32) -> u64 {
    unit.iter().fold(0, |bits, ordinal| bits | 1 << (ordinal - base))
}
