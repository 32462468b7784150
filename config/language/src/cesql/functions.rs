//! The built-in functions (CESQL 3.5; INT, BOOL and STRING are those of 3.7). Characters are Unicode scalar values.

use std::borrow::Cow;

use super::evaluate::ErrorKind;
use super::value::{NoCast, Type, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Length,
    Concat,
    ConcatWs,
    Lower,
    Upper,
    Trim,
    Left,
    Right,
    Substring,
    Abs,
    Int,
    Bool,
    String,
}

/// Each function with the fewest and the most arguments.
const FUNCTIONS: [(&str, Function, usize, usize); 13] = [
    ("LENGTH", Function::Length, 1, 1),
    ("CONCAT", Function::Concat, 0, usize::MAX),
    ("CONCAT_WS", Function::ConcatWs, 1, usize::MAX),
    ("LOWER", Function::Lower, 1, 1),
    ("UPPER", Function::Upper, 1, 1),
    ("TRIM", Function::Trim, 1, 1),
    ("LEFT", Function::Left, 2, 2),
    ("RIGHT", Function::Right, 2, 2),
    ("SUBSTRING", Function::Substring, 2, 3),
    ("ABS", Function::Abs, 1, 1),
    ("INT", Function::Int, 1, 1),
    ("BOOL", Function::Bool, 1, 1),
    ("STRING", Function::String, 1, 1),
];

/// An error that a function returns together with a value of its own.
#[derive(Debug)]
pub struct Raised<'a> {
    pub value: Value<'a>,
    pub kind: ErrorKind,
    pub message: String,
}

/// How much longer the texts may become that functions make.
pub struct Room {
    pub bytes: usize,
}

impl Function {
    /// The function of an upper-case name that takes so many arguments.
    pub fn of(name: &str, arguments: usize) -> Option<Self> {
        FUNCTIONS
            .iter()
            .find(|(known, _, fewest, most)| *known == name && (*fewest..=*most).contains(&arguments))
            .map(|(_, function, ..)| *function)
    }

    /// How many arguments the function of this name takes, in words.
    pub fn arity(name: &str) -> Option<String> {
        let (_, _, fewest, most) = FUNCTIONS.iter().find(|(known, ..)| *known == name)?;
        Some(match (*fewest, *most) {
            (fewest, usize::MAX) => format!("{fewest} or more arguments"),
            (1, 1) => "1 argument".into(),
            (fewest, most) if fewest == most => format!("{fewest} arguments"),
            (fewest, most) => format!("{fewest} or {most} arguments"),
        })
    }

    pub fn ty(self) -> Type {
        match self {
            Self::Length | Self::Abs | Self::Int => Type::Integer,
            Self::Bool => Type::Boolean,
            Self::Concat
            | Self::ConcatWs
            | Self::Lower
            | Self::Upper
            | Self::Trim
            | Self::Left
            | Self::Right
            | Self::Substring
            | Self::String => Type::String,
        }
    }

    /// What the argument at a place is cast to; `None`: the function does that itself.
    pub fn parameter(self, place: usize) -> Option<Type> {
        match self {
            Self::Int | Self::Bool | Self::String => None,
            Self::Abs => Some(Type::Integer),
            Self::Left | Self::Right | Self::Substring if place > 0 => Some(Type::Integer),
            Self::Length
            | Self::Concat
            | Self::ConcatWs
            | Self::Lower
            | Self::Upper
            | Self::Trim
            | Self::Left
            | Self::Right
            | Self::Substring => Some(Type::String),
        }
    }

    /// Calls the function on arguments that have the types of its parameters.
    pub fn call<'a>(self, arguments: Vec<Value<'a>>, room: &mut Room) -> Result<Value<'a>, Raised<'a>> {
        let mut arguments = arguments.into_iter();
        let first = arguments.next();
        if self == Self::Concat {
            let first = first.map(text).unwrap_or_default();
            return join(first, "", arguments, room);
        }
        let Some(first) = first else { return Ok(self.ty().zero()) };
        let mut number = || arguments.next().map(|value| integer(&value));
        match self {
            Self::Int => first.to_integer().map(Value::Integer).map_err(|error| not_cast(&error)),
            Self::Bool => first.to_boolean().map(Value::Boolean).map_err(|error| not_cast(&error)),
            Self::String => Ok(Value::String(text(first))),
            Self::Abs => absolute(integer(&first)),
            Self::Length => Ok(Value::Integer(length(&text(first)))),
            Self::Lower => change(text(first), char::is_lowercase, str::to_lowercase, room),
            Self::Upper => change(text(first), char::is_uppercase, str::to_uppercase, room),
            Self::Trim => {
                let text = text(first);
                let end = text.trim_end().len();
                let start = end - text[..end].trim_start().len();
                Ok(part(text, start, end))
            }
            Self::Left => left(text(first), number().unwrap_or_default()),
            Self::Right => right(text(first), number().unwrap_or_default()),
            Self::Substring => substring(text(first), number().unwrap_or_default(), number()),
            Self::ConcatWs => {
                let separator = text(first);
                let first = arguments.next().map(text).unwrap_or_default();
                join(first, &separator, arguments, room)
            }
            Self::Concat => Ok(Self::Concat.ty().zero()),
        }
    }
}

fn text(value: Value<'_>) -> Cow<'_, str> {
    value.into_text()
}

/// The number that an argument was cast to.
fn integer(value: &Value<'_>) -> i32 {
    value.to_integer().unwrap_or_default()
}

fn not_cast<'a>(error: &NoCast) -> Raised<'a> {
    Raised { value: error.to.zero(), kind: ErrorKind::Cast, message: error.to_string() }
}

fn refused<'a>(value: Value<'a>, message: String) -> Raised<'a> {
    Raised { value, kind: ErrorKind::FunctionEvaluation, message }
}

fn absolute<'a>(number: i32) -> Result<Value<'a>, Raised<'a>> {
    match number.checked_abs() {
        Some(absolute) => Ok(Value::Integer(absolute)),
        None => Err(Raised {
            value: Value::Integer(i32::MAX),
            kind: ErrorKind::Math,
            message: format!("ABS({number}) is no 32-bit integer"),
        }),
    }
}

fn length(text: &str) -> i32 {
    i32::try_from(text.chars().count()).unwrap_or(i32::MAX)
}

fn join<'a>(
    first: Cow<'a, str>,
    separator: &str,
    others: impl Iterator<Item = Value<'a>>,
    room: &mut Room,
) -> Result<Value<'a>, Raised<'a>> {
    let mut joined = first;
    let mut is_counted = false;
    for other in others.map(text) {
        if !is_counted {
            room.take(joined.len())?;
            is_counted = true;
        }
        room.take(separator.len() + other.len())?;
        let joined = joined.to_mut();
        joined.push_str(separator);
        joined.push_str(&other);
    }
    Ok(Value::String(joined))
}

/// Upper or lower case of the whole text; ASCII text that has it already is left alone.
fn change<'a>(
    text: Cow<'a, str>,
    has_case: fn(char) -> bool,
    change: fn(&str) -> String,
    room: &mut Room,
) -> Result<Value<'a>, Raised<'a>> {
    let is_done = text.chars().all(|c| c.is_ascii() && (has_case(c) || !c.is_ascii_alphabetic()));
    if is_done {
        return Ok(Value::String(text));
    }
    room.take(text.len())?;
    Ok(Value::String(Cow::Owned(change(&text))))
}

/// The bytes of a text from `start` to `end`, which are at characters.
fn part(text: Cow<'_, str>, start: usize, end: usize) -> Value<'_> {
    Value::String(match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[start..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            text.drain(..start);
            Cow::Owned(text)
        }
    })
}

/// Where the character with this number, from 0, begins; the end of the text when it has fewer.
fn place(text: &str, number: usize) -> usize {
    text.char_indices().nth(number).map_or(text.len(), |(at, _)| at)
}

fn left(text: Cow<'_, str>, count: i32) -> Result<Value<'_>, Raised<'_>> {
    let Ok(count) = usize::try_from(count) else {
        return Err(refused(Value::String(text), format!("LEFT: the length {count} is negative")));
    };
    let end = place(&text, count);
    Ok(part(text, 0, end))
}

fn right(text: Cow<'_, str>, count: i32) -> Result<Value<'_>, Raised<'_>> {
    let Ok(count) = usize::try_from(count) else {
        return Err(refused(Value::String(text), format!("RIGHT: the length {count} is negative")));
    };
    let start = match count.checked_sub(1) {
        None => text.len(),
        Some(before_last) => text.char_indices().nth_back(before_last).map_or(0, |(at, _)| at),
    };
    let end = text.len();
    Ok(part(text, start, end))
}

fn substring(text: Cow<'_, str>, position: i32, count: Option<i32>) -> Result<Value<'_>, Raised<'_>> {
    let empty = || Value::String(Cow::Borrowed(""));
    if let Some(count) = count.filter(|count| *count < 0) {
        return Err(refused(empty(), format!("SUBSTRING: the length {count} is negative")));
    }
    let characters = length(&text);
    if position.unsigned_abs() > characters.unsigned_abs() {
        let message =
            format!("SUBSTRING: there is no position {position} in a text of {characters} characters");
        return Err(refused(empty(), message));
    }
    let before = match position {
        0 => return Ok(empty()),
        1.. => position - 1,
        _ => characters + position,
    };
    let start = place(&text, usize::try_from(before).unwrap_or_default());
    let end = match count.and_then(|count| usize::try_from(count).ok()) {
        Some(count) => start + place(&text[start..], count),
        None => text.len(),
    };
    Ok(part(text, start, end))
}

impl Room {
    fn take<'a>(&mut self, bytes: usize) -> Result<(), Raised<'a>> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| Raised {
            value: Type::String.zero(),
            kind: ErrorKind::Generic,
            message: "the texts that the functions make are too long".into(),
        })?;
        Ok(())
    }
}
