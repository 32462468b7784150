//! How the brokers of other systems are reached: what their sources and sinks have in common.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Problems, names_secret, quoted};
use crate::keys::{Keys, boolean, choice, nearest, text, texts, whole_number, wrong};
use crate::model::{KafkaClient, NatsClient, Sasl, Secret, Tls};
use crate::secret::{read_secret, warn_of_plain_text};
use crate::sink::read_tls;
use crate::tree::{Node, Scalar, Value};

pub(crate) const SASL_KEYS: &[&str] = &["mechanism", "username", "password"];
pub(crate) const SASL_MECHANISMS: &[(&str, &str)] =
    &[("PLAIN", "PLAIN"), ("SCRAM-SHA-256", "SCRAM-SHA-256"), ("SCRAM-SHA-512", "SCRAM-SHA-512")];

/// Properties of librdkafka that Sluice sets itself, and what to write instead.
const PROPERTIES_OF_SLUICE: &[(&str, &str)] = &[
    ("bootstrap.servers", "write `brokers`"),
    ("metadata.broker.list", "write `brokers`"),
    ("group.id", "write `group`"),
    ("group.instance.id", "write `instance`"),
    ("session.timeout.ms", "write `session_timeout`"),
    ("auto.offset.reset", "write `start`"),
    ("security.protocol", "write `tls` and `sasl`"),
    ("sasl.mechanism", "write `sasl`"),
    ("sasl.mechanisms", "write `sasl`"),
    ("sasl.username", "write `sasl`"),
    ("sasl.password", "write `sasl`"),
    ("ssl.ca.location", "write `tls`"),
    ("ssl.certificate.location", "write `tls`"),
    ("ssl.key.location", "write `tls`"),
    ("enable.auto.commit", "offsets are committed once their events are on disk"),
    ("auto.commit.enable", "offsets are committed once their events are on disk"),
    ("enable.auto.offset.store", "offsets are committed once their events are on disk"),
    ("acks", "a delivery is settled once every replica has it"),
    ("request.required.acks", "a delivery is settled once every replica has it"),
    ("enable.idempotence", "a delivery is settled once every replica has it"),
    ("transactional.id", "transactions are not used"),
    ("plugin.library.paths", "no code is loaded"),
];

/// Reads `brokers`, `tls`, `sasl` and `properties`.
pub(crate) fn read_kafka_client(
    what: &str,
    keys: &Keys<'_>,
    node: &Node,
    folder: &Path,
    problems: &mut Problems,
) -> Option<KafkaClient> {
    let tls = keys.get("tls").and_then(|node| read_tls_or_not(node, folder, problems));
    let sasl = keys.get("sasl").and_then(|node| read_sasl(node, problems));
    let properties = keys.get("properties").map(|node| read_properties(node, problems));
    let Some(brokers_node) = keys.get("brokers") else {
        problems.error(node.at, format!("{what} has no `brokers`"));
        return None;
    };
    let brokers = texts("brokers", brokers_node, kafka_broker, problems);
    refuse_empty("brokers", brokers_node, problems);
    Some(KafkaClient { brokers, tls: tls.flatten(), sasl, properties: properties.unwrap_or_default() })
}

fn kafka_broker(text: &str) -> Result<String, String> {
    let why = || "expected HOST:PORT such as localhost:9092".to_owned();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => (host, Some(port)),
        _ => (text, None),
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    let port_is_valid = port.is_none_or(|port| matches!(whole_number(port), Some(1..=65535)));
    match !host.is_empty() && host.bytes().all(legal) && port_is_valid {
        true => Ok(text.to_owned()),
        false => Err(why()),
    }
}

fn read_sasl(node: &Node, problems: &mut Problems) -> Option<Sasl> {
    let keys = Keys::of(node, "`sasl`", SASL_KEYS, problems)?;
    for key in SASL_KEYS.iter().filter(|key| keys.get(key).is_none()) {
        problems.error(node.at, format!("`sasl` has no `{key}`"));
    }
    let mechanism =
        keys.get("mechanism").and_then(|node| choice("mechanism", node, SASL_MECHANISMS, problems));
    let username = keys.get("username").and_then(|node| text("username", node, problems).map(str::to_owned));
    let password = keys.get("password").and_then(|node| read_secret("password", node, problems));
    Some(Sasl { mechanism: mechanism?.to_owned(), username: username?, password: password? })
}

fn read_properties(node: &Node, problems: &mut Problems) -> Vec<(String, Secret)> {
    let Value::Map(entries) = &node.value else {
        if !node.is_null() {
            wrong("properties", node, "expected names and values of librdkafka", problems);
        }
        return Vec::new();
    };
    let mut properties = Vec::new();
    for entry in entries {
        let name = entry.key.as_str();
        if let Some((_, instead)) = PROPERTIES_OF_SLUICE.iter().find(|(known, _)| *known == name) {
            problems.error(entry.key_at, format!("property {} is set by Sluice: {instead}", quoted(name)));
            continue;
        }
        let Value::Scalar(Scalar { text, reference, .. }) = &entry.value.value else {
            let found = entry.value.kind();
            problems
                .error(entry.value.at, format!("property {}: expected text, found {found}", quoted(name)));
            continue;
        };
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._".contains(&byte);
        if name.is_empty() || !name.bytes().all(legal) {
            problems.error(entry.key_at, format!("{} is no property of librdkafka", quoted(name)));
            continue;
        }
        if names_secret(name) && reference.is_none() {
            warn_of_plain_text(&format!("property `{name}`"), &entry.value, problems);
        }
        properties.push((name.to_owned(), Secret::new(text.clone())));
    }
    properties
}

/// `true`, `false` or files. The outer `None` is wrong, the inner one is without TLS.
pub(crate) fn read_tls_or_not(node: &Node, folder: &Path, problems: &mut Problems) -> Option<Option<Tls>> {
    if let Value::Scalar(_) = &node.value
        && !node.is_null()
    {
        return boolean("tls", node, problems).map(|on| on.then(Tls::default));
    }
    read_tls(node, folder, problems).map(Some)
}

/// Reads `servers`, `credentials` and `tls`.
pub(crate) fn read_nats_client(
    what: &str,
    keys: &Keys<'_>,
    node: &Node,
    folder: &Path,
    problems: &mut Problems,
) -> Option<NatsClient> {
    let tls = keys.get("tls").and_then(|node| read_tls_or_not(node, folder, problems));
    let credentials = keys.get("credentials").and_then(|node| read_path(node, folder, problems));
    let Some(servers_node) = keys.get("servers") else {
        problems.error(node.at, format!("{what} has no `servers`"));
        return None;
    };
    let items: &[Node] = match &servers_node.value {
        Value::List(items) => items,
        Value::Scalar(_) | Value::Map(_) => {
            wrong("servers", servers_node, "expected a list", problems);
            &[]
        }
    };
    refuse_empty("servers", servers_node, problems);
    let mut seen = HashSet::new();
    let mut servers = Vec::new();
    for item in items {
        let Some(server) = read_broker_url("servers", item, &["nats", "tls"], problems) else { continue };
        if seen.insert(server.expose().to_owned()) {
            servers.push(server);
        }
    }
    Some(NatsClient { servers, credentials, tls: tls.flatten() })
}

fn read_path(node: &Node, folder: &Path, problems: &mut Problems) -> Option<PathBuf> {
    let path = folder.join(text("credentials", node, problems)?);
    if let Err(error) = std::fs::File::open(&path) {
        problems.error(node.at, format!("`credentials`: cannot read `{}`: {error}", path.display()));
    }
    Some(path)
}

/// A URL of one of these schemes, with a host; what stands before an `@` is secret.
pub(crate) fn read_broker_url(
    name: &str,
    node: &Node,
    schemes: &[&str],
    problems: &mut Problems,
) -> Option<Secret> {
    let url = text(name, node, problems)?;
    let userinfo = user_information(url);
    if let Err(why) = check_broker_url(url, schemes) {
        match userinfo {
            Some(_) => problems.error_unseen(node.at, format!("`{name}`: {why}")),
            None => wrong(name, node, &why, problems),
        }
        return None;
    }
    let is_inline = matches!(&node.value, Value::Scalar(Scalar { reference: None, .. }));
    // A user name alone is a token to NATS, and no secret to AMQP.
    let is_secret = |info: &str| info.contains(':') || schemes.contains(&"nats");
    if is_inline && userinfo.is_some_and(is_secret) {
        warn_of_plain_text(&format!("`{name}`"), node, problems);
    }
    Some(Secret::new(url.to_owned()))
}

fn user_information(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    authority.rsplit_once('@').map(|(info, _)| info)
}

fn check_broker_url(url: &str, schemes: &[&str]) -> Result<(), String> {
    let expected = || format!("expected a URL such as {}://localhost", schemes[0]);
    if url.chars().any(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
        return Err("a URL cannot hold spaces and characters outside of ASCII: write them as %XX".into());
    }
    let (scheme, rest) = url.split_once("://").ok_or_else(expected)?;
    if !schemes.contains(&scheme) {
        let hint = nearest(scheme, schemes).map(|near| format!(" (did you mean {near}?)"));
        return Err(format!("{}{}", expected(), hint.unwrap_or_default()));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (host, None),
    };
    if host.is_empty() {
        return Err("the URL has no host".into());
    }
    match port.map(whole_number) {
        None | Some(Some(1..=65535)) => Ok(()),
        Some(_) => Err("expected a port from 1 to 65535".into()),
    }
}

/// The URL without what is secret in it.
pub(crate) fn shown_url(url: &Secret) -> String {
    let url = url.expose();
    let Some(info) = user_information(url) else { return url.to_owned() };
    let shown = match info.split_once(':') {
        Some((user, _)) => format!("{user}:[hidden]"),
        None => "[hidden]".into(),
    };
    url.replacen(info, &shown, 1)
}

pub(crate) fn refuse_empty(name: &str, node: &Node, problems: &mut Problems) {
    if let Value::List(items) = &node.value
        && items.is_empty()
    {
        problems.error(node.at, format!("`{name}` is empty"));
    }
}
