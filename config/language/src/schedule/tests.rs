use expect_test::{Expect, expect};
use jiff::Timestamp;
use proptest::prelude::*;

use super::Schedule;
use crate::zone;

/// The next runs after an instant, in local time with the distance from UTC.
fn runs(text: &str, zone_name: &str, after: &str, count: usize) -> String {
    let schedule = Schedule::parse(text).unwrap_or_else(|error| panic!("{text}: {}", error.message));
    let zone = zone(zone_name).expect("a zone");
    let mut now: Timestamp = after.parse().expect("a time");
    let mut lines = String::new();
    for _ in 0..count {
        let Some(next) = schedule.next(&zone, now) else {
            lines.push_str("never\n");
            break;
        };
        let local = next.to_zoned(zone.clone());
        lines.push_str(&format!("{}\n", local.strftime("%Y-%m-%dT%H:%M:%S%:z")));
        now = next;
    }
    lines
}

#[expect(clippy::needless_pass_by_value, reason = "`expect!` reads better at the call")]
fn check(text: &str, zone: &str, after: &str, count: usize, expected: Expect) {
    expected.assert_eq(&runs(text, zone, after, count));
}

#[expect(clippy::needless_pass_by_value, reason = "`expect!` reads better at the call")]
fn refuse(texts: &[&str], expected: Expect) {
    let mut lines = String::new();
    for text in texts {
        let shown: String = text.chars().take(30).collect();
        match Schedule::parse(text) {
            Ok(_) => lines.push_str(&format!("{shown}: taken\n")),
            Err(error) => lines.push_str(&format!("{shown}: {} {}\n", error.at, error.message)),
        }
    }
    expected.assert_eq(&lines);
}

#[test]
fn the_number_of_fields_is_five_or_six() {
    refuse(
        &["", "   ", "*", "* * * *", "0 0 * * * * 2026", "* * * * * * * *"],
        expect![[r#"
        : 0 the schedule is empty: expected five fields or six
           : 0 the schedule is empty: expected five fields or six
        *: 0 expected five fields, or six with seconds first, found 1 field
        * * * *: 0 expected five fields, or six with seconds first, found 4 fields
        0 0 * * * * 2026: 12 seven fields: there is no year field; a run that comes once is written `at:`
        * * * * * * * *: 0 expected five fields, or six with seconds first, found 8 fields
    "#]],
    );
}

#[test]
fn every_field_has_a_range() {
    refuse(
        &["60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *", "* * * * 8", "60 * * * * *"],
        expect![[r#"
            60 * * * *: 0 minutes: expected 0 to 59, found `60`
            * 24 * * *: 2 hours: expected 0 to 23, found `24`
            * * 0 * *: 4 day of month: expected 1 to 31, found `0`
            * * 32 * *: 4 day of month: expected 1 to 31, found `32`
            * * * 13 *: 6 month: expected 1 to 12 or jan to dec, found `13`
            * * * * 8: 8 day of week: expected 0 to 7 or sun to sat, found `8`
            60 * * * * *: 0 seconds: expected 0 to 59, found `60`
        "#]],
    );
}

#[test]
fn lists_ranges_and_steps_are_whole() {
    refuse(
        &[
            "*/0 * * * *",
            "5-1 * * * *",
            "1--3 * * * *",
            "1,,2 * * * *",
            "*/-1 * * * *",
            "99999999999999 * * * *",
            "1.5 * * * *",
            "*/ * * * *",
            "-5 * * * *",
            "*5 * * * *",
        ],
        expect![[r#"
            */0 * * * *: 0 minutes: expected a step from 1 to 59 after `/`
            5-1 * * * *: 0 minutes: the range `5-1` ends before it begins
            1--3 * * * *: 0 minutes: expected 0 to 59, found `-3`
            1,,2 * * * *: 2 minutes: expected 0 to 59, found nothing
            */-1 * * * *: 0 minutes: expected a step from 1 to 59 after `/`
            99999999999999 * * * *: 0 minutes: expected 0 to 59, found `99999999999999`
            1.5 * * * *: 0 minutes: expected 0 to 59, found `1.5`
            */ * * * *: 0 minutes: expected a step from 1 to 59 after `/`
            -5 * * * *: 0 minutes: expected 0 to 59, found nothing
            *5 * * * *: 0 minutes: expected 0 to 59, found `*5`
        "#]],
    );
}

#[test]
fn signs_of_other_dialects_get_a_hint() {
    refuse(
        &[
            "0 0 ? * 1",
            "0 0 L * *",
            "0 0 15W * *",
            "0 0 * * 5L",
            "0 0 * * 1#2",
            "0 0 * FOO *",
            "0 0 * * MO",
            "@every 1ns",
            "@reboot",
        ],
        expect![[r#"
            0 0 ? * 1: 4 day of month: `?` is of another dialect: write `*`
            0 0 L * *: 4 day of month: `L` (the last day) is of another dialect, and not known here
            0 0 15W * *: 4 day of month: `W` (the nearest weekday) is of another dialect, and not known here
            0 0 * * 5L: 8 day of week: `L` (the last day) is of another dialect, and not known here
            0 0 * * 1#2: 8 day of week: `#` (the nth weekday of a month) is of another dialect, and not known here
            0 0 * FOO *: 6 month: expected 1 to 12 or jan to dec, found `FOO`
            0 0 * * MO: 8 day of week: expected 0 to 7 or sun to sat, found `MO`
            @every 1ns: 0 expected five fields, six fields or one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly; every five minutes is `*/5 * * * *`, every ten seconds `*/10 * * * * *`
            @reboot: 0 expected five fields, six fields or one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly; a start of the broker is no time
        "#]],
    );
}

#[test]
fn what_is_never_due_is_refused() {
    refuse(
        &["0 0 30 2 *", "0 0 31 4 *", "0 0 31 2,4,6,9,11 *", "0 0 29 2 *", "0 0 31 4 1"],
        expect![[r#"
        0 0 30 2 *: 0 this is never due: no such day is in any of these months
        0 0 31 4 *: 0 this is never due: no such day is in any of these months
        0 0 31 2,4,6,9,11 *: 0 this is never due: no such day is in any of these months
        0 0 29 2 *: taken
        0 0 31 4 1: taken
    "#]],
    );
}

#[test]
fn a_long_text_is_refused() {
    let text = format!("{} * * * *", "1,".repeat(5_000));
    refuse(
        &[&text],
        expect![[r#"
        1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,: 0 a schedule has at most 1024 bytes
    "#]],
    );
}

#[test]
fn words_stand_for_fields() {
    for (word, fields) in super::WORDS {
        let after = "2026-02-10T10:20:30Z";
        assert_eq!(runs(word, "UTC", after, 3), runs(fields, "UTC", after, 3), "{word}");
    }
    check(
        "@weekly",
        "UTC",
        "2026-11-21T10:00:00Z",
        2,
        expect![[r#"
        2026-11-22T00:00:00+00:00
        2026-11-29T00:00:00+00:00
    "#]],
    );
}

#[test]
fn names_and_both_sundays() {
    let after = "2026-11-21T10:00:00Z";
    assert_eq!(runs("0 0 * * 0", "UTC", after, 3), runs("0 0 * * 7", "UTC", after, 3));
    assert_eq!(runs("0 0 * * fri-SUN", "UTC", after, 5), runs("0 0 * * 5-7", "UTC", after, 5));
    check(
        "0 12 * jan-Mar/2 MON",
        "UTC",
        after,
        3,
        expect![[r#"
        2027-01-04T12:00:00+00:00
        2027-01-11T12:00:00+00:00
        2027-01-18T12:00:00+00:00
    "#]],
    );
}

#[test]
fn either_of_two_restricted_days_is_enough_and_a_star_restricts_nothing() {
    check(
        "0 0 13 * 5",
        "UTC",
        "2026-11-01T00:00:00Z",
        5,
        expect![[r#"
        2026-11-06T00:00:00+00:00
        2026-11-13T00:00:00+00:00
        2026-11-20T00:00:00+00:00
        2026-11-27T00:00:00+00:00
        2026-12-04T00:00:00+00:00
    "#]],
    );
    check(
        "0 0 */2 * 1",
        "UTC",
        "2026-11-01T00:00:00Z",
        4,
        expect![[r#"
        2026-11-09T00:00:00+00:00
        2026-11-23T00:00:00+00:00
        2026-12-07T00:00:00+00:00
        2026-12-21T00:00:00+00:00
    "#]],
    );
}

#[test]
fn seconds_come_first_of_six() {
    check(
        "*/20 * * * * *",
        "UTC",
        "2026-11-21T23:59:30.5Z",
        3,
        expect![[r#"
        2026-11-21T23:59:40+00:00
        2026-11-22T00:00:00+00:00
        2026-11-22T00:00:20+00:00
    "#]],
    );
    check(
        "15 30 4 * * *",
        "UTC",
        "2026-11-21T04:30:15Z",
        2,
        expect![[r#"
        2026-11-22T04:30:15+00:00
        2026-11-23T04:30:15+00:00
    "#]],
    );
}

#[test]
fn a_number_with_a_step_goes_on_to_the_end() {
    check(
        "5/20 3 * * *",
        "UTC",
        "2026-11-21T00:00:00Z",
        4,
        expect![[r#"
        2026-11-21T03:05:00+00:00
        2026-11-21T03:25:00+00:00
        2026-11-21T03:45:00+00:00
        2026-11-22T03:05:00+00:00
    "#]],
    );
}

#[test]
fn leap_days() {
    check(
        "0 0 29 2 *",
        "UTC",
        "2096-01-01T00:00:00Z",
        2,
        expect![[r#"
        2096-02-29T00:00:00+00:00
        2104-02-29T00:00:00+00:00
    "#]],
    );
    check(
        "0 0 29 2 */7",
        "UTC",
        "2026-01-01T00:00:00Z",
        1,
        expect![[r#"
        2032-02-29T00:00:00+00:00
    "#]],
    );
}

/// `02:30` is left out on 2026-03-29; `02:30` comes twice on 2026-10-25.
#[test]
fn berlin() {
    let zone = "Europe/Berlin";
    check(
        "30 2 * * *",
        zone,
        "2026-03-27T22:00:00Z",
        4,
        expect![[r#"
        2026-03-28T02:30:00+01:00
        2026-03-29T03:00:00+02:00
        2026-03-30T02:30:00+02:00
        2026-03-31T02:30:00+02:00
    "#]],
    );
    check(
        "0,30 2 * * *",
        zone,
        "2026-03-28T22:00:00Z",
        2,
        expect![[r#"
        2026-03-29T03:00:00+02:00
        2026-03-30T02:00:00+02:00
    "#]],
    );
    check(
        "0 3 * * *",
        zone,
        "2026-03-28T22:00:00Z",
        2,
        expect![[r#"
        2026-03-29T03:00:00+02:00
        2026-03-30T03:00:00+02:00
    "#]],
    );
    check(
        "*/30 * * * *",
        zone,
        "2026-03-29T00:10:00Z",
        3,
        expect![[r#"
        2026-03-29T01:30:00+01:00
        2026-03-29T03:00:00+02:00
        2026-03-29T03:30:00+02:00
    "#]],
    );
    check(
        "*/30 2 * * *",
        zone,
        "2026-03-28T22:00:00Z",
        2,
        expect![[r#"
        2026-03-30T02:00:00+02:00
        2026-03-30T02:30:00+02:00
    "#]],
    );
    check(
        "30 2 * * *",
        zone,
        "2026-10-24T22:00:00Z",
        2,
        expect![[r#"
        2026-10-25T02:30:00+02:00
        2026-10-26T02:30:00+01:00
    "#]],
    );
    check(
        "30 1-3 * * *",
        zone,
        "2026-10-24T22:00:00Z",
        4,
        expect![[r#"
        2026-10-25T01:30:00+02:00
        2026-10-25T02:30:00+02:00
        2026-10-25T03:30:00+01:00
        2026-10-26T01:30:00+01:00
    "#]],
    );
    check(
        "*/30 2 * * *",
        zone,
        "2026-10-24T22:00:00Z",
        5,
        expect![[r#"
        2026-10-25T02:00:00+02:00
        2026-10-25T02:30:00+02:00
        2026-10-25T02:00:00+01:00
        2026-10-25T02:30:00+01:00
        2026-10-26T02:00:00+01:00
    "#]],
    );
    check(
        "0 * * * *",
        zone,
        "2026-10-24T23:30:00Z",
        4,
        expect![[r#"
        2026-10-25T02:00:00+02:00
        2026-10-25T02:00:00+01:00
        2026-10-25T03:00:00+01:00
        2026-10-25T04:00:00+01:00
    "#]],
    );
}

/// Gap on 2026-03-08 at 2:00, fold on 2026-11-01 at 2:00.
#[test]
fn new_york() {
    let zone = "America/New_York";
    check(
        "30 2 * * *",
        zone,
        "2026-03-07T12:00:00Z",
        2,
        expect![[r#"
        2026-03-08T03:00:00-04:00
        2026-03-09T02:30:00-04:00
    "#]],
    );
    check(
        "30 1 * * *",
        zone,
        "2026-11-01T04:00:00Z",
        2,
        expect![[r#"
        2026-11-01T01:30:00-04:00
        2026-11-02T01:30:00-05:00
    "#]],
    );
    check(
        "*/15 1 * * *",
        zone,
        "2026-11-01T04:00:00Z",
        9,
        expect![[r#"
        2026-11-01T01:00:00-04:00
        2026-11-01T01:15:00-04:00
        2026-11-01T01:30:00-04:00
        2026-11-01T01:45:00-04:00
        2026-11-01T01:00:00-05:00
        2026-11-01T01:15:00-05:00
        2026-11-01T01:30:00-05:00
        2026-11-01T01:45:00-05:00
        2026-11-02T01:00:00-05:00
    "#]],
    );
}

/// Half an hour: 2:00 to 2:30 is left out on 2026-10-04, 1:30 to 2:00 comes twice on 2026-04-05.
#[test]
fn lord_howe() {
    let zone = "Australia/Lord_Howe";
    check(
        "15 2 * * *",
        zone,
        "2026-10-03T00:00:00Z",
        2,
        expect![[r#"
        2026-10-04T02:30:00+11:00
        2026-10-05T02:15:00+11:00
    "#]],
    );
    check(
        "45 1 * * *",
        zone,
        "2026-04-04T00:00:00Z",
        3,
        expect![[r#"
        2026-04-05T01:45:00+11:00
        2026-04-06T01:45:00+10:30
        2026-04-07T01:45:00+10:30
    "#]],
    );
    check(
        "*/15 1-2 * * *",
        zone,
        "2026-04-04T14:20:00Z",
        8,
        expect![[r#"
        2026-04-05T01:30:00+11:00
        2026-04-05T01:45:00+11:00
        2026-04-05T01:30:00+10:30
        2026-04-05T01:45:00+10:30
        2026-04-05T02:00:00+10:30
        2026-04-05T02:15:00+10:30
        2026-04-05T02:30:00+10:30
        2026-04-05T02:45:00+10:30
    "#]],
    );
}

/// Two hours.
#[test]
fn troll() {
    let zone = "Antarctica/Troll";
    check(
        "30 1,2 * * *",
        zone,
        "2026-03-28T12:00:00Z",
        3,
        expect![[r#"
        2026-03-29T03:00:00+02:00
        2026-03-30T01:30:00+02:00
        2026-03-30T02:30:00+02:00
    "#]],
    );
    check(
        "30 1 * * *",
        zone,
        "2026-10-24T12:00:00Z",
        2,
        expect![[r#"
        2026-10-25T01:30:00+02:00
        2026-10-26T01:30:00+00:00
    "#]],
    );
}

/// 2011-12-30 did not exist.
#[test]
fn apia_left_a_day_out() {
    let zone = "Pacific/Apia";
    check(
        "0 8 * * *",
        zone,
        "2011-12-29T12:00:00Z",
        3,
        expect![[r#"
        2011-12-29T08:00:00-10:00
        2011-12-31T00:00:00+14:00
        2011-12-31T08:00:00+14:00
    "#]],
    );
    check(
        "0 0 30 12 *",
        zone,
        "2011-12-01T00:00:00Z",
        1,
        expect![[r#"
        2011-12-31T00:00:00+14:00
    "#]],
    );
}

/// Midnight was left out on 2018-11-04.
#[test]
fn sao_paulo_had_a_day_without_midnight() {
    check(
        "0 0 * * *",
        "America/Sao_Paulo",
        "2018-11-03T12:00:00Z",
        2,
        expect![[r#"
        2018-11-04T01:00:00-02:00
        2018-11-05T00:00:00-02:00
    "#]],
    );
}

#[test]
fn a_zone_without_changes_and_with_half_an_hour() {
    check(
        "0 9 * * 1-5",
        "Asia/Kolkata",
        "2026-11-20T12:00:00Z",
        2,
        expect![[r#"
        2026-11-23T09:00:00+05:30
        2026-11-24T09:00:00+05:30
    "#]],
    );
}

#[test]
fn zones_are_names_of_the_database() {
    let known = ["UTC", "Europe/Berlin", "EST5EDT", "Etc/GMT+2"].map(|name| zone(name).is_some());
    assert_eq!(known, [true; 4]);
    let unknown = ["Mars/Base", "+02:00", "", "CET-1CEST", "../etc/passwd"].map(|name| zone(name).is_none());
    assert_eq!(unknown, [true; 5]);
}

fn field(min: u32, max: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        2 => (min..=max).prop_map(|value| value.to_string()),
        1 => (min..=max, min..=max).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (1..=max).prop_map(|step| format!("*/{step}")),
    ]
}

proptest! {
    /// The `cron` crate finds the same runs in UTC, where its dialect means the same.
    #[test]
    fn another_implementation_agrees(
        (second, minute, hour) in (field(0, 59), field(0, 59), field(0, 23)),
        (day, month) in (field(1, 28), field(1, 12)),
        start in 946_684_800_i64..2_500_000_000,
    ) {
        let text = format!("{second} {minute} {hour} {day} {month} *");
        let schedule = Schedule::parse(&text).expect("a schedule");
        let other: cron::Schedule = text.parse().expect("a schedule");
        let from = chrono::DateTime::from_timestamp(start, 0).expect("a time");
        let mut now = Timestamp::from_second(start).expect("a time");
        for theirs in other.after(&from).take(5) {
            now = schedule.next(&jiff::tz::TimeZone::UTC, now).expect("a run");
            prop_assert_eq!(now.as_second(), theirs.timestamp());
        }
    }

    /// A run follows what was asked for, and nothing between was left out.
    #[test]
    fn runs_come_in_order_whatever_the_clocks_do(start in 1_700_000_000_i64..1_900_000_000, gap in 1_i64..5_000) {
        let schedule = Schedule::parse("30 1-3 * * *").expect("a schedule");
        let zone = zone("Europe/Berlin").expect("a zone");
        let from = Timestamp::from_second(start).expect("a time");
        let next = schedule.next(&zone, from).expect("a run");
        prop_assert!(next > from);
        let between = Timestamp::from_second((next.as_second() - gap).max(start)).expect("a time");
        prop_assert_eq!(schedule.next(&zone, between), Some(next));
    }

    #[test]
    fn no_text_makes_it_panic(text in "[-*/,0-9a-zA-Z?#@ ]{0,40}") {
        drop(Schedule::parse(&text));
    }
}
