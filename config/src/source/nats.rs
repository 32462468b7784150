//! `nats` as a source.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::client::{read_nats_client, refuse_empty};
use crate::diagnostic::Problems;
use crate::keys::{Keys, boolean, duration, text, texts, wrong};
use crate::model::{NatsFrom, NatsSource};
use crate::tree::Node;

pub(crate) const NATS_KEYS: &[&str] = &[
    "servers",
    "stream",
    "consumer",
    "filter_subjects",
    "idle_heartbeat",
    "subjects",
    "queue_group",
    "allow_lossy",
    "credentials",
    "tls",
];
const OF_JETSTREAM: &[&str] = &["stream", "consumer", "filter_subjects", "idle_heartbeat"];
const OF_CORE: &[&str] = &["subjects", "queue_group", "allow_lossy"];
/// Servers refuse less, and consumers send none for longer fetches.
const IDLE_HEARTBEAT: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(30);

pub(super) fn read(what: &str, node: &Node, folder: &Path, problems: &mut Problems) -> Option<NatsSource> {
    let keys = Keys::of(node, what, NATS_KEYS, problems)?;
    let client = read_nats_client(what, &keys, node, folder, problems);
    let first = |names: &[&str]| names.iter().find_map(|name| keys.entry(name));
    let from = match (first(OF_JETSTREAM), first(OF_CORE)) {
        (Some(_), None) => read_jetstream(what, &keys, node, problems),
        (None, Some(_)) => read_core(what, &keys, node, problems),
        (Some(one), Some(other)) => {
            let message = format!(
                "`{}` is of JetStream and `{}` of core NATS: a source is one of the two",
                one.key, other.key
            );
            problems.error(other.key_at, message);
            None
        }
        (None, None) => {
            let message = format!(
                "{what} says not what to receive: `stream` and `consumer` of JetStream, or `subjects` of core NATS"
            );
            problems.error(node.at, message);
            None
        }
    };
    Some(NatsSource { client: client?, from: from? })
}

fn read_jetstream(what: &str, keys: &Keys<'_>, node: &Node, problems: &mut Problems) -> Option<NatsFrom> {
    let mut name = |key: &str| match keys.get(key) {
        Some(node) => {
            let name = text(key, node, problems)?;
            // The names are tokens of subjects.
            if name.contains(|c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c)) {
                wrong(key, node, "expected a name without spaces, `.`, `*`, `>`, `/` and `\\`", problems);
                return None;
            }
            Some(name.to_owned())
        }
        None => {
            problems.error(node.at, format!("{what} has no `{key}`"));
            None
        }
    };
    let (stream, consumer) = (name("stream"), name("consumer"));
    let filter_subjects =
        keys.get("filter_subjects").map(|node| texts("filter_subjects", node, subject, problems));
    let idle_heartbeat = keys
        .get("idle_heartbeat")
        .and_then(|node| duration("idle_heartbeat", node, IDLE_HEARTBEAT, problems));
    Some(NatsFrom::JetStream {
        stream: stream?,
        consumer: consumer?,
        filter_subjects: filter_subjects.unwrap_or_default(),
        idle_heartbeat: idle_heartbeat.unwrap_or(Duration::from_secs(5)),
    })
}

fn read_core(what: &str, keys: &Keys<'_>, node: &Node, problems: &mut Problems) -> Option<NatsFrom> {
    let lossy = keys.get("allow_lossy").and_then(|node| boolean("allow_lossy", node, problems));
    if lossy != Some(true) {
        let message = format!(
            "{what}: core NATS forgets what nobody listens to, so events are lost while the broker is down: \
             use a JetStream `stream`, or say `allow_lossy: true`"
        );
        problems.error(keys.get("allow_lossy").map_or(node.at, |node| node.at), message);
    }
    let queue_group = keys.get("queue_group").and_then(|node| {
        let group = text("queue_group", node, problems)?;
        match group.contains(char::is_whitespace) {
            true => {
                wrong("queue_group", node, "expected a name without spaces", problems);
                None
            }
            false => Some(group.to_owned()),
        }
    });
    let Some(subjects) = keys.get("subjects") else {
        problems.error(node.at, format!("{what} has no `subjects`"));
        return None;
    };
    refuse_empty("subjects", subjects, problems);
    Some(NatsFrom::Core { subjects: texts("subjects", subjects, subject, problems), queue_group })
}

/// Tokens between dots; `*` stands for one, `>` at the end for the rest.
fn subject(text: &str) -> Result<String, String> {
    let tokens: Vec<&str> = text.split('.').collect();
    let wildcard = |token: &str| token.contains(['*', '>']) && token.len() > 1;
    if text.contains(|c: char| c.is_whitespace() || c.is_control())
        || tokens.iter().any(|token| token.is_empty())
    {
        return Err("expected a subject such as sensors.*.temperature".into());
    }
    if tokens.iter().any(|token| wildcard(token)) {
        return Err("`*` and `>` stand for whole parts of a subject".into());
    }
    match tokens[..tokens.len() - 1].contains(&">") {
        true => Err("`>` stands at the end of a subject".into()),
        false => Ok(text.to_owned()),
    }
}
