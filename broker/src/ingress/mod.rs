//! Where publishers come in: `POST /events` and `POST /hooks/{source}`, and the webhook handshake on `OPTIONS` of both.
//!
//! A request passes in this order, and whatever refuses it does so before the next step costs anything: gate, content
//! encoding, room in the byte budget, body, decoding, store. The answer is 202 only after the store said that all of
//! it is on disk.

mod body;
mod counters;
mod gate;
mod handshake;
mod hooks;
mod refusal;
mod trace;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use sluice_adapters::hook::Hooks;
use sluice_adapters::{Entry, Published, Publisher, Refusal};
use sluice_config::Limits;
use sluice_schemas::http::{Limits as EventLimits, decode};

use self::body::Budget;
use self::refusal::Refused;
use crate::edge::Problem;

pub use body::BODY_DEADLINE;
pub use counters::{Counters, Reason};
pub use gate::{Gate, GateState};

const ALLOW: HeaderValue = HeaderValue::from_static("POST, OPTIONS");
const BATCH_MEDIA_TYPE: &str = "application/cloudevents-batch";

/// What the ingress needs.
#[derive(Clone)]
pub struct Ingress {
    pub publisher: Publisher,
    /// Sources that are delivered to over HTTP.
    pub hooks: Hooks,
    pub limits: Limits,
    /// DNS names that get consent in the webhook handshake, in lower case.
    pub webhook_origins: Vec<String>,
    pub gate: Gate,
    pub metrics: Arc<Counters>,
}

struct Intake {
    ingress: Ingress,
    budget: Budget,
    denials: hooks::Denials,
}

/// The routes of the public listener. Everything else on it is 404.
pub fn router(ingress: Ingress) -> Router {
    let budget = Budget::new(ingress.limits.in_flight_bytes);
    Router::new()
        .route("/events", any(events))
        .route("/hooks/{source}", any(hooks::hooks))
        .fallback(nothing_here)
        .with_state(Arc::new(Intake { ingress, budget, denials: hooks::Denials::default() }))
}

async fn events(State(intake): State<Arc<Intake>>, request: Request) -> Response {
    match *request.method() {
        Method::POST => publish(intake, request).await,
        Method::OPTIONS => handshake::answer(request.headers(), &intake.ingress.webhook_origins),
        _ => not_allowed("events are published with POST"),
    }
}

fn not_allowed(detail: &str) -> Response {
    let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail).into_response();
    response.headers_mut().insert(header::ALLOW, ALLOW);
    response
}

async fn nothing_here() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path; events are published at /events")
}

async fn publish(intake: Arc<Intake>, request: Request) -> Response {
    let metrics = Arc::clone(&intake.ingress.metrics);
    match admit(intake, request).await {
        Ok(published) => accepted(&published),
        Err(refused) => refusal_response(&refused, &metrics),
    }
}

fn refusal_response(refused: &Refused, metrics: &Counters) -> Response {
    if let Some(reason) = refused.reason() {
        metrics.count_refused(reason);
    }
    let problem = refused.problem();
    tracing::debug!(
        request_id = problem.request_id(),
        reason = refused.reason().map(Reason::name),
        "refused a request"
    );
    let mut response = problem.into_response();
    if matches!(refused, Refused::ContentEncoding(_)) {
        // RFC 9110, section 12.5.3: what to send instead.
        response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    response
}

async fn admit(intake: Arc<Intake>, request: Request) -> Result<Published, Refused> {
    let Intake { ingress, budget, .. } = &*intake;
    ingress.gate.check().map_err(Refused::Gate)?;
    let (head, body) = request.into_parts();
    check_content_encoding(&head.headers)?;
    let (body, share) = body::read(body, body_bytes_max(&head.headers, &ingress.limits), budget).await?;
    let limits = EventLimits {
        event_bytes_max: ingress.limits.event_bytes,
        batch_bytes_max: ingress.limits.batch_bytes,
    };
    let events = decode(&head.headers, body, &limits)?.events;
    if events.is_empty() {
        return Ok(Published { receipts: Vec::new() });
    }
    let trace = trace::from_headers(&head.headers);
    let entries = events
        .into_iter()
        .map(|event| Entry { event: Arc::new(event), trace: trace.clone() })
        .collect::<Vec<_>>();
    let store = store(ingress.publisher.clone(), Arc::clone(&ingress.metrics), entries, share);
    Ok(Unstoppable::new(store).await?)
}

/// Publishes, counts, and only then gives the bytes back.
async fn store(
    publisher: Publisher,
    metrics: Arc<Counters>,
    entries: Vec<Entry>,
    share: body::Share,
) -> Result<Published, Refusal> {
    let published = publisher.publish(entries).await?;
    for receipt in &published.receipts {
        match receipt.duplicate {
            true => metrics.count_duplicate(),
            false => metrics.count_accepted(),
        }
    }
    drop(share);
    Ok(published)
}

fn accepted(published: &Published) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    let receipts = &published.receipts;
    let offsets = receipts.iter().map(|receipt| receipt.offset.to_string()).collect::<Vec<_>>().join(",");
    if let (false, Ok(offsets)) = (offsets.is_empty(), HeaderValue::try_from(offsets)) {
        response.headers_mut().insert("sluice-offset", offsets);
    }
    if !receipts.is_empty() && receipts.iter().all(|receipt| receipt.duplicate) {
        response.headers_mut().insert("sluice-duplicate", HeaderValue::from_static("true"));
    }
    response
}

fn check_content_encoding(headers: &HeaderMap) -> Result<(), Refused> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    match codings.find(|coding| !is_identity(coding)) {
        Some(coding) => Err(Refused::ContentEncoding(coding.clone())),
        None => Ok(()),
    }
}

fn is_identity(coding: &HeaderValue) -> bool {
    coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity")
}

fn body_bytes_max(headers: &HeaderMap, limits: &Limits) -> usize {
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let prefix = content_type.trim_ascii_start().get(..BATCH_MEDIA_TYPE.len());
    match prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(BATCH_MEDIA_TYPE.as_bytes())) {
        true => limits.batch_bytes,
        false => limits.event_bytes,
    }
}

/// A future that runs on when the client leaves: what is queued for the store stays queued, so its bytes must stay
/// counted, and its fate too.
struct Unstoppable<F: Future<Output: Send> + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output: Send> + Send + 'static> Unstoppable<F> {
    fn new(future: F) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Unstoppable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let output = std::task::ready!(future.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(output)
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Unstoppable<F> {
    fn drop(&mut self) {
        if let (Some(future), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(future);
        }
    }
}

#[cfg(test)]
mod tests;
