//! What is wrong with a text that is no CEL, in words. The crate's parser finds the place; its own words are those of its
//! generator.

use super::token::{Sort, Token, tokens};
use crate::SyntaxError;

/// Of what was found, so many characters are shown.
const FOUND_CHARS_MAX: usize = 40;
const VALUE: &str = "a value such as `event.type`, `'text'` or `5`";

/// The error of a text, of what the parser said and where.
pub fn error(text: &str, errors: &[cel::ParseError]) -> SyntaxError {
    // What is said of the grammar comes first: the rest often follows from it.
    let grammar = errors.iter().find(|error| error.msg.starts_with("Syntax error: "));
    let Some(error) = grammar.or(errors.first()) else {
        return SyntaxError { at: 0, message: "not CEL".into() };
    };
    let at = place(text, error.pos);
    if errors.iter().any(|error| error.msg.contains("ecursion limit")) {
        return SyntaxError { at, message: "nested too deeply".into() };
    }
    if grammar.is_some() { Context::at(text, at).error() } else { of_meaning(text, at, &error.msg) }
}

/// The byte of a line and a column, both from 1.
fn place(text: &str, (line, column): (isize, isize)) -> usize {
    let lines_before = usize::try_from(line - 1).unwrap_or(0);
    let line_start = text.split_inclusive('\n').take(lines_before).map(str::len).sum::<usize>();
    let rest = &text[line_start.min(text.len())..];
    let column = usize::try_from(column - 1).unwrap_or(0);
    line_start + rest.char_indices().nth(column).map_or(rest.len(), |(byte, _)| byte)
}

/// What fits the grammar and means nothing.
fn of_meaning(text: &str, at: usize, message: &str) -> SyntaxError {
    let found = token_at(text, at).map_or("", |token| &text[token.start..token.end]);
    let message = match message {
        "invalid int literal" => {
            "expected an integer from -9223372036854775808 to 9223372036854775807".to_owned()
        }
        "invalid uint literal" => "expected an unsigned integer up to 18446744073709551615u".into(),
        "invalid double literal" => "expected a number such as 1.5".into(),
        "argument must be a simple name" => {
            "expected the name of a variable, as in `event.data.items.exists(item, item.count > 1)`".into()
        }
        "invalid argument to has() macro" => {
            "`has` asks for a field: expected one such as `has(event.subject)`".into()
        }
        message if message.starts_with("reserved identifier") => {
            format!("`{}` is a word that CEL keeps for itself: expected another name", cut(found))
        }
        message if message.starts_with("unsupported syntax") => match message.split('\'').nth(1) {
            Some("`") | None => "names in backticks are not supported: write `event.data['a-b']`".into(),
            Some(sign) => format!("`{sign}` is not supported"),
        },
        message if message.contains("string literal") || message.contains("bytes literal") => {
            format!("{} is no text that CEL can read: is an escape in it wrong?", cut(found))
        }
        _ => Context::at(text, at).error().message,
    };
    SyntaxError { at, message }
}

/// Where the token begins that a place is in or before.
fn token_at(text: &str, at: usize) -> Option<Token> {
    tokens(text).find(|token| token.end > at)
}

/// What stands around a token that does not fit.
struct Context<'t> {
    text: &'t str,
    /// The token; `None` is the end of the text.
    found: Option<Token>,
    before: Option<Token>,
    /// Brackets and `?` that are open.
    open: Vec<Open>,
}

struct Open {
    sign: &'static str,
    at: usize,
    /// A bracket of arguments.
    is_call: bool,
}

impl<'t> Context<'t> {
    fn at(text: &'t str, at: usize) -> Self {
        let mut context = Self { text, found: None, before: None, open: Vec::new() };
        for token in tokens(text) {
            if token.end > at || matches!(token.sort, Sort::Unknown | Sort::OpenText) {
                context.found = Some(token);
                break;
            }
            context.pass(token);
        }
        context
    }

    fn pass(&mut self, token: Token) {
        if let Sort::Sign(sign) = token.sort {
            let last = self.open.last().map(|open| open.sign);
            match (sign, last) {
                ("(" | "[" | "{" | "?", _) => {
                    let is_call = self.before.is_some_and(|before| before.sort == Sort::Name);
                    self.open.push(Open { sign, at: token.start, is_call });
                }
                (")", Some("(")) | ("]", Some("[")) | ("}", Some("{")) | (":", Some("?")) => {
                    self.open.pop();
                }
                _ => {}
            }
        }
        self.before = Some(token);
    }

    fn slice(&self, token: Token) -> &'t str {
        &self.text[token.start..token.end]
    }

    fn error(&self) -> SyntaxError {
        let Some(found) = self.found else {
            let open = self.open.last().map(|open| {
                let place = crate::syntax::place(self.text, open.at);
                format!("; the `{}` at {place} is open", open.sign)
            });
            let open = open.unwrap_or_default();
            let message = format!("expected {}, found the end of the expression{open}", self.expected());
            return SyntaxError { at: self.text.len(), message };
        };
        if let Some((at, joined)) = self.joined(found) {
            return SyntaxError { at, message: format!("`{joined}` is no operator{}", hint(joined)) };
        }
        let at = found.start;
        match found.sort {
            Sort::OpenText => {
                let text = self.slice(found);
                let quote = text.chars().find(|c| matches!(c, '\'' | '"')).unwrap_or('\'');
                let message = format!("a text without its closing `{quote}`");
                SyntaxError { at, message }
            }
            // The parser takes no offence at a text but for what is escaped in it.
            Sort::Text if self.is_wanted_value() => self.escape(found),
            Sort::Name | Sort::Number if self.is_wanted_value() => {
                SyntaxError { at, message: format!("`{}` cannot stand here", cut(self.slice(found))) }
            }
            _ => {
                let hint = match self.before.map_or("", |before| self.slice(before)) {
                    "not" | "NOT" => "; `not` is written `!`",
                    _ => hint(self.slice(found)),
                };
                let found = cut(self.slice(found));
                let message = format!("expected {}, found `{found}`{hint}", self.expected());
                SyntaxError { at, message }
            }
        }
    }

    /// Signs directly behind one another are one sign to whoever wrote them.
    fn joined(&self, found: Token) -> Option<(usize, &'t str)> {
        let before = self.before.filter(|before| before.end == found.start)?;
        let joined = &self.text[before.start..found.end];
        let is_sign = |c: char| matches!(c, '=' | '&' | '|' | '<' | '>');
        joined.chars().all(is_sign).then_some((before.start, joined))
    }

    fn escape(&self, found: Token) -> SyntaxError {
        let text = self.slice(found);
        let mut characters = text.char_indices();
        while let Some((at, character)) = characters.next() {
            let escaped = if character == '\\' { characters.next().map(|(_, c)| c) } else { None };
            let known = |c: char| "abfnrtv\\?\"'`xXuU0123".contains(c);
            if let Some(escaped) = escaped.filter(|c| !known(*c)) {
                let message =
                    format!("`\\{escaped}` is no escape of a text: for a backslash write `\\\\`, or r'...'");
                return SyntaxError { at: found.start + at, message };
            }
        }
        let message = format!("`{}` is no text that CEL can read: is an escape in it wrong?", cut(text));
        SyntaxError { at: found.start, message }
    }

    /// Whether a value can stand where the token is.
    fn is_wanted_value(&self) -> bool {
        match self.before.map(|token| token.sort) {
            None => true,
            Some(Sort::Sign(sign)) => !matches!(sign, ")" | "]" | "}" | "."),
            Some(Sort::Number | Sort::Text | Sort::Name | Sort::OpenText | Sort::Unknown) => false,
        }
    }

    fn expected(&self) -> &'static str {
        if self.is_wanted_value() {
            return VALUE;
        }
        if self.before.is_some_and(|token| token.sort == Sort::Sign(".")) {
            return "the name of a field";
        }
        match self.open.last() {
            Some(Open { sign: "(", is_call: true, .. }) => "an operator, `,` or `)`",
            Some(Open { sign: "(", .. }) => "an operator or `)`",
            Some(Open { sign: "[", .. }) => "an operator, `,` or `]`",
            Some(Open { sign: "{", .. }) => "an operator, `:`, `,` or `}`",
            Some(_) => "an operator or the `:` that goes with `?`",
            None => "an operator or the end",
        }
    }
}

/// What people write who know other languages.
fn hint(found: &str) -> &'static str {
    match found {
        "=" | "===" => "; to compare, write `==`",
        "<>" => "; write `!=`",
        "and" | "AND" | "And" | "&" | "&&&" => "; write `&&`",
        "or" | "OR" | "Or" | "|" | "|||" => "; write `||`",
        "is" | "IS" => "; write `==`",
        "like" | "LIKE" => "; write `.startsWith('...')`, `.contains('...')` or `.matches('...')`",
        "\u{2018}" | "\u{2019}" | "\u{201C}" | "\u{201D}" => "; quotes are ' or \"",
        _ => "",
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(FOUND_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
