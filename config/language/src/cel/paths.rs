//! Which parts of an event an expression names, so that no others are converted for it.

use std::collections::HashMap;
use std::sync::Arc;

use cel::Value;
use cel::common::ast::{Expr, IdedExpr};
use cel::objects::{Key, Map};
use serde_json::Value as Json;

use crate::{Errs, Facts};

/// Chains of fields that begin at `event`.
#[derive(Debug, Default)]
pub struct Paths {
    paths: Vec<Vec<String>>,
    /// Those that `has()` asks for, and so may be absent.
    tested: Vec<Vec<String>>,
}

impl Paths {
    /// The fields below `event.data` that an expression names.
    pub fn of_data(expression: &IdedExpr) -> Option<Vec<String>> {
        let (mut path, is_tested) = chain(expression)?;
        let is_data = !is_tested && path.first().is_some_and(|name| name == "data");
        is_data.then(|| path.split_off(1))
    }

    /// Notes `event.a.b`; says whether the expression is one.
    pub fn take(&mut self, expression: &IdedExpr) -> bool {
        let Some((path, is_tested)) = chain(expression) else { return false };
        let known = if is_tested { &mut self.tested } else { &mut self.paths };
        if !known.contains(&path) {
            known.push(path);
        }
        true
    }

    /// The chains without `event`, those that `has()` asks for included.
    pub fn fields(&self) -> Vec<String> {
        self.all().filter(|path| !path.is_empty()).map(|path| path.join(".")).collect()
    }

    fn all(&self) -> impl Iterator<Item = &[String]> {
        self.paths.iter().chain(&self.tested).map(Vec::as_slice)
    }

    /// Chains with the values they have in an event, those that are absent with `None`. Whole events and `has()` are left out.
    pub fn values<'p>(&'p self, facts: &'p Facts<'_>) -> impl Iterator<Item = (String, Option<String>)> + 'p {
        self.paths.iter().filter(|path| !path.is_empty()).map(|path| {
            let value = match path.as_slice() {
                [data, rest @ ..] if data == "data" => {
                    let found = facts.data().ok();
                    let found =
                        found.and_then(|data| rest.iter().try_fold(data, |value, part| value.get(part)));
                    found.map(Json::to_string)
                }
                [name] => facts.event.text(name).map(|text| Json::from(text).to_string()),
                _ => None,
            };
            (format!("event.{}", path.join(".")), value)
        })
    }

    /// The parts of an event that are named. Data that is named and is no JSON errs; no data at all is an absent field.
    pub fn convert(&self, facts: &Facts<'_>) -> Result<Value, Errs> {
        let mut members: HashMap<Key, Value> = HashMap::new();
        let is_whole = self.all().any(<[String]>::is_empty);
        if is_whole {
            for (name, value) in facts.event.attributes() {
                members.insert(name.into(), Value::from(&*value.text));
            }
        }
        for path in self.all() {
            if let [name, ..] = path
                && let Some(text) = facts.event.text(name)
            {
                members.insert(name.as_str().into(), Value::from(text));
            }
        }
        let rests: Vec<&[String]> = self
            .all()
            .filter(|path| path.first().is_some_and(|name| name == "data"))
            .map(|path| &path[1..])
            .collect();
        if (is_whole || !rests.is_empty()) && facts.event.data().is_some() {
            let data = facts.data().map_err(|error| Errs(error.to_string()))?;
            let converted = if is_whole { whole(data) } else { part(data, &rests) };
            members.insert("data".into(), converted);
        }
        Ok(Value::Map(Map { map: Arc::new(members) }))
    }
}

/// The fields of `event.a.b` from `event` on, and whether `has()` asks for it.
pub fn chain(expression: &IdedExpr) -> Option<(Vec<String>, bool)> {
    let (mut path, mut is_tested, mut at) = (Vec::new(), false, expression);
    loop {
        match &at.expr {
            Expr::Select(select) => {
                is_tested |= select.test;
                path.push(select.field.clone());
                at = &select.operand;
            }
            Expr::Ident(name) if name == "event" => break,
            _ => return None,
        }
    }
    path.reverse();
    Some((path, is_tested))
}

fn part(value: &Json, rests: &[&[String]]) -> Value {
    if rests.iter().any(|rest| rest.is_empty()) {
        return whole(value);
    }
    match value {
        Json::Object(object) => {
            let mut members: HashMap<Key, Value> = HashMap::new();
            for head in rests.iter().filter_map(|rest| rest.first()) {
                if let Some(member) = object.get(head) {
                    let below: Vec<&[String]> = rests
                        .iter()
                        .filter(|rest| rest.first() == Some(head))
                        .map(|rest| &rest[1..])
                        .collect();
                    members.insert(head.as_str().into(), part(member, &below));
                }
            }
            Value::Map(Map { map: Arc::new(members) })
        }
        // A field of a list is an error, whatever is in the list.
        Json::Array(_) => Value::List(Arc::new(Vec::new())),
        other => whole(other),
    }
}

fn whole(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(boolean) => Value::Bool(*boolean),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Value::Int(integer),
            (None, Some(unsigned)) => Value::UInt(unsigned),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::List(Arc::new(items.iter().map(whole).collect())),
        Json::Object(object) => {
            let members = object.iter().map(|(name, member)| (Key::from(name.as_str()), whole(member)));
            Value::Map(Map { map: Arc::new(members.collect()) })
        }
    }
}
