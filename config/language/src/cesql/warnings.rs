//! What is legal and hardly meant.

use super::evaluate::missing_function;
use super::tree::{Form, Level, Node, Operator};
use super::value::{Type, Value};

/// A remark on an expression that compiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where in the text, in bytes from its start.
    pub at: usize,
    pub message: String,
}

pub fn warnings(text: &str, tree: &Node) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |at, message: String| found.push(Warning { at, message });
    if let Some(ty @ (Type::Integer | Type::String)) = tree.ty() {
        let name = ty.name();
        warn(tree.start, format!("the result is always of type {name}; a filter passes only on true"));
    }
    tree.walk(&mut |node| match &node.form {
        Form::Chain { first, rest } => chain(text, first, rest, &mut warn),
        Form::Call { name, function: None, arguments } => {
            let reason = missing_function(name, arguments.len());
            warn(node.start, format!("{reason}, so that the expression errs wherever this is evaluated"));
        }
        Form::Attribute(name) | Form::Exists(name) if **name == *"data" => {
            warn(node.start, "`data` is no attribute; CESQL does not see the data of events".into());
        }
        _ => {}
    });
    found.sort_by_key(|warning| warning.at);
    found
}

fn chain(text: &str, first: &Node, rest: &[(Operator, Node)], warn: &mut impl FnMut(usize, String)) {
    let Some((operator, _)) = rest.first() else { return };
    let mixed = rest.array_windows().find(|[(one, _), (other, _)]| one != other);
    if operator.level() == Level::Logic
        && let Some([(_, left), (other, right)]) = mixed
    {
        let (one, other) = (operator.name(), other.name());
        let message = format!(
            "{one} and {other} bind alike in CESQL and go from left to right, unlike in SQL: write brackets"
        );
        warn(operator_after(text, left, right), message);
    }
    let operands = || std::iter::once(first).chain(rest.iter().map(|(_, operand)| operand));
    if rest.iter().any(|(operator, _)| operator.is_ordering())
        && let Some(operand) = operands().find(|operand| is_never_integer(operand))
    {
        let message = "`<`, `<=`, `>` and `>=` compare integers only; this text is none, so that it errs";
        warn(operand.start, message.into());
    }
}

/// Where the operator between two operands begins: nothing else but white space is there.
fn operator_after(text: &str, left: &Node, right: &Node) -> usize {
    let between = text.get(left.end..right.start).unwrap_or_default();
    left.end + between.len() - between.trim_start().len()
}

fn is_never_integer(node: &Node) -> bool {
    matches!(&node.form, Form::Literal(value @ Value::String(_)) if value.to_integer().is_err())
}
