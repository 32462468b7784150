//! A consumer of a queue.
//!
//! Tags are acknowledged up to the last of a stored batch, on the channel that they came by, and never given back: what is not
//! acknowledged when the connection ends is delivered again by the server. While the store has no room the prefetch runs
//! out and the server sends no more. Half-open connections are found by the heartbeat.

use std::future::Future;
use std::pin::Pin;

use futures_util::stream::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Channel, Connection, Consumer};
use serde_json::Value;
use sluice_config as config;
use sluice_schemas::Event;

use super::client::{self, short};
use super::record::record_of;
use crate::feed::Feed;
use crate::{Context, Down, Mapping, Record, Report, Source, Unfit};

pub struct AmqpSource {
    config: config::AmqpSource,
    mapping: Mapping,
}

impl AmqpSource {
    pub fn new(config: config::AmqpSource, mapping: Mapping) -> Self {
        Self { config, mapping }
    }

    /// What a record becomes under the present configuration.
    pub fn to_event(&self, record: &Record) -> Result<Event, Unfit> {
        super::to_event(record, &self.mapping)
    }

    fn down(&self, what: &str) -> Down {
        Down::because(format!("amqp {}: {what}", client::shown(&self.config.url)))
    }

    fn of_queue(&self, error: &lapin::Error) -> Down {
        self.down(&format!("queue `{}`: {error}", self.config.queue))
    }
}

impl Source for AmqpSource {
    fn run(&self, context: Context) -> Pin<Box<dyn Future<Output = Result<(), Down>> + Send + '_>> {
        Box::pin(async move {
            let config = &self.config;
            let connected = client::connect(&config.url, config.heartbeat, &config.tls).await;
            let connection = connected.map_err(|error| self.down(&error))?;
            let (channel, consumer) = self.consume(&connection).await?;
            context.health.tell(Report::Up);
            let mut session = Session { source: self, feed: Feed::new(&context), context, channel };
            let ended = session.receive(consumer).await;
            let finished = match session.feed.finish().await {
                Ok(Some(tags)) => session.settle(&tags).await,
                Ok(None) => Ok(()),
                Err(down) => Err(down),
            };
            if ended.is_ok() && finished.is_ok() {
                // The server takes back what is not acknowledged in any case.
                drop(connection.close(200, "bye".into()).await);
            }
            ended.and(finished)
        })
    }
}

impl AmqpSource {
    async fn consume(&self, connection: &Connection) -> Result<(Channel, Consumer), Down> {
        let queue = short("queue", &self.config.queue).map_err(|error| self.down(&error))?;
        let channel = connection.create_channel().await.map_err(|error| self.down(&error.to_string()))?;
        self.declare(&channel).await?;
        let prefetched = channel.basic_qos(self.config.prefetch, BasicQosOptions::default()).await;
        prefetched.map_err(|error| self.of_queue(&error))?;
        let consumed = channel
            .basic_consume(queue, "sluice".into(), BasicConsumeOptions::default(), FieldTable::default())
            .await;
        Ok((channel, consumed.map_err(|error| self.of_queue(&error))?))
    }

    async fn declare(&self, channel: &Channel) -> Result<(), Down> {
        let Some(declare) = &self.config.declare else { return Ok(()) };
        let named = |what: &str, text: &str| short(what, text).map_err(|error| self.down(&error));
        let queue = named("queue", &self.config.queue)?;
        let mut arguments = FieldTable::default();
        for (name, value) in &declare.arguments {
            let value = argument(value)
                .ok_or_else(|| self.down(&format!("argument `{name}` cannot be written in AMQP")))?;
            arguments.insert(named("argument", name)?, value);
        }
        let options = QueueDeclareOptions { durable: declare.durable, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(queue.clone(), options, arguments).await;
        declared.map_err(|error| self.of_queue(&error))?;
        for binding in &declare.bind {
            let exchange = named("exchange", &binding.exchange)?;
            let key = named("routing key", &binding.routing_key)?;
            let bound = channel
                .queue_bind(queue.clone(), exchange, key, QueueBindOptions::default(), FieldTable::default())
                .await;
            bound.map_err(|error| self.of_queue(&error))?;
        }
        Ok(())
    }
}

fn argument(value: &Value) -> Option<AMQPValue> {
    match value {
        Value::Bool(value) => Some(AMQPValue::Boolean(*value)),
        Value::Number(number) => number.as_i64().map(AMQPValue::LongLongInt),
        Value::String(text) => Some(AMQPValue::LongString(LongString::from(text.as_str()))),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// One channel, from its first delivery to its end.
struct Session<'a> {
    source: &'a AmqpSource,
    context: Context,
    channel: Channel,
    feed: Feed<u64>,
}

impl Session<'_> {
    async fn receive(&mut self, mut consumer: Consumer) -> Result<(), Down> {
        let mut stop = self.context.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                stored = self.feed.stored() => {
                    let Some(tags) = stored? else { return Ok(()) };
                    self.settle(&tags).await?;
                }
                delivered = consumer.next(), if !self.feed.is_full() => match delivered {
                    Some(Ok(delivery)) => self.take(delivery),
                    Some(Err(error)) => return Err(self.source.of_queue(&error)),
                    None => {
                        let queue = &self.source.config.queue;
                        return Err(self.source.down(&format!("queue `{queue}`: the server ended the subscription")));
                    }
                },
            }
        }
    }

    fn take(&mut self, mut delivery: Delivery) {
        // AMQP numbers deliveries only within a channel.
        let record = record_of(&mut delivery, uuid::Uuid::now_v7().to_string());
        let made = self.source.to_event(&record);
        self.feed.push(record, made, delivery.delivery_tag);
    }

    /// What is stored is acknowledged, with all that came before it.
    async fn settle(&mut self, tags: &[u64]) -> Result<(), Down> {
        let Some(last) = tags.last() else { return Ok(()) };
        let acknowledged = self.channel.basic_ack(*last, BasicAckOptions { multiple: true }).await;
        acknowledged.map_err(|error| self.source.of_queue(&error))?;
        self.context.health.tell(Report::Position(format!("{}/{last}", self.source.config.queue)));
        Ok(())
    }
}
