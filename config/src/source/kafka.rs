//! `kafka` as a source.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::client::{read_kafka_client, refuse_empty};
use crate::diagnostic::{At, Problems};
use crate::keys::{Keys, choice, duration, text, texts};
use crate::model::{KafkaKey, KafkaSource, KafkaStart, Topics};
use crate::template::within;
use crate::tree::Node;

pub(crate) const KAFKA_KEYS: &[&str] = &[
    "brokers",
    "topics",
    "pattern",
    "group",
    "start",
    "key",
    "instance",
    "session_timeout",
    "tls",
    "sasl",
    "properties",
];
pub(crate) const STARTS: &[(&str, KafkaStart)] =
    &[("earliest", KafkaStart::Earliest), ("latest", KafkaStart::Latest)];
pub(crate) const KEYS: &[(&str, KafkaKey)] =
    &[("partitionkey", KafkaKey::PartitionKey), ("ignore", KafkaKey::Ignore)];
const SESSION_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(1800);
const TOPIC_BYTES_MAX: usize = 249;

pub(super) fn read(what: &str, node: &Node, folder: &Path, problems: &mut Problems) -> Option<KafkaSource> {
    let keys = Keys::of(node, what, KAFKA_KEYS, problems)?;
    let client = read_kafka_client(what, &keys, node, folder, problems);
    let topics = read_topics(what, &keys, node.at, problems);
    let group = keys.get("group").and_then(|node| text("group", node, problems).map(str::to_owned));
    if keys.get("group").is_none() {
        problems.error(node.at, format!("{what} has no `group`: the offsets are kept under its name"));
    }
    let start = keys.get("start").and_then(|node| choice("start", node, STARTS, problems));
    let key = keys.get("key").and_then(|node| choice("key", node, KEYS, problems));
    let instance = keys.get("instance").and_then(|node| text("instance", node, problems).map(str::to_owned));
    let session_timeout = keys
        .get("session_timeout")
        .and_then(|node| duration("session_timeout", node, SESSION_TIMEOUT, problems));
    Some(KafkaSource {
        client: client?,
        topics: topics?,
        group: group?,
        start: start.unwrap_or(KafkaStart::Earliest),
        key: key.unwrap_or(KafkaKey::PartitionKey),
        instance,
        session_timeout: session_timeout.unwrap_or(Duration::from_secs(10)),
    })
}

fn read_topics(what: &str, keys: &Keys<'_>, at: At, problems: &mut Problems) -> Option<Topics> {
    match (keys.get("topics"), keys.entry("pattern")) {
        (Some(topics), None) => {
            refuse_empty("topics", topics, problems);
            Some(Topics::Listed(texts("topics", topics, topic, problems)))
        }
        (None, Some(pattern)) => read_pattern(&pattern.value, problems).map(Topics::Pattern),
        (Some(_), Some(pattern)) => {
            problems.error(pattern.key_at, "`topics` and `pattern` exclude each other");
            None
        }
        (None, None) => {
            problems.error(at, format!("{what} has no `topics`: list them, or write a `pattern`"));
            None
        }
    }
}

fn topic(name: &str) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if let Some((at, character)) = name.char_indices().find(|(_, c)| !u8::try_from(*c).is_ok_and(legal)) {
        let hint = match "^$*+()[]{}|\\?".contains(character) {
            true => "; a regular expression is written `pattern: ...`",
            false => "",
        };
        let position = name[..at].chars().count() + 1;
        return Err(format!(
            "a topic is of a-z, A-Z, 0-9, `.`, `_` and `-`, not {character:?} (character {position}){hint}"
        ));
    }
    match name {
        "." | ".." => Err("no topic can be called that".into()),
        name if name.len() > TOPIC_BYTES_MAX => {
            Err(format!("a topic has at most {TOPIC_BYTES_MAX} characters"))
        }
        name => Ok(name.to_owned()),
    }
}

fn read_pattern(node: &Node, problems: &mut Problems) -> Option<String> {
    let pattern = text("pattern", node, problems)?;
    if let Err(error) = regex_syntax::parse(pattern) {
        let (why, offset) = match &error {
            regex_syntax::Error::Parse(error) => (error.kind().to_string(), error.span().start.offset),
            regex_syntax::Error::Translate(error) => (error.kind().to_string(), error.span().start.offset),
            _ => ("cannot be read".into(), 0),
        };
        let position = pattern[..offset].chars().count() + 1;
        let message = format!("`pattern`: not a regular expression: {why} (character {position})");
        problems.error(within(node, pattern, offset), message);
        return None;
    }
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    Some(pattern.to_owned())
}
