//! The operators' listener: health, metrics, and `/api/v1`, described by `openapi.json`.

mod answer;
mod dead_letters;
mod events;
mod explain;
mod health;
mod metrics;
mod sources;
mod trail;
mod triggers;
mod unmatched;
mod view;

use std::error::Error as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::LengthLimitError;
use tokio::sync::{mpsc, oneshot};

use crate::dispatch::Dispatch;
use crate::edge::{Problem, RefusedHeads};
use crate::ingress;
use crate::sources::Sources;

pub use answer::Refused;

const BODY_BYTES_MAX: usize = 2 << 20;
const TOO_LARGE: &str = "the body is larger than this call takes";

/// What the operators' listener shows and does.
#[derive(Clone)]
pub struct Admin {
    pub dispatch: Dispatch,
    pub gate: ingress::Gate,
    pub counters: Arc<ingress::Counters>,
    /// Of the publishers' listener.
    pub refused_heads: Arc<RefusedHeads>,
    /// What `config show` prints, kept by whoever loads configurations.
    pub config: Arc<Mutex<serde_json::Value>>,
    pub reloads: mpsc::Sender<Reload>,
    /// Whether the last reload succeeded.
    pub reload_success: Arc<std::sync::atomic::AtomicBool>,
    /// Values of `Host` that writing calls may carry.
    pub hosts: Arc<Vec<String>>,
    pub started_at_ms: u64,
    pub sources: Sources,
}

/// Asks for the configuration to be read again; answered with what changed or what is wrong.
pub struct Reload {
    pub answer: oneshot::Sender<Result<serde_json::Value, String>>,
}

/// Everything the listener answers.
pub fn router(admin: Admin) -> Router {
    let api = Router::new()
        .route("/status", get(health::status))
        .route("/config", get(health::config))
        .route("/config/reload", post(health::reload))
        .route("/triggers", get(triggers::list))
        .route("/triggers/{name}", get(triggers::show))
        .route("/triggers/{name}/pending", get(triggers::pending))
        .route("/triggers/{name}/pause", post(triggers::pause))
        .route("/triggers/{name}/resume", post(triggers::resume))
        .route("/triggers/{name}/retry", post(triggers::retry))
        .route("/triggers/{name}/discard", post(triggers::discard))
        .route("/sources", get(sources::list))
        .route("/sources/{name}", get(sources::show))
        .route("/sources/{name}/pause", post(sources::pause))
        .route("/sources/{name}/resume", post(sources::resume))
        .route("/events", get(events::list))
        .route("/events/by-id", get(events::by_id))
        .route("/events/{offset}", get(events::show))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/redrive", post(dead_letters::redrive))
        .route("/dead-letters/purge", post(dead_letters::purge))
        .route("/dead-letters/{id}", get(dead_letters::show))
        .route("/unmatched", get(unmatched::unmatched))
        .route("/explain", post(explain::explain))
        .route("/openapi.json", get(health::openapi))
        .route_layer(middleware::from_fn_with_state(admin.clone(), guard));
    Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::page))
        .nest("/api/v1", api)
        .fallback(absent)
        .method_not_allowed_fallback(wrong_method)
        .with_state(admin)
}

/// A web page cannot make writing calls: they need a JSON content type and a `Host` that is ours. What lacks either is
/// answered alike, because it is taken for a page's.
async fn guard(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return as_problem(next.run(request).await);
    }
    if let Err(problem) = may_write(request.headers(), &admin.hosts) {
        return problem.into_response();
    }
    match with_whole_body(request).await {
        Ok(request) => as_problem(next.run(request).await),
        Err(problem) => problem.closing().into_response(),
    }
}

async fn with_whole_body(request: Request) -> Result<Request, Problem> {
    let (head, body) = request.into_parts();
    let read = tokio::time::timeout(ingress::BODY_DEADLINE, axum::body::to_bytes(body, BODY_BYTES_MAX)).await;
    let Ok(read) = read else {
        let detail = format!("the body did not come within {} seconds", ingress::BODY_DEADLINE.as_secs());
        return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
    };
    match read {
        Ok(bytes) => Ok(Request::from_parts(head, bytes.into())),
        Err(error) if error.source().is_some_and(|cause| cause.is::<LengthLimitError>()) => {
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE))
        }
        Err(_) => Err(Problem::new(StatusCode::BAD_REQUEST, "the body cannot be read")),
    }
}

/// What is refused before a call's own code runs (a body that is too large, a path that is no text) is a problem, too.
fn as_problem(response: Response) -> Response {
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/problem+json" || kind == "application/json");
    let detail = match response.status() {
        status if is_json || !status.is_client_error() => return response,
        StatusCode::PAYLOAD_TOO_LARGE => TOO_LARGE,
        _ => "the path, the query or the body cannot be read",
    };
    Problem::new(response.status(), detail).closing().into_response()
}

fn may_write(headers: &HeaderMap, hosts: &[String]) -> Result<(), Problem> {
    let text = |name| {
        headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok()).unwrap_or_default()
    };
    let host = text(header::HOST).to_ascii_lowercase();
    if !hosts.contains(&host) {
        let detail = format!("Host `{host}` is not this listener's; list it in admin.hosts to allow it");
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail));
    }
    let media = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media != "application/json" {
        let detail = "a writing call needs Content-Type: application/json and a JSON body, `{}` at least";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail).field("content-type"));
    }
    Ok(())
}

async fn absent() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path; see /api/v1/openapi.json")
}

async fn wrong_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not take that method; see /api/v1/openapi.json",
    )
}
