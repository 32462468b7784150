//! The cases of `tests/conformance` over the wire: published, delivered, and compared at the sink.

use std::collections::BTreeMap;
use std::path::Path;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::Value;

use crate::broker::Broker;
use crate::sink::{Received, Sink};

/// What a sink in binary mode sees of an event.
type Seen = (BTreeMap<String, String>, Bytes);

/// A text, or parts of one: strings, and `{ "repeat": "x", "times": 3 }`.
fn text(value: &Value) -> String {
    let repeated = |part: &Value| {
        let times = part["times"].as_u64().unwrap();
        part["repeat"].as_str().unwrap().repeat(usize::try_from(times).unwrap())
    };
    match value {
        Value::Array(parts) => {
            parts.iter().map(|part| part.as_str().map_or_else(|| repeated(part), str::to_owned)).collect()
        }
        other => other.as_str().unwrap().to_owned(),
    }
}

fn bytes(holder: &Value, plain: &str, coded: &str) -> Bytes {
    if let Some(coded) = holder[coded].as_str() {
        return BASE64_STANDARD.decode(coded).unwrap().into();
    }
    if holder[plain].is_null() { Bytes::new() } else { text(&holder[plain]).into() }
}

fn request_headers(case: &Value) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in case["request"]["headers"].as_object().unwrap() {
        let values: Vec<Vec<u8>> = match value {
            Value::Array(several) => several.iter().map(|one| one.as_str().unwrap().into()).collect(),
            Value::Object(coded) => vec![BASE64_STANDARD.decode(coded["base64"].as_str().unwrap()).unwrap()],
            other => vec![other.as_str().unwrap().into()],
        };
        for value in values {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(&value).unwrap());
        }
    }
    headers
}

fn expected(expect: &Value) -> Vec<Seen> {
    let one = |event: &Value| {
        let attributes = event["attributes"].as_object().unwrap().iter();
        let attributes = attributes.map(|(name, text)| (name.clone(), text.as_str().unwrap().to_owned()));
        (attributes.collect(), bytes(event, "data", "data_base64"))
    };
    expect["events"].as_array().map_or_else(|| vec![one(expect)], |events| events.iter().map(one).collect())
}

/// Decodes the headers of binary mode (CloudEvents HTTP binding, section 3.1.3.2).
fn percent_decoded(value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&first, tail)) = rest.split_first() {
        let coded = (first == b'%').then(|| tail.get(..2)).flatten();
        let decoded = coded.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(decoded.unwrap_or(first));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).unwrap()
}

fn seen(received: &Received) -> Seen {
    let attributes = received.headers.iter().filter_map(|(name, value)| match name.as_str() {
        "content-type" => Some(("datacontenttype".to_owned(), value.to_str().unwrap().to_owned())),
        name => Some((name.strip_prefix("ce-")?.to_owned(), percent_decoded(value.as_bytes()))),
    });
    (attributes.collect(), received.body.clone())
}

/// Says what is wrong with how the broker took a case, if anything is. `sink` has had `before` requests.
async fn fault(broker: &Broker, sink: &Sink, case: &Value, before: usize) -> Option<String> {
    let expect = &case["expect"];
    let body = bytes(&case["request"], "body", "body_base64");
    let answer = broker.post(request_headers(case), body).await;
    let status = u64::from(answer.status.as_u16());
    if expect["status"] != status {
        return Some(format!("answered {status}: {}", answer.text()));
    }
    if status == 202 {
        let wanted = expected(expect);
        let received = sink.wait_for(before + wanted.len()).await;
        let found: Vec<Seen> = received[before..].iter().map(seen).collect();
        return (found != wanted).then(|| format!("the sink got {found:?}, not {wanted:?}"));
    }
    let problem = answer.json();
    let detail = problem["detail"].as_str().unwrap_or_default();
    let is_explained = match (expect["names"].as_str(), expect["says"].as_str()) {
        (Some(name), None) => detail.contains(&format!("`{name}`")),
        (None, Some(words)) => detail.contains(words),
        (None, None) | (Some(_), Some(_)) => false,
    };
    (!is_explained || sink.received().len() != before).then(|| format!("refused with {problem}"))
}

async fn check(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance").join(file);
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let sink = Sink::accepting().await;
    // One at a time, so that a batch arrives in its order.
    let yaml = "duplicates: off\ntriggers: { all: { sink: \"URL\", delivery: { concurrency: 1 } } }";
    let broker = Broker::start(&yaml.replace("URL", &sink.url)).await;
    let mut faults = Vec::new();
    for case in &cases {
        let before = sink.received().len();
        if let Some(fault) = fault(&broker, &sink, case, before).await {
            faults.push(format!("{} ({}): {fault}", case["name"], case["rule"]));
        }
    }
    assert!(!cases.is_empty() && faults.is_empty(), "{file}: {}\n{}", faults.len(), faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_follow_the_content_type() {
    check("modes.json").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_headers_are_decoded() {
    check("binary_headers.json").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_validated() {
    check("attributes.json").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_json_format_is_read() {
    check("json_format.json").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_all_or_nothing() {
    check("batches.json").await;
}
