//! Cron schedules, and when they are due.
//!
//! Five fields (minute, hour, day of month, month, day of week) or six, with seconds first, and `@daily` and the like. A field
//! is `*`, a number or a name, a range `a-b`, each of these with a step `/n`, or a list of them. Days of the week go from 0 to
//! 7; 0 and 7 are Sunday. When day of month and day of week are both restricted, a day that fits either is taken, as Vixie
//! cron does it: a field that begins with `*`, `*/2` as well, restricts nothing in this sense.
//!
//! When clocks change, schedules follow one of two rules. Where seconds, minutes or hours have a `*`, the schedule is an
//! interval: it runs at every instant whose local time fits, in both passes of an hour that repeats, and not in one that is left
//! out. Else it names fixed times: each runs once a day, in the first pass of an hour that repeats, and right after one
//! that is left out.

mod field;
mod next;

use crate::SyntaxError;

/// Larger texts are refused: nobody writes them by hand.
pub const TEXT_BYTES_MAX: usize = 1 << 10;

const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A compiled schedule. Sets are bits: bit n stands for the value n.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    text: Box<str>,
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// Bit 0 is Sunday.
    weekdays: u64,
    /// Neither day of month nor day of week begins with `*`.
    either_day: bool,
    /// Runs by the instants whose local time fits, not by times of the day.
    is_interval: bool,
}

impl Schedule {
    /// Reads a schedule. One that is never due is an error.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let wrong = |at: usize, message: String| Err(SyntaxError { at, message });
        if text.len() > TEXT_BYTES_MAX {
            return wrong(0, format!("a schedule has at most {TEXT_BYTES_MAX} bytes"));
        }
        let mut schedule = match text.trim() {
            "" => return wrong(0, "the schedule is empty: expected five fields or six".into()),
            word if word.starts_with('@') => match WORDS.iter().find(|(known, _)| *known == word) {
                Some((_, fields)) => field::parse(fields)?,
                None => return wrong(0, unknown_word(word)),
            },
            _ => field::parse(text)?,
        };
        schedule.text = text.into();
        if schedule.is_never() {
            return wrong(0, "this is never due: no such day is in any of these months".into());
        }
        Ok(schedule)
    }

    /// The schedule as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn unknown_word(word: &str) -> String {
    let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
    let hint = match word.split_whitespace().next() {
        Some("@every") => "; every five minutes is `*/5 * * * *`, every ten seconds `*/10 * * * * *`",
        Some("@reboot") => "; a start of the broker is no time",
        Some(_) | None => "",
    };
    format!("expected five fields, six fields or one of {}{hint}", words.join(", "))
}

#[cfg(test)]
mod tests;
