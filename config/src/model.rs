//! The configuration in usable form: defaults filled in, references expanded, everything in range.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A whole configuration, as it is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub http: Http,
    pub admin: Admin,
    pub store: Store,
    pub limits: Limits,
    /// `None` when duplicates are not looked for.
    pub duplicates: Option<Duplicates>,
    /// How long a dead letter is kept; `None` is for ever.
    pub dead_letters_age: Option<Duration>,
    pub shutdown_timeout: Duration,
    pub triggers: BTreeMap<String, Trigger>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    pub listen: SocketAddr,
    /// DNS names that get consent in the webhook handshake, in lower case.
    pub webhook_origins: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    pub listen: SocketAddr,
    /// Further values of `Host` that writing calls may carry.
    pub hosts: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    pub dir: PathBuf,
    pub retention_age: Duration,
    pub retention_bytes: u64,
    pub segment_bytes: u64,
    pub watermark: Watermark,
    /// Outstanding deliveries held in memory, all triggers together.
    pub outstanding: usize,
    pub on_damage: OnDamage,
    pub removed_grace: Duration,
}

/// When intake stops and when it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watermark {
    /// Shares of `retention_bytes` in percent.
    pub stop_percent: u8,
    pub resume_percent: u8,
    /// What the file system must have free besides the reserve.
    pub free_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    Refuse,
    Skip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub event_bytes: usize,
    pub batch_bytes: usize,
    pub in_flight_bytes: usize,
    pub connections: usize,
    pub hops: u32,
    pub put_aside_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicates {
    pub window: Duration,
    pub entries: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// Entry points the trigger is limited to: names of sources, `http`, `reply`.
    pub sources: Option<Vec<String>>,
    /// All must hold.
    pub filters: Vec<Filter>,
    pub sink: Sink,
    pub delivery: Delivery,
    pub dead_letter: Option<Sink>,
    pub start: Start,
}

/// A filter of the CloudEvents Subscriptions API (section 3.2.4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    Exact(Vec<(String, String)>),
    Prefix(Vec<(String, String)>),
    Suffix(Vec<(String, String)>),
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Sink {
    Http(HttpSink),
    Stdout,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HttpSink {
    /// `http` or `https`, with a host, without user information and fragment.
    pub url: String,
    pub mode: Mode,
    /// Sent with every delivery. Names are valid and in lower case, values are valid.
    pub headers: Vec<(String, Secret)>,
    pub tls: Tls,
    pub allow_link_local: bool,
}

impl HttpSink {
    /// The URL for logs and listings: without its query, which may hold a token.
    pub fn shown_url(&self) -> String {
        match self.url.split_once('?') {
            Some((path, _)) => format!("{path}?[hidden]"),
            None => self.url.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Binary,
    Structured,
}

/// Files in PEM form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// Text that is never shown: not in logs, not by `config show`, not by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    pub retry: Retry,
    pub backoff: Backoff,
    pub backoff_delay: Duration,
    pub backoff_max: Duration,
    pub max_age: Duration,
    /// One attempt, its answer included.
    pub timeout: Duration,
    pub concurrency: usize,
    pub rate: Option<Rate>,
    pub order: Order,
    pub reply: Reply,
    /// Statuses that are retried besides those that always are.
    pub retry_on: Vec<u16>,
}

/// Further attempts after the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Unlimited,
    AtMost(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backoff {
    Exponential,
    Linear,
    Constant,
}

/// A bucket of one second's worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub per_second: f64,
}

/// One in flight per key, in log order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    None,
    /// An attribute by name (`partitionkey`, `subject`, `source` or an extension).
    Attribute(String),
    /// `{data.a.b}`: a path into JSON data.
    Data(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Lenient,
    Strict,
    Ignore,
}

/// Where a trigger begins when its name is first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Latest,
    Earliest,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    At(i64),
}
