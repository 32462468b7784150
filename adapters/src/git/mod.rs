//! Deliveries of hosts of repositories, mapped to events after the adapter documents of CloudEvents where there is one (GitHub,
//! GitLab), and after their pattern where there is none.
//!
//! A mapping never fails: what a payload lacks, or has in a form that no attribute may have, is left out, and `source` and `type`
//! have something to fall back on.

mod bitbucket;
mod github;
mod gitlab;
mod instant;
pub mod push;

use sluice_config::GitProvider;
use sluice_language::Draft;

use crate::Record;
use crate::look::Look;
use crate::webhook::GitSignature;

/// Who sent a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    Github,
    Gitlab,
    Gitea,
    Forgejo,
    Gogs,
    Bitbucket,
}

/// What a payload says, attribute by attribute.
#[derive(Debug, Default)]
struct Mapped {
    ty: String,
    source: Option<String>,
    subject: Option<String>,
    time: Option<String>,
}

impl Provider {
    pub(crate) const ALL: [Self; 6] =
        [Self::Forgejo, Self::Gitea, Self::Gogs, Self::Github, Self::Gitlab, Self::Bitbucket];

    /// `None` is any.
    pub(crate) fn of(configured: GitProvider) -> Option<Self> {
        match configured {
            GitProvider::Auto => None,
            GitProvider::Github => Some(Self::Github),
            GitProvider::Gitlab => Some(Self::Gitlab),
            GitProvider::Gitea => Some(Self::Gitea),
            GitProvider::Forgejo => Some(Self::Forgejo),
            GitProvider::Gogs => Some(Self::Gogs),
            GitProvider::Bitbucket => Some(Self::Bitbucket),
        }
    }

    /// Tells senders apart by their headers. Forgejo sends Gitea's too, Gitea those of Gogs and GitHub: most particular first.
    pub(crate) fn detect(has_header: impl Fn(&str) -> bool) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| has_header(provider.event_headers()[0]))
    }

    pub(crate) fn signature(self) -> GitSignature {
        match self {
            Self::Github => GitSignature::Github,
            Self::Gitlab => GitSignature::Gitlab,
            Self::Gitea => GitSignature::Gitea,
            Self::Forgejo => GitSignature::Forgejo,
            Self::Gogs => GitSignature::Gogs,
            Self::Bitbucket => GitSignature::Bitbucket,
        }
    }

    /// Headers that name the kind of event: the first that is there counts.
    fn event_headers(self) -> &'static [&'static str] {
        match self {
            Self::Github => &["x-github-event"],
            Self::Gitlab => &["x-gitlab-event"],
            Self::Gitea => &["x-gitea-event"],
            Self::Forgejo => &["x-forgejo-event", "x-gitea-event"],
            Self::Gogs => &["x-gogs-event"],
            Self::Bitbucket => &["x-event-key"],
        }
    }

    /// Headers that name the delivery. GitLab's first is the same when a delivery is sent again.
    pub(crate) fn delivery_headers(self) -> &'static [&'static str] {
        match self {
            Self::Github => &["x-github-delivery"],
            // `x-gitlab-webhook-uuid` names the webhook, and so all its deliveries.
            Self::Gitlab => &["idempotency-key", "x-gitlab-event-uuid"],
            Self::Gitea => &["x-gitea-delivery"],
            Self::Forgejo => &["x-forgejo-delivery", "x-gitea-delivery"],
            Self::Gogs => &["x-gogs-delivery"],
            Self::Bitbucket => &["x-request-uuid", "x-request-id"],
        }
    }

    /// Puts what a payload says over a draft that is complete without it.
    pub(crate) fn map(self, record: &Record, payload: &[u8], draft: Draft) -> Draft {
        let look = Look::into(payload);
        let event = first_header(record, self.event_headers());
        let mapped = match self {
            Self::Github => github::map("com.github", event, &look),
            Self::Gitea => github::map_like("com.gitea", event, &look),
            Self::Forgejo => github::map_like("com.forgejo", event, &look),
            Self::Gogs => github::map_like("com.gogs", event, &look),
            Self::Gitlab => gitlab::map(event, &look),
            Self::Bitbucket => bitbucket::map(event, &look),
        };
        let received = record.time_ms.and_then(instant::of_millisecond);
        let time = mapped.time.as_deref().and_then(instant::read).or(received);
        let mut draft = with(draft, "type", Some(mapped.ty));
        for (name, text) in [("source", mapped.source), ("subject", mapped.subject), ("time", time)] {
            draft = with(draft, name, text);
        }
        draft
    }
}

pub(crate) fn first_header<'r>(record: &'r Record, names: &[&str]) -> Option<&'r str> {
    names.iter().find_map(|name| record.header(name).filter(|text| !text.is_empty()))
}

/// Sets an attribute, unless the draft would not be valid with it.
fn with(draft: Draft, name: &str, text: Option<String>) -> Draft {
    let Some(text) = text else { return draft };
    let text: String =
        text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    let changed = draft.clone().attribute(name, &text);
    if changed.clone().build().is_ok() { changed } else { draft }
}

/// `type` of an event that does not say what it is.
fn or_unknown(prefix: &str, event: Option<&str>) -> String {
    format!("{prefix}.{}", event.unwrap_or("unknown"))
}

#[cfg(test)]
mod tests;
