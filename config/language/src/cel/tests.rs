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
            Err(_) => format!("errs: {}", program.failure(&facts).unwrap().message),
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
            "event.type.startsWith('com') && (has(event.subject) ? event.subject : event.other) == 'x'",
            "event.count > 4",
            "event.data.amount\n  > int(event.type)",
            "'ä' in event.data.items\n  || size(event.data.amount) > 1",
            "event.data.items.exists(item, item.other == 1)",
            "event.data.amount * 9223372036854775807 > 1",
            "!event.type",
            "event.data.tags['x'] == 1 && event.data.tags.size() > int('ü')",
            "event.type < 5 && event.type.contains(5)",
            "event.data.amount % (event.data.amount - 80) == 0",
            "{'a': event.data.items[9]}.a == event.data.none",
            "-event.type == 'a'",
        ],
        expect![[r#"
            event.subject == 'x'  =>  errs: attribute `subject` is absent; guard it with `has(event.subject)`, at column 1 of the expression
            event.data.other.deep == 1  =>  errs: `data.other` is absent; guard it with `has(event.data.other)`, at column 1 of the expression
            event.data.items[0].other == 1  =>  errs: there is no field `other`, at column 17 of the expression
            event.data.amount  =>  errs: the result is of type int, not true or false
            event.data.amount / 0 == 1  =>  errs: division by zero: 80 / 0, at column 19 of the expression
            event.data.tags[7] == 'x'  =>  errs: the list has no element 7, at column 16 of the expression
            event.data.amount + 'a' == 'b'  =>  errs: `+` does not take int and string; make a number of the text with `int(...)` or `double(...)`, at column 19 of the expression
            event.type == 'other' && event.subject == 'x'  =>  false: `event.type == 'other'` is false: `event.type` is "com.example.order"
            event.subject == 'x' || event.type == 'com.example.order'  =>  true
            event.type.startsWith('com') && (has(event.subject) ? event.subject : event.other) == 'x'  =>  errs: attribute `other` is absent; guard it with `has(event.other)`, at column 71 of the expression
            event.count > 4  =>  errs: `>` does not take string and int; make a number of the text with `int(...)` or `double(...)`, at column 13 of the expression
            event.data.amount
              > int(event.type)  =>  errs: `int`: string parse error: invalid digit found in string, at line 2, column 5 of the expression
            'ä' in event.data.items
              || size(event.data.amount) > 1  =>  errs: `size` does not take int, at line 2, column 11 of the expression
            event.data.items.exists(item, item.other == 1)  =>  errs: there is no field `other`, at column 18 of the expression
            event.data.amount * 9223372036854775807 > 1  =>  errs: 80 * 9223372036854775807 is no 64-bit integer, at column 19 of the expression
            !event.type  =>  errs: `!` does not take string, at column 1 of the expression
            event.data.tags['x'] == 1 && event.data.tags.size() > int('ü')  =>  errs: `[...]` does not take list and string, at column 16 of the expression
            event.type < 5 && event.type.contains(5)  =>  errs: `<` does not take string and int; make a number of the text with `int(...)` or `double(...)`, at column 12 of the expression
            event.data.amount % (event.data.amount - 80) == 0  =>  errs: division by zero: 80 % 0, at column 19 of the expression
            {'a': event.data.items[9]}.a == event.data.none  =>  errs: the list has no element 9, at column 23 of the expression
            -event.type == 'a'  =>  errs: `-` does not take string, at column 1 of the expression
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
            "event.data.items.exists(item, item.n > 0) && event.data.amount.foo(1)",
            "event.type == 'a' and event.id == '1'",
            "event.type != 'a' OR true",
            "not event.type",
            "event.type == 'a' &&& true",
            "event.type === 'a'",
            "event.type <> 'a'",
            "event.type == \"a",
            "event.type == 'a\nb'",
            "event.type == 'a')",
            "(event.type == 'a'",
            "event.data.items[0",
            "event.data.items.exists(i, )",
            "event.data.items.exists(i i.n > 0)",
            "event.data.items.map(1, 2)",
            "{'a': 1",
            "event..type == 'a'",
            "event.type == 'a';",
            "event.data.amount > $x",
            "event.data.amount ? 1",
            "if (event.type)",
            "has(event)",
            "event.data.amount > 99999999999999999999",
            "event.data.amount > 1_000",
            "'\\q' == event.type",
            "event.type == \u{2018}a\u{2019}",
            "event.type like 'a%'",
            "event.type ==\n  // a comment\n  && event.id == 'é",
            "event.`x`",
            "event.?type == 'a'",
            "event.data.tags[?0] == 'a'",
            "['a', ?event.subject] == ['a']",
            "{?'a': event.subject} == {}",
            "a.b{c: 1}",
            "a.b{1: 1}",
            "event.type == 'a' ||\n  (event.id == 'b'",
        ],
        expect![[r#"
              =>  at 0: expected a value such as `event.type`, `'text'` or `5`, found the end of the expression
            event.type ==   =>  at 14: expected a value such as `event.type`, `'text'` or `5`, found the end of the expression
            event.type = 'a'  =>  at 11: expected an operator or the end, found `=`; to compare, write `==`
            type == 'a'  =>  at 0: unknown name `type`: did you mean `event.type`?
            event.type == 'a' && foo(1)  =>  at 21: unknown function `foo`
            event.type.matches(event.data.pattern)  =>  at 11: the pattern of `matches` must be a literal
            event.type.matches('(')  =>  at 19: not a regular expression: unclosed group
            a.all(x, x)  =>  at 0: unknown name `a`: did you mean `event.a`?
            event.data.all(a, a.all(b, b.all(c, c.all(d, true))))  =>  at 38: more than 3 macros within one another
            timestamp(event.time) > timestamp('2026-01-01T00:00:00Z')  =>  at 0: unknown function `timestamp`
            event.data.items.exists(item, item.n > 0) && event.data.amount.foo(1)  =>  at 63: unknown function `foo`
            event.type == 'a' and event.id == '1'  =>  at 18: expected an operator or the end, found `and`; write `&&`
            event.type != 'a' OR true  =>  at 18: expected an operator or the end, found `OR`; write `||`
            not event.type  =>  at 4: expected an operator or the end, found `event`; `not` is written `!`
            event.type == 'a' &&& true  =>  at 18: `&&&` is no operator; write `&&`
            event.type === 'a'  =>  at 11: `===` is no operator; to compare, write `==`
            event.type <> 'a'  =>  at 11: `<>` is no operator; write `!=`
            event.type == "a  =>  at 14: a text without its closing `"`
            event.type == 'a
            b'  =>  at 14: a text without its closing `'`
            event.type == 'a')  =>  at 17: expected an operator or the end, found `)`
            (event.type == 'a'  =>  at 18: expected an operator or `)`, found the end of the expression; the `(` at column 1 is open
            event.data.items[0  =>  at 18: expected an operator, `,` or `]`, found the end of the expression; the `[` at column 17 is open
            event.data.items.exists(i, )  =>  at 27: expected a value such as `event.type`, `'text'` or `5`, found `)`
            event.data.items.exists(i i.n > 0)  =>  at 26: expected an operator, `,` or `)`, found `i`
            event.data.items.map(1, 2)  =>  at 21: expected the name of a variable, as in `event.data.items.exists(item, item.count > 1)`
            {'a': 1  =>  at 7: expected an operator, `:`, `,` or `}`, found the end of the expression; the `{` at column 1 is open
            event..type == 'a'  =>  at 6: expected the name of a field, found `.`
            event.type == 'a';  =>  at 17: expected an operator or the end, found `;`
            event.data.amount > $x  =>  at 20: expected a value such as `event.type`, `'text'` or `5`, found `$`
            event.data.amount ? 1  =>  at 21: expected an operator or the `:` that goes with `?`, found the end of the expression; the `?` at column 19 is open
            if (event.type)  =>  at 0: `if` is a word that CEL keeps for itself: expected another name
            has(event)  =>  at 4: `has` asks for a field: expected one such as `has(event.subject)`
            event.data.amount > 99999999999999999999  =>  at 20: expected an integer from -9223372036854775808 to 9223372036854775807
            event.data.amount > 1_000  =>  at 21: expected an operator or the end, found `_000`
            '\q' == event.type  =>  at 1: `\q` is no escape of a text: for a backslash write `\\`, or r'...'
            event.type == ‘a’  =>  at 14: expected a value such as `event.type`, `'text'` or `5`, found `‘`; quotes are ' or "
            event.type like 'a%'  =>  at 11: expected an operator or the end, found `like`; write `.startsWith('...')`, `.contains('...')` or `.matches('...')`
            event.type ==
              // a comment
              && event.id == 'é  =>  at 31: expected a value such as `event.type`, `'text'` or `5`, found `&&`
            event.`x`  =>  at 5: names in backticks are not supported: write `event.data['a-b']`
            event.?type == 'a'  =>  at 5: optional fields are not supported: guard the field with `has(...)`
            event.data.tags[?0] == 'a'  =>  at 15: optional fields are not supported: guard the field with `has(...)`
            ['a', ?event.subject] == ['a']  =>  at 0: optional fields are not supported: guard the field with `has(...)`
            {?'a': event.subject} == {}  =>  at 0: optional fields are not supported: guard the field with `has(...)`
            a.b{c: 1}  =>  at 3: messages cannot be made here
            a.b{1: 1}  =>  at 4: `1` cannot stand here
            event.type == 'a' ||
              (event.id == 'b'  =>  at 39: expected an operator or `)`, found the end of the expression; the `(` at line 2, column 3 is open
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
    let choices = "true ? 1 : ".repeat(300);
    assert_eq!(Program::compile(&format!("{choices}1")).unwrap_err().message, "nested too deeply");
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
    let failure = |text: &str| Program::compile(text).unwrap().failure(&Facts::of(&without));
    assert_eq!(failure("!has(event.data)"), None);
    assert_eq!(
        failure("event.data.a == 1").map(|failure| failure.message).as_deref(),
        Some("the event has no data; guard it with `has(event.data)`, at column 1 of the expression")
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

/// What looks like a bracket, a quote or an operator within a text is none.
#[test]
fn texts_of_every_kind_hide_what_is_in_them_and_nothing_else() {
    for hidden in ["'''a'b'''", "\"\"\"'\"\"\"", "r'\\'", "b'('"] {
        let text = format!("{hidden} == event.type || {}", "(".repeat(2000));
        let error = Program::compile(&text).unwrap_err();
        assert_eq!(error.message, "nested more than 48 levels deep", "{hidden}");
    }
    assert_eq!(
        evaluate("event.type == '''x' && (''' && event.id == '2'", ORDER),
        "false: `event.type == '''x' && ('''` is false: `event.type` is \"com.example.order\""
    );
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
