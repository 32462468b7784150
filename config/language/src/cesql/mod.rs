//! CloudEvents SQL 1.0 (the CloudEvents project's `cesql/spec.md`).
//!
//! A text is parsed once; evaluating walks the tree and allocates for texts that functions make and for errors only. Where
//! the specification leaves a choice:
//!
//! - AND, OR and XOR bind alike and go from left to right (3.6); a mix without brackets is a warning.
//! - Evaluation is fail-fast (4.1): the first error ends it. As a filter, an error or a result that is no Boolean does not pass.
//! - IN compares its elements in their order and stops at the first that is equal.
//! - An overflow of `+ - * /` and of the unary minus is a math error with the value 0.
//! - `5-1` is a difference; a doubled quote within quotes is one quote.
//! - An attribute has the type it came with: in the JSON format there are Integers and Booleans, in HTTP headers only Strings.
//! - Characters are Unicode scalar values; UPPER and LOWER are those of Unicode, for no locale.

mod evaluate;
mod failure;
mod functions;
mod like;
mod parse;
mod terms;
mod token;
mod tree;
mod value;
mod warnings;

pub use self::evaluate::{ErrorKind, Evaluation, EvaluationError};
pub use self::value::{NoCast, Type, Value};
pub use self::warnings::Warning;

use self::tree::Node;
use crate::{Errs, Facts, Failure, SyntaxError, Term};

const TEXT_BYTES_MAX: usize = 16 << 10;
/// Brackets, prefixes and sets within each other: parsing and evaluation recurse on them.
const DEPTH_MAX: usize = 64;
const NODES_MAX: usize = 4096;
/// The texts that functions make in one evaluation, together.
const TEXTS_BYTES_MAX: usize = 1 << 20;

/// What the dialect is called where an expression stands: `sql` in the Subscriptions API, `cesql` to those who know it so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Key {
    Sql,
    #[default]
    Cesql,
}

impl Key {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sql => "sql",
            Self::Cesql => "cesql",
        }
    }
}

/// A compiled CESQL expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    key: Key,
    text: Box<str>,
    tree: Node,
}

impl Expression {
    pub fn compile(text: &str) -> Result<Self, SyntaxError> {
        Ok(Self { key: Key::default(), text: text.into(), tree: parse::parse(text)? })
    }

    /// The expression under the key it was written with.
    #[must_use]
    pub fn under(self, key: Key) -> Self {
        Self { key, ..self }
    }

    pub fn key(&self) -> Key {
        self.key
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value for an event, and the first error.
    pub fn evaluate<'a>(&'a self, facts: &Facts<'a>) -> Evaluation<'a> {
        evaluate::evaluate(&self.tree, facts.event)
    }

    /// Whether the expression is true, as a filter (CESQL 1.2): an error errs, and so does a result that is no Boolean.
    pub fn holds(&self, facts: &Facts<'_>) -> Result<bool, Errs> {
        failure::holds(&self.tree, facts.event).map_err(|error| Errs(error.message))
    }

    /// Why the expression does not hold: of several joined by AND, the first that does not.
    pub fn failure(&self, facts: &Facts<'_>) -> Option<Failure> {
        failure::failure(self, facts.event)
    }

    /// See [`Filter::terms`](crate::Filter::terms).
    pub fn terms(&self) -> Option<Vec<Term>> {
        terms::terms(&self.tree)
    }

    /// What is legal and hardly meant, in the order of the text.
    pub fn warnings(&self) -> Vec<Warning> {
        warnings::warnings(&self.text, &self.tree)
    }

    /// The names of the attributes that the expression reads or asks for, each once.
    pub fn attributes(&self) -> Vec<&str> {
        self.tree.attributes()
    }
}

#[cfg(test)]
mod tests;
