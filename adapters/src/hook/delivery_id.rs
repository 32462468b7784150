//! What names a delivery, so that the same one sent again is known.

use std::fmt::Write as _;

use sluice_config::Scheme;

use crate::Record;
use crate::git::first_header;
use crate::look::Look;

/// Where a scheme has the id of a delivery. None of these schemes but Standard Webhooks and Svix sign a header with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeliveryId {
    Headers(&'static [&'static str]),
    /// A member of the body.
    Member(&'static str),
    /// Like `Member("event_id")`; apart, because Slack also asks for an answer.
    Slack,
    /// The SHA-256 of the body: where there is nothing better, equal bodies are one delivery.
    Body,
}

impl DeliveryId {
    pub(super) fn of_scheme(scheme: &Scheme) -> Self {
        match scheme {
            Scheme::Github => Self::Headers(&["x-github-delivery"]),
            Scheme::Gitlab => Self::Headers(&["idempotency-key", "x-gitlab-event-uuid"]),
            Scheme::Shopify => Self::Headers(&["x-shopify-webhook-id"]),
            Scheme::StandardWebhooks => Self::Headers(&["webhook-id", "svix-id"]),
            Scheme::Svix => Self::Headers(&["svix-id", "webhook-id"]),
            Scheme::Stripe => Self::Member("id"),
            Scheme::Slack => Self::Slack,
            Scheme::Hmac(_) | Scheme::Token(_) | Scheme::Basic { .. } => Self::Body,
        }
    }

    pub(super) fn of(self, record: &Record) -> Option<String> {
        let member = |name| Look::into(record.body.as_deref().unwrap_or_default()).text(name);
        match self {
            Self::Headers(names) => first_header(record, names).map(str::to_owned),
            Self::Member(name) => member(name),
            Self::Slack => member("event_id"),
            Self::Body => None,
        }
    }
}

pub(super) fn of_body(record: &Record) -> String {
    let body = record.body.as_deref().unwrap_or_default();
    let digest = ring::digest::digest(&ring::digest::SHA256, body);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
