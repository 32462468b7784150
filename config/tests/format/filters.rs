//! Filters: dialects, attributes, values.

use expect_test::expect;

use crate::{check_trigger, shows};

#[test]
fn all_dialects() {
    shows(
        r#"triggers:
  t:
    sink: http://localhost/
    filters:
      - exact: { type: a, subject: 5, ok: true }
      - prefix: { type: com. }
      - suffix: { type: .created }
      - any: [ { exact: { source: /a } }, { all: [ { not: { exact: { source: no } } } ] } ]"#,
        "/triggers/t/filters",
        expect![[
            r#"[{"exact":{"ok":"true","subject":"5","type":"a"}},{"prefix":{"type":"com."}},{"suffix":{"type":".created"}},{"any":[{"exact":{"source":"/a"}},{"all":[{"not":{"exact":{"source":"no"}}}]}]}]"#
        ]],
    );
}

#[test]
fn no_filters_match_everything() {
    check_trigger(
        r#"filters: []"#,
        expect![[r#"
        ok
    "#]],
    );
}

#[test]
fn filters_without_a_value_are_an_error() {
    check_trigger(
        r#"filters:"#,
        expect![[r#"
        sluice.yaml:4:5: `filters` has no value: leave it out, or write `[]`, to match every event
            4 |     filters:
              |     ^^^^^^^
    "#]],
    );
}

#[test]
fn filters_are_a_list() {
    check_trigger(
        r#"filters: { exact: { type: a } }"#,
        expect![[r#"
        sluice.yaml:4:14: `filters`: expected a list, found a mapping: put `- ` before the dialect
            4 |     filters: { exact: { type: a } }
              |              ^
    "#]],
    );
}

#[test]
fn a_filter_is_a_mapping() {
    check_trigger(
        r#"filters: [ com.example ]"#,
        expect![[r#"
        sluice.yaml:4:16: expected a filter such as `exact: { type: ... }`, found `com.example`
            4 |     filters: [ com.example ]
              |                ^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn attribute_names_are_lower_case() {
    check_trigger(
        r#"filters:
  - exact: { Type: x }"#,
        expect![[r#"
            sluice.yaml:5:18: `Type` is not an attribute name, which is a-z and 0-9 only: did you mean `type`?
                5 |       - exact: { Type: x }
                  |                  ^^^^
        "#]],
    );
}

#[test]
fn data_is_no_attribute() {
    check_trigger(
        r#"filters:
  - exact: { data: x }"#,
        expect![[r#"
            sluice.yaml:5:18: `data` is not an attribute: `exact` does not look into the data
                5 |       - exact: { data: x }
                  |                  ^^^^
        "#]],
    );
}

#[test]
fn an_attribute_name_has_no_dots() {
    check_trigger(
        r#"filters:
  - exact: { data.id: x }"#,
        expect![[r#"
            sluice.yaml:5:18: `data.id` is not an attribute name, which is a-z and 0-9 only
                5 |       - exact: { data.id: x }
                  |                  ^^^^^^^
        "#]],
    );
}

#[test]
fn an_empty_mapping_is_an_error() {
    check_trigger(
        r#"filters:
  - exact: {}"#,
        expect![[r#"
            sluice.yaml:5:16: `exact` needs at least one attribute
                5 |       - exact: {}
                  |                ^
        "#]],
    );
}

#[test]
fn an_empty_value_is_an_error() {
    check_trigger(
        r#"filters:
  - prefix: { type: "" }"#,
        expect![[r#"
            sluice.yaml:5:25: `prefix` of `type`: the value is empty
                5 |       - prefix: { type: "" }
                  |                         ^^
        "#]],
    );
}

#[test]
fn one_dialect_a_filter() {
    check_trigger(
        r#"filters:
  - { exact: { type: a }, prefix: { type: a } }"#,
        expect![[r#"
            sluice.yaml:5:31: `prefix` is a second dialect in one filter: begin it with `- `, or put both under `all`
                5 |       - { exact: { type: a }, prefix: { type: a } }
                  |                               ^^^^^^
        "#]],
    );
}

#[test]
fn an_empty_filter_is_an_error() {
    check_trigger(
        r#"filters:
  - {}"#,
        expect![[r#"
            sluice.yaml:5:9: an empty filter: expected one of exact, prefix, suffix, all, any, not, sql, cesql, data or cel
                5 |       - {}
                  |         ^
        "#]],
    );
}

#[test]
fn an_unknown_dialect_lists_the_known() {
    check_trigger(
        r#"filters:
  - regex: { type: a }"#,
        expect![[r#"
            sluice.yaml:5:9: unknown filter dialect `regex`: expected exact, prefix, suffix, all, any, not, sql, cesql, data or cel
                5 |       - regex: { type: a }
                  |         ^^^^^
        "#]],
    );
}

#[test]
fn and_is_all() {
    check_trigger(
        r#"filters:
  - and: []"#,
        expect![[r#"
            sluice.yaml:5:9: unknown filter dialect `and`: expected exact, prefix, suffix, all, any, not, sql, cesql, data or cel (did you mean `all`?)
                5 |       - and: []
                  |         ^^^
        "#]],
    );
}

#[test]
fn or_is_any() {
    check_trigger(
        r#"filters:
  - or: []"#,
        expect![[r#"
            sluice.yaml:5:9: unknown filter dialect `or`: expected exact, prefix, suffix, all, any, not, sql, cesql, data or cel (did you mean `any`?)
                5 |       - or: []
                  |         ^^
        "#]],
    );
}

#[test]
fn equals_is_exact() {
    check_trigger(
        r#"filters:
  - "==": {}"#,
        expect![[r#"
            sluice.yaml:5:9: unknown filter dialect `==`: expected exact, prefix, suffix, all, any, not, sql, cesql, data or cel (did you mean `exact`?)
                5 |       - "==": {}
                  |         ^^^^
        "#]],
    );
}

#[test]
fn a_typing_error_in_a_dialect() {
    check_trigger(
        r#"filters:
  - perfix: { type: a }"#,
        expect![[r#"
            sluice.yaml:5:9: unknown filter dialect `perfix`: expected exact, prefix, suffix, all, any, not, sql, cesql, data or cel (did you mean `prefix`?)
                5 |       - perfix: { type: a }
                  |         ^^^^^^
        "#]],
    );
}

#[test]
fn an_attribute_where_a_dialect_is_wanted() {
    check_trigger(
        r#"filters:
  - type: a"#,
        expect![[r#"
            sluice.yaml:5:9: `type` is no dialect: write `exact: { type: ... }`
                5 |       - type: a
                  |         ^^^^
        "#]],
    );
}

#[test]
fn all_needs_a_filter() {
    check_trigger(
        r#"filters:
  - all: []"#,
        expect![[r#"
            sluice.yaml:5:14: `all` needs at least one filter
                5 |       - all: []
                  |              ^
        "#]],
    );
}

#[test]
fn any_takes_a_list() {
    check_trigger(
        r#"filters:
  - any: { exact: { type: a } }"#,
        expect![[r#"
            sluice.yaml:5:14: `any`: expected a list of filters, found a mapping
                5 |       - any: { exact: { type: a } }
                  |              ^
        "#]],
    );
}

#[test]
fn not_takes_one_filter() {
    check_trigger(
        r#"filters:
  - not: [ { exact: { type: a } } ]"#,
        expect![[r#"
            sluice.yaml:5:14: `not` takes one filter, not a list: for several, write `not: { any: [...] }`
                5 |       - not: [ { exact: { type: a } } ]
                  |              ^
        "#]],
    );
}

#[test]
fn a_fraction_must_be_quoted() {
    check_trigger(
        r#"filters:
  - exact: { version: 1.0 }"#,
        expect![[r#"
            sluice.yaml:5:27: `exact` of `version`: `1.0` is a number to YAML: put it in quotes
                5 |       - exact: { version: 1.0 }
                  |                           ^^^
        "#]],
    );
}

#[test]
fn a_date_must_be_quoted() {
    check_trigger(
        r#"filters:
  - exact: { day: 2024-01-01 }"#,
        expect![[r#"
            sluice.yaml:5:23: `exact` of `day`: `2024-01-01` is a date to YAML: put it in quotes
                5 |       - exact: { day: 2024-01-01 }
                  |                       ^^^^^^^^^^
        "#]],
    );
}

#[test]
fn null_must_be_quoted() {
    check_trigger(
        r#"filters:
  - exact: { subject: null }"#,
        expect![[r#"
            sluice.yaml:5:18: `exact` of `subject`: the value is missing; if the text `null` is meant, put it in quotes
                5 |       - exact: { subject: null }
                  |                  ^^^^^^^
        "#]],
    );
}

#[test]
fn an_absent_value_is_an_error() {
    check_trigger(
        r#"filters:
  - exact: { subject: }"#,
        expect![[r#"
            sluice.yaml:5:18: `exact` of `subject`: the value is missing; if the text `null` is meant, put it in quotes
                5 |       - exact: { subject: }
                  |                  ^^^^^^^
        "#]],
    );
}

#[test]
fn an_upper_case_boolean_must_be_quoted() {
    check_trigger(
        r#"filters:
  - exact: { flag: True }"#,
        expect![[r#"
            sluice.yaml:5:24: `exact` of `flag`: put `True` in quotes, or write it in lower case
                5 |       - exact: { flag: True }
                  |                        ^^^^
        "#]],
    );
}

#[test]
fn an_odd_integer_must_be_quoted() {
    check_trigger(
        r#"filters:
  - exact: { zip: 01234, mask: 0x1F, gain: +5 }"#,
        expect![[r#"
            sluice.yaml:5:23: `exact` of `zip`: `01234` is a number to YAML: put it in quotes
                5 |       - exact: { zip: 01234, mask: 0x1F, gain: +5 }
                  |                       ^^^^^
            sluice.yaml:5:36: `exact` of `mask`: `0x1F` is a number to YAML: put it in quotes
                5 |       - exact: { zip: 01234, mask: 0x1F, gain: +5 }
                  |                                    ^^^^
            sluice.yaml:5:48: `exact` of `gain`: `+5` is a number to YAML: put it in quotes
                5 |       - exact: { zip: 01234, mask: 0x1F, gain: +5 }
                  |                                                ^^
        "#]],
    );
}

#[test]
fn several_values_need_any() {
    check_trigger(
        r#"filters:
  - exact: { type: [a, b] }"#,
        expect![[r#"
            sluice.yaml:5:24: `exact` of `type` takes one value: for several, write `any` of several
                5 |       - exact: { type: [a, b] }
                  |                        ^
        "#]],
    );
}

#[test]
fn norway_stays_text() {
    shows(
        r#"triggers: { t: { sink: http://localhost/, filters: [ { exact: { country: no, a: on, b: yes, c: 1.0.3 } } ] } }"#,
        "/triggers/t/filters/0/exact",
        expect![[r#"{"a":"on","b":"yes","c":"1.0.3","country":"no"}"#]],
    );
}
