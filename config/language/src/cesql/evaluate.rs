//! Evaluation (CESQL 3.3 to 3.7, fail-fast as in 4.1).
//!
//! An operator or function whose operand failed returns the error of that operand, and the zero value of its own type: nothing
//! is computed from the values that came with an error.

use std::fmt;

use sluice_schemas::{Event, Kind};

use super::TEXTS_BYTES_MAX;
use super::functions::{Function, Raised, Room};
use super::tree::{Form, Level, Node, Operator};
use super::value::{NoCast, Type, Value};

/// A value, and the first error on the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation<'a> {
    pub value: Value<'a>,
    pub error: Option<EvaluationError>,
}

/// What went wrong in an evaluation, and where in the expression: in bytes from its start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvaluationError {
    pub kind: ErrorKind,
    pub at: usize,
    pub message: String,
}

/// The kinds of errors of CESQL 3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    Parse,
    Math,
    Cast,
    MissingFunction,
    FunctionEvaluation,
    MissingAttribute,
    /// What no other kind is for: here, texts that grow beyond a bound.
    Generic,
}

impl ErrorKind {
    /// The name that the conformance tests of CESQL use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Math => "math",
            Self::Cast => "cast",
            Self::MissingFunction => "missingFunction",
            Self::FunctionEvaluation => "functionEvaluation",
            Self::MissingAttribute => "missingAttribute",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for NoCast {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = match self.to {
            Type::Boolean => "true or false",
            Type::Integer => "a 32-bit integer",
            Type::String => "a text",
        };
        write!(out, "`{}` is not {expected}", self.text)
    }
}

pub fn evaluate<'a>(tree: &'a Node, event: &'a Event) -> Evaluation<'a> {
    let mut evaluator = Evaluator { event, room: Room { bytes: TEXTS_BYTES_MAX } };
    match evaluator.value(tree) {
        Ok(value) => Evaluation { value, error: None },
        Err(Failed { value, error }) => Evaluation { value, error: Some(error) },
    }
}

struct Evaluator<'a> {
    event: &'a Event,
    room: Room,
}

/// An error, with the value that goes with it.
struct Failed<'a> {
    value: Value<'a>,
    error: EvaluationError,
}

type Outcome<'a> = Result<Value<'a>, Failed<'a>>;

fn failed<'a>(value: Value<'a>, kind: ErrorKind, at: usize, message: String) -> Failed<'a> {
    Failed { value, error: EvaluationError { kind, at, message } }
}

/// An operand that has no value of the type it must have.
fn not_cast<'a>(error: &NoCast, operand: &Node, of: Type) -> Failed<'a> {
    failed(of.zero(), ErrorKind::Cast, operand.start, error.to_string())
}

impl<'a> Evaluator<'a> {
    fn value(&mut self, node: &'a Node) -> Outcome<'a> {
        match &node.form {
            Form::Literal(value) => Ok(borrowed(value)),
            Form::Attribute(name) => self.attribute(node, name),
            Form::Exists(name) => Ok(Value::Boolean(self.event.attribute(name).is_some())),
            Form::Not(operand) => Ok(Value::Boolean(!self.boolean(operand)?)),
            Form::Negate(operand) => {
                let number = self.integer(operand, Type::Integer)?;
                let overflow = || overflow(node, &format!("-({number})"));
                number.checked_neg().map(Value::Integer).ok_or_else(overflow)
            }
            Form::Like { operand, pattern, is_negated } => {
                let text = self.operand(operand, Type::Boolean)?.into_text();
                Ok(Value::Boolean(pattern.matches(&text) != *is_negated))
            }
            Form::In { operand, set, is_negated } => {
                Ok(Value::Boolean(self.is_in(operand, set)? != *is_negated))
            }
            Form::Chain { first, rest } => self.chain(first, rest),
            Form::Call { name, function, arguments } => self.call(node, name, *function, arguments),
        }
    }

    /// The value of an operand; its error is the error of the operator, which is `of` a type.
    fn operand(&mut self, node: &'a Node, of: Type) -> Outcome<'a> {
        self.value(node).map_err(|Failed { error, .. }| Failed { value: of.zero(), error })
    }

    fn boolean(&mut self, node: &'a Node) -> Result<bool, Failed<'a>> {
        let value = self.operand(node, Type::Boolean)?;
        value.to_boolean().map_err(|error| not_cast(&error, node, Type::Boolean))
    }

    fn integer(&mut self, node: &'a Node, of: Type) -> Result<i32, Failed<'a>> {
        let value = self.operand(node, of)?;
        value.to_integer().map_err(|error| not_cast(&error, node, of))
    }

    /// An attribute has the type of its text in the format it came in: HTTP headers have strings only.
    fn attribute(&self, node: &Node, name: &str) -> Outcome<'a> {
        let Some(value) = self.event.attribute(name) else {
            let message = format!("attribute `{name}` is absent; guard it with `EXISTS {name} AND`");
            return Err(failed(Value::Boolean(false), ErrorKind::MissingAttribute, node.start, message));
        };
        let text = || Value::String((&*value.text).into());
        Ok(match value.kind {
            Kind::String => text(),
            Kind::Boolean => Value::Boolean(&*value.text == "true"),
            Kind::Integer => value.text.parse().map_or_else(|_| text(), Value::Integer),
        })
    }

    fn chain(&mut self, first: &'a Node, rest: &'a [(Operator, Node)]) -> Outcome<'a> {
        let level = rest.first().map(|(operator, _)| operator.level());
        if level == Some(Level::Logic) {
            return self.logic(first, rest).map(Value::Boolean);
        }
        let of = rest.first().map_or(Type::Boolean, |(operator, _)| operator.ty());
        let mut left = self.operand(first, of)?;
        let mut left_node = first;
        for (operator, right_node) in rest {
            let right = self.operand(right_node, of)?;
            left = match operator {
                Operator::Equal | Operator::NotEqual => {
                    let equal = equal(&left, &right).map_err(|error| not_cast(&error, left_node, of))?;
                    Value::Boolean(equal == (*operator == Operator::Equal))
                }
                _ => {
                    let left = left.to_integer().map_err(|error| not_cast(&error, left_node, of))?;
                    let right = right.to_integer().map_err(|error| not_cast(&error, right_node, of))?;
                    numeric(*operator, left, right, right_node)?
                }
            };
            left_node = right_node;
        }
        Ok(left)
    }

    fn logic(&mut self, first: &'a Node, rest: &'a [(Operator, Node)]) -> Result<bool, Failed<'a>> {
        let mut left = self.boolean(first)?;
        for (operator, right) in rest {
            left = match operator {
                // Decided: the right side is not evaluated, and its errors do not exist.
                Operator::And if !left => false,
                Operator::Or if left => true,
                Operator::Xor => left != self.boolean(right)?,
                _ => self.boolean(right)?,
            };
        }
        Ok(left)
    }

    /// Elements are cast to the type of the operand, in their order and up to the first that is equal.
    fn is_in(&mut self, operand: &'a Node, set: &'a [Node]) -> Result<bool, Failed<'a>> {
        let wanted = self.operand(operand, Type::Boolean)?;
        for node in set {
            let element = self.operand(node, Type::Boolean)?;
            if equal(&element, &wanted).map_err(|error| not_cast(&error, node, Type::Boolean))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn call(
        &mut self,
        node: &'a Node,
        name: &str,
        function: Option<Function>,
        nodes: &'a [Node],
    ) -> Outcome<'a> {
        let Some(function) = function else {
            let (zero, message) = (Value::Boolean(false), missing_function(name, nodes.len()));
            return Err(failed(zero, ErrorKind::MissingFunction, node.start, message));
        };
        let mut arguments = Vec::with_capacity(nodes.len());
        for (place, node) in nodes.iter().enumerate() {
            let value = self.operand(node, function.ty())?;
            arguments.push(match function.parameter(place) {
                Some(Type::Integer) => {
                    let number = value.to_integer();
                    Value::Integer(number.map_err(|error| not_cast(&error, node, function.ty()))?)
                }
                Some(Type::String | Type::Boolean) | None => value,
            });
        }
        function
            .call(arguments, &mut self.room)
            .map_err(|Raised { value, kind, message }| failed(value, kind, node.start, message))
    }
}

fn borrowed<'a>(value: &'a Value<'static>) -> Value<'a> {
    match value {
        Value::Boolean(truth) => Value::Boolean(*truth),
        Value::Integer(number) => Value::Integer(*number),
        Value::String(text) => Value::String((&**text).into()),
    }
}

/// Whether `value`, cast to the type of `wanted`, is equal to it.
fn equal(value: &Value<'_>, wanted: &Value<'_>) -> Result<bool, NoCast> {
    Ok(match wanted {
        Value::Boolean(wanted) => value.to_boolean()? == *wanted,
        Value::Integer(wanted) => value.to_integer()? == *wanted,
        Value::String(wanted) => value.is_text(wanted),
    })
}

fn numeric<'a>(operator: Operator, left: i32, right: i32, right_node: &Node) -> Outcome<'a> {
    let checked = match operator {
        Operator::Less => return Ok(Value::Boolean(left < right)),
        Operator::LessOrEqual => return Ok(Value::Boolean(left <= right)),
        Operator::Greater => return Ok(Value::Boolean(left > right)),
        Operator::GreaterOrEqual => return Ok(Value::Boolean(left >= right)),
        Operator::Divide | Operator::Remainder if right == 0 => {
            let message = format!("division by zero: {left} {} {right}", operator.name());
            return Err(failed(Value::Integer(0), ErrorKind::Math, right_node.start, message));
        }
        Operator::Divide => left.checked_div(right),
        // `-2147483648 % -1` is 0 and no overflow, although the division is one.
        Operator::Remainder => Some(left.wrapping_rem(right)),
        Operator::Multiply => left.checked_mul(right),
        Operator::Subtract => left.checked_sub(right),
        _ => left.checked_add(right),
    };
    let overflow = || overflow(right_node, &format!("{left} {} {right}", operator.name()));
    checked.map(Value::Integer).ok_or_else(overflow)
}

fn overflow<'a>(node: &Node, operation: &str) -> Failed<'a> {
    let message = format!("{operation} is no 32-bit integer");
    failed(Value::Integer(0), ErrorKind::Math, node.start, message)
}

/// Why a call cannot be dispatched.
pub fn missing_function(name: &str, arguments: usize) -> String {
    let name = super::value::shown(name);
    match Function::arity(&name) {
        Some(arity) => format!("`{name}` takes {arity}, not {arguments}"),
        None => format!("there is no function `{name}`"),
    }
}
