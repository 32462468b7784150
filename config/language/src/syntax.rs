//! What compiling a text can end in.

/// A text that is not of its language.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Where in the text, in bytes from its start.
    pub at: usize,
    pub message: String,
}
