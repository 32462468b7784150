use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use axum::Router;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sluice_adapters::hook::{Hook, HookSource, Hooks};
use sluice_adapters::{Context, Health, Publisher, Receipt, Source as _, Stop};
use sluice_config::{
    GitProvider, GitSource, Limits, Oversize, Scheme, Secret, Source, SourceKind, TokenPlace, Verify,
    WebhookSource,
};
use tokio::sync::watch;
use tower::ServiceExt as _;

use super::*;
use crate::ingress::{Counters, Gate, GateState, Ingress, Reason, router};

const EVENT_BYTES: usize = 4096;
const ASIDE_BYTES: usize = 64;

/// What the store was given: events as `type source id`, and what was put aside with its reason.
type Kept = Arc<Mutex<Vec<String>>>;

/// A store that answers at once: a conflict, a duplicate or no room where the id says so.
struct Store(Kept);

impl sluice_adapters::Intake for Store {
    fn submit(&self, request: sluice_adapters::Request) {
        let mut kept = self.0.lock().unwrap();
        let mut receipts = Vec::new();
        let mut refusal = None;
        for entry in &request.entries {
            let event = &entry.event;
            match event.id() {
                "conflict" => refusal = Some(Refusal::Conflict { index: 0, offset: 3 }),
                "large" => refusal = Some(Refusal::TooLarge { bytes_max: 9 }),
                "full" => refusal = Some(Refusal::Full { reason: "no room".into() }),
                id => receipts.push(Receipt { offset: 7, duplicate: id == "again" }),
            }
            kept.push(format!("{} {} {}", event.ty(), event.source(), event.id()));
        }
        for aside in &request.aside {
            let bytes = aside.record.body.as_ref().map_or(0, |body| body.len());
            let of = if aside.is_cut() { format!(" of {}", aside.size) } else { String::new() };
            kept.push(format!("aside {} {bytes}{of} bytes: {}", aside.record.position, aside.unfit));
        }
        drop(request.answer.send(refusal.map_or(Ok(Published { receipts }), Err)));
    }
}

/// Routes with open sources: `open` takes all, `token` wants one, `slack` and `github` are signed, `strict` needs a field.
struct Stand {
    router: Router,
    kept: Kept,
    metrics: Arc<Counters>,
    stop: watch::Sender<bool>,
    accepted: Arc<AtomicU64>,
    gate: Gate,
}

fn sources() -> Vec<(&'static str, SourceKind, Value, Oversize)> {
    let webhook = |scheme: Option<Scheme>| {
        let secrets = vec![Secret::new("old".into()), Secret::new("s3cret".into())];
        let verify = scheme.map(|scheme| Verify { scheme, secrets, tolerance: Duration::from_secs(300) });
        SourceKind::Webhook(WebhookSource { verify })
    };
    let git = GitSource { provider: GitProvider::Github, secrets: vec![Secret::new("s3cret".into())] };
    let strict = json!({ "type": "{body.type}" });
    vec![
        ("open", webhook(None), json!({ "id": "{body.id|none}" }), Oversize::Stop),
        (
            "token",
            webhook(Some(Scheme::Token(TokenPlace::Header("x-token".into())))),
            json!({}),
            Oversize::Stop,
        ),
        ("query", webhook(Some(Scheme::Token(TokenPlace::Query("token".into())))), json!({}), Oversize::Stop),
        ("slack", webhook(Some(Scheme::Slack)), json!({}), Oversize::Stop),
        ("strict", webhook(None), strict.clone(), Oversize::Stop),
        ("truncating", webhook(None), strict, Oversize::Truncate),
        ("repo", SourceKind::Git(git), json!({}), Oversize::Stop),
    ]
}

fn stand() -> Stand {
    let (stop, stopped) = watch::channel(false);
    let kept = Kept::default();
    let accepted = Arc::new(AtomicU64::new(0));
    let hooks = Hooks::default();
    for (name, kind, event, oversize) in sources() {
        let Value::Object(event) = event else { panic!("an object") };
        let source = Source { kind, event: event.into_iter().collect(), event_bytes: EVENT_BYTES, oversize };
        let hook = Hook::compile(name, &source).unwrap().unwrap();
        let source = HookSource::new(Arc::new(hook), &hooks);
        let counted = Arc::clone(&accepted);
        let context = Context {
            name: name.into(),
            publisher: Publisher::new(name, Arc::new(Store(Arc::clone(&kept)))),
            health: Health::new(move |report| {
                if let Report::Accepted { events, .. } = report {
                    counted.fetch_add(events, Ordering::Relaxed);
                }
            }),
            stop: Stop::new(stopped.clone()),
            mark: None,
            put_aside_bytes: ASIDE_BYTES,
            oversize,
        };
        tokio::spawn(async move {
            source.run(context).await.unwrap();
            // The source stays in place when it is paused.
            std::future::pending::<()>().await;
        });
    }
    let metrics = Arc::new(Counters::default());
    let gate = Gate::default();
    gate.set(GateState::Ready);
    let limits = Limits {
        event_bytes: 1,
        batch_bytes: 1,
        in_flight_bytes: 1 << 20,
        connections: 1,
        hops: 16,
        put_aside_bytes: ASIDE_BYTES,
    };
    let router = router(Ingress {
        publisher: Publisher::new("http", Arc::new(Store(Arc::clone(&kept)))),
        hooks,
        limits,
        webhook_origins: vec!["sender.example.com".into()],
        gate: gate.clone(),
        metrics: Arc::clone(&metrics),
    });
    Stand { router, kept, metrics, stop, accepted, gate }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Stand {
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        // The sources open their hooks first.
        tokio::task::yield_now().await;
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.send(Method::POST, path, headers, body.to_owned()).await
    }

    fn kept(&self) -> Vec<String> {
        std::mem::take(&mut *self.kept.lock().unwrap())
    }
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn detail(&self) -> String {
        let problem: Value = serde_json::from_str(&self.body).unwrap();
        problem["detail"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_delivery_is_answered_after_the_store_has_it() {
    let stand = stand();
    let answer = stand.post("/hooks/open", &[("content-type", "application/json")], r#"{"id":"a"}"#).await;
    assert_eq!((answer.status, answer.header("sluice-offset")), (202, Some("7")));
    assert_eq!(answer.header("sluice-duplicate"), None);
    let again = stand.post("/hooks/open", &[], r#"{"id":"again"}"#).await;
    assert_eq!((again.status, again.header("sluice-duplicate")), (202, Some("true")));
    let conflict = stand.post("/hooks/open", &[], r#"{"id":"conflict"}"#).await;
    assert_eq!(conflict.status, 422);
    let full = stand.post("/hooks/open", &[], r#"{"id":"full"}"#).await;
    assert_eq!((full.status, full.header("retry-after").is_some()), (503, true));
    let large = stand.post("/hooks/open", &[], r#"{"id":"large"}"#).await;
    assert_eq!((large.status, large.header("retry-after")), (413, None));
    assert_eq!(stand.kept()[0], "sluice.webhook /open a");
    assert_eq!(stand.accepted.load(Ordering::Relaxed), 1);
    // What came by a hook is not what came by /events.
    assert_eq!((stand.metrics.accepted(), stand.metrics.duplicates()), (0, 0));
    assert_eq!(stand.metrics.refused(Reason::Conflict), 1);
}

#[tokio::test]
async fn whoever_proves_nothing_learns_nothing() {
    let stand = stand();
    let nowhere = stand.post("/hooks/nowhere", &[], "{}").await;
    assert_eq!(nowhere.status, 404);
    for (path, headers) in [
        ("/hooks/token", &[][..]),
        ("/hooks/token", &[("x-token", "s3cre")]),
        ("/hooks/token", &[("x-token", "s3cret"), ("x-token", "s3cret")]),
        ("/hooks/query?token=s3cret2", &[]),
        ("/hooks/slack", &[("x-slack-signature", "v0=00"), ("x-slack-request-timestamp", "1")]),
        ("/hooks/repo", &[("x-github-event", "push"), ("x-hub-signature", "sha1=00")]),
        (
            "/hooks/repo",
            &[(
                "x-hub-signature-256",
                "sha256=0000000000000000000000000000000000000000000000000000000000000000",
            )],
        ),
    ] {
        let answer = stand.post(path, headers, "{}").await;
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.detail(), nowhere.detail());
        assert_eq!(answer.header("www-authenticate"), None);
    }
    assert_eq!(stand.kept(), Vec::<String>::new());
    assert_eq!(stand.metrics.refused(Reason::Unauthorized), 7);
    let token = stand.post("/hooks/token", &[("x-token", "s3cret")], "{}").await;
    let query = stand.post("/hooks/query?token=s3cret", &[], "{}").await;
    assert_eq!((token.status, token.header("cache-control")), (202, None));
    assert_eq!((query.status, query.header("cache-control")), (202, Some("private")));
}

#[tokio::test]
async fn a_body_is_not_read_for_whoever_cannot_be_right() {
    let stand = stand();
    // A body that never ends.
    let endless = Body::new(Never);
    assert_eq!(stand.send(Method::POST, "/hooks/token", &[("x-token", "no")], endless).await.status, 401);
    let endless = Body::new(Never);
    assert_eq!(stand.send(Method::POST, "/hooks/slack", &[], endless).await.status, 401);
}

struct Never;

impl axum::body::HttpBody for Never {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, Self::Error>>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn other_methods_encodings_and_sizes_are_refused() {
    let stand = stand();
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let answer = stand.send(method, "/hooks/open", &[], "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST, OPTIONS")));
    }
    let zipped = stand.post("/hooks/open", &[("content-encoding", "gzip")], "{}").await;
    assert_eq!((zipped.status, zipped.header("accept-encoding")), (415, Some("identity")));
    let large = stand.post("/hooks/open", &[], &"x".repeat(EVENT_BYTES + 1)).await;
    assert_eq!(large.status, 413);
    assert_eq!(stand.metrics.refused(Reason::TooLarge), 1);
    let largest = stand.post("/hooks/open", &[], &"x".repeat(EVENT_BYTES)).await;
    assert_eq!(largest.status, 202);
    for path in ["/hooks", "/hooks/", "/hooks/open/", "/hooks/open/x"] {
        assert_eq!(stand.post(path, &[], "").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn the_handshake_of_cloudevents_is_answered() {
    let stand = stand();
    let origin = [("webhook-request-origin", "sender.example.com")];
    let answer = stand.send(Method::OPTIONS, "/hooks/open", &origin, "").await;
    assert_eq!((answer.status, answer.header("allow")), (200, Some("POST, OPTIONS")));
    assert_eq!(answer.header("webhook-allowed-origin"), Some("sender.example.com"));
    let other = [("webhook-request-origin", "sender.example.com.evil.tld")];
    let answer = stand.send(Method::OPTIONS, "/hooks/open", &other, "").await;
    assert_eq!(answer.header("webhook-allowed-origin"), None);
}

#[tokio::test]
async fn the_challenge_of_slack_is_answered_once_it_is_verified() {
    let stand = stand();
    let body = r#"{"type":"url_verification","challenge":"3eZbrw1aB"}"#;
    let time = (clock::wall_ms() / 1000).to_string();
    let signature = slack_signature(&time, body);
    let headers = [("x-slack-signature", &*signature), ("x-slack-request-timestamp", &*time)];
    let answer = stand.post("/hooks/slack", &headers, body).await;
    assert_eq!((answer.status, &*answer.body), (200, "3eZbrw1aB"));
    let forged = stand.post("/hooks/slack", &headers, &body.replace("3eZ", "4eZ")).await;
    assert_eq!(forged.status, 401);
    assert!(!forged.body.contains("4eZ"));
    assert_eq!(stand.kept(), Vec::<String>::new());
}

fn slack_signature(time: &str, body: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"s3cret");
    let tag = ring::hmac::sign(&key, format!("v0:{time}:{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v0={hex}")
}

#[tokio::test]
async fn a_delivery_of_a_git_host_is_mapped() {
    let stand = stand();
    let body = r#"{"ref":"refs/heads/main","repository":{"url":"https://github.com/o/r"}}"#;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"s3cret");
    let tag = ring::hmac::sign(&key, body.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let signature = format!("sha256={hex}");
    let headers =
        [("x-hub-signature-256", &*signature), ("x-github-event", "push"), ("x-github-delivery", "d-1")];
    assert_eq!(stand.post("/hooks/repo", &headers, body).await.status, 202);
    assert_eq!(stand.kept(), ["com.github.push https://github.com/o/r d-1"]);
}

#[tokio::test]
async fn what_makes_no_event_is_put_aside_and_accepted() {
    let stand = stand();
    let answer = stand.post("/hooks/strict", &[], "{}").await;
    assert_eq!((answer.status, answer.header("sluice-offset")), (202, None));
    let invalid = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s")];
    assert_eq!(stand.post("/hooks/open", &invalid, "x").await.status, 202);
    let large = "x".repeat(ASIDE_BYTES + 1);
    assert_eq!(stand.post("/hooks/strict", &[], &large).await.status, 413);
    assert_eq!(stand.post("/hooks/truncating", &[], &large).await.status, 202);
    let kept = stand.kept();
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert!(
        kept[0].ends_with(" 2 bytes: `type`: `{body.type}` is absent, and has no default"),
        "{}",
        kept[0]
    );
    assert!(kept[1].ends_with(" 1 bytes: attribute `type` is required"), "{}", kept[1]);
    assert!(kept[2].contains(&format!(" {ASIDE_BYTES} of {} bytes: ", ASIDE_BYTES + 1)), "{}", kept[2]);
}

#[tokio::test]
async fn a_batch_is_stored_together_and_an_empty_one_is_fine() {
    let stand = stand();
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let one = |id| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t"}}"#);
    let answer = stand.post("/hooks/open", &batch, &format!("[{},{}]", one("1"), one("2"))).await;
    assert_eq!((answer.status, answer.header("sluice-offset")), (202, Some("7,7")));
    assert_eq!(stand.kept(), ["t /s 1", "t /s 2"]);
    assert_eq!(stand.post("/hooks/open", &batch, "[]").await.status, 202);
    assert_eq!(stand.kept(), Vec::<String>::new());
}

#[tokio::test]
async fn a_paused_source_says_when_to_come_again() {
    let stand = stand();
    assert_eq!(stand.post("/hooks/open", &[], "{}").await.status, 202);
    stand.stop.send_replace(true);
    tokio::task::yield_now().await;
    let answer = stand.post("/hooks/open", &[], "{}").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("60")));
    stand.gate.set(GateState::Draining);
    assert_eq!(stand.post("/hooks/open", &[], "{}").await.status, 503);
}
