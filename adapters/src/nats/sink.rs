//! Events into subjects that a stream listens to. An event counts as sent when the stream has it.

use std::sync::Arc;

use async_nats::jetstream::context::PublishErrorKind;
use async_nats::{HeaderMap, HeaderName, HeaderValue, jetstream};
use bytes::Bytes;
use sluice_config::{self as config, Mode};
use sluice_language::template::Template;
use sluice_schemas::{Event, http as binding};
use tokio::sync::Mutex;

use super::client::{self, Connection};
use crate::unsent::{self, Unopened, Unsent};

pub struct NatsSink {
    config: config::NatsSink,
    subject: Template,
    /// Made with the first event, and again when it was lost.
    connection: Mutex<Option<Arc<Connection>>>,
}

impl NatsSink {
    /// Connects to nothing.
    pub fn open(config: &config::NatsSink) -> Result<Self, Unopened> {
        let subject = unsent::compile("subject", &config.subject)?;
        Ok(Self { config: config.clone(), subject, connection: Mutex::default() })
    }

    /// For people.
    pub fn shown(&self) -> String {
        format!("nats://{}/{}", client::shown(&self.config.client), self.config.subject)
    }

    /// Returns once a stream has the event.
    pub async fn send(&self, event: &Event) -> Result<(), Unsent> {
        let subject = unsent::render("subject", &self.subject, event)?;
        if !may_be_published_to(&subject, &self.config.subject) {
            return Err(Unsent::Rejected(format!("`{subject}` is no subject to publish to")));
        }
        let (headers, body) = encode(event, self.config.mode)?;
        let connection = self.connection().await?;
        let context = jetstream::new(connection.client.clone());
        let sent = context.publish_with_headers(subject.clone(), headers, body).await;
        let error = match sent {
            Ok(ack) => match ack.await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            },
            Err(error) => error,
        };
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => Err(Unsent::Rejected(error.to_string())),
            PublishErrorKind::StreamNotFound => {
                Err(Unsent::Retriable(format!("no stream listens to subject `{subject}`")))
            }
            _ => Err(Unsent::Retriable(format!("subject `{subject}`: {error}"))),
        }
    }

    async fn connection(&self) -> Result<Arc<Connection>, Unsent> {
        let mut known = self.connection.lock().await;
        if let Some(connection) = known.as_ref().filter(|connection| connection.lost.borrow().is_none()) {
            return Ok(Arc::clone(connection));
        }
        let connection = client::connect(&self.config.client).await.map_err(Unsent::Retriable)?;
        Ok(Arc::clone(known.insert(Arc::new(connection))))
    }
}

/// Whether a rendered subject is one. Those that begin with `$` are the server's own, and some are orders to it
/// (`$JS.API.STREAM.DELETE.`): what an event says must not get there, unless the file begins so.
fn may_be_published_to(subject: &str, configured: &str) -> bool {
    let is_token = |token: &str| !token.is_empty() && !token.contains([' ', '\t', '\r', '\n', '*', '>']);
    let is_servers = subject.starts_with('$') || subject.starts_with("_INBOX.");
    let is_meant = configured.starts_with('$') || configured.starts_with("_INBOX.");
    subject.split('.').all(is_token) && (!is_servers || is_meant)
}

fn encode(event: &Event, mode: Mode) -> Result<(HeaderMap, Bytes), Unsent> {
    let mut headers = HeaderMap::new();
    // A space in either is percent-encoded: the pair cannot be mistaken for another.
    let id = format!("{} {}", binding::encode_value(event.source()), binding::encode_value(event.id()));
    insert(&mut headers, "Nats-Msg-Id", &id)?;
    if mode == Mode::Structured {
        let (content_type, body) = binding::encode_structured(event);
        insert(&mut headers, "Content-Type", content_type)?;
        return Ok((headers, body));
    }
    for (name, value) in event.attributes().filter(|(name, _)| *name != "datacontenttype") {
        insert(&mut headers, &format!("ce-{name}"), &binding::encode_value(&value.text))?;
    }
    if let Some(text) = unsent::content_type(event) {
        insert(&mut headers, "ce-datacontenttype", &binding::encode_value(text))?;
    }
    Ok((headers, event.data().map(|data| data.bytes.clone()).unwrap_or_default()))
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Unsent> {
    let illegal = || Unsent::Rejected(format!("`{name}` makes no legal header"));
    let value: HeaderValue = value.parse().map_err(|_| illegal())?;
    let name: HeaderName = name.parse().map_err(|_| illegal())?;
    headers.insert(name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(mode: Mode) -> String {
        let event =
            Event::builder().attribute("specversion", "1.0").attribute("id", "a b").attribute("source", "/ü");
        let event = event.attribute("type", "t").attribute("datacontenttype", "text/plain");
        let event = event.data(&b"hi"[..], sluice_schemas::DataForm::Opaque).build().expect("valid");
        let (headers, body) = encode(&event, mode).expect("fits");
        let mut lines: Vec<_> =
            headers.iter().map(|(name, values)| format!("{name}: {}", values[0])).collect();
        lines.sort();
        lines.push(String::from_utf8(body.to_vec()).expect("text"));
        lines.join("\n")
    }

    #[test]
    fn an_event_chooses_no_subject_that_is_an_order_to_the_server() {
        for (subject, configured, expected) in [
            ("alarms.com.example", "alarms.{event.type}", true),
            ("com.example.", "{event.type}", false),
            ("com..example", "{event.type}", false),
            ("", "{event.type}", false),
            ("a b", "{event.type}", false),
            ("a.>", "a.{event.type}", false),
            ("$JS.API.STREAM.DELETE.ORDERS", "{event.type}", false),
            ("_INBOX.abc", "{event.type}", false),
            ("a.$JS", "a.{event.type}", true),
            ("$KV.bucket.key", "$KV.bucket.{event.subject}", true),
        ] {
            assert_eq!(may_be_published_to(subject, configured), expected, "{subject}");
        }
    }

    #[test]
    fn binary_mode_names_the_content_type_as_an_attribute_and_the_pair_as_the_id() {
        assert_eq!(
            shown(Mode::Binary),
            "Nats-Msg-Id: /%C3%BC a%20b\nce-datacontenttype: text/plain\nce-id: a%20b\nce-source: /%C3%BC\n\
             ce-specversion: 1.0\nce-type: t\nhi"
        );
    }

    #[test]
    fn structured_mode_says_so() {
        assert_eq!(
            shown(Mode::Structured),
            "Content-Type: application/cloudevents+json; charset=utf-8\nNats-Msg-Id: /%C3%BC a%20b\n\
             {\"specversion\":\"1.0\",\"id\":\"a b\",\"source\":\"/ü\",\"type\":\"t\",\"datacontenttype\":\"text/plain\",\"data\":\"hi\"}"
        );
    }
}
