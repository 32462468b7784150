//! Words and signs of an expression, as far as messages and limits need them: the grammar itself is the crate's.

/// A word or sign, and the bytes it takes in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub sort: Sort,
    pub start: usize,
    pub end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Number,
    /// Prefix and quotes included.
    Text,
    /// A text without its closing quotes.
    OpenText,
    Name,
    /// Operators and brackets; `in` is one.
    Sign(&'static str),
    /// A character that nothing begins with.
    Unknown,
}

/// Longer ones first.
const SIGNS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "-", "+", "*", "/", "%", "?", ":", ".", ",", "(", ")",
    "[", "]", "{", "}",
];

/// The tokens of a text, without white space and comments.
pub fn tokens(text: &str) -> impl Iterator<Item = Token> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += blank(&text[at..]);
        let rest = &text[at..];
        let (sort, length) = first(rest)?;
        let start = at;
        at += length;
        Some(Token { sort, start, end: at })
    })
}

/// How many bytes of white space and comments are before anything else.
fn blank(text: &str) -> usize {
    let mut rest = text.trim_start();
    while let Some(comment) = rest.strip_prefix("//") {
        rest = comment.find('\n').map_or("", |end| comment[end..].trim_start());
    }
    text.len() - rest.len()
}

fn first(rest: &str) -> Option<(Sort, usize)> {
    let first = rest.chars().next()?;
    let prefix = rest.bytes().take(2).take_while(|byte| matches!(byte, b'r' | b'R' | b'b' | b'B')).count();
    if rest[prefix..].starts_with(['\'', '"']) {
        return Some(text(rest, prefix));
    }
    if first.is_ascii_alphabetic() || first == '_' {
        let length = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        return Some((if &rest[..length] == "in" { Sort::Sign("in") } else { Sort::Name }, length));
    }
    if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
        return Some((Sort::Number, number(rest)));
    }
    Some(match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
        Some(sign) => (Sort::Sign(sign), sign.len()),
        None => (Sort::Unknown, first.len_utf8()),
    })
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn number(rest: &str) -> usize {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    if rest.starts_with("0x") {
        return rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
    }
    let mut length = digits(rest);
    if rest[length..].starts_with('.') {
        let fraction = digits(&rest[length + 1..]);
        length += if fraction > 0 { 1 + fraction } else { 0 };
    }
    if let Some(exponent) = rest[length..].strip_prefix(['e', 'E']) {
        let sign = usize::from(exponent.starts_with(['+', '-']));
        let exponent = digits(&exponent[sign..]);
        length += if exponent > 0 { 1 + sign + exponent } else { 0 };
    }
    length + usize::from(rest[length..].starts_with(['u', 'U']))
}

/// A text after its prefix: three quotes may go over several lines, one quote may not.
fn text(rest: &str, prefix: usize) -> (Sort, usize) {
    let is_raw = rest[..prefix].contains(['r', 'R']);
    let quote = &rest[prefix..=prefix];
    let triple = quote.repeat(3);
    let (quotes, is_long) =
        if rest[prefix..].starts_with(&triple) { (triple.as_str(), true) } else { (quote, false) };
    let start = prefix + quotes.len();
    let mut characters = rest[start..].char_indices();
    while let Some((at, character)) = characters.next() {
        if rest[start + at..].starts_with(quotes) {
            return (Sort::Text, start + at + quotes.len());
        }
        match character {
            '\\' if !is_raw => {
                characters.next();
            }
            '\n' | '\r' if !is_long => return (Sort::OpenText, start + at),
            _ => {}
        }
    }
    (Sort::OpenText, rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_numbers_and_comments_are_what_cel_takes_them_for() {
        let shown = |text: &str| {
            let all = tokens(text).map(|token| {
                let mark = match token.sort {
                    Sort::Number => "n",
                    Sort::Text => "t",
                    Sort::OpenText => "open",
                    Sort::Name => "a",
                    Sort::Sign(_) => "s",
                    Sort::Unknown => "?",
                };
                format!("{mark}:{}", &text[token.start..token.end])
            });
            all.collect::<Vec<_>>().join(" ")
        };
        let cases = [
            ("a.b<=1.5e3u // c ( '", "a:a s:. a:b s:<= n:1.5e3u"),
            (
                "'it\\'s' r'\\' bR\"x\" rx '''a'b(''' + \"\"\"\n\"\"\"",
                "t:'it\\'s' t:r'\\' t:bR\"x\" a:rx t:'''a'b(''' s:+ t:\"\"\"\n\"\"\"",
            ),
            ("x in index", "a:x s:in a:index"),
            (".5 1.a 0xFFu 1e 1_0", "n:.5 n:1 s:. a:a n:0xFFu n:1 a:e n:1 a:_0"),
            ("'é' é 'ü", "t:'é' ?:é open:'ü"),
            ("'a\nb", "open:'a a:b"),
            ("&&& //", "s:&& ?:&"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
