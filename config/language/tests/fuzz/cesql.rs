//! Expressions of any kind: the expression on the first line, the text of an attribute `a` on the second. Nothing panics, an
//! error is at a character, and what is true has one of the expression's terms.

use sluice_language::cesql::Expression;
use sluice_language::{Facts, Subject};
use sluice_schemas::Event;

/// Whether the expression compiled.
pub fn check(input: &str) -> bool {
    let (text, value) = input.split_once('\n').unwrap_or((input, ""));
    let expression = match Expression::compile(text) {
        Ok(expression) => expression,
        Err(error) => {
            assert!(text.is_char_boundary(error.at));
            return false;
        }
    };
    assert!(expression.warnings().iter().all(|warning| text.is_char_boundary(warning.at)));
    let event =
        Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/s");
    let event = event.attribute("type", "t");
    let valid = event.clone().attribute("a", value).build();
    let event = valid.or_else(|_| event.build()).expect("valid without `a`");
    let facts = Facts::of(&event);
    let evaluation = expression.evaluate(&facts);
    assert!(evaluation.error.is_none_or(|error| text.is_char_boundary(error.at)));
    let holds = expression.holds(&facts);
    assert_eq!(expression.failure(&facts).is_none(), holds == Ok(true));
    let Some(terms) = expression.terms().filter(|_| holds == Ok(true)) else { return true };
    let is_fulfilled = terms.iter().any(|term| {
        let Subject::Attribute(name) = &term.subject else { panic!("a term on data") };
        event.text(name).is_some_and(|text| match term.is_prefix {
            true => text.starts_with(&term.text),
            false => text == term.text,
        })
    });
    assert!(is_fulfilled, "a match that no term finds");
    true
}
