//! Sinks: where events are sent to, and which addresses never are.

pub(crate) mod brokers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use http::{HeaderName, HeaderValue, Uri};

use crate::diagnostic::{Problems, names_secret, quoted};
use crate::keys::{Keys, boolean, choice, nearest, one_of, text, wrong};
use crate::model::{HttpSink, Mode, Secret, Sink, Tls};
use crate::tree::{Entry, Node, Scalar, Value};

pub(crate) const SINK_KINDS: &[&str] = &["http", "stdout", "kafka", "amqp", "nats"];
pub(crate) const HTTP_SINK_KEYS: &[&str] = &["url", "mode", "headers", "tls", "allow_link_local"];
pub(crate) const TLS_KEYS: &[&str] = &["ca", "cert", "key"];
pub(crate) const MODES: &[(&str, Mode)] = &[("binary", Mode::Binary), ("structured", Mode::Structured)];
const KINDS_NOT_YET: &[&str] = &["process", "exec"];

const HEADERS_MAX: usize = 100;

/// What every request carries already; a second one would change what the first says.
const HEADERS_OF_THE_BROKER: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "prefer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(crate) type Headers = Vec<(String, Secret)>;

/// Reads a sink: a URL, `http: {...}` or `stdout: {}`. `name` is the key it stands under.
pub(crate) fn read_sink(name: &str, node: &Node, folder: &Path, problems: &mut Problems) -> Option<Sink> {
    match &node.value {
        Value::Scalar(_) => {
            let url = read_url(name, node, LinkLocal::Refused, problems)?;
            Some(Sink::Http(HttpSink {
                url,
                mode: Mode::Binary,
                headers: Vec::new(),
                tls: Tls::default(),
                allow_link_local: false,
            }))
        }
        Value::List(_) => {
            wrong(name, node, "expected one URL, `http: { url: ... }` or `stdout: {}`", problems);
            None
        }
        Value::Map(entries) => read_kind(name, node, entries, folder, problems),
    }
}

fn read_kind(
    name: &str,
    node: &Node,
    entries: &[Entry],
    folder: &Path,
    problems: &mut Problems,
) -> Option<Sink> {
    let [entry] = entries else {
        let bare = entries.iter().any(|entry| HTTP_SINK_KEYS.contains(&entry.key.as_str()));
        let hint = if bare { ": put `http:` above them" } else { "" };
        problems.error(node.at, format!("`{name}`: expected exactly one of {}{hint}", one_of(SINK_KINDS)));
        return None;
    };
    match entry.key.as_str() {
        "http" => read_http(name, entry, folder, problems),
        "stdout" => {
            Keys::of(&entry.value, &format!("`{name}.stdout`"), &[], problems)?;
            Some(Sink::Stdout)
        }
        "kafka" => brokers::read_kafka(&what(name, entry), &entry.value, folder, problems).map(Sink::Kafka),
        "amqp" => brokers::read_amqp(&what(name, entry), &entry.value, folder, problems).map(Sink::Amqp),
        "nats" => brokers::read_nats(&what(name, entry), &entry.value, folder, problems).map(Sink::Nats),
        "url" => {
            problems
                .error(entry.key_at, format!("`{name}`: put `http:` above `url`, or write the URL alone"));
            None
        }
        kind => {
            let message = if KINDS_NOT_YET.contains(&kind) {
                format!("`{name}`: this version has no `{kind}` sinks, only {}", one_of(SINK_KINDS))
            } else {
                let hint = nearest(kind, SINK_KINDS).map(|near| format!(": did you mean `{near}`?"));
                let hint = hint.unwrap_or_else(|| format!(": expected {}", one_of(SINK_KINDS)));
                format!("`{name}`: unknown kind of sink {}{hint}", quoted(kind))
            };
            problems.error(entry.key_at, message);
            None
        }
    }
}

fn what(name: &str, entry: &Entry) -> String {
    format!("`{name}.{}`", entry.key)
}

fn read_http(name: &str, entry: &Entry, folder: &Path, problems: &mut Problems) -> Option<Sink> {
    let keys = Keys::of(&entry.value, &format!("`{name}.http`"), HTTP_SINK_KEYS, problems)?;
    let allow_link_local =
        keys.get("allow_link_local").and_then(|node| boolean("allow_link_local", node, problems));
    let mode = keys.get("mode").and_then(|node| choice("mode", node, MODES, problems));
    let headers = keys.get("headers").map(|node| read_headers("headers", node, problems));
    let tls = keys.get("tls").and_then(|node| read_tls(node, folder, problems));
    let link_local = match allow_link_local {
        Some(true) => LinkLocal::Allowed,
        Some(false) | None => LinkLocal::Refused,
    };
    let Some(url_node) = keys.get("url") else {
        problems.error(entry.key_at, format!("`{name}.http` has no `url`"));
        return None;
    };
    let url = read_url("url", url_node, link_local, problems)?;
    if let (Some(tls), true) = (keys.entry("tls"), url.starts_with("http:")) {
        problems.error(tls.key_at, "`tls` has no effect with an http URL: write https");
    }
    Some(Sink::Http(HttpSink {
        url,
        mode: mode.unwrap_or(Mode::Binary),
        headers: headers.unwrap_or_default(),
        tls: tls.unwrap_or_default(),
        allow_link_local: allow_link_local.unwrap_or(false),
    }))
}

pub(crate) fn read_tls(node: &Node, folder: &Path, problems: &mut Problems) -> Option<Tls> {
    let keys = Keys::of(node, "`tls`", TLS_KEYS, problems)?;
    let mut path = |key: &str| -> Option<PathBuf> {
        let node = keys.get(key)?;
        let path = folder.join(text(key, node, problems)?);
        if let Err(error) = std::fs::File::open(&path) {
            problems.error(node.at, format!("`{key}`: cannot read `{}`: {error}", path.display()));
        }
        Some(path)
    };
    let tls = Tls { ca: path("ca"), cert: path("cert"), key: path("key") };
    if let (Some(entry), None) | (None, Some(entry)) = (keys.entry("cert"), keys.entry("key")) {
        problems.error(entry.key_at, "`tls`: `cert` and `key` belong together");
    }
    Some(tls)
}

/// Reads header fields. The result has names in lower case, none twice.
pub(crate) fn read_headers(name: &str, node: &Node, problems: &mut Problems) -> Headers {
    let entries = match &node.value {
        Value::Map(entries) => entries.as_slice(),
        Value::Scalar(_) if node.is_null() => &[],
        Value::Scalar(_) | Value::List(_) => {
            wrong(name, node, "expected a mapping of names to values", problems);
            return Vec::new();
        }
    };
    if entries.len() > HEADERS_MAX {
        problems.error(node.at, format!("`{name}`: more than {HEADERS_MAX} headers"));
        return Vec::new();
    }
    let mut headers: Headers = Vec::new();
    for entry in entries {
        let Some((name, value)) = read_header(entry, problems) else { continue };
        if headers.iter().any(|(known, _)| *known == name) {
            problems.error(entry.key_at, format!("header `{name}` appears twice, in upper and lower case"));
            continue;
        }
        headers.push((name, value));
    }
    headers
}

fn read_header(entry: &Entry, problems: &mut Problems) -> Option<(String, Secret)> {
    let Ok(name) = HeaderName::from_bytes(entry.key.as_bytes()) else {
        problems.error(entry.key_at, format!("{} is not a valid header name", quoted(&entry.key)));
        return None;
    };
    let name = name.as_str().to_owned();
    if HEADERS_OF_THE_BROKER.contains(&name.as_str()) || name.starts_with("ce-") {
        problems.error(entry.key_at, format!("header `{name}` is written by the broker itself"));
        return None;
    }
    let at = entry.value.at;
    // Values are never shown, whatever the name of the header.
    let Value::Scalar(Scalar { text, reference, .. }) = &entry.value.value else {
        problems.error_unseen(at, format!("header `{name}`: expected text, found {}", entry.value.kind()));
        return None;
    };
    if entry.value.is_null() {
        problems.error(at, format!("header `{name}` has no value"));
        return None;
    }
    if HeaderValue::from_str(text).is_err() {
        let why = "the value holds a line break or another control character";
        problems.error_unseen(at, format!("header `{name}`: {why}"));
        return None;
    }
    if names_secret(&name) {
        if text.is_empty() && reference.is_none() {
            problems.error(at, format!("header `{name}` is empty"));
            return None;
        }
        if reference.is_none() {
            let message = format!(
                "header `{name}` holds a secret in plain text: write \"${{NAME}}\" or \"${{file:PATH}}\" instead"
            );
            problems.warning_unseen(at, message);
        }
    }
    Some((name, Secret::new(text.clone())))
}

#[derive(Clone, Copy, PartialEq)]
enum LinkLocal {
    Refused,
    Allowed,
}

fn read_url(name: &str, node: &Node, link_local: LinkLocal, problems: &mut Problems) -> Option<String> {
    let url = text(name, node, problems)?;
    match check_url(url, link_local) {
        Ok(url) => Some(url),
        Err(why) if url.contains('@') || url.contains('?') => {
            problems.error_unseen(node.at, format!("`{name}`: {why}"));
            None
        }
        Err(why) => {
            wrong(name, node, &why, problems);
            None
        }
    }
}

fn check_url(url: &str, link_local: LinkLocal) -> Result<String, String> {
    if let Some(character) = url.chars().find(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
        return Err(format!("a URL cannot hold {character:?}"));
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err("expected a URL that begins with http:// or https://".into());
    };
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return Err("expected a URL that begins with http:// or https://".into());
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    if authority.contains('@') {
        return Err("a URL cannot hold a user name or password: send an `authorization` header".into());
    }
    if rest.contains('#') {
        return Err("a fragment (`#`) is never sent: remove it".into());
    }
    if rest.contains(['{', '}']) {
        return Err("a URL is fixed, it cannot hold a template".into());
    }
    let url = format!("{scheme}://{rest}");
    let uri: Uri = match url.parse() {
        Ok(uri) => uri,
        Err(_) if authority.is_empty() => return Err("the URL has no host".into()),
        Err(_) => return Err("not a valid URL".into()),
    };
    check_host(uri.host().unwrap_or(""), link_local)?;
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
    match port.map(crate::keys::whole_number) {
        None | Some(Some(1..=65535)) => Ok(url),
        Some(_) => Err("expected a port from 1 to 65535".into()),
    }
}

fn check_host(host: &str, link_local: LinkLocal) -> Result<(), String> {
    if host.is_empty() {
        return Err("the URL has no host".into());
    }
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address: IpAddr = match (literal, host.parse::<Ipv4Addr>()) {
        (Some(literal), _) => match literal.parse::<Ipv6Addr>() {
            Ok(address) => address.into(),
            Err(_) => return Err("not a valid IPv6 address".into()),
        },
        (None, Ok(address)) => address.into(),
        (None, Err(_)) => return check_host_name(host),
    };
    if is_link_local(address) && link_local == LinkLocal::Refused {
        return Err("link-local and metadata addresses are refused unless `allow_link_local: true`".into());
    }
    Ok(())
}

fn check_host_name(host: &str) -> Result<(), String> {
    let labels = host.trim_end_matches('.').split('.');
    let last = labels.clone().next_back().unwrap_or("");
    // Some resolvers read `2852039166` and `0xa9.254.169.254` as addresses; no host is named like that.
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let numeric = last.bytes().all(|b| b.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    if numeric {
        return Err("not a valid IPv4 address".into());
    }
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if labels.into_iter().any(|label| label.is_empty() || label.len() > 63 || !label.bytes().all(valid)) {
        return Err("not a valid host name".into());
    }
    Ok(())
}

/// Whether an address is link-local or serves a cloud's instance metadata, also when it is an IPv4 address inside an IPv6 one.
/// Sinks on such addresses are refused unless they say `allow_link_local`; what a name resolves to is held to the same rule.
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_link_local()
                // Metadata of Alibaba Cloud, Oracle Cloud and Azure outside 169.254.0.0/16.
                || [[100, 100, 100, 200], [192, 0, 0, 192], [168, 63, 129, 16]].contains(&address.octets())
        }
        IpAddr::V6(address) => {
            // Metadata of AWS and Google Cloud.
            let metadata = [
                Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
                Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
            ];
            address.is_unicast_link_local()
                || metadata.contains(&address)
                || embedded_ipv4(address).is_some_and(|address| is_link_local(address.into()))
        }
    }
}

/// The IPv4 address that an IPv4-mapped, IPv4-compatible, NAT64 or 6to4 address leads to.
fn embedded_ipv4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let from = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => Some(from(high, low)),
        [0, 0, 0, 0, 0xffff, 0, high, low] => Some(from(high, low)),
        [0x64, 0xff9b, .., high, low] => Some(from(high, low)),
        [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

/// Adds the default headers that a sink does not set itself.
pub(crate) fn with_default_headers(sink: &mut Sink, defaults: &Headers) {
    let Sink::Http(http) = sink else { return };
    for (name, value) in defaults {
        if !http.headers.iter().any(|(known, _)| known == name) {
            http.headers.push((name.clone(), value.clone()));
        }
    }
}
