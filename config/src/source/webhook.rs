//! `webhook` as a source: how a delivery proves where it comes from.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;

use crate::diagnostic::{Problems, quoted};
use crate::keys::{Keys, boolean, choice, duration, list, nearest, one_of, text, wrong};
use crate::model::{Hmac, HmacAlgorithm, HmacEncoding, Scheme, Secret, TokenPlace, Verify, WebhookSource};
use crate::secret::read_secret;
use crate::tree::{Node, Scalar, Value};

pub(crate) const WEBHOOK_KEYS: &[&str] = &["verify", "insecure"];
pub(crate) const VERIFY_KEYS: &[&str] = &[
    "scheme",
    "secret",
    "secrets",
    "tolerance",
    "algorithm",
    "header",
    "encoding",
    "prefix",
    "signed",
    "timestamp_header",
    "query",
    "username",
];
pub(crate) const SCHEMES: &[&str] = &[
    "github",
    "gitlab",
    "stripe",
    "slack",
    "shopify",
    "standard-webhooks",
    "svix",
    "hmac",
    "token",
    "basic",
];
pub(crate) const HMAC_ALGORITHMS: &[(&str, HmacAlgorithm)] =
    &[("sha1", HmacAlgorithm::Sha1), ("sha256", HmacAlgorithm::Sha256), ("sha512", HmacAlgorithm::Sha512)];
pub(crate) const HMAC_ENCODINGS: &[(&str, HmacEncoding)] =
    &[("hex", HmacEncoding::Hex), ("base64", HmacEncoding::Base64)];
/// Keys that only some schemes have.
const OF_HMAC: &[&str] = &["algorithm", "header", "encoding", "prefix", "signed", "timestamp_header"];
const OF_TOKEN: &[&str] = &["header", "query"];
const OF_BASIC: &[&str] = &["username"];
const TOLERANCE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
const SECRETS_MAX: usize = 100;
/// What Standard Webhooks asks of a key (1.0, "Signature scheme"); shorter secrets of any scheme can be guessed.
const SECRET_BYTES: RangeInclusive<usize> = 24..=64;

pub(super) fn read(what: &str, node: &Node, problems: &mut Problems) -> Option<WebhookSource> {
    let keys = Keys::of(node, what, WEBHOOK_KEYS, problems)?;
    let insecure = keys.get("insecure").and_then(|node| boolean("insecure", node, problems));
    match (keys.get("verify"), insecure) {
        (Some(verify), None | Some(false)) => {
            Some(WebhookSource { verify: Some(read_verify(verify, problems)?) })
        }
        (Some(verify), Some(true)) => {
            problems.error(verify.at, "`verify` and `insecure: true` exclude each other");
            None
        }
        (None, Some(true)) => {
            problems.warning(
                node.at,
                format!("{what}: whoever reaches its URL can send events (`insecure: true`)"),
            );
            Some(WebhookSource { verify: None })
        }
        (None, _) => {
            let message = format!(
                "{what} has no `verify`: without it whoever reaches its URL can send events; \
                 if that is meant, say `insecure: true`"
            );
            problems.error(node.at, message);
            None
        }
    }
}

/// Reads `secret` or `secrets`; `None` where nothing usable is said, which is reported.
pub(super) fn read_secrets(
    what: &str,
    keys: &Keys<'_>,
    node: &Node,
    problems: &mut Problems,
) -> Option<Vec<Secret>> {
    match (keys.get("secret"), keys.entry("secrets")) {
        (Some(secret), None) => Some(vec![read_secret("secret", secret, problems)?]),
        (None, Some(secrets)) => {
            let items = list("secrets", &secrets.value, problems)?;
            if items.is_empty() || items.len() > SECRETS_MAX {
                problems.error(secrets.value.at, format!("`secrets`: expected 1 to {SECRETS_MAX} secrets"));
                return None;
            }
            let read: Vec<_> = items.iter().map(|item| read_secret("secrets", item, problems)).collect();
            read.into_iter().collect()
        }
        (Some(_), Some(secrets)) => {
            problems.error(secrets.key_at, "`secret` and `secrets` exclude each other");
            None
        }
        (None, None) => {
            problems.error(node.at, format!("{what} has no `secret`"));
            None
        }
    }
}

/// How the secrets of a scheme become keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyForm {
    /// As they are written.
    Text,
    /// Base64 after `whsec_`, which may be left out.
    Standard,
    /// Base64 after `whsec_`, and as they are written without that.
    Gitlab,
}

impl KeyForm {
    fn of(scheme: &Scheme) -> Self {
        match scheme {
            Scheme::StandardWebhooks | Scheme::Svix => Self::Standard,
            Scheme::Gitlab => Self::Gitlab,
            Scheme::Github | Scheme::Stripe | Scheme::Slack | Scheme::Shopify => Self::Text,
            Scheme::Hmac(_) | Scheme::Token(_) | Scheme::Basic { .. } => Self::Text,
        }
    }

    /// The bytes of a key, and how many there may be.
    fn length(self, secret: &str) -> (usize, usize) {
        let key = match (self, secret.strip_prefix("whsec_")) {
            (Self::Standard | Self::Gitlab, Some(key)) => key,
            (Self::Standard, None) => secret,
            (Self::Text, _) | (Self::Gitlab, None) => return (secret.len(), usize::MAX),
        };
        (key.trim_end_matches('=').len() * 3 / 4, *SECRET_BYTES.end())
    }
}

/// Warns of secrets that are too short to be one, and of keys longer than Standard Webhooks allows.
pub(super) fn warn_of_lengths(keys: &Keys<'_>, form: KeyForm, problems: &mut Problems) {
    let several = keys.get("secrets").and_then(|node| match &node.value {
        Value::List(items) => Some(items.as_slice()),
        Value::Scalar(_) | Value::Map(_) => None,
    });
    for node in keys.get("secret").into_iter().chain(several.unwrap_or_default()) {
        let Value::Scalar(Scalar { text, .. }) = &node.value else { continue };
        // A public key has its one length, and what is empty is reported elsewhere.
        if text.is_empty() || text.starts_with("whpk_") {
            continue;
        }
        let (bytes, bytes_max) = form.length(text);
        let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
        if bytes < *least {
            problems.warning_unseen(node.at, format!("a secret has {bytes} bytes, expected {least} or more"));
        } else if bytes > bytes_max {
            let message = format!("a key has {bytes} bytes, expected {least} to {most} (Standard Webhooks)");
            problems.warning_unseen(node.at, message);
        }
    }
}

fn read_verify(node: &Node, problems: &mut Problems) -> Option<Verify> {
    let keys = Keys::of(node, "`verify`", VERIFY_KEYS, problems)?;
    let secrets = read_secrets("`verify`", &keys, node, problems);
    let tolerance = keys.get("tolerance").and_then(|node| duration("tolerance", node, TOLERANCE, problems));
    let Some(scheme_node) = keys.get("scheme") else {
        problems.error(node.at, format!("`verify` has no `scheme`: expected {}", one_of(SCHEMES)));
        return None;
    };
    let scheme = read_scheme(scheme_node, &keys, node, problems);
    if let Some(scheme) = &scheme {
        warn_of_lengths(&keys, KeyForm::of(scheme), problems);
    }
    Some(Verify {
        scheme: scheme?,
        secrets: secrets?,
        tolerance: tolerance.unwrap_or(Duration::from_secs(300)),
    })
}

fn read_scheme(node: &Node, keys: &Keys<'_>, verify: &Node, problems: &mut Problems) -> Option<Scheme> {
    let name = text("scheme", node, problems)?;
    let own: &[&str] = match name {
        "hmac" => OF_HMAC,
        "token" => OF_TOKEN,
        "basic" => OF_BASIC,
        _ => &[],
    };
    let others = [OF_HMAC, OF_TOKEN, OF_BASIC].concat();
    if SCHEMES.contains(&name) {
        for entry in others.iter().filter(|key| !own.contains(key)).filter_map(|key| keys.entry(key)) {
            let message = format!("{} has no meaning with `scheme: {name}`", quoted(&entry.key));
            problems.error(entry.key_at, message);
        }
    }
    Some(match name {
        "github" => Scheme::Github,
        "gitlab" => Scheme::Gitlab,
        "stripe" => Scheme::Stripe,
        "slack" => Scheme::Slack,
        "shopify" => Scheme::Shopify,
        "standard-webhooks" => Scheme::StandardWebhooks,
        "svix" => Scheme::Svix,
        "hmac" => Scheme::Hmac(read_hmac(keys, verify, problems)?),
        "token" => Scheme::Token(read_token_place(keys, verify, problems)?),
        "basic" => Scheme::Basic { username: read_username(keys, verify, problems)? },
        _ => {
            let near =
                nearest(&name.replace('-', "_"), SCHEMES).map(|near| format!(" (did you mean {near}?)"));
            let why = format!("expected {}{}", one_of(SCHEMES), near.unwrap_or_default());
            wrong("scheme", node, &why, problems);
            return None;
        }
    })
}

fn read_hmac(keys: &Keys<'_>, verify: &Node, problems: &mut Problems) -> Option<Hmac> {
    let algorithm =
        keys.get("algorithm").and_then(|node| choice("algorithm", node, HMAC_ALGORITHMS, problems));
    let encoding = keys.get("encoding").and_then(|node| choice("encoding", node, HMAC_ENCODINGS, problems));
    let prefix = keys.get("prefix").and_then(|node| match &node.value {
        Value::Scalar(Scalar { text, quoted: true, .. }) if text.is_empty() => Some(String::new()),
        Value::Scalar(_) | Value::List(_) | Value::Map(_) => {
            text("prefix", node, problems).map(str::to_owned)
        }
    });
    let timestamp_header =
        keys.get("timestamp_header").map(|node| read_header("timestamp_header", node, problems));
    let signed = match keys.get("signed") {
        Some(node) => text("signed", node, problems).map(str::to_owned),
        None => Some("{body}".into()),
    };
    if keys.get("header").is_none() {
        problems.error(verify.at, "`verify` has no `header`: where the signature stands");
    }
    let header = read_header("header", keys.get("header")?, problems);
    let (signed, timestamp_header) =
        (signed?, timestamp_header.map_or(Some(None), |header| header.map(Some))?);
    check_signed(&signed, timestamp_header.is_some(), keys, verify, problems)?;
    Some(Hmac {
        algorithm: algorithm.unwrap_or(HmacAlgorithm::Sha256),
        header: header?,
        encoding: encoding.unwrap_or(HmacEncoding::Hex),
        prefix: prefix.unwrap_or_default(),
        signed,
        timestamp_header,
    })
}

/// What is signed holds the body, and the time if there is one: an unsigned time protects against nothing.
fn check_signed(
    signed: &str,
    has_timestamp: bool,
    keys: &Keys<'_>,
    verify: &Node,
    problems: &mut Problems,
) -> Option<()> {
    let at = keys.get("signed").map_or(verify.at, |node| node.at);
    let placeholders = signed.replace("{body}", "").replace("{timestamp}", "");
    let why = match (signed.contains("{timestamp}"), has_timestamp) {
        _ if placeholders.contains(['{', '}']) => "expected `{body}` and `{timestamp}`, and no other braces",
        _ if !signed.contains("{body}") => "`{body}` is missing, so that any body would pass",
        (true, false) => "`{timestamp}` needs a `timestamp_header`",
        (false, true) => "`{timestamp}` is missing, so that `timestamp_header` would not be signed",
        (true, true) | (false, false) => return Some(()),
    };
    problems.error(at, format!("`signed`: {why}"));
    None
}

fn read_token_place(keys: &Keys<'_>, verify: &Node, problems: &mut Problems) -> Option<TokenPlace> {
    match (keys.get("header"), keys.get("query")) {
        (Some(header), None) => read_header("header", header, problems).map(TokenPlace::Header),
        (None, Some(query)) => text("query", query, problems).map(|name| TokenPlace::Query(name.to_owned())),
        (Some(_), Some(query)) => {
            problems.error(query.at, "`header` and `query` exclude each other");
            None
        }
        (None, None) => {
            problems.error(verify.at, "`verify` has no `header` and no `query`: where the token stands");
            None
        }
    }
}

fn read_username(keys: &Keys<'_>, verify: &Node, problems: &mut Problems) -> Option<String> {
    let Some(node) = keys.get("username") else {
        problems.error(verify.at, "`verify` has no `username`");
        return None;
    };
    let name = text("username", node, problems)?;
    if name.contains(':') {
        wrong("username", node, "a user name cannot hold a colon (RFC 7617)", problems);
        return None;
    }
    Some(name.to_owned())
}

fn read_header(name: &str, node: &Node, problems: &mut Problems) -> Option<String> {
    match HeaderName::from_bytes(text(name, node, problems)?.as_bytes()) {
        Ok(header) => Some(header.as_str().to_owned()),
        Err(_) => {
            wrong(name, node, "expected the name of a header", problems);
            None
        }
    }
}
