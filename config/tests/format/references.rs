//! `${NAME}` and `${file:PATH}`.

use expect_test::expect;

use crate::{check, shows};

#[test]
fn a_missing_variable_is_named() {
    check(
        r#"triggers: { t: { sink: "http://localhost/${MISSING}" } }"#,
        expect![[r#"
        sluice.yaml:1:42: `${MISSING}`: the environment variable `MISSING` is not set
            1 | triggers: { t: { sink: "http://localhost/${MISSING}" } }
              |                                          ^^^^^^^^^^
    "#]],
    );
}

#[test]
fn an_empty_variable_is_an_error() {
    check(
        r#"triggers: { t: { sink: "http://localhost/${EMPTY}" } }"#,
        expect![[r#"
        sluice.yaml:1:42: `${EMPTY}`: the environment variable `EMPTY` is empty
            1 | triggers: { t: { sink: "http://localhost/${EMPTY}" } }
              |                                          ^^^^^^^^
    "#]],
    );
}

#[test]
fn there_are_no_default_values() {
    check(
        r#"triggers: { t: { sink: "http://localhost/${A:-}" } }"#,
        expect![[r#"
        sluice.yaml:1:42: `${A:-}`: there are no default values: set `A`, or write the value itself
            1 | triggers: { t: { sink: "http://localhost/${A:-}" } }
              |                                          ^^^^^^
    "#]],
    );
}

#[test]
fn references_do_not_nest() {
    check(
        r#"triggers: { t: { sink: "http://localhost/${${A}}" } }"#,
        expect![[r#"
        sluice.yaml:1:42: `${${A}`: a reference cannot stand inside another
            1 | triggers: { t: { sink: "http://localhost/${${A}}" } }
              |                                          ^^^^^^
    "#]],
    );
}

#[test]
fn an_open_reference_is_an_error() {
    check(
        r#"triggers: { t: { sink: "http://localhost/${A" } }"#,
        expect![[r#"
        sluice.yaml:1:42: `${A`: the closing `}` is missing; `$${` stands for a literal `${`
            1 | triggers: { t: { sink: "http://localhost/${A" } }
              |                                          ^^^
    "#]],
    );
}

#[test]
fn a_missing_file_is_named() {
    check(
        r#"triggers: { t: { sink: "http://localhost/${file:no/such/file}" } }"#,
        expect![[r#"
        sluice.yaml:1:42: `${file:no/such/file}`: cannot read `no/such/file`: No such file or directory (os error 2)
            1 | triggers: { t: { sink: "http://localhost/${file:no/such/file}" } }
              |                                          ^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn two_dollars_escape() {
    shows(
        r#"triggers: { t: { sink: http://localhost/, filters: [ { exact: { type: "$${literal}" } } ] } }"#,
        "/triggers/t/filters/0/exact/type",
        expect![[r#""${literal}""#]],
    );
}

#[test]
fn a_value_is_not_expanded_again() {
    shows(
        r#"triggers: { t: { sink: http://localhost/, filters: [ { exact: { type: "a.${NESTED}.b" } } ] } }"#,
        "/triggers/t/filters/0/exact/type",
        expect![[r#""a.${TOKEN}.b""#]],
    );
}

#[test]
fn a_value_cannot_add_structure() {
    shows(
        r#"triggers: { t: { sink: http://localhost/, filters: [ { exact: { type: "${YAML}" } } ] } }"#,
        "/triggers/t/filters/0/exact/type",
        expect![[r#""x\nadmin: { open: true }""#]],
    );
}

#[test]
fn a_reference_can_be_a_number() {
    shows(
        r#"http: { listen: "127.0.0.1:${PORT}" }
limits: { connections: "${PORT}" }"#,
        "/limits/connections",
        expect!["9090"],
    );
}

#[test]
fn a_value_from_outside_is_not_shown_in_errors() {
    check(
        r#"triggers: { t: { sink: http://localhost/, delivery: { timeout: "${TOKEN}" } } }"#,
        expect![[r#"
            sluice.yaml:1:64: `timeout`: expected a duration such as 200ms, 1s, 5m, 24h, 7d or PT5S, found what `${TOKEN}` stands for
                1 | triggers: { t: { sink: http://localhost/, delivery: { timeout: "${TOKEN}" } } }
                  |                                                                ^^^^^^^^^^
        "#]],
    );
}
