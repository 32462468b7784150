//! Reading typed values out of the tree. Every function reports what is wrong and returns `None`, so that the caller goes on.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::diagnostic::{Problems, quoted};
use crate::tree::{Entry, Node, Scalar, Value};
use crate::units::{duration_text, parse_duration, parse_size, size_text};

/// Lists are searched for what is listed twice.
const TEXTS_MAX: usize = 1_000;

/// A mapping with a fixed set of keys.
pub(crate) struct Keys<'n> {
    entries: &'n [Entry],
    known: &'static [&'static str],
}

impl<'n> Keys<'n> {
    /// Reports keys that are not known; `what` names the mapping. Nothing at all counts as an empty mapping.
    pub fn of(
        node: &'n Node,
        what: &str,
        known: &'static [&'static str],
        problems: &mut Problems,
    ) -> Option<Self> {
        let entries: &[Entry] = match &node.value {
            Value::Map(entries) => entries,
            Value::Scalar(_) if node.is_null() => &[],
            Value::Scalar(_) | Value::List(_) => {
                let example = known.first().map_or(String::new(), |key| format!(" such as {{ {key}: ... }}"));
                problems
                    .error(node.at, format!("{what}: expected a mapping{example}, found {}", node.kind()));
                return None;
            }
        };
        for entry in entries {
            if !known.contains(&entry.key.as_str()) && !entry.key.starts_with("x-") {
                problems.error(entry.key_at, unknown_key(&entry.key, what, known));
            }
        }
        Some(Self { entries, known })
    }

    pub fn get(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub fn entry(&self, key: &str) -> Option<&'n Entry> {
        debug_assert!(self.known.contains(&key), "`{key}` is read but not a known key");
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// Words of other systems, the key that has to be known, and what is written instead.
const OTHER_WORDS: &[(&str, &str, &str)] = &[
    ("github", "git", "git: { provider: github, secret: ... }"),
    ("gitlab", "git", "git: { provider: gitlab, secret: ... }"),
    ("stripe", "webhook", "webhook: { verify: { scheme: stripe, secret: ... } }"),
    ("slack", "webhook", "webhook: { verify: { scheme: slack, secret: ... } }"),
    ("shopify", "webhook", "webhook: { verify: { scheme: shopify, secret: ... } }"),
    ("rabbitmq", "amqp", "amqp"),
    ("scheme", "verify", "verify: { scheme: ..., secret: ... }"),
    ("secret", "verify", "verify: { scheme: ..., secret: ... }"),
    ("bootstrap_servers", "brokers", "brokers"),
    ("group_id", "group", "group"),
    ("expression", "schedule", "schedule"),
    ("tz", "timezone", "timezone"),
    ("target", "sink", "sink"),
    ("destination", "sink", "sink"),
];

fn unknown_key(key: &str, what: &str, known: &[&str]) -> String {
    if key.is_empty() {
        return format!("{what}: a key is missing before this `:`");
    }
    if known.is_empty() {
        return format!("unknown key {} in {what}: it has no keys", quoted(key));
    }
    let other = OTHER_WORDS.iter().find(|(word, needs, _)| *word == key && known.contains(needs));
    let hint = match other.map(|(_, _, instead)| *instead).or_else(|| nearest(key, known)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known keys are {}", known.join(", ")),
    };
    format!("unknown key {} in {what}: {hint}", quoted(key))
}

/// The known word a typing error probably means.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.chars().take(64).collect::<String>().to_ascii_lowercase().replace('-', "_");
    let distance = |known: &&str| strsim::damerau_levenshtein(&word, known);
    let near = known.iter().copied().min_by_key(distance)?;
    let prefix = word.len() >= 4 && near.starts_with(&word);
    (prefix || distance(&near) <= (near.len() / 3).max(1)).then_some(near)
}

/// Reports the error unless the value is a reference that could not be expanded, which is reported already.
pub(crate) fn wrong(name: &str, node: &Node, why: &str, problems: &mut Problems) {
    if node.is_null() {
        problems.error(node.at, format!("`{name}` has no value: {why}"));
        return;
    }
    if let Value::Scalar(Scalar { text, reference: Some(_), .. }) = &node.value
        && text.is_empty()
    {
        return;
    }
    problems.error(node.at, format!("`{name}`: {why}, found {}", node.kind()));
}

/// Any scalar, not empty.
pub(crate) fn text<'n>(name: &str, node: &'n Node, problems: &mut Problems) -> Option<&'n str> {
    match &node.value {
        Value::Scalar(scalar) if !node.is_null() && !scalar.text.is_empty() => return Some(&scalar.text),
        Value::Scalar(Scalar { quoted: true, reference: None, .. }) => {
            problems.error(node.at, format!("`{name}` is empty"));
        }
        Value::Map(entries) if entries.first().is_some_and(|entry| entry.value.is_null()) => {
            wrong(name, node, "expected text, which must be in quotes when it begins with `{`", problems);
        }
        Value::Scalar(_) | Value::List(_) | Value::Map(_) => wrong(name, node, "expected text", problems),
    }
    None
}

/// A scalar that can be something else than text: without quotes, or from a reference, which needs them for its braces.
fn bare(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar(scalar) if !scalar.quoted || scalar.reference.is_some() => Some(&scalar.text),
        Value::Scalar(_) | Value::List(_) | Value::Map(_) => None,
    }
}

pub(crate) fn boolean(name: &str, node: &Node, problems: &mut Problems) -> Option<bool> {
    match bare(node) {
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => {
            wrong_unquoted(name, node, "expected true or false", problems);
            None
        }
    }
}

pub(crate) fn whole(
    name: &str,
    node: &Node,
    range: RangeInclusive<u64>,
    problems: &mut Problems,
) -> Option<u64> {
    let number = bare(node).and_then(whole_number).filter(|number| range.contains(number));
    if number.is_none() {
        let why = format!("expected a whole number from {} to {}", range.start(), range.end());
        wrong_unquoted(name, node, &why, problems);
    }
    number
}

/// Like `wrong`, for what quotes turn into text.
pub(crate) fn wrong_unquoted(name: &str, node: &Node, why: &str, problems: &mut Problems) {
    match &node.value {
        Value::Scalar(Scalar { quoted: true, reference: None, .. }) => {
            wrong(name, node, &format!("{why} without quotes"), problems);
        }
        Value::Scalar(_) | Value::List(_) | Value::Map(_) => wrong(name, node, why, problems),
    }
}

/// Decimal digits only: `0777`, `0x50` and `1_000` mean different things to different readers.
pub(crate) fn whole_number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

pub(crate) fn duration(
    name: &str,
    node: &Node,
    range: RangeInclusive<Duration>,
    problems: &mut Problems,
) -> Option<Duration> {
    let text = scalar_or_nothing(node);
    let limits = || format!("{} to {}", duration_text(*range.start()), duration_text(*range.end()));
    match parse_duration(text) {
        Ok(duration) if range.contains(&duration) => return Some(duration),
        Ok(_) => wrong(name, node, &format!("expected a duration from {}", limits()), problems),
        Err(why) if why == "out of range" => {
            wrong(name, node, &format!("expected a duration from {}", limits()), problems);
        }
        Err(why) => wrong(name, node, &why, problems),
    }
    None
}

pub(crate) fn size(
    name: &str,
    node: &Node,
    range: RangeInclusive<u64>,
    problems: &mut Problems,
) -> Option<u64> {
    let limits =
        || format!("expected a size from {} to {}", size_text(*range.start()), size_text(*range.end()));
    match parse_size(scalar_or_nothing(node)) {
        Ok(size) if range.contains(&size) => return Some(size),
        Ok(_) => wrong(name, node, &limits(), problems),
        Err(why) if why == "out of range" => wrong(name, node, &limits(), problems),
        Err(why) => wrong(name, node, &why, problems),
    }
    None
}

fn scalar_or_nothing(node: &Node) -> &str {
    match &node.value {
        Value::Scalar(scalar) => &scalar.text,
        Value::List(_) | Value::Map(_) => "",
    }
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(
    name: &str,
    node: &Node,
    words: &[(&str, T)],
    problems: &mut Problems,
) -> Option<T> {
    let text = scalar_or_nothing(node);
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if found.is_none() {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        wrong(name, node, &format!("expected {}", one_of(&words)), problems);
    }
    found
}

/// `a`, `a or b`, `a, b or c`.
pub(crate) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [words @ .., last] => format!("{} or {last}", words.join(", ")),
    }
}

pub(crate) fn list<'n>(name: &str, node: &'n Node, problems: &mut Problems) -> Option<&'n [Node]> {
    match &node.value {
        Value::List(items) => Some(items),
        Value::Scalar(_) | Value::Map(_) => {
            wrong(name, node, "expected a list", problems);
            None
        }
    }
}

/// A list of texts, each checked by `check`, which says what is wrong.
pub(crate) fn texts(
    name: &str,
    node: &Node,
    check: impl Fn(&str) -> Result<String, String>,
    problems: &mut Problems,
) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let items = list(name, node, problems).unwrap_or_default();
    if items.len() > TEXTS_MAX {
        problems.error(node.at, format!("`{name}`: more than {TEXTS_MAX} entries"));
        return texts;
    }
    for item in items {
        let Some(text) = text(name, item, problems) else { continue };
        match check(text) {
            Ok(text) if texts.contains(&text) => {
                problems.error(item.at, format!("`{name}`: {} is listed twice", quoted(&text)));
            }
            Ok(text) => texts.push(text),
            Err(why) => wrong(name, item, &why, problems),
        }
    }
    texts
}

/// Names of triggers and sources: `[a-z0-9-]{1,63}`.
pub(crate) fn is_name(name: &str) -> bool {
    let characters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(characters)
}
