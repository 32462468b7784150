//! What compiling a text can end in.

/// A text that is not of its language.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Where in the text, in bytes from its start.
    pub at: usize,
    pub message: String,
}

impl SyntaxError {
    /// The error with its place in the text, for where nothing else shows it.
    pub fn placed(&self, text: &str) -> String {
        format!("{} of the expression: {}", self.place_in(text), self.message)
    }

    /// The place in words, such as `line 2, column 5`.
    pub fn place_in(&self, text: &str) -> String {
        place(text, self.at)
    }
}

/// A byte of a text in words; lines and columns count from 1, columns in characters.
pub fn place(text: &str, at: usize) -> String {
    let before = &text[..text.floor_char_boundary(at)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    match text.trim_end().contains('\n') {
        true => format!("line {line}, column {column}"),
        false => format!("column {column}"),
    }
}
