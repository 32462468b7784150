use expect_test::{Expect, expect};
use sluice_schemas::{DataForm, Event};

use super::*;
use crate::Subject;

fn event(data: &str) -> Event {
    let builder =
        Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/s");
    let builder = builder.attribute("type", "com.example.order").attribute("count", "5");
    builder
        .attribute("datacontenttype", "application/json")
        .data(data.to_owned(), DataForm::Opaque)
        .build()
        .unwrap()
}

const ORDER: &str = r#"{"amount": 80, "price": 100.0, "big": 18446744073709551615, "tags": ["a", "b"], "items": [{"sku": "x", "n": 2}, {"sku": "y", "n": 0}], "none": null}"#;

fn evaluate(text: &str, data: &str) -> String {
    let event = event(data);
    let facts = Facts::of(&event);
    match Program::compile(text) {
        Err(error) => format!("at {}: {error}", error.at),
        Ok(program) => match program.holds(&facts) {
            Ok(true) => "true".into(),
            Ok(false) => format!("false: {}", program.failure(&facts).unwrap().message),
            Err(error) => format!("errs: {error}"),
        },
    }
}

#[expect(clippy::needless_pass_by_value, reason = "`expect!` reads better at the call")]
fn check(expressions: &[&str], expected: Expect) {
    let lines = expressions.iter().map(|text| format!("{text}  =>  {}\n", evaluate(text, ORDER)));
    expected.assert_eq(&lines.collect::<String>());
}

#[test]
fn attributes_and_data() {
    check(
        &[
            "event.type == 'com.example.order'",
            "event.type.startsWith('com.') && event.source.endsWith('s')",
            "event.data.amount > 100",
            "event.data.amount >= 80 && event.data.price == 100 && event.data.price > 99",
            "event.data.big > 1",
            "int(event.count) > 4",
            "event.count == 5",
            "event.data.items.exists(i, i.sku == 'x' && i.n > 1)",
            "event.data.items.all(i, i.n > 0)",
            "event.data.items.filter(i, i.n > 0).map(i, i.sku) == ['x']",
            "event.data.items.exists_one(i, i.n == 0)",
            "size(event.data.tags) == 2 && 'a' in event.data.tags",
            "event.data.tags[1] == 'b' && event.data['amount'] == 80",
            "event.data.none == null",
            "has(event.data.items) && !has(event.data.other) && !has(event.subject)",
            "event['type'] == 'com.example.order'",
            "event.data.amount > 100 ? event.type == 'a' : event.type.contains('order')",
            "event.type.matches('^com\\\\.[a-z]+\\\\.') && matches(event.id, '[0-9]')",
        ],
        expect![[r#"
            event.type == 'com.example.order'  =>  true
            event.type.startsWith('com.') && event.source.endsWith('s')  =>  true
            event.data.amount > 100  =>  false: `event.data.amount > 100` is false: `event.data.amount` is 80
            event.data.amount >= 80 && event.data.price == 100 && event.data.price > 99  =>  true
            event.data.big > 1  =>  true
            int(event.count) > 4  =>  true
            event.count == 5  =>  false: `event.count == 5` is false: `event.count` is "5"
            event.data.items.exists(i, i.sku == 'x' && i.n > 1)  =>  true
            event.data.items.all(i, i.n > 0)  =>  false: `event.data.items.all(i, i.n > 0)` is false: `event.data.items` is [{"n":2,"sku":"x"},{"n":0,"sku":"y"}]
            event.data.items.filter(i, i.n > 0).map(i, i.sku) == ['x']  =>  true
            event.data.items.exists_one(i, i.n == 0)  =>  true
            size(event.data.tags) == 2 && 'a' in event.data.tags  =>  true
            event.data.tags[1] == 'b' && event.data['amount'] == 80  =>  true
            event.data.none == null  =>  true
            has(event.data.items) && !has(event.data.other) && !has(event.subject)  =>  true
            event['type'] == 'com.example.order'  =>  true
            event.data.amount > 100 ? event.type == 'a' : event.type.contains('order')  =>  true
            event.type.matches('^com\\.[a-z]+\\.') && matches(event.id, '[0-9]')  =>  true
        "#]],
    );
}

#[test]
fn what_errs() {
    check(
        &[
            "event.subject == 'x'",
            "event.data.other.deep == 1",
            "event.data.items[0].other == 1",
            "event.data.amount",
            "event.data.amount / 0 == 1",
            "event.data.tags[7] == 'x'",
            "event.data.amount + 'a' == 'b'",
            "event.type == 'other' && event.subject == 'x'",
            "event.subject == 'x' || event.type == 'com.example.order'",
        ],
        expect![[r#"
            event.subject == 'x'  =>  errs: attribute `subject` is absent; guard it with `has(event.subject)`
            event.data.other.deep == 1  =>  errs: `data.other.deep` is absent; guard it with `has(event.data.other.deep)`
            event.data.items[0].other == 1  =>  errs: there is no field `other`
            event.data.amount  =>  errs: the result is of type int, not true or false
            event.data.amount / 0 == 1  =>  errs: Division by zero of Int(80)
            event.data.tags[7] == 'x'  =>  errs: Index out of bounds: Int(7)
            event.data.amount + 'a' == 'b'  =>  errs: Unsupported binary operator 'add': Int(80), String("a")
            event.type == 'other' && event.subject == 'x'  =>  false: `event.type == 'other'` is false: `event.type` is "com.example.order"
            event.subject == 'x' || event.type == 'com.example.order'  =>  true
        "#]],
    );
}

#[test]
fn what_is_refused() {
    check(
        &[
            "",
            "event.type == ",
            "event.type = 'a'",
            "type == 'a'",
            "event.type == 'a' && foo(1)",
            "event.type.matches(event.data.pattern)",
            "event.type.matches('(')",
            "a.all(x, x)",
            "event.data.all(a, a.all(b, b.all(c, c.all(d, true))))",
            "timestamp(event.time) > timestamp('2026-01-01T00:00:00Z')",
        ],
        expect![[r#"
              =>  at 0: the expression ends too early
            event.type ==   =>  at 14: the expression ends too early
            event.type = 'a'  =>  at 11: token recognition error at: '= '; to compare, write `==`
            type == 'a'  =>  at 0: unknown name `type`: did you mean `event.type`?
            event.type == 'a' && foo(1)  =>  at 24: unknown function `foo`
            event.type.matches(event.data.pattern)  =>  at 18: the pattern of `matches` must be a literal
            event.type.matches('(')  =>  at 19: not a regular expression: unclosed group
            a.all(x, x)  =>  at 0: unknown name `a`: did you mean `event.a`?
            event.data.all(a, a.all(b, b.all(c, c.all(d, true))))  =>  at 41: more than 3 macros within one another
            timestamp(event.time) > timestamp('2026-01-01T00:00:00Z')  =>  at 9: unknown function `timestamp`
        "#]],
    );
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow() {
    let deep = [
        "(".repeat(4000),
        "[".repeat(4000),
        "!".repeat(4000),
        "-".repeat(4000),
        format!("{}1{}", "(".repeat(49), ")".repeat(49)),
        format!("event.id == 'a'{}", " || event.id == 'a'".repeat(400)),
        format!("event.id{}", " + event.id".repeat(700)),
        format!("event{}", ".a".repeat(4000)),
        format!("event.id == 'x' {}", "? true : event.id == 'x' ".repeat(300)),
        format!("event.data{}", "[0]".repeat(2000)),
        "x".repeat(9000),
        format!("event{}", ".a".repeat(2000)),
        format!("event.data{}", "[0]".repeat(1200)),
        format!("event.id{}", " + event.id".repeat(350)),
        format!("event.id == 'a'{}", " || event.id == 'a'".repeat(200)),
        format!("event.id == 'x' {}", "? true : event.id == 'x' ".repeat(150)),
    ];
    for text in deep {
        let result = Program::compile(&text);
        if let Ok(program) = &result {
            let event = event(ORDER);
            let _ = program.holds(&Facts::of(&event));
        }
    }
    assert!(Program::compile(&"(".repeat(49)).is_err());
}

#[test]
fn loops_pay_before_they_run() {
    let many = format!("[{}]", vec!["1"; 20_000].join(","));
    let doubling = format!("[event.id]{} == []", ".map(x, x + x)".repeat(40));
    let cases = [
        ("event.data.all(a, event.data.all(b, a == b))".to_owned(), &many),
        ("size(event.data.map(a, event.data)) > 0".to_owned(), &many),
        (doubling, &many),
        (
            "event.data.exists(a, event.data.exists(b, event.data.exists(c, a + b + c == 0)))".to_owned(),
            &many,
        ),
    ];
    for (text, data) in cases {
        assert_eq!(evaluate(&text, data), "errs: the evaluation costs too much for this event", "{text}");
    }
    assert_eq!(evaluate("event.data.all(a, a == 1)", &many), "true");
}

#[test]
fn data_that_is_no_json_errs_where_it_is_looked_at() {
    assert_eq!(
        evaluate("has(event.data.a)", "no json"),
        "errs: the data is not JSON: expected ident at line 1 column 2"
    );
    assert_eq!(evaluate("event.type != 'a'", "no json"), "true");
    let builder =
        Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/s");
    let without = builder.attribute("type", "a").build().unwrap();
    let holds = |text: &str| Program::compile(text).unwrap().holds(&Facts::of(&without));
    assert_eq!(holds("!has(event.data)"), Ok(true));
    assert_eq!(
        holds("event.data.a == 1"),
        Err(Errs("`data.a` is absent; guard it with `has(event.data.a)`".into()))
    );
}

#[test]
fn terms_follow_from_the_outermost_operators() {
    let terms = |text: &str| {
        let terms = Program::compile(text).unwrap().terms()?;
        let shown = terms.into_iter().map(|term| {
            let relation = if term.is_prefix { "^" } else { "=" };
            let Subject::Attribute(attribute) = term.subject else { panic!("not of the data") };
            format!("{attribute}{relation}{}", term.text)
        });
        Some(shown.collect::<Vec<_>>().join(" "))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(terms("event.type == 'a' && event.data.n > 1"), some("type=a"));
    assert_eq!(terms("event.data.n > 1 && 'a' == event.type"), some("type=a"));
    assert_eq!(terms("event.type.startsWith('a') && event.source == '/s'"), some("source=/s"));
    assert_eq!(terms("event.type in ['a', 'b']"), some("type=a type=b"));
    assert_eq!(terms("event.type == 'a' || event.type == 'b' && event.id == '1'"), some("type=a type=b"));
    assert_eq!(terms("event.type == 'a' || event.data.n > 1"), None);
    assert_eq!(terms("!(event.type == 'a')"), None);
    assert_eq!(terms("event.type.startsWith('')"), None);
    assert_eq!(terms("event.data == 'a'"), None);
}

proptest::proptest! {
    /// Texts of the right words in any order, and what they come to. A panic of the crate would be an error of these two names.
    #[test]
    fn no_text_makes_the_crate_panic(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..14)) {
        let text = words.join(" ");
        let event = event(ORDER);
        match Program::compile(&text) {
            Err(error) => proptest::prop_assert!(!error.message.contains("the parser failed"), "{text}"),
            Ok(program) => {
                let facts = Facts::of(&event);
                let result = program.holds(&facts);
                proptest::prop_assert!(result != Err(Errs("the evaluation failed".into())), "{text}");
                proptest::prop_assert_eq!(program.failure(&facts).is_none(), result == Ok(true), "{}", text);
            }
        }
    }
}

const WORDS: &[&str] = &[
    "event.type",
    "event.subject",
    "event.data",
    "event.data.amount",
    "event.data.items",
    "event.data.tags",
    "event",
    "has(event.data.none)",
    "has(",
    "size(",
    ".all(i, i.n > 0)",
    ".exists(i,",
    ".map(i,",
    ".filter(i, true)",
    "i",
    "i.sku",
    ".contains('a')",
    ".matches('a+')",
    "==",
    "!=",
    "<",
    ">=",
    "&&",
    "||",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    "in",
    "?",
    ":",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    "1",
    "0",
    "-9223372036854775808",
    "18446744073709551615u",
    "1.5",
    "1e400",
    "'a'",
    "\"",
    "b'\\xff'",
    "r'\\'",
    "'\\u00e9'",
    "'\\",
    "true",
    "null",
    "[]",
    "{'a': 1}",
    "int(",
    "string(",
    "double(",
    "uint(",
    "bytes(",
    "type(",
    "dyn(",
    "//",
    "\n",
    "é",
    "\u{1f600}",
    "`a`",
    "?.a",
    "[?0]",
    "a.b{c: 1}",
];
