//! `amqp` as a source.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;

use crate::client::read_broker_url;
use crate::diagnostic::Problems;
use crate::keys::{Keys, boolean, duration, list, text, whole, wrong};
use crate::model::{AmqpSource, Binding, Declare, Secret};
use crate::sink::read_tls;
use crate::template::read_template;
use crate::tree::{Entry, Node, Value};

pub(crate) const AMQP_KEYS: &[&str] = &["url", "queue", "declare", "prefetch", "heartbeat", "tls"];
pub(crate) const DECLARE_KEYS: &[&str] = &["durable", "arguments", "bind"];
pub(crate) const BINDING_KEYS: &[&str] = &["exchange", "routing_key"];
pub(crate) const PREFETCH: RangeInclusive<u64> = 1..=65_535;
const HEARTBEAT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// A short string of the protocol.
const NAME_BYTES_MAX: usize = 255;

pub(super) fn read(what: &str, node: &Node, folder: &Path, problems: &mut Problems) -> Option<AmqpSource> {
    let keys = Keys::of(node, what, AMQP_KEYS, problems)?;
    let url = read_url(what, &keys, node, problems);
    let queue = keys.get("queue").and_then(|node| read_name("queue", node, problems));
    if keys.get("queue").is_none() {
        problems.error(node.at, format!("{what} has no `queue`"));
    }
    let declare = keys.get("declare").map(|node| read_declare(node, problems));
    let prefetch = keys.get("prefetch").and_then(|node| whole("prefetch", node, PREFETCH, problems));
    let heartbeat = keys.get("heartbeat").and_then(|node| read_heartbeat(node, problems));
    let tls = keys.get("tls").and_then(|node| read_tls(node, folder, problems));
    refuse_useless_tls(&keys, url.as_ref(), problems);
    Some(AmqpSource {
        url: url?,
        queue: queue?,
        declare: declare.map_or(Some(None), |declare| declare.map(Some))?,
        prefetch: prefetch.unwrap_or(256) as u16,
        heartbeat: heartbeat.unwrap_or(Duration::from_secs(10)),
        tls: tls.unwrap_or_default(),
    })
}

pub(crate) fn read_url(what: &str, keys: &Keys<'_>, node: &Node, problems: &mut Problems) -> Option<Secret> {
    match keys.get("url") {
        Some(url) => read_broker_url("url", url, &["amqp", "amqps"], problems),
        None => {
            problems.error(node.at, format!("{what} has no `url`"));
            None
        }
    }
}

pub(crate) fn refuse_useless_tls(keys: &Keys<'_>, url: Option<&Secret>, problems: &mut Problems) {
    if let (Some(tls), true) = (keys.entry("tls"), url.is_some_and(|url| url.expose().starts_with("amqp:"))) {
        problems.error(tls.key_at, "`tls` has no effect with an amqp URL: write amqps");
    }
}

pub(crate) fn read_name(name: &str, node: &Node, problems: &mut Problems) -> Option<String> {
    let text = text(name, node, problems)?;
    if text.len() > NAME_BYTES_MAX {
        wrong(name, node, &format!("expected at most {NAME_BYTES_MAX} bytes"), problems);
        return None;
    }
    Some(text.to_owned())
}

/// The protocol counts heartbeats in whole seconds.
fn read_heartbeat(node: &Node, problems: &mut Problems) -> Option<Duration> {
    let heartbeat = duration("heartbeat", node, HEARTBEAT, problems)?;
    if heartbeat.subsec_nanos() != 0 {
        wrong("heartbeat", node, "expected whole seconds", problems);
        return None;
    }
    Some(heartbeat)
}

fn read_declare(node: &Node, problems: &mut Problems) -> Option<Declare> {
    let keys = Keys::of(node, "`declare`", DECLARE_KEYS, problems)?;
    let durable = keys.get("durable").and_then(|node| boolean("durable", node, problems));
    let arguments = keys.get("arguments").map(|node| read_arguments(node, problems));
    let bind = keys.get("bind").and_then(|node| list("bind", node, problems)).unwrap_or_default();
    let bind: Vec<_> = bind.iter().map(|node| read_binding(node, problems)).collect();
    Some(Declare {
        durable: durable.unwrap_or(true),
        arguments: arguments.unwrap_or_else(|| Some(Vec::new()))?,
        bind: bind.into_iter().collect::<Option<_>>()?,
    })
}

fn read_arguments(node: &Node, problems: &mut Problems) -> Option<Vec<(String, Json)>> {
    let Value::Map(entries) = &node.value else {
        wrong("arguments", node, "expected names and values such as { x-queue-type: quorum }", problems);
        return None;
    };
    // Templates without roots: a path in there is an error, which says so.
    let read =
        |entry: &Entry| Some((entry.key.clone(), read_template(&entry.key, &entry.value, &[], problems)?));
    entries.iter().map(read).collect()
}

fn read_binding(node: &Node, problems: &mut Problems) -> Option<Binding> {
    let keys = Keys::of(node, "`bind`", BINDING_KEYS, problems)?;
    let exchange = match keys.get("exchange") {
        Some(node) => read_name("exchange", node, problems),
        None => {
            problems.error(node.at, "`bind` has no `exchange`");
            None
        }
    };
    let routing_key = match keys.get("routing_key") {
        // Fanout exchanges look at none.
        None => Some(String::new()),
        Some(Node { value: Value::Scalar(scalar), .. }) if scalar.quoted && scalar.text.is_empty() => {
            Some(String::new())
        }
        Some(node) => read_name("routing_key", node, problems),
    };
    Some(Binding { exchange: exchange?, routing_key: routing_key? })
}
