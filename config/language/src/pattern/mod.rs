//! EventBridge event patterns on the JSON data.
//!
//! The meaning of a pattern is that of AWS's event-ruler 1.8.1; `tests/patterns` compares the two. They differ, on purpose:
//!
//! - A list for a field that has one already (a key beside a `$or` that holds the same key, or `a.b` beside `a: {b}`) is
//!   refused. event-ruler keeps the one that was written last.
//! - `$or` that is no list of two or more objects is refused, as by event-ruler's checker. Its machine takes `$or` for the name
//!   of a field then.
//! - A branch of `$or` whose lists contain those of an earlier branch counts. event-ruler takes it for the earlier one.
//! - IPv4 and IPv6 addresses, and addresses and numbers, are never in one block. event-ruler compares their hexadecimal digits,
//!   so that `2000::/3` has 33.0.0.0 in it, and `16.0.0.0/8` the number 105.
//! - The quotes around a text are no part of it: the prefix `x"` does not match the text `x`, as it does for event-ruler.
//! - `anything-but` with `equals-ignore-case` beside a wildcard that begins with `*`, in one list, holds where it holds alone.
//!   event-ruler loses such matches.
//! - An empty list inside `anything-but` is always refused; event-ruler takes it after another entry.
//! - `equals-ignore-case` knows characters beyond U+FFFF. event-ruler takes each for two question marks.
//! - A lone surrogate in the data is no JSON.
//! - A number in a pattern that is neither an integer of 64 bits nor a double's shortest text is the double next to it.
//! - `$or` lists multiply to at most 1,000 combinations, as at EventBridge; patterns have bounds of size and depth.

mod address;
mod compile;
mod condition;
mod failure;
mod search;
#[cfg(test)]
mod tests;
mod text;

use serde_json::Value;

use crate::filter::TERMS_MAX;
use crate::{Errs, Facts, Failure, NotJson, Subject, Term};
use search::{Branch, Exhausted};

/// A compiled event pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: Value,
    /// One of these must match.
    branches: Box<[Branch]>,
}

/// A pattern that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PatternError {
    /// Keys and positions from the pattern's root to what is wrong.
    pub path: Vec<String>,
    pub message: String,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl Pattern {
    pub fn compile(pattern: &Value) -> Result<Self, PatternError> {
        Ok(Self { source: pattern.clone(), branches: compile::branches(pattern)? })
    }

    /// The pattern as it was written.
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// Whether the data matches. Data that is no JSON errs; JSON that is no object does not match.
    pub fn holds(&self, facts: &Facts<'_>) -> Result<bool, Errs> {
        let document = facts.document().map_err(|NotJson(message)| Errs(message.clone()))?;
        search::matches(&self.branches, document).map_err(|Exhausted| {
            Errs("the data has the same arrays so many times over that matching it was given up".into())
        })
    }

    /// Why the data does not match: the first field that fails.
    pub fn failure(&self, facts: &Facts<'_>) -> Option<Failure> {
        match self.holds(facts) {
            Ok(true) => None,
            Ok(false) => failure::first(&self.branches, facts.document().ok()?),
            Err(Errs(message)) => Some(Failure {
                filter: "data".into(),
                expected: "a JSON object".into(),
                actual: message.clone(),
                message,
            }),
        }
    }

    /// The paths in the data that the pattern names, such as `order.amount`, each once.
    pub fn fields(&self) -> Vec<&str> {
        let names = self.branches.iter().flat_map(|branch| &branch.fields).map(|field| &*field.name);
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// See [`Filter::terms`](crate::Filter::terms): of each branch, the field with the fewest exact values.
    pub fn terms(&self) -> Option<Vec<Term>> {
        let mut terms = Vec::new();
        for branch in &self.branches {
            let listed = branch.fields.iter().filter_map(|field| Some((field, field.alternatives.keys()?)));
            let (field, keys) = listed.min_by_key(|(_, keys)| keys.len())?;
            let subject = || Subject::Data(field.name.to_string());
            terms.extend(keys.into_iter().map(|text| Term { subject: subject(), text, is_prefix: false }));
            if terms.len() > TERMS_MAX {
                return None;
            }
        }
        Some(terms)
    }
}
