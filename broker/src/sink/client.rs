//! A small pool of HTTP/1.1 connections to one place.
//!
//! It is ours because it must know whether a connection was used before: one that the other side closed meanwhile is
//! replaced without counting an attempt, and nothing else is ever sent twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::connect::{ConnectError, Target};

const IDLE_MAX: Duration = Duration::from_secs(30);
const HEADERS_MAX: usize = 256;
const HEADER_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection failed: {}", describe(.0))]
    Http(hyper::Error),
}

/// What hyper says, without its category in front where the cause says more.
fn describe(error: &hyper::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

pub struct Client {
    target: Target,
    idle: Mutex<Vec<Idle>>,
    idle_max: usize,
}

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    received: Arc<AtomicU64>,
    since: Instant,
}

/// A response whose connection goes back to the pool when its body has been read.
pub struct Exchange {
    pub response: Response<Incoming>,
    connection: Idle,
}

impl Client {
    pub fn new(target: Target, idle_max: usize) -> Self {
        Self { target, idle: Mutex::default(), idle_max }
    }

    /// Sends a request. On a connection that was used before and turns out closed it is sent once more, on a new one.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Exchange, SendError> {
        if let Some(mut connection) = self.take_idle() {
            let before = connection.received.load(Ordering::Relaxed);
            match connection.sender.send_request(request.clone()).await {
                Ok(response) => return Ok(Exchange { response, connection }),
                Err(error) if connection.received.load(Ordering::Relaxed) > before => {
                    return Err(SendError::Http(error));
                }
                Err(_) => {}
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.sender.send_request(request).await.map_err(SendError::Http)?;
        Ok(Exchange { response, connection })
    }

    /// Gives a connection back whose answer was read to its end.
    pub fn reuse(&self, mut connection: Connection) {
        connection.0.since = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.idle_max {
            idle.push(connection.0);
        }
    }

    fn take_idle(&self) -> Option<Idle> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let connection = idle.pop()?;
            if connection.since.elapsed() > IDLE_MAX {
                // Those below have been idle for longer.
                idle.clear();
                return None;
            }
            if connection.sender.is_ready() {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<Idle, SendError> {
        let stream = self.target.connect().await?;
        let received = Arc::clone(&stream.received);
        let mut builder = http1::Builder::new();
        builder.max_headers(HEADERS_MAX).max_buf_size(HEADER_BYTES_MAX);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(SendError::Http)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a sink ended");
            }
        });
        Ok(Idle { sender, received, since: Instant::now() })
    }
}

/// A connection whose answer has been read.
pub struct Connection(Idle);

impl Exchange {
    pub fn split(self) -> (Response<Incoming>, Connection) {
        (self.response, Connection(self.connection))
    }
}
