//! Timers.

use expect_test::expect;

use super::{check_source, shows_source};

#[test]
fn cron_has_defaults() {
    shows_source(
        r#"cron: { schedule: "30 2 * * *" }"#,
        expect![[
            r#"{"cron":{"catch_up":"latest","catch_up_max":1000,"schedule":"30 2 * * *","timezone":"UTC"},"event_bytes":"1MiB","oversize":"stop"}"#
        ]],
    );
    shows_source(
        r#"cron: { at: "2026-01-31T12:00:00", timezone: Europe/Berlin }
event: { type: t, data: { at: "{scheduled}", n: 3 } }"#,
        expect![[
            r#"{"cron":{"at":"2026-01-31T11:00:00Z","catch_up":"latest","catch_up_max":1000,"timezone":"Europe/Berlin"},"event":{"data":{"at":"{scheduled}","n":3},"type":"t"},"event_bytes":"1MiB","oversize":"stop"}"#
        ]],
    );
}

#[test]
fn cron_refuses() {
    check_source(
        r#"cron: { schedule: "0 0 ? * 1" }"#,
        expect![[r#"
        sluice.yaml:3:28: `schedule`: day of month: `?` is of another dialect: write `*`
            3 |     cron: { schedule: "0 0 ? * 1" }
              |                            ^^^^^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "0 0 1 1 * * 2027" }"#,
        expect![[r#"
        sluice.yaml:3:36: `schedule`: seven fields: there is no year field; a run that comes once is written `at:`
            3 |     cron: { schedule: "0 0 1 1 * * 2027" }
              |                                    ^^^^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "0 24 * * *" }"#,
        expect![[r#"
        sluice.yaml:3:26: `schedule`: hours: expected 0 to 23, found `24`
            3 |     cron: { schedule: "0 24 * * *" }
              |                          ^^^^^^^^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "0 0 30 2 *" }"#,
        expect![[r#"
        sluice.yaml:3:24: `schedule`: this is never due: no such day is in any of these months
            3 |     cron: { schedule: "0 0 30 2 *" }
              |                        ^^^^^^^^^^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "" }"#,
        expect![[r#"
        sluice.yaml:3:23: `schedule`: the schedule is empty: expected five fields or six
            3 |     cron: { schedule: "" }
              |                       ^^
    "#]],
    );
    check_source(
        r#"cron: {}"#,
        expect![[r#"
        sluice.yaml:3:11: `cron` of source `s` has no `schedule`, and no `at`
            3 |     cron: {}
              |           ^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "@daily", at: 2026-01-31T12:00:00Z }"#,
        expect![[r#"
        sluice.yaml:3:33: `schedule` and `at` exclude each other
            3 |     cron: { schedule: "@daily", at: 2026-01-31T12:00:00Z }
              |                                 ^^
    "#]],
    );
    check_source(
        r#"cron: { at: tomorrow }"#,
        expect![[r#"
        sluice.yaml:3:17: `at`: expected a time such as 2026-01-31T12:00:00Z, or 2026-01-31T12:00:00 in `timezone`, found `tomorrow`
            3 |     cron: { at: tomorrow }
              |                 ^^^^^^^^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "@daily", catch_up: last, catch_up_max: 0 }"#,
        expect![[r#"
        sluice.yaml:3:43: `catch_up`: expected skip, latest or all, found `last`
            3 |     cron: { schedule: "@daily", catch_up: last, catch_up_max: 0 }
              |                                           ^^^^
        sluice.yaml:3:63: `catch_up_max`: expected a whole number from 1 to 1000000, found `0`
            3 |     cron: { schedule: "@daily", catch_up: last, catch_up_max: 0 }
              |                                                               ^
    "#]],
    );
}

#[test]
fn cron_zones() {
    check_source(
        r#"cron: { schedule: "@daily", timezone: Mars/Base }"#,
        expect![[r#"
        sluice.yaml:3:43: `timezone`: expected a time zone of the IANA database, such as Europe/Berlin or UTC, found `Mars/Base`
            3 |     cron: { schedule: "@daily", timezone: Mars/Base }
              |                                           ^^^^^^^^^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "@daily", timezone: +02:00 }"#,
        expect![[r#"
        sluice.yaml:3:43: `timezone`: expected a time zone of the IANA database, such as Europe/Berlin or UTC, found `+02:00`
            3 |     cron: { schedule: "@daily", timezone: +02:00 }
              |                                           ^^^^^^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "@daily", timezone: "" }"#,
        expect![[r#"
        sluice.yaml:3:43: `timezone` is empty
            3 |     cron: { schedule: "@daily", timezone: "" }
              |                                           ^^
    "#]],
    );
}
