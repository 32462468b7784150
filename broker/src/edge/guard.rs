//! The socket as hyper sees it: whole, checked request heads, and deadlines.
//!
//! Bytes are read straight into hyper's buffer and looked at there; only a head that is split over reads is set
//! aside until it is whole. A refused head never reaches hyper: in its place hyper gets [`STAND_IN`], and the
//! connection's service, which counts requests like the guard counts heads, answers that one with the refusal.
//! So refusals come in order behind the answers to pipelined requests, as problem documents, and end the connection.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::EdgeLimits;
use super::framing::{Framing, Rest};
use super::head::Refusal;

const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// How long, and how much, is read and thrown away after an answer that came before the end of its request: closing
/// at once would reset the connection, and the answer could be lost on its way.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES_MAX: usize = 16 << 20;
const LINGER_BUFFER_BYTES: usize = 8 << 10;

/// What the guard and the service of one connection tell each other.
#[derive(Debug, Default)]
pub(super) struct Exchange(Mutex<Turn>);

#[derive(Debug, Default)]
struct Turn {
    begun: u64,
    answered: u64,
    /// The number of the refused request, counted from 0.
    refused: Option<(u64, Refusal)>,
}

impl Exchange {
    /// Counts a request; with the refusal if this is the refused one.
    pub(super) fn begin(&self) -> Option<Refusal> {
        let mut turn = self.turn();
        let number = turn.begun;
        turn.begun += 1;
        turn.refused.filter(|(refused, _)| *refused == number).map(|(_, refusal)| refusal)
    }

    /// The answer to one request is out of the service's hands.
    pub(super) fn answered(&self) {
        self.turn().answered += 1;
    }

    fn refuse(&self, number: u64, refusal: Refusal) {
        self.turn().refused = Some((number, refusal));
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, Turn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct Guard<S> {
    stream: S,
    limits: EdgeLimits,
    framing: Framing,
    exchange: Arc<Exchange>,
    /// The beginning of a head, or what is released but did not fit into hyper's buffer.
    held: Vec<u8>,
    /// So many bytes of `held` may go to hyper.
    released: usize,
    is_refused: bool,
    /// A body turned out to be malformed; what came before it is still handed out.
    is_broken: bool,
    head_since: Option<Instant>,
    idle_since: Option<Instant>,
    write_blocked_since: Option<Instant>,
    alarm: Alarm,
    linger: Option<Linger>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    pub(super) fn new(stream: S, limits: EdgeLimits, exchange: Arc<Exchange>) -> Self {
        Self {
            stream,
            limits,
            framing: Framing::new(limits),
            exchange,
            held: Vec::new(),
            released: 0,
            is_refused: false,
            is_broken: false,
            head_since: None,
            idle_since: None,
            write_blocked_since: None,
            alarm: Alarm::default(),
            linger: None,
        }
    }

    /// Hands out what is released.
    fn release(&mut self, buf: &mut ReadBuf<'_>) {
        let bytes = self.released.min(buf.remaining());
        buf.put_slice(&self.held[..bytes]);
        self.held.drain(..bytes);
        self.released -= bytes;
        // Most heads come in one read: a large one should not cost memory for the life of a connection.
        if self.held.is_empty() {
            self.held = Vec::new();
        }
    }

    /// Judges what came in: it stands in `buf` from `start` on.
    fn inspect(&mut self, buf: &mut ReadBuf<'_>, start: usize) {
        self.idle_since = None;
        let rest = if self.held.is_empty() {
            let came = &buf.filled()[start..];
            let pass = self.framing.advance(came);
            if pass.rest == Rest::Hold {
                self.held.extend_from_slice(&came[pass.bytes..]);
            }
            buf.set_filled(start + pass.bytes);
            pass.rest
        } else {
            self.held.extend_from_slice(&buf.filled()[start..]);
            buf.set_filled(start);
            let pass = self.framing.advance(&self.held);
            if pass.rest != Rest::Hold {
                self.held.truncate(pass.bytes);
            }
            self.released = pass.bytes;
            // The bytes held from before have gone by, so what is held now is another head.
            if pass.bytes > 0 {
                self.head_since = None;
            }
            pass.rest
        };
        match rest {
            Rest::Hold => self.head_since = self.head_since.or_else(|| Some(Instant::now())),
            Rest::Nothing | Rest::Skip => self.head_since = None,
            Rest::Refuse(refusal) => self.refuse(refusal),
            Rest::BadChunk => self.is_broken = true,
        }
    }

    /// Puts the stand-in where the refused head would have been; nothing is read after it.
    fn refuse(&mut self, refusal: Refusal) {
        self.exchange.refuse(self.framing.heads(), refusal);
        self.framing.abandon();
        self.is_refused = true;
        self.head_since = None;
        self.held.truncate(self.released);
        self.held.extend_from_slice(STAND_IN);
        self.released = self.held.len();
    }

    /// Between requests, and no answer outstanding.
    fn is_idle(&self) -> bool {
        self.held.is_empty()
            && self.framing.is_between_bodies()
            && self.exchange.turn().answered == self.framing.heads()
    }

    /// Whether the connection was idle for too long. If not, this task is woken when it will have been.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_idle() {
            return Poll::Pending;
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        // Whoever connects is about to send a head.
        let is_new = self.framing.heads() == 0;
        let deadline = if is_new { self.limits.head_deadline } else { self.limits.idle_deadline };
        self.alarm.poll(cx, since + deadline)
    }

    /// The client sends nothing at the moment.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Silence> {
        let Some(since) = self.head_since else {
            return self.poll_idle(cx).map(|()| Silence::Idle);
        };
        self.alarm.poll(cx, since + self.limits.head_deadline).map(|()| Silence::WithinHead)
    }

    /// Throws away what still comes in, for a while.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self
            .linger
            .get_or_insert_with(|| Linger { until: Instant::now() + LINGER, bytes_left: LINGER_BYTES_MAX });
        loop {
            let mut buffer = [0; LINGER_BUFFER_BYTES];
            let mut read = ReadBuf::new(&mut buffer);
            match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    linger.bytes_left = linger.bytes_left.saturating_sub(read.filled().len());
                    // Without the check of the time a fast sender would keep this loop running.
                    if linger.bytes_left == 0 || Instant::now() >= linger.until {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.alarm.poll(cx, linger.until),
            }
        }
    }

    fn poll_written<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_blocked_since = None;
            return written;
        }
        let since = *self.write_blocked_since.get_or_insert_with(Instant::now);
        ready!(self.alarm.poll(cx, since + self.limits.write_deadline));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

enum Silence {
    Idle,
    WithinHead,
}

#[derive(Debug)]
struct Linger {
    until: Instant,
    bytes_left: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        loop {
            if this.released > 0 {
                this.release(buf);
                return Poll::Ready(Ok(()));
            }
            if this.is_refused {
                return Poll::Pending;
            }
            if this.is_broken {
                let error = io::Error::new(io::ErrorKind::InvalidData, "malformed chunked body");
                return Poll::Ready(Err(error));
            }
            match Pin::new(&mut this.stream).poll_read(cx, buf) {
                Poll::Ready(Ok(())) if buf.filled().len() == start => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => this.inspect(buf, start),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => match ready!(this.poll_silence(cx)) {
                    // To hyper this is a client that went away between two requests.
                    Silence::Idle => return Poll::Ready(Ok(())),
                    Silence::WithinHead => this.refuse(Refusal::Late),
                },
            }
            if buf.filled().len() > start {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.poll_written(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.poll_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        // hyper does not always read again after an answer, so the idle deadline is set here too. When it is over
        // hyper reads, and learns of it there.
        let _ = this.poll_idle(cx);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        if !this.framing.is_between_bodies() {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

/// One timer for all deadlines of a connection. It is moved only to an earlier time; when it goes off too early it
/// is set again. So a busy connection, whose deadlines only ever move on, almost never touches the timer wheel.
#[derive(Debug, Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}
