//! The rules of CloudEvents 1.0 for attributes.

use crate::event::{Kind, Value};
use crate::syntax::{self, MediaType};

/// Attribute names are at most this long. The standard recommends 20 and sets no bound; this one keeps headers sane.
pub const NAME_BYTES_MAX: usize = 64;

/// An attribute that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attribute `{attribute}` {rule}")]
pub struct Invalid {
    pub attribute: String,
    pub rule: Rule,
}

/// Which rule; its text completes a sentence that begins with the attribute.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    #[error("is required")]
    Required,
    #[error("must not be empty")]
    Empty,
    #[error("occurs more than once")]
    Duplicate,
    #[error("has an illegal name: 1 to {NAME_BYTES_MAX} characters of a to z and 0 to 9 are allowed")]
    Name,
    #[error("cannot be an attribute: the name `data` is reserved")]
    Reserved,
    #[error("has the unsupported value `{found}`: only `1.0` is known")]
    SpecVersion { found: String },
    #[error("must be a URI-reference (RFC 3986)")]
    UriReference,
    #[error("must be an absolute URI (RFC 3986)")]
    AbsoluteUri,
    #[error("must be a media type such as `application/json` (RFC 2046)")]
    MediaType,
    #[error("must be a timestamp such as `2026-01-31T12:00:00Z` (RFC 3339)")]
    Timestamp,
    #[error("must be an integer from -2147483648 to 2147483647, without fraction or exponent")]
    Integer,
    #[error("must be `true` or `false`")]
    Boolean,
    #[error("must be a string, not {found}")]
    NotAString { found: &'static str },
    #[error("must be a string, an integer or a boolean, not {found}")]
    Type { found: &'static str },
    #[error("holds U+{:04X}, a control character or noncharacter", *found as u32)]
    Character { found: char },
    #[error("holds a surrogate that has no partner, or a broken escape")]
    Escape,
    #[error("is not valid UTF-8")]
    Utf8,
    #[error("conflicts with the `Content-Type` header")]
    ContentTypeConflict,
}

impl Invalid {
    pub(crate) fn new(attribute: &str, rule: Rule) -> Self {
        Self { attribute: shorten(attribute), rule }
    }
}

/// Checks every rule and returns the first that is broken. `specversion` comes first, because other versions have
/// other rules.
pub(crate) fn check(attributes: &[(Box<str>, Value)]) -> Result<(), Invalid> {
    for required in ["specversion", "id", "source", "type"] {
        let found = attributes.iter().find(|(name, _)| **name == *required);
        let (_, value) = found.ok_or_else(|| Invalid::new(required, Rule::Required))?;
        check_value(required, value).map_err(|rule| Invalid::new(required, rule))?;
    }
    for (name, value) in attributes {
        check_name(name).map_err(|rule| Invalid::new(name, rule))?;
        if !matches!(&**name, "specversion" | "id" | "source" | "type") {
            check_value(name, value).map_err(|rule| Invalid::new(name, rule))?;
        }
    }
    match first_duplicate(attributes.iter().map(|(name, _)| &**name)) {
        Some(name) => Err(Invalid::new(name, Rule::Duplicate)),
        None => Ok(()),
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), Rule> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(legal) {
        return Err(Rule::Name);
    }
    if name == "data" { Err(Rule::Reserved) } else { Ok(()) }
}

/// A name that is there twice. Few names are compared each with each; for many that would take a sender's input to
/// quadratic time, so they are sorted.
pub(crate) fn first_duplicate<'a>(names: impl ExactSizeIterator<Item = &'a str> + Clone) -> Option<&'a str> {
    const PAIRWISE_MAX: usize = 24;
    if names.len() <= PAIRWISE_MAX {
        let mut rest = names;
        while let Some(name) = rest.next() {
            if rest.clone().any(|other| other == name) {
                return Some(name);
            }
        }
        return None;
    }
    let mut sorted: Vec<&str> = names.collect();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

fn check_value(name: &str, value: &Value) -> Result<(), Rule> {
    let text = &*value.text;
    check_kind(name, value)?;
    check_characters(text)?;
    let must_not_be_empty = matches!(
        name,
        "id" | "source" | "specversion" | "type" | "subject" | "time" | "dataschema" | "datacontenttype"
    );
    if must_not_be_empty && text.is_empty() {
        return Err(Rule::Empty);
    }
    let (holds, rule) = match name {
        "specversion" if text != "1.0" => return Err(Rule::SpecVersion { found: shorten(text) }),
        "source" => (syntax::is_uri_reference(text), Rule::UriReference),
        "dataschema" => (syntax::is_absolute_uri(text), Rule::AbsoluteUri),
        "datacontenttype" => (MediaType::parse(text).is_some(), Rule::MediaType),
        "time" => (syntax::is_timestamp(text), Rule::Timestamp),
        _ => return Ok(()),
    };
    if holds { Ok(()) } else { Err(rule) }
}

fn check_kind(name: &str, value: &Value) -> Result<(), Rule> {
    let found = match value.kind {
        Kind::String => return Ok(()),
        Kind::Integer => "a number",
        Kind::Boolean => "a boolean",
    };
    let is_core = matches!(
        name,
        "id" | "source" | "specversion" | "type" | "subject" | "time" | "dataschema" | "datacontenttype"
    );
    if is_core {
        return Err(Rule::NotAString { found });
    }
    match value.kind {
        Kind::Integer if !is_canonical_integer(&value.text) => Err(Rule::Integer),
        Kind::Boolean if !matches!(&*value.text, "true" | "false") => Err(Rule::Boolean),
        Kind::String | Kind::Integer | Kind::Boolean => Ok(()),
    }
}

fn is_canonical_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = text == "0" || digits.bytes().next().is_some_and(|first| matches!(first, b'1'..=b'9'));
    is_plain && text.parse::<i32>().is_ok()
}

/// Finds what a String must not hold (core, "Type System"): controls U+0000-001F and U+007F-009F, and noncharacters.
fn check_characters(text: &str) -> Result<(), Rule> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Ok(());
    }
    let is_noncharacter = |c: char| matches!(c, '\u{FDD0}'..='\u{FDEF}') || (c as u32) & 0xFFFE == 0xFFFE;
    match text.chars().find(|&c| c.is_control() || is_noncharacter(c)) {
        Some(found) => Err(Rule::Character { found }),
        None => Ok(()),
    }
}

/// Keeps what a sender wrote from filling an error message, and control characters out of it.
pub(crate) fn shorten(text: &str) -> String {
    const CHARACTERS_MAX: usize = 80;
    let visible = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut short: String = text.chars().take(CHARACTERS_MAX).map(visible).collect();
    if text.chars().nth(CHARACTERS_MAX).is_some() {
        short.push('…');
    }
    short
}
