//! Sources: what brings events in from outside.

pub(crate) mod amqp;
pub(crate) mod cron;
pub(crate) mod git;
pub(crate) mod kafka;
pub(crate) mod nats;
pub(crate) mod webhook;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use sluice_language::template::Root;

use crate::diagnostic::{At, Problems, quoted};
use crate::keys::{Keys, choice, is_name, nearest, one_of, size};
use crate::model::{Limits, Oversize, Source, SourceKind};
use crate::sections::EVENT_BYTES;
use crate::template::read_fields;
use crate::tree::{Entry, Node};
use crate::trigger::ENTRY_POINTS;

pub(crate) const SOURCE_KEYS: &[&str] =
    &["kafka", "amqp", "nats", "webhook", "git", "cron", "event", "event_bytes", "oversize"];
const KINDS: &[&str] = &["kafka", "amqp", "nats", "webhook", "git", "cron"];
pub(crate) const OVERSIZES: &[(&str, Oversize)] =
    &[("stop", Oversize::Stop), ("truncate", Oversize::Truncate)];
/// The largest body that git hosts send.
const HOOK_EVENT_BYTES: usize = 25 << 20;

/// Reads all sources.
pub(crate) fn read_sources(
    entries: &[&Entry],
    limits: &Limits,
    folders: &[PathBuf],
    problems: &mut Problems,
) -> BTreeMap<String, Source> {
    let mut sources = BTreeMap::new();
    let mut groups: HashMap<(String, String), At> = HashMap::new();
    for entry in entries {
        let folder = folders.get(entry.value.at.file).map_or(Path::new(""), PathBuf::as_path);
        let Some(source) = read_source(entry, limits, folder, problems) else { continue };
        refuse_shared_group(&source, entry, &mut groups, problems);
        sources.insert(entry.key.clone(), source);
    }
    sources
}

fn read_source(entry: &Entry, limits: &Limits, folder: &Path, problems: &mut Problems) -> Option<Source> {
    let name = entry.key.as_str();
    if ENTRY_POINTS.contains(&name) {
        let message = format!(
            "a source cannot be called {}: that is what triggers call {}",
            quoted(name),
            match name {
                "http" => "events that are published over HTTP",
                _ => "the replies of sinks",
            }
        );
        problems.error(entry.key_at, message);
    } else if !is_name(name) {
        let message = format!("{} is not a source name: 1 to 63 of a-z, 0-9 and -", quoted(name));
        problems.error(entry.key_at, message);
    }
    let what = format!("source {}", quoted(name));
    let keys = Keys::of(&entry.value, &what, SOURCE_KEYS, problems)?;
    let kinds: Vec<&Entry> = KINDS.iter().filter_map(|kind| keys.entry(kind)).collect();
    let [kind_entry] = kinds[..] else {
        let at = kinds.get(1).map_or(entry.key_at, |second| second.key_at);
        let found = if kinds.is_empty() { "none" } else { "more" };
        problems.error(at, format!("{what}: expected exactly one of {}, found {found}", one_of(KINDS)));
        return None;
    };
    let kind = read_kind(&what, kind_entry, folder, problems);
    let roots = roots(&kind_entry.key);
    let event = keys.get("event").map(|node| read_event(node, roots, problems));
    let event_bytes =
        keys.get("event_bytes").and_then(|node| size("event_bytes", node, EVENT_BYTES, problems));
    let oversize = keys.get("oversize").and_then(|node| choice("oversize", node, OVERSIZES, problems));
    let kind = kind?;
    let default_bytes = match &kind {
        SourceKind::Webhook(_) | SourceKind::Git(_) => limits.event_bytes.max(HOOK_EVENT_BYTES),
        SourceKind::Kafka(_) | SourceKind::Amqp(_) | SourceKind::Nats(_) | SourceKind::Cron(_) => {
            limits.event_bytes
        }
    };
    Some(Source {
        kind,
        event: event.unwrap_or_else(|| Some(Vec::new()))?,
        event_bytes: event_bytes.map_or(default_bytes, |bytes| bytes as usize),
        oversize: oversize.unwrap_or(Oversize::Stop),
    })
}

fn read_kind(what: &str, entry: &Entry, folder: &Path, problems: &mut Problems) -> Option<SourceKind> {
    let what = format!("`{}` of {what}", entry.key);
    let node = &entry.value;
    match entry.key.as_str() {
        "kafka" => kafka::read(&what, node, folder, problems).map(SourceKind::Kafka),
        "amqp" => amqp::read(&what, node, folder, problems).map(SourceKind::Amqp),
        "nats" => nats::read(&what, node, folder, problems).map(SourceKind::Nats),
        "webhook" => webhook::read(&what, node, problems).map(SourceKind::Webhook),
        "git" => git::read(&what, node, problems).map(SourceKind::Git),
        _ => cron::read(&what, node, problems).map(SourceKind::Cron),
    }
}

fn read_event(
    node: &Node,
    roots: &[Root],
    problems: &mut Problems,
) -> Option<Vec<(String, serde_json::Value)>> {
    if node.is_null() {
        return Some(Vec::new());
    }
    read_fields("event", node, roots, problems)
}

/// What the records of a kind have for templates.
pub(crate) fn roots(kind: &str) -> &'static [Root] {
    match kind {
        "kafka" => &[Root::Body, Root::Headers, Root::Key, Root::Topic],
        "amqp" => &[Root::Body, Root::Headers, Root::Topic],
        "nats" => &[Root::Body, Root::Headers, Root::Subject],
        "webhook" | "git" => &[Root::Body, Root::Headers],
        _ => &[Root::Scheduled],
    }
}

/// Two sources in one consumer group would share its partitions, and each would miss what the other gets.
fn refuse_shared_group(
    source: &Source,
    entry: &Entry,
    groups: &mut HashMap<(String, String), At>,
    problems: &mut Problems,
) {
    let SourceKind::Kafka(kafka) = &source.kind else { return };
    for broker in &kafka.client.brokers {
        let first = groups.entry((broker.clone(), kafka.group.clone())).or_insert(entry.key_at);
        if *first != entry.key_at {
            let first = problems.named(*first);
            let group = quoted(&kafka.group);
            let message = format!(
                "source {}: group {group} is that of the source at {first} already, and each would miss what the other gets",
                quoted(&entry.key)
            );
            problems.error(entry.key_at, message);
            return;
        }
    }
}

/// Checks a name in `sources` of a trigger.
pub(crate) fn check_reference(name: &str, sources: &[&str]) -> Result<String, String> {
    let known: Vec<&str> = ENTRY_POINTS.iter().chain(sources).copied().collect();
    if known.contains(&name) {
        return Ok(name.to_owned());
    }
    // Names hold hyphens, which the search for near keys turns into underscores.
    let near = nearest(name, &known).or_else(|| {
        known
            .iter()
            .copied()
            .find(|known| strsim::damerau_levenshtein(known, name) <= (known.len() / 3).max(1))
    });
    Err(match near {
        Some(near) => format!("no such source: did you mean {near}?"),
        None => format!("no such source: expected {}", one_of(&known[..known.len().min(20)])),
    })
}
