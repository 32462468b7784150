//! Dialects that are texts or patterns of their own: compiled at load, mistakes shown within them.

use expect_test::expect;

use crate::{check_trigger, shows};

#[test]
fn a_mistake_is_shown_within_a_plain_scalar() {
    check_trigger(
        r#"filters:
  - cel: event.type == 'a' && foo(event.id)"#,
        expect![[r#"
            sluice.yaml:5:38: `cel`: unknown function `foo`
                5 |       - cel: event.type == 'a' && foo(event.id)
                  |                                      ^
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
            sluice.yaml:5:27: `cel`: the expression ends too early
                5 |       - cel: event.type ==
                  |                           ^
            sluice.yaml:6:28: `cel`: the expression ends too early
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
            sluice.yaml:5:14: `cel`: what `${TOKEN} == 1` stands for is not an expression of this dialect
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
