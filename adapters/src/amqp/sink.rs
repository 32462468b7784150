//! Events into exchanges. An event counts as sent when the server has confirmed it and had a queue for it (`mandatory`: without
//! that, what no queue wants is confirmed, too).

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use sluice_config::{self as config, Mode};
use sluice_language::template::Template;
use sluice_schemas::{Event, Kind, http as binding};
use tokio::sync::Mutex;

use super::client::{self, short};
use crate::unsent::{self, Unopened, Unsent};

const HEARTBEAT: Duration = Duration::from_secs(10);
const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;

pub struct AmqpSink {
    config: config::AmqpSink,
    routing_key: Template,
    /// Made with the first event, and again when it was lost.
    open: Mutex<Option<Arc<Open>>>,
}

struct Open {
    connection: Connection,
    channel: Channel,
}

impl AmqpSink {
    /// Connects to nothing.
    pub fn open(config: &config::AmqpSink) -> Result<Self, Unopened> {
        let routing_key = unsent::compile("routing_key", &config.routing_key)?;
        Ok(Self { config: config.clone(), routing_key, open: Mutex::default() })
    }

    /// For people.
    pub fn shown(&self) -> String {
        format!("amqp://{}/{}", client::shown(&self.config.url), self.config.exchange)
    }

    /// Returns once the server has confirmed the event.
    pub async fn send(&self, event: &Event) -> Result<(), Unsent> {
        let key = unsent::render("routing_key", &self.routing_key, event)?;
        let (properties, body) = encode(event, &self.config).map_err(Unsent::Rejected)?;
        let exchange = short("exchange", &self.config.exchange).map_err(Unsent::Rejected)?;
        let routing_key = short("routing key", &key).map_err(Unsent::Rejected)?;
        let open = self.channel().await?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let failed = |error: lapin::Error| Unsent::Retriable(error.to_string());
        let sent = open.channel.basic_publish(exchange, routing_key, options, &body, properties).await;
        match sent.map_err(failed)?.await.map_err(failed)? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(returned)) => {
                Err(Unsent::Retriable(format!("routing key `{key}`: {}", returned.reply_text.as_str())))
            }
            Confirmation::Nack(_) => Err(Unsent::Retriable("the server refused the message".into())),
            Confirmation::NotRequested => Err(Unsent::Retriable("the server confirms nothing".into())),
        }
    }

    async fn channel(&self) -> Result<Arc<Open>, Unsent> {
        let mut known = self.open.lock().await;
        let is_open =
            |open: &&Arc<Open>| open.connection.status().connected() && open.channel.status().connected();
        if let Some(open) = known.as_ref().filter(is_open) {
            return Ok(Arc::clone(open));
        }
        let connected = client::connect(&self.config.url, HEARTBEAT, &self.config.tls).await;
        let connection = connected.map_err(Unsent::Retriable)?;
        let failed = |error: lapin::Error| Unsent::Retriable(error.to_string());
        let channel = connection.create_channel().await.map_err(failed)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed)?;
        Ok(Arc::clone(known.insert(Arc::new(Open { connection, channel }))))
    }
}

/// Attributes keep their types; times are text, because AMQP's have whole seconds only.
fn encode(event: &Event, config: &config::AmqpSink) -> Result<(BasicProperties, Vec<u8>), String> {
    let mode = if config.persistent { PERSISTENT } else { TRANSIENT };
    let mut properties = BasicProperties::default().with_delivery_mode(mode);
    if let Ok(id) = ShortString::try_new(event.id()) {
        properties = properties.with_message_id(id);
    }
    if config.mode == Mode::Structured {
        let (content_type, body) = binding::encode_structured(event);
        return Ok((properties.with_content_type(content_type.into()), body.to_vec()));
    }
    let mut headers = FieldTable::default();
    for (name, value) in event.attributes().filter(|(name, _)| *name != "datacontenttype") {
        let text = || AMQPValue::LongString(LongString::from(&*value.text));
        let typed = match value.kind {
            Kind::Boolean => AMQPValue::Boolean(&*value.text == "true"),
            Kind::Integer => value.text.parse().map_or_else(|_| text(), AMQPValue::LongInt),
            Kind::String => text(),
        };
        headers.insert(short("attribute", &format!("ce-{name}"))?, typed);
    }
    if let Some(text) = unsent::content_type(event) {
        properties = properties.with_content_type(short("content type", text)?);
    }
    let body = event.data().map(|data| data.bytes.to_vec()).unwrap_or_default();
    Ok((properties.with_headers(headers), body))
}
