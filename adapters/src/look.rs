//! Looking up a few members of a large JSON text, without building what else is in it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Members of the outermost object that are kept; no sender has half as many.
const MEMBERS_MAX: usize = 256;

/// The members of a JSON object, unparsed.
#[derive(Debug, Default)]
pub(crate) struct Look<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Look<'a> {
    /// What is no JSON object has no members.
    pub(crate) fn into(json: &'a [u8]) -> Self {
        let json = json.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(json);
        let whole: Option<&RawValue> = serde_json::from_slice(json).ok();
        let members = whole.and_then(|whole| {
            let mut deserializer = serde_json::Deserializer::from_str(whole.get());
            deserializer.deserialize_map(Members).ok()
        });
        Self { members: members.unwrap_or_default() }
    }

    /// The value at names with dots between them, and numbers for places in lists.
    fn at(&self, path: &str) -> Option<&'a RawValue> {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        // Of a name that occurs twice, the last counts, as it does to other parsers.
        let (_, found) = self.members.iter().rev().find(|(name, _)| name == first)?;
        rest.into_iter().flat_map(|rest| rest.split('.')).try_fold(*found, step)
    }

    /// A string that is not empty, or a number or a boolean as it is written.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let raw = self.at(path)?.get();
        let text = match raw.as_bytes().first()? {
            b'"' => serde_json::from_str(raw).ok()?,
            b'{' | b'[' | b'n' => return None,
            _ => raw.to_owned(),
        };
        (!text.is_empty()).then_some(text)
    }

    /// The first of several paths that has a text.
    pub(crate) fn first(&self, paths: &[&str]) -> Option<String> {
        paths.iter().find_map(|path| self.text(path))
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.at(path).is_some_and(|value| value.get() != "null")
    }
}

fn step<'a>(value: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    let mut deserializer = serde_json::Deserializer::from_str(value.get());
    match name.parse::<usize>() {
        Ok(place) => deserializer.deserialize_seq(Item(place)).ok()?,
        Err(_) => deserializer.deserialize_map(Member(name)).ok()?,
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while members.len() < MEMBERS_MAX {
            match map.next_entry::<Name<'de>, &'de RawValue>()? {
                Some((Name(name), value)) => members.push((name, value)),
                None => return Ok(members),
            }
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(members)
    }
}

struct Member<'n>(&'n str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Name(name)) = map.next_key()? {
            if name == self.0 {
                found = Some(map.next_value()?);
                continue;
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(found)
    }
}

struct Item(usize);

impl<'de> Visitor<'de> for Item {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut place = 0;
        while let Some(item) = list.next_element::<&RawValue>()? {
            if place == self.0 {
                found = Some(item);
            }
            place += 1;
        }
        Ok(found)
    }
}

/// A name that is borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::Look;

    #[test]
    fn members_are_found_by_path() {
        let json = br#"{"a":{"b":[{"c":"x"},{"c":7}],"a.b":1},"\u006eame":"n","t":true,"z":null,"e":"","d":1,"d":2}"#;
        let look = Look::into(json);
        for (path, expected) in [
            ("a.b.0.c", Some("x")),
            ("a.b.1.c", Some("7")),
            ("a.b.2.c", None),
            ("a.x.y", None),
            ("a", None),
            ("a.b.c", None),
            ("name", Some("n")),
            ("t", Some("true")),
            ("z", None),
            ("e", None),
            ("d", Some("2")),
        ] {
            assert_eq!(look.text(path).as_deref(), expected, "{path}");
        }
        assert!(look.has("a") && !look.has("z") && !look.has("y"));
        assert_eq!(look.first(&["z", "t"]).as_deref(), Some("true"));
    }

    #[test]
    fn what_is_no_object_has_no_members() {
        for text in ["", "[1]", "\"a\"", "{", "{\"a\":1", "{\"a\":1} x", "\u{0}"] {
            assert_eq!(Look::into(text.as_bytes()).text("a"), None, "{text}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(Look::into(deep.as_bytes()).text("a"), None);
        let many: String = (0..1000).map(|n| format!("\"k{n}\":{n},")).collect();
        let many = format!("{{{many}\"last\":1}}");
        assert_eq!(Look::into(many.as_bytes()).text("k255").as_deref(), Some("255"));
        assert_eq!(Look::into(many.as_bytes()).text("last"), None);
    }
}
