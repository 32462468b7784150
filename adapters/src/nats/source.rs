//! A durable pull consumer of JetStream, or subjects of core NATS.
//!
//! A message is acknowledged with an answer from the server (double ack) once it is on disk. While the store has no room the
//! server is told that work goes on, so that nothing is delivered again; what could not be told of is not asked for. A watchdog
//! ends the session when the server's heartbeats stay away; the supervisor makes a new one.

use std::collections::VecDeque;
use std::fmt::Display;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::message::Acker;
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, AckKind};
use async_nats::{HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, SelectAll, StreamExt as _};
use sluice_config::{self as config, NatsFrom};
use sluice_schemas::Event;
use tokio::time::interval;

use super::audit::may_lose;
use super::client::{self, Connection};
use super::pull::Pull;
use crate::feed::{Feed, Room};
use crate::{Context, Down, Mapping, Record, Report, Source, Unfit};

/// Of a consumer that is created: unacknowledged messages at most, and for how long.
const ACK_PENDING_MAX: i64 = 2048;
const ACK_WAIT: Duration = Duration::from_secs(30);

pub struct NatsSource {
    config: config::NatsSource,
    mapping: Mapping,
}

impl NatsSource {
    pub fn new(config: config::NatsSource, mapping: Mapping) -> Self {
        Self { config, mapping }
    }

    /// What a record becomes under the present configuration.
    pub fn to_event(&self, record: &Record) -> Result<Event, Unfit> {
        super::to_event(record, &self.mapping)
    }

    fn down(&self, what: &str) -> Down {
        Down::because(format!("nats {}: {what}", client::shown(&self.config.client)))
    }
}

impl Source for NatsSource {
    fn run(&self, context: Context) -> Pin<Box<dyn Future<Output = Result<(), Down>> + Send + '_>> {
        Box::pin(async move {
            let connection = client::connect(&self.config.client).await.map_err(|error| self.down(&error))?;
            let (messages, ack_wait) =
                self.subscribe(&connection).await.map_err(|error| self.down(&error))?;
            context.health.tell(Report::Up);
            let session =
                Session { source: self, feed: Feed::new(&context), context, unsettled: VecDeque::new() };
            session.run(connection, messages, ack_wait).await
        })
    }
}

/// A message, and how to acknowledge it where that can be done.
struct Received {
    message: Message,
    /// Its place in the stream, and the acknowledgement; core NATS has none.
    ack: Option<(u64, Acker)>,
}

enum Messages {
    JetStream(Box<Pull>),
    Core(SelectAll<Subscriber>),
}

impl Messages {
    async fn next(&mut self, room: Room) -> Result<Received, String> {
        match self {
            Self::JetStream(pull) => {
                let message = pull.next(room).await?;
                let sequence = message.info().map_err(|error| error.to_string())?.stream_sequence;
                let (message, acker) = message.split();
                Ok(Received { message, ack: Some((sequence, acker)) })
            }
            Self::Core(_) if room.is_none() => pending().await,
            Self::Core(subscribers) => match subscribers.next().await {
                Some(message) => Ok(Received { message, ack: None }),
                None => Err("the server ended the subscription".into()),
            },
        }
    }
}

impl NatsSource {
    /// The messages, and how long one may be unacknowledged.
    async fn subscribe(&self, connection: &Connection) -> Result<(Messages, Option<Duration>), String> {
        match &self.config.from {
            NatsFrom::JetStream { stream, consumer, filter_subjects, idle_heartbeat } => {
                let context = jetstream::new(connection.client.clone());
                let kept = context.get_stream(stream).await;
                let kept = kept.map_err(|error| format!("stream `{stream}`: {error}"))?;
                let found = durable(&kept, stream, consumer, filter_subjects).await?;
                let settings = &found.cached_info().config;
                if let Some(why) = may_lose(&kept.cached_info().config, settings.max_deliver) {
                    let source = &self.mapping.name;
                    tracing::warn!(
                        source,
                        stream,
                        consumer,
                        "messages may be lost before they are read: {why}"
                    );
                }
                let ack_wait = settings.ack_wait;
                let opened = Pull::open(found, context, *idle_heartbeat).await;
                let pull = opened.map_err(|error| of_consumer(stream, consumer, &error))?;
                Ok((Messages::JetStream(Box::new(pull)), Some(ack_wait)))
            }
            NatsFrom::Core { subjects, queue_group } => {
                let mut all = Vec::with_capacity(subjects.len());
                for subject in subjects {
                    let subscribed = match queue_group {
                        Some(group) => {
                            connection.client.queue_subscribe(subject.clone(), group.clone()).await
                        }
                        None => connection.client.subscribe(subject.clone()).await,
                    };
                    all.push(subscribed.map_err(|error| format!("subject `{subject}`: {error}"))?);
                }
                Ok((Messages::Core(stream::select_all(all)), None))
            }
        }
    }
}

fn of_consumer(stream: &str, consumer: &str, error: &dyn Display) -> String {
    format!("consumer `{consumer}` of stream `{stream}`: {error}")
}

/// The consumer of this name: as it is if it can be used, else created.
async fn durable(
    found: &Stream,
    stream: &str,
    consumer: &str,
    filter_subjects: &[String],
) -> Result<consumer::Consumer<pull::Config>, String> {
    match found.consumer_info(consumer).await {
        Ok(info) => {
            let wrong = match &info.config {
                config if config.deliver_subject.is_some() => {
                    Some("is a push consumer, and a pull consumer is needed")
                }
                config if config.durable_name.is_none() => Some("is not durable"),
                config if config.ack_policy != AckPolicy::Explicit => {
                    Some("has no explicit acknowledgements")
                }
                _ => None,
            };
            if let Some(wrong) = wrong {
                return Err(format!("consumer `{consumer}` of stream `{stream}` {wrong}"));
            }
            found
                .get_consumer(consumer)
                .await
                .map_err(|error| format!("consumer `{consumer}` of stream `{stream}`: {error}"))
        }
        Err(error) if error.kind() == jetstream::context::ConsumerInfoErrorKind::NotFound => {
            let config = pull::Config {
                durable_name: Some(consumer.to_owned()),
                deliver_policy: DeliverPolicy::All,
                ack_policy: AckPolicy::Explicit,
                ack_wait: ACK_WAIT,
                max_deliver: -1,
                max_ack_pending: ACK_PENDING_MAX,
                filter_subjects: filter_subjects.to_vec(),
                ..pull::Config::default()
            };
            found.create_consumer(config).await.map_err(|error| of_consumer(stream, consumer, &error))
        }
        Err(error) => Err(of_consumer(stream, consumer, &error)),
    }
}

/// One connection, from its first message to its end.
struct Session<'a> {
    source: &'a NatsSource,
    context: Context,
    feed: Feed<Option<Arc<Place>>>,
    /// What is not acknowledged yet, in received order.
    unsettled: VecDeque<Arc<Place>>,
}

struct Place {
    position: String,
    acker: Acker,
}

impl Session<'_> {
    async fn run(
        mut self,
        mut connection: Connection,
        messages: Messages,
        ack_wait: Option<Duration>,
    ) -> Result<(), Down> {
        let ended = self.receive(&mut connection, messages, ack_wait).await;
        if let Some(places) = self.feed.finish().await? {
            self.settle(places).await?;
        }
        ended
    }

    async fn receive(
        &mut self,
        connection: &mut Connection,
        mut messages: Messages,
        ack_wait: Option<Duration>,
    ) -> Result<(), Down> {
        let mut stop = self.context.stop.clone();
        let mut alive = ack_wait.map(|wait| interval((wait / 3).max(Duration::from_millis(100))));
        let mut made_up = 0;
        loop {
            let room = self.feed.room();
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                why = connection.is_lost() => return Err(self.source.down(&why)),
                () = tick(&mut alive) => self.keep_alive().await,
                stored = self.feed.stored() => {
                    let Some(places) = stored? else { return Ok(()) };
                    self.settle(places).await?;
                }
                received = messages.next(room) => {
                    made_up += 1;
                    self.take(received.map_err(|error| self.of_pull(&error))?, made_up);
                }
            }
        }
    }

    fn of_pull(&self, error: &str) -> Down {
        match &self.source.config.from {
            NatsFrom::JetStream { stream, consumer, .. } => {
                self.source.down(&of_consumer(stream, consumer, &error))
            }
            NatsFrom::Core { .. } => self.source.down(error),
        }
    }

    fn take(&mut self, received: Received, number: u64) {
        let Received { message, ack } = received;
        let position = match (&self.source.config.from, &ack) {
            (NatsFrom::JetStream { stream, .. }, Some((sequence, _))) => format!("{stream}/{sequence}"),
            // Core NATS counts nothing: what distinguishes a message is when it came.
            _ => format!("{}/{}", uuid::Uuid::now_v7(), number),
        };
        let record = record_of(message, position.clone());
        let made = self.source.to_event(&record);
        let place = ack.map(|(_, acker)| Arc::new(Place { position, acker }));
        self.unsettled.extend(place.clone());
        self.feed.push(record, made, place);
    }

    /// What is stored is acknowledged, and the server has said that it knows.
    async fn settle(&mut self, places: Vec<Option<Arc<Place>>>) -> Result<(), Down> {
        let places: Vec<_> = places.into_iter().flatten().collect();
        let answers = join_all(places.iter().map(|place| place.acker.double_ack())).await;
        for (place, answer) in places.iter().zip(answers) {
            self.unsettled.pop_front();
            answer.map_err(|error| {
                self.source.down(&format!("the acknowledgement of {} had no answer: {error}", place.position))
            })?;
        }
        if let Some(last) = places.last() {
            self.context.health.tell(Report::Position(last.position.clone()));
        }
        Ok(())
    }

    async fn keep_alive(&mut self) {
        for place in &self.unsettled {
            // One that is not heard is delivered again, which is a duplicate.
            drop(place.acker.ack_with(AckKind::Progress).await);
        }
    }
}

async fn tick(alive: &mut Option<tokio::time::Interval>) {
    match alive {
        Some(alive) => drop(alive.tick().await),
        None => pending().await,
    }
}

fn record_of(message: Message, position: String) -> Record {
    Record {
        position,
        topic: None,
        subject: Some(message.subject.to_string()),
        key: None,
        time_ms: None,
        headers: message.headers.as_ref().map(headers_of).unwrap_or_default(),
        body: Some(message.payload),
    }
}

/// The client keeps no order of names; sorted, a record is the same each time.
fn headers_of(headers: &HeaderMap) -> Vec<(String, Bytes)> {
    let mut found: Vec<_> = headers
        .iter()
        .flat_map(|(name, values)| {
            let bytes = |value: &async_nats::HeaderValue| Bytes::copy_from_slice(value.as_str().as_bytes());
            values.iter().map(move |value| (name.to_string(), bytes(value)))
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}
