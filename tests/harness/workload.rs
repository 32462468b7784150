//! Publishers and sinks that outlive the brokers they talk to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::broker::{Addresses, Broker, Setup};
use super::event::{EventId, Parcel};
use super::ledger::{self, End, Ledger};
use super::wire::{self, Answer, Connection, Failure, Server};

/// Events of one publisher in one round: enough to be under load, not more than can be drained in time.
pub const ROUND_EVENTS: usize = 250;
const PUBLISHERS: usize = 8;
const BATCH_EVENTS_MAX: usize = 6;
/// Between two tries at a broker that refuses or is not there.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
const UNTIL_DEADLINE: Duration = Duration::from_secs(40);
/// A publisher ends between two requests, and a request has a deadline of its own.
const PUBLISHERS_DEADLINE: Duration = wire::ANSWER_DEADLINE.saturating_add(Duration::from_secs(30));
const DRAIN_DEADLINE: Duration = Duration::from_secs(90);
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);
/// Events looked up by their offset and by their id at the end; the newest, which retention cannot have taken.
const LOOKUPS: usize = 300;

/// Where events go to at the moment, and since which round; none while no broker runs.
type Target = Option<(SocketAddr, usize)>;

pub struct Workload {
    ledger: Arc<Mutex<Ledger>>,
    /// Dropping it is how publishers are told to come to an end.
    target: Option<watch::Sender<Target>>,
    publishers: JoinSet<()>,
    _sink: Server,
    pub setup: Setup,
}

impl Workload {
    /// Starts publishers and sinks; the broker's configuration is written to `dir`, its data are in `data`.
    pub async fn start(seed: u64, round_events: usize, dir: &Path, data: &Path) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::new(seed, PUBLISHERS)));
        let kept = Arc::clone(&ledger);
        let sink = Server::start(move |parts, body| kept.lock().unwrap().deliver(parts, body)).await;
        let setup = Setup::new(&write_config(dir, data, sink.address));
        let (target, targets) = watch::channel(None);
        let mut tasks = JoinSet::new();
        for index in 0..PUBLISHERS {
            let random = fastrand::Rng::with_seed(seed ^ (index as u64 + 1) << 40);
            let publisher = Publisher {
                index,
                ledger: Arc::clone(&ledger),
                random,
                round_events,
                round: 0,
                targets: targets.clone(),
                again: None,
            };
            tasks.spawn(publisher.run());
        }
        Self { ledger, target: Some(target), publishers: tasks, _sink: sink, setup }
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// Starts the next round's broker.
    pub fn spawn(&mut self) -> Broker {
        let round = self.ledger().round();
        self.setup.round = round;
        Broker::start(&self.setup)
    }

    /// The next round's broker, taking events; its last words when it ends instead, which is for the caller to judge.
    pub async fn spawn_ready(&mut self) -> Result<Broker, String> {
        let mut broker = self.spawn();
        match broker.ready().await {
            Ok(_) => Ok(broker),
            Err((status, log)) => Err(format!("the broker ended ({status}) instead of starting:\n{log}")),
        }
    }

    /// Waits until it is ready, looks at its books, and points the publishers to it.
    pub async fn open(&mut self, broker: &mut Broker) -> Addresses {
        let addresses = broker.must_be_ready().await;
        self.ledger().recovered(broker.started.elapsed());
        self.point_to(Some((addresses.events, self.setup.round)));
        let books = ledger::books(addresses.admin).await;
        if let Err(wrong) = books {
            self.ledger().violation(wrong);
        }
        addresses
    }

    /// The same for one that may die at any moment.
    pub async fn open_to_die(&mut self, broker: &mut Broker) {
        if let Ok(addresses) = broker.ready().await {
            self.point_to(Some((addresses.events, self.setup.round)));
        }
    }

    fn point_to(&self, target: Target) {
        if let Some(sender) = &self.target {
            sender.send_replace(target);
        }
    }

    /// Waits until the ledger says so; a test that waits in vain fails with the broker's last words.
    pub async fn until(&self, what: &str, broker: &Broker, mut holds: impl FnMut(&Ledger) -> bool) {
        let deadline = Instant::now() + UNTIL_DEADLINE;
        let mut tick = tokio::time::interval(RETRY_INTERVAL);
        while !holds(&self.ledger()) {
            assert!(Instant::now() < deadline, "waited in vain until {what}:\n{}", broker.log());
            tick.tick().await;
        }
    }

    pub async fn kill(&mut self, broker: Broker) {
        let at = Instant::now();
        broker.kill().await;
        self.crashed(at);
    }

    /// For a broker that has come to its end otherwise.
    pub fn crashed(&mut self, at: Instant) {
        self.point_to(None);
        self.ledger().round_ended(End::Crashed(at));
    }

    pub async fn terminate(&mut self, broker: Broker) {
        let status = broker.terminate().await;
        self.point_to(None);
        let mut ledger = self.ledger();
        ledger.round_ended(End::Stopped);
        if !status.success() {
            ledger.violation(format!("a broker ended with {status} after SIGTERM"));
        }
    }

    /// Notes the dead letters so far, then purges them.
    pub async fn purge(&self, admin: SocketAddr) {
        let letters = ledger::dead_letters(admin, "flaky").await;
        self.ledger().bury(&letters);
        if !ledger::purge(admin, &letters).await {
            self.ledger().violation("dead letters could not be purged".into());
        }
    }

    /// Waits until nothing is pending. The publishers have sent what they send in a round, or have ended.
    pub async fn settled(&self, admin: SocketAddr) {
        let deadline = Instant::now() + DRAIN_DEADLINE;
        let mut tick = tokio::time::interval(DRAIN_INTERVAL);
        let mut before = u64::MAX;
        loop {
            tick.tick().await;
            match ledger::books(admin).await {
                Err(wrong) => return self.ledger().violation(wrong),
                Ok(books) => {
                    let seen = books.values().map(|books| books.seen).sum();
                    if books.values().all(|books| books.pending == 0) && seen == before {
                        return;
                    }
                    before = seen;
                    if Instant::now() > deadline {
                        return self.ledger().violation(format!("nothing moves any more: {books:?}"));
                    }
                }
            }
        }
    }

    /// Ends the publishers, lets a last broker deliver what is left, and compares.
    pub async fn verify(mut self) -> Result<String, String> {
        let mut broker = self.spawn_ready().await?;
        let addresses = self.open(&mut broker).await;
        self.target = None;
        self.end_publishers(&broker).await;
        self.settled(addresses.admin).await;
        let letters = ledger::dead_letters(addresses.admin, "flaky").await;
        self.ledger().bury(&letters);
        self.compare(addresses.admin).await;
        self.terminate(broker).await;
        let mut ledger = self.ledger();
        ledger.balance();
        ledger.verdict()
    }

    /// Waits for the publishers, which have been told to end.
    async fn end_publishers(&mut self, broker: &Broker) {
        let deadline = tokio::time::Instant::now() + PUBLISHERS_DEADLINE;
        loop {
            match tokio::time::timeout_at(deadline, self.publishers.join_next()).await {
                Ok(Some(ended)) => ended.unwrap(),
                Ok(None) => return,
                Err(_) => {
                    panic!("{} publishers do not end:\n{}", self.publishers.len(), broker.log());
                }
            }
        }
    }

    /// The broker's own view of what happened against ours.
    async fn compare(&self, admin: SocketAddr) {
        let books = ledger::books(admin).await.unwrap_or_default();
        let next = wire::get(admin, "/api/v1/status").await["store"]["next_offset"].clone();
        // Offsets count from 0.
        let stored = next.as_str().and_then(|text| text.parse::<u64>().ok());
        for (name, books) in &books {
            if Some(books.seen) != stored {
                self.ledger().violation(format!("{name} saw {} events of {stored:?} stored", books.seen));
            }
        }
        let newest = self.ledger().newest_acknowledged(LOOKUPS);
        for (offset, id) in newest {
            let path = format!("/api/v1/events/{offset}");
            let answer = wire::call(admin, "GET", &path, &Value::Null).await;
            let event = answer.map(|answer| answer.json()).unwrap_or_default();
            if event["event"]["id"] != id.to_string().as_str() {
                self.ledger().violation(format!("{id} was acknowledged at {offset}, where there is {event}"));
                continue;
            }
            let source = event["event"]["source"].as_str().unwrap_or_default();
            let path = format!("/api/v1/events/by-id?source={source}&id={id}");
            let answer = wire::call(admin, "GET", &path, &Value::Null).await;
            let found = answer.map(|answer| answer.json()).unwrap_or_default();
            if found["offset"] != offset.to_string().as_str() {
                self.ledger()
                    .violation(format!("{id} is at {offset}, and looked up by its id it is {found}"));
            }
        }
    }
}

fn write_config(dir: &Path, data: &Path, sink: SocketAddr) -> PathBuf {
    let path = dir.join("sluice.yaml");
    let data = data.display();
    // Small segments and a small retention, so that segments roll and are recycled; a short duplicate window for the
    // same reason, long enough for a publisher that tries again after a restart.
    let text = format!(
        r#"
http: {{ listen: "127.0.0.1:0" }}
admin: {{ listen: "127.0.0.1:0" }}
limits: {{ event_bytes: 128KiB, batch_bytes: 1MiB }}
duplicates: {{ window: 20s }}
store: {{ dir: "{data}", segment: 4MiB, retention: {{ size: 192MiB }}, watermark: {{ free: 1MiB }} }}
defaults:
  delivery: {{ backoff: constant, backoff_delay: 100ms, reply: ignore }}
triggers:
  fine:
    sink: {{ http: {{ url: "http://{sink}/fine", headers: {{ x-round: "${{SLUICE_ROUND}}" }} }} }}
  flaky:
    filters: [{{ exact: {{ type: com.example.a }} }}]
    sink: {{ http: {{ url: "http://{sink}/flaky", headers: {{ x-round: "${{SLUICE_ROUND}}" }} }} }}
"#
    );
    std::fs::write(&path, text).unwrap();
    path
}

struct Publisher {
    index: usize,
    ledger: Arc<Mutex<Ledger>>,
    random: fastrand::Rng,
    round_events: usize,
    round: usize,
    targets: watch::Receiver<Target>,
    /// Sent without an answer, or refused, and to be sent again.
    again: Option<Vec<EventId>>,
}

impl Publisher {
    async fn run(mut self) {
        loop {
            let Ok(target) = self.targets.wait_for(Option::is_some).await.map(|target| *target) else {
                return;
            };
            let Some((address, round)) = target else { continue };
            self.round = round;
            let mut left = self.round_events;
            while left > 0 && self.is_current(round) {
                if self.publish_on_one_connection(address, round, &mut left).await.is_err() {
                    let changed = self.targets.changed();
                    drop(tokio::time::timeout(RETRY_INTERVAL, changed).await);
                }
            }
            // The round is over for this publisher; the test is when nobody can say otherwise.
            let elsewhere = |target: &Target| target.is_none_or(|(_, other)| other != round);
            if self.targets.wait_for(elsewhere).await.is_err() {
                return;
            }
        }
    }

    fn is_current(&self, round: usize) -> bool {
        let is_told_to_end = self.targets.has_changed().is_err();
        !is_told_to_end && self.targets.borrow().is_some_and(|(_, current)| current == round)
    }

    async fn publish_on_one_connection(
        &mut self,
        address: SocketAddr,
        round: usize,
        left: &mut usize,
    ) -> Result<(), Failure> {
        let mut connection = Connection::open(address).await?;
        while *left > 0 && self.is_current(round) {
            let ids = self.again.take().unwrap_or_else(|| self.new_events());
            *left = left.saturating_sub(ids.len());
            let answer = connection.send(self.request(&ids)).await;
            let is_taken = answer.as_ref().is_ok_and(|answer| self.note(&ids, answer));
            if !is_taken && self.random.bool() {
                self.again = Some(ids);
            }
            if let Err(error) = answer {
                let mut ledger = self.ledger.lock().unwrap();
                ledger.unanswered += 1;
                if error.is::<wire::Unanswered>() {
                    ledger.violation(format!(
                        "publisher {} at {address} in round {round}: {error}",
                        self.index
                    ));
                }
                return Err(error);
            }
            if !is_taken {
                return Err("refused".into());
            }
        }
        Ok(())
    }

    fn new_events(&mut self) -> Vec<EventId> {
        let count = if self.random.u8(..6) == 0 { self.random.usize(1..=BATCH_EVENTS_MAX) } else { 1 };
        let mut ledger = self.ledger.lock().unwrap();
        (0..count).map(|_| ledger.send(self.index)).collect()
    }

    fn request(&mut self, ids: &[EventId]) -> http::Request<http_body_util::Full<bytes::Bytes>> {
        let parcels: Vec<Parcel> = ids.iter().map(|id| Parcel::of(*id)).collect();
        match parcels.as_slice() {
            [parcel] if self.random.u8(..4) > 0 => parcel.binary(),
            [parcel] => parcel.structured(),
            parcels => Parcel::batch(parcels),
        }
    }

    /// Whether the events were taken.
    fn note(&self, ids: &[EventId], answer: &Answer) -> bool {
        let mut ledger = self.ledger.lock().unwrap();
        match answer.status {
            StatusCode::ACCEPTED => {
                let text = answer.header("sluice-offset").unwrap_or_default();
                let offsets: Vec<u64> = text.split(',').filter_map(|part| part.trim().parse().ok()).collect();
                ledger.acknowledge(self.round, ids, &offsets);
                true
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                if answer.header("retry-after").is_none() {
                    ledger.violation("a 503 without Retry-After".into());
                }
                ledger.refused += 1;
                false
            }
            status => {
                ledger.violation(format!("{ids:?} were answered with {status}: {}", answer.json()));
                false
            }
        }
    }
}
