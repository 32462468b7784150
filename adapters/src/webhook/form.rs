//! Bodies and queries in the form of `application/x-www-form-urlencoded` (WHATWG URL, section 5).

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Fields of one form; more of them take many times the memory of their text.
const FIELDS_MAX: usize = 10_000;
const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

pub(crate) fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(MEDIA_TYPE)
}

/// Names and values in their order. What is not UTF-8 becomes U+FFFD, as the standard has it.
pub(super) fn fields(form: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form.split(|byte| *byte == b'&').filter(|field| !field.is_empty()).map(|field| {
        let end = field.iter().position(|byte| *byte == b'=').unwrap_or(field.len());
        (decoded(&field[..end]), decoded(field.get(end + 1..).unwrap_or_default()))
    })
}

/// The field `payload`, if there is one.
pub(crate) fn payload(form: &[u8]) -> Option<Vec<u8>> {
    let (_, value) = fields(form).find(|(name, _)| name == "payload")?;
    Some(value.into_owned().into_bytes())
}

/// What a form is in JSON: the JSON that is in its only field, when that is named `payload` (GitHub, Slack), else an object of
/// texts, in which a name that repeats has a list. `None` when it has too many fields.
pub(crate) fn to_json(form: &[u8]) -> Option<Bytes> {
    let mut members = Map::new();
    for (count, (name, value)) in fields(form).enumerate() {
        if count == FIELDS_MAX {
            return None;
        }
        let value = Value::String(value.into_owned());
        match members.get_mut(&*name) {
            None => drop(members.insert(name.into_owned(), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    if let (1, Some(Value::String(payload))) = (members.len(), members.get("payload"))
        && serde_json::from_str::<&RawValue>(payload).is_ok()
    {
        return Some(payload.clone().into());
    }
    Some(Value::Object(members).to_string().into())
}

fn decoded(text: &[u8]) -> Cow<'_, str> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return String::from_utf8_lossy(text);
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        let plain = if *first == b'+' { b' ' } else { *first };
        bytes.push(escaped.unwrap_or(plain));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    match String::from_utf8(bytes) {
        Ok(text) => Cow::Owned(text),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::to_json;

    fn check(form: &str, expected: &str) {
        let json = to_json(form.as_bytes()).expect("few fields");
        assert_eq!(std::str::from_utf8(&json).expect("text"), expected);
    }

    #[test]
    fn a_form_is_an_object_of_texts() {
        check("token=a+b&text=94070%25&x", r#"{"text":"94070%","token":"a b","x":""}"#);
        check("a=1&b=2&a=3&a=4", r#"{"a":["1","3","4"],"b":"2"}"#);
        check("", "{}");
        check("a=%zz%4&b=%ff", r#"{"a":"%zz%4","b":"�"}"#);
    }

    #[test]
    fn a_lone_payload_that_is_json_is_the_body() {
        check("payload=%7B%22zen%22%3A+%22Keep+it%22%7D", r#"{"zen": "Keep it"}"#);
        check("payload=no+json", r#"{"payload":"no json"}"#);
        check("payload=%7B%7D&x=1", r#"{"payload":"{}","x":"1"}"#);
    }

    #[test]
    fn a_form_of_very_many_fields_is_not_taken_apart() {
        assert!(to_json("a&".repeat(10_000).as_bytes()).is_some());
        assert!(to_json("a&".repeat(10_001).as_bytes()).is_none());
    }
}
