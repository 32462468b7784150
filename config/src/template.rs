//! Templates, and JSON that is written as YAML.

use serde_json::{Map, Number, Value as Json};
use sluice_language::template::{Root, Template};

use crate::diagnostic::{At, Problems, quoted};
use crate::tree::{Entry, Node, Scalar, Value};

/// These are likely to be meant as templates of another kind when they hold `{{`.
const DOUBLE_BRACES_WARN: [&str; 4] = ["type", "source", "id", "subject"];

/// Reads JSON whose strings may be templates with paths from these roots, and reports each that is not.
pub(crate) fn read_template(
    name: &str,
    node: &Node,
    roots: &[Root],
    problems: &mut Problems,
) -> Option<Json> {
    match &node.value {
        Value::Scalar(scalar) => {
            let json = scalar_json(name, node, scalar, problems)?;
            if let Json::String(text) = &json {
                check_text(name, node, scalar, text, roots, problems)?;
            }
            Some(json)
        }
        Value::List(items) => {
            let read = |item: &Node| read_template(name, item, roots, problems);
            let items: Vec<_> = items.iter().map(read).collect();
            items.into_iter().collect::<Option<Vec<_>>>().map(Json::Array)
        }
        Value::Map(entries) => {
            if let Some(braces) = unquoted_braces(entries) {
                problems.error(
                    node.at,
                    format!("`{name}`: put text that begins with `{{` in quotes: \"{{{braces}}}\""),
                );
                return None;
            }
            let read = |entry: &Entry| {
                Some((entry.key.clone(), read_template(&entry.key, &entry.value, roots, problems)?))
            };
            let members: Vec<_> = entries.iter().map(read).collect();
            members.into_iter().collect::<Option<Map<_, _>>>().map(Json::Object)
        }
    }
}

/// Reads JSON that is written as YAML.
pub(crate) fn read_json(name: &str, node: &Node, problems: &mut Problems) -> Option<Json> {
    match &node.value {
        Value::Scalar(scalar) => scalar_json(name, node, scalar, problems),
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(|item| read_json(name, item, problems)).collect();
            items.into_iter().collect::<Option<Vec<_>>>().map(Json::Array)
        }
        Value::Map(entries) => {
            let read =
                |entry: &Entry| Some((entry.key.clone(), read_json(&entry.key, &entry.value, problems)?));
            let members: Vec<_> = entries.iter().map(read).collect();
            members.into_iter().collect::<Option<Map<_, _>>>().map(Json::Object)
        }
    }
}

/// Reads the templates of the fields of an event, in the order of the file.
pub(crate) fn read_fields(
    what: &str,
    node: &Node,
    roots: &[Root],
    problems: &mut Problems,
) -> Option<Vec<(String, Json)>> {
    let Value::Map(entries) = &node.value else {
        problems.error(
            node.at,
            format!("`{what}`: expected fields such as {{ type: ... }}, found {}", node.kind()),
        );
        return None;
    };
    let mut fields = Vec::with_capacity(entries.len());
    let mut is_whole = true;
    for entry in entries {
        match read_template(&entry.key, &entry.value, roots, problems) {
            // One by one, so that what is wrong with a name is reported at that name.
            Some(json) => {
                match sluice_language::EventFields::compile(&[(entry.key.clone(), json.clone())], roots) {
                    Ok(_) => fields.push((entry.key.clone(), json)),
                    Err(wrong) => {
                        problems.error(
                            entry.key_at,
                            format!("{} of `{what}`: {}", quoted(&entry.key), wrong.error),
                        );
                        is_whole = false;
                    }
                }
            }
            None => is_whole = false,
        }
    }
    let data = |name: &str| entries.iter().find(|entry| entry.key == name);
    if let (Some(_), Some(second)) = (data("data"), data("data_base64")) {
        problems.error(second.key_at, "`data` and `data_base64` exclude each other");
        return None;
    }
    is_whole.then_some(fields)
}

fn check_text(
    name: &str,
    node: &Node,
    scalar: &Scalar,
    text: &str,
    roots: &[Root],
    problems: &mut Problems,
) -> Option<()> {
    if let Err(error) = Template::compile_text(text, roots) {
        // What came from outside the file is not shown, and neither is its place.
        match &scalar.reference {
            Some(_) => problems.error(node.at, format!("`{name}`: {} is no template", scalar.shown())),
            None => problems.error(within(node, text, error.at), format!("`{name}`: {}", error.message)),
        }
        return None;
    }
    if DOUBLE_BRACES_WARN.contains(&name) && text.contains("{{") {
        let message = format!("`{name}`: `{{{{` stands for a brace: a path is written in single braces");
        problems.warning(node.at, message);
    }
    Some(())
}

/// The place of a byte of a text that stands on one line as it is.
pub(crate) fn within(node: &Node, text: &str, offset: usize) -> At {
    let at = node.at;
    let Value::Scalar(scalar) = &node.value else { return at };
    let before = text.get(..offset).unwrap_or(text);
    let characters = text.chars().count();
    let quote = usize::from(scalar.quoted);
    // In a block scalar, and where quotes hold escapes or there are references, the file has other columns.
    if scalar.reference.is_some() || at.length != characters + 2 * quote || text.contains('\n') {
        return at;
    }
    let skipped = quote + before.chars().count();
    At { column: at.column + skipped, length: at.length.saturating_sub(skipped + quote).max(1), ..at }
}

/// `{body.x}` without quotes is a mapping with one key to YAML.
fn unquoted_braces(entries: &[Entry]) -> Option<&str> {
    let [entry] = entries else { return None };
    let root = entry.key.split(['.', '[', '|']).next()?;
    let is_path = entry.value.is_null() && Root::ALL.iter().any(|known| known.as_str() == root);
    is_path.then_some(&entry.key)
}

/// A scalar in the type that YAML gives it (YAML 1.2, section 10.3).
fn scalar_json(name: &str, node: &Node, scalar: &Scalar, problems: &mut Problems) -> Option<Json> {
    let text = scalar.text.as_str();
    if scalar.quoted || scalar.reference.is_some() {
        return Some(Json::String(text.to_owned()));
    }
    if node.is_null() {
        return Some(Json::Null);
    }
    match text {
        "true" | "True" | "TRUE" => return Some(Json::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Json::Bool(false)),
        _ => {}
    }
    // What is no number of JSON (`0x1f`, `.inf`, `007`) could be meant as text or as a number.
    if let Ok(number) = serde_json::from_str::<Number>(text) {
        return Some(Json::Number(number));
    }
    if crate::filter::is_number_like(text) {
        problems.error(
            node.at,
            format!("`{name}`: {} is a number to YAML and not to JSON: put it in quotes", quoted(text)),
        );
        return None;
    }
    Some(Json::String(text.to_owned()))
}
