//! The receiving end of a run: answers deliveries with 204 and keeps the books on them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::Clock;
use super::histogram::Histogram;
use super::load::Tally;
use super::request::Run;
use crate::cli::Error;

const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// Paths of deliveries that are told apart; more than one machine's triggers in any sensible run.
const PATHS_MAX: usize = 1024;
/// An event number beyond this is none of ours; it bounds what a false one can make us allocate.
const SEQUENCE_MAX: u64 = 1 << 36;
const LOOK_EVERY: Duration = Duration::from_millis(20);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Receiver {
    pub address: SocketAddr,
    books: Arc<Mutex<Books>>,
}

/// What was delivered, each event counted once per path.
#[derive(Debug)]
pub struct Deliveries {
    pub deliveries: u64,
    pub last_ns: u64,
    pub latency: Histogram,
    pub lost: u64,
    pub duplicated: u64,
}

#[derive(Debug)]
struct Books {
    run: Run,
    clock: Clock,
    /// Which events came to which path.
    seen: HashMap<Box<[u8]>, Bits>,
    distinct: u64,
    duplicated: u64,
    last_ns: u64,
    latency: Histogram,
}

impl Receiver {
    /// Listens, on a thread of its own: publishers and deliveries do not wait for each other.
    pub fn start(address: SocketAddr, run: &Run, clock: Clock) -> Result<Self, Error> {
        let cannot = |error: io::Error| Error::failed_because(format!("cannot listen on {address}"), error);
        let listener = std::net::TcpListener::bind(address).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
        let books = Arc::new(Mutex::new(Books::new(run.clone(), clock)));
        let shared = Arc::clone(&books);
        let accept = async move {
            let listener = TcpListener::from_std(listener)?;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(serve(stream, Arc::clone(&shared)))),
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                }
            }
        };
        thread::spawn(move || {
            let ended: io::Result<()> = runtime.block_on(accept);
            if let Err(error) = ended {
                eprintln!("sluice: the receiver stopped: {error}");
            }
        });
        Ok(Self { address, books })
    }

    /// Waits until so many deliveries are there, or none came for the given time.
    pub async fn wait_for(&self, expected: u64, patience: Duration) {
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            let distinct = lock(&self.books).distinct;
            if distinct >= expected || since.elapsed() > patience {
                return;
            }
            if distinct > seen {
                (seen, since) = (distinct, Instant::now());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    pub fn finish(&self, tally: &Tally, expected: u64) -> Deliveries {
        let books = lock(&self.books);
        // An event without an answer may have been stored all the same; its delivery makes up for no lost one.
        let unexpected: u64 = books
            .seen
            .values()
            .flat_map(|bits| {
                tally
                    .not_accepted
                    .iter()
                    .flat_map(|(first, count)| *first..first + count)
                    .map(|n| bits.has(n))
            })
            .map(u64::from)
            .sum();
        Deliveries {
            deliveries: books.distinct,
            last_ns: books.last_ns,
            latency: books.latency.clone(),
            lost: expected.saturating_sub(books.distinct - unexpected),
            duplicated: books.duplicated,
        }
    }
}

impl Books {
    fn new(run: Run, clock: Clock) -> Self {
        Self {
            run,
            clock,
            seen: HashMap::new(),
            distinct: 0,
            duplicated: 0,
            last_ns: 0,
            latency: Histogram::new(),
        }
    }

    /// Notes a delivery. What is no event of this run is not counted.
    fn note(&mut self, head: &[u8], body: &[u8]) {
        let prefix = self.run.prefix().as_bytes();
        // In binary mode the id is in the head, else in the body.
        let found = [head, body].into_iter().find_map(|part| {
            let at = memmem::find(part, prefix)?;
            Run::stamp(&part[at + prefix.len()..])
        });
        let Some(stamp) = found.filter(|stamp| stamp.sequence < SEQUENCE_MAX) else { return };
        let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        if !self.seen.contains_key(path) {
            if self.seen.len() == PATHS_MAX {
                return;
            }
            self.seen.insert(path.into(), Bits::default());
        }
        let now_ns = self.clock.now_ns();
        self.last_ns = now_ns;
        if self.seen.get_mut(path).is_some_and(|bits| bits.set(stamp.sequence)) {
            self.distinct += 1;
            self.latency.record(now_ns.saturating_sub(stamp.due_ns));
        } else {
            self.duplicated += 1;
        }
    }
}

fn lock(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(mut stream: TcpStream, books: Arc<Mutex<Books>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(16 << 10);
    let mut answers = Vec::new();
    while stream.read_buf(&mut buffer).await? > 0 {
        let mut read = 0;
        while let Some(request) = Request::parse(&buffer[read..])? {
            lock(&books).note(request.head, request.body);
            read += request.bytes;
            answers.extend_from_slice(ANSWER);
        }
        buffer.drain(..read);
        if buffer.len() > REQUEST_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        stream.write_all(&answers).await?;
        answers.clear();
    }
    Ok(())
}

/// A request at the beginning of a buffer.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    head: &'a [u8],
    body: &'a [u8],
    bytes: usize,
}

impl<'a> Request<'a> {
    /// None as long as it is not complete.
    fn parse(buffer: &'a [u8]) -> io::Result<Option<Self>> {
        let Some(end) = memmem::find(buffer, b"\r\n\r\n") else { return Ok(None) };
        let (head, rest) = (&buffer[..end], &buffer[end + 4..]);
        let (mut length, mut chunked) = (0, false);
        for line in head.split(|byte| *byte == b'\n').skip(1) {
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                let digits = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                length = digits.ok_or(io::ErrorKind::InvalidData)?;
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                chunked = true;
            }
        }
        if chunked {
            const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
            let last =
                memmem::find_iter(rest, LAST_CHUNK).find(|at| *at == 0 || rest[..*at].ends_with(b"\r\n"));
            let Some(last) = last else { return Ok(None) };
            return Ok(Some(Self { head, body: &rest[..last], bytes: end + 4 + last + LAST_CHUNK.len() }));
        }
        if rest.len() < length {
            return Ok(None);
        }
        Ok(Some(Self { head, body: &rest[..length], bytes: end + 4 + length }))
    }
}

/// A set of numbers that grows from 0.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Adds a number and returns whether it was new.
    fn set(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    fn has(&self, number: u64) -> bool {
        self.0.get((number / 64) as usize).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{Bits, Books, Clock, Request, Run};

    #[test]
    fn requests_are_found_one_after_the_other() {
        let buffer = b"POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiPOST /b HTTP/1.1\r\n\r\nPOST";
        let first = Request::parse(buffer).unwrap().unwrap();
        assert_eq!((first.body, first.bytes), (b"hi".as_slice(), 41));
        let second = Request::parse(&buffer[first.bytes..]).unwrap().unwrap();
        assert_eq!(second.head, b"POST /b HTTP/1.1");
        assert_eq!(Request::parse(&buffer[first.bytes + second.bytes..]).unwrap(), None);
        let chunked = b"POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nPOST";
        let request = Request::parse(chunked).unwrap().unwrap();
        assert_eq!((request.body, request.bytes), (b"2\r\nhi\r\n".as_slice(), chunked.len() - 4));
        assert!(Request::parse(b"POST /a HTTP/1.1\r\ncontent-length: x\r\n\r\n").is_err());
    }

    #[test]
    fn an_event_counts_once_per_path() {
        let run = Run::new();
        let id = format!("{}000000000041-0000000000000007", run.prefix());
        let mut books = Books::new(run, Clock(Instant::now()));
        for path in ["/1", "/2", "/1"] {
            books.note(format!("POST {path} HTTP/1.1\r\nce-id: {id}").as_bytes(), b"");
        }
        books.note(b"POST /1 HTTP/1.1", format!("{{\"id\":\"{id}\"}}").as_bytes());
        books.note(b"POST /1 HTTP/1.1\r\nce-id: bench-another", b"");
        assert_eq!((books.distinct, books.duplicated), (2, 2));
    }

    #[test]
    fn bits_know_what_was_set() {
        let mut bits = Bits::default();
        assert_eq!([bits.set(64), bits.set(64), bits.set(0)], [true, false, true]);
        assert!(bits.has(64) && !bits.has(63) && !bits.has(6400));
    }
}
