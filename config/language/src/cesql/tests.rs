mod properties;

use sluice_schemas::{Event, Kind, Value as Attribute};

use super::like::Pattern;
use super::tree::{Form, Node};
use super::value::Value;
use super::{DEPTH_MAX, Expression, NODES_MAX, TEXT_BYTES_MAX};
use crate::{Errs, Facts, Subject};

fn event() -> Event {
    let typed = |text: &str, kind| Attribute { text: text.into(), kind };
    Event::builder()
        .attribute("specversion", "1.0")
        .attribute("id", "1")
        .attribute("source", "/shop")
        .attribute("type", "com.example.order")
        .attribute("sequence", "7")
        .attribute("word", "abc")
        .attribute("truth", "TRUE")
        .value("number", typed("5", Kind::Integer))
        .value("flag", typed("true", Kind::Boolean))
        .build()
        .expect("valid")
}

fn compile(text: &str) -> Expression {
    Expression::compile(text).unwrap_or_else(|error| panic!("{text}: {} at {}", error.message, error.at))
}

fn evaluate(text: &str) -> String {
    let (expression, event) = (compile(text), event());
    let evaluation = expression.evaluate(&Facts::of(&event));
    let value = match &evaluation.value {
        Value::String(text) => format!("'{text}'"),
        other => other.to_string(),
    };
    match &evaluation.error {
        None => value,
        Some(error) => format!("{value} {}@{}", error.kind.name(), error.at),
    }
}

fn refused(text: &str) -> String {
    match Expression::compile(text) {
        Ok(_) => "compiles".into(),
        Err(error) => format!("{}: {}", error.at, error.message),
    }
}

/// The tree with brackets around every operation, so that it shows what binds to what.
fn bracketed(node: &Node) -> String {
    let list = |nodes: &[Node]| nodes.iter().map(bracketed).collect::<Vec<_>>().join(", ");
    let not = |is_negated: bool| if is_negated { "NOT " } else { "" };
    match &node.form {
        Form::Literal(Value::String(text)) => format!("'{}'", text.replace('\'', "\\'")),
        Form::Literal(value) => value.to_string(),
        Form::Attribute(name) => name.to_string(),
        Form::Exists(name) => format!("(EXISTS {name})"),
        Form::Not(operand) => format!("(NOT {})", bracketed(operand)),
        Form::Negate(operand) => format!("(- {})", bracketed(operand)),
        Form::Like { operand, is_negated, .. } => {
            format!("({} {}LIKE '…')", bracketed(operand), not(*is_negated))
        }
        Form::In { operand, set, is_negated } => {
            format!("({} {}IN ({}))", bracketed(operand), not(*is_negated), list(set))
        }
        Form::Chain { first, rest } => rest.iter().fold(bracketed(first), |left, (operator, right)| {
            format!("({left} {} {})", operator.name(), bracketed(right))
        }),
        Form::Call { name, arguments, .. } => format!("{name}({})", list(arguments)),
    }
}

#[test]
fn operators_bind_as_the_specification_says() {
    let cases = [
        ("NOT a = b", "((NOT a) = b)"),
        ("NOT a LIKE 'x'", "((NOT a) LIKE '…')"),
        ("-a * b", "((- a) * b)"),
        ("NOT EXISTS a", "(NOT (EXISTS a))"),
        ("EXISTS a = TRUE", "((EXISTS a) = true)"),
        ("a + b LIKE 'x'", "(a + (b LIKE '…'))"),
        ("a * b IN (c, d)", "(a * (b IN (c, d)))"),
        ("a IN (b) NOT LIKE 'x'", "((a IN (b)) NOT LIKE '…')"),
        ("a - b - c + d * e / f", "(((a - b) - c) + ((d * e) / f))"),
        ("a = b = c < d + 1", "(((a = b) = c) < (d + 1))"),
        ("a OR b AND c XOR d", "(((a OR b) AND c) XOR d)"),
        ("a OR (b AND c) OR d", "((a OR (b AND c)) OR d)"),
        ("(a AND b) AND c", "((a AND b) AND c)"),
        ("a = 1 AND NOT b OR c", "(((a = 1) AND (NOT b)) OR c)"),
        ("a NOT IN (1) = b", "((a NOT IN (1)) = b)"),
        ("- - 5", "(- (- 5))"),
        ("--10", "(- -10)"),
        ("5-1", "(5 - 1)"),
        ("5 -1", "(5 - 1)"),
        ("5 - -1", "(5 - -1)"),
        ("a-1", "(a - 1)"),
        ("(5)-1", "(5 - 1)"),
        ("+5 + +5", "(5 + 5)"),
        ("10a", "10a"),
        ("-10a", "(- 10a)"),
        ("concat ( a , 'b' )", "CONCAT(a, 'b')"),
        ("SOURCE", "source"),
        ("a<>b", "(a != b)"),
    ];
    for (text, expected) in cases {
        assert_eq!(bracketed(&compile(text).tree), expected, "{text}");
    }
}

#[test]
fn mistakes_are_shown_at_their_place() {
    let operand = "an attribute, a value, a function or `(`";
    let cases = [
        ("", format!("0: expected {operand}, found the end of the expression")),
        ("ABC(", format!("4: expected {operand}, found the end of the expression")),
        ("a AND", format!("5: expected {operand}, found the end of the expression")),
        ("a b", "2: expected an operator or the end, found `b`".into()),
        ("a == b", format!("3: expected {operand}, found `=`; `=` alone compares")),
        ("a && b", "2: expected an operator or the end, found `&`; write AND".into()),
        ("!a", format!("0: expected {operand}, found `!`; write NOT")),
        (
            "data.x = 1",
            "4: expected an operator or the end, found `.`; CESQL sees attributes only, not data".into(),
        ),
        ("(a", "2: expected an operator or `)`, found the end of the expression".into()),
        ("a)", "1: expected nothing more, as no `(` is open, found `)`".into()),
        ("a LIKE 123", "7: expected a pattern in quotes: LIKE takes no other expression, found `123`".into()),
        ("a IN ()", "6: expected an element: the set of IN cannot be empty, found `)`".into()),
        ("a IN b", "5: expected `(` and the set of IN, found `b`".into()),
        ("a NOT b", "2: expected an operator or the end, found `NOT`".into()),
        ("EXISTS 'a'", "7: expected the name of an attribute after EXISTS, found `'a'`".into()),
        ("EXISTS (a)", "7: expected the name of an attribute after EXISTS, found `(`".into()),
        ("EXISTS in", "7: expected the name of an attribute after EXISTS, found `in`".into()),
        ("'é' = 'open", "7: a text without its closing '".into()),
        ("2147483648", "0: expected an integer from -2147483648 to 2147483647, found 2147483648".into()),
        ("- 2147483648", "2: expected an integer from -2147483648 to 2147483647, found 2147483648".into()),
        ("5-2147483648", "2: expected an integer from -2147483648 to 2147483647, found 2147483648".into()),
        ("+ 5", format!("0: expected {operand}, found `+`")),
        ("f2(a)", "0: expected the name of a function, of letters and `_`, found `f2`".into()),
        (
            "my_attribute",
            "0: expected the name of an attribute, of letters and digits, found `my_attribute`".into(),
        ),
        ("f(a,)", format!("4: expected {operand}, found `)`")),
        ("f(a b)", "4: expected an operator, `,` or `)`, found `b`".into()),
        ("a = \u{2019}b\u{2019}", format!("4: expected {operand}, found `\u{2019}`; quotes are ' or \"")),
        ("a\u{a0}= 1", "1: expected an operator or the end, found `\u{a0}`".into()),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(text), expected, "{text}");
    }
}

#[test]
fn length_depth_and_nodes_are_bounded() {
    let long = format!("'{}'", "x".repeat(TEXT_BYTES_MAX));
    assert_eq!(refused(&long), "0: the expression is longer than 16 KiB");
    let nested = |n: usize, open: &str, close: &str| format!("{}1{}", open.repeat(n), close.repeat(n));
    // A set is a level, and so is the IN around what is before it.
    let forms = [
        ("(", ")", DEPTH_MAX),
        ("NOT ", "", DEPTH_MAX),
        ("- ", "", DEPTH_MAX),
        ("ABS(", ")", DEPTH_MAX),
        ("1 IN (", ")", DEPTH_MAX / 2),
        ("", " LIKE 'x'", DEPTH_MAX),
        ("", " IN (2)", DEPTH_MAX - 1),
    ];
    for (open, close, most) in forms {
        compile(&nested(most, open, close));
        assert!(refused(&nested(most + 1, open, close)).contains("nested more than 64"), "{open}{close}");
    }
    let sum = |n: usize| vec!["1"; n].join("+");
    compile(&sum(NODES_MAX / 2));
    assert!(refused(&sum(NODES_MAX / 2 + 1)).ends_with("more than 4096 operators and operands"));
}

#[test]
fn the_deepest_expression_fits_the_stack_of_a_thread() {
    let open = "a OR a = a + a * (";
    let text = format!("{}1{}", open.repeat(DEPTH_MAX), ")".repeat(DEPTH_MAX));
    let run = std::thread::Builder::new().stack_size(2 << 20).spawn(move || evaluate(&text));
    assert_eq!(run.expect("a thread").join().expect("no overflow"), "false missingAttribute@0");
}

#[test]
fn values_and_errors_are_those_of_the_specification() {
    let cases = [
        // An operator whose operand failed is zero, whatever could be computed.
        ("missing", "false missingAttribute@0"),
        ("missing + 1", "0 missingAttribute@0"),
        ("CONCAT(missing, 'a')", "'' missingAttribute@7"),
        ("LENGTH(missing)", "0 missingAttribute@7"),
        ("NOT (missing IN (1))", "false missingAttribute@5"),
        ("word NOT IN (missing)", "false missingAttribute@13"),
        ("(1 / 0) = 0", "false math@5"),
        ("'x' + missing", "0 missingAttribute@6"),
        // Short circuit.
        ("FALSE AND missing", "false"),
        ("TRUE OR missing", "true"),
        ("FALSE OR missing", "false missingAttribute@9"),
        ("missing OR TRUE", "false missingAttribute@0"),
        ("FALSE AND missing OR TRUE", "true"),
        ("TRUE XOR missing", "false missingAttribute@9"),
        ("word AND TRUE", "false cast@0"),
        // The right operand decides, of IN the left one.
        ("sequence = 7", "true"),
        ("word = 1", "false cast@0"),
        ("word != 1", "false cast@0"),
        ("'TRUE' = TRUE", "true"),
        ("TRUE = 'TRUE'", "false"),
        ("number = '5'", "true"),
        ("'05' = number", "true"),
        ("number IN ('05')", "true"),
        ("sequence IN ('07', 7)", "true"),
        ("1 IN (2, 1, 'x')", "true"),
        ("1 IN ('x', 1)", "false cast@6"),
        // Integers.
        ("2147483647 + 1", "0 math@13"),
        ("-2147483648 - 1", "0 math@14"),
        ("65536 * 65536", "0 math@8"),
        ("-(-2147483648)", "0 math@0"),
        ("-2147483648 / -1", "0 math@14"),
        ("-2147483648 % -1", "0"),
        ("-7 / 2", "-3"),
        ("-7 % 2", "-1"),
        ("7 % -2", "1"),
        ("INT('2147483648')", "0 cast@0"),
        ("INT('+5')", "5"),
        ("INT(' 5')", "0 cast@0"),
        ("BOOL('x')", "false cast@0"),
        ("flag", "true"),
        ("NOT number", "false"),
        // Functions.
        ("NOPE(missing)", "false missingFunction@0"),
        ("CONCAT_WS()", "false missingFunction@0"),
        ("LENGTH(missing, 1)", "false missingFunction@0"),
        ("LEFT('abc', 'x')", "'' cast@12"),
        ("LEFT('abc', -1)", "'abc' functionEvaluation@0"),
        ("LENGTH(LEFT('abc', -1))", "0 functionEvaluation@7"),
        ("SUBSTRING('aé☃😀', 2, 2)", "'é☃'"),
        ("SUBSTRING('abc', -2)", "'bc'"),
        ("SUBSTRING('abc', 4)", "'' functionEvaluation@0"),
        ("SUBSTRING('abc', 0)", "''"),
        ("SUBSTRING('abc', 1, 2147483647)", "'abc'"),
        ("RIGHT('aé☃😀', 2)", "'☃😀'"),
        ("UPPER('straße')", "'STRASSE'"),
        ("TRIM('\u{2003}a b\u{a0}')", "'a b'"),
        ("CONCAT_WS(', ', 'a', 1, TRUE)", "'a, 1, true'"),
        // Literals.
        (r"'ab\c'", r"'ab\c'"),
        (r"'it\'s'", "'it's'"),
        ("'it''s'", "'it's'"),
        (r"'a\\'", r"'a\\'"),
        ("''", "''"),
        ("EXISTS ID", "true"),
        ("EXISTS missing", "false"),
    ];
    for (text, expected) in cases {
        assert_eq!(evaluate(text), expected, "{text}");
    }
}

#[test]
fn texts_that_functions_make_are_bounded() {
    let event =
        Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/");
    let event = event.attribute("type", &"x".repeat(60_000)).build().expect("valid");
    let expression = compile(&format!("CONCAT({}) = ''", vec!["type"; 100].join(",")));
    let evaluation = expression.evaluate(&Facts::of(&event));
    assert_eq!(evaluation.error.expect("too long").kind.name(), "generic");
}

#[test]
fn a_filter_passes_on_true_only() {
    let event = event();
    let holds = |text: &str| compile(text).holds(&Facts::of(&event));
    assert_eq!(holds("number > 4"), Ok(true));
    assert_eq!(holds("number > 5"), Ok(false));
    assert_eq!(holds("5"), Err(Errs("the result is the Integer `5`, not true or false".into())));
    let absent = "attribute `missing` is absent; guard it with `EXISTS missing AND`";
    assert_eq!(holds("NOT (missing = 'x')"), Err(Errs(absent.into())));
}

#[test]
fn the_first_conjunct_that_fails_is_named() {
    let event = event();
    let told = |text: &str| match compile(text).failure(&Facts::of(&event)) {
        None => "holds".to_owned(),
        Some(failure) => {
            assert_eq!(failure.filter, "cesql");
            format!("{} | {} | {}", failure.expected, failure.actual, failure.message)
        }
    };
    let cases = [
        ("TRUE AND word = 'abc'", "holds"),
        (
            "word = 'abc' AND (source = '/x' AND missing = 1)",
            "source = '/x' | `source` is `/shop` | `source = '/x'` is false: `source` is `/shop`",
        ),
        (
            "word = 'abc' AND EXISTS subject AND TRUE",
            "EXISTS subject | `subject` is absent | `EXISTS subject` is false: `subject` is absent",
        ),
        (
            "word = 'abc' AND subject = 'x'",
            "subject = 'x' | `subject` is absent | `subject = 'x'`: attribute `subject` is absent; guard it with \
             `EXISTS subject AND`",
        ),
        ("FALSE", "FALSE | false | `FALSE` is false"),
        ("flag AND word", "word | `word` is `abc` | `word`: `abc` is not true or false"),
        (
            "number = 1 OR number = 2",
            "number = 1 OR number = 2 | `number` is `5` | `number = 1 OR number = 2` is false: `number` is `5`",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(told(text), expected, "{text}");
    }
}

#[test]
fn terms_are_conditions_that_no_match_can_do_without() {
    let terms = |text: &str| match compile(text).terms() {
        None => "-".to_owned(),
        Some(terms) => {
            let shown = terms.iter().map(|term| {
                let Subject::Attribute(name) = &term.subject else { panic!("attributes only") };
                format!("{name}={}{}", term.text, if term.is_prefix { "*" } else { "" })
            });
            shown.collect::<Vec<_>>().join(" ")
        }
    };
    let cases = [
        ("type = 'x'", "type=x"),
        ("type = 'TRUE'", "type=TRUE"),
        ("type = 5", "-"),
        ("type = true", "-"),
        ("'x' = type", "type=x"),
        ("'TRUE' = flag", "flag=TRUE flag=true"),
        ("'05' = number", "number=05 number=5"),
        ("0 = number", "number=0 number=false"),
        ("type != 'x'", "-"),
        ("type = 'x' = true", "-"),
        ("type LIKE 'com.%'", "type=com.*"),
        ("type LIKE 'com_%'", "type=com*"),
        (r"type LIKE 'a\_b'", "type=a_b"),
        ("type LIKE '%x'", "-"),
        ("type NOT LIKE 'com.%'", "-"),
        ("type IN ('a', 'b')", "type=a type=b"),
        ("type IN ('a', subject)", "-"),
        ("type NOT IN ('a')", "-"),
        ("NOT (type = 'x')", "-"),
        ("type LIKE 'a%' AND source = '/s' AND number > 1", "source=/s"),
        ("number > 1 AND type = 'x'", "type=x"),
        ("type = 'x' OR type = 'y'", "type=x type=y"),
        ("type = 'x' OR number = 1", "-"),
        ("type = 'x' OR number = 1 AND source = '/s'", "source=/s"),
        ("type = 'x' XOR type = 'y'", "-"),
        ("(type = 'x' OR type = 'y') AND number > 1", "type=x type=y"),
    ];
    for (text, expected) in cases {
        assert_eq!(terms(text), expected, "{text}");
    }
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    let warnings = |text: &str| {
        let shown = compile(text).warnings();
        shown.into_iter().map(|warning| format!("{}: {}", warning.at, warning.message)).collect::<Vec<_>>()
    };
    let mix = "bind alike in CESQL and go from left to right, unlike in SQL: write brackets";
    assert_eq!(warnings("a OR b AND c"), [format!("7: OR and AND {mix}")]);
    assert_eq!(warnings("a OR (b AND c) OR EXISTS d"), Vec::<String>::new());
    assert_eq!(warnings("NOT (a XOR b AND c)"), [format!("13: XOR and AND {mix}")]);
    assert_eq!(warnings("a AND b AND (c)\n  or(d)"), [format!("18: AND and OR {mix}")]);
    let cases = [
        (
            "LEN(a) = 1",
            "0: there is no function `LEN`, so that the expression errs wherever this is evaluated",
        ),
        (
            "TRUE OR LEFT(a)",
            "8: `LEFT` takes 2 arguments, not 1, so that the expression errs wherever this is evaluated",
        ),
        ("LENGTH(a)", "0: the result is always of type Integer; a filter passes only on true"),
        ("EXISTS data", "0: `data` is no attribute; CESQL does not see the data of events"),
        (
            "time > '2026-01-01'",
            "7: `<`, `<=`, `>` and `>=` compare integers only; this text is none, so that it errs",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(warnings(text), [expected], "{text}");
    }
}

#[test]
fn attributes_are_named_once_and_in_lower_case() {
    let expression = compile("Type = 'x' AND EXISTS subject AND (TYPE IN (id, source) OR LENGTH(time) > 1)");
    assert_eq!(expression.attributes(), ["type", "subject", "id", "source", "time"]);
}

#[test]
fn like_sees_characters() {
    let cases = [
        ("", "", true),
        ("", "a", false),
        ("%", "", true),
        ("_", "", false),
        ("_", "☃", true),
        ("__", "é😀", true),
        ("_b%", "ab", true),
        ("_b%", "b", false),
        ("a%c", "ac", true),
        ("a%a", "a", false),
        ("ab%ba", "aba", false),
        ("%a_c%", "xxabxabcx", true),
        ("%a_c%", "xxabxabx", false),
        ("%a_", "xa", false),
        ("%_a%", "a", false),
        ("%_%_%", "é", false),
        (r"abc\%", "abc%", true),
        (r"abc\%", "abcd", false),
        (r"a\_c", "abc", false),
        (r"a\bc", r"a\bc", true),
        (r"a\\%", r"a\%", true),
        (r"a\", r"a\", true),
        ("A", "a", false),
    ];
    for (pattern, text, expected) in cases {
        assert_eq!(Pattern::compile(pattern).matches(text), expected, "{pattern} {text}");
    }
}

#[test]
fn like_takes_time_in_proportion_to_the_text() {
    let text = format!("{}b", "a".repeat(20_000));
    let hostile = [
        "%a".repeat(200) + "%c",
        "%aaaaaaaaaaaaaaaaaaaaaaaaaaac%".into(),
        "%a_a_a_a_a_a_a_a_c%".into(),
        format!("%{}c%", "a_".repeat(30)),
        "%_a_%".repeat(50) + "c",
        "%a%_b_%c".into(),
    ];
    for pattern in hostile {
        let mut steps = 0;
        assert!(!Pattern::compile(&pattern).matches_in(&text, &mut steps), "{pattern}");
        assert!(steps <= 2 * text.len(), "{pattern}: {steps} steps");
    }
}
