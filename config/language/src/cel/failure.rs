//! Why an expression does not hold, in words: which part of it, and for an error where in its text.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, operators};
use cel::{Context, ExecutionError, Value};

use super::token::{Sort, tokens};
use super::{ERROR_CHARS_MAX, Program, check, cost, paths};
use crate::{Errs, Facts, Failure, syntax};

/// A value in a message is cut after this many characters.
const VALUE_CHARS_MAX: usize = 60;

/// Of several parts joined by `&&`, the first that does not hold; else the whole.
pub fn failure(program: &Program, facts: &Facts<'_>) -> Option<Failure> {
    let whole = program.holds(facts);
    if whole == Ok(true) {
        return None;
    }
    let parts = if program.is_conjunction { conjuncts(&program.text) } else { Vec::new() };
    let mut parts = parts.into_iter().filter_map(|part| Program::compile(part).ok());
    // `false && error` is false.
    let is_cause = |part: &Program| {
        let result = part.holds(facts);
        result.is_err() == whole.is_err() && result != Ok(true)
    };
    let part = parts.find(is_cause);
    let part = part.as_ref().unwrap_or(program);
    let values: Vec<_> = part
        .paths
        .values(facts)
        .map(|(path, value)| {
            let value = value.unwrap_or_else(|| "absent".into());
            (path, value.chars().take(ERROR_CHARS_MAX).collect::<String>())
        })
        .collect();
    let listed = |verb: &str, quote: &str| {
        let shown = values.iter().map(|(path, value)| format!("{quote}{path}{quote} {verb} {value}"));
        shown.collect::<Vec<_>>().join(", ")
    };
    let actual = if values.is_empty() { "false".to_owned() } else { listed("=", "") };
    let message = match whole {
        Err(Errs(error)) => located(program, facts).unwrap_or(error),
        Ok(_) => {
            let colon = if values.is_empty() { "" } else { ": " };
            format!("`{}` is false{colon}{}", part.text, listed("is", "`"))
        }
    };
    Some(Failure { filter: "cel".into(), expected: part.text.to_string(), actual, message })
}

/// The parts of an expression between the `&&` outside all brackets.
fn conjuncts(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut open) = (Vec::new(), 0, 0usize);
    for token in tokens(text) {
        match token.sort {
            Sort::Sign("(" | "[" | "{") => open += 1,
            Sort::Sign(")" | "]" | "}") => open = open.saturating_sub(1),
            Sort::Sign("&&") if open == 0 => {
                parts.push(text[start..token.start].trim());
                start = token.end;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// The error of an evaluation with its place; `None` when it cannot be found again.
fn located(program: &Program, facts: &Facts<'_>) -> Option<String> {
    let event = program.paths.convert(facts).ok()?;
    cost::begin(&event, &program.ranges, facts);
    let found = catch_unwind(AssertUnwindSafe(|| {
        let context = program.context(event).ok()?;
        let (node, error) = culprit(&program.expression, &context)?;
        Some((words(&error, Some(node)), start(program, node)))
    }));
    let (message, start) = found.ok().flatten().filter(|_| !cost::is_spent())?;
    let Some(start) = start else { return Some(message) };
    Some(format!("{message}, at {} of the expression", syntax::place(&program.text, start)))
}

/// The innermost part that errs, and its error. The bodies of macros are not looked into: they have variables.
fn culprit<'e>(node: &'e IdedExpr, context: &Context<'_, '_>) -> Option<(&'e IdedExpr, ExecutionError)> {
    let error = Value::resolve(node, context).err()?;
    let first = |nodes: &[&'e IdedExpr]| nodes.iter().find_map(|node| culprit(node, context));
    let inner = match &node.expr {
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => {
            let [condition, then, otherwise] = call.args.as_slice() else { return Some((node, error)) };
            match Value::resolve(condition, context) {
                Ok(Value::Bool(true)) => culprit(then, context),
                Ok(Value::Bool(false)) => culprit(otherwise, context),
                _ => culprit(condition, context),
            }
        }
        Expr::Call(call) => first(&call.target.as_deref().into_iter().chain(&call.args).collect::<Vec<_>>()),
        Expr::Select(select) => culprit(&select.operand, context),
        Expr::List(list) => first(&list.elements.iter().collect::<Vec<_>>()),
        Expr::Map(map) => map.entries.iter().find_map(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => first(&[&entry.key, &entry.value]),
            EntryExpr::StructField(field) => culprit(&field.value, context),
        }),
        Expr::Comprehension(comprehension) => culprit(&comprehension.iter_range, context),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => None,
    };
    inner.or(Some((node, error)))
}

/// Where a part begins, in bytes: an operator stands for what it joins, `event` for a chain of fields.
fn start(program: &Program, node: &IdedExpr) -> Option<usize> {
    let id = check::innermost(node).id;
    let at = program.starts.binary_search_by_key(&id, |(known, _)| *known).ok()?;
    Some(program.starts[at].1 as usize)
}

/// An error of an evaluation, of the part that has it where that is known.
pub fn words(error: &ExecutionError, node: Option<&IdedExpr>) -> String {
    let text = match error {
        ExecutionError::NoSuchKey(key) => return absent(key, node),
        ExecutionError::NoSuchOverload(call) => {
            let types: Vec<_> = call.argument_types().iter().map(String::as_str).collect();
            no_overload(call.function(), &types)
        }
        ExecutionError::UnsupportedBinaryOperator(name, left, right) => {
            no_overload(sign(name), &[kind(left), kind(right)])
        }
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("{} and {} cannot be compared", shown(left), shown(right))
        }
        ExecutionError::DivisionByZero(value) => format!("division by zero: {} / 0", shown(value)),
        ExecutionError::RemainderByZero(value) => format!("division by zero: {} % 0", shown(value)),
        ExecutionError::Overflow(name, left, right) => {
            format!("{} {} {} is no 64-bit integer", shown(left), sign(name), shown(right))
        }
        ExecutionError::IndexOutOfBounds(at) => format!("the list has no element {}", shown(at)),
        ExecutionError::UnsupportedIndex(at, of) => {
            format!("{} is no place in a {}", shown(at), kind(of))
        }
        ExecutionError::UnexpectedType { got, want } => format!("expected a {want}, found a {got}"),
        ExecutionError::UnsupportedTargetType { target } => format!("a {} cannot stand here", kind(target)),
        ExecutionError::NotSupportedAsMethod { method, target } => {
            format!("a {} has no `{method}`", kind(target))
        }
        ExecutionError::FunctionError { function, message } => format!("`{function}`: {message}"),
        ExecutionError::UndeclaredReference(name) => format!("there is no `{name}`"),
        ExecutionError::InvalidArgumentCount { expected, actual } => {
            format!("expected {expected} arguments, found {actual}")
        }
        other => other.to_string(),
    };
    text.chars().take(ERROR_CHARS_MAX).collect()
}

fn absent(key: &str, node: Option<&IdedExpr>) -> String {
    match node.and_then(paths::chain) {
        Some((path, _)) if path == ["data"] => {
            "the event has no data; guard it with `has(event.data)`".into()
        }
        Some((path, _)) if path.len() == 1 => {
            format!("attribute `{0}` is absent; guard it with `has(event.{0})`", path[0])
        }
        Some((path, _)) if path.first().is_some_and(|name| name == "data") => {
            let path = path.join(".");
            format!("`{path}` is absent; guard it with `has(event.{path})`")
        }
        Some(_) | None => {
            format!("there is no field `{}`", key.chars().take(VALUE_CHARS_MAX).collect::<String>())
        }
    }
}

/// What an operator or a function was given that it does not take.
fn no_overload(function: &str, types: &[&str]) -> String {
    let has = |name: &str| types.contains(&name);
    let hint = match has("string") && ["int", "uint", "double", "float"].into_iter().any(has) {
        true => "; make a number of the text with `int(...)` or `double(...)`",
        false => "",
    };
    let name = match function {
        "_[_]" => "[...]",
        _ => function.trim_matches(|c| matches!(c, '_' | '@')),
    };
    format!("`{name}` does not take {}{hint}", types.join(" and "))
}

fn sign(name: &str) -> &str {
    match name {
        "add" => "+",
        "sub" => "-",
        "mul" => "*",
        "div" => "/",
        "rem" => "%",
        other => other,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::List(_) => "list",
        Value::Map(_) => "map",
        Value::Int(_) => "int",
        Value::UInt(_) => "uint",
        Value::Float(_) => "double",
        Value::String(_) => "string",
        Value::Bytes(_) => "bytes",
        Value::Bool(_) => "bool",
        Value::Null => "null",
        _ => "value of another type",
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => format!("{number}u"),
        Value::Float(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::String(text) => {
            let text: String = text.chars().take(VALUE_CHARS_MAX).collect();
            serde_json::Value::from(text).to_string()
        }
        other => format!("a {}", kind(other)),
    }
}
