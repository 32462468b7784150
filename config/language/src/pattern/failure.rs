//! Why data does not match.

use serde_json::Value;

use super::search::{self, Branch, Field};
use crate::Failure;
use crate::json::{Document, Json};

/// Values shown of a field that has more.
const SHOWN_MAX: usize = 5;
/// Bytes shown of one value.
const VALUE_BYTES_MAX: usize = 80;

/// The first failure of the branch that gets furthest; the document matches no branch.
pub(super) fn first(branches: &[Branch], document: &Document<'_>) -> Option<Failure> {
    if !matches!(document.root, Json::Object(_)) {
        let actual = shown(&document.root);
        let message = format!("the data is {actual}, not an object");
        return Some(Failure { filter: "data".into(), expected: "an object".into(), actual, message });
    }
    let holding = |branch: &Branch| branch.fields.iter().take_while(|field| holds(field, document)).count();
    // Of several that get as far, the last maximum is the first branch.
    let (count, branch) =
        branches.iter().rev().map(|branch| (holding(branch), branch)).max_by_key(|(count, _)| *count)?;
    Some(match branch.fields.get(count) {
        Some(field) => of_field(field, document),
        None => of_elements(branch, document),
    })
}

/// Whether the field holds by itself.
fn holds(field: &Field, document: &Document<'_>) -> bool {
    let scalars = field.scalars(document);
    let alternatives = &field.alternatives;
    scalars.iter().any(|scalar| alternatives.hold(scalar))
        || (alternatives.may_be_absent && scalars.is_empty())
}

fn of_field(field: &Field, document: &Document<'_>) -> Failure {
    let filter = format!("data.{}", field.name);
    let expected = field.alternatives.describe();
    let scalars = field.scalars(document);
    let (actual, message) = match &scalars[..] {
        [] => ("absent".to_owned(), format!("`{filter}` is absent")),
        [only] => {
            let actual = shown(only);
            let message = format!("`{filter}`: {actual} is not {expected}");
            (actual, message)
        }
        several => {
            let mut all: Vec<_> = several.iter().take(SHOWN_MAX).map(|scalar| shown(scalar)).collect();
            if several.len() > SHOWN_MAX {
                all.push(format!("{} more", several.len() - SHOWN_MAX));
            }
            let actual = all.join(", ");
            let message = format!("`{filter}`: none of {actual} is {expected}");
            (actual, message)
        }
    };
    Failure { filter, expected, actual, message }
}

/// Each field holds somewhere, but not all in one element of each array.
fn of_elements(branch: &Branch, document: &Document<'_>) -> Failure {
    let conflict = branch.conflict(document);
    let names = |fields: &[Field]| {
        fields.iter().map(|field| format!("`data.{}`", field.name)).collect::<Vec<_>>().join(", ")
    };
    let (filter, message) = match conflict.split_last() {
        Some((last, before)) => (
            format!("data.{}", last.name),
            format!(
                "{} and `data.{}` hold, but not in the same element of an array",
                names(before),
                last.name
            ),
        ),
        None => ("data".to_owned(), "the fields hold, but not in the same element of an array".to_owned()),
    };
    Failure {
        filter,
        expected: "all fields in the same element of an array".into(),
        actual: "fields in different elements".into(),
        message,
    }
}

fn shown(json: &Json<'_>) -> String {
    let text = match json {
        Json::Null => return "null".into(),
        Json::Bool(is_true) => return is_true.to_string(),
        Json::Array(_) => return "an array".into(),
        Json::Object(_) => return "an object".into(),
        Json::Number(number) => number.text.to_owned(),
        Json::Text(text) => Value::from(text.as_ref()).to_string(),
    };
    if text.len() <= VALUE_BYTES_MAX {
        return text;
    }
    let end = text.floor_char_boundary(VALUE_BYTES_MAX);
    format!("{}…", &text[..end])
}

impl Branch {
    /// The shortest start of the fields that does not hold together.
    fn conflict(&self, document: &Document<'_>) -> &[Field] {
        let fails = |count: &usize| {
            let start = Self::of(self.fields[..*count].into());
            !search::matches(std::slice::from_ref(&start), document).unwrap_or(false)
        };
        let count = (1..=self.fields.len()).find(fails);
        count.map_or(&[], |count| &self.fields[..count])
    }
}
