//! `delivery`: durations, numbers, words.

use expect_test::expect;

use crate::{check_trigger, shows};

#[test]
fn built_in_defaults() {
    shows(
        r#"triggers: { t: { sink: http://localhost/ } }"#,
        "/triggers/t",
        expect![[
            r#"{"delivery":{"backoff":"exponential","backoff_delay":"1s","backoff_max":"10m","concurrency":32,"max_age":"24h","order":"none","reply":"lenient","retry":"unlimited","retry_on":[],"timeout":"30s"},"filters":[],"sink":{"http":{"allow_link_local":false,"headers":{},"mode":"binary","tls":{},"url":"http://localhost/"}},"start":"latest"}"#
        ]],
    );
}

#[test]
fn a_duration_needs_a_unit() {
    check_trigger(
        r#"delivery: { timeout: 5 }"#,
        expect![[r#"
        sluice.yaml:4:26: `timeout`: the unit is missing: write ms, s, m, h or d after the number, found `5`
            4 |     delivery: { timeout: 5 }
              |                          ^
    "#]],
    );
}

#[test]
fn a_duration_has_a_range() {
    check_trigger(
        r#"delivery: { timeout: 0s, max_age: 9999999d, backoff_max: 99999999999999999999h }"#,
        expect![[r#"
            sluice.yaml:4:26: `timeout`: expected a duration from 1ms to 1h, found `0s`
                4 |     delivery: { timeout: 0s, max_age: 9999999d, backoff_max: 99999999999999999999h }
                  |                          ^^
            sluice.yaml:4:39: `max_age`: expected a duration from 1ms to 365d, found `9999999d`
                4 |     delivery: { timeout: 0s, max_age: 9999999d, backoff_max: 99999999999999999999h }
                  |                                       ^^^^^^^^
            sluice.yaml:4:62: `backoff_max`: expected a duration from 1ms to 7d, found `99999999999999999999h`
                4 |     delivery: { timeout: 0s, max_age: 9999999d, backoff_max: 99999999999999999999h }
                  |                                                              ^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn a_duration_is_not_negative() {
    check_trigger(
        r#"delivery: { timeout: -1s }"#,
        expect![[r#"
        sluice.yaml:4:26: `timeout`: expected a duration such as 200ms, 1s, 5m, 24h, 7d or PT5S, found `-1s`
            4 |     delivery: { timeout: -1s }
              |                          ^^^
    "#]],
    );
}

#[test]
fn a_duration_is_a_whole_number() {
    check_trigger(
        r#"delivery: { timeout: 1e99h, max_age: 1.5h }"#,
        expect![[r#"
        sluice.yaml:4:26: `timeout`: expected a whole number and ms, s, m, h or d, such as 200ms or 5m, found `1e99h`
            4 |     delivery: { timeout: 1e99h, max_age: 1.5h }
              |                          ^^^^^
        sluice.yaml:4:42: `max_age`: expected a whole number and ms, s, m, h or d, such as 200ms or 5m, found `1.5h`
            4 |     delivery: { timeout: 1e99h, max_age: 1.5h }
              |                                          ^^^^
    "#]],
    );
}

#[test]
fn a_duration_has_few_units() {
    check_trigger(
        r#"delivery: { timeout: 5 parsecs, backoff_delay: FOO }"#,
        expect![[r#"
        sluice.yaml:4:26: `timeout`: expected a whole number and ms, s, m, h or d, such as 200ms or 5m, found `5 parsecs`
            4 |     delivery: { timeout: 5 parsecs, backoff_delay: FOO }
              |                          ^^^^^^^^^
        sluice.yaml:4:52: `backoff_delay`: expected a duration such as 200ms, 1s, 5m, 24h, 7d or PT5S, found `FOO`
            4 |     delivery: { timeout: 5 parsecs, backoff_delay: FOO }
              |                                                    ^^^
    "#]],
    );
}

#[test]
fn a_wrong_iso_duration() {
    check_trigger(
        r#"delivery: { timeout: PP1, max_age: P1Y }"#,
        expect![[r#"
        sluice.yaml:4:26: `timeout`: not an ISO 8601 duration such as PT5S or P1D, found `PP1`
            4 |     delivery: { timeout: PP1, max_age: P1Y }
              |                          ^^^
        sluice.yaml:4:40: `max_age`: not an ISO 8601 duration such as PT5S or P1D, found `P1Y`
            4 |     delivery: { timeout: PP1, max_age: P1Y }
              |                                        ^^^
    "#]],
    );
}

#[test]
fn durations_read_as_text_and_iso() {
    shows(
        r#"triggers: { t: { sink: http://localhost/, delivery: { timeout: PT5S, backoff_delay: PT0.2S, backoff_max: 5m, max_age: P1DT1H } } }"#,
        "/triggers/t/delivery",
        expect![[
            r#"{"backoff":"exponential","backoff_delay":"200ms","backoff_max":"5m","concurrency":32,"max_age":"25h","order":"none","reply":"lenient","retry":"unlimited","retry_on":[],"timeout":"5s"}"#
        ]],
    );
}

#[test]
fn retry_has_a_range() {
    check_trigger(
        r#"delivery: { retry: 65536 }"#,
        expect![[r#"
        sluice.yaml:4:24: `retry`: expected unlimited or a whole number from 0 to 65535, found `65536`
            4 |     delivery: { retry: 65536 }
              |                        ^^^^^
    "#]],
    );
}

#[test]
fn retry_is_not_negative() {
    check_trigger(
        r#"delivery: { retry: -1 }"#,
        expect![[r#"
        sluice.yaml:4:24: `retry`: expected unlimited or a whole number from 0 to 65535, found `-1`
            4 |     delivery: { retry: -1 }
              |                        ^^
    "#]],
    );
}

#[test]
fn retry_takes_no_number_in_quotes() {
    check_trigger(
        r#"delivery: { retry: "3" }"#,
        expect![[r#"
            sluice.yaml:4:24: `retry`: expected unlimited or a whole number from 0 to 65535 without quotes, found `3`
                4 |     delivery: { retry: "3" }
                  |                        ^^^
        "#]],
    );
}

#[test]
fn retry_may_be_zero_and_65535() {
    shows(
        r#"triggers: { t: { sink: http://localhost/, delivery: { retry: 0 } } }"#,
        "/triggers/t/delivery/retry",
        expect!["0"],
    );
    shows(
        r#"triggers: { t: { sink: http://localhost/, delivery: { retry: 65535 } } }"#,
        "/triggers/t/delivery/retry",
        expect!["65535"],
    );
}

#[test]
fn backoff_is_one_of_three() {
    check_trigger(
        r#"delivery: { backoff: cubic }"#,
        expect![[r#"
        sluice.yaml:4:26: `backoff`: expected exponential, linear or constant, found `cubic`
            4 |     delivery: { backoff: cubic }
              |                          ^^^^^
    "#]],
    );
}

#[test]
fn backoff_delay_is_at_most_backoff_max() {
    check_trigger(
        r#"delivery: { backoff_delay: 5m, backoff_max: 1m }"#,
        expect![[r#"
        sluice.yaml:4:32: `backoff_delay` (5m) is above `backoff_max` (1m)
            4 |     delivery: { backoff_delay: 5m, backoff_max: 1m }
              |                                ^^
    "#]],
    );
}

#[test]
fn concurrency_has_a_range() {
    check_trigger(
        r#"delivery: { concurrency: 0 }"#,
        expect![[r#"
        sluice.yaml:4:30: `concurrency`: expected a whole number from 1 to 10000, found `0`
            4 |     delivery: { concurrency: 0 }
              |                              ^
    "#]],
    );
}

#[test]
fn other_number_formats_are_errors() {
    check_trigger(
        r#"delivery: { concurrency: 0x50 }"#,
        expect![[r#"
        sluice.yaml:4:30: `concurrency`: expected a whole number from 1 to 10000, found `0x50`
            4 |     delivery: { concurrency: 0x50 }
              |                              ^^^^
    "#]],
    );
}

#[test]
fn grouped_digits_are_errors() {
    check_trigger(
        r#"delivery: { concurrency: 1_000 }"#,
        expect![[r#"
        sluice.yaml:4:30: `concurrency`: expected a whole number from 1 to 10000, found `1_000`
            4 |     delivery: { concurrency: 1_000 }
              |                              ^^^^^
    "#]],
    );
}

#[test]
fn leading_zeros_are_errors() {
    check_trigger(
        r#"delivery: { concurrency: 0777 }"#,
        expect![[r#"
        sluice.yaml:4:30: `concurrency`: expected a whole number from 1 to 10000, found `0777`
            4 |     delivery: { concurrency: 0777 }
              |                              ^^^^
    "#]],
    );
}

#[test]
fn fractions_are_errors() {
    check_trigger(
        r#"delivery: { concurrency: 8080.0 }"#,
        expect![[r#"
        sluice.yaml:4:30: `concurrency`: expected a whole number from 1 to 10000, found `8080.0`
            4 |     delivery: { concurrency: 8080.0 }
              |                              ^^^^^^
    "#]],
    );
}

#[test]
fn a_rate_has_a_unit() {
    check_trigger(
        r#"delivery: { rate: 100 }"#,
        expect![[r#"
        sluice.yaml:4:23: `rate`: expected a number per second, minute or hour, such as 100/s, 30/m or 5/h, found `100`
            4 |     delivery: { rate: 100 }
              |                       ^^^
    "#]],
    );
}

#[test]
fn a_rate_has_a_range() {
    check_trigger(
        r#"delivery: { rate: 0/s }"#,
        expect![[r#"
        sluice.yaml:4:23: `rate`: out of range: at least one a day, at most 1000000/s, found `0/s`
            4 |     delivery: { rate: 0/s }
              |                       ^^^
    "#]],
    );
}

#[test]
fn rates_read_back() {
    shows(
        r#"triggers: { t: { sink: http://localhost/, delivery: { rate: 30/m } } }"#,
        "/triggers/t/delivery/rate",
        expect![[r#""30/m""#]],
    );
}

#[test]
fn order_by_data_must_be_quoted() {
    check_trigger(
        r#"delivery:
  order: {data.id}"#,
        expect![[r#"
            sluice.yaml:5:14: `order`: expected text, which must be in quotes when it begins with `{`, found a mapping
                5 |       order: {data.id}
                  |              ^
        "#]],
    );
}

#[test]
fn order_by_data_needs_a_path() {
    check_trigger(
        r#"delivery: { order: "{data}" }"#,
        expect![[r#"
        sluice.yaml:4:24: `order`: expected none, an attribute such as partitionkey, or "{data.path}", found `{data}`
            4 |     delivery: { order: "{data}" }
              |                        ^^^^^^^^
    "#]],
    );
}

#[test]
fn order_by_no_attribute() {
    check_trigger(
        r#"delivery: { order: Partition_Key }"#,
        expect![[r#"
        sluice.yaml:4:24: `order`: expected none, an attribute such as partitionkey, or "{data.path}", found `Partition_Key`
            4 |     delivery: { order: Partition_Key }
              |                        ^^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn order_by_a_path() {
    shows(
        r#"triggers: { t: { sink: http://localhost/, delivery: { order: "{data.customer.id}" } } }"#,
        "/triggers/t/delivery/order",
        expect![[r#""{data.customer.id}""#]],
    );
}

#[test]
fn reply_is_one_of_three() {
    check_trigger(
        r#"delivery: { reply: maybe }"#,
        expect![[r#"
        sluice.yaml:4:24: `reply`: expected lenient, strict or ignore, found `maybe`
            4 |     delivery: { reply: maybe }
              |                        ^^^^^
    "#]],
    );
}

#[test]
fn retry_on_takes_statuses() {
    check_trigger(
        r#"delivery: { retry_on: [401, 403, 200, 401] }"#,
        expect![[r#"
        sluice.yaml:4:38: `retry_on`: expected a whole number from 300 to 599, found `200`
            4 |     delivery: { retry_on: [401, 403, 200, 401] }
              |                                      ^^^
        sluice.yaml:4:43: `retry_on`: `401` is listed twice
            4 |     delivery: { retry_on: [401, 403, 200, 401] }
              |                                           ^^^
    "#]],
    );
}

#[test]
fn an_absent_value_is_an_error() {
    check_trigger(
        r#"delivery: { timeout: }"#,
        expect![[r#"
        sluice.yaml:4:17: `timeout` has no value: expected a duration such as 200ms, 1s, 5m, 24h, 7d or PT5S
            4 |     delivery: { timeout: }
              |                 ^^^^^^^
    "#]],
    );
}

#[test]
fn a_list_is_no_number() {
    check_trigger(
        r#"delivery: { concurrency: [1] }"#,
        expect![[r#"
        sluice.yaml:4:30: `concurrency`: expected a whole number from 1 to 10000, found a list
            4 |     delivery: { concurrency: [1] }
              |                              ^
    "#]],
    );
}
