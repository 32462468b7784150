//! Sources that are delivered to over HTTP, `webhook` and `git`: pure up to the event.
//!
//! The ingress asks [`Hook::claim`] before it reads a body and [`Claim::check`](crate::webhook::Claim::check) after, makes a
//! [`Record`] of the delivery, and has [`Hook::to_events`] make events of it, which is also what happens when a record that was
//! put aside is redriven.

mod delivery_id;
mod open;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use sluice_config::{GitSource, Oversize, Scheme, Source, SourceKind, TokenPlace, WebhookSource};
use sluice_language::Draft;
use sluice_language::template::Root;
use sluice_schemas::Event;
use sluice_schemas::http::{Limits, claims_to_be_event, decode};

use crate::git::{Provider, first_header};
use crate::look::Look;
use crate::webhook::{Claim, Denied, Verified, Verifier, form};
use crate::{EventTemplate, Record, Unfit};

use delivery_id::DeliveryId;

pub use open::{Found, HookSource, Hooks, OpenHook};

/// Headers that hold secrets whatever the scheme; no record keeps them.
const SECRET_HEADERS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "x-gitlab-token"];
const JSON: &str = "application/json";
/// What there is for `event:` to look into.
const ROOTS: [Root; 2] = [Root::Body, Root::Headers];

/// A compiled `webhook` or `git` source.
#[derive(Debug)]
pub struct Hook {
    name: String,
    kind: Kind,
    template: EventTemplate,
    event_bytes: usize,
    oversize: Oversize,
    /// The header that the scheme has the secret in.
    secret_header: Option<String>,
}

#[derive(Debug)]
enum Kind {
    Webhook {
        verifier: Verifier,
        delivery_id: DeliveryId,
    },
    Git {
        /// `None` is whichever the headers say.
        provider: Option<Provider>,
        verifiers: Vec<(Provider, Verifier)>,
        is_open: bool,
    },
}

/// Why a source cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("source `{name}`: {reason}")]
pub struct WrongHook {
    pub name: String,
    pub reason: String,
}

impl Hook {
    /// `None` for a source of another kind.
    pub fn compile(name: &str, source: &Source) -> Result<Option<Self>, WrongHook> {
        let wrong = |reason: String| WrongHook { name: name.to_owned(), reason };
        let (kind, secret_header) = match &source.kind {
            SourceKind::Webhook(webhook) => (of_webhook(webhook).map_err(wrong)?, secret_header(webhook)),
            SourceKind::Git(git) => (of_git(git).map_err(wrong)?, None),
            SourceKind::Kafka(_) | SourceKind::Amqp(_) | SourceKind::Nats(_) | SourceKind::Cron(_) => {
                return Ok(None);
            }
        };
        let template = EventTemplate::compile(&source.event, &ROOTS)
            .map_err(|error| wrong(format!("`event`: {error}")))?;
        Ok(Some(Self {
            name: name.to_owned(),
            kind,
            template,
            event_bytes: source.event_bytes,
            oversize: source.oversize,
            secret_header,
        }))
    }

    /// A body may have so many bytes.
    pub fn event_bytes(&self) -> usize {
        self.event_bytes
    }

    pub fn oversize(&self) -> Oversize {
        self.oversize
    }

    /// The payload of a delivery by GET: Gitea and Forgejo put it into the query when they are told to, and sign it alike. Whoever
    /// sends none there does not deliver.
    pub fn queried(&self, headers: &HeaderMap, query: Option<&str>) -> Option<bytes::Bytes> {
        let Kind::Git { provider, .. } = &self.kind else { return None };
        let sender = provider.or_else(|| Provider::detect(|name| headers.contains_key(name)))?;
        if !matches!(sender, Provider::Gitea | Provider::Forgejo) {
            return None;
        }
        form::payload(query.unwrap_or_default().as_bytes()).map(bytes::Bytes::from)
    }

    /// Whether deliveries are taken from anybody.
    pub fn is_open(&self) -> bool {
        match &self.kind {
            Kind::Webhook { verifier, .. } => verifier.is_open(),
            Kind::Git { is_open, .. } => *is_open,
        }
    }

    /// Looks at the headers and the query of a delivery, at a time in seconds since 1970-01-01T00:00:00Z.
    pub fn claim(&self, headers: &HeaderMap, query: Option<&str>, now_s: i64) -> Result<Claim<'_>, Denied> {
        match &self.kind {
            Kind::Webhook { verifier, .. } => verifier.claim(headers, query, now_s),
            Kind::Git { is_open: true, .. } => Ok(Claim::unsigned()),
            Kind::Git { provider, verifiers, .. } => {
                let detected = provider.or_else(|| Provider::detect(|name| headers.contains_key(name)));
                let unknown = || Denied::Missing { place: "a header of a known provider".into() };
                let provider = detected.ok_or_else(unknown)?;
                let (_, verifier) =
                    verifiers.iter().find(|(known, _)| *known == provider).ok_or_else(unknown)?;
                verifier.claim(headers, query, now_s)
            }
        }
    }

    /// The record of a verified delivery, without the headers that hold secrets.
    pub fn record(&self, headers: &HeaderMap, body: bytes::Bytes, verified: Verified, now_ms: i64) -> Record {
        let is_secret =
            |name: &str| SECRET_HEADERS.contains(&name) || self.secret_header.as_deref() == Some(name);
        let kept = headers
            .iter()
            .filter(|(name, _)| !is_secret(name.as_str()))
            .map(|(name, value)| (name.as_str().to_owned(), bytes::Bytes::copy_from_slice(value.as_bytes())));
        let mut record = Record { headers: kept.collect(), body: Some(body), ..Record::default() };
        record.time_ms = match &self.kind {
            Kind::Webhook { .. } => verified.time_s.map(|time_s| time_s.saturating_mul(1000)),
            Kind::Git { .. } => Some(now_ms),
        };
        record.position = self.delivery_id(&record, verified.id);
        record
    }

    /// What Slack wants to hear before it delivers anything: the challenge of a verified `url_verification`.
    pub fn challenge(&self, record: &Record) -> Option<String> {
        let Kind::Webhook { delivery_id: DeliveryId::Slack, .. } = &self.kind else { return None };
        let look = Look::into(record.body.as_deref().unwrap_or_default());
        match look.text("type").as_deref() {
            Some("url_verification") => look.text("challenge"),
            Some(_) | None => None,
        }
    }

    /// What a delivery becomes: CloudEvents as they came, or one event made of it. A batch has several or none.
    pub fn to_events(&self, record: &Record) -> Result<Vec<Event>, Unfit> {
        let headers = header_map(record);
        let body = record.body.clone().unwrap_or_default();
        if claims_to_be_event(&headers) {
            let limits = Limits { event_bytes_max: self.event_bytes, batch_bytes_max: self.event_bytes };
            let decoded =
                decode(&headers, body, &limits).map_err(|rejection| unfit(rejection.to_string()))?;
            return Ok(decoded.events);
        }
        let is_form = form::is_form(&headers);
        let json = match &self.kind {
            Kind::Git { .. } if is_form => form::payload(&body).map(bytes::Bytes::from),
            Kind::Webhook { .. } if is_form => {
                let too_many = || unfit("the form has too many fields".into());
                Some(form::to_json(&body).ok_or_else(too_many)?)
            }
            Kind::Git { .. } | Kind::Webhook { .. } => None,
        };
        let content_type = match json {
            Some(_) => Some(JSON),
            None => record.header(header::CONTENT_TYPE.as_str()).filter(|text| !text.is_empty()),
        };
        let body = json.unwrap_or(body);
        let shown = Record { body: Some(body.clone()), ..record.clone() };
        let draft = self.draft(&shown, content_type)?;
        self.template.apply(&shown, None, draft).map(|event| vec![event])
    }

    /// What a delivery is as far as `event:` says nothing else.
    fn draft(&self, record: &Record, content_type: Option<&str>) -> Result<Draft, Unfit> {
        let body = record.body.clone().unwrap_or_default();
        let draft = Draft::default()
            .attribute("id", &record.position)
            .attribute("source", &format!("/{}", self.name))
            .attribute("type", "sluice.webhook");
        let draft = if body.is_empty() { draft } else { draft.data(body.clone()) };
        // A content type that no event may have is no reason to lose the delivery.
        let typed = draft.clone().maybe("datacontenttype", content_type);
        let draft = if typed.clone().build().is_ok() { typed } else { draft };
        // Whoever gets the event sees that nobody proved where it comes from (CloudEvents extension "authcontext").
        let draft = if self.is_open() { draft.attribute("authtype", "unauthenticated") } else { draft };
        Ok(match &self.kind {
            Kind::Webhook { .. } => {
                let time = record.time_ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
                draft.maybe("time", time.map(|time| time.to_string()).as_deref())
            }
            Kind::Git { provider, .. } => {
                let detected = provider.or_else(|| Provider::detect(|name| record.header(name).is_some()));
                detected.map_or(draft.clone(), |provider| provider.map(record, &body, draft))
            }
        })
    }

    /// A signed id comes before any other: whoever sends a delivery again within the tolerance may name it anew elsewhere.
    pub(crate) fn delivery_id(&self, record: &Record, signed: Option<String>) -> String {
        let named = || match &self.kind {
            Kind::Webhook { delivery_id, .. } => delivery_id.of(record),
            Kind::Git { provider, .. } => {
                let provider = provider.or_else(|| Provider::detect(|name| record.header(name).is_some()));
                let named = provider.and_then(|provider| first_header(record, provider.delivery_headers()));
                named.map(str::to_owned)
            }
        };
        // An id that no event may have names nothing.
        let is_id = |id: &String| {
            Draft::default()
                .attribute("id", id)
                .attribute("source", "/")
                .attribute("type", "t")
                .build()
                .is_ok()
        };
        signed.or_else(named).filter(is_id).unwrap_or_else(|| delivery_id::of_body(record))
    }
}

fn of_webhook(webhook: &WebhookSource) -> Result<Kind, String> {
    let verifier = Verifier::of_webhook(webhook.verify.as_ref()).map_err(|wrong| wrong.to_string())?;
    let delivery_id =
        webhook.verify.as_ref().map_or(DeliveryId::Body, |verify| DeliveryId::of_scheme(&verify.scheme));
    Ok(Kind::Webhook { verifier, delivery_id })
}

fn of_git(git: &GitSource) -> Result<Kind, String> {
    let provider = Provider::of(git.provider);
    let verifier = |provider: Provider| {
        let verifier = Verifier::of_git(provider.signature(), &git.secrets);
        verifier.map(|verifier| (provider, verifier)).map_err(|wrong| wrong.to_string())
    };
    let verifiers = match provider {
        Some(provider) => vec![verifier(provider)?],
        None => Provider::ALL.into_iter().map(verifier).collect::<Result<_, _>>()?,
    };
    Ok(Kind::Git { provider, verifiers, is_open: git.secrets.is_empty() })
}

fn secret_header(webhook: &WebhookSource) -> Option<String> {
    match &webhook.verify.as_ref()?.scheme {
        Scheme::Token(TokenPlace::Header(name)) => Some(name.clone()),
        Scheme::Token(TokenPlace::Query(_)) | Scheme::Basic { .. } => None,
        Scheme::Github | Scheme::Gitlab | Scheme::Stripe | Scheme::Slack | Scheme::Shopify => None,
        Scheme::StandardWebhooks | Scheme::Svix | Scheme::Hmac(_) => None,
    }
}

fn header_map(record: &Record) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &record.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

fn unfit(detail: String) -> Unfit {
    Unfit { is_conflict: false, detail }
}

#[cfg(test)]
mod tests;
