//! What the paths of a template look into.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sluice_schemas::{Event, Kind};

use super::{Path, Step};

/// What a path begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// The body of a record: JSON that paths descend into, else text.
    Body,
    /// The headers of a record by name, in upper or lower case; of one that repeats, the first.
    Headers,
    /// The key of a Kafka record.
    Key,
    /// Kafka's topic, AMQP's routing key.
    Topic,
    /// NATS' subject.
    Subject,
    /// The attributes of an event by name.
    Event,
    /// The data of an event: JSON that paths descend into, else text.
    Data,
    /// The instant that a timer fires for.
    Scheduled,
}

impl Root {
    pub const ALL: [Self; 8] = [
        Self::Body,
        Self::Headers,
        Self::Key,
        Self::Topic,
        Self::Subject,
        Self::Event,
        Self::Data,
        Self::Scheduled,
    ];
    /// What there is where a template is about an event: transforms, keys of sinks.
    pub const OF_EVENT: [Self; 2] = [Self::Event, Self::Data];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Headers => "headers",
            Self::Key => "key",
            Self::Topic => "topic",
            Self::Subject => "subject",
            Self::Event => "event",
            Self::Data => "data",
            Self::Scheduled => "scheduled",
        }
    }
}

/// What there is to look into; what a place does not have stays empty.
#[derive(Default)]
pub struct Scope<'a> {
    pub body: Option<Document<'a>>,
    /// In received order; names may repeat.
    pub headers: &'a [(String, Bytes)],
    pub key: Option<&'a [u8]>,
    pub topic: Option<&'a str>,
    pub subject: Option<&'a str>,
    pub event: Option<&'a Event>,
    pub data: Option<Document<'a>>,
    pub scheduled: Option<&'a str>,
}

/// Bytes that may be JSON, parsed once and only when a path looks into them.
pub struct Document<'a> {
    bytes: &'a [u8],
    json: OnceCell<Option<Value>>,
}

impl<'a> Document<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, json: OnceCell::new() }
    }

    pub fn json(&self) -> Option<&Value> {
        self.json.get_or_init(|| serde_json::from_slice(self.bytes).ok()).as_ref()
    }

    fn find(&self, steps: &[Step]) -> Option<Found<'_>> {
        match self.json() {
            Some(json) => descend(json, steps).map(|json| match json {
                Value::Number(number) if number.is_f64() => Found::Fraction(json, self.written(steps)),
                _ => Found::Json(json),
            }),
            None if steps.is_empty() => std::str::from_utf8(self.bytes).ok().map(Found::Text),
            None => None,
        }
    }

    /// The text of what is there.
    fn written(&self, steps: &[Step]) -> Option<&str> {
        let whole: &RawValue = serde_json::from_slice(self.bytes).ok()?;
        let found = steps.iter().try_fold(whole, |json, step| match step {
            Step::Name(name) => {
                let members: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(json.get()).ok()?;
                members.get(&**name).copied()
            }
            Step::Place(place) => {
                let items: Vec<&RawValue> = serde_json::from_str(json.get()).ok()?;
                items.get(*place).copied()
            }
        });
        found.map(RawValue::get)
    }
}

/// What a path stands for.
pub(super) enum Found<'s> {
    Json(&'s Value),
    /// A number that is no whole one of 64 bits, and as it is written: its value may have lost digits.
    Fraction(&'s Value, Option<&'s str>),
    Text(&'s str),
    /// No string, and not null.
    Made(Value),
}

impl Found<'_> {
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Json(Value::Null))
    }

    pub fn into_json(self) -> Value {
        match self {
            Self::Json(json) | Self::Fraction(json, _) => json.clone(),
            Self::Text(text) => Value::String(text.to_owned()),
            Self::Made(json) => json,
        }
    }
}

impl<'a> Scope<'a> {
    /// What there is of an event.
    pub fn of(event: &'a Event) -> Self {
        let data = event.data().map(|data| Document::new(&data.bytes));
        Self { event: Some(event), data, ..Self::default() }
    }

    pub(super) fn find(&self, path: &Path) -> Option<Found<'_>> {
        match path.root {
            Root::Body => self.body.as_ref()?.find(&path.steps),
            Root::Data => self.data.as_ref()?.find(&path.steps),
            Root::Headers => self.header(&path.steps),
            Root::Key => std::str::from_utf8(self.key?).ok().map(Found::Text),
            Root::Topic => self.topic.map(Found::Text),
            Root::Subject => self.subject.map(Found::Text),
            Root::Event => self.attribute(&path.steps),
            Root::Scheduled => self.scheduled.map(Found::Text),
        }
    }

    fn header(&self, steps: &[Step]) -> Option<Found<'_>> {
        let [Step::Name(name)] = steps else { return self.headers_whole() };
        let (_, value) = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok().map(Found::Text)
    }

    fn headers_whole(&self) -> Option<Found<'_>> {
        let mut members = Map::new();
        for (name, value) in self.headers {
            if let Ok(text) = std::str::from_utf8(value) {
                members.entry(name.to_ascii_lowercase()).or_insert_with(|| text.into());
            }
        }
        Some(Found::Made(Value::Object(members)))
    }

    fn attribute(&self, steps: &[Step]) -> Option<Found<'_>> {
        let event = self.event?;
        let [Step::Name(name)] = steps else {
            let members = event.attributes().map(|(name, value)| (name.to_owned(), attribute_json(value)));
            return Some(Found::Made(Value::Object(members.collect())));
        };
        let value = event.attribute(name)?;
        Some(match value.kind {
            Kind::String => Found::Text(&value.text),
            Kind::Integer | Kind::Boolean => Found::Made(attribute_json(value)),
        })
    }
}

/// The value of an attribute in the type it came in.
pub(crate) fn attribute_json(value: &sluice_schemas::Value) -> Value {
    let text = || Value::String(value.text.to_string());
    match value.kind {
        Kind::String => text(),
        Kind::Integer => value.text.parse::<i32>().map_or_else(|_| text(), Value::from),
        Kind::Boolean => Value::Bool(&*value.text == "true"),
    }
}

fn descend<'j>(json: &'j Value, steps: &[Step]) -> Option<&'j Value> {
    steps.iter().try_fold(json, |json, step| match step {
        Step::Name(name) => json.as_object()?.get(&**name),
        Step::Place(place) => json.as_array()?.get(*place),
    })
}
