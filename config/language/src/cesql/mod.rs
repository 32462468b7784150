//! CloudEvents SQL 1.0.

use crate::{Errs, Facts, Failure, SyntaxError, Term};

/// A compiled CESQL expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    text: Box<str>,
}

impl Expression {
    pub fn compile(_text: &str) -> Result<Self, SyntaxError> {
        Err(SyntaxError { at: 0, message: "this version does not have the dialect `cesql`".into() })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the expression is true, as a filter (CESQL 4.2: what is no boolean is cast, an error errs).
    pub fn holds(&self, _facts: &Facts<'_>) -> Result<bool, Errs> {
        Ok(false)
    }

    /// Why the expression does not hold.
    pub fn failure(&self, _facts: &Facts<'_>) -> Option<Failure> {
        None
    }

    /// See [`Filter::terms`](crate::Filter::terms).
    pub fn terms(&self) -> Option<Vec<Term>> {
        None
    }
}
