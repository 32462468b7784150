//! `transform` of a trigger, and the templates in it.

use expect_test::expect;

use crate::{check, check_trigger, shows};

#[test]
fn both_kinds_are_read_and_shown_as_they_were_written() {
    let yaml =
        |transform: &str| format!("triggers: {{ t: {{ sink: http://localhost/, transform: {transform} }} }}");
    shows(
        &yaml(r#"{ jq: '.type = "a" | del(.data.secret)' }"#),
        "/triggers/t/transform",
        expect![[r#"{"jq":".type = \"a\" | del(.data.secret)"}"#]],
    );
    shows(
        &yaml(
            r#"{ set: { type: "b.{data.kind|other}", subject: null, count: 3, flag: true }, data: { n: "{data.n}", at: ["{event.time|}", 1.5, "7", null] } }"#,
        ),
        "/triggers/t/transform",
        expect![[
            r#"{"data":{"at":["{event.time|}",1.5,"7",null],"n":"{data.n}"},"set":{"count":3,"flag":true,"subject":null,"type":"b.{data.kind|other}"}}"#
        ]],
    );
    shows(
        &yaml(r#"{ data: "{data.inner}" }"#),
        "/triggers/t/transform",
        expect![[r#"{"data":"{data.inner}","set":{}}"#]],
    );
    shows("triggers: { t: { sink: http://localhost/ } }", "/triggers/t/transform", expect!["nothing"]);
}

#[test]
fn a_jq_error_points_into_the_program() {
    check_trigger(
        "transform: { jq: '.data | frobnicate' }",
        expect![[r#"
        sluice.yaml:4:31: `jq`: there is no filter `frobnicate`
            4 |     transform: { jq: '.data | frobnicate' }
              |                               ^^^^^^^^^^
    "#]],
    );
    check_trigger(
        "transform:\n  jq: |\n    .data\n    | {",
        expect![[r#"
            sluice.yaml:6:9: `jq`, line 3: expected closing brace, found the end of the program
                6 |         .data
                  |         ^^^^^
        "#]],
    );
    check_trigger(
        "transform: { jq: }",
        expect![[r#"
        sluice.yaml:4:18: `jq` has no value: expected text
            4 |     transform: { jq: }
              |                  ^^
    "#]],
    );
}

#[test]
fn a_template_error_points_into_the_text() {
    check_trigger(
        r#"transform: { set: { type: "a.{body.kind}" } }"#,
        expect![[r#"
        sluice.yaml:4:35: `type`: there is no `body` here: expected `event` or `data`
            4 |     transform: { set: { type: "a.{body.kind}" } }
              |                                   ^^^^^^^^^^
    "#]],
    );
    check_trigger(
        r#"transform: { set: { subject: 'é {data.x' } }"#,
        expect![[r#"
        sluice.yaml:4:37: `subject`: `{` without `}`: expected a path such as `{body.name}`; for a brace write `{{`
            4 |     transform: { set: { subject: 'é {data.x' } }
              |                                     ^^^^^^^
    "#]],
    );
    check_trigger(
        r#"transform: { data: { list: [ "{data.a}", "{data.b[x]}" ] } }"#,
        expect![[r#"
        sluice.yaml:4:55: `list`: expected a place such as [0], or a name in double quotes, and `]`
            4 |     transform: { data: { list: [ "{data.a}", "{data.b[x]}" ] } }
              |                                                       ^^^
    "#]],
    );
    check_trigger(
        r#"transform: { set: { subject: "${TOKEN} {data" } }"#,
        expect![[r#"
        sluice.yaml:4:34: `subject`: what `${TOKEN} {data` stands for is no template
            4 |     transform: { set: { subject: "${TOKEN} {data" } }
              |                                  ^^^^^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn braces_of_other_templates_and_of_yaml_are_recognised() {
    check_trigger(
        r#"transform: { set: { type: "a.{{data.kind}}" } }"#,
        expect![[r#"
        sluice.yaml:4:31: warning: `type`: `{{` stands for a brace: a path is written in single braces
            4 |     transform: { set: { type: "a.{{data.kind}}" } }
              |                               ^^^^^^^^^^^^^^^^^
    "#]],
    );
    check_trigger(
        r#"transform: { set: { subject: {data.x} } }"#,
        expect![[r#"
        sluice.yaml:4:34: `subject`: put text that begins with `{` in quotes: "{data.x}"
            4 |     transform: { set: { subject: {data.x} } }
              |                                  ^
    "#]],
    );
    check_trigger(
        r#"transform: { data: {data.x} }"#,
        expect![[r#"
        sluice.yaml:4:24: `data`: put text that begins with `{` in quotes: "{data.x}"
            4 |     transform: { data: {data.x} }
              |                        ^
    "#]],
    );
}

#[test]
fn what_makes_no_transform_is_refused() {
    check_trigger(
        "transform: {}",
        expect![[r#"
        sluice.yaml:4:16: `transform` says nothing: expected `jq`, or `set` and `data`
            4 |     transform: {}
              |                ^
    "#]],
    );
    check_trigger(
        "transform:",
        expect![[r#"
        sluice.yaml:4:5: `transform` says nothing: expected `jq`, or `set` and `data`
            4 |     transform:
              |     ^^^^^^^^^
    "#]],
    );
    check_trigger(
        "transform: .type",
        expect![[r#"
        sluice.yaml:4:16: `transform`: expected { jq: ... } or { set: ..., data: ... }, found `.type`
            4 |     transform: .type
              |                ^^^^^
    "#]],
    );
    check_trigger(
        "transform: []",
        expect![[r#"
        sluice.yaml:4:16: `transform`: expected a mapping such as { jq: ... }, found a list
            4 |     transform: []
              |                ^
    "#]],
    );
    check_trigger(
        "transform: { jq: ., set: { type: a } }",
        expect![[r#"
        sluice.yaml:4:25: `jq` makes the whole event: `set` cannot stand beside it
            4 |     transform: { jq: ., set: { type: a } }
              |                         ^^^
    "#]],
    );
    check_trigger(
        "transform: { sett: { type: a } }",
        expect![[r#"
        sluice.yaml:4:16: `transform` says nothing: expected `jq`, or `set` and `data`
            4 |     transform: { sett: { type: a } }
              |                ^
        sluice.yaml:4:18: unknown key `sett` in `transform`: did you mean `set`?
            4 |     transform: { sett: { type: a } }
              |                  ^^^^
    "#]],
    );
    check_trigger(
        "transform: { set: [type] }",
        expect![[r#"
        sluice.yaml:4:23: `set`: expected fields such as { type: ... }, found a list
            4 |     transform: { set: [type] }
              |                       ^
    "#]],
    );
    check_trigger(
        "transform: { set: { Type: a, id: null, specversion: '1.0', subject: [a] } }",
        expect![[r#"
            sluice.yaml:4:25: `Type` of `set`: not the name of an attribute, which is 1 to 64 of a-z and 0-9
                4 |     transform: { set: { Type: a, id: null, specversion: '1.0', subject: [a] } }
                  |                         ^^^^
            sluice.yaml:4:34: `id` of `set`: cannot be left out
                4 |     transform: { set: { Type: a, id: null, specversion: '1.0', subject: [a] } }
                  |                                  ^^
            sluice.yaml:4:44: `specversion` of `set`: is always 1.0
                4 |     transform: { set: { Type: a, id: null, specversion: '1.0', subject: [a] } }
                  |                                            ^^^^^^^^^^^
            sluice.yaml:4:64: `subject` of `set`: an attribute is text, a whole number or a boolean
                4 |     transform: { set: { Type: a, id: null, specversion: '1.0', subject: [a] } }
                  |                                                                ^^^^^^^
        "#]],
    );
    check_trigger(
        "transform: { set: { data: a } }",
        expect![[r#"
        sluice.yaml:4:18: `data` is no attribute: `data` stands beside `set`
            4 |     transform: { set: { data: a } }
              |                  ^^^
    "#]],
    );
    check_trigger(
        "transform: { data: { mode: 0o644, n: 1e3 } }",
        expect![[r#"
        sluice.yaml:4:32: `mode`: `0o644` is a number to YAML and not to JSON: put it in quotes
            4 |     transform: { data: { mode: 0o644, n: 1e3 } }
              |                                ^^^^^
    "#]],
    );
    check(
        "defaults: { transform: { jq: . } }",
        expect![[r#"
        sluice.yaml:1:13: unknown key `transform` in `defaults`: known keys are delivery, dead_letter, headers
            1 | defaults: { transform: { jq: . } }
              |             ^^^^^^^^^
    "#]],
    );
}
