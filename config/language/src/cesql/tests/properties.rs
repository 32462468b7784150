use proptest::prelude::*;
use sluice_schemas::{Event, Kind, Value as Attribute};

use super::super::Expression;
use super::super::like::Pattern;
use super::{bracketed, compile, evaluate, event};
use crate::Facts;

/// Tries everything, on characters.
fn naive_like(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|skipped| naive_like(rest, &text[skipped..])),
        ['\\', escaped @ ('%' | '_'), rest @ ..] => {
            text.first() == Some(escaped) && naive_like(rest, &text[1..])
        }
        ['_', rest @ ..] => !text.is_empty() && naive_like(rest, &text[1..]),
        [literal, rest @ ..] => text.first() == Some(literal) && naive_like(rest, &text[1..]),
    }
}

fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "AND",
        "or",
        "XOR",
        "NOT",
        "LIKE",
        "EXISTS",
        "IN",
        "true",
        "FALSE",
        "(",
        ")",
        ",",
        "'a%'",
        "\"_\"",
        "1",
        "-5",
        "2147483647",
        "=",
        "!=",
        "<>",
        "<",
        ">=",
        "+",
        "-",
        "*",
        "/",
        "%",
        "a",
        "type",
        "10a",
        "LENGTH(",
        "CONCAT(",
        "ABS(",
        "SUBSTRING(",
        "'",
        "\\",
        "☃",
        "_",
    ]);
    prop::collection::vec(word, 0..24).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![any::<String>(), words()]) {
        let event = event();
        let facts = Facts::of(&event);
        match Expression::compile(&text) {
            Err(error) => prop_assert!(text.is_char_boundary(error.at)),
            Ok(expression) => {
                let holds = expression.holds(&facts);
                prop_assert_eq!(expression.failure(&facts).is_none(), holds == Ok(true));
                expression.warnings();
                let brackets = bracketed(&expression.tree);
                prop_assume!(!brackets.contains('…') && brackets.len() < 500);
                let again = Expression::compile(&brackets);
                prop_assert_eq!(again.map(|again| bracketed(&again.tree)), Ok(brackets));
            }
        }
    }

    #[test]
    fn like_agrees_with_trying_everything(pattern in r"[ab_%\\é]{0,8}", text in "[abé_%]{0,10}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let expected = naive_like(&chars(&pattern), &chars(&text));
        prop_assert_eq!(Pattern::compile(&pattern).matches(&text), expected);
    }

    #[test]
    fn pieces_longer_than_a_word_are_found(before in "[ab]{0,100}", piece in "[ab_]{60,140}", after in "[ab]{0,5}") {
        let text = format!("{before}{}{after}", piece.replace('_', "é"));
        let (found, absent) = (format!("%{piece}%"), format!("%{piece}é_c%"));
        prop_assert!(Pattern::compile(&found).matches(&text));
        prop_assert!(!Pattern::compile(&absent).matches(&text));
    }

    #[test]
    fn arithmetic_is_that_of_wide_integers(left: i32, right in prop_oneof![any::<i32>(), -3..3i32]) {
        let (l, r) = (i64::from(left), i64::from(right));
        let wide = [
            ('+', Some(l + r)), ('-', Some(l - r)), ('*', Some(l * r)),
            ('/', l.checked_div(r)), ('%', l.checked_rem(r)),
        ];
        for (operator, expected) in wide {
            let text = format!("{left} {operator} {right}");
            let expected = expected.and_then(|value| i32::try_from(value).ok());
            let found = evaluate(&text);
            match expected {
                Some(value) => prop_assert_eq!(found, value.to_string(), "{}", text),
                None => prop_assert!(found.starts_with("0 math@"), "{}: {}", text, found),
            }
        }
    }

    /// What makes an expression true fulfils one of its terms.
    #[test]
    fn terms_lose_no_match(
        text in prop::sample::select(vec![
            "word = 'v'", "'v' = word", "0 = word", "1 = word", "true = word", "'TRUE' = word", "word LIKE '1%'",
            "word IN ('TRUE', 1, 'v')", "word IN (5, false)", "'5' = word OR word = 'v'", "'05' = word AND TRUE",
        ]),
        value in prop::sample::select(vec![("v", Kind::String), ("0", Kind::Integer), ("0", Kind::String),
            ("1", Kind::Integer), ("true", Kind::Boolean), ("true", Kind::String), ("TRUE", Kind::String),
            ("false", Kind::Boolean), ("5", Kind::Integer), ("05", Kind::String), ("5", Kind::String)]),
    ) {
        let event = Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/");
        let event = event.attribute("type", "t").value("word", Attribute { text: value.0.into(), kind: value.1 });
        let event = event.build().expect("valid");
        let expression = compile(text);
        let terms = expression.terms().expect("terms");
        let fulfils = terms.iter().any(|term| if term.is_prefix {
            value.0.starts_with(&term.text)
        } else {
            value.0 == term.text
        });
        prop_assert!(fulfils || expression.holds(&Facts::of(&event)) != Ok(true), "{} {:?}", text, value);
    }
}
