//! Tables in the form of the CESQL conformance tests: one YAML file with `name` and `tests` each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value as Json, json};
use sluice_language::Facts;
use sluice_language::cesql::{ErrorKind, Expression, Value};
use sluice_schemas::Event;

#[derive(Deserialize)]
pub struct Table {
    name: String,
    tests: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    name: String,
    /// Bare scalars such as `TRUE` and `-10` stand for their text.
    expression: String,
    /// Absent where the expression does not parse.
    result: Option<Json>,
    error: Option<String>,
    event: Option<BTreeMap<String, Json>>,
    #[serde(default)]
    event_overrides: BTreeMap<String, Json>,
}

/// What an expression came to, as the tables write it.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub value: Json,
    pub error: Option<&'static str>,
    pub message: String,
}

/// Cases of the public suite that the specification contradicts: file, name, the rule, and what follows from it.
const DIFFERENCES: &[(&str, &str, &str, bool)] = &[(
    "not_operator.yaml",
    "Invalid int cast",
    "3.7: an Integer is cast to Boolean, and every one but 0 is true; so `NOT 10` is false, without an error",
    false,
)];

pub struct Tally {
    pub passed: usize,
    pub failures: Vec<String>,
}

/// Runs all tables of a directory and prints a line for each.
pub fn run(dir: &Path) -> Tally {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{}: no *.yaml in it", dir.display());
    let mut all = Tally { passed: 0, failures: Vec::new() };
    for path in files {
        let text = std::fs::read_to_string(&path).expect("readable");
        let table: Table =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut failures: Vec<_> = table.tests.iter().filter_map(|case| failure(&file, case)).collect();
        let passed = table.tests.len() - failures.len();
        println!("{file}: {}: {passed} passed, {} failed", table.name, failures.len());
        all.passed += passed;
        all.failures.append(&mut failures);
    }
    println!("{}: {} passed, {} failed", dir.display(), all.passed, all.failures.len());
    all
}

fn failure(file: &str, case: &Case) -> Option<String> {
    let differs = DIFFERENCES
        .iter()
        .find(|(of, name, ..)| *of == file && *name == case.name && case.expression == "NOT 10");
    let expected = match differs {
        Some((.., rule, result)) => {
            println!("{file}: {}: {rule}", case.name);
            (Some(json!(result)), None)
        }
        None => (case.result.clone(), case.error.as_deref()),
    };
    let found = evaluate(&case.expression, &event(case));
    let is_value_right = expected.0.as_ref().is_none_or(|value| *value == found.value);
    if is_value_right && expected.1 == found.error {
        return None;
    }
    Some(format!("{file}: {}: {}\n  expected {expected:?}\n  found {found:?}", case.name, case.expression))
}

pub fn evaluate(expression: &str, event: &Event) -> Outcome {
    let expression = match Expression::compile(expression) {
        Ok(expression) => expression,
        Err(error) => {
            let (value, error, message) = (json!(false), Some(ErrorKind::Parse.name()), error.message);
            return Outcome { value, error, message };
        }
    };
    let facts = Facts::of(event);
    let evaluation = expression.evaluate(&facts);
    let value = match evaluation.value {
        Value::Boolean(truth) => json!(truth),
        Value::Integer(number) => json!(number),
        Value::String(text) => json!(text),
    };
    let message = evaluation.error.as_ref().map(|error| error.message.clone()).unwrap_or_default();
    Outcome { value, error: evaluation.error.map(|error| error.kind.name()), message }
}

fn event(case: &Case) -> Event {
    let any = || {
        let attributes = json!({ "specversion": "1.0", "id": "1", "source": "/any", "type": "any" });
        serde_json::from_value(attributes).expect("a map")
    };
    let mut attributes = case.event.clone().unwrap_or_else(any);
    attributes.extend(case.event_overrides.clone());
    let text = serde_json::to_vec(&attributes).expect("JSON");
    sluice_schemas::json::decode(&text.into()).unwrap_or_else(|error| panic!("{}: {error}", case.name))
}
