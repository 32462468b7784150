//! Signatures over the body of a delivery: where they stand, how they are written and what they sign.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName};
use ring::{hmac, signature};
use subtle::ConstantTimeEq as _;

use super::verify::{Denied, only};

/// Signatures in one delivery; secrets are changed one at a time, so honest senders have two or three.
const SIGNATURES_MAX: usize = 16;

/// One way of signing, as data. Every scheme that signs is a value of this.
#[derive(Debug)]
pub(super) struct Mac {
    /// The first whose signature header is there counts.
    pub(super) headers: Vec<Names>,
    pub(super) algorithm: hmac::Algorithm,
    pub(super) encoding: Encoding,
    pub(super) layout: Layout,
    pub(super) signed: Vec<Part>,
    pub(super) body: SignedBody,
    pub(super) keys: Vec<Key>,
}

#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) signature: HeaderName,
    pub(super) timestamp: Option<HeaderName>,
    pub(super) id: Option<HeaderName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// In lower case.
    Hex,
    /// Standard alphabet, padded.
    Base64,
}

/// How a header holds signatures.
#[derive(Clone, Debug)]
pub(super) enum Layout {
    /// `sha256=<digest>`; several stand with commas between them, each with the prefix or only the first.
    Prefixed(String),
    /// `t=<unix time>,v1=<digest>`, where `v1` may repeat and other names mean nothing (Stripe).
    Pairs,
    /// `v1,<digest> v1a,<signature>`, where other versions mean nothing (Standard Webhooks).
    Versions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Literal(String),
    Id,
    Timestamp,
    Body,
}

/// What the body is to the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignedBody {
    AsSent,
    /// The JSON, also where it came as the field `payload` of a form (Gitea and its kin).
    Payload,
}

pub(super) enum Key {
    Hmac(hmac::Key),
    /// For the version `v1a` of Standard Webhooks.
    Ed25519(signature::UnparsedPublicKey<Vec<u8>>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// What the headers of one delivery say, decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signatures {
    digests: Vec<Vec<u8>>,
    /// Signatures of `v1a`.
    asymmetric: Vec<Vec<u8>>,
    pub(super) id: Option<String>,
    pub(super) timestamp: Option<String>,
}

impl Mac {
    /// The names that count for a delivery; `None` when it has no signature header at all.
    pub(super) fn names(&self, headers: &HeaderMap) -> Option<&Names> {
        self.headers.iter().find(|names| headers.contains_key(&names.signature))
    }

    /// Reads the headers. Fails on whatever is missing, doubled or not written as it must be.
    pub(super) fn read(&self, headers: &HeaderMap) -> Result<Signatures, Denied> {
        let fallback = self.headers.first().ok_or(Denied::Signature)?;
        let names = self.names(headers).unwrap_or(fallback);
        let text = only(headers, &names.signature)?;
        let mut found = Signatures { digests: Vec::new(), asymmetric: Vec::new(), id: None, timestamp: None };
        let read = match &self.layout {
            Layout::Prefixed(prefix) => self.prefixed(text, prefix, &mut found),
            Layout::Pairs => self.pairs(text, &mut found),
            Layout::Versions => {
                self.versions(text, &mut found);
                Some(())
            }
        };
        let count = found.digests.len() + found.asymmetric.len();
        if read.is_none() || count == 0 || count > SIGNATURES_MAX {
            return Err(Denied::Malformed {
                place: names.signature.to_string(),
                expected: self.layout.expected(),
            });
        }
        if let Some(name) = &names.timestamp {
            found.timestamp = Some(only(headers, name)?.to_owned());
        }
        if let Some(name) = &names.id {
            let id = only(headers, name)?;
            // A dot would let the end of an id pass for the beginning of the time that follows it.
            if id.contains('.') {
                return Err(Denied::Malformed { place: name.to_string(), expected: "an id without dots" });
            }
            found.id = Some(id.to_owned());
        }
        Ok(found)
    }

    /// Whether one of the signatures is that of one of the keys.
    pub(super) fn matches(&self, found: &Signatures, body: &[u8]) -> bool {
        let parts: Vec<&[u8]> = self
            .signed
            .iter()
            .map(|part| match part {
                Part::Literal(text) => text.as_bytes(),
                Part::Id => found.id.as_deref().unwrap_or_default().as_bytes(),
                Part::Timestamp => found.timestamp.as_deref().unwrap_or_default().as_bytes(),
                Part::Body => body,
            })
            .collect();
        let mut matches = subtle::Choice::from(0);
        for key in &self.keys {
            match key {
                Key::Hmac(key) if !found.digests.is_empty() => {
                    let mut digest = hmac::Context::with_key(key);
                    parts.iter().for_each(|part| digest.update(part));
                    let digest = digest.sign();
                    for sent in &found.digests {
                        matches |= sent.as_slice().ct_eq(digest.as_ref());
                    }
                }
                Key::Ed25519(key) if !found.asymmetric.is_empty() => {
                    let signed = parts.concat();
                    let is_valid = |sent: &Vec<u8>| key.verify(&signed, sent).is_ok();
                    matches |= subtle::Choice::from(u8::from(found.asymmetric.iter().any(is_valid)));
                }
                Key::Hmac(_) | Key::Ed25519(_) => {}
            }
        }
        matches.into()
    }

    fn prefixed(&self, text: &str, prefix: &str, found: &mut Signatures) -> Option<()> {
        for (index, item) in text.split(',').enumerate() {
            let digest = match item.strip_prefix(prefix) {
                Some(digest) => digest,
                None if index > 0 => item,
                None => return None,
            };
            found.digests.push(self.digest(digest)?);
        }
        Some(())
    }

    fn pairs(&self, text: &str, found: &mut Signatures) -> Option<()> {
        for item in text.split(',') {
            match item.split_once('=')? {
                ("t", time) if found.timestamp.is_none() => found.timestamp = Some(time.to_owned()),
                ("t", _) => return None,
                ("v1", digest) => found.digests.push(self.digest(digest)?),
                (_, _) => {}
            }
        }
        found.timestamp.is_some().then_some(())
    }

    /// One signature is enough, so what cannot be read is passed over like another version.
    fn versions(&self, text: &str, found: &mut Signatures) {
        for item in text.split(' ') {
            match item.split_once(',') {
                Some(("v1", digest)) => found.digests.extend(self.digest(digest)),
                Some(("v1a", signature)) => found.asymmetric.extend(BASE64_STANDARD.decode(signature).ok()),
                Some(_) | None => {}
            }
        }
    }

    fn digest(&self, text: &str) -> Option<Vec<u8>> {
        let bytes = match self.encoding {
            Encoding::Hex => from_hex(text)?,
            Encoding::Base64 => BASE64_STANDARD.decode(text).ok()?,
        };
        (bytes.len() == self.algorithm.digest_algorithm().output_len()).then_some(bytes)
    }
}

impl Layout {
    fn expected(&self) -> &'static str {
        match self {
            Self::Prefixed(_) => "the prefix and a digest of the right length",
            Self::Pairs => "`t=<unix time>,v1=<digest>`",
            Self::Versions => "`v1,<digest>`, several with spaces between them",
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}
