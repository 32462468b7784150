//! The publishers: each one connection, one request at a time.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Clock;
use super::histogram::Histogram;
use super::request::Template;
use crate::cli::Error;
use crate::cli::connection::Endpoint;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// A publisher whose connection broke waits so long before it opens the next.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// When a publisher sends its next request.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    AsAnswered,
    Scheduled { requests_per_second: f64 },
}

#[derive(Debug)]
pub struct Load {
    pub endpoint: Endpoint,
    pub template: Template,
    pub publishers: u16,
    pub pace: Pace,
    pub duration: Duration,
    pub clock: Clock,
}

/// What the publishers saw.
#[derive(Debug)]
pub struct Tally {
    /// Events answered with 2xx.
    pub accepted: u64,
    /// Events per other status.
    pub refused_by_status: BTreeMap<u16, u64>,
    /// Events whose request got no answer; they may have been stored.
    pub failed: u64,
    pub ack: Histogram,
    /// The events that were not accepted, as (first, how many).
    pub not_accepted: Vec<(u64, u64)>,
    pub began_ns: u64,
    pub ended_ns: u64,
}

impl Tally {
    pub fn refused(&self) -> u64 {
        self.refused_by_status.values().sum()
    }

    fn new(began_ns: u64) -> Self {
        Self {
            accepted: 0,
            refused_by_status: BTreeMap::new(),
            failed: 0,
            ack: Histogram::new(),
            not_accepted: Vec::new(),
            began_ns,
            ended_ns: began_ns,
        }
    }

    fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        for (status, events) in other.refused_by_status {
            *self.refused_by_status.entry(status).or_default() += events;
        }
        self.failed += other.failed;
        self.ack.add(&other.ack);
        self.not_accepted.extend(other.not_accepted);
        self.ended_ns = self.ended_ns.max(other.ended_ns);
    }
}

/// The requests of a run, handed to whichever publisher is free.
#[derive(Debug)]
struct Schedule {
    pace: Pace,
    clock: Clock,
    began_ns: u64,
    ends_ns: u64,
    /// Requests of a scheduled run that are due, or were.
    due: Semaphore,
    taken: AtomicU64,
    events: AtomicU64,
}

impl Load {
    /// Publishes until the time is over and all answers are there.
    pub async fn run(self) -> Result<Tally, Error> {
        let mut wires = Vec::new();
        for _ in 0..self.publishers {
            wires.push(Wire::new(self.endpoint.connect().await?));
        }
        let began_ns = self.clock.now_ns();
        let schedule = Arc::new(Schedule {
            pace: self.pace,
            clock: self.clock,
            began_ns,
            ends_ns: began_ns + self.duration.as_nanos() as u64,
            due: Semaphore::new(0),
            taken: AtomicU64::new(0),
            events: AtomicU64::new(0),
        });
        if let Pace::Scheduled { requests_per_second } = self.pace {
            let (schedule, publishers) = (Arc::clone(&schedule), usize::from(self.publishers));
            // A thread, because a timer of the runtime is no finer than a millisecond.
            thread::spawn(move || schedule.release(requests_per_second, publishers));
        }
        let mut publishers = JoinSet::new();
        for wire in wires {
            let publisher = Publisher {
                wire: Some(wire),
                endpoint: self.endpoint.clone(),
                template: self.template.clone(),
                schedule: Arc::clone(&schedule),
                tally: Tally::new(began_ns),
            };
            publishers.spawn(publisher.run());
        }
        let mut tally = Tally::new(began_ns);
        while let Some(ended) = publishers.join_next().await {
            tally.add(ended.map_err(|error| Error::failed_because("a publisher ended early", error))?);
        }
        Ok(tally)
    }
}

impl Schedule {
    /// Waits for the next request and returns when it was due; none when the time is over.
    async fn next(&self) -> Option<u64> {
        let due_ns = match self.pace {
            Pace::AsAnswered => self.clock.now_ns(),
            Pace::Scheduled { requests_per_second } => {
                self.due.acquire().await.ok()?.forget();
                let number = self.taken.fetch_add(1, Ordering::Relaxed);
                self.began_ns + due_after_ns(number, requests_per_second)
            }
        };
        (due_ns < self.ends_ns).then_some(due_ns)
    }

    /// Lets a request go whenever one is due. Latency counts from the schedule, so being late here is not hidden.
    fn release(&self, requests_per_second: f64, publishers: usize) {
        let mut released = 0;
        loop {
            let due_ns = self.began_ns + due_after_ns(released, requests_per_second);
            if due_ns >= self.ends_ns {
                // Everybody who waits finds that the time is over.
                self.due.add_permits(publishers);
                return;
            }
            let now_ns = self.clock.now_ns();
            if now_ns < due_ns {
                thread::park_timeout(Duration::from_nanos(due_ns - now_ns));
            } else {
                self.due.add_permits(1);
                released += 1;
            }
        }
    }
}

fn due_after_ns(number: u64, requests_per_second: f64) -> u64 {
    (number as f64 * 1e9 / requests_per_second) as u64
}

struct Publisher {
    wire: Option<Wire>,
    endpoint: Endpoint,
    template: Template,
    schedule: Arc<Schedule>,
    tally: Tally,
}

impl Publisher {
    async fn run(mut self) -> Tally {
        let events = self.template.events() as u64;
        while let Some(due_ns) = self.schedule.next().await {
            let first = self.schedule.events.fetch_add(events, Ordering::Relaxed);
            let status = self.exchange(first, due_ns).await;
            let now_ns = self.schedule.clock.now_ns();
            self.tally.ended_ns = now_ns;
            match status {
                Ok(200..=299) => {
                    self.tally.accepted += events;
                    self.tally.ack.record_many(now_ns.saturating_sub(due_ns), events);
                    continue;
                }
                Ok(status) => *self.tally.refused_by_status.entry(status).or_default() += events,
                Err(_) => {
                    self.tally.failed += events;
                    self.wire = None;
                    sleep(RECONNECT_PAUSE).await;
                }
            }
            self.tally.not_accepted.push((first, events));
        }
        self.tally
    }

    async fn exchange(&mut self, first: u64, due_ns: u64) -> io::Result<u16> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => Wire::new(self.endpoint.connect().await.map_err(io::Error::other)?),
        };
        let answer = timeout(ANSWER_TIMEOUT, wire.exchange(self.template.stamped(first, due_ns))).await??;
        self.wire = answer.keep_alive.then_some(wire);
        Ok(answer.status)
    }
}

/// A connection that knows just enough HTTP/1.1 to find where an answer ends.
struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    keep_alive: bool,
}

/// Where the body of an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::with_capacity(4096) }
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") else {
                self.bounded()?;
                continue;
            };
            let (answer, framing) = read_head(&self.buffer[..end]).ok_or(io::ErrorKind::InvalidData)?;
            while !framing.is_complete(&self.buffer[end + 4..]) {
                self.bounded()?;
                if self.stream.read_buf(&mut self.buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            return Ok(answer);
        }
    }

    fn bounded(&self) -> io::Result<()> {
        if self.buffer.len() > ANSWER_BYTES_MAX { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
    }
}

impl Framing {
    fn is_complete(self, body: &[u8]) -> bool {
        match self {
            Self::Length(length) => body.len() >= length,
            Self::Chunked => body.ends_with(b"0\r\n\r\n"),
        }
    }
}

fn read_head(head: &[u8]) -> Option<(Answer, Framing)> {
    let status = std::str::from_utf8(head.strip_prefix(b"HTTP/1.")?.get(2..5)?).ok()?.parse().ok()?;
    let (mut keep_alive, mut framing) = (true, Framing::Length(0));
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            framing = Framing::Length(std::str::from_utf8(value).ok()?.parse().ok()?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case(b"connection") {
            keep_alive = !value.eq_ignore_ascii_case(b"close");
        }
    }
    Some((Answer { status, keep_alive }, framing))
}

#[cfg(test)]
mod tests {
    use super::{Answer, Framing, due_after_ns, read_head};

    #[test]
    fn an_answer_is_known_by_status_and_length() {
        let read = |head: &str| read_head(head.as_bytes());
        let answer = |status, keep_alive| Answer { status, keep_alive };
        assert_eq!(
            read("HTTP/1.1 202 Accepted\r\nSluice-Offset: 7\r\nContent-Length: 0"),
            Some((answer(202, true), Framing::Length(0)))
        );
        assert_eq!(
            read("HTTP/1.1 503 X\r\ncontent-length:  12\r\nConnection: Close"),
            Some((answer(503, false), Framing::Length(12)))
        );
        assert_eq!(
            read("HTTP/1.1 400 X\r\ntransfer-encoding: chunked"),
            Some((answer(400, true), Framing::Chunked))
        );
        assert_eq!(read("SSH-2.0"), None);
        assert!(!Framing::Length(3).is_complete(b"ab"));
        assert!(Framing::Chunked.is_complete(b"2\r\nab\r\n0\r\n\r\n"));
    }

    #[test]
    fn a_schedule_does_not_drift() {
        assert_eq!(due_after_ns(0, 3.0), 0);
        assert_eq!(due_after_ns(3_000_000, 3.0), 1_000_000_000_000_000);
    }
}
