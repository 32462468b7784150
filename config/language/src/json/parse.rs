//! The parser: one pass, no recursion deeper than the nesting it allows.

use std::borrow::Cow;

use super::{Document, Json, Number, Object};

/// Levels of arrays and objects; what serde_json reads too.
const DEPTH_MAX: usize = 127;

pub(super) fn document(bytes: &[u8]) -> Result<Document<'_>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut parser = Parser { text, at: 0, depth: 0, values: 0 };
    let parsed = parser.value().and_then(|root| {
        parser.skip_space();
        if parser.at < text.len() { Err("nothing more") } else { Ok(root) }
    });
    let place = parser.at;
    let root = parsed.map_err(|expected| format!("expected {expected} at byte {place}"))?;
    Ok(Document { root, values: parser.values })
}

struct Parser<'e> {
    text: &'e str,
    at: usize,
    depth: usize,
    values: usize,
}

/// What was expected.
type Parsed<T> = Result<T, &'static str>;

impl<'e> Parser<'e> {
    fn value(&mut self) -> Parsed<Json<'e>> {
        self.values += 1;
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'n') => self.literal("null", Json::Null),
            Some(b't') => self.literal("true", Json::Bool(true)),
            Some(b'f') => self.literal("false", Json::Bool(false)),
            _ => Err("a value"),
        }
    }

    fn nested(&mut self, parse: fn(&mut Self) -> Parsed<Json<'e>>) -> Parsed<Json<'e>> {
        if self.depth == DEPTH_MAX {
            return Err("no deeper nesting than 127 levels");
        }
        self.depth += 1;
        self.at += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn object(&mut self) -> Parsed<Json<'e>> {
        let mut members = Vec::new();
        if self.takes(b'}') {
            return Ok(Json::Object(Object::of(members)));
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            if !self.takes(b':') {
                return Err("`:`");
            }
            members.push((key, self.value()?));
            if self.takes(b'}') {
                return Ok(Json::Object(Object::of(members)));
            }
            if !self.takes(b',') {
                return Err("`,` or `}`");
            }
        }
    }

    fn array(&mut self) -> Parsed<Json<'e>> {
        let mut elements = Vec::new();
        if self.takes(b']') {
            return Ok(Json::Array(elements));
        }
        loop {
            elements.push(self.value()?);
            if self.takes(b']') {
                return Ok(Json::Array(elements));
            }
            if !self.takes(b',') {
                return Err("`,` or `]`");
            }
        }
    }

    fn string(&mut self) -> Parsed<Cow<'e, str>> {
        if self.peek() != Some(b'"') {
            return Err("a string");
        }
        self.at += 1;
        let first = self.plain()?;
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(first));
        }
        let mut text = first.to_owned();
        loop {
            self.at += 1;
            text.push(self.escape()?);
            text.push_str(self.plain()?);
            if self.peek() == Some(b'"') {
                self.at += 1;
                return Ok(Cow::Owned(text));
            }
        }
    }

    /// The text up to the next quote or backslash.
    fn plain(&mut self) -> Parsed<&'e str> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let length = bytes[start..].iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1F));
        self.at = length.map_or(bytes.len(), |length| start + length);
        match self.peek() {
            Some(b'"' | b'\\') => Ok(&self.text[start..self.at]),
            Some(_) => Err("an escape instead of a control character"),
            None => Err("`\"`"),
        }
    }

    fn escape(&mut self) -> Parsed<char> {
        let letter = self.peek();
        self.at += 1;
        Ok(match letter {
            Some(letter @ (b'"' | b'\\' | b'/')) => char::from(letter),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{C}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => {
                self.at -= 1;
                return Err("an escape");
            }
        })
    }

    fn unicode_escape(&mut self) -> Parsed<char> {
        const PAIRED: &str = "a surrogate with its other half";
        let first = self.hex()?;
        if !(0xD800..0xE000).contains(&first) {
            return char::from_u32(first).ok_or(PAIRED);
        }
        if first >= 0xDC00 || !self.text[self.at..].starts_with("\\u") {
            return Err(PAIRED);
        }
        self.at += 2;
        let second = self.hex()?;
        if !(0xDC00..0xE000).contains(&second) {
            return Err(PAIRED);
        }
        char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)).ok_or(PAIRED)
    }

    fn hex(&mut self) -> Parsed<u32> {
        const DIGITS: &str = "four hexadecimal digits";
        let digits = self.text.get(self.at..self.at + 4).ok_or(DIGITS)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(DIGITS);
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).map_err(|_| DIGITS)
    }

    fn number(&mut self) -> Parsed<Json<'e>> {
        let start = self.at;
        self.passes(b'-');
        if !self.passes(b'0') {
            self.digits()?;
        }
        if self.passes(b'.') {
            self.digits()?;
        }
        if self.passes(b'e') || self.passes(b'E') {
            let _ = self.passes(b'+') || self.passes(b'-');
            self.digits()?;
        }
        Ok(Json::Number(Number::of(&self.text[start..self.at])))
    }

    fn digits(&mut self) -> Parsed<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err("a digit") } else { Ok(()) }
    }

    fn literal(&mut self, word: &str, value: Json<'e>) -> Parsed<Json<'e>> {
        if !self.text[self.at..].starts_with(word) {
            return Err("a value");
        }
        self.at += word.len();
        Ok(value)
    }

    fn takes(&mut self, byte: u8) -> bool {
        self.skip_space();
        self.passes(byte)
    }

    fn passes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// What serde_json would have made of it: the last of repeated keys counts.
    fn to_value(json: &Json<'_>) -> Value {
        match json {
            Json::Null => Value::Null,
            Json::Bool(is_true) => Value::Bool(*is_true),
            Json::Number(number) => serde_json::from_str(number.text).expect("a number"),
            Json::Text(text) => Value::String(text.to_string()),
            Json::Array(elements) => elements.iter().map(to_value).collect(),
            Json::Object(object) => {
                object.members().iter().map(|(key, value)| (key.to_string(), to_value(value))).collect()
            }
        }
    }

    fn check(text: &[u8]) {
        match (document(text), serde_json::from_slice::<Value>(text)) {
            (Ok(document), Ok(value)) => assert_eq!(to_value(&document.root), value),
            (Err(_), Err(_)) => {}
            (Ok(_), Err(error)) if error.to_string().starts_with("number out of range") => {}
            (ours, theirs) => panic!("{}: {ours:?}, {theirs:?}", String::from_utf8_lossy(text)),
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn reads_what_serde_json_writes(value in json()) {
            check(value.to_string().as_bytes());
            check(serde_json::to_string_pretty(&value).expect("JSON").as_bytes());
        }

        #[test]
        fn damaged_text_is_json_for_both_or_for_neither(value in json(), at in any::<usize>(), byte in any::<u8>()) {
            let mut text = value.to_string().into_bytes();
            let at = at % text.len();
            text[at] = byte;
            check(&text);
            check(&text[..at]);
        }

        #[test]
        fn words_of_json_are_json_for_both_or_for_neither(
            text in proptest::collection::vec(
                proptest::sample::select(vec![
                    "{", "}", "[", "]", ",", ":", "\"a\"", "\"", "\\", "\\u00e9", "\\ud83d\\ude00", "\\ud800", "\\n", "\\x", "0",
                    "1", "-", ".", "e", "E+", "null", "true", "false", " ", "\n", "\u{1}", "é",
                ]),
                0..9,
            ),
        ) {
            check(text.concat().as_bytes());
            check(format!("\"{}\"", text.concat()).as_bytes());
        }
    }

    #[test]
    fn nesting_ends_where_it_ends_for_serde_json() {
        for depth in [127, 128] {
            check(format!("{}{}", "[".repeat(depth), "]".repeat(depth)).as_bytes());
        }
        assert!(document("[".repeat(1 << 20).as_bytes()).is_err());
    }

    #[test]
    fn a_number_out_of_range_is_still_json() {
        assert!(matches!(
            document(b"1e400").expect("JSON").root,
            Json::Number(Number { text: "1e400", value: None })
        ));
    }

    #[test]
    fn an_error_names_the_place() {
        let error = document(b"{\"a\": }").expect_err("no JSON");
        assert_eq!(error, "expected a value at byte 6");
    }
}
