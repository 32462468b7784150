//! `POST /hooks/{source}`: deliveries of webhooks and of hosts of repositories.
//!
//! A delivery passes in this order: gate, source, content encoding, headers of the proof, room in the byte budget, body, proof,
//! events, store. Whoever does not prove who he is gets the answer of a source that does not exist, but for its status; the log
//! says why.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::{HeaderValue, Method, header};
use sluice_adapters::hook::{Found, OpenHook};
use sluice_adapters::webhook::Denied;
use sluice_adapters::{Aside, Entry, Published, Record, Refusal, Report, Unfit};

use super::refusal::Refused;
use super::{
    Intake, Unstoppable, accepted, body, check_content_encoding, handshake, not_allowed, refusal_response,
    trace,
};
use crate::store::clock;

/// Between two lines of the log about refused deliveries of one source; the line counts those without one.
const DENIALS_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What a delivery that passed ended as.
enum Taken {
    Stored(Published),
    /// Kept as what it is, since it makes no event.
    PutAside,
    /// The sender only asked whether anybody is here.
    Answered(String),
}

/// Why nothing was taken.
enum NotTaken {
    /// It is no delivery at all.
    Method,
    Refused(Refused),
}

impl<R: Into<Refused>> From<R> for NotTaken {
    fn from(refused: R) -> Self {
        Self::Refused(refused.into())
    }
}

/// Keeps a flood of refused deliveries from being a flood in the log.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<HashMap<String, (Option<Instant>, u64)>>);

impl Denials {
    /// Says why, and how often nothing was said since the last time. Only names of sources get here.
    fn say(&self, source: &str, denied: &Denied) {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, unsaid) = sources.entry(source.to_owned()).or_default();
        if last.is_some_and(|last| last.elapsed() < DENIALS_LOG_INTERVAL) {
            *unsaid += 1;
            return;
        }
        *last = Some(Instant::now());
        let unsaid = std::mem::take(unsaid);
        tracing::warn!(source, unsaid, "refused a delivery to source `{source}`: {denied}");
    }
}

pub(super) async fn hooks(
    State(intake): State<Arc<Intake>>,
    Path(source): Path<String>,
    request: Request,
) -> Response {
    match *request.method() {
        Method::POST | Method::GET => {}
        Method::OPTIONS => return handshake::answer(request.headers(), &intake.ingress.webhook_origins),
        _ => return not_allowed("deliveries are sent with POST"),
    }
    let metrics = Arc::clone(&intake.ingress.metrics);
    let has_query = request.uri().query().is_some();
    let mut response = match take(&intake, &source, request).await {
        Ok(Taken::Stored(published)) => accepted(&published),
        Ok(Taken::PutAside) => accepted(&Published { receipts: Vec::new() }),
        Ok(Taken::Answered(challenge)) => {
            let mut response = Response::new(Body::from(challenge));
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, text);
            response
        }
        Err(NotTaken::Method) => return not_allowed("deliveries are sent with POST"),
        Err(NotTaken::Refused(refused)) => return refusal_response(&refused, &metrics),
    };
    if has_query {
        // The query may hold a token (CloudEvents webhook specification, section 3.2).
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    response
}

async fn take(intake: &Intake, source: &str, request: Request) -> Result<Taken, NotTaken> {
    let Intake { ingress, budget, denials } = intake;
    ingress.gate.check().map_err(Refused::Gate)?;
    let open = match ingress.hooks.find(source) {
        Found::Nothing => return Err(Refused::NoHook.into()),
        Found::Closed => return Err(Refused::Paused.into()),
        Found::Open(open) => open,
    };
    let (mut head, mut body) = request.into_parts();
    if head.method == Method::GET {
        let payload = open.hook.queried(&head.headers, head.uri.query()).ok_or(NotTaken::Method)?;
        head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        body = Body::from(payload);
    }
    check_content_encoding(&head.headers)?;
    let denied = |denied: Denied| {
        denials.say(source, &denied);
        NotTaken::Refused(Refused::Denied)
    };
    let now_ms = clock::wall_ms().cast_signed();
    let claim = open.hook.claim(&head.headers, head.uri.query(), now_ms / 1000).map_err(denied)?;
    let (body, share) = body::read(body, open.hook.event_bytes(), budget).await?;
    let verified = claim.check(&head.headers, &body).map_err(denied)?;
    let record = open.hook.record(&head.headers, body, verified, now_ms);
    if let Some(challenge) = open.hook.challenge(&record) {
        return Ok(Taken::Answered(challenge));
    }
    let events = match open.hook.to_events(&record) {
        Ok(events) => events,
        Err(unfit) => {
            let kept = put_aside(open.clone(), record, unfit, ingress.limits.put_aside_bytes, share).await;
            return Ok(kept?);
        }
    };
    drop(record);
    let trace = trace::from_headers(&head.headers);
    let entries: Vec<Entry> =
        events.into_iter().map(|event| Entry { event: Arc::new(event), trace: trace.clone() }).collect();
    if entries.is_empty() {
        return Ok(Taken::Stored(Published { receipts: Vec::new() }));
    }
    Ok(Taken::Stored(Unstoppable::new(store_delivery(open.clone(), entries, share)).await?))
}

/// Publishes, tells the source's health, and only then gives the bytes back.
async fn store_delivery(
    open: OpenHook,
    entries: Vec<Entry>,
    share: body::Share,
) -> Result<Published, Refusal> {
    let published = open.publisher.publish(entries).await?;
    let duplicates = published.receipts.iter().filter(|receipt| receipt.duplicate).count() as u64;
    let events = published.receipts.len() as u64 - duplicates;
    open.health.tell(Report::Accepted { events, duplicates });
    drop(share);
    Ok(published)
}

async fn put_aside(
    open: OpenHook,
    record: Record,
    unfit: Unfit,
    bytes_max: usize,
    share: body::Share,
) -> Result<Taken, Refused> {
    let is_conflict = unfit.is_conflict;
    let aside = Aside::new(record, unfit, bytes_max, open.hook.oversize());
    let aside = aside.map_err(|_| Refused::TooLarge { bytes_max })?;
    let keep = async move {
        let kept = open.publisher.put_aside(aside).await;
        if kept.is_ok() {
            open.health.tell(Report::PutAside { is_conflict });
        }
        drop(share);
        kept
    };
    Unstoppable::new(keep).await?;
    Ok(Taken::PutAside)
}

#[cfg(test)]
mod tests;
