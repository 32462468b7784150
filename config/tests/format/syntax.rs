//! YAML itself: what is no YAML, and what is YAML but not taken.

use expect_test::expect;

use crate::{check, read, report, shows};

#[test]
fn an_unclosed_quote_is_an_error() {
    check(
        r#"triggers:
  t:
    sink: "http://localhost/"#,
        expect![[r#"
            sluice.yaml:3:11: unclosed quote
                3 |     sink: "http://localhost/
                  |           ^
        "#]],
    );
}

#[test]
fn tabs_do_not_indent() {
    check(
        "triggers:\n\tt: {}",
        expect![[r#"
            sluice.yaml:2:2: a tab cannot indent: use spaces
                2 |  t: {}
                  |  ^
        "#]],
    );
}

#[test]
fn text_with_a_brace_must_be_quoted() {
    check(
        r#"triggers:
  t:
    sink: http://localhost/
    x-subject: {key}/{id}"#,
        expect![[r#"
            sluice.yaml:4:21: while parsing a block mapping, did not find expected key; text that holds `{` must be in quotes
                4 |     x-subject: {key}/{id}
                  |                     ^
        "#]],
    );
}

#[test]
fn text_with_a_brace_in_a_flow_mapping_must_be_quoted() {
    check(
        r#"triggers:
  t: { sink: { http: { url: http://localhost/, headers: { x-key: ${TOKEN} } } } }"#,
        expect![[r#"
            sluice.yaml:2:67: while parsing a flow mapping, did not find expected ',' or '}'; text that holds `{` must be in quotes
                2 |   t: { sink: { http: { url: http://localhost/, headers: { x-key: ${TOKEN} } } } }
                  |                                                                   ^
        "#]],
    );
}

#[test]
fn a_key_twice_names_both_lines() {
    check(
        r#"triggers:
  t:
    sink: http://localhost/
    start: latest
    sink: http://localhost/"#,
        expect![[r#"
            sluice.yaml:5:5: `sink` appears twice in this mapping, first on line 3: remove one of them
                5 |     sink: http://localhost/
                  |     ^^^^
        "#]],
    );
}

#[test]
fn a_second_document_is_an_error() {
    check(
        r#"triggers: {}
---
triggers: {}"#,
        expect![[r#"
            sluice.yaml:2:1: a second document: a file holds one, put this in a file of its own
                2 | ---
                  | ^^^
        "#]],
    );
}

#[test]
fn custom_tags_are_errors() {
    check(
        r#"triggers: !include ../secret"#,
        expect![[r#"
            sluice.yaml:1:11: the tag `!include` has no meaning here: remove it, or quote the text
                1 | triggers: !include ../secret
                  |           ^^^^^^^^
        "#]],
    );
}

#[test]
fn language_tags_are_errors() {
    check(
        r#"triggers: !!python/object {}"#,
        expect![[r#"
            sluice.yaml:1:11: the tag `!!python/object` has no meaning here: remove it, or quote the text
                1 | triggers: !!python/object {}
                  |           ^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn a_nul_is_an_error() {
    check(
        "triggers: {}\n# \0",
        expect![[r#"
        sluice.yaml:2:3: a NUL character: this is not a text file
            2 | # �
              |   ^
    "#]],
    );
}

#[test]
fn byte_order_mark_and_crlf_are_fine() {
    check(
        "\u{feff}triggers:\r\n  t:\r\n    sink: http://localhost/\r",
        expect![[r#"
        ok
    "#]],
    );
}

#[test]
fn a_mapping_cannot_be_a_key() {
    check(
        r#"triggers:
  { a: b }: c"#,
        expect![[r#"
            sluice.yaml:2:3: a key must be plain text; a value that begins with `{`, `[` or `*` must be in quotes
                2 |   { a: b }: c
                  |   ^
        "#]],
    );
}

#[test]
fn an_unknown_alias_is_an_error() {
    check(
        r#"triggers: *missing"#,
        expect![[r#"
            sluice.yaml:1:11: this alias names no anchor above it; text that begins with `*` must be in quotes
                1 | triggers: *missing
                  |           ^
        "#]],
    );
}

#[test]
fn text_that_begins_with_a_sign_of_yaml_is_to_be_quoted() {
    for (value, expected) in [
        ("@daily", "text that begins with `@` must be in quotes"),
        ("%a", "text that begins with `%` must be in quotes"),
        ("`a`", "text that begins with ``` must be in quotes"),
        ("*/5 * * * *", "this alias names no anchor above it; text that begins with `*` must be in quotes"),
        (
            "* * * * *",
            "while scanning an anchor or alias, did not find expected alphabetic or numeric character; \
             text that begins with `*` or `&` must be in quotes",
        ),
    ] {
        let found = report(read(&format!("sources: {{ n: {{ cron: {{ schedule: {value} }} }} }}")));
        assert!(found.starts_with(&format!("sluice.yaml:1:35: {expected}\n")), "{found}");
    }
}

#[test]
fn an_alias_inside_its_own_anchor_is_an_error() {
    check(
        r#"triggers: &a
  t: *a"#,
        expect![[r#"
            sluice.yaml:2:6: this alias stands inside what it names
                2 |   t: *a
                  |      ^^
        "#]],
    );
}

#[test]
fn merge_keys_work_and_own_keys_win() {
    shows(
        r#"x-base: &base { timeout: 5s, concurrency: 7 }
triggers:
  t:
    sink: http://localhost/
    delivery: { <<: *base, timeout: 9s }"#,
        "/triggers/t/delivery",
        expect![[
            r#"{"backoff":"exponential","backoff_delay":"1s","backoff_max":"10m","concurrency":7,"max_age":"24h","order":"none","reply":"lenient","retry":"unlimited","retry_on":[],"timeout":"9s"}"#
        ]],
    );
}

#[test]
fn a_merge_key_needs_a_mapping() {
    check(
        r#"x-a: &a 5
triggers: { t: { <<: *a, sink: http://localhost/ } }"#,
        expect![[r#"
            sluice.yaml:1:9: `<<` merges mappings, such as `<<: *name`
                1 | x-a: &a 5
                  |         ^
        "#]],
    );
}

#[test]
fn the_top_must_be_a_mapping() {
    check(
        r#"- triggers"#,
        expect![[r#"
        sluice.yaml:1:1: the file: expected a mapping such as { http: ... }, found a list
            1 | - triggers
              | ^
    "#]],
    );
}

#[test]
fn an_empty_file_is_an_error() {
    check(
        r#"# nothing here"#,
        expect![[r#"
        sluice.yaml: the file is empty
    "#]],
    );
}

#[test]
fn a_long_line_is_cut_around_the_error() {
    check(
        r#"x-long: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
limits: { x-b: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb, hops: many, x-c: cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc }"#,
        expect![[r#"
            sluice.yaml:2:224: `hops`: expected a whole number from 1 to 255, found `many`
                2 | bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb, hops: many, x-c: ccccccccccccccccccccccccccc
                  |                                                                         ^^^^
        "#]],
    );
}

#[test]
fn control_characters_are_not_printed() {
    check(
        r#"triggers: { t: { sink: http://localhost/, start: "\e[31m" } }"#,
        expect![[r#"
        sluice.yaml:1:50: `start`: expected latest, earliest or an RFC 3339 time such as 2026-01-31T12:00:00Z, found `�[31m`
            1 | triggers: { t: { sink: http://localhost/, start: "\e[31m" } }
              |                                                  ^^^^^^^^
    "#]],
    );
}
