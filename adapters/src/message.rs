//! From a record to an event: what Kafka, AMQP and NATS have in common. All of it is pure.

use std::fmt::Display;

use bytes::Bytes;
use sluice_config::{self as config, SourceKind};
use sluice_language::template::Root;
use sluice_language::{Draft, WrongField};
use sluice_schemas::{DataForm, Event, http as binding, json};

use crate::{EventTemplate, Record, Unfit};

/// What a source makes of its records, whatever system they come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    /// The name of the source in the configuration.
    pub name: String,
    /// `event:`, for what is no CloudEvent yet.
    pub template: EventTemplate,
    /// Records with a larger body become no event.
    pub event_bytes_max: usize,
}

/// What a system gives to an event that is made of a record.
pub(crate) struct Defaults<'a> {
    pub ty: &'a str,
    pub id: &'a str,
    pub content_type: Option<&'a str>,
}

impl Mapping {
    /// Compiles `event:` of a source.
    pub fn compile(name: &str, source: &config::Source) -> Result<Self, WrongField> {
        let roots = match &source.kind {
            SourceKind::Kafka(_) => &[Root::Body, Root::Headers, Root::Key, Root::Topic][..],
            SourceKind::Amqp(_) => &[Root::Body, Root::Headers, Root::Topic],
            SourceKind::Nats(_) => &[Root::Body, Root::Headers, Root::Subject],
            SourceKind::Webhook(_) | SourceKind::Git(_) | SourceKind::Cron(_) => &[],
        };
        let template = EventTemplate::compile(&source.event, roots)?;
        Ok(Self { name: name.to_owned(), template, event_bytes_max: source.event_bytes })
    }

    pub(crate) fn check_size(&self, record: &Record) -> Result<(), Unfit> {
        let bytes = record.body.as_ref().map_or(0, Bytes::len);
        if bytes > self.event_bytes_max {
            return Err(unfit(format!(
                "{bytes} bytes are more than the {} of event_bytes",
                self.event_bytes_max
            )));
        }
        Ok(())
    }

    /// Makes an event of a record that is none: the body as it came, and what `event:` says.
    pub(crate) fn wrap(&self, record: &Record, defaults: &Defaults<'_>) -> Result<Event, Unfit> {
        let source = format!("/{}", self.name);
        let time = record.time_ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let draft = Draft::default()
            .attribute("id", defaults.id)
            .attribute("source", &source)
            .attribute("type", defaults.ty)
            .maybe("time", time.map(|time| time.to_string()).as_deref())
            .maybe("datacontenttype", defaults.content_type.filter(|text| is_media_type(text)));
        let draft = match &record.body {
            Some(body) => draft.data(body.clone()),
            None => draft,
        };
        self.template.apply(record, None, draft)
    }
}

pub(crate) fn unfit(detail: impl Display) -> Unfit {
    Unfit { is_conflict: false, detail: detail.to_string() }
}

/// Whether a content type says that the body is a whole event.
pub(crate) fn is_structured(content_type: &str) -> bool {
    const PREFIX: &str = "application/cloudevents";
    content_type.trim_start().get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// Reads an event in structured mode.
pub(crate) fn structured(content_type: &str, record: &Record) -> Result<Event, Unfit> {
    let mut headers = http::HeaderMap::new();
    let value =
        http::HeaderValue::from_str(content_type).map_err(|_| unfit("the content type is no text"))?;
    headers.insert(http::header::CONTENT_TYPE, value);
    let body = record.body.clone().filter(|body| !body.is_empty());
    let body = body.ok_or_else(|| unfit("an event in structured mode has no body"))?;
    let limits = binding::Limits { event_bytes_max: body.len(), batch_bytes_max: 0 };
    match binding::decode(&headers, body, &limits) {
        Ok(decoded) if decoded.mode == binding::Mode::Structured => {
            decoded.events.into_iter().next().ok_or_else(|| unfit("there is no event in it"))
        }
        Ok(_) | Err(binding::Rejection::TooLarge { .. }) => Err(unfit("batches are not for message systems")),
        Err(rejection) => Err(unfit(rejection)),
    }
}

/// Reads a whole event from a body that nothing announced, if it is a JSON object with the four attributes.
pub(crate) fn unannounced(body: &Bytes) -> Option<Result<Event, Unfit>> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    match json::decode(body) {
        Ok(event) => Some(Ok(event)),
        Err(error) => {
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
            let is_event =
                ["specversion", "id", "source", "type"].iter().all(|name| object.contains_key(*name));
            is_event.then(|| Err(unfit(error)))
        }
    }
}

/// The attributes of an event in binary mode, as they are found.
#[derive(Default)]
pub(crate) struct Attributes {
    builder: sluice_schemas::Builder,
    content_type: Option<String>,
}

impl Attributes {
    /// Adds one; the rules are checked by `build`.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), Unfit> {
        if name == "datacontenttype" {
            return self.add_content_type(value);
        }
        self.builder = std::mem::take(&mut self.builder).attribute(name, value);
        Ok(())
    }

    /// The same content type may be said twice, by an attribute and by the system.
    pub fn add_content_type(&mut self, value: &str) -> Result<(), Unfit> {
        match &self.content_type {
            Some(known) if !known.eq_ignore_ascii_case(value) => {
                Err(unfit(format!("there are two content types, `{known}` and `{value}`")))
            }
            Some(_) => Ok(()),
            None => {
                self.content_type = Some(value.to_owned());
                Ok(())
            }
        }
    }

    pub fn has_content_type(&self) -> bool {
        self.content_type.is_some()
    }

    pub fn build(self, body: Option<Bytes>) -> Result<Event, Unfit> {
        let mut builder = self.builder;
        if let Some(text) = &self.content_type {
            builder = builder.attribute("datacontenttype", text);
        }
        if let Some(body) = body {
            builder = builder.data(body, DataForm::Opaque);
        }
        builder.build().map_err(unfit)
    }
}

fn is_media_type(text: &str) -> bool {
    let probe = Draft::default().attribute("id", "1").attribute("source", "/").attribute("type", "t");
    probe.attribute("datacontenttype", text).build().is_ok()
}
