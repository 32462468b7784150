//! A small pool of HTTP/1.1 connections to one place.
//!
//! It is ours because it must know what became of a request: one that found its connection closed before a byte of it was
//! written goes out on a new one without counting an attempt. Nothing else is ever sent twice: a sink that ends the
//! connection instead of answering may have done what it was asked to.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::connect::{ConnectError, Target};

/// Many servers close after five seconds what is idle; a request that meets this is a failed attempt.
const IDLE_MAX: Duration = Duration::from_secs(4);
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

    /// Sends a request, on a connection that was used before if one is open still.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Exchange, SendError> {
        if let Some(mut connection) = self.take_idle() {
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok(Exchange { response, connection }),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(SendError::Http(error.into_error())),
                },
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
        let mut builder = http1::Builder::new();
        builder.max_headers(HEADERS_MAX).max_buf_size(HEADER_BYTES_MAX);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(SendError::Http)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a sink ended");
            }
        });
        Ok(Idle { sender, since: Instant::now() })
    }
}

/// A connection whose answer has been read.
pub struct Connection(Idle);

impl Exchange {
    pub fn split(self) -> (Response<Incoming>, Connection) {
        (self.response, Connection(self.connection))
    }
}

#[cfg(test)]
mod tests {
    use sluice_config as config;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn sink() -> (TcpListener, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let sink = config::HttpSink {
            url: format!("http://127.0.0.1:{port}/"),
            mode: config::Mode::Binary,
            headers: Vec::new(),
            tls: config::Tls::default(),
            allow_link_local: false,
        };
        (listener, Client::new(Target::plain("127.0.0.1", port, &sink), 8))
    }

    fn request() -> Request<Full<Bytes>> {
        let request = Request::post("/").header("host", "sink");
        request.body(Full::new(Bytes::from_static(b"an event"))).unwrap()
    }

    /// Answers the first request on a new connection.
    async fn serve(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        take(&mut stream).await;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        stream
    }

    /// Takes a request in to its end.
    async fn take(stream: &mut TcpStream) {
        let mut taken = Vec::new();
        while !taken.ends_with(b"an event") {
            assert_ne!(stream.read_buf(&mut taken).await.unwrap(), 0, "cut off: {taken:?}");
        }
    }

    /// Sends a request that is answered, and gives its connection back once it can be used again.
    async fn send(client: &Client) {
        let (_, mut connection) = client.send(request()).await.unwrap().split();
        connection.0.sender.ready().await.unwrap();
        client.reuse(connection);
    }

    #[tokio::test]
    async fn what_a_sink_took_and_did_not_answer_is_not_sent_again() {
        let (listener, client) = sink().await;
        let serving = async {
            let mut stream = serve(&listener).await;
            take(&mut stream).await;
            drop(stream);
            listener.accept().await.unwrap();
        };
        let sending = async {
            send(&client).await;
            client.send(request()).await.map(|exchange| exchange.response.status())
        };
        let sent = tokio::select! {
            sent = sending => sent,
            () = serving => panic!("it came again"),
        };
        sent.unwrap_err();
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_while_nobody_used_it_costs_no_attempt() {
        let (listener, client) = sink().await;
        let (close, told_to_close) = tokio::sync::oneshot::channel();
        let serving = async {
            drop((serve(&listener).await, told_to_close.await.unwrap()));
            serve(&listener).await
        };
        let sending = async {
            send(&client).await;
            close.send(()).unwrap();
            let is_open = || client.idle.lock().unwrap()[0].sender.is_ready();
            while is_open() {
                tokio::task::yield_now().await;
            }
            send(&client).await;
        };
        tokio::join!(sending, serving);
    }

    #[tokio::test]
    async fn what_finds_its_connection_closed_goes_out_on_another() {
        let (listener, client) = sink().await;
        let (ours, theirs) = tokio::io::duplex(1024);
        let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
        let mut connection = std::pin::pin!(connection);
        tokio::time::timeout(Duration::ZERO, connection.as_mut()).await.unwrap_err();
        sender.ready().await.unwrap();
        client.reuse(Connection(Idle { sender, since: Instant::now() }));
        // Nobody has looked at the connection when the request is handed to it.
        drop(theirs);
        let (sent, closed, _) = tokio::join!(client.send(request()), connection, serve(&listener));
        assert_eq!(sent.unwrap().response.status(), 204);
        closed.unwrap();
    }
}
