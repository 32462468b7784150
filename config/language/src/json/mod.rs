//! JSON as patterns look at it: numbers keep their text, repeated keys are all there, and text is borrowed from the event.
//!
//! `serde_json::Value` has lost by then what event-ruler goes by: it compares numbers that no double holds exactly by their
//! text, and looks at every member of a repeated key. What is JSON is the same for both, nesting up to 127 levels included,
//! but for numbers that are out of a double's range, which are JSON here.

mod number;
mod parse;
mod paths;

use std::borrow::Cow;

pub(crate) use number::{Number, value as number_value};
pub use paths::Paths;

/// A parsed text.
#[derive(Debug)]
pub(crate) struct Document<'e> {
    pub root: Json<'e>,
    /// How many values there are in it, at all depths.
    pub values: usize,
}

#[derive(Debug)]
pub(crate) enum Json<'e> {
    Null,
    Bool(bool),
    Number(Number<'e>),
    Text(Cow<'e, str>),
    Array(Vec<Json<'e>>),
    Object(Object<'e>),
}

/// Members sorted by key; repeated keys in the order they were written.
#[derive(Debug)]
pub(crate) struct Object<'e> {
    members: Vec<(Cow<'e, str>, Json<'e>)>,
    has_dotted_keys: bool,
}

impl<'e> Document<'e> {
    pub fn parse(bytes: &'e [u8]) -> Result<Self, String> {
        parse::document(bytes)
    }
}

impl Json<'_> {
    pub fn is_scalar(&self) -> bool {
        !matches!(self, Self::Array(_) | Self::Object(_))
    }

    /// Writes a text that two scalars share exactly if an exact value of a pattern takes them for equal.
    pub fn write_key(&self, key: &mut String) {
        match self {
            Self::Null => key.push_str("null"),
            Self::Bool(true) => key.push_str("true"),
            Self::Bool(false) => key.push_str("false"),
            Self::Number(number) => number.write_key(key),
            Self::Text(text) => {
                key.push('"');
                key.push_str(text);
            }
            Self::Array(_) | Self::Object(_) => {}
        }
    }
}

impl<'e> Object<'e> {
    fn of(mut members: Vec<(Cow<'e, str>, Json<'e>)>) -> Self {
        if !members.is_sorted_by(|a, b| a.0 <= b.0) {
            members.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let has_dotted_keys = members.iter().any(|(key, _)| key.contains('.'));
        Self { members, has_dotted_keys }
    }

    /// The members of that key.
    pub fn get(&self, key: &str) -> &[(Cow<'e, str>, Json<'e>)] {
        let start = self.members.partition_point(|member| *member.0 < *key);
        let count = self.members[start..].iter().take_while(|member| member.0 == key).count();
        &self.members[start..start + count]
    }

    pub fn members(&self) -> &[(Cow<'e, str>, Json<'e>)] {
        &self.members
    }

    /// Whether a key has a dot, so that it may stand for several steps of a path.
    pub fn has_dotted_keys(&self) -> bool {
        self.has_dotted_keys
    }
}
