//! Events into topics. An event counts as sent when all in-sync replicas have it; retries inside librdkafka neither repeat nor
//! reorder (`enable.idempotence`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, ClientContext};
use sluice_config::{self as config, Mode};
use sluice_language::template::Template;
use sluice_schemas::{Event, http as binding};

use super::client;
use crate::unsent::{self, Unopened, Unsent};

pub struct KafkaSink {
    config: config::KafkaSink,
    configured: ClientConfig,
    topic: Template,
    key: Option<Template>,
    /// Made with the first event, and again after an error that ends a producer.
    producer: Mutex<Option<FutureProducer<Watch>>>,
    trouble: Trouble,
}

/// What librdkafka said last of what it tries again by itself.
type Trouble = Arc<Mutex<Option<String>>>;

struct Watch(Trouble);

impl ClientContext for Watch {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(facility, "librdkafka: {text}");
    }

    fn error(&self, _: KafkaError, reason: &str) {
        let mut trouble = lock(&self.0);
        // That all are down says less than why the last one went.
        if !(reason.ends_with("brokers are down") && trouble.is_some()) {
            *trouble = Some(reason.to_owned());
        }
    }
}

impl KafkaSink {
    /// Connects to nothing.
    pub fn open(config: &config::KafkaSink) -> Result<Self, Unopened> {
        let topic = unsent::compile("topic", &config.topic)?;
        let key = config.key.as_ref().map(|key| unsent::compile("key", key)).transpose()?;
        let mut configured = client::configure(&config.client);
        configured.set("enable.idempotence", "true").set("acks", "all");
        client::set_default(&mut configured, "message.timeout.ms", "30000");
        client::set_default(&mut configured, "linger.ms", "5");
        client::set_default(&mut configured, "queue.buffering.max.kbytes", "65536");
        client::check(&configured).map_err(Unopened)?;
        Ok(Self {
            config: config.clone(),
            configured,
            topic,
            key,
            producer: Mutex::default(),
            trouble: Trouble::default(),
        })
    }

    /// For people.
    pub fn shown(&self) -> String {
        format!("kafka://{}/{}", self.config.client.brokers.join(","), self.config.topic)
    }

    /// Returns once all in-sync replicas have the event.
    pub async fn send(&self, event: &Event) -> Result<(), Unsent> {
        let topic = unsent::render("topic", &self.topic, event)?;
        let key = match &self.key {
            // A key that is absent is none.
            Some(key) => unsent::render("key", key, event).ok(),
            None => event.text("partitionkey").map(str::to_owned),
        };
        let (headers, body) = encode(event, self.config.mode);
        let mut record = FutureRecord::<str, [u8]>::to(&topic).headers(headers);
        record.key = key.as_deref();
        record.payload = body.as_deref();
        let producer = self.producer()?;
        let sending = producer.send_result(record).map_err(|(error, _)| self.judge(&topic, &error))?;
        match sending.await {
            Ok(Ok(_)) => {
                lock(&self.trouble).take();
                Ok(())
            }
            Ok(Err((error, _))) => Err(self.judge(&topic, &error)),
            Err(_) => Err(Unsent::Retriable("the producer has ended".into())),
        }
    }

    /// Why nothing gets through, as far as librdkafka has said: it tells nobody who waits, and tries again.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    fn producer(&self) -> Result<FutureProducer<Watch>, Unsent> {
        let mut known = lock(&self.producer);
        if let Some(producer) = known.as_ref().filter(|producer| producer.client().fatal_error().is_none()) {
            return Ok(producer.clone());
        }
        let watch = Watch(Arc::clone(&self.trouble));
        let created: Result<FutureProducer<Watch>, _> = self.configured.create_with_context(watch);
        let producer = created.map_err(|error| Unsent::Retriable(error.to_string()))?;
        Ok(known.insert(producer).clone())
    }

    fn judge(&self, topic: &str, error: &KafkaError) -> Unsent {
        let code = error.rdkafka_error_code();
        let text = code.map_or_else(|| error.to_string(), |code| code.to_string());
        let text = format!("topic `{topic}`: {text}");
        match code {
            Some(
                Code::MessageSizeTooLarge
                | Code::InvalidTopic
                | Code::InvalidRecord
                | Code::InvalidMessage
                | Code::InvalidMessageSize
                | Code::PolicyViolation,
            ) => Unsent::Rejected(text),
            _ => Unsent::Retriable(text),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Headers are plain UTF-8. An event without data is a tombstone in binary mode.
fn encode(event: &Event, mode: Mode) -> (OwnedHeaders, Option<Vec<u8>>) {
    let add = |headers: OwnedHeaders, name: &str, value: &str| {
        headers.insert(Header { key: name, value: Some(value) })
    };
    if mode == Mode::Structured {
        let (content_type, body) = binding::encode_structured(event);
        return (add(OwnedHeaders::new(), "content-type", content_type), Some(body.to_vec()));
    }
    let mut headers = OwnedHeaders::new();
    for (name, value) in event.attributes().filter(|(name, _)| *name != "datacontenttype") {
        headers = add(headers, &format!("ce_{name}"), &value.text);
    }
    if let Some(text) = unsent::content_type(event) {
        headers = add(headers, "content-type", text);
    }
    (headers, event.data().map(|data| data.bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;

    use super::*;

    fn shown(mode: Mode, data: Option<&'static [u8]>) -> String {
        let event =
            Event::builder().attribute("specversion", "1.0").attribute("id", "a b").attribute("source", "/ü");
        let mut event = event.attribute("type", "t").attribute("datacontenttype", "text/plain");
        if let Some(data) = data {
            event = event.data(data, sluice_schemas::DataForm::Opaque);
        }
        let (headers, body) = encode(&event.build().expect("valid"), mode);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let mut lines: Vec<_> = headers
            .iter()
            .map(|header| format!("{}: {}", header.key, header.value.map_or_else(|| "null".into(), text)))
            .collect();
        lines.push(body.map_or_else(|| "null".into(), |body| text(&body)));
        lines.join("\n")
    }

    #[test]
    fn binary_mode_is_plain_headers_and_no_data_is_a_tombstone() {
        let headers =
            "ce_specversion: 1.0\nce_id: a b\nce_source: /ü\nce_type: t\ncontent-type: text/plain\n";
        assert_eq!(shown(Mode::Binary, Some(b"hi")), format!("{headers}hi"));
        assert_eq!(shown(Mode::Binary, None), format!("{headers}null"));
    }

    #[test]
    fn structured_mode_is_one_header_and_the_whole_event() {
        assert_eq!(
            shown(Mode::Structured, None),
            "content-type: application/cloudevents+json; charset=utf-8\n\
             {\"specversion\":\"1.0\",\"id\":\"a b\",\"source\":\"/ü\",\"type\":\"t\",\"datacontenttype\":\"text/plain\"}"
        );
    }
}
