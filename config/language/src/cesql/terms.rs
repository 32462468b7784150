//! What an event must have for an expression to be true.

use super::tree::{Form, Node, Operator};
use super::value::Value;
use crate::filter::TERMS_MAX;
use crate::{Subject, Term};

/// See [`Filter::terms`](crate::Filter::terms). What is true without an error has true operands of AND and one true operand of
/// OR, so that terms of operands are terms of the whole.
pub fn terms(node: &Node) -> Option<Vec<Term>> {
    let found = match &node.form {
        Form::Chain { first, rest } => match rest.as_slice() {
            [(Operator::Equal, right)] => equality(first, right)?,
            [(Operator::And | Operator::Or | Operator::Xor, _), ..] => logic(first, rest)?,
            _ => return None,
        },
        Form::Like { operand, pattern, is_negated: false } => {
            let name = attribute(operand)?;
            match pattern.prefix() {
                ("", false) => return None,
                (text, is_whole) => vec![term(name, text.into(), !is_whole)],
            }
        }
        Form::In { operand, set, is_negated: false } => {
            let name = attribute(operand)?;
            let mut found = Vec::new();
            for element in set {
                let Form::Literal(value) = &element.form else { return None };
                found.extend(texts_equal_to(value).into_iter().map(|text| term(name, text, false)));
            }
            found
        }
        _ => return None,
    };
    (found.len() <= TERMS_MAX).then_some(found)
}

fn logic(first: &Node, rest: &[(Operator, Node)]) -> Option<Vec<Term>> {
    rest.iter().fold(terms(first), |left, (operator, right)| {
        let right = terms(right);
        match operator {
            Operator::And => [left, right]
                .into_iter()
                .flatten()
                .min_by_key(|terms| (terms.iter().filter(|term| term.is_prefix).count(), terms.len())),
            Operator::Or => Some([left?, right?].concat()).filter(|terms| terms.len() <= TERMS_MAX),
            _ => None,
        }
    })
}

/// The type of the right operand decides (CESQL 3.7). An attribute on the left is compared as text with a text; one on the right
/// makes what it is compared with of its own type, which only the event knows.
fn equality(left: &Node, right: &Node) -> Option<Vec<Term>> {
    match (&left.form, &right.form) {
        (Form::Attribute(name), Form::Literal(Value::String(text))) => {
            Some(vec![term(name, text.to_string(), false)])
        }
        (Form::Literal(value), Form::Attribute(name)) => {
            Some(texts_equal_to(value).into_iter().map(|text| term(name, text, false)).collect())
        }
        _ => None,
    }
}

/// The texts of all attributes, whatever their type, that a value is equal to when it is cast to that type.
fn texts_equal_to(value: &Value<'_>) -> Vec<String> {
    let mut texts = vec![value.to_string()];
    texts.extend(value.to_integer().map(|number| number.to_string()));
    texts.extend(value.to_boolean().map(|truth| truth.to_string()));
    texts.sort();
    texts.dedup();
    texts
}

fn attribute(node: &Node) -> Option<&str> {
    match &node.form {
        Form::Attribute(name) => Some(name),
        _ => None,
    }
}

fn term(attribute: &str, text: String, is_prefix: bool) -> Term {
    Term { subject: Subject::Attribute(attribute.to_owned()), text, is_prefix }
}
