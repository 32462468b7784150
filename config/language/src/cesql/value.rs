//! Values, their types, and casts between them (CESQL 3.1 and 3.7).

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// What an expression can evaluate to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Boolean(bool),
    Integer(i32),
    String(Cow<'a, str>),
}

/// The type of a value. URIs, timestamps and bytes are strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Boolean,
    Integer,
    String,
}

/// A value that has no counterpart in another type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoCast {
    /// The text of the value.
    pub text: String,
    pub to: Type,
}

/// A value in a message is cut after this many characters.
const SHOWN_CHARS_MAX: usize = 80;

impl Type {
    /// What an operator or function of this type returns beside an error.
    pub fn zero(self) -> Value<'static> {
        match self {
            Self::Boolean => Value::Boolean(false),
            Self::Integer => Value::Integer(0),
            Self::String => Value::String(Cow::Borrowed("")),
        }
    }

    /// The name as the specification writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "Boolean",
            Self::Integer => "Integer",
            Self::String => "String",
        }
    }
}

impl<'a> Value<'a> {
    pub fn ty(&self) -> Type {
        match self {
            Self::Boolean(_) => Type::Boolean,
            Self::Integer(_) => Type::Integer,
            Self::String(_) => Type::String,
        }
    }

    pub fn to_boolean(&self) -> Result<bool, NoCast> {
        match self {
            Self::Boolean(truth) => Ok(*truth),
            Self::Integer(number) => Ok(*number != 0),
            Self::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Self::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Self::String(text) => Err(no_cast(text, Type::Boolean)),
        }
    }

    pub fn to_integer(&self) -> Result<i32, NoCast> {
        match self {
            Self::Boolean(truth) => Ok(i32::from(*truth)),
            Self::Integer(number) => Ok(*number),
            // Digits of ASCII with an optional sign are what Rust takes for an integer, too.
            Self::String(text) => text.parse().map_err(|_| no_cast(text, Type::Integer)),
        }
    }

    pub fn into_text(self) -> Cow<'a, str> {
        match self {
            Self::Boolean(truth) => Cow::Borrowed(boolean_text(truth)),
            Self::Integer(number) => Cow::Owned(number.to_string()),
            Self::String(text) => text,
        }
    }

    /// Whether the value, cast to a string, is `text`. Nothing is allocated for it.
    pub fn is_text(&self, text: &str) -> bool {
        match self {
            Self::Boolean(truth) => boolean_text(*truth) == text,
            Self::Integer(number) => {
                let mut rest = Expected(text);
                write!(rest, "{number}").is_ok() && rest.0.is_empty()
            }
            Self::String(own) => own == text,
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(truth) => out.write_str(boolean_text(*truth)),
            Self::Integer(number) => write!(out, "{number}"),
            Self::String(text) => out.write_str(text),
        }
    }
}

fn boolean_text(truth: bool) -> &'static str {
    if truth { "true" } else { "false" }
}

fn no_cast(text: &str, to: Type) -> NoCast {
    NoCast { text: shown(text), to }
}

/// The text as it stands in a message.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Takes what is written to it as long as it is the beginning of the text, which it drops.
struct Expected<'t>(&'t str);

impl fmt::Write for Expected<'_> {
    fn write_str(&mut self, written: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(written).ok_or(fmt::Error)?;
        Ok(())
    }
}
