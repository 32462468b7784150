//! An HTTP/1.1 client and server of a few lines.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Longer than a broker that is frozen, drained or on a slow disk ever takes to answer.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// A connection that stays open and says nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0} was not answered within {ANSWER_DEADLINE:?}")]
pub struct Unanswered(String);

/// One kept-alive connection.
pub struct Connection(SendRequest<Full<Bytes>>);

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let connected = tokio::time::timeout(ANSWER_DEADLINE, TcpStream::connect(address)).await;
        let stream = connected.map_err(|_| Unanswered(format!("a connection to {address}")))??;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // How a connection ends shows in the requests on it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self(sender))
    }

    /// Sends a request and waits for its answer, but not for ever.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = tokio::time::timeout(ANSWER_DEADLINE, self.exchange(request)).await;
        answer.unwrap_or_else(|_| Err(Box::new(Unanswered(what))))
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        self.0.ready().await?;
        let (parts, body) = self.0.send_request(request).await?.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
    }
}

/// One call of the operators' API.
pub async fn call(admin: SocketAddr, method: &str, path: &str, body: &Value) -> Result<Answer, Failure> {
    let builder = Request::builder().method(method).uri(path).header("host", admin.to_string());
    let request = match body {
        Value::Null => builder.body(Full::default())?,
        body => builder
            .header("content-type", "application/json")
            .body(Full::from(body.to_string().into_bytes()))?,
    };
    Connection::open(admin).await?.send(request).await
}

/// What the operators' API has under this path; anything but 200 fails the test.
pub async fn get(admin: SocketAddr, path: &str) -> Value {
    let answer = call(admin, "GET", path, &Value::Null).await.expect("the admin API answers");
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.json());
    answer.json()
}

/// A sink; it ends with its owner.
pub struct Server {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start(answer: impl Fn(&Parts, &Bytes) -> StatusCode + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let answer = Arc::clone(&answer);
                    async move {
                        let (parts, body) = request.into_parts();
                        // A request that does not come whole was never delivered.
                        let body = body.collect().await?.to_bytes();
                        let mut response = Response::new(Full::<Bytes>::default());
                        *response.status_mut() = answer(&parts, &body);
                        Ok::<_, hyper::Error>(response)
                    }
                });
                tokio::spawn(async move {
                    let server = hyper::server::conn::http1::Builder::new();
                    drop(server.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { address, task }
    }
}
