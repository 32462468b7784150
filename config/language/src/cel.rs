//! CEL on `event.<attribute>` and `event.data`.

use crate::{Errs, Facts, Failure, SyntaxError, Term};

/// A compiled CEL expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    text: Box<str>,
}

impl Program {
    pub fn compile(_text: &str) -> Result<Self, SyntaxError> {
        Err(SyntaxError { at: 0, message: "this version does not have the dialect `cel`".into() })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the expression is true; what is no boolean errs.
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
