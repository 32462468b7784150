//! A member of a consumer group.
//!
//! Offsets are stored for the commit only when everything up to them is on disk (`enable.auto.offset.store=false`), and only
//! for partitions that are still ours under the assignment that the record came in. What waits when a partition goes is
//! forgotten; what is being stored may then be received twice, and is a duplicate. While the store has no room the partitions
//! are paused and polling goes on, so that the group keeps its member.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Headers as _, Message, Timestamp};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use sluice_config::{self as config, KafkaStart, Topics};
use sluice_schemas::Event;
use tokio::time::{Instant, sleep_until};

use super::client;
use crate::feed::Feed;
use crate::{Context, Down, Health, Mapping, Record, Report, Source, Unfit};

/// So long a batch may take before the partitions are paused.
const PAUSE_AFTER: Duration = Duration::from_secs(2);
/// For leaving the group; then it goes without.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// Records taken in a row before anything else gets a turn.
const TURN: usize = 256;

pub struct KafkaSource {
    config: config::KafkaSource,
    mapping: Mapping,
}

impl KafkaSource {
    /// Connects to nothing. The error names a property that librdkafka does not take.
    pub fn open(config: config::KafkaSource, mapping: Mapping) -> Result<Self, String> {
        let source = Self { config, mapping };
        client::check(&source.consumer_config())?;
        Ok(source)
    }

    /// What a record becomes under the present configuration.
    pub fn to_event(&self, record: &Record) -> Result<Event, Unfit> {
        super::to_event(record, &self.mapping, self.config.key)
    }
}

impl Source for KafkaSource {
    fn run(&self, context: Context) -> Pin<Box<dyn Future<Output = Result<(), Down>> + Send + '_>> {
        Box::pin(async move {
            let consumer = self.subscribe(&context).map_err(|error| self.down(&error.to_string()))?;
            let session = Session {
                source: self,
                feed: Feed::new(&context),
                context,
                consumer: Arc::new(consumer),
                is_paused: false,
            };
            session.run().await
        })
    }
}

impl KafkaSource {
    fn subscribe(&self, context: &Context) -> KafkaResult<StreamConsumer<Watch>> {
        let watch = Watch { health: context.health.clone(), state: Mutex::default() };
        let consumer: StreamConsumer<Watch> = self.consumer_config().create_with_context(watch)?;
        match &self.config.topics {
            Topics::Listed(topics) => {
                consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
            }
            Topics::Pattern(pattern) => consumer.subscribe(&[&format!("^{pattern}")])?,
        }
        Ok(consumer)
    }

    fn consumer_config(&self) -> ClientConfig {
        let config = &self.config;
        let mut configured = client::configure(&config.client);
        // The client asks the crate `log`, which knows nothing of what is wanted here, and would say errors only.
        configured.set_log_level(RDKafkaLogLevel::Info);
        let session_ms = config.session_timeout.as_millis();
        configured
            .set("group.id", &config.group)
            .set("session.timeout.ms", session_ms.to_string())
            .set("heartbeat.interval.ms", (session_ms / 3).clamp(1, 3000).to_string())
            .set(
                "auto.offset.reset",
                match config.start {
                    KafkaStart::Earliest => "earliest",
                    KafkaStart::Latest => "latest",
                },
            )
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            .set("allow.auto.create.topics", "false")
            // New topics that match a pattern are found with it.
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("check.crcs", "true");
        client::set_default(&mut configured, "queued.max.messages.kbytes", "16384");
        // With a full queue librdkafka looks again after a second, which would be one queue a second at most.
        client::set_default(&mut configured, "fetch.queue.backoff.ms", "10");
        client::set_default(&mut configured, "fetch.wait.max.ms", "100");
        if let Some(instance) = &config.instance {
            configured.set("group.instance.id", instance);
        }
        configured
    }

    fn down(&self, what: &str) -> Down {
        Down::because(format!("kafka {}: {what}", self.config.client.brokers.join(",")))
    }
}

/// One consumer, from its subscription to its end.
struct Session<'a> {
    source: &'a KafkaSource,
    context: Context,
    consumer: Arc<StreamConsumer<Watch>>,
    feed: Feed<Place>,
    is_paused: bool,
}

/// Where a record is acknowledged.
#[derive(Clone, Debug)]
struct Place {
    partition: Partition,
    offset: i64,
    /// The assignment it came in.
    epoch: u64,
}

type Partition = (Arc<str>, i32);

impl Session<'_> {
    async fn run(mut self) -> Result<(), Down> {
        let ended = self.receive().await;
        let finished = self.feed.finish().await;
        if let Ok(Some(places)) = &finished {
            self.settle(places);
        }
        self.close().await;
        ended.and(finished.map(drop))
    }

    async fn receive(&mut self) -> Result<(), Down> {
        let mut stop = self.context.stop.clone();
        let consumer = Arc::clone(&self.consumer);
        loop {
            let pause_at = self.feed.storing_since().map(|since| since + PAUSE_AFTER);
            let may_take = self.is_paused || !self.feed.is_full();
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                stored = self.feed.stored() => {
                    let Some(places) = stored? else { return Ok(()) };
                    self.settle(&places);
                    self.resume()?;
                }
                () = sleep_until(pause_at.unwrap_or_else(Instant::now)), if pause_at.is_some() && !self.is_paused => {
                    self.pause()?;
                }
                received = consumer.recv(), if may_take => {
                    self.take(received)?;
                    self.take_more(&consumer)?;
                }
            }
            let state = consumer.context().state();
            if state.has_lost {
                self.feed.retain(|place| state.is_ours(place));
            }
            drop(state);
            consumer.context().state().has_lost = false;
        }
    }

    /// What is there already.
    fn take_more(&mut self, consumer: &StreamConsumer<Watch>) -> Result<(), Down> {
        for _ in 0..TURN {
            if self.feed.is_full() {
                break;
            }
            let Some(received) = consumer.recv().now_or_never() else { break };
            self.take(received)?;
        }
        Ok(())
    }

    fn take<M: Message>(&mut self, received: KafkaResult<M>) -> Result<(), Down> {
        let message = match received {
            Ok(message) => message,
            Err(error) => return self.judge(&error),
        };
        let record = record_of(&message);
        let partition: Partition = (message.topic().into(), message.partition());
        let epoch = self.consumer.context().state().ours.get(&partition).copied();
        // Left over from a partition that has gone.
        let Some(epoch) = epoch else { return Ok(()) };
        let made = self.source.to_event(&record);
        self.feed.push(record, made, Place { partition, offset: message.offset(), epoch });
        Ok(())
    }

    /// Ends the session, unless librdkafka gets over the error by itself.
    fn judge(&self, error: &KafkaError) -> Result<(), Down> {
        let said = self.consumer.context().state().last_error.take();
        let passes = matches!(
            error,
            KafkaError::MessageConsumption(
                Code::BrokerTransportFailure
                    | Code::OperationTimedOut
                    | Code::Resolve
                    | Code::AutoOffsetReset
            )
        );
        let text = match (said, error.rdkafka_error_code()) {
            (Some(said), _) => said,
            (None, Some(code)) => code.to_string(),
            (None, None) => error.to_string(),
        };
        if passes {
            tracing::warn!(source = &*self.context.name, "kafka: {text}");
            self.consumer.context().state().last_error = Some(text);
            return Ok(());
        }
        Err(self.source.down(&text))
    }

    /// Stores the offsets behind these records for the next commit.
    fn settle(&mut self, places: &[Place]) {
        let mut next: HashMap<&Partition, i64> = HashMap::new();
        {
            let state = self.consumer.context().state();
            for place in places.iter().filter(|place| state.is_ours(place)) {
                next.insert(&place.partition, place.offset + 1);
            }
        }
        let mut offsets = TopicPartitionList::new();
        for ((topic, partition), offset) in next {
            // Offsets of records are never out of range.
            let _ = offsets.add_partition_offset(topic, *partition, Offset::Offset(offset));
        }
        if offsets.count() > 0
            && let Err(error) = self.consumer.store_offsets(&offsets)
        {
            // Nothing is lost: the records come again, and are duplicates then.
            tracing::warn!(source = &*self.context.name, %error, "kafka: offsets were not stored for the commit");
        }
    }

    fn pause(&mut self) -> Result<(), Down> {
        self.is_paused = true;
        self.consumer.context().state().is_paused = true;
        let paused = self.consumer.assignment().and_then(|partitions| self.consumer.pause(&partitions));
        paused.map_err(|error| self.source.down(&error.to_string()))
    }

    fn resume(&mut self) -> Result<(), Down> {
        if !std::mem::take(&mut self.is_paused) {
            return Ok(());
        }
        self.consumer.context().state().is_paused = false;
        let resumed = self.consumer.assignment().and_then(|partitions| self.consumer.resume(&partitions));
        resumed.map_err(|error| self.source.down(&error.to_string()))
    }

    /// Commits what is stored and leaves the group.
    async fn close(self) {
        let Self { consumer, .. } = self;
        let close = move || {
            // Nothing to commit is an error, too; one that matters means duplicates only.
            drop(consumer.commit_consumer_state(CommitMode::Sync));
            drop(consumer);
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "closing a consumer blocks, and there is one for each run of a source"
        )]
        let closing = tokio::task::spawn_blocking(close);
        drop(tokio::time::timeout(CLOSE_MAX, closing).await);
    }
}

fn record_of(message: &impl Message) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        // A header without a value is an absent attribute.
        let with_value = |header: rdkafka::message::Header<'_, &[u8]>| {
            header.value.map(|value| (header.key.to_owned(), Bytes::copy_from_slice(value)))
        };
        headers.iter().filter_map(with_value).collect()
    });
    let time_ms = match message.timestamp() {
        Timestamp::NotAvailable => None,
        Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => Some(ms),
    };
    Record {
        position: format!("{}/{}/{}", message.topic(), message.partition(), message.offset()),
        topic: Some(message.topic().to_owned()),
        subject: None,
        key: message.key().map(Bytes::copy_from_slice),
        time_ms,
        headers,
        body: message.payload().map(Bytes::copy_from_slice),
    }
}

/// What librdkafka tells, from within a poll.
struct Watch {
    health: Health,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The partitions that are ours, each with the number of the assignment that made it so.
    ours: HashMap<Partition, u64>,
    epoch: u64,
    has_lost: bool,
    is_paused: bool,
    last_error: Option<String>,
}

impl State {
    fn is_ours(&self, place: &Place) -> bool {
        self.ours.get(&place.partition) == Some(&place.epoch)
    }
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // Records between where the group was and where it goes on are passed over: somebody should know.
        if facility == "OFFSET" && matches!(level, RDKafkaLogLevel::Warning) {
            tracing::warn!(facility, "librdkafka: {text}");
            return;
        }
        tracing::debug!(facility, "librdkafka: {text}");
    }

    fn error(&self, _: KafkaError, reason: &str) {
        let mut state = self.state();
        // That all are down says less than why the last one went.
        if !(reason.ends_with("brokers are down") && state.last_error.is_some()) {
            state.last_error = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Watch {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(partitions) = rebalance else { return };
        let mut state = self.state();
        for partition in partitions.elements() {
            state.ours.remove(&(partition.topic().into(), partition.partition()));
        }
        state.has_lost = true;
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Assign(partitions) = rebalance else { return };
        let is_paused = {
            let mut state = self.state();
            state.epoch += 1;
            let epoch = state.epoch;
            for partition in partitions.elements() {
                state.ours.insert((partition.topic().into(), partition.partition()), epoch);
            }
            state.last_error = None;
            state.is_paused
        };
        if is_paused {
            drop(consumer.pause(partitions));
        } else {
            self.health.tell(Report::Up);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        match result {
            Ok(()) => {
                for partition in offsets.elements() {
                    if let Offset::Offset(next) = partition.offset() {
                        let position =
                            format!("{}/{}/{}", partition.topic(), partition.partition(), next - 1);
                        self.health.tell(Report::Position(position));
                    }
                }
            }
            // It is tried again with the next; until then a restart means duplicates.
            Err(error) => tracing::warn!(%error, "kafka: a commit failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use config::{Source as Configured, SourceKind, check_text};

    use super::*;

    fn settings(more: &str, names: &[&str]) -> String {
        let yaml = format!(
            "sources: {{ s: {{ kafka: {{ brokers: [\"k:9092\"], topics: [t], group: g{more} }} }} }}\n"
        );
        let loaded = check_text("s.yaml", &yaml, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
        let source: &Configured = &loaded.config.sources["s"];
        let SourceKind::Kafka(kafka) = &source.kind else { panic!("no source of Kafka") };
        let mapping = Mapping::compile("s", source).unwrap();
        let configured = match KafkaSource::open(kafka.clone(), mapping) {
            Ok(source) => source.consumer_config(),
            Err(why) => return why,
        };
        let value = |name: &&str| format!("{name}={}", configured.get(name).unwrap_or("-"));
        names.iter().map(value).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_decides_safety_is_set() {
        let names =
            ["enable.auto.offset.store", "auto.offset.reset", "check.crcs", "allow.auto.create.topics"];
        assert_eq!(
            settings("", &names),
            "enable.auto.offset.store=false auto.offset.reset=earliest check.crcs=true allow.auto.create.topics=false"
        );
        assert_eq!(settings(", start: latest", &names[1..2]), "auto.offset.reset=latest");
        // What is said nothing about is librdkafka's own: aborted transactions are not read.
        assert_eq!(
            settings("", &["isolation.level", "group.instance.id"]),
            "isolation.level=- group.instance.id=-"
        );
    }

    #[test]
    fn a_full_queue_is_looked_at_again_soon() {
        assert_eq!(settings("", &["fetch.queue.backoff.ms"]), "fetch.queue.backoff.ms=10");
        let more = ", properties: { \"fetch.queue.backoff.ms\": \"50\" }";
        assert_eq!(settings(more, &["fetch.queue.backoff.ms"]), "fetch.queue.backoff.ms=50");
    }

    #[test]
    fn a_property_that_librdkafka_does_not_take_is_found_at_once() {
        let of = |property: &str| settings(&format!(", properties: {{ {property} }}"), &[]);
        assert_eq!(
            of("\"no.such\": \"s3cret\""),
            "property `no.such`: No such configuration property: \"no.such\""
        );
        let out_of_range = of("\"fetch.wait.max.ms\": \"-7\"");
        assert!(out_of_range.starts_with("property `fetch.wait.max.ms`: "), "{out_of_range}");
    }

    #[test]
    fn what_the_file_says_reaches_the_client() {
        let more = ", instance: one, session_timeout: 6s, properties: { \"fetch.wait.max.ms\": \"7\", \"socket.timeout.ms\": \"8000\" }";
        let names = [
            "group.instance.id",
            "session.timeout.ms",
            "heartbeat.interval.ms",
            "fetch.wait.max.ms",
            "socket.timeout.ms",
        ];
        assert_eq!(
            settings(more, &names),
            "group.instance.id=one session.timeout.ms=6000 heartbeat.interval.ms=2000 fetch.wait.max.ms=7 socket.timeout.ms=8000"
        );
        let secured = ", tls: true, sasl: { mechanism: SCRAM-SHA-256, username: u, password: p }";
        assert_eq!(
            settings(secured, &["security.protocol", "ssl.ca.location", "sasl.mechanism"]),
            "security.protocol=sasl_ssl ssl.ca.location=probe sasl.mechanism=SCRAM-SHA-256"
        );
    }
}
