//! `sluice cesql`: the value of an expression.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use sluice_language::Facts;
use sluice_language::cesql::{ErrorKind, Evaluation, EvaluationError, Expression, Type, Value};
use sluice_schemas::Event;

use super::Error;
use super::output::{escaped, print, print_json};

/// Evaluate a CESQL expression for an event: its value, its type, and its error.
///
/// As a filter (`sql:` or `cesql:`), an expression passes when its value is true and there is no error.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice cesql -- \"LENGTH('abc') + 1\"
  sluice cesql --event event.json -- \"type LIKE 'com.example.%' AND EXISTS subject\"
  sluice events show --raw 1207 | sluice cesql --event - --json -- 'INT(sequence) % 2 = 0'

Exit codes: 0 a value, 1 an error of the expression or no event, 2 usage. With --json an error of the
expression is a member of the document like its value, and the exit code is 0.")]
pub struct Args {
    /// A file with one JSON event; `-` is standard input. Without it, an event that has the required attributes only
    #[arg(long, value_name = "FILE|-")]
    event: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The expression; after `--` it may begin with a minus
    #[arg(value_name = "EXPR")]
    expression: String,
}

pub fn cesql(args: &Args) -> Result<(), Error> {
    let event = match &args.event {
        Some(path) => read(path)?,
        None => required_only()?,
    };
    let facts = Facts::of(&event);
    let compiled = Expression::compile(&args.expression);
    let evaluation = match &compiled {
        Ok(expression) => expression.evaluate(&facts),
        Err(error) => {
            let error =
                EvaluationError { kind: ErrorKind::Parse, at: error.at, message: error.message.clone() };
            Evaluation { value: Type::Boolean.zero(), error: Some(error) }
        }
    };
    // In CESQL an expression that errs has a value all the same, and whoever reads the document finds both.
    if args.json {
        return print_json(&document(&evaluation).to_string());
    }
    print(&description(&args.expression, &evaluation))?;
    match evaluation.error {
        None => Ok(()),
        Some(error) => Err(Error::failed(format!("the expression has a {} error", error.kind.name()))),
    }
}

fn read(path: &Path) -> Result<Event, Error> {
    let mut bytes = Vec::new();
    let (name, outcome) = if path.as_os_str() == "-" {
        ("standard input".to_owned(), std::io::stdin().read_to_end(&mut bytes))
    } else {
        let opened = std::fs::File::open(path);
        (path.display().to_string(), opened.and_then(|mut file| file.read_to_end(&mut bytes)))
    };
    outcome.map_err(|error| Error::failed_because(format!("cannot read {name}"), error))?;
    sluice_schemas::json::decode(&bytes.into())
        .map_err(|error| Error::failed_because(format!("{name} is no CloudEvent in JSON"), error))
}

fn required_only() -> Result<Event, Error> {
    Event::builder()
        .attribute("specversion", "1.0")
        .attribute("id", "1")
        .attribute("source", "/")
        .attribute("type", "example")
        .build()
        .map_err(|error| Error::failed_because("no event", error))
}

fn document(evaluation: &Evaluation<'_>) -> Json {
    let value = match &evaluation.value {
        Value::Boolean(truth) => json!(truth),
        Value::Integer(number) => json!(number),
        Value::String(text) => json!(text),
    };
    let error = evaluation
        .error
        .as_ref()
        .map(|error| json!({ "kind": error.kind.name(), "message": error.message, "position": error.at }));
    json!({ "value": value, "type": type_name(&evaluation.value), "error": error })
}

fn description(expression: &str, evaluation: &Evaluation<'_>) -> String {
    let value = escaped(&evaluation.value.to_string());
    let mut text = format!("value  {value}\ntype   {}\n", type_name(&evaluation.value));
    match &evaluation.error {
        None => text += "error  none\n",
        Some(EvaluationError { kind, at, message }) => {
            text += &format!("error  {} at byte {at}: {}\n", kind.name(), escaped(message));
            if !expression.contains(|c: char| c.is_control()) {
                let before = expression.get(..*at).unwrap_or_default().chars().count();
                text += &format!("       {}\n       {}^\n", escaped(expression), " ".repeat(before));
            }
        }
    }
    text
}

fn type_name(value: &Value<'_>) -> &'static str {
    match value.ty() {
        Type::Boolean => "boolean",
        Type::Integer => "integer",
        Type::String => "string",
    }
}
