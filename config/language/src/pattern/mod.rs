//! EventBridge event patterns on the JSON data.

use serde_json::Value;

use crate::{Errs, Facts, Failure, Term};

/// A compiled event pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    source: Value,
}

/// A pattern that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PatternError {
    /// Keys and positions from the pattern's root to what is wrong.
    pub path: Vec<String>,
    pub message: String,
}

impl Pattern {
    pub fn compile(_pattern: &Value) -> Result<Self, PatternError> {
        Err(PatternError {
            path: Vec::new(),
            message: "this version does not have the dialect `data`".into(),
        })
    }

    /// The pattern as it was written.
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// Whether the data matches. Data that is no JSON errs.
    pub fn holds(&self, _facts: &Facts<'_>) -> Result<bool, Errs> {
        Ok(false)
    }

    /// Why the data does not match: the first field that fails.
    pub fn failure(&self, _facts: &Facts<'_>) -> Option<Failure> {
        None
    }

    /// See [`Filter::terms`](crate::Filter::terms).
    pub fn terms(&self) -> Option<Vec<Term>> {
        None
    }
}
