//! Dialects that are a text of their own inside the YAML: compiled here, so that a mistake is shown at its place within the text.

use std::sync::Arc;

use serde_json::{Map, Number, Value as Json};
use sluice_language::{Filter, SyntaxError, cel, cesql, pattern};

use crate::diagnostic::{At, Problems};
use crate::tree::{Entry, Node, Scalar, Value};

/// Keys that belong to the envelope of EventBridge, which a pattern on the data does not see.
const ENVELOPE_KEYS: &[&str] = &["detail", "detail-type", "source"];

pub(crate) fn read_cesql(entry: &Entry, key: cesql::Key, problems: &mut Problems) -> Option<Filter> {
    let scalar = text(entry, "EXISTS subject", problems)?;
    match cesql::Expression::compile(&scalar.text) {
        Ok(expression) => {
            for warning in expression.warnings() {
                // A message could show what came from outside.
                if scalar.reference.is_none() && !problems.is_full_of_warnings() {
                    let at = place_inside(entry.value.at, scalar, warning.at, problems);
                    problems.warning(at, format!("`{}`: {}", entry.key, warning.message));
                }
            }
            Some(Filter::Cesql(Arc::new(expression.under(key))))
        }
        Err(error) => refuse(entry, scalar, &error, problems),
    }
}

pub(crate) fn read_cel(entry: &Entry, problems: &mut Problems) -> Option<Filter> {
    let scalar = text(entry, "event.type == 'a'", problems)?;
    match cel::Program::compile(&scalar.text) {
        Ok(program) => Some(Filter::Cel(Arc::new(program))),
        Err(error) => refuse(entry, scalar, &error, problems),
    }
}

fn text<'e>(entry: &'e Entry, example: &str, problems: &mut Problems) -> Option<&'e Scalar> {
    let (key, node) = (&entry.key, &entry.value);
    let Value::Scalar(scalar) = &node.value else {
        let message = format!("`{key}`: expected an expression such as `{example}`, found {}", node.kind());
        problems.error(node.at, message);
        return None;
    };
    if scalar.text.is_empty() && scalar.reference.is_some() {
        // The reference that failed is reported already.
        return None;
    }
    if node.is_null() || scalar.text.trim().is_empty() {
        problems.error(node.at, format!("`{key}` has no expression: write one such as `{example}`"));
        return None;
    }
    Some(scalar)
}

fn refuse(entry: &Entry, scalar: &Scalar, error: &SyntaxError, problems: &mut Problems) -> Option<Filter> {
    let key = &entry.key;
    if scalar.reference.is_some() {
        // The message could show what came from outside; where the mistake is tells nothing of it.
        let place = error.place_in(&scalar.text);
        let message = format!(
            "`{key}`: {} is not an expression of this dialect: wrong at {place} of it",
            scalar.shown()
        );
        problems.error(entry.value.at, message);
        return None;
    }
    let at = place_inside(entry.value.at, scalar, error.at, problems);
    problems.error(at, format!("`{key}`: {}", error.message));
    None
}

/// The place in the file of a byte of a scalar's text. YAML folds and strips white space and nothing else, so the characters
/// that are none are counted off in the file.
fn place_inside(at: At, scalar: &Scalar, byte: usize, problems: &Problems) -> At {
    let before = scalar.text.get(..byte.min(scalar.text.len())).unwrap_or(&scalar.text);
    let is_end = scalar.text[before.len()..].trim().is_empty();
    let mut left = before.chars().filter(|c| !c.is_whitespace()).count();
    if is_end {
        left = left.saturating_sub(1);
    }
    let mut place = At { length: 1, ..at };
    let Some(style) = Style::of(problems.rest_of_line(at)) else { return at };
    let first_line = if style == Style::Block { at.line + 1 } else { at.line };
    for (number, line) in problems.lines_from(at.file, first_line) {
        let skipped = match number == at.line {
            true => at.column - 1 + usize::from(style != Style::Plain),
            false => 0,
        };
        for (column, is_text) in style.characters(line, skipped) {
            if !is_text {
                continue;
            }
            if left == 0 {
                (place.line, place.column) = (number, column + 1 + usize::from(is_end));
                return place;
            }
            left -= 1;
        }
    }
    at
}

/// How a scalar stands in the file.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    Plain,
    Single,
    Double,
    Block,
}

impl Style {
    fn of(rest: &str) -> Option<Self> {
        Some(match rest.chars().next()? {
            '\'' => Self::Single,
            '"' => Self::Double,
            '|' | '>' => Self::Block,
            _ => Self::Plain,
        })
    }

    /// The columns (from 0) of a line at which a character of the text stands, and whether it is one that YAML keeps in any case.
    fn characters(self, line: &str, skipped: usize) -> Vec<(usize, bool)> {
        let mut found = Vec::new();
        let mut characters = line.chars().enumerate().skip(skipped).peekable();
        while let Some((column, character)) = characters.next() {
            let is_text = match (self, character) {
                (Self::Single, '\'') => {
                    characters.next_if(|(_, next)| *next == '\'');
                    true
                }
                (Self::Double, '\\') => match characters.next().map(|(_, escaped)| escaped) {
                    Some(digits @ ('x' | 'u' | 'U')) => {
                        let count = match digits {
                            'x' => 2,
                            'u' => 4,
                            _ => 8,
                        };
                        characters.by_ref().take(count).for_each(drop);
                        true
                    }
                    Some('n' | 't' | 'r' | ' ' | 'v' | 'f' | 'N' | '_' | 'L' | 'P') | None => false,
                    Some(_) => true,
                },
                (_, character) => !character.is_whitespace(),
            };
            found.push((column, is_text));
        }
        found
    }
}

pub(crate) fn read_data(entry: &Entry, problems: &mut Problems) -> Option<Filter> {
    let node = &entry.value;
    let Value::Map(fields) = &node.value else {
        let message =
            format!("`data`: expected a pattern such as {{ amount: [100] }}, found {}", node.kind());
        problems.error(node.at, message);
        return None;
    };
    for field in fields.iter().filter(|field| ENVELOPE_KEYS.contains(&field.key.as_str())) {
        let message = format!(
            "`data` looks into the event's data only: `{0}` is a field of the data here, not EventBridge's `{0}`",
            field.key
        );
        problems.warning(field.key_at, message);
    }
    let source = json(node, problems)?;
    match pattern::Pattern::compile(&source) {
        Ok(pattern) => Some(Filter::Data(Arc::new(pattern))),
        Err(error) => {
            let at = place_of(entry, &error.path);
            problems.error(at, format!("`data`: {}", error.message));
            None
        }
    }
}

/// Where the value stands that a path of keys and positions leads to; as far as it leads.
fn place_of(entry: &Entry, path: &[String]) -> At {
    let (mut at, mut node) = (entry.key_at, &entry.value);
    for part in path {
        let next = match &node.value {
            Value::Map(entries) => {
                entries.iter().find(|entry| entry.key == *part).map(|entry| (entry.key_at, &entry.value))
            }
            Value::List(items) => {
                part.parse::<usize>().ok().and_then(|n| items.get(n)).map(|item| (item.at, item))
            }
            Value::Scalar(_) => None,
        };
        let Some(found) = next else { break };
        (at, node) = found;
    }
    at
}

/// A value with the types of JSON, as the core schema of YAML 1.2 reads it.
fn json(node: &Node, problems: &mut Problems) -> Option<Json> {
    match &node.value {
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(|item| json(item, problems)).collect();
            items.into_iter().collect::<Option<Vec<_>>>().map(Json::Array)
        }
        Value::Map(entries) => {
            let members: Vec<_> = entries
                .iter()
                .map(|entry| Some((entry.key.clone(), json(&entry.value, problems)?)))
                .collect();
            members.into_iter().collect::<Option<Map<_, _>>>().map(Json::Object)
        }
        Value::Scalar(scalar) if scalar.reference.is_some() && scalar.text.is_empty() => None,
        Value::Scalar(scalar) if scalar.quoted => Some(Json::String(scalar.text.clone())),
        Value::Scalar(scalar) => match core_schema(&scalar.text) {
            Some(value) => Some(value),
            None => {
                let message =
                    format!("{} is no number of JSON: put it in quotes if it is text", scalar.shown());
                problems.error(node.at, message);
                None
            }
        },
    }
}

/// A plain scalar by the core schema (YAML 1.2.2, section 10.3.2); `None` for a number that JSON does not have.
fn core_schema(text: &str) -> Option<Json> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Json::Null),
        "true" | "True" | "TRUE" => return Some(Json::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Json::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => return None,
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return None;
    }
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(digits) = text.strip_prefix(prefix)
            && !digits.is_empty()
            && digits.chars().all(|c| c.is_digit(radix))
        {
            return u64::from_str_radix(digits, radix).ok().map(Json::from);
        }
    }
    if !is_decimal(unsigned) {
        return Some(Json::String(text.to_owned()));
    }
    let plain = text.strip_prefix('+').unwrap_or(text);
    let whole = plain.parse::<i64>().map(Number::from).or_else(|_| plain.parse::<u64>().map(Number::from));
    let number = whole.ok().or_else(|| plain.parse::<f64>().ok().and_then(Number::from_f64));
    number.map(Json::Number)
}

/// Digits with at most one point and an exponent: `[0-9]+`, `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`.
fn is_decimal(text: &str) -> bool {
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let is_mantissa = match mantissa.split_once('.') {
        Some((whole, part)) => {
            all_digits(whole) && all_digits(part) && !(whole.is_empty() && part.is_empty())
        }
        None => !mantissa.is_empty() && all_digits(mantissa),
    };
    let is_exponent = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !digits.is_empty() && all_digits(digits)
    });
    is_mantissa && is_exponent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_have_the_types_of_the_core_schema() {
        let cases = [
            ("", "null"),
            ("~", "null"),
            ("TRUE", "true"),
            ("yes", "\"yes\""),
            ("12", "12"),
            ("+12", "12"),
            ("-0.5", "-0.5"),
            ("1.", "1.0"),
            (".5", "0.5"),
            ("1e3", "1000.0"),
            ("0x1F", "31"),
            ("0o17", "15"),
            ("18446744073709551615", "18446744073709551615"),
            ("1_000", "\"1_000\""),
            ("2026-01-01", "\"2026-01-01\""),
            ("1.2.3", "\"1.2.3\""),
            ("-", "\"-\""),
            (".", "\".\""),
            ("0x", "\"0x\""),
        ];
        for (text, expected) in cases {
            assert_eq!(core_schema(text).map(|value| value.to_string()).as_deref(), Some(expected), "{text}");
        }
        for text in [".inf", "-.INF", ".nan", "1e999"] {
            assert_eq!(core_schema(text), None, "{text}");
        }
    }
}
