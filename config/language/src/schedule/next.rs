//! When a schedule is due next. Between two changes of its clocks a zone is a fixed distance from UTC, so the search goes from
//! change to change, and within each stretch in plain local time.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::Schedule;

/// How far a search goes: February 29th on one certain weekday comes every 40 years at the worst.
const HORIZON_YEARS: i16 = 41;

impl Schedule {
    /// The first instant after this one at which the schedule is due. `None`: not within the time that can be told.
    pub fn next(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        let mut from = Timestamp::from_second(after.as_second().checked_add(1)?).ok()?;
        let horizon = from.checked_add(SignedDuration::from_hours(24 * 366 * i64::from(HORIZON_YEARS)));
        let horizon = horizon.unwrap_or(Timestamp::MAX);
        let mut before = zone.preceding(from).next();
        // A change right at `from` begins the stretch.
        if let Some(change) = zone.following(before_of(from)).next().filter(|c| c.timestamp() == from) {
            before = Some(change);
        }
        let mut changes = zone.following(from);
        loop {
            let offset = zone.to_offset(from);
            let change = changes.next();
            let end = change.as_ref().map_or(horizon, |change| change.timestamp().min(horizon));
            let start = before.as_ref().map(|change| (change.timestamp(), offset_before(zone, change)));
            if let Some(found) = self.within(from, end, offset, start) {
                return Some(found);
            }
            if end >= horizon {
                return None;
            }
            (from, before) = (end, change);
        }
    }

    /// The first due instant in `from..end`, where the zone is at `offset` since the change at `start.0`, and was at
    /// `start.1` before it.
    fn within(
        &self,
        from: Timestamp,
        end: Timestamp,
        offset: Offset,
        start: Option<(Timestamp, Offset)>,
    ) -> Option<Timestamp> {
        let local = |instant| offset.to_datetime(instant);
        let mut lower = local(from);
        if let (Some((start, former)), false) = (start, self.is_interval) {
            let (old, new) = (former.to_datetime(start), local(start));
            // Times that were left out are made up for at the change.
            let is_due = || self.first_fit(old, new).is_some();
            if old < new && from == start && is_due() {
                return Some(start);
            }
            // Times that repeat had their turn.
            lower = lower.max(old.min(DateTime::MAX));
        }
        let upper = local(end);
        let due = self.first_fit(lower, upper)?;
        offset.to_timestamp(due).ok().filter(|due| *due >= from && *due < end)
    }

    /// The first local time in `lower..upper` that fits.
    fn first_fit(&self, lower: DateTime, upper: DateTime) -> Option<DateTime> {
        let mut date = lower.date();
        let mut earliest = lower.time();
        while date.to_datetime(Time::midnight()) < upper {
            if !has(self.months, date.month()) {
                date = date.last_of_month().tomorrow().ok()?;
                earliest = Time::midnight();
                continue;
            }
            if self.fits_day(date)
                && let Some(time) = self.first_time(earliest)
            {
                return Some(date.to_datetime(time)).filter(|due| *due < upper);
            }
            date = date.tomorrow().ok()?;
            earliest = Time::midnight();
        }
        None
    }

    fn fits_day(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.either_day { day || weekday } else { day && weekday }
    }

    /// The first time of the day that fits, at or after this one.
    fn first_time(&self, earliest: Time) -> Option<Time> {
        let (hour, minute) = (earliest.hour(), earliest.minute());
        let second = earliest.second() + i8::from(earliest.subsec_nanosecond() > 0);
        let first = |bits: u64| first_at(bits, 0);
        let of_hour = |hour, minute, second| Time::new(hour, minute, second, 0).ok();
        if has(self.hours, hour) {
            if has(self.minutes, minute)
                && let Some(second) = first_at(self.seconds, second)
            {
                return of_hour(hour, minute, second);
            }
            if let Some(minute) = first_at(self.minutes, minute + 1) {
                return of_hour(hour, minute, first(self.seconds)?);
            }
        }
        let hour = first_at(self.hours, hour + 1)?;
        of_hour(hour, first(self.minutes)?, first(self.seconds)?)
    }

    /// Whether no day of any year fits.
    pub(super) fn is_never(&self) -> bool {
        // A weekday comes in every month.
        if self.either_day {
            return false;
        }
        let longest = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let day = first_at(self.days, 1);
        let fits =
            |month: i8| has(self.months, month) && day.is_some_and(|day| day <= longest[month as usize - 1]);
        !(1..=12).any(fits)
    }
}

fn before_of(instant: Timestamp) -> Timestamp {
    instant.checked_sub(1.second()).unwrap_or(Timestamp::MIN)
}

/// What held until a change.
fn offset_before(zone: &TimeZone, change: &jiff::tz::TimeZoneTransition<'_>) -> Offset {
    zone.to_offset(before_of(change.timestamp()))
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits >> value & 1 == 1)
}

/// The lowest value of a set that is not below this one.
fn first_at(bits: u64, value: i8) -> Option<i8> {
    let value = u32::try_from(value).ok()?;
    let rest = bits.checked_shr(value)?;
    (rest != 0).then(|| (value + rest.trailing_zeros()) as i8)
}
