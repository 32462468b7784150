//! Whether a delivery is from who holds the secret.
//!
//! A delivery is verified in two steps, so that what cannot pass is refused before its body is read: [`Verifier::claim`] looks
//! at the headers and the time, [`Claim::check`] at the exact bytes of the body. Neither parses the body, both compare secrets
//! in constant time. A [`Denied`] says in the log what was wrong; to its sender every one of them looks the same.
//!
//! A signed time may be off by the tolerance, in either direction. A delivery that is sent again within it is signed as well
//! as the first: that it is a duplicate is found by its id, within the duplicate window, so that window is to be no shorter than
//! twice the tolerance.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName, header};
use sluice_config::{Secret, TokenPlace, Verify};
use subtle::ConstantTimeEq as _;

use super::form;
use super::mac::{Mac, Part, Signatures, SignedBody};
use super::presets::{self, GitSignature, Preset};

/// For the signed form of GitLab, the one host of repositories that signs a time.
const GIT_TOLERANCE: Duration = Duration::from_secs(300);

/// The compiled `verify:` of a source.
#[derive(Debug)]
pub struct Verifier {
    way: Way,
    tolerance: Duration,
}

#[derive(Debug)]
enum Way {
    /// The file says `insecure: true`.
    Unverified,
    Mac(Mac),
    Shared(Shared),
    /// A delivery that says it is signed must be; the token counts for one that does not (GitLab).
    MacElseShared(Mac, Shared),
}

/// A secret that is itself in the request.
#[derive(Debug)]
pub(super) struct Shared {
    place: Place,
    secrets: Vec<Secret>,
}

#[derive(Debug)]
enum Place {
    Header(HeaderName),
    Query(String),
    /// `Authorization: Basic`.
    Basic {
        username: String,
    },
}

/// A secret or a key that cannot be used; the text does not show it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrongSecret(pub(super) String);

/// Why a delivery is refused. For the log only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("`{place}` is missing or empty")]
    Missing { place: String },
    #[error("`{place}` occurs more than once")]
    Repeated { place: String },
    #[error("`{place}` is not {expected}")]
    Malformed { place: String, expected: &'static str },
    #[error("it was signed {seconds} s ago, more than the tolerance of {tolerance_seconds} s")]
    Old { seconds: i64, tolerance_seconds: u64 },
    #[error("it was signed for {seconds} s from now, more than the tolerance of {tolerance_seconds} s")]
    Early { seconds: i64, tolerance_seconds: u64 },
    #[error("no signature is that of a secret")]
    Signature,
    #[error("`{place}` holds none of the secrets")]
    Secret { place: String },
}

/// A delivery whose headers can be right.
#[derive(Debug)]
pub struct Claim<'v> {
    signed: Option<(&'v Mac, Signatures)>,
    time_s: Option<i64>,
}

/// A delivery that is right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The signed time, in seconds since 1970-01-01T00:00:00Z.
    pub time_s: Option<i64>,
    /// The signed id: no other header can name this delivery.
    pub id: Option<String>,
}

impl Way {
    fn of(preset: Preset) -> Self {
        match preset {
            Preset::Mac(mac) => Self::Mac(mac),
            Preset::Shared(shared) => Self::Shared(shared),
            Preset::MacElseShared(mac, shared) => Self::MacElseShared(mac, shared),
        }
    }
}

impl Verifier {
    /// `None` is a source that takes what anybody sends.
    pub fn of_webhook(verify: Option<&Verify>) -> Result<Self, WrongSecret> {
        let Some(verify) = verify else { return Ok(Self::unverified()) };
        let preset = presets::of_scheme(&verify.scheme, &verify.secrets)?;
        Ok(Self { way: Way::of(preset), tolerance: verify.tolerance })
    }

    /// Without secrets: a source that takes what anybody sends.
    pub(crate) fn of_git(sender: GitSignature, secrets: &[Secret]) -> Result<Self, WrongSecret> {
        if secrets.is_empty() {
            return Ok(Self::unverified());
        }
        let way = Way::of(presets::of_git(sender, secrets)?);
        Ok(Self { way, tolerance: GIT_TOLERANCE })
    }

    fn unverified() -> Self {
        Self { way: Way::Unverified, tolerance: Duration::ZERO }
    }

    /// Whether the source takes what anybody sends.
    pub fn is_open(&self) -> bool {
        matches!(self.way, Way::Unverified)
    }

    /// Looks at the headers and the query of a delivery, at a time in seconds since 1970-01-01T00:00:00Z.
    pub fn claim(&self, headers: &HeaderMap, query: Option<&str>, now_s: i64) -> Result<Claim<'_>, Denied> {
        let unsigned = Claim::unsigned();
        match &self.way {
            Way::Unverified => Ok(unsigned),
            Way::Shared(shared) => shared.check(headers, query).map(|()| unsigned),
            Way::Mac(mac) => self.signed(mac, headers, now_s),
            Way::MacElseShared(mac, _) if mac.names(headers).is_some() => self.signed(mac, headers, now_s),
            Way::MacElseShared(_, shared) => shared.check(headers, query).map(|()| unsigned),
        }
    }

    fn signed<'v>(&self, mac: &'v Mac, headers: &HeaderMap, now_s: i64) -> Result<Claim<'v>, Denied> {
        let signatures = mac.read(headers)?;
        let time_s = match &signatures.timestamp {
            Some(text) if mac.signed.contains(&Part::Timestamp) => Some(self.check_time(text, now_s)?),
            Some(_) | None => None,
        };
        Ok(Claim { signed: Some((mac, signatures)), time_s })
    }

    fn check_time(&self, text: &str, now_s: i64) -> Result<i64, Denied> {
        // Nothing but digits: no sign, no exponent, no fraction.
        let is_plain = (1..=12).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = if is_plain { text.parse::<i64>().ok() } else { None };
        let malformed =
            || Denied::Malformed { place: "timestamp".into(), expected: "a time in whole seconds" };
        let time_s = parsed.ok_or_else(malformed)?;
        let tolerance_seconds = self.tolerance.as_secs();
        let seconds = now_s.saturating_sub(time_s);
        match (seconds.unsigned_abs() > tolerance_seconds, seconds > 0) {
            (false, _) => Ok(time_s),
            (true, true) => Err(Denied::Old { seconds, tolerance_seconds }),
            (true, false) => Err(Denied::Early { seconds: -seconds, tolerance_seconds }),
        }
    }
}

impl Claim<'_> {
    /// Of a source that takes what anybody sends.
    pub(crate) fn unsigned() -> Self {
        Self { signed: None, time_s: None }
    }

    /// Looks at the body, in the bytes it came in.
    pub fn check(self, headers: &HeaderMap, body: &[u8]) -> Result<Verified, Denied> {
        let Some((mac, signatures)) = self.signed else { return Ok(Verified::default()) };
        let payload = match mac.body {
            SignedBody::Payload if form::is_form(headers) => form::payload(body),
            SignedBody::Payload | SignedBody::AsSent => None,
        };
        let signed = payload.as_deref().unwrap_or(body);
        if !mac.matches(&signatures, signed) {
            return Err(Denied::Signature);
        }
        Ok(Verified { time_s: self.time_s, id: signatures.id })
    }
}

impl Shared {
    pub(super) fn token(place: &TokenPlace, secrets: &[Secret]) -> Result<Self, WrongSecret> {
        let place = match place {
            TokenPlace::Header(name) => Place::Header(presets::header_name(name)?),
            TokenPlace::Query(name) => Place::Query(name.clone()),
        };
        Ok(Self { place, secrets: secrets.to_vec() })
    }

    pub(super) fn basic(username: &str, secrets: &[Secret]) -> Self {
        Self { place: Place::Basic { username: username.to_owned() }, secrets: secrets.to_vec() }
    }

    fn check(&self, headers: &HeaderMap, query: Option<&str>) -> Result<(), Denied> {
        match &self.place {
            Place::Header(name) => {
                let sent = only(headers, name)?;
                let bare = bearer(sent).filter(|_| *name == header::AUTHORIZATION).unwrap_or(sent);
                self.is_one(bare.as_bytes(), name.as_str())
            }
            Place::Query(name) => {
                let mut values = form::fields(query.unwrap_or_default().as_bytes())
                    .filter(|(known, _)| *known == name.as_str())
                    .map(|(_, value)| value);
                let missing = || Denied::Missing { place: format!("?{name}") };
                let sent = values.next().filter(|value| !value.is_empty()).ok_or_else(missing)?;
                if values.next().is_some() {
                    return Err(Denied::Repeated { place: format!("?{name}") });
                }
                self.is_one(sent.as_bytes(), &format!("?{name}"))
            }
            Place::Basic { username } => {
                let malformed = || Denied::Malformed {
                    place: header::AUTHORIZATION.to_string(),
                    expected: "`Basic` and a user name with a password in base64",
                };
                let sent = only(headers, &header::AUTHORIZATION)?;
                let encoded = scheme(sent, "basic").ok_or_else(malformed)?;
                let sent = BASE64_STANDARD.decode(encoded).map_err(|_| malformed())?;
                let prefix = format!("{username}:");
                // The name is no secret, but comparing it takes no other path than the password.
                let (name, password) = sent.split_at(prefix.len().min(sent.len()));
                let is_user = name.ct_eq(prefix.as_bytes());
                let is_secret = self.any(password);
                match bool::from(is_user & is_secret) {
                    true => Ok(()),
                    false => Err(Denied::Secret { place: header::AUTHORIZATION.to_string() }),
                }
            }
        }
    }

    fn is_one(&self, sent: &[u8], place: &str) -> Result<(), Denied> {
        match bool::from(self.any(sent)) {
            true => Ok(()),
            false => Err(Denied::Secret { place: place.to_owned() }),
        }
    }

    fn any(&self, sent: &[u8]) -> subtle::Choice {
        let none = subtle::Choice::from(0);
        self.secrets
            .iter()
            .fold(none, |found, secret| found | digest(sent).ct_eq(&digest(secret.expose().as_bytes())))
    }
}

/// Texts of different lengths are compared by their digests, so that the time it takes does not tell the length.
fn digest(text: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, text).as_ref());
    bytes
}

fn bearer(value: &str) -> Option<&str> {
    scheme(value, "bearer")
}

/// What follows the scheme of an `Authorization` header.
fn scheme<'a>(value: &'a str, scheme: &str) -> Option<&'a str> {
    let (found, rest) = value.split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then(|| rest.trim_start_matches(' '))
}

/// The text of a header that must be there once.
pub(super) fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h str, Denied> {
    let mut values = headers.get_all(name).iter();
    let missing = || Denied::Missing { place: name.to_string() };
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        return Err(Denied::Repeated { place: name.to_string() });
    }
    match value.to_str() {
        Ok("") => Err(missing()),
        Ok(text) => Ok(text),
        Err(_) => Err(Denied::Malformed { place: name.to_string(), expected: "visible ASCII" }),
    }
}

#[cfg(test)]
mod tests;
