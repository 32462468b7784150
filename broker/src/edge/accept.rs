//! A listening socket and the connections that came in by it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::{EdgeLimits, Problem, RefusedHeads, serve_connection};

/// Connections over the limit that are told so at a time; further ones are closed without a word.
const TURNED_AWAY_MAX: usize = 64;
const TURNED_AWAY_DEADLINE: Duration = Duration::from_secs(1);
/// Out of file descriptors or memory: time for some to come back.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A bound socket.
#[derive(Debug)]
pub struct Edge {
    listener: TcpListener,
    local_addr: SocketAddr,
    refused: Arc<RefusedHeads>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}")]
pub struct BindError {
    pub addr: SocketAddr,
    pub source: io::Error,
}

/// How an edge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that still had a request running at the drain deadline.
    pub cut: usize,
}

impl Edge {
    /// Listens. From here on connections queue up, to be served by [`Edge::serve`].
    pub async fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        let listener = TcpListener::bind(addr).await.map_err(|source| BindError { addr, source })?;
        let local_addr = listener.local_addr().map_err(|source| BindError { addr, source })?;
        Ok(Self { listener, local_addr, refused: Arc::default() })
    }

    /// The address in use, with the port that a bind to port 0 was given.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What it refuses by itself, without a route.
    pub fn refused(&self) -> Arc<RefusedHeads> {
        Arc::clone(&self.refused)
    }

    /// Serves until `stop` becomes true or its sender is gone, then closes the socket and lets running requests end.
    pub async fn serve(self, router: Router, limits: EdgeLimits, mut stop: watch::Receiver<bool>) -> Stopped {
        let Self { listener, local_addr, refused } = self;
        let connections = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
        let mut tasks = JoinSet::new();
        let mut accepting = Accepting { listener: &listener, is_failing: false };
        let stopped = stop.clone();
        let mut stopping = std::pin::pin!(async move {
            let _ = stop.wait_for(|stop| *stop).await;
        });
        loop {
            let stream = tokio::select! {
                biased;
                () = &mut stopping => break,
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    report(ended);
                    continue;
                }
                stream = accepting.next() => stream,
            };
            if let Ok(permit) = Arc::clone(&connections).try_acquire_owned() {
                let refused = Arc::clone(&refused);
                let connection = serve_connection(stream, router.clone(), limits, refused, stopped.clone());
                tasks.spawn(async move {
                    connection.await;
                    drop(permit);
                });
                continue;
            }
            refused.count(StatusCode::SERVICE_UNAVAILABLE);
            if let Ok(permit) = Arc::clone(&turned_away).try_acquire_owned() {
                tasks.spawn(async move {
                    let _ = tokio::time::timeout(TURNED_AWAY_DEADLINE, turn_away(stream)).await;
                    drop(permit);
                });
            }
        }
        drop(listener);
        let cut = drain(&mut tasks, limits.drain_deadline).await;
        info!(address = %local_addr, cut, "stopped listening on {local_addr}");
        Stopped { cut }
    }
}

struct Accepting<'a> {
    listener: &'a TcpListener,
    is_failing: bool,
}

impl Accepting<'_> {
    /// The next connection. Errors are waited out: none of them ends a listener.
    async fn next(&mut self) -> TcpStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    self.is_failing = false;
                    if let Err(error) = stream.set_nodelay(true) {
                        warn!(%error, "cannot set TCP_NODELAY on a connection");
                    }
                    return stream;
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        warn!(%error, "cannot accept connections, trying again");
                    }
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Answers without looking at the request, and reads what there is of it so that the answer is not lost in a reset.
async fn turn_away(mut stream: TcpStream) -> io::Result<()> {
    let body = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections").json();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         retry-after: 5\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await?;
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Waits for the connections, then cuts those that are left and counts them.
async fn drain(tasks: &mut JoinSet<()>, deadline: Duration) -> usize {
    let all_ended = async {
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(deadline, all_ended).await.is_ok() {
        return 0;
    }
    let cut = tasks.len();
    tasks.shutdown().await;
    cut
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a connection ended with a defect");
    }
}
