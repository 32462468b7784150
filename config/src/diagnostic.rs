//! What is wrong, where, and the piece of text that shows it.

use std::fmt;

use crate::place::Place;

/// At most this many errors are kept; the rest is a count.
const DIAGNOSTICS_MAX: usize = 100;
/// A snippet shows at most this many characters of its line.
const SNIPPET_CHARS_MAX: usize = 110;
/// A quoted value in a message is cut after this many characters.
const VALUE_CHARS_MAX: usize = 60;
/// How far to the left of a snippet a key is looked for whose value is a secret, and how long that key may be.
const SECRET_CHARS_MAX: usize = 2_000;
const SECRET_KEY_BYTES_MAX: usize = 64;

/// A place in one of the files that are being loaded. Lines and columns begin at 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub file: usize,
    pub line: usize,
    pub column: usize,
    pub length: usize,
}

/// A file as it was read.
#[derive(Debug)]
pub(crate) struct Source {
    pub name: String,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// One error or warning. Displayed as `FILE:LINE:COLUMN: message` with the line and a caret below, or as `FILE: message`
/// when it is about a whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub file: String,
    /// Line and column, both from 1.
    pub position: Option<(usize, usize)>,
    pub message: String,
    /// The offending line and the carets below it. `None` where it could show a secret.
    pub snippet: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        let severity = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        write!(f, ": {severity}{}", self.message)?;
        match &self.snippet {
            Some(snippet) => write!(f, "\n{snippet}"),
            None => Ok(()),
        }
    }
}

/// Why a configuration cannot be used: one or more errors, in the order of files and lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    pub diagnostics: Vec<Diagnostic>,
    /// Errors found beyond the first hundred.
    pub omitted: usize,
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, diagnostic) in self.diagnostics.iter().enumerate() {
            let separator = if n == 0 { "" } else { "\n" };
            write!(f, "{separator}{diagnostic}")?;
        }
        match self.omitted {
            0 => Ok(()),
            omitted => write!(f, "\nand {omitted} more"),
        }
    }
}

impl std::error::Error for Errors {}

#[derive(Clone, Copy, PartialEq)]
enum Snippet {
    Shown,
    Hidden,
}

/// Collects what is found on the way through the files, so that one run reports as much as it can.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    pub sources: Vec<Source>,
    errors: Vec<(Option<At>, Diagnostic)>,
    warnings: Vec<(Option<At>, Diagnostic)>,
    /// Warnings that hold from an instant on, in milliseconds since 1970.
    later: Vec<(i64, Diagnostic)>,
    omitted: usize,
}

impl Problems {
    pub fn error(&mut self, at: At, message: impl Into<String>) {
        self.place(at, Severity::Error, Snippet::Shown, message.into());
    }

    /// Reports an error without its snippet, because the line may hold a secret.
    pub fn error_unseen(&mut self, at: At, message: impl Into<String>) {
        self.place(at, Severity::Error, Snippet::Hidden, message.into());
    }

    pub fn warning(&mut self, at: At, message: impl Into<String>) {
        self.place(at, Severity::Warning, Snippet::Shown, message.into());
    }

    /// Warns without a snippet, because the line may hold a secret.
    pub fn warning_unseen(&mut self, at: At, message: impl Into<String>) {
        self.place(at, Severity::Warning, Snippet::Hidden, message.into());
    }

    /// Warns of what is the matter once an instant has passed: reading a configuration looks at no clock.
    pub fn warning_from(&mut self, at_ms: i64, at: At, message: impl Into<String>) {
        let diagnostic = Diagnostic {
            severity: Severity::Warning,
            file: self.sources[at.file].name.clone(),
            position: Some((at.line, at.column)),
            message: message.into(),
            snippet: self.snippet(at),
        };
        self.later.push((at_ms, diagnostic));
    }

    /// Reports what concerns a file as a whole.
    pub fn file_error(&mut self, file: impl Into<String>, message: impl Into<String>) {
        self.file_error_at(file, None, message);
    }

    /// Reports what is wrong with a file whose text cannot be shown, at a line and column where they are known.
    pub fn file_error_at(
        &mut self,
        file: impl Into<String>,
        position: Option<(usize, usize)>,
        message: impl Into<String>,
    ) {
        let (severity, file, message) = (Severity::Error, file.into(), message.into());
        self.errors.push((None, Diagnostic { severity, file, position, message, snippet: None }));
    }

    /// Names a place for use inside a message.
    pub fn named(&self, at: At) -> String {
        format!("{}:{}:{}", self.sources[at.file].name, at.line, at.column)
    }

    /// A place for use after loading.
    pub fn place_of(&self, at: At) -> Place {
        Place { file: self.sources[at.file].name.as_str().into(), line: at.line, column: at.column }
    }

    /// The source text from a place to the end of its line.
    pub fn rest_of_line(&self, at: At) -> &str {
        let line = self.line(at);
        line.char_indices().nth(at.column - 1).map_or("", |(offset, _)| &line[offset..])
    }

    /// The lines of a file from one on, with their numbers.
    pub fn lines_from(&self, file: usize, number: usize) -> impl Iterator<Item = (usize, &str)> {
        self.sources[file].text.lines().zip(1..).map(|(line, n)| (n, line)).skip(number - 1)
    }

    /// Whether further warnings are left out.
    pub fn is_full_of_warnings(&self) -> bool {
        self.warnings.len() == DIAGNOSTICS_MAX
    }

    /// Whether further errors are only counted.
    pub fn is_full(&self) -> bool {
        self.errors.len() == DIAGNOSTICS_MAX
    }

    pub fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    pub fn into_errors(mut self) -> Errors {
        Errors { diagnostics: in_order(&mut self.errors), omitted: self.omitted }
    }

    /// The warnings, and those that hold from an instant on.
    pub fn into_warnings(mut self) -> (Vec<Diagnostic>, Vec<(i64, Diagnostic)>) {
        (in_order(&mut self.warnings), self.later)
    }

    fn place(&mut self, at: At, severity: Severity, snippet: Snippet, message: String) {
        let list = match severity {
            Severity::Error => &self.errors,
            Severity::Warning => &self.warnings,
        };
        // Before the snippet is cut out: a file with a hundred thousand errors must not be searched as often.
        if list.len() == DIAGNOSTICS_MAX {
            self.omitted += usize::from(severity == Severity::Error);
            return;
        }
        // A value that reaches several triggers through `defaults` or an alias is wrong once.
        if list.iter().any(|(place, known)| *place == Some(at) && known.message == message) {
            return;
        }
        let file = self.sources[at.file].name.clone();
        let position = Some((at.line, at.column));
        let snippet = if snippet == Snippet::Shown { self.snippet(at) } else { None };
        let diagnostic = Diagnostic { severity, file, position, message, snippet };
        match severity {
            Severity::Error => self.errors.push((Some(at), diagnostic)),
            Severity::Warning => self.warnings.push((Some(at), diagnostic)),
        }
    }

    fn line(&self, at: At) -> &str {
        self.sources[at.file].text.lines().nth(at.line - 1).unwrap_or("")
    }

    /// The line around a place, unless it could show a secret.
    fn snippet(&self, at: At) -> Option<String> {
        let line = self.line(at);
        let from = at.column.saturating_sub(SNIPPET_CHARS_MAX * 2 / 3);
        // A secret that is cut at the left has its key further left.
        let before = from.min(SECRET_CHARS_MAX);
        let around: String = line.chars().skip(from - before).take(before + SNIPPET_CHARS_MAX).collect();
        if may_hold_secret(&around) {
            return None;
        }
        let shown: String = around.chars().skip(before).map(printable).collect();
        let shown = shown.trim_end();
        let indent = at.column - 1 - from;
        let left = shown.chars().count().saturating_sub(indent);
        let carets = "^".repeat(at.length.min(left).max(1));
        let number = format!("{:>5}", at.line);
        let (margin, indent) = (" ".repeat(number.len()), " ".repeat(indent));
        Some(format!("{number} | {shown}\n{margin} | {indent}{carets}"))
    }
}

/// Names of headers and keys hold credentials if one of these occurs in them.
const SECRET_WORDS: &[&str] =
    &["authorization", "cookie", "token", "secret", "password", "passwd", "api-key", "apikey", "x-auth"];

pub(crate) fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Whether a piece of a line could show a secret that is written into the file: after a key that names one, or before the
/// host of a URL.
fn may_hold_secret(text: &str) -> bool {
    let in_url = text.match_indices("://").any(|(start, mark)| {
        let authority = text[start + mark.len()..].split(['/', ' ', '"', '\'', ',']).next().unwrap_or("");
        authority.rsplit_once('@').is_some_and(|(info, _)| !info.starts_with("${"))
    });
    in_url
        || text.match_indices(':').any(|(colon, _)| {
            let start = text.floor_char_boundary(colon.saturating_sub(SECRET_KEY_BYTES_MAX));
            let key = text[start..colon].trim_end_matches(['"', '\'', ' ']);
            let key = key.rsplit([' ', '{', ',', '"', '\'']).next().unwrap_or(key);
            let value = text[colon + 1..].split(',').next().unwrap_or("");
            names_secret(key) && !value.contains("${")
        })
}

/// Quotes a value for a message: cut, and without control characters.
pub(crate) fn quoted(value: &str) -> String {
    let mut text: String = value.chars().take(VALUE_CHARS_MAX).map(printable).collect();
    if value.chars().nth(VALUE_CHARS_MAX).is_some() {
        text.push('…');
    }
    format!("`{text}`")
}

/// Terminals act on control characters, and text that changes direction can hide what it says.
fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => '\u{fffd}',
        character if character.is_control() => '\u{fffd}',
        character => character,
    }
}

fn in_order(list: &mut Vec<(Option<At>, Diagnostic)>) -> Vec<Diagnostic> {
    list.sort_by_key(|(at, _)| at.map(|at| (at.file, at.line, at.column)));
    list.drain(..).map(|(_, diagnostic)| diagnostic).collect()
}
