//! Triggers: names, keys, sources, start.

use expect_test::expect;

use crate::{check, check_trigger, shows};

#[test]
fn an_unknown_key_is_an_error_with_a_suggestion() {
    check(
        r#"triggers:
  t:
    fliters: []
    sink: http://localhost/"#,
        expect![[r#"
            sluice.yaml:3:5: unknown key `fliters` in trigger `t`: did you mean `filters`?
                3 |     fliters: []
                  |     ^^^^^^^
        "#]],
    );
}

#[test]
fn camel_case_is_understood_in_suggestions() {
    check_trigger(
        r#"deadLetter: http://localhost/"#,
        expect![[r#"
        sluice.yaml:4:5: unknown key `deadLetter` in trigger `t`: did you mean `dead_letter`?
            4 |     deadLetter: http://localhost/
              |     ^^^^^^^^^^
    "#]],
    );
}

#[test]
fn a_far_off_key_lists_the_known_ones() {
    check_trigger(
        r#"colour: blue"#,
        expect![[r#"
            sluice.yaml:4:5: unknown key `colour` in trigger `t`: known keys are sources, filters, transform, sink, delivery, dead_letter, start
                4 |     colour: blue
                  |     ^^^^^^
        "#]],
    );
}

#[test]
fn a_trigger_needs_a_sink() {
    check(
        r#"triggers:
  lonely:
    filters: []"#,
        expect![[r#"
            sluice.yaml:2:3: trigger `lonely` has no `sink`
                2 |   lonely:
                  |   ^^^^^^
        "#]],
    );
}

#[test]
fn an_empty_trigger_needs_a_sink() {
    check(
        r#"triggers:
  lonely:"#,
        expect![[r#"
            sluice.yaml:2:3: trigger `lonely` has no `sink`
                2 |   lonely:
                  |   ^^^^^^
        "#]],
    );
}

#[test]
fn names_have_few_characters() {
    check(
        r#"triggers: { Big_Orders: { sink: http://localhost/ }, ../x: { sink: http://localhost/ }, "🚀": { sink: http://localhost/ }, "": { sink: http://localhost/ } }"#,
        expect![[r#"
            sluice.yaml:1:13: `Big_Orders` is not a trigger name: 1 to 63 of a-z, 0-9 and -
                1 | triggers: { Big_Orders: { sink: http://localhost/ }, ../x: { sink: http://localhost/ }, "🚀": { sink: http://lo
                  |             ^^^^^^^^^^
            sluice.yaml:1:54: `../x` is not a trigger name: 1 to 63 of a-z, 0-9 and -
                1 | triggers: { Big_Orders: { sink: http://localhost/ }, ../x: { sink: http://localhost/ }, "🚀": { sink: http://lo
                  |                                                      ^^^^
            sluice.yaml:1:89: `🚀` is not a trigger name: 1 to 63 of a-z, 0-9 and -
                1 | Orders: { sink: http://localhost/ }, ../x: { sink: http://localhost/ }, "🚀": { sink: http://localhost/ }, "":
                  |                                                                         ^^^
            sluice.yaml:1:123: `` is not a trigger name: 1 to 63 of a-z, 0-9 and -
                1 | }, ../x: { sink: http://localhost/ }, "🚀": { sink: http://localhost/ }, "": { sink: http://localhost/ } }
                  |                                                                         ^^
        "#]],
    );
}

#[test]
fn names_are_short() {
    check(
        r#"triggers: { aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: { sink: http://localhost/ } }"#,
        expect![[r#"
            sluice.yaml:1:13: `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…` is not a trigger name: 1 to 63 of a-z, 0-9 and -
                1 | triggers: { aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: { sink: http://localhost/ } }
                  |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn own_keys_are_free() {
    check(
        r#"x-mine: [1]
triggers: { t: { x-owner: { team: a }, sink: http://localhost/ } }"#,
        expect![[r#"
            ok
        "#]],
    );
}

#[test]
fn there_are_two_entry_points() {
    check_trigger(
        r#"sources: [http, reply]"#,
        expect![[r#"
        ok
    "#]],
    );
}

#[test]
fn other_sources_do_not_exist_yet() {
    check_trigger(
        r#"sources: [orders]"#,
        expect![[r#"
        sluice.yaml:4:15: `sources`: no such source: expected http or reply, found `orders`
            4 |     sources: [orders]
              |               ^^^^^^
    "#]],
    );
}

#[test]
fn an_empty_list_of_sources_is_an_error() {
    check_trigger(
        r#"sources: []"#,
        expect![[r#"
        sluice.yaml:4:14: `sources` is empty, so nothing would match: leave it out for every source
            4 |     sources: []
              |              ^
    "#]],
    );
}

#[test]
fn a_source_is_listed_once() {
    check_trigger(
        r#"sources: [http, http]"#,
        expect![[r#"
        sluice.yaml:4:21: `sources`: `http` is listed twice
            4 |     sources: [http, http]
              |                     ^^^^
    "#]],
    );
}

#[test]
fn top_level_sources_are_not_there_yet() {
    check(
        r#"sources:
  orders: { kafka: {} }"#,
        expect![[r#"
            sluice.yaml:2:20: `kafka` of source `orders` has no `brokers`
                2 |   orders: { kafka: {} }
                  |                    ^
            sluice.yaml:2:20: `kafka` of source `orders` has no `topics`: list them, or write a `pattern`
                2 |   orders: { kafka: {} }
                  |                    ^
            sluice.yaml:2:20: `kafka` of source `orders` has no `group`: the offsets are kept under its name
                2 |   orders: { kafka: {} }
                  |                    ^
        "#]],
    );
}

#[test]
fn an_empty_sources_is_fine() {
    check(
        r#"sources: {}
triggers: {}"#,
        expect![[r#"
            ok
        "#]],
    );
}

#[test]
fn triggers_is_a_mapping() {
    check(
        r#"triggers: [ { sink: http://localhost/ } ]"#,
        expect![[r#"
        sluice.yaml:1:11: `triggers`: expected names with triggers, found a list
            1 | triggers: [ { sink: http://localhost/ } ]
              |           ^
    "#]],
    );
}

#[test]
fn start_is_a_word_or_a_time() {
    check_trigger(
        r#"start: yesterday"#,
        expect![[r#"
        sluice.yaml:4:12: `start`: expected latest, earliest or an RFC 3339 time such as 2026-01-31T12:00:00Z, found `yesterday`
            4 |     start: yesterday
              |            ^^^^^^^^^
    "#]],
    );
}

#[test]
fn start_needs_an_offset() {
    check_trigger(
        r#"start: 2026-01-31T12:00:00"#,
        expect![[r#"
        sluice.yaml:4:12: `start`: expected latest, earliest or an RFC 3339 time such as 2026-01-31T12:00:00Z, found `2026-01-31T12:00:00`
            4 |     start: 2026-01-31T12:00:00
              |            ^^^^^^^^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn start_takes_rfc_3339() {
    shows(
        r#"triggers: { t: { sink: http://localhost/, start: 2026-01-31T13:00:00.5+01:00 } }"#,
        "/triggers/t/start",
        expect![[r#""2026-01-31T12:00:00.5Z""#]],
    );
}

#[test]
fn defaults_reach_every_trigger_field_by_field() {
    shows(
        r#"defaults:
  delivery: { timeout: 5s, retry: 3 }
  dead_letter: { stdout: {} }
  headers: { X-Team: default, x-other: default }
triggers:
  t:
    sink: { http: { url: http://localhost/, headers: { x-team: own } } }
    delivery: { retry: 7 }"#,
        "/triggers/t",
        expect![[
            r#"{"dead_letter":{"stdout":{}},"delivery":{"backoff":"exponential","backoff_delay":"1s","backoff_max":"10m","concurrency":32,"max_age":"24h","order":"none","reply":"lenient","retry":7,"retry_on":[],"timeout":"5s"},"filters":[],"sink":{"http":{"allow_link_local":false,"headers":{"x-other":"[hidden]","x-team":"[hidden]"},"mode":"binary","tls":{},"url":"http://localhost/"}},"start":"latest"}"#
        ]],
    );
}

#[test]
fn defaults_are_checked_without_triggers() {
    check(
        r#"defaults: { delivery: { retrys: 3, timeout: 0s, backoff: cubic } }"#,
        expect![[r#"
        sluice.yaml:1:25: unknown key `retrys` in `defaults.delivery`: did you mean `retry`?
            1 | defaults: { delivery: { retrys: 3, timeout: 0s, backoff: cubic } }
              |                         ^^^^^^
        sluice.yaml:1:45: `timeout`: expected a duration from 1ms to 1h, found `0s`
            1 | defaults: { delivery: { retrys: 3, timeout: 0s, backoff: cubic } }
              |                                             ^^
        sluice.yaml:1:58: `backoff`: expected exponential, linear or constant, found `cubic`
            1 | defaults: { delivery: { retrys: 3, timeout: 0s, backoff: cubic } }
              |                                                          ^^^^^
    "#]],
    );
}

#[test]
fn a_wrong_default_is_reported_once() {
    check(
        r#"defaults: { delivery: { backoff_delay: 20m } }
triggers: { a: { sink: http://localhost/ }, b: { sink: http://localhost/ } }"#,
        expect![[r#"
            sluice.yaml:1:40: `backoff_delay` (20m) is above `backoff_max` (10m)
                1 | defaults: { delivery: { backoff_delay: 20m } }
                  |                                        ^^^
        "#]],
    );
}

#[test]
fn many_errors_are_found_at_once() {
    check(
        r#"http: { listen: here }
triggers:
  a: { sink: 5 }
  b: { start: never }
  c: { sink: http://localhost/, delivery: { retry: no, timeout: 1 } }"#,
        expect![[r#"
            sluice.yaml:1:17: `http.listen`: expected ADDRESS:PORT such as 127.0.0.1:8080, found `here`
                1 | http: { listen: here }
                  |                 ^^^^
            sluice.yaml:3:14: `sink`: expected a URL that begins with http:// or https://, found `5`
                3 |   a: { sink: 5 }
                  |              ^
            sluice.yaml:4:3: trigger `b` has no `sink`
                4 |   b: { start: never }
                  |   ^
            sluice.yaml:4:15: `start`: expected latest, earliest or an RFC 3339 time such as 2026-01-31T12:00:00Z, found `never`
                4 |   b: { start: never }
                  |               ^^^^^
            sluice.yaml:5:52: `retry`: expected unlimited or a whole number from 0 to 65535, found `no`
                5 |   c: { sink: http://localhost/, delivery: { retry: no, timeout: 1 } }
                  |                                                    ^^
            sluice.yaml:5:65: `timeout`: the unit is missing: write ms, s, m, h or d after the number, found `1`
                5 |   c: { sink: http://localhost/, delivery: { retry: no, timeout: 1 } }
                  |                                                                 ^
        "#]],
    );
}
