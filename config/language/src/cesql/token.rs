//! Words and signs of an expression.

/// A word or sign, and the bytes it takes in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub sort: Sort,
    pub start: usize,
    pub end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Digits, with a sign where one stands directly before them and is no operator.
    Integer,
    /// Quotes included.
    Text,
    /// A text without its closing quote.
    OpenText,
    /// Letters, digits and underscores that are neither a number nor a keyword.
    Word,
    Keyword(Keyword),
    Sign(&'static str),
    /// A character that nothing begins with.
    Unknown,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyword {
    And,
    Or,
    Xor,
    Not,
    Like,
    Exists,
    In,
    True,
    False,
}

const KEYWORDS: [(&str, Keyword); 9] = [
    ("AND", Keyword::And),
    ("OR", Keyword::Or),
    ("XOR", Keyword::Xor),
    ("NOT", Keyword::Not),
    ("LIKE", Keyword::Like),
    ("EXISTS", Keyword::Exists),
    ("IN", Keyword::In),
    ("TRUE", Keyword::True),
    ("FALSE", Keyword::False),
];

/// Longer ones first.
const SIGNS: [&str; 15] = ["<=", ">=", "<>", "!=", "<", ">", "=", "(", ")", ",", "*", "/", "%", "+", "-"];

/// Reads one token after the other.
#[derive(Clone, Debug)]
pub struct Lexer<'t> {
    text: &'t str,
    at: usize,
    /// Whether an operand has just ended, so that a sign is an operator.
    is_after_operand: bool,
}

impl<'t> Lexer<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { text, at: 0, is_after_operand: false }
    }

    pub fn next(&mut self) -> Token {
        let rest = &self.text[self.at..];
        let start = self.at + rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        let (sort, length) = self.first(&self.text[start..]);
        self.at = start + length;
        self.is_after_operand = matches!(
            sort,
            Sort::Integer
                | Sort::Text
                | Sort::Word
                | Sort::Keyword(Keyword::True | Keyword::False)
                | Sort::Sign(")")
        );
        Token { sort, start, end: self.at }
    }

    fn first(&self, rest: &str) -> (Sort, usize) {
        let Some(first) = rest.chars().next() else { return (Sort::End, 0) };
        if let '\'' | '"' = first {
            return quoted(rest, first);
        }
        if is_word(first) {
            return word(rest);
        }
        if let '+' | '-' = first
            && !self.is_after_operand
            && let (Sort::Integer, length) = word(&rest[1..])
        {
            return (Sort::Integer, 1 + length);
        }
        match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            Some(sign) => (Sort::Sign(sign), sign.len()),
            None => (Sort::Unknown, first.len_utf8()),
        }
    }
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn word(rest: &str) -> (Sort, usize) {
    let length = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
    let word = &rest[..length];
    let keyword = KEYWORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    let sort = match keyword {
        Some((_, keyword)) => Sort::Keyword(*keyword),
        None if length > 0 && word.bytes().all(|byte| byte.is_ascii_digit()) => Sort::Integer,
        None => Sort::Word,
    };
    (sort, length)
}

/// A backslash goes with the character after it, and a doubled quote with its twin.
fn quoted(rest: &str, quote: char) -> (Sort, usize) {
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            characters.next();
        } else if character == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return (Sort::Text, at + 1);
        }
    }
    (Sort::OpenText, rest.len())
}

/// What a quoted text stands for. Only the quote can be escaped; other backslashes are themselves.
pub fn unquote(quoted: &str) -> String {
    let quote = quoted.chars().next().unwrap_or('\'');
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped) if escaped == quote => text.push(quote),
                Some(other) => text.extend(['\\', other]),
                None => text.push('\\'),
            },
            _ if character == quote => {
                text.push(quote);
                characters.next();
            }
            _ => text.push(character),
        }
    }
    text
}
