//! What the hook runs after a push.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::Full;
use sluice_adapters::git::push::{self, Detail, RefUpdate};
use sluice_schemas::Invalid;
use sluice_schemas::http::{BATCH_CONTENT_TYPE, STRUCTURED_CONTENT_TYPE};
use sluice_schemas::json;
use tokio::time::{Instant, timeout_at};

use super::Telling;
use super::repository::Repository;
use super::spool::Spool;
use crate::cli::Error;
use crate::cli::admin::Problem;
use crate::cli::connection::Connection;
use crate::cli::output::escaped_lines;
use crate::cli::publish::endpoint;

/// Updates of one push that are told; git names at most so many in practice.
const REFS_MAX: usize = 20_000;
const INPUT_BYTES_MAX: u64 = 16 << 20;
/// For the lock and the broker together: who pushes waits for this.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// What goes in one request.
const BATCH_EVENTS_MAX: usize = 64;
const BATCH_BYTES_MAX: usize = 512 << 10;

/// How sending ended.
#[derive(Default)]
struct Sent {
    accepted: usize,
    /// Texts of the broker's answers to events it will never take.
    refused: Vec<String>,
    /// Why the rest was not sent.
    away: Option<String>,
}

pub async fn post_receive(telling: Telling) -> Result<(), Error> {
    let (updates, unread) = read_updates();
    if updates.is_empty() && unread == 0 {
        return Ok(());
    }
    let repository = Repository::of_hook()?;
    let push = Push {
        source: telling.source.clone().unwrap_or_else(|| repository.source()),
        details: repository.details(&updates, telling.commits).await,
        updates,
        unread,
    };
    let mut connection = Connection::new(endpoint(&telling.url)?);
    let deadline = Instant::now() + SEND_TIMEOUT;
    match tell_by_spool(&push, &repository.git_dir, &mut connection, deadline).await {
        Err(Untold::Spool(broken)) => tell_at_once(&push, &mut connection, broken).await,
        Err(Untold::Event(invalid)) => Err(Error::failed_because("nobody is told of this push", invalid)),
        Ok(()) => Ok(()),
    }
}

/// What is to be told.
struct Push {
    source: String,
    updates: Vec<RefUpdate>,
    details: Vec<Detail>,
    /// Lines that are no updates, or too many.
    unread: usize,
}

impl Push {
    fn events(&self, turns: &[u64]) -> Result<Vec<Vec<u8>>, Invalid> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now_ms = i64::try_from(now).unwrap_or_default();
        let known = self.updates.iter().zip(&self.details).zip(turns);
        let event = |((update, detail), turn): ((&RefUpdate, &Detail), &u64)| {
            push::event(&self.source, update, *turn, detail, now_ms).map(|event| json::encode(&event))
        };
        known.map(event).collect()
    }
}

enum Untold {
    /// Nothing was written down.
    Spool(io::Error),
    Event(Invalid),
}

impl From<io::Error> for Untold {
    fn from(error: io::Error) -> Self {
        Self::Spool(error)
    }
}

/// Writes the events down, and sends all that waits.
async fn tell_by_spool(
    push: &Push,
    git_dir: &Path,
    connection: &mut Connection,
    deadline: Instant,
) -> Result<(), Untold> {
    let spool = Spool::open(git_dir)?;
    let lock = spool.lock(Instant::now() + LOCK_TIMEOUT).await?;
    let turns = match &lock {
        Some(_) => spool.turns(&push.updates),
        None => vec![0; push.updates.len()],
    };
    let events = push.events(&turns).map_err(Untold::Event)?;
    let mut sent = Sent::default();
    if let Err(full) = spool.keep(&events) {
        // Room is made by sending what waits, if the broker is there again.
        send_all(&spool, connection, deadline, &mut sent).await?;
        spool.keep(&events).map_err(|_| full)?;
    }
    if lock.is_some() {
        let told = send_all(&spool, connection, deadline, &mut sent).await;
        // They are written down: whoever pushes next sends them.
        sent.away = told.err().map(|error| error.to_string()).or(sent.away);
    } else {
        sent.away = Some("another push is still telling it".into());
    }
    say(&sent, push.unread, &connection.endpoint().address(), spool.dir());
    Ok(())
}

/// Without a spool that can be written, what the broker does not take now is lost: then this fails.
async fn tell_at_once(push: &Push, connection: &mut Connection, broken: io::Error) -> Result<(), Error> {
    // Nothing remembers the last turn of a ref, and nothing tells this update again: a turn of its own.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let turns = vec![u64::try_from(now).unwrap_or(u64::MAX); push.updates.len()];
    let events = push
        .events(&turns)
        .map_err(|invalid| Error::failed_because("nobody is told of this push", invalid))?;
    let (mut sent, mut done) = (Sent::default(), 0);
    let deadline = Instant::now() + SEND_TIMEOUT;
    while done < events.len() && sent.away.is_none() {
        let count = batch(&events[done..]);
        match timeout_at(deadline, send(connection, &events[done..done + count], &mut sent)).await {
            Ok(taken) => done += taken,
            Err(_) => sent.away = Some(format!("no answer within {} s", SEND_TIMEOUT.as_secs())),
        }
    }
    let address = connection.endpoint().address();
    match &sent.away {
        Some(why) => {
            let untold = match done {
                0 => "nobody is told of this push".to_owned(),
                _ => format!("nobody is told of {} of this push", counted(events.len() - done)),
            };
            let what = format!(
                "{untold}: the broker at {address} does not take it ({why}), and the spool cannot be used"
            );
            Err(Error::failed_because(what, broken))
        }
        None => {
            eprintln!(
                "sluice: the spool cannot be used ({broken}): what the broker does not take at once is lost"
            );
            say(&sent, push.unread, &address, Path::new(""));
            Ok(())
        }
    }
}

/// The updates on standard input, and how many lines are none or too many.
fn read_updates() -> (Vec<RefUpdate>, usize) {
    let mut input = BufReader::new(std::io::stdin()).take(INPUT_BYTES_MAX);
    let (mut updates, mut unread) = (Vec::new(), 0);
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        match RefUpdate::parse(text) {
            Some(update) if updates.len() < REFS_MAX => updates.push(update),
            Some(_) => unread += 1,
            None if text.is_empty() => {}
            None => unread += 1,
        }
        line.clear();
    }
    (updates, unread)
}

/// Sends what waits, the oldest first, until the broker does not take it or time is up.
async fn send_all(
    spool: &Spool,
    connection: &mut Connection,
    deadline: Instant,
    sent: &mut Sent,
) -> std::io::Result<()> {
    for file in spool.files()? {
        let mut events = spool.read(&file)?;
        while !events.is_empty() && sent.away.is_none() {
            let count = batch(&events);
            match timeout_at(deadline, send(connection, &events[..count], sent)).await {
                Ok(taken) => drop(events.drain(..taken)),
                Err(_) => sent.away = Some(format!("no answer within {} s", SEND_TIMEOUT.as_secs())),
            }
        }
        spool.leave(&file, &events)?;
        if sent.away.is_some() {
            return Ok(());
        }
    }
    Ok(())
}

/// How many events go in the next request; at least one.
fn batch(events: &[Vec<u8>]) -> usize {
    let mut bytes = 0;
    let fits = events.iter().take(BATCH_EVENTS_MAX).take_while(|event| {
        bytes += event.len();
        bytes <= BATCH_BYTES_MAX
    });
    fits.count().max(1)
}

/// Sends events together, and one by one when the broker refuses them together. Returns how many are done with.
async fn send(connection: &mut Connection, events: &[Vec<u8>], sent: &mut Sent) -> usize {
    if events.len() > 1 {
        let body = [b"[", &events.join(&b","[..])[..], b"]"].concat();
        match exchange(connection, BATCH_CONTENT_TYPE, body).await {
            Verdict::Taken => {
                sent.accepted += events.len();
                return events.len();
            }
            Verdict::Away(why) => {
                sent.away = Some(why);
                return 0;
            }
            Verdict::Refused(_) => {}
        }
    }
    for (done, event) in events.iter().enumerate() {
        match exchange(connection, STRUCTURED_CONTENT_TYPE, event.clone()).await {
            Verdict::Taken => sent.accepted += 1,
            Verdict::Refused(why) => sent.refused.push(why),
            Verdict::Away(why) => {
                sent.away = Some(why);
                return done;
            }
        }
    }
    events.len()
}

enum Verdict {
    Taken,
    /// It will not be taken later either.
    Refused(String),
    Away(String),
}

async fn exchange(connection: &mut Connection, content_type: &str, body: Vec<u8>) -> Verdict {
    let path = connection.endpoint().path().to_owned();
    let request = Request::post(path).header(CONTENT_TYPE, content_type).body(Full::new(Bytes::from(body)));
    let request = match request {
        Ok(request) => request,
        Err(error) => return Verdict::Away(error.to_string()),
    };
    let response = match connection.send(request).await {
        Ok(response) => response,
        Err(error) => return Verdict::Away(error.to_string()),
    };
    match response.status() {
        status if status.is_success() => Verdict::Taken,
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY => {
            Verdict::Refused(Problem::read(response.status(), response.body()).text)
        }
        // A wrong address, too: whoever puts it right finds everything still here.
        status => Verdict::Away(format!("it answered {status}")),
    }
}

fn counted(events: usize) -> String {
    if events == 1 { "1 event".to_owned() } else { format!("{events} events") }
}

/// One line for whoever pushes.
fn say(sent: &Sent, unread: usize, address: &str, dir: &Path) {
    let events = counted;
    let mut line = match (&sent.away, sent.accepted) {
        (Some(why), accepted) => {
            let told = if accepted > 0 { format!("{} told, ", events(accepted)) } else { String::new() };
            format!(
                "{told}the broker at {address} does not take more ({why}); the rest waits in {} and goes first next time",
                dir.display()
            )
        }
        (None, accepted) => format!("{} told to the broker at {address}", events(accepted)),
    };
    if let Some(first) = sent.refused.first() {
        line.push_str(&format!("; {} refused: {first}", events(sent.refused.len())));
    }
    if unread > 0 {
        line.push_str(&format!("; {unread} lines were not understood or too many"));
    }
    eprintln!("sluice: {}", escaped_lines(&line).replace('\n', " "));
}
