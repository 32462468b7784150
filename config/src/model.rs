//! The configuration in usable form: defaults filled in, references expanded, everything in range.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sluice_language::transform::Transform;
use sluice_language::{Filter, Schedule};

use crate::place::Places;

/// What a segment has room for besides.
const SEGMENT_OVERHEAD: u64 = 1 << 20;

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
    pub sources: BTreeMap<String, Source>,
    pub triggers: BTreeMap<String, Trigger>,
}

impl Config {
    /// The size that segments have: what is stored at once fits in half of one.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        let (_, bytes) = self.largest_append();
        self.store.segment_bytes.max(bytes as u64 * 2 + SEGMENT_OVERHEAD)
    }

    /// What may be stored at once at the most, and the key that says so: a source may take larger events than `/events`
    /// takes batches.
    pub(crate) fn largest_append(&self) -> (String, usize) {
        let limits = self.limits;
        let aside = if self.sources.is_empty() { 0 } else { limits.put_aside_bytes };
        let own = [
            ("limits.event_bytes", limits.event_bytes),
            ("limits.batch_bytes", limits.batch_bytes),
            ("limits.put_aside_bytes", aside),
        ];
        let of_sources = self
            .sources
            .iter()
            .map(|(name, source)| (format!("sources.{name}.event_bytes"), source.event_bytes));
        let all = own.into_iter().map(|(key, bytes)| (key.to_owned(), bytes)).chain(of_sources);
        all.max_by_key(|(_, bytes)| *bytes).unwrap_or_default()
    }
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
    /// What the sink gets instead of the event.
    pub transform: Option<Transform>,
    pub sink: Sink,
    pub delivery: Delivery,
    pub dead_letter: Option<Sink>,
    pub start: Start,
    pub places: Places,
}

/// What brings events in from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub kind: SourceKind,
    /// What a record that is no CloudEvent becomes, field by field in the order of the file: JSON whose strings may be templates.
    pub event: Vec<(String, serde_json::Value)>,
    /// Larger events are refused.
    pub event_bytes: usize,
    pub oversize: Oversize,
}

/// What happens with a record that is put aside and larger than `limits.put_aside_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oversize {
    /// The source is down until the record is gone.
    Stop,
    Truncate,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SourceKind {
    Kafka(KafkaSource),
    Amqp(AmqpSource),
    Nats(NatsSource),
    Webhook(WebhookSource),
    Git(GitSource),
    Cron(CronSource),
}

impl SourceKind {
    /// The key of the file format.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kafka(_) => "kafka",
            Self::Amqp(_) => "amqp",
            Self::Nats(_) => "nats",
            Self::Webhook(_) => "webhook",
            Self::Git(_) => "git",
            Self::Cron(_) => "cron",
        }
    }
}

/// How a client of Kafka reaches its cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaClient {
    pub brokers: Vec<String>,
    /// `None` is without TLS.
    pub tls: Option<Tls>,
    pub sasl: Option<Sasl>,
    /// librdkafka's own; none of those that Sluice sets itself.
    pub properties: Vec<(String, Secret)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sasl {
    pub mechanism: String,
    pub username: String,
    pub password: Secret,
}

#[derive(Clone, Debug, PartialEq)]
pub struct KafkaSource {
    pub client: KafkaClient,
    pub topics: Topics,
    pub group: String,
    /// Where a group without committed offsets begins.
    pub start: KafkaStart,
    pub key: KafkaKey,
    /// Static membership (KIP-345).
    pub instance: Option<String>,
    pub session_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topics {
    Listed(Vec<String>),
    /// A regular expression over whole names, as librdkafka reads it, without the leading `^`.
    Pattern(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaStart {
    Earliest,
    Latest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaKey {
    /// A key that is UTF-8 becomes `partitionkey` where the event has none.
    PartitionKey,
    Ignore,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AmqpSource {
    /// `amqp` or `amqps`; may hold a password.
    pub url: Secret,
    pub queue: String,
    /// `None`: the queue exists.
    pub declare: Option<Declare>,
    pub prefetch: u16,
    pub heartbeat: Duration,
    pub tls: Tls,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Declare {
    pub durable: bool,
    pub arguments: Vec<(String, serde_json::Value)>,
    pub bind: Vec<Binding>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub exchange: String,
    pub routing_key: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NatsClient {
    /// May hold passwords or tokens.
    pub servers: Vec<Secret>,
    pub credentials: Option<PathBuf>,
    /// `None` is without TLS, unless a URL says `tls://`.
    pub tls: Option<Tls>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NatsSource {
    pub client: NatsClient,
    pub from: NatsFrom,
}

#[derive(Clone, Debug, PartialEq)]
pub enum NatsFrom {
    /// A durable pull consumer.
    JetStream { stream: String, consumer: String, filter_subjects: Vec<String>, idle_heartbeat: Duration },
    /// Core NATS, which loses what comes while nobody listens.
    Core { subjects: Vec<String>, queue_group: Option<String> },
}

#[derive(Clone, Debug, PartialEq)]
pub struct WebhookSource {
    /// `None` only where the file says `insecure: true`.
    pub verify: Option<Verify>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Verify {
    pub scheme: Scheme,
    /// Any of them is right. At least one.
    pub secrets: Vec<Secret>,
    /// How far a signed time may be from now, both ways.
    pub tolerance: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Scheme {
    Github,
    Gitlab,
    Stripe,
    Slack,
    Shopify,
    StandardWebhooks,
    Svix,
    Hmac(Hmac),
    /// The secret itself, in a header or a query parameter.
    Token(TokenPlace),
    Basic {
        username: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hmac {
    pub algorithm: HmacAlgorithm,
    /// In lower case.
    pub header: String,
    pub encoding: HmacEncoding,
    /// What stands before the digest.
    pub prefix: String,
    /// `{body}` and `{timestamp}` stand for what their names say.
    pub signed: String,
    pub timestamp_header: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacAlgorithm {
    Sha1,
    Sha256,
    Sha512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacEncoding {
    Hex,
    Base64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// In lower case.
    Header(String),
    Query(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct GitSource {
    pub provider: GitProvider,
    /// Any of them is right; empty only where the file says `insecure: true`.
    pub secrets: Vec<Secret>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GitProvider {
    Auto,
    Github,
    Gitlab,
    Gitea,
    Forgejo,
    Gogs,
    Bitbucket,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronSource {
    pub when: CronWhen,
    /// Of the IANA database.
    pub timezone: jiff::tz::TimeZone,
    pub catch_up: CatchUp,
    pub catch_up_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CronWhen {
    Schedule(Schedule),
    /// Once: milliseconds since 1970-01-01T00:00:00Z.
    At(i64),
}

/// Which ticks that passed while the broker was down are made up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchUp {
    Skip,
    Latest,
    All,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Sink {
    Http(HttpSink),
    Stdout,
    Kafka(KafkaSink),
    Amqp(AmqpSink),
    Nats(NatsSink),
}

/// `topic` and `key` are templates.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaSink {
    pub client: KafkaClient,
    pub topic: String,
    /// `None` is the event's `partitionkey`.
    pub key: Option<String>,
    pub mode: Mode,
}

/// `routing_key` is a template.
#[derive(Clone, Debug, PartialEq)]
pub struct AmqpSink {
    pub url: Secret,
    pub exchange: String,
    pub routing_key: String,
    pub mode: Mode,
    pub persistent: bool,
    pub tls: Tls,
}

/// `subject` is a template.
#[derive(Clone, Debug, PartialEq)]
pub struct NatsSink {
    pub client: NatsClient,
    pub subject: String,
    pub mode: Mode,
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
