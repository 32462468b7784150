//! Sinks that are brokers of other systems.

use std::path::Path;

use sluice_language::template::{Root, Template};

use super::MODES;
use crate::client::{read_kafka_client, read_nats_client};
use crate::diagnostic::Problems;
use crate::keys::{Keys, boolean, choice, text, wrong};
use crate::model::{AmqpSink, KafkaSink, Mode, NatsSink};
use crate::sink::read_tls;
use crate::source::amqp::{read_name, read_url, refuse_useless_tls};
use crate::template::within;
use crate::tree::{Node, Scalar, Value};

pub(crate) const KAFKA_SINK_KEYS: &[&str] = &["brokers", "topic", "key", "mode", "tls", "sasl", "properties"];
pub(crate) const AMQP_SINK_KEYS: &[&str] = &["url", "exchange", "routing_key", "mode", "persistent", "tls"];
pub(crate) const NATS_SINK_KEYS: &[&str] = &["servers", "subject", "mode", "credentials", "tls"];

pub(super) fn read_kafka(
    what: &str,
    node: &Node,
    folder: &Path,
    problems: &mut Problems,
) -> Option<KafkaSink> {
    let keys = Keys::of(node, what, KAFKA_SINK_KEYS, problems)?;
    let client = read_kafka_client(what, &keys, node, folder, problems);
    let key = keys.get("key").map(|node| read_template("key", node, problems));
    let mode = read_mode(&keys, problems);
    let topic = read_needed(what, "topic", &keys, node, problems);
    Some(KafkaSink {
        client: client?,
        topic: topic?,
        key: key.map_or(Some(None), |key| key.map(Some))?,
        mode,
    })
}

pub(super) fn read_amqp(what: &str, node: &Node, folder: &Path, problems: &mut Problems) -> Option<AmqpSink> {
    let keys = Keys::of(node, what, AMQP_SINK_KEYS, problems)?;
    let url = read_url(what, &keys, node, problems);
    let exchange = match keys.get("exchange") {
        // The default exchange, whose routing keys are names of queues.
        Some(Node { value: Value::Scalar(Scalar { text, quoted: true, .. }), .. }) if text.is_empty() => {
            Some(String::new())
        }
        Some(node) => read_name("exchange", node, problems),
        None => {
            problems.error(node.at, format!("{what} has no `exchange`; \"\" is the default exchange"));
            None
        }
    };
    let routing_key = read_needed(what, "routing_key", &keys, node, problems);
    let mode = read_mode(&keys, problems);
    let persistent = keys.get("persistent").and_then(|node| boolean("persistent", node, problems));
    let tls = keys.get("tls").and_then(|node| read_tls(node, folder, problems));
    refuse_useless_tls(&keys, url.as_ref(), problems);
    Some(AmqpSink {
        url: url?,
        exchange: exchange?,
        routing_key: routing_key?,
        mode,
        persistent: persistent.unwrap_or(true),
        tls: tls.unwrap_or_default(),
    })
}

pub(super) fn read_nats(what: &str, node: &Node, folder: &Path, problems: &mut Problems) -> Option<NatsSink> {
    let keys = Keys::of(node, what, NATS_SINK_KEYS, problems)?;
    let client = read_nats_client(what, &keys, node, folder, problems);
    let subject = read_needed(what, "subject", &keys, node, problems);
    if let (Some(node), Some(text)) = (keys.get("subject"), &subject)
        && !is_subject(text)
    {
        wrong("subject", node, "expected a subject to publish to, such as orders.created", problems);
    }
    let mode = read_mode(&keys, problems);
    Some(NatsSink { client: client?, subject: subject?, mode })
}

/// Whether something can be published to what is written here; what an event fills in is not known yet.
fn is_subject(text: &str) -> bool {
    let is_wrong = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>');
    text.contains('{') || !text.contains(is_wrong) && !text.split('.').any(str::is_empty)
}

fn read_mode(keys: &Keys<'_>, problems: &mut Problems) -> Mode {
    keys.get("mode").and_then(|node| choice("mode", node, MODES, problems)).unwrap_or(Mode::Binary)
}

fn read_needed(
    what: &str,
    key: &str,
    keys: &Keys<'_>,
    node: &Node,
    problems: &mut Problems,
) -> Option<String> {
    match keys.get(key) {
        Some(node) => read_template(key, node, problems),
        None => {
            problems.error(node.at, format!("{what} has no `{key}`"));
            None
        }
    }
}

/// A text that may hold paths into the event.
fn read_template(name: &str, node: &Node, problems: &mut Problems) -> Option<String> {
    let text = text(name, node, problems)?;
    if let Err(error) = Template::compile_text(text, &Root::OF_EVENT) {
        problems.error(within(node, text, error.at), format!("`{name}`: {}", error.message));
        return None;
    }
    Some(text.to_owned())
}
