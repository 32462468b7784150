//! What was sent, what was acknowledged, what arrived; and what must not differ between them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use serde_json::{Value, json};

use super::event::{EventId, Parcel};
use super::wire;

/// The two triggers: one whose sink is always fine, one whose sink fails and refuses.
pub const TRIGGERS: [&str; 2] = ["fine", "flaky"];
const FLAKY: usize = 1;
/// An accepted delivery is repeated only when a crash came before its outcome was on disk. That takes 50 ms by
/// contract; the rest is for a sync under load on a shared machine and for debug builds.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(1);
const VIOLATIONS_SHOWN: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It ended by itself after SIGTERM: nothing accepted before is repeated.
    Stopped,
    /// Killed or cut off, at this time.
    Crashed(Instant),
}

#[derive(Clone, Copy, Debug)]
struct Acceptance {
    round: usize,
    at: Instant,
}

/// Kept behind a mutex by the workload.
pub struct Ledger {
    random: fastrand::Rng,
    /// Events of each publisher so far: its ids count up from 0.
    sent: Vec<u32>,
    acknowledged: HashMap<EventId, u64>,
    /// First acknowledgements of this round, with their times.
    latest: Vec<(SystemTime, EventId, u64)>,
    /// Acknowledgements of rounds before this one that come only now do not count.
    withdrawn_until: usize,
    offsets: HashMap<u64, EventId>,
    accepted: [HashMap<EventId, Acceptance>; 2],
    dead: HashSet<EventId>,
    /// How each round but the current one ended.
    ends: Vec<End>,
    pub duplicates: [u64; 2],
    longest_gap: Duration,
    pub refused: u64,
    pub unanswered: u64,
    /// Acknowledged after the power was gone.
    withdrawn: u64,
    recovery: Vec<Duration>,
    violations: Vec<String>,
    violation_count: u64,
}

impl Ledger {
    pub fn new(seed: u64, publishers: usize) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            sent: vec![0; publishers],
            acknowledged: HashMap::new(),
            latest: Vec::new(),
            withdrawn_until: 0,
            offsets: HashMap::new(),
            accepted: [HashMap::new(), HashMap::new()],
            dead: HashSet::new(),
            ends: Vec::new(),
            duplicates: [0; 2],
            longest_gap: Duration::ZERO,
            refused: 0,
            unanswered: 0,
            withdrawn: 0,
            recovery: Vec::new(),
            violations: Vec::new(),
            violation_count: 0,
        }
    }

    pub fn violation(&mut self, what: String) {
        self.violation_count += 1;
        if self.violations.len() < VIOLATIONS_SHOWN {
            self.violations.push(what);
        }
    }

    /// A new id, counted as sent before it is.
    pub fn send(&mut self, publisher: usize) -> EventId {
        let count = self.sent[publisher];
        self.sent[publisher] += 1;
        EventId { publisher: publisher as u32, count }
    }

    pub fn acknowledge(&mut self, round: usize, ids: &[EventId], offsets: &[u64]) {
        if round < self.withdrawn_until {
            return;
        }
        if ids.len() != offsets.len() {
            self.violation(format!("{} events were acknowledged with offsets {offsets:?}", ids.len()));
        }
        for (id, offset) in ids.iter().zip(offsets) {
            let other = *self.offsets.entry(*offset).or_insert(*id);
            if other != *id {
                self.violation(format!("offset {offset} was given to {other} and to {id}"));
            }
            let earlier = *self.acknowledged.entry(*id).or_insert_with(|| {
                self.latest.push((SystemTime::now(), *id, *offset));
                *offset
            });
            if earlier != *offset {
                self.violation(format!("{id} was acknowledged with offset {earlier} and then {offset}"));
            }
        }
    }

    /// The last offsets and whose they are.
    pub fn newest_acknowledged(&self, count: usize) -> Vec<(u64, EventId)> {
        let mut all: Vec<_> = self.offsets.iter().map(|(offset, id)| (*offset, *id)).collect();
        all.sort_unstable();
        all.split_off(all.len().saturating_sub(count))
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub fn round(&self) -> usize {
        self.ends.len()
    }

    /// Forgets acknowledgements of the present round that came after this time, and those still under way.
    pub fn withdraw_since(&mut self, time: SystemTime) {
        for (_, id, offset) in self.latest.drain(..).filter(|(at, _, _)| *at >= time) {
            self.acknowledged.remove(&id);
            self.offsets.remove(&offset);
            self.withdrawn += 1;
        }
        self.withdrawn_until = self.ends.len() + 1;
    }

    pub fn round_ended(&mut self, end: End) {
        self.latest.clear();
        self.ends.push(end);
    }

    pub fn recovered(&mut self, took: Duration) {
        self.recovery.push(took);
    }

    /// A request at a sink, and its answer.
    pub fn deliver(&mut self, parts: &Parts, body: &Bytes) -> StatusCode {
        let trigger = TRIGGERS.iter().position(|name| parts.uri.path().strip_prefix('/') == Some(name));
        let round = parts.headers.get("x-round").and_then(|value| value.to_str().ok()?.parse().ok());
        let (Some(trigger), Some(round)) = (trigger, round) else {
            self.violation(format!("a sink got a request for {}", parts.uri));
            return StatusCode::NOT_FOUND;
        };
        let parcel = Parcel::received(parts, body);
        let known = parcel.id().filter(|id| {
            self.sent.get(id.publisher as usize).is_some_and(|sent| id.count < *sent)
                && (trigger != FLAKY || id.is_of_type_a())
        });
        let Some(id) = known else {
            self.violation(format!("{} got what nobody sent it: {:?}", TRIGGERS[trigger], parcel.attributes));
            return StatusCode::OK;
        };
        if parcel != Parcel::of(id) {
            self.violation(format!("{id} came with other attributes or bytes than it was sent with"));
        }
        if trigger == FLAKY && id.is_refused() {
            return StatusCode::BAD_REQUEST;
        }
        if trigger == FLAKY && self.random.u8(..10) < 2 {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        let now = Acceptance { round, at: Instant::now() };
        if let Some(earlier) = self.accepted[trigger].insert(id, now) {
            self.duplicates[trigger] += 1;
            self.judge_repeat(trigger, id, earlier, round);
        }
        StatusCode::OK
    }

    fn judge_repeat(&mut self, trigger: usize, id: EventId, earlier: Acceptance, round: usize) {
        let what = format!("{} got {id} again in round {round}", TRIGGERS[trigger]);
        if earlier.round >= round {
            return self.violation(format!("{what}, accepted in round {}", earlier.round));
        }
        match self.ends[earlier.round] {
            End::Stopped => {
                self.violation(format!("{what}, accepted in round {}, which ended cleanly", earlier.round));
            }
            End::Crashed(at) => {
                let gap = at.saturating_duration_since(earlier.at);
                self.longest_gap = self.longest_gap.max(gap);
                if gap > REPEAT_WINDOW {
                    let round = earlier.round;
                    self.violation(format!("{what}, accepted {gap:?} before the crash of round {round}"));
                }
            }
        }
    }

    /// Takes note of dead letters that the broker lists.
    pub fn bury(&mut self, letters: &[Value]) {
        for letter in letters {
            let id = letter["event"]["id"].as_str().and_then(|text| text.parse::<EventId>().ok());
            match id {
                Some(id)
                    if id.is_refused() && letter["reason"] == "rejected" && letter["trigger"] == "flaky" =>
                {
                    self.dead.insert(id);
                }
                _ => self.violation(format!("an unexpected dead letter: {letter}")),
            }
        }
    }

    /// Acknowledged is delivered or dead, for each trigger.
    pub fn balance(&mut self) {
        let mut missing: [BTreeMap<u64, EventId>; 2] = [BTreeMap::new(), BTreeMap::new()];
        for (id, offset) in &self.acknowledged {
            if !self.accepted[0].contains_key(id) {
                missing[0].insert(*offset, *id);
            }
            let is_settled = self.accepted[FLAKY].contains_key(id) || self.dead.contains(id);
            if id.is_of_type_a() && !is_settled {
                missing[FLAKY].insert(*offset, *id);
            }
        }
        for (trigger, lost) in TRIGGERS.iter().zip(missing) {
            if !lost.is_empty() {
                let shown: Vec<_> = lost.iter().take(5).collect();
                let count = lost.len();
                self.violation(format!(
                    "{count} acknowledged events never came to {trigger}, at offsets {shown:?}"
                ));
            }
        }
        let both: BTreeSet<_> = self.dead.iter().filter(|id| self.accepted[FLAKY].contains_key(id)).collect();
        if !both.is_empty() {
            self.violation(format!("{} events were accepted and are dead letters", both.len()));
        }
    }

    /// What there is to say, as an error when anything was violated.
    pub fn verdict(&mut self) -> Result<String, String> {
        self.recovery.sort_unstable();
        let recovery = &self.recovery;
        let at =
            |part: usize| recovery.get((recovery.len() * part / 100).min(recovery.len().saturating_sub(1)));
        let report = format!(
            "{} rounds; {} events sent, {} acknowledged, {} requests refused, {} unanswered, {} acknowledged without power; duplicates: {} at \
             `fine`, {} at `flaky`, the oldest accepted {:?} before its crash; {} dead letters; start to ready: \
             median {:?}, longest {:?}",
            self.ends.len(),
            self.sent.iter().sum::<u32>(),
            self.acknowledged.len(),
            self.refused,
            self.unanswered,
            self.withdrawn,
            self.duplicates[0],
            self.duplicates[1],
            self.longest_gap,
            self.dead.len(),
            at(50).copied().unwrap_or_default(),
            at(100).copied().unwrap_or_default(),
        );
        if self.violation_count == 0 {
            return Ok(report);
        }
        Err(format!("{report}\n{} violations:\n{}", self.violation_count, self.violations.join("\n")))
    }
}

/// The books of every trigger, each balanced; or what is wrong with them.
pub async fn books(admin: SocketAddr) -> Result<BTreeMap<String, Books>, String> {
    let list = wire::get(admin, "/api/v1/triggers").await;
    let mut all = BTreeMap::new();
    for item in list["items"].as_array().into_iter().flatten() {
        let number = |name: &str| item[name].as_u64().unwrap_or(u64::MAX >> 8);
        let books = Books {
            seen: number("seen"),
            matched: number("matched"),
            delivered: number("delivered"),
            dead: number("dead"),
            purged: number("purged"),
            pending: number("pending"),
        };
        let is_balanced = books.seen == books.matched + number("unmatched") + number("lost")
            && books.matched == books.delivered + books.dead + books.purged + books.pending
            && number("lost") == 0;
        if !is_balanced {
            return Err(format!("books do not balance: {item}"));
        }
        all.insert(item["name"].as_str().unwrap_or_default().to_owned(), books);
    }
    Ok(all)
}

#[derive(Clone, Copy, Debug)]
pub struct Books {
    pub seen: u64,
    pub matched: u64,
    pub delivered: u64,
    pub dead: u64,
    pub purged: u64,
    pub pending: u64,
}

/// All dead letters of a trigger.
pub async fn dead_letters(admin: SocketAddr, trigger: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/dead-letters?trigger={trigger}&limit=5000{cursor}");
        let page = wire::get(admin, &path).await;
        all.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// Purges these dead letters; true when the broker said it did.
pub async fn purge(admin: SocketAddr, letters: &[Value]) -> bool {
    let ids: Vec<&Value> = letters.iter().map(|letter| &letter["id"]).collect();
    let answer = wire::call(admin, "POST", "/api/v1/dead-letters/purge", &json!({ "ids": ids })).await;
    answer.is_ok_and(|answer| answer.status == StatusCode::OK)
}
