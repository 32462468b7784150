//! Filters in the dialects of the CloudEvents Subscriptions API.

use sluice_language::Filter;
use sluice_language::cesql::Key;

use crate::diagnostic::{Problems, quoted};
use crate::expression::{read_cel, read_cesql, read_data};
use crate::keys::{nearest, one_of};
use crate::place::Places;
use crate::tree::{Entry, Node, Scalar, Value};

pub(crate) const DIALECTS: &[&str] =
    &["exact", "prefix", "suffix", "all", "any", "not", "sql", "cesql", "data", "cel"];
const DEPTH_MAX: usize = 32;
/// Fields of a pattern whose places are kept.
const FIELDS_MAX: usize = 256;

/// Reads the `filters` of a trigger. An empty list matches everything; nothing at all is more likely a mistake.
pub(crate) fn read_filters(node: &Node, places: &mut Places, problems: &mut Problems) -> Option<Vec<Filter>> {
    match &node.value {
        Value::List(items) => {
            read_list(items, &Within { path: "filters".into(), depth: 1 }, places, problems)
        }
        Value::Scalar(_) if node.is_null() => {
            let message = "`filters` has no value: leave it out, or write `[]`, to match every event";
            problems.error(node.at, message);
            None
        }
        Value::Map(_) => {
            let message = "`filters`: expected a list, found a mapping: put `- ` before the dialect";
            problems.error(node.at, message);
            None
        }
        Value::Scalar(_) => {
            let message = format!("`filters`: expected a list, found {}", node.kind());
            problems.error(node.at, message);
            None
        }
    }
}

/// Where a filter is: `filters[0].any`, and how many levels deep.
struct Within {
    path: String,
    depth: usize,
}

impl Within {
    fn item(&self, n: usize) -> Self {
        Self { path: format!("{}[{n}]", self.path), depth: self.depth }
    }

    fn below(&self, dialect: &str) -> Self {
        Self { path: format!("{}.{dialect}", self.path), depth: self.depth + 1 }
    }
}

fn read_list(
    items: &[Node],
    within: &Within,
    places: &mut Places,
    problems: &mut Problems,
) -> Option<Vec<Filter>> {
    let read = |(n, item)| read_filter(item, &within.item(n), places, problems);
    let filters: Vec<_> = items.iter().enumerate().map(read).collect();
    filters.into_iter().collect()
}

fn read_filter(node: &Node, within: &Within, places: &mut Places, problems: &mut Problems) -> Option<Filter> {
    if within.depth > DEPTH_MAX {
        problems.error(node.at, format!("filters nested more than {DEPTH_MAX} levels deep"));
        return None;
    }
    let Value::Map(entries) = &node.value else {
        let message = format!("expected a filter such as `exact: {{ type: ... }}`, found {}", node.kind());
        problems.error(node.at, message);
        return None;
    };
    let entry = match entries.as_slice() {
        [entry] => entry,
        [] => {
            problems.error(node.at, format!("an empty filter: expected one of {}", one_of(DIALECTS)));
            return None;
        }
        [_, second, ..] => {
            let message = format!(
                "{} is a second dialect in one filter: begin it with `- `, or put both under `all`",
                quoted(&second.key)
            );
            problems.error(second.key_at, message);
            return None;
        }
    };
    keep_places(entry, within, places, problems);
    match entry.key.as_str() {
        "exact" => read_attributes(entry, problems).map(Filter::Exact),
        "prefix" => read_attributes(entry, problems).map(Filter::Prefix),
        "suffix" => read_attributes(entry, problems).map(Filter::Suffix),
        "all" => read_nested(entry, within, places, problems).map(Filter::All),
        "any" => read_nested(entry, within, places, problems).map(Filter::Any),
        "not" => read_not(entry, within, places, problems),
        "sql" => read_cesql(entry, Key::Sql, problems),
        "cesql" => read_cesql(entry, Key::Cesql, problems),
        "data" => read_data(entry, problems),
        "cel" => read_cel(entry, problems),
        _ => {
            problems.error(entry.key_at, unknown_dialect(&entry.key));
            None
        }
    }
}

/// Notes where a filter and the fields it names stand.
fn keep_places(entry: &Entry, within: &Within, places: &mut Places, problems: &Problems) {
    let dialect = entry.key.as_str();
    places.add(&format!("{}.{dialect}", within.path), problems.place_of(entry.key_at));
    if matches!(dialect, "exact" | "prefix" | "suffix" | "data") {
        let mut left = FIELDS_MAX;
        keep_fields(&entry.value, &format!("{}.{dialect}", within.path), &mut left, places, problems);
    }
}

fn keep_fields(node: &Node, path: &str, left: &mut usize, places: &mut Places, problems: &Problems) {
    let Value::Map(entries) = &node.value else { return };
    for entry in entries {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let path = format!("{path}.{}", entry.key);
        places.add(&path, problems.place_of(entry.key_at));
        keep_fields(&entry.value, &path, left, places, problems);
    }
}

fn unknown_dialect(dialect: &str) -> String {
    let supported = one_of(DIALECTS);
    let meant = match dialect {
        "and" | "&&" => Some("all"),
        "or" | "||" => Some("any"),
        "==" | "=" | "eq" | "equals" | "attributes" => Some("exact"),
        "!" | "none" => Some("not"),
        "startswith" | "starts_with" => Some("prefix"),
        "endswith" | "ends_with" => Some("suffix"),
        "type" | "source" | "subject" => {
            return format!("`{dialect}` is no dialect: write `exact: {{ {dialect}: ... }}`");
        }
        other => nearest(other, DIALECTS),
    };
    let hint = meant.map_or(String::new(), |meant| format!(" (did you mean `{meant}`?)"));
    format!("unknown filter dialect {}: expected {supported}{hint}", quoted(dialect))
}

fn read_nested(
    entry: &Entry,
    within: &Within,
    places: &mut Places,
    problems: &mut Problems,
) -> Option<Vec<Filter>> {
    match &entry.value.value {
        Value::List(items) if !items.is_empty() => {
            read_list(items, &within.below(&entry.key), places, problems)
        }
        Value::List(_) => {
            problems.error(entry.value.at, format!("`{}` needs at least one filter", entry.key));
            None
        }
        Value::Scalar(_) | Value::Map(_) => {
            let message =
                format!("`{}`: expected a list of filters, found {}", entry.key, entry.value.kind());
            problems.error(entry.value.at, message);
            None
        }
    }
}

fn read_not(entry: &Entry, within: &Within, places: &mut Places, problems: &mut Problems) -> Option<Filter> {
    if let Value::List(_) = entry.value.value {
        let message = "`not` takes one filter, not a list: for several, write `not: { any: [...] }`";
        problems.error(entry.value.at, message);
        return None;
    }
    read_filter(&entry.value, &within.below("not"), places, problems)
        .map(|filter| Filter::Not(Box::new(filter)))
}

fn read_attributes(entry: &Entry, problems: &mut Problems) -> Option<Vec<(String, String)>> {
    let dialect = &entry.key;
    let attributes = match &entry.value.value {
        Value::Map(attributes) if !attributes.is_empty() => attributes,
        Value::Map(_) => {
            problems.error(entry.value.at, format!("`{dialect}` needs at least one attribute"));
            return None;
        }
        Value::Scalar(_) | Value::List(_) => {
            let found = entry.value.kind();
            let message = format!("`{dialect}`: expected attributes such as {{ type: ... }}, found {found}");
            problems.error(entry.value.at, message);
            return None;
        }
    };
    let pairs: Vec<_> =
        attributes.iter().map(|attribute| read_attribute(dialect, attribute, problems)).collect();
    pairs.into_iter().collect()
}

fn read_attribute(dialect: &str, attribute: &Entry, problems: &mut Problems) -> Option<(String, String)> {
    let name = attribute.key.as_str();
    if !is_attribute_name(name) {
        let lower = name.to_ascii_lowercase();
        let hint =
            if is_attribute_name(&lower) { format!(": did you mean `{lower}`?") } else { String::new() };
        let message = format!("{} is not an attribute name, which is a-z and 0-9 only{hint}", quoted(name));
        problems.error(attribute.key_at, message);
        return None;
    }
    if name == "data" {
        let message = format!("`data` is not an attribute: `{dialect}` does not look into the data");
        problems.error(attribute.key_at, message);
        return None;
    }
    let node = &attribute.value;
    match &node.value {
        Value::Scalar(scalar) => match attribute_text(scalar) {
            Ok(value) => Some((name.to_owned(), value.to_owned())),
            // The reference that failed is reported already.
            Err(_) if scalar.reference.is_some() => None,
            Err(why) => {
                problems.error(node.at, format!("`{dialect}` of `{name}`: {why}"));
                None
            }
        },
        Value::List(_) => {
            let message =
                format!("`{dialect}` of `{name}` takes one value: for several, write `any` of several");
            problems.error(node.at, message);
            None
        }
        Value::Map(_) => {
            let message = format!("`{dialect}` of `{name}`: expected text, found a mapping");
            problems.error(node.at, message);
            None
        }
    }
}

/// Attribute names of CloudEvents: lower-case letters and digits.
pub(crate) fn is_attribute_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The text to compare with. Whole numbers and booleans have one spelling in CloudEvents and are taken as they are written; of
/// other things YAML reads as no text, nobody can tell which spelling is meant.
fn attribute_text(scalar: &Scalar) -> Result<&str, String> {
    let text = scalar.text.as_str();
    if text.is_empty() && (scalar.quoted || scalar.reference.is_some()) {
        return Err("the value is empty".into());
    }
    if scalar.quoted || scalar.reference.is_some() {
        return Ok(text);
    }
    if matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        return Err("the value is missing; if the text `null` is meant, put it in quotes".into());
    }
    if matches!(text, "True" | "TRUE" | "False" | "FALSE") {
        return Err(format!("put {} in quotes, or write it in lower case", quoted(text)));
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    if crate::keys::whole_number(digits).is_some() && text != "-0" {
        return Ok(text);
    }
    if is_number_like(text) {
        return Err(format!("{} is a number to YAML: put it in quotes", quoted(text)));
    }
    if is_date_like(text) {
        return Err(format!("{} is a date to YAML: put it in quotes", quoted(text)));
    }
    Ok(text)
}

pub(crate) fn is_number_like(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let special = matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN");
    let based = ["0x", "0o", "0b"].iter().any(|base| {
        let digits = unsigned.strip_prefix(base);
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()))
    });
    let starts = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    special || based || (starts && unsigned.replace('_', "").parse::<f64>().is_ok())
}

fn is_date_like(text: &str) -> bool {
    let date = text.as_bytes();
    date.len() >= 10
        && date[..10].iter().enumerate().all(|(n, byte)| match n {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
        && matches!(date.get(10), None | Some(b'T' | b't' | b' '))
}
