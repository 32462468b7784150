//! A function for the broker to call, in the test's own process.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ::http::{HeaderMap, StatusCode};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::eventually;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn id(&self) -> String {
        self.header("ce-id").unwrap().to_owned()
    }
}

type Script = dyn Fn(usize, &Received) -> Response + Send + Sync;

/// Keeps what it got and answers by a script.
pub struct Sink {
    pub url: String,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

struct Shared {
    received: Mutex<Vec<Received>>,
    answers: Mutex<Arc<Script>>,
    /// Each answer takes a permit when the sink is held.
    gate: Option<Semaphore>,
}

impl Sink {
    /// Answers every request with what the script makes of its number, counted from 0.
    pub async fn answering(script: impl Fn(usize, &Received) -> Response + Send + Sync + 'static) -> Self {
        Self::start(Arc::new(script), None).await
    }

    pub async fn accepting() -> Self {
        Self::answering(|_, _| StatusCode::NO_CONTENT.into_response()).await
    }

    /// Answers with these statuses in turn, then with 204.
    pub async fn with_statuses(statuses: &[u16]) -> Self {
        let statuses = statuses.to_vec();
        Self::answering(move |number, _| status(statuses.get(number).copied().unwrap_or(204))).await
    }

    /// Answers 204, each answer after it was let go.
    pub async fn held() -> Self {
        Self::start(Arc::new(|_, _| status(204)), Some(Semaphore::new(0))).await
    }

    async fn start(script: Arc<Script>, gate: Option<Semaphore>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { received: Mutex::default(), answers: Mutex::new(script), gate });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url: format!("http://{address}/"), shared, server }
    }

    pub fn let_go(&self, answers: usize) {
        self.shared.gate.as_ref().unwrap().add_permits(answers);
    }

    pub fn answer_from_now_on(&self, code: u16) {
        self.answer_with(move |_, _| status(code));
    }

    pub fn answer_with(&self, script: impl Fn(usize, &Received) -> Response + Send + Sync + 'static) {
        *self.shared.answers.lock().unwrap() = Arc::new(script);
    }

    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    pub fn ids(&self) -> Vec<String> {
        self.received().iter().map(Received::id).collect()
    }

    /// Everything received, once it is so much.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        eventually(&format!("{count} requests at the sink"), || async {
            let received = self.received();
            (received.len() >= count).then_some(received)
        })
        .await
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let received = Received { headers, body, at: Instant::now() };
    let number = {
        let mut all = shared.received.lock().unwrap();
        all.push(received.clone());
        all.len() - 1
    };
    if let Some(gate) = &shared.gate {
        gate.acquire().await.unwrap().forget();
    }
    let script = Arc::clone(&shared.answers.lock().unwrap());
    script(number, &received)
}

pub fn status(code: u16) -> Response {
    StatusCode::from_u16(code).unwrap().into_response()
}

/// An answer that is a CloudEvent in binary mode.
pub fn reply(id: &str, ty: &str) -> Response {
    (
        [("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "/function"), ("ce-type", ty)],
        [("content-type", "application/json")],
        r#"{"done":true}"#,
    )
        .into_response()
}

/// How far apart requests came.
pub fn gaps(received: &[Received]) -> Vec<Duration> {
    received.windows(2).map(|pair| pair[1].at - pair[0].at).collect()
}
