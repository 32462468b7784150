//! `transform` of a trigger.

use sluice_language::template::Root;
use sluice_language::transform::Transform;
use sluice_language::transform::jq::Jq;

use crate::diagnostic::{Problems, quoted};
use crate::keys::{Keys, text};
use crate::template::{read_fields, read_template, within};
use crate::tree::{Entry, Node, Value};

pub(crate) const TRANSFORM_KEYS: &[&str] = &["jq", "set", "data"];

/// Reads `{ jq: PROGRAM }`, or `{ set: {ATTRIBUTE: TEMPLATE}, data: TEMPLATE }` with one of the two at least.
pub(crate) fn read_transform(node: &Node, problems: &mut Problems) -> Option<Transform> {
    if let Value::Scalar(_) = &node.value
        && !node.is_null()
    {
        let message = "`transform`: expected { jq: ... } or { set: ..., data: ... }";
        problems.error(node.at, format!("{message}, found {}", node.kind()));
        return None;
    }
    let keys = Keys::of(node, "`transform`", TRANSFORM_KEYS, problems)?;
    let (set, data) = (keys.entry("set"), keys.entry("data"));
    match (keys.get("jq"), set.or(data)) {
        (Some(program), None) => read_jq(program, problems),
        (Some(_), Some(other)) => {
            let message =
                format!("`jq` makes the whole event: {} cannot stand beside it", quoted(&other.key));
            problems.error(other.key_at, message);
            None
        }
        (None, None) => {
            problems.error(node.at, "`transform` says nothing: expected `jq`, or `set` and `data`");
            None
        }
        (None, Some(_)) => read_set(set, data, problems),
    }
}

fn read_jq(node: &Node, problems: &mut Problems) -> Option<Transform> {
    let program = text("jq", node, problems)?;
    match Jq::compile(program) {
        Ok(program) => Some(Transform::Jq(program)),
        Err(error) => {
            let at = within(node, program, error.at);
            let before = program.get(..error.at).unwrap_or(program);
            let line = before.matches('\n').count() + 1;
            // The place within a block scalar is not known.
            let place =
                if program.trim_end().contains('\n') { format!(", line {line}") } else { String::new() };
            problems.error(at, format!("`jq`{place}: {}", error.message));
            None
        }
    }
}

fn read_set(set: Option<&Entry>, data: Option<&Entry>, problems: &mut Problems) -> Option<Transform> {
    let fields = match set {
        Some(entry) => read_fields("set", &entry.value, &Root::OF_EVENT, problems),
        None => Some(Vec::new()),
    };
    let json = match data {
        Some(entry) => read_template("data", &entry.value, &Root::OF_EVENT, problems).map(Some),
        None => Some(None),
    };
    let (fields, json) = (fields?, json?);
    let at = set.or(data)?.key_at;
    if let (Some(entry), Some((name, _))) =
        (set, fields.iter().find(|(name, _)| name == "data" || name == "data_base64"))
    {
        let message = format!("{} is no attribute: `data` stands beside `set`", quoted(name));
        problems.error(entry.key_at, message);
        return None;
    }
    let compiled = Transform::compile_set(&fields, json.as_ref());
    compiled.map_err(|wrong| problems.error(at, wrong.to_string())).ok()
}
