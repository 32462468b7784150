//! The event: attributes in received text form, data as the received bytes.

use bytes::Bytes;

use crate::rules::{self, Invalid};

/// A valid CloudEvent 1.0 (CloudEvents core, section "Context Attributes").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// In received order, names unique. The four required ones are always there.
    attributes: Vec<(Box<str>, Value)>,
    data: Option<Data>,
}

/// The value of an attribute: its canonical text, and the JSON type it was written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub text: Box<str>,
    pub kind: Kind,
}

/// How a value stands in the JSON format. Formats without types (HTTP headers) give `String`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    String,
    Integer,
    Boolean,
}

/// The data of an event. `None` in an event means there is none; empty bytes do not occur in HTTP binary mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    pub bytes: Bytes,
    pub form: DataForm,
}

/// What the bytes are, as far as the format they came in says so without a `datacontenttype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataForm {
    /// Bytes of the content type that the event names, or of none.
    Opaque,
    /// The source text of a JSON value that came without a content type (JSON format 3.1.1): JSON is implied.
    ImpliedJson,
}

impl Event {
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub fn id(&self) -> &str {
        self.required("id")
    }

    pub fn source(&self) -> &str {
        self.required("source")
    }

    pub fn ty(&self) -> &str {
        self.required("type")
    }

    pub fn subject(&self) -> Option<&str> {
        self.text("subject")
    }

    pub fn datacontenttype(&self) -> Option<&str> {
        self.text("datacontenttype")
    }

    /// The canonical text of an attribute, `specversion` and extensions included.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.attribute(name).map(|value| &*value.text)
    }

    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().find(|(known, _)| **known == *name).map(|(_, value)| value)
    }

    /// All attributes in received order.
    pub fn attributes(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.attributes.iter().map(|(name, value)| (&**name, value))
    }

    pub fn data(&self) -> Option<&Data> {
        self.data.as_ref()
    }

    /// The same event with data in memory of its own: a slice of a larger buffer would keep all of that alive.
    #[must_use]
    pub fn detached(mut self) -> Self {
        if let Some(data) = &mut self.data {
            data.bytes = Bytes::copy_from_slice(&data.bytes);
        }
        self
    }

    /// The same event without its data.
    #[must_use]
    pub fn without_data(mut self) -> Self {
        self.data = None;
        self
    }

    /// Puts an event together from parts that were valid when they were stored.
    pub fn from_stored(attributes: Vec<(Box<str>, Value)>, data: Option<Data>) -> Self {
        Self { attributes, data }
    }

    fn required(&self, name: &str) -> &str {
        self.text(name).unwrap_or_default()
    }
}

/// Collects attributes and data; [`Builder::build`] checks them all.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    attributes: Vec<(Box<str>, Value)>,
    data: Option<Data>,
}

impl Builder {
    /// Adds a String attribute. A name given twice is found by `build`.
    #[must_use]
    pub fn attribute(self, name: &str, text: &str) -> Self {
        self.value(name, Value { text: text.into(), kind: Kind::String })
    }

    #[must_use]
    pub fn value(mut self, name: &str, value: Value) -> Self {
        self.attributes.push((name.into(), value));
        self
    }

    #[must_use]
    pub fn data(mut self, bytes: impl Into<Bytes>, form: DataForm) -> Self {
        self.data = Some(Data { bytes: bytes.into(), form });
        self
    }

    /// Checks every rule of CloudEvents 1.0 and returns the first that is broken.
    pub fn build(self) -> Result<Event, Invalid> {
        rules::check(&self.attributes)?;
        Ok(Event { attributes: self.attributes, data: self.data })
    }
}
