//! Why an expression does not hold.

use sluice_schemas::Event;

use super::Expression;
use super::evaluate::{ErrorKind, EvaluationError, evaluate};
use super::tree::{Form, Node, Operator};
use super::value::{Value, shown};
use crate::Failure;

/// Whether a tree is true, as a filter.
pub fn holds(tree: &Node, event: &Event) -> Result<bool, EvaluationError> {
    let evaluation = evaluate(tree, event);
    match (evaluation.error, evaluation.value) {
        (Some(error), _) => Err(error),
        (None, Value::Boolean(truth)) => Ok(truth),
        (None, other) => {
            let message = format!("the result is the {} `{}`, not true or false", other.ty().name(), {
                shown(&other.to_string())
            });
            Err(EvaluationError { kind: ErrorKind::Cast, at: tree.start, message })
        }
    }
}

pub fn failure(expression: &Expression, event: &Event) -> Option<Failure> {
    let Expression { key, text, tree } = expression;
    let result = holds(tree, event);
    if result == Ok(true) {
        return None;
    }
    let (part, error) = match first_false(tree, event) {
        Some(part) => (part, None),
        None => (tree, result.err()),
    };
    let part = match &error {
        Some(error) => part_at(tree, error.at),
        None => part,
    };
    let part_text = shown(text.get(part.start..part.end).unwrap_or(text));
    let values: Vec<_> = part
        .attributes()
        .into_iter()
        .map(|name| match event.text(name) {
            Some(value) => format!("`{name}` is `{}`", shown(value)),
            None => format!("`{name}` is absent"),
        })
        .collect();
    let actual = if values.is_empty() { "false".to_owned() } else { values.join(", ") };
    let message = match error {
        Some(error) => format!("`{part_text}`: {}", error.message),
        None if values.is_empty() => format!("`{part_text}` is false"),
        None => format!("`{part_text}` is false: {actual}"),
    };
    Some(Failure { filter: key.name().into(), expected: part_text, actual, message })
}

/// The first operand of the outermost ANDs that is false; `None` when an error comes first.
fn first_false<'n>(tree: &'n Node, event: &Event) -> Option<&'n Node> {
    for operand in conjuncts(tree) {
        match evaluate(operand, event) {
            evaluation if evaluation.error.is_some() => return None,
            evaluation => match evaluation.value.to_boolean() {
                Ok(true) => {}
                Ok(false) => {
                    return if is_conjunction(operand) { first_false(operand, event) } else { Some(operand) };
                }
                Err(_) => return None,
            },
        }
    }
    None
}

/// The operand of the outermost ANDs in which a place of the text is.
fn part_at(tree: &Node, at: usize) -> &Node {
    let mut part = tree;
    while is_conjunction(part) {
        match conjuncts(part).find(|operand| (operand.start..operand.end).contains(&at)) {
            Some(operand) => part = operand,
            None => break,
        }
    }
    part
}

fn is_conjunction(node: &Node) -> bool {
    matches!(&node.form, Form::Chain { rest, .. } if rest.iter().all(|(operator, _)| *operator == Operator::And))
}

/// The operands of a conjunction; anything else is one operand.
fn conjuncts(node: &Node) -> impl Iterator<Item = &Node> {
    let (first, rest) = match &node.form {
        Form::Chain { first, rest } if is_conjunction(node) => (&**first, rest.as_slice()),
        _ => (node, [].as_slice()),
    };
    std::iter::once(first).chain(rest.iter().map(|(_, operand)| operand))
}
