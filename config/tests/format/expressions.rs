//! Dialects that are texts or patterns of their own: compiled at load, mistakes shown within them.

use expect_test::expect;

use crate::{check_trigger, shows};

#[test]
fn a_mistake_is_shown_within_a_plain_scalar() {
    check_trigger(
        r#"filters:
  - cel: event.type == 'a' && foo(event.id)"#,
        expect![[r#"
            sluice.yaml:5:35: `cel`: unknown function `foo`
                5 |       - cel: event.type == 'a' && foo(event.id)
                  |                                   ^
        "#]],
    );
}

#[test]
fn a_mistake_is_shown_within_quotes() {
    check_trigger(
        r#"filters:
  - cel: 'event.type == ''it'' && tip == "a"'
  - cel: "event.type == \"it\" && tip == 'a'""#,
        expect![[r#"
            sluice.yaml:5:39: `cel`: unknown name `tip`: did you mean `event.tip`?
                5 |       - cel: 'event.type == ''it'' && tip == "a"'
                  |                                       ^
            sluice.yaml:6:39: `cel`: unknown name `tip`: did you mean `event.tip`?
                6 |       - cel: "event.type == \"it\" && tip == 'a'"
                  |                                       ^
        "#]],
    );
}

#[test]
fn a_mistake_is_shown_on_the_line_of_a_block_where_it_is() {
    check_trigger(
        r#"filters:
  - cel: |

      event.type == 'a' &&
        event.data.n > 1 && tip == 'b'
  - cel: >-
      event.type == 'a'
      && tip == 'b'
  - any:
      - cel: event.type == 'a'
          && tip == 'b'"#,
        expect![[r#"
            sluice.yaml:8:33: `cel`: unknown name `tip`: did you mean `event.tip`?
                8 |             event.data.n > 1 && tip == 'b'
                  |                                 ^
            sluice.yaml:11:14: `cel`: unknown name `tip`: did you mean `event.tip`?
               11 |           && tip == 'b'
                  |              ^
            sluice.yaml:14:18: `cel`: unknown name `tip`: did you mean `event.tip`?
               14 |               && tip == 'b'
                  |                  ^
        "#]],
    );
}

#[test]
fn an_expression_that_ends_too_early_is_shown_at_its_end() {
    check_trigger(
        r#"filters:
  - cel: event.type ==
  - cel: "event.type == ""#,
        expect![[r#"
            sluice.yaml:5:27: `cel`: expected a value such as `event.type`, `'text'` or `5`, found the end of the expression
                5 |       - cel: event.type ==
                  |                           ^
            sluice.yaml:6:28: `cel`: expected a value such as `event.type`, `'text'` or `5`, found the end of the expression
                6 |       - cel: "event.type == "
                  |                            ^
        "#]],
    );
}

#[test]
fn an_expression_is_a_text() {
    check_trigger(
        r#"filters:
  - cel:
  - cel: ""
  - cel: [ a ]
  - sql: { a: b }
  - data: amount
  - not: { cel: [ ] }"#,
        expect![[r#"
            sluice.yaml:5:9: `cel` has no expression: write one such as `event.type == 'a'`
                5 |       - cel:
                  |         ^^^
            sluice.yaml:6:14: `cel` has no expression: write one such as `event.type == 'a'`
                6 |       - cel: ""
                  |              ^^
            sluice.yaml:7:14: `cel`: expected an expression such as `event.type == 'a'`, found a list
                7 |       - cel: [ a ]
                  |              ^
            sluice.yaml:8:14: `sql`: expected an expression such as `EXISTS subject`, found a mapping
                8 |       - sql: { a: b }
                  |              ^
            sluice.yaml:9:15: `data`: expected a pattern such as { amount: [100] }, found `amount`
                9 |       - data: amount
                  |               ^^^^^^
            sluice.yaml:10:21: `cel`: expected an expression such as `event.type == 'a'`, found a list
               10 |       - not: { cel: [ ] }
                  |                     ^
        "#]],
    );
}

#[test]
fn an_expression_from_outside_is_not_shown() {
    check_trigger(
        r#"filters:
  - cel: "${TOKEN} == 1""#,
        expect![[r#"
            sluice.yaml:5:14: `cel`: what `${TOKEN} == 1` stands for is not an expression of this dialect: wrong at column 1 of it
                5 |       - cel: "${TOKEN} == 1"
                  |              ^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn a_long_expression_is_refused() {
    let expression = format!("filters:\n  - cel: event.id != '{}'", "x".repeat(5000));
    check_trigger(
        &expression,
        expect![[r#"
        sluice.yaml:5:14: `cel`: longer than 4 KiB
            5 |       - cel: event.id != 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
              |              ^
    "#]],
    );
}

#[test]
fn cel_stands_wherever_a_filter_may() {
    shows(
        r#"triggers:
  t:
    sink: http://localhost/
    filters:
      - cel: event.type == 'a'
      - any: [ { not: { cel: "event.data.n > 1" } }, { all: [ { cel: "true" } ] } ]"#,
        "/triggers/t/filters",
        expect![[
            r#"[{"cel":"event.type == 'a'"},{"any":[{"not":{"cel":"event.data.n > 1"}},{"all":[{"cel":"true"}]}]}]"#
        ]],
    );
}

#[test]
fn values_of_a_pattern_keep_their_types() {
    shows(
        r#"x-limit: &limit 1e3
triggers:
  t:
    sink: http://localhost/
    filters:
      - data:
          number: [ 5, 1.50, *limit, 0x10, { numeric: [ ">", -0.5 ] } ]
          text: [ "5", yes, 2026-01-01, !!str 7 ]
          other: [ true, null, ~ ]"#,
        "/triggers/t/filters",
        expect![[
            r#"[{"data":{"number":[5,1.5,1000.0,16,{"numeric":[">",-0.5]}],"other":[true,null,null],"text":["5","yes","2026-01-01","7"]}}]"#
        ]],
    );
}

#[test]
fn a_wrong_pattern_is_shown_where_it_is_wrong() {
    check_trigger(
        r#"filters:
  - data:
      amount: [ { numeric: [ ">", ten ] } ]
  - data: { a: [ { prefix: "x" }, { regex: y } ] }
  - data: { a: { b: 5 } }
  - data: {}
  - data: { a: [ .inf ] }
  - any: [ { data: { $or: [ { a: [ 1 ] } ] } } ]"#,
        expect![[r#"
            sluice.yaml:6:39: `data`: expected a number, not a text
                6 |           amount: [ { numeric: [ ">", ten ] } ]
                  |                                       ^^^
            sluice.yaml:7:41: `data`: there is no operator `regex`: known are `prefix`, `suffix`, `equals-ignore-case`, `wildcard`, `anything-but`, `numeric`, `exists`, `cidr`
                7 |       - data: { a: [ { prefix: "x" }, { regex: y } ] }
                  |                                         ^^^^^
            sluice.yaml:8:22: `data`: `b` takes a list of values, such as `[5]`, or an object of fields, not a number
                8 |       - data: { a: { b: 5 } }
                  |                      ^
            sluice.yaml:9:9: `data`: an empty object matches nothing: name a field
                9 |       - data: {}
                  |         ^^^^
            sluice.yaml:10:22: `.inf` is no number of JSON: put it in quotes if it is text
               10 |       - data: { a: [ .inf ] }
                  |                      ^^^^
            sluice.yaml:11:26: `data`: `$or` takes a list of two or more objects; here are 1
               11 |       - any: [ { data: { $or: [ { a: [ 1 ] } ] } } ]
                  |                          ^^^
        "#]],
    );
}

#[test]
fn keys_of_an_envelope_are_warned_of() {
    check_trigger(
        r#"filters:
  - data: { detail: { amount: [ 1 ] }, source: [ a ], detail-type: [ b ], inner: { detail: [ c ] } }"#,
        expect![[r#"
            sluice.yaml:5:17: warning: `data` looks into the event's data only: `detail` is a field of the data here, not EventBridge's `detail`
                5 |       - data: { detail: { amount: [ 1 ] }, source: [ a ], detail-type: [ b ], inner: { detail: [ c ] } }
                  |                 ^^^^^^
            sluice.yaml:5:44: warning: `data` looks into the event's data only: `source` is a field of the data here, not EventBridge's `source`
                5 |       - data: { detail: { amount: [ 1 ] }, source: [ a ], detail-type: [ b ], inner: { detail: [ c ] } }
                  |                                            ^^^^^^
            sluice.yaml:5:59: warning: `data` looks into the event's data only: `detail-type` is a field of the data here, not EventBridge's `detail-type`
                5 |       - data: { detail: { amount: [ 1 ] }, source: [ a ], detail-type: [ b ], inner: { detail: [ c ] } }
                  |                                                           ^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn a_trigger_that_moves_within_its_file_is_the_same_and_knows_its_place() {
    let read = |before: &str| {
        let filters = "filters: [ any: [ exact: { type: a }, data: { b: { c: [1] } } ], cel: 'true' ]";
        let yaml = format!("{before}triggers:\n  t:\n    sink: http://localhost/\n    {filters}\n");
        crate::read(&yaml).unwrap_or_else(|errors| panic!("{errors}"))
    };
    let (first, moved) = (read(""), read("# a line\n"));
    assert_eq!(first.config, moved.config);
    assert_eq!(first.hash, moved.hash);
    let places = &moved.config.triggers["t"].places;
    let place = |path: &str| places.find(path).map(ToString::to_string);
    assert_eq!(place("filters[0].any[0].exact.type").as_deref(), Some("sluice.yaml:5:32"));
    assert_eq!(place("filters[0].any[1].data.b.c").as_deref(), Some("sluice.yaml:5:56"));
    assert_eq!(place("filters[0].any[1].data.b.c.d"), place("filters[0].any[1].data.b.c"));
    assert_eq!(place("filters[1].cel").as_deref(), Some("sluice.yaml:5:70"));
    assert_eq!(place("start"), None);
}

#[test]
fn mistakes_and_remarks_of_cesql_are_shown_where_they_are() {
    check_trigger(
        r#"filters:
  - sql: type = 'a' AND subject = 'b' OR source = 'c'
  - cesql: "LENGTH(subject)"
  - sql: "type = 'a' AND"
  - cesql: type == 'a'
  - sql: 2147483648 = sequence
  - sql: x LIKE 123"#,
        expect![[r#"
            sluice.yaml:7:29: `sql`: expected an attribute, a value, a function or `(`, found the end of the expression
                7 |       - sql: "type = 'a' AND"
                  |                             ^
            sluice.yaml:8:22: `cesql`: expected an attribute, a value, a function or `(`, found `=`; `=` alone compares
                8 |       - cesql: type == 'a'
                  |                      ^
            sluice.yaml:9:14: `sql`: expected an integer from -2147483648 to 2147483647, found 2147483648
                9 |       - sql: 2147483648 = sequence
                  |              ^
            sluice.yaml:10:21: `sql`: expected a pattern in quotes: LIKE takes no other expression, found `123`
               10 |       - sql: x LIKE 123
                  |                     ^
        "#]],
    );
}

#[test]
fn remarks_on_cesql_are_warnings_where_they_are() {
    check_trigger(
        r#"filters:
  - sql: type = 'a' AND subject = 'b' OR source = 'c'
  - cesql: "EXISTS subject AND (type = 'a' XOR source = 'b' AND id = 'c')"
  - any:
      - sql: >-
          type = 'a' OR
          source = 'b' XOR id = 'c'
      - sql: (type = 'a' AND subject = 'b') OR source = 'c'
  - sql: "LENGTH(subject)"
  - sql: NOPE(subject) = 1"#,
        expect![[r#"
            sluice.yaml:5:43: warning: `sql`: AND and OR bind alike in CESQL and go from left to right, unlike in SQL: write brackets
                5 |       - sql: type = 'a' AND subject = 'b' OR source = 'c'
                  |                                           ^
            sluice.yaml:6:65: warning: `cesql`: XOR and AND bind alike in CESQL and go from left to right, unlike in SQL: write brackets
                6 |       - cesql: "EXISTS subject AND (type = 'a' XOR source = 'b' AND id = 'c')"
                  |                                                                 ^
            sluice.yaml:10:28: warning: `sql`: OR and XOR bind alike in CESQL and go from left to right, unlike in SQL: write brackets
               10 |               source = 'b' XOR id = 'c'
                  |                            ^
            sluice.yaml:12:15: warning: `sql`: the result is always of type Integer; a filter passes only on true
               12 |       - sql: "LENGTH(subject)"
                  |               ^
            sluice.yaml:13:14: warning: `sql`: there is no function `NOPE`, so that the expression errs wherever this is evaluated
               13 |       - sql: NOPE(subject) = 1
                  |              ^
        "#]],
    );
}
