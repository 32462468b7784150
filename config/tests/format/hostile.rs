//! Input made to exhaust memory, stack or time.

use std::fmt::Write;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use proptest::prelude::{ProptestConfig, any, prop, proptest};

use crate::{check, read, report};

#[expect(clippy::needless_pass_by_value, reason = "`expect!` reads better at the call")]
fn check_quick(yaml: &str, expected: Expect) {
    let began = Instant::now();
    let text = report(read(yaml));
    assert!(began.elapsed() < Duration::from_millis(100) * slowness(), "{:?}", began.elapsed());
    expected.assert_eq(&text);
}

/// Builds without optimisation are slower; the limit is meant for the others.
fn slowness() -> u32 {
    if cfg!(debug_assertions) { 20 } else { 1 }
}

#[test]
fn a_billion_laughs_end_early() {
    let mut yaml = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for n in 1..10 {
        let aliases = vec![format!("*a{}", n - 1); 9].join(", ");
        writeln!(yaml, "a{n}: &a{n} [{aliases}]").unwrap();
    }
    check_quick(
        &yaml,
        expect![[r#"
            sluice.yaml:6:10: anchors and aliases add too much: at most 200000 values and 4 MiB of text in one file
                6 | a5: &a5 [*a4, *a4, *a4, *a4, *a4, *a4, *a4, *a4, *a4]
                  |          ^^^
        "#]],
    );
}

#[test]
fn large_texts_cannot_be_multiplied() {
    let yaml = format!("x-a: &a {}\nx-b: [{}]\n", "a".repeat(200_000), vec!["*a"; 1_000].join(", "));
    check_quick(
        &yaml,
        expect![[r#"
            sluice.yaml:2:83: anchors and aliases add too much: at most 200000 values and 4 MiB of text in one file
                2 | *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a
                  |                                                                         ^^
        "#]],
    );
}

#[test]
fn nested_anchors_cannot_multiply_what_they_hold() {
    let anchors: String = (0..90).map(|n| format!("&a{n} [\n")).collect();
    let yaml = format!("x-a: {anchors}{}{}\n", "x, ".repeat(100_000), "]".repeat(90));
    check_quick(
        &yaml,
        expect![[r#"
        sluice.yaml:89:6: anchors and aliases add too much: at most 200000 values and 4 MiB of text in one file
           89 | &a88 [
              |      ^
    "#]],
    );
}

#[test]
fn a_file_has_a_limit_of_values() {
    check(
        &format!("x-a: [\n{}]\n", "1, 2, 3,\n".repeat(200_000)),
        expect![[r#"
            sluice.yaml:166668:7: more than 500000 values in one file
            166668 | 1, 2, 3,
                   |       ^
        "#]],
    );
}

#[test]
fn many_broken_references_are_quick() {
    let text = report(read(&format!("store: [{}]\n", "'${A}', ".repeat(100_000))));
    assert!(text.ends_with("\nand 99901 more\n"), "{}", &text[text.len() - 200..]);
}

/// The place of a mistake within an expression is looked for in the file.
#[test]
fn mistakes_far_down_in_expressions_are_found_quickly() {
    let mut yaml = "#\n".repeat(300_000);
    let lines = "\n".repeat(15_000);
    write!(yaml, "triggers:\n  t:\n    sink: http://localhost/\n    filters:\n    - sql: |\n        id ={lines}        = 1\n")
        .unwrap();
    check_quick(
        &yaml,
        expect![[r#"
        sluice.yaml:315006:9: `sql`: expected an attribute, a value, a function or `(`, found `=`
        315006 |         = 1
               |         ^
    "#]],
    );
}

#[test]
fn many_remarks_are_quick() {
    let mut yaml = "triggers:\n  t:\n    sink: http://localhost/\n    filters:\n".to_owned();
    for _ in 0..30 {
        writeln!(yaml, "    - sql: {}1", "a()+".repeat(1500)).unwrap();
    }
    let began = Instant::now();
    let text = report(read(&yaml));
    assert_eq!(text.matches("there is no function `A`").count(), 99);
    assert!(began.elapsed() < Duration::from_millis(100) * slowness(), "{:?}", began.elapsed());
}

#[test]
fn deep_lists_are_refused() {
    check_quick(
        &"[".repeat(100_000),
        expect![[r#"
            sluice.yaml:1:101: nested more than 100 levels deep
                1 | [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
                  |                                                                         ^
        "#]],
    );
}

#[test]
fn deep_mappings_are_refused() {
    check_quick(
        &"{a: ".repeat(100_000),
        expect![[r#"
            sluice.yaml:1:401: nested more than 100 levels deep
                1 | {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a
                  |                                                                         ^
        "#]],
    );
}

#[test]
fn depth_through_aliases_is_refused() {
    let mut yaml = String::from(
        "x-0: &a0 [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n",
    );
    for n in 1..5 {
        let (open, close) = ("[".repeat(40), "]".repeat(40));
        writeln!(yaml, "x-{n}: &a{n} {open}*a{}{close}", n - 1).unwrap();
    }
    check_quick(
        &yaml,
        expect![[r#"
        sluice.yaml:3:50: nested more than 100 levels deep through this alias
            3 | x-2: &a2 [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[*a1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]
              |                                                  ^^^
    "#]],
    );
}

#[test]
fn deep_filters_are_refused() {
    let (open, close) = ("{ not: ".repeat(40), " }".repeat(40));
    let yaml = format!(
        "triggers: {{ t: {{ sink: http://localhost/, filters: [ {open}{{ exact: {{ type: a }} }}{close} ] }} }}"
    );
    check_quick(
        &yaml,
        expect![[r#"
        sluice.yaml:1:278: filters nested more than 32 levels deep
            1 | : { not: { not: { not: { not: { not: { not: { not: { not: { not: { not: { not: { not: { not: { not: { not: { n
              |                                                                         ^
    "#]],
    );
}

#[test]
fn filters_may_be_thirty_two_deep() {
    let (open, close) = ("{ any: [ ".repeat(31), " ] }".repeat(31));
    let yaml = format!(
        "triggers: {{ t: {{ sink: http://localhost/, filters: [ {open}{{ exact: {{ type: a }} }}{close} ] }} }}"
    );
    check_quick(
        &yaml,
        expect![[r#"
        ok
    "#]],
    );
}

#[test]
fn a_hundred_errors_are_enough() {
    let mut yaml = String::new();
    for n in 0..50_000 {
        writeln!(yaml, "k{n}: 1").unwrap();
    }
    let text = report(read(&yaml));
    assert!(text.ends_with("\nand 49900 more\n"), "{}", &text[text.len() - 200..]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        let _ = report(read(&text));
    }

    #[test]
    fn any_mixture_of_yaml_is_answered(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40),
    ) {
        let _ = report(read(&pieces.concat()));
    }

    #[test]
    fn any_value_in_any_place_is_answered(value in "\\PC{0,20}", place in 0..PLACES.len()) {
        let _ = report(read(&PLACES[place].replace("VALUE", &value)));
    }
}

const PIECES: &[&str] = &[
    "triggers:",
    "\n",
    "  ",
    "\t",
    "t:",
    " ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    ": ",
    "\"",
    "'",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "!x ",
    "${TOKEN}",
    "${",
    "$${",
    "|",
    ">",
    "#",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "sink",
    "http",
    "é",
    "\u{2028}",
    "\r",
    "\r\n",
    "filters",
    "exact",
    "type",
    "~",
    "? ",
    "http://localhost/",
    "5s",
    "x-a",
    "null",
    "\0",
    "\u{feff}",
];

const PLACES: &[&str] = &[
    "http: { listen: \"VALUE\" }",
    "http: { listen: VALUE }",
    "http: { webhook_origins: [\"VALUE\"] }",
    "limits: { event_bytes: VALUE, hops: VALUE }",
    "store: { dir: VALUE, watermark: { stop: VALUE } }",
    "duplicates: VALUE",
    "triggers: { t: { sink: \"VALUE\" } }",
    "triggers: { t: { sink: \"http://VALUE\" } }",
    "triggers: { t: { sink: { http: { url: http://h, headers: { \"VALUE\": \"VALUE\" } } } } }",
    "triggers: { t: { sink: http://h, start: \"VALUE\", filters: [ { exact: { a: VALUE } } ] } }",
    "triggers: { t: { sink: http://h, delivery: { timeout: PVALUE, rate: \"VALUE/s\", order: \"{data.VALUE}\", retry: VALUE } } }",
    "triggers: { t: { sink: \"${VALUE}\" } }",
];
