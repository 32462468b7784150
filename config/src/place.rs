//! Where the parts of a trigger stand in its file, for whoever explains why an event did not match.

use std::fmt;
use std::sync::Arc;

/// A place in a file; line and column count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<str>,
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Places by path, such as `filters[0].exact.type`. All are equal: a trigger that has moved within its file is the same trigger.
#[derive(Clone, Debug, Default)]
pub struct Places(Vec<(Box<str>, Place)>);

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Places {
    pub(crate) fn add(&mut self, path: &str, place: Place) {
        self.0.push((path.into(), place));
    }

    /// The place of the innermost part that holds what a path names.
    pub fn find(&self, path: &str) -> Option<&Place> {
        let mut path = path;
        loop {
            if let Some((_, place)) = self.0.iter().find(|(known, _)| **known == *path) {
                return Some(place);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}
