//! Events that are a function of their id: whoever meets one knows what it must look like.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http::request::{Builder, Parts};
use http_body_util::Full;
use serde_json::{Value, json};

const SMALL_BYTES_MAX: usize = 1 << 10;
const LARGE_BYTES_MAX: usize = 64 << 10;

/// Names an event: the publisher and its count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId {
    pub publisher: u32,
    pub count: u32,
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.publisher, self.count)
    }
}

impl std::str::FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (publisher, count) = text.split_once('-').ok_or(())?;
        Ok(Self { publisher: publisher.parse().map_err(drop)?, count: count.parse().map_err(drop)? })
    }
}

impl EventId {
    fn random(self) -> fastrand::Rng {
        fastrand::Rng::with_seed(u64::from(self.publisher) << 32 | u64::from(self.count))
    }

    /// Whether the trigger with a filter takes it.
    pub fn is_of_type_a(self) -> bool {
        self.count.is_multiple_of(2)
    }

    /// Whether the failing sink refuses it for good.
    pub fn is_refused(self) -> bool {
        self.is_of_type_a() && self.random().u8(..) < 20
    }
}

/// What an event consists of.
#[derive(Debug, PartialEq, Eq)]
pub struct Parcel {
    /// All attributes but `datacontenttype`, sorted by name.
    pub attributes: Vec<(String, String)>,
    pub content_type: String,
    pub data: Bytes,
}

impl Parcel {
    pub fn of(id: EventId) -> Self {
        let mut random = id.random();
        let mut attributes = vec![
            ("id", id.to_string()),
            ("source", format!("/publishers/{}", id.publisher)),
            ("specversion", "1.0".into()),
            ("subject", format!("größe {}% \"{}\"", random.u8(..), id.count)),
            ("type", if id.is_of_type_a() { "com.example.a" } else { "com.example.b" }.into()),
        ];
        if random.bool() {
            attributes.push(("extension", random.u32(..).to_string()));
        }
        attributes.sort_unstable();
        let length = match random.u8(..20) {
            0 => random.usize(..LARGE_BYTES_MAX),
            _ => random.usize(..SMALL_BYTES_MAX),
        };
        let (content_type, data) = if random.bool() {
            let text: String = (0..length / 8).map(|_| random.alphanumeric()).collect();
            // The odd spacing must come through: data is never written anew.
            ("application/json", format!("{{ \"count\":{},  \"text\" : \"{text}\"}}", id.count).into_bytes())
        } else {
            ("application/octet-stream", (0..length).map(|_| random.u8(..)).collect())
        };
        let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { attributes, content_type: content_type.into(), data: data.into() }
    }

    pub fn binary(&self) -> Request<Full<Bytes>> {
        let request = self.attributes.iter().fold(post(&self.content_type), |request, (name, value)| {
            request.header(format!("ce-{name}"), encode(value))
        });
        request.body(Full::from(self.data.clone())).unwrap()
    }

    pub fn structured(&self) -> Request<Full<Bytes>> {
        post("application/cloudevents+json").body(Full::from(self.json())).unwrap()
    }

    pub fn batch(events: &[Self]) -> Request<Full<Bytes>> {
        let body = format!("[{}]", Vec::from_iter(events.iter().map(Self::json)).join(","));
        post("application/cloudevents-batch+json").body(Full::from(body)).unwrap()
    }

    fn json(&self) -> String {
        let mut members: serde_json::Map<String, Value> =
            self.attributes.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        members.insert("datacontenttype".into(), json!(self.content_type));
        let head = Value::Object(members).to_string();
        let data = if self.content_type == "application/json" {
            format!("\"data\":{}", String::from_utf8_lossy(&self.data))
        } else {
            format!("\"data_base64\":\"{}\"", STANDARD.encode(&self.data))
        };
        format!("{},{data}}}", head.trim_end_matches('}'))
    }

    /// The event in a request that a sink got, in binary mode.
    pub fn received(parts: &Parts, body: &Bytes) -> Self {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut attributes: Vec<_> = parts
            .headers
            .iter()
            .filter_map(|(name, value)| {
                Some((name.as_str().strip_prefix("ce-")?.to_owned(), decode(&text(value))))
            })
            .collect();
        attributes.sort_unstable();
        let content_type = parts.headers.get("content-type").map(text).unwrap_or_default();
        Self { attributes, content_type, data: body.clone() }
    }

    pub fn id(&self) -> Option<EventId> {
        self.attributes.iter().find(|(name, _)| name == "id")?.1.parse().ok()
    }
}

fn post(content_type: &str) -> Builder {
    Request::post("/events").header("host", "broker").header("content-type", content_type)
}

/// Percent-encoding as the HTTP binding wants it.
fn encode(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'!'..=b'~' if byte != b'%' && byte != b'"' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    encoded.collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let escaped = (*first == b'%')
            .then(|| others.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &others[2..] } else { others };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
