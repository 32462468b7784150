//! The HTTP/1.1 server under both listeners: what is true of every request before a route sees it.
//!
//! [`Edge`] accepts sockets; each connection is hyper behind a [`guard`], which reads every request head first and
//! refuses what hyper would let through (framing that two parsers could read differently) or answer without a body.
//! So a route can rely on: one `Host`, one way to tell where the body ends, bounded heads, bounded time for a head.
//! What it cannot rely on: that a body is small, or that it ever comes to its end.

mod accept;
mod connection;
mod framing;
mod guard;
mod head;
mod problem;
mod refused;

use std::time::Duration;

pub use accept::{BindError, Edge, Stopped};
pub use connection::serve_connection;
pub use problem::Problem;
pub use refused::RefusedHeads;

/// What one listener allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeLimits {
    /// Connections at a time. One more is accepted, answered 503 with `Retry-After`, and closed.
    pub connections: usize,
    /// Header lines of a request; more are answered 431.
    pub headers: usize,
    /// Bytes of all header lines of a request; more are answered 431.
    pub header_bytes: usize,
    /// Bytes of a request target; more are answered 414.
    pub target_bytes: usize,
    /// From the first byte of a head to its last; then 408.
    pub head_deadline: Duration,
    /// Without a request; then the connection is closed.
    pub idle_deadline: Duration,
    /// Without the client taking a byte of an answer; then the connection is closed.
    pub write_deadline: Duration,
    /// For running requests once the edge is told to stop; then their connections are cut.
    pub drain_deadline: Duration,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            headers: 256,
            header_bytes: 64 << 10,
            target_bytes: 8 << 10,
            head_deadline: Duration::from_secs(10),
            idle_deadline: Duration::from_secs(60),
            write_deadline: Duration::from_secs(30),
            drain_deadline: Duration::from_secs(20),
        }
    }
}
