//! The schemes by name, as values of one form.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderName;
use ring::{hmac, signature};
use sluice_config::{Hmac, HmacAlgorithm, HmacEncoding, Scheme, Secret, TokenPlace};

use super::mac::{Encoding, Key, Layout, Mac, Names, Part, SignedBody};
use super::verify::{Shared, WrongSecret};

/// Keys are written by people: with or without padding.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const ED25519_KEY_BYTES: usize = 32;

/// A scheme with its secrets.
#[derive(Debug)]
pub(super) enum Preset {
    Mac(Mac),
    Shared(Shared),
    MacElseShared(Mac, Shared),
}

/// Who sends what looks like GitHub's deliveries, and how they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GitSignature {
    Github,
    Gitlab,
    Gitea,
    Forgejo,
    Gogs,
    Bitbucket,
}

pub(super) fn of_scheme(scheme: &Scheme, secrets: &[Secret]) -> Result<Preset, WrongSecret> {
    match scheme {
        Scheme::Github => of_git(GitSignature::Github, secrets),
        Scheme::Gitlab => of_git(GitSignature::Gitlab, secrets),
        Scheme::Stripe => {
            let signed = vec![Part::Timestamp, Part::Literal(".".into()), Part::Body];
            raw("stripe-signature", Layout::Pairs, Encoding::Hex, signed, secrets)
        }
        Scheme::Slack => {
            let signed =
                vec![Part::Literal("v0:".into()), Part::Timestamp, Part::Literal(":".into()), Part::Body];
            let layout = Layout::Prefixed("v0=".into());
            let mut mac = raw_mac("x-slack-signature", layout, Encoding::Hex, signed, secrets)?;
            mac.headers[0].timestamp = Some(HeaderName::from_static("x-slack-request-timestamp"));
            Ok(Preset::Mac(mac))
        }
        Scheme::Shopify => {
            let layout = Layout::Prefixed(String::new());
            raw("x-shopify-hmac-sha256", layout, Encoding::Base64, vec![Part::Body], secrets)
        }
        Scheme::StandardWebhooks => standard(&["webhook", "svix"], secrets).map(Preset::Mac),
        Scheme::Svix => standard(&["svix", "webhook"], secrets).map(Preset::Mac),
        Scheme::Hmac(form) => generic(form, secrets).map(Preset::Mac),
        Scheme::Token(place) => Shared::token(place, secrets).map(Preset::Shared),
        Scheme::Basic { username } => Ok(Preset::Shared(Shared::basic(username, secrets))),
    }
}

pub(super) fn of_git(sender: GitSignature, secrets: &[Secret]) -> Result<Preset, WrongSecret> {
    let sha256 = |header, prefix: &str, body| {
        let layout = Layout::Prefixed(prefix.into());
        let mut mac = raw_mac(header, layout, Encoding::Hex, vec![Part::Body], secrets)?;
        mac.body = body;
        Ok(Preset::Mac(mac))
    };
    match sender {
        GitSignature::Github => sha256("x-hub-signature-256", "sha256=", SignedBody::AsSent),
        // SHA-256 under the old name.
        GitSignature::Bitbucket => sha256("x-hub-signature", "sha256=", SignedBody::AsSent),
        GitSignature::Gitea => sha256("x-gitea-signature", "", SignedBody::Payload),
        GitSignature::Forgejo => sha256("x-forgejo-signature", "", SignedBody::Payload),
        GitSignature::Gogs => sha256("x-gogs-signature", "", SignedBody::Payload),
        GitSignature::Gitlab => {
            let (keys, tokens): (Vec<Secret>, Vec<Secret>) =
                secrets.iter().cloned().partition(|secret| secret.expose().starts_with("whsec_"));
            let place = TokenPlace::Header("x-gitlab-token".into());
            Ok(Preset::MacElseShared(standard(&["webhook"], &keys)?, Shared::token(&place, &tokens)?))
        }
    }
}

pub(super) fn header_name(text: &str) -> Result<HeaderName, WrongSecret> {
    HeaderName::try_from(text).map_err(|_| WrongSecret(format!("`{text}` is not the name of a header")))
}

fn raw(
    header: &'static str,
    layout: Layout,
    encoding: Encoding,
    signed: Vec<Part>,
    secrets: &[Secret],
) -> Result<Preset, WrongSecret> {
    raw_mac(header, layout, encoding, signed, secrets).map(Preset::Mac)
}

/// HMAC-SHA256 whose key is the text of the secret.
fn raw_mac(
    header: &'static str,
    layout: Layout,
    encoding: Encoding,
    signed: Vec<Part>,
    secrets: &[Secret],
) -> Result<Mac, WrongSecret> {
    Ok(Mac {
        headers: vec![Names { signature: HeaderName::from_static(header), timestamp: None, id: None }],
        algorithm: hmac::HMAC_SHA256,
        encoding,
        layout,
        signed,
        body: SignedBody::AsSent,
        keys: raw_keys(hmac::HMAC_SHA256, secrets)?,
    })
}

fn raw_keys(algorithm: hmac::Algorithm, secrets: &[Secret]) -> Result<Vec<Key>, WrongSecret> {
    let key = |secret: &Secret| match secret.expose() {
        "" => Err(WrongSecret("a secret is empty".into())),
        text => Ok(Key::Hmac(hmac::Key::new(algorithm, text.as_bytes()))),
    };
    secrets.iter().map(key).collect()
}

/// Standard Webhooks 1.0, "Signature scheme": `whsec_` and a symmetric key, or `whpk_` and a public one.
fn standard(prefixes: &[&str], secrets: &[Secret]) -> Result<Mac, WrongSecret> {
    let names = |prefix: &&str| {
        let name = |part: &str| header_name(&format!("{prefix}-{part}"));
        Ok(Names {
            signature: name("signature")?,
            timestamp: Some(name("timestamp")?),
            id: Some(name("id")?),
        })
    };
    let dot = || Part::Literal(".".into());
    Ok(Mac {
        headers: prefixes.iter().map(names).collect::<Result<_, _>>()?,
        algorithm: hmac::HMAC_SHA256,
        encoding: Encoding::Base64,
        layout: Layout::Versions,
        signed: vec![Part::Id, dot(), Part::Timestamp, dot(), Part::Body],
        body: SignedBody::AsSent,
        keys: secrets.iter().map(standard_key).collect::<Result<_, _>>()?,
    })
}

fn standard_key(secret: &Secret) -> Result<Key, WrongSecret> {
    let text = secret.expose();
    let decode = |text: &str| KEY_BASE64.decode(text).ok().filter(|key| !key.is_empty());
    if let Some(public) = text.strip_prefix("whpk_") {
        let key = decode(public).filter(|key| key.len() == ED25519_KEY_BYTES).ok_or_else(|| {
            WrongSecret(format!(
                "what follows `whpk_` in a secret is not {ED25519_KEY_BYTES} bytes in base64"
            ))
        })?;
        return Ok(Key::Ed25519(signature::UnparsedPublicKey::new(&signature::ED25519, key)));
    }
    let key = decode(text.strip_prefix("whsec_").unwrap_or(text)).ok_or_else(|| {
        WrongSecret("a secret of this scheme is `whsec_` and a key in base64; one is not".into())
    })?;
    Ok(Key::Hmac(hmac::Key::new(hmac::HMAC_SHA256, &key)))
}

fn generic(form: &Hmac, secrets: &[Secret]) -> Result<Mac, WrongSecret> {
    let algorithm = match form.algorithm {
        HmacAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        HmacAlgorithm::Sha256 => hmac::HMAC_SHA256,
        HmacAlgorithm::Sha512 => hmac::HMAC_SHA512,
    };
    let signed = parts(&form.signed)?;
    let timestamp = form.timestamp_header.as_deref().map(header_name).transpose()?;
    match (signed.contains(&Part::Timestamp), &timestamp) {
        (true, None) => {
            return Err(WrongSecret("`signed` has `{timestamp}`, but there is no `timestamp_header`".into()));
        }
        (false, Some(_)) => {
            return Err(WrongSecret(
                "`timestamp_header` without `{timestamp}` in `signed` proves nothing".into(),
            ));
        }
        (true, Some(_)) | (false, None) => {}
    }
    Ok(Mac {
        headers: vec![Names { signature: header_name(&form.header)?, timestamp, id: None }],
        algorithm,
        encoding: match form.encoding {
            HmacEncoding::Hex => Encoding::Hex,
            HmacEncoding::Base64 => Encoding::Base64,
        },
        layout: Layout::Prefixed(form.prefix.clone()),
        signed,
        body: SignedBody::AsSent,
        keys: raw_keys(algorithm, secrets)?,
    })
}

/// Reads `{timestamp}.{body}`.
fn parts(text: &str) -> Result<Vec<Part>, WrongSecret> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let known = [("{body}", Part::Body), ("{timestamp}", Part::Timestamp)];
        if let Some((name, part)) = known.into_iter().find(|(name, _)| rest.starts_with(name)) {
            parts.push(part);
            rest = &rest[name.len()..];
            continue;
        }
        if rest.starts_with('{') {
            return Err(WrongSecret(format!(
                "`signed` knows `{{body}}` and `{{timestamp}}`, found `{rest}`"
            )));
        }
        let end = rest.find('{').unwrap_or(rest.len());
        parts.push(Part::Literal(rest[..end].to_owned()));
        rest = &rest[end..];
    }
    match parts.iter().filter(|part| **part == Part::Body).count() {
        0 => Err(WrongSecret("`signed` has no `{body}`: anybody could change it".into())),
        _ => Ok(parts),
    }
}
