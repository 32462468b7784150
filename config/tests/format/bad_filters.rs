//! Filters of the list of bad inputs (cases 97 to 106) that are refused when a configuration is read.

use std::time::{Duration, Instant};

use expect_test::expect;

use crate::{check_trigger, read, report};

#[test]
fn case_97_names_of_attributes_and_how_many_there_are() {
    check_trigger(
        r#"filters:
  - exact: { Type: x }
  - prefix: { SUBJECT: x }
  - suffix: { my-ext: x }
  - exact: {}
  - prefix: {}
  - suffix:
  - { exact: { type: a }, cel: "true" }
  - not: { exact: { type: a }, prefix: { type: a } }"#,
        expect![[r#"
            sluice.yaml:5:18: `Type` is not an attribute name, which is a-z and 0-9 only: did you mean `type`?
                5 |       - exact: { Type: x }
                  |                  ^^^^
            sluice.yaml:6:19: `SUBJECT` is not an attribute name, which is a-z and 0-9 only: did you mean `subject`?
                6 |       - prefix: { SUBJECT: x }
                  |                   ^^^^^^^
            sluice.yaml:7:19: `my-ext` is not an attribute name, which is a-z and 0-9 only
                7 |       - suffix: { my-ext: x }
                  |                   ^^^^^^
            sluice.yaml:8:16: `exact` needs at least one attribute
                8 |       - exact: {}
                  |                ^
            sluice.yaml:9:17: `prefix` needs at least one attribute
                9 |       - prefix: {}
                  |                 ^
            sluice.yaml:10:9: `suffix`: expected attributes such as { type: ... }, found nothing
               10 |       - suffix:
                  |         ^^^^^^
            sluice.yaml:11:31: `cel` is a second dialect in one filter: begin it with `- `, or put both under `all`
               11 |       - { exact: { type: a }, cel: "true" }
                  |                               ^^^
            sluice.yaml:12:36: `prefix` is a second dialect in one filter: begin it with `- `, or put both under `all`
               12 |       - not: { exact: { type: a }, prefix: { type: a } }
                  |                                    ^^^^^^
        "#]],
    );
}

#[test]
fn case_98_an_unknown_dialect_lists_the_known_at_every_depth() {
    check_trigger(
        r#"filters:
  - regex: { type: "(a+)+$" }
  - any: [ { not: { regex: { type: a } } } ]"#,
        expect![[r#"
            sluice.yaml:5:9: unknown filter dialect `regex`: expected exact, prefix, suffix, all, any, not, sql, cesql, data or cel
                5 |       - regex: { type: "(a+)+$" }
                  |         ^^^^^
            sluice.yaml:6:25: unknown filter dialect `regex`: expected exact, prefix, suffix, all, any, not, sql, cesql, data or cel
                6 |       - any: [ { not: { regex: { type: a } } } ]
                  |                         ^^^^^
        "#]],
    );
}

#[test]
fn case_99_lists_without_a_filter() {
    check_trigger(
        r#"filters:
  - any: []
  - all: []
  - not: { all: [] }
  - not: {}
  - any: [ { any: [] } ]"#,
        expect![[r#"
            sluice.yaml:5:14: `any` needs at least one filter
                5 |       - any: []
                  |              ^
            sluice.yaml:6:14: `all` needs at least one filter
                6 |       - all: []
                  |              ^
            sluice.yaml:7:21: `all` needs at least one filter
                7 |       - not: { all: [] }
                  |                     ^
            sluice.yaml:8:14: an empty filter: expected one of exact, prefix, suffix, all, any, not, sql, cesql, data or cel
                8 |       - not: {}
                  |              ^
            sluice.yaml:9:23: `any` needs at least one filter
                9 |       - any: [ { any: [] } ]
                  |                       ^
        "#]],
    );
}

/// The last level that is allowed, and the first that is not.
#[test]
fn case_99_filters_nest_to_a_bound() {
    let nested = |levels: usize| {
        let filter = format!("{}exact: {{ type: a }}{}", "not: { ".repeat(levels), " }".repeat(levels));
        report(read(&format!("triggers: {{ t: {{ sink: http://localhost/, filters: [ {filter} ] }} }}")))
    };
    assert_eq!(nested(31), "ok\n");
    assert!(nested(32).contains("filters nested more than 32 levels deep"), "{}", nested(32));
}

/// In each style of YAML; a process that recursed on all of them would end with its stack.
#[test]
fn case_99_ten_thousand_levels_are_refused_at_once() {
    let flow = format!("[ {}exact: {{ type: a }}{} ]", "not: { ".repeat(10_000), " }".repeat(10_000));
    let lists = format!("[ {}{} ]", "any: [ ".repeat(10_000), " ]".repeat(10_000));
    let block: String =
        (0..10_000).map(|level| format!("{}not:\n", " ".repeat(level + 5))).collect::<String>();
    let block = format!("\n    - all: []\n    -\n{block}");
    for filters in [flow, lists, block] {
        let began = Instant::now();
        let yaml = format!("triggers:\n  t:\n    sink: http://localhost/\n    filters: {filters}\n");
        let told = report(read(&yaml));
        assert!(told.contains("nested more than 100 levels deep"), "{told:.300}");
        assert!(told.len() < 2_000, "{told:.300}");
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    }
}

#[test]
fn case_100_an_empty_text_would_match_all() {
    check_trigger(
        r#"filters:
  - prefix: { type: "" }
  - suffix: { type: "" }
  - exact: { subject: '' }
  - not: { suffix: { source: '' } }"#,
        expect![[r#"
            sluice.yaml:5:25: `prefix` of `type`: the value is empty
                5 |       - prefix: { type: "" }
                  |                         ^^
            sluice.yaml:6:25: `suffix` of `type`: the value is empty
                6 |       - suffix: { type: "" }
                  |                         ^^
            sluice.yaml:7:27: `exact` of `subject`: the value is empty
                7 |       - exact: { subject: '' }
                  |                           ^^
            sluice.yaml:8:34: `suffix` of `source`: the value is empty
                8 |       - not: { suffix: { source: '' } }
                  |                                  ^^
        "#]],
    );
}

#[test]
fn case_101_expressions_of_cesql_have_a_bound() {
    let refused = |expression: &str| {
        let filters = format!("filters:\n      - sql: \"{expression}\"");
        let told = report(read(&format!("triggers:\n  t:\n    sink: http://localhost/\n    {filters}\n")));
        assert!(told.len() < 1_000, "the error shows too much of it: {told:.300}");
        told.lines().next().unwrap_or_default().to_owned()
    };
    let too_long = "sluice.yaml:5:15: `sql`: the expression is longer than 16 KiB";
    assert_eq!(refused(&format!("type = '{}'", "x".repeat(1 << 20))), too_long);
    assert_eq!(refused(&vec!["EXISTS subject"; 70_000].join(" AND ")), too_long);
    assert_eq!(refused(&format!("type LIKE '{}'", "%".repeat(20_000))), too_long);
    let too_deep = "`sql`: the expression is nested more than 64 levels deep";
    let brackets = format!("{}TRUE{}", "(".repeat(2_000), ")".repeat(2_000));
    assert_eq!(refused(&brackets), format!("sluice.yaml:5:79: {too_deep}"));
    assert_eq!(refused(&format!("{}TRUE", "NOT ".repeat(2_000))), format!("sluice.yaml:5:271: {too_deep}"));
    let sum = format!("{} = 1", vec!["1"; 5_000].join("+"));
    let too_many = "sluice.yaml:5:15: `sql`: the expression has more than 4096 operators and operands";
    assert_eq!(refused(&sum), too_many);
}

#[test]
fn case_102_integers_beyond_32_bits() {
    check_trigger(
        r#"filters:
  - sql: sequence > 2147483648
  - sql: sequence > -2147483649
  - sql: sequence > 2147483647"#,
        expect![[r#"
            sluice.yaml:5:25: `sql`: expected an integer from -2147483648 to 2147483647, found 2147483648
                5 |       - sql: sequence > 2147483648
                  |                         ^
            sluice.yaml:6:25: `sql`: expected an integer from -2147483648 to 2147483647, found -2147483649
                6 |       - sql: sequence > -2147483649
                  |                         ^
        "#]],
    );
}

#[test]
fn case_104_expressions_that_backtrack_elsewhere() {
    check_trigger(
        r#"filters:
  - regex: { type: "(a+)+$" }
  - cel: event.type.matches('(a+)+$(')
  - cel: event.type.matches('((a{1000}){1000}){1000}')
  - cel: event.type.matches('(a)\\1')"#,
        expect![[r#"
            sluice.yaml:5:9: unknown filter dialect `regex`: expected exact, prefix, suffix, all, any, not, sql, cesql, data or cel
                5 |       - regex: { type: "(a+)+$" }
                  |         ^^^^^
            sluice.yaml:6:33: `cel`: not a regular expression: unclosed group
                6 |       - cel: event.type.matches('(a+)+$(')
                  |                                 ^
            sluice.yaml:7:33: `cel`: not a regular expression: Compiled regex exceeds size limit of 262144 bytes.
                7 |       - cel: event.type.matches('((a{1000}){1000}){1000}')
                  |                                 ^
            sluice.yaml:8:33: `cel`: not a regular expression: backreferences are not supported
                8 |       - cel: event.type.matches('(a)\\1')
                  |                                 ^
        "#]],
    );
}
