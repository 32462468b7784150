//! Runs the cases of `tests/conformance` through `http::decode`. Its README says what a case is.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use sluice_schemas::http::{self as binding, Limits};
use sluice_schemas::{DataForm, Event};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    rule: String,
    request: Request,
    expect: Expected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    headers: BTreeMap<String, Header>,
    body: Option<Text>,
    body_base64: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Header {
    Text(String),
    Bytes { base64: String },
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Whole(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Part {
    Text(String),
    Repeated { repeat: String, times: usize },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    status: u16,
    attributes: Option<BTreeMap<String, String>>,
    data: Option<Text>,
    data_base64: Option<String>,
    events: Option<Vec<ExpectedEvent>>,
    names: Option<String>,
    says: Option<String>,
    index: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedEvent {
    attributes: BTreeMap<String, String>,
    data: Option<Text>,
    data_base64: Option<String>,
}

/// What a sink in binary mode sees of an event.
type Seen = (BTreeMap<String, String>, Option<Bytes>);

impl Text {
    fn bytes(&self) -> Bytes {
        match self {
            Self::Whole(text) => text.clone().into(),
            Self::Parts(parts) => parts.iter().map(Part::text).collect::<String>().into(),
        }
    }
}

impl Part {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Repeated { repeat, times } => repeat.repeat(*times),
        }
    }
}

impl Request {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, header) in &self.headers {
            let values = match header {
                Header::Text(text) => vec![text.clone().into_bytes()],
                Header::Bytes { base64 } => vec![decode(base64).to_vec()],
                Header::Several(texts) => texts.iter().map(|text| text.clone().into_bytes()).collect(),
            };
            for value in values {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, HeaderValue::from_bytes(&value).unwrap());
            }
        }
        headers
    }
}

impl Expected {
    fn events(&self) -> Vec<Seen> {
        if let Some(events) = &self.events {
            return events.iter().map(|e| (e.attributes.clone(), bytes(&e.data, &e.data_base64))).collect();
        }
        vec![(self.attributes.clone().unwrap(), bytes(&self.data, &self.data_base64))]
    }

    fn is_explained_by(&self, text: &str) -> bool {
        match (&self.names, &self.says) {
            (Some(name), None) => text.contains(&format!("`{name}`")),
            (None, Some(words)) => text.contains(words),
            (None, None) | (Some(_), Some(_)) => false,
        }
    }
}

fn bytes(text: &Option<Text>, base64: &Option<String>) -> Option<Bytes> {
    text.as_ref().map(Text::bytes).or_else(|| base64.as_deref().map(decode))
}

fn decode(base64: &str) -> Bytes {
    BASE64_STANDARD.decode(base64).unwrap().into()
}

fn seen(event: &Event) -> Seen {
    let attributes = event.attributes().map(|(name, value)| (name.to_owned(), value.text.to_string()));
    let mut attributes: BTreeMap<_, _> = attributes.collect();
    if event.data().is_some_and(|data| data.form == DataForm::ImpliedJson) {
        attributes.insert("datacontenttype".to_owned(), "application/json".to_owned());
    }
    (attributes, event.data().map(|data| data.bytes.clone()))
}

/// Says what is wrong with the outcome of a case, if anything is.
fn fault(case: &Case) -> Option<String> {
    let body = bytes(&case.request.body, &case.request.body_base64).unwrap_or_default();
    let outcome = binding::decode(&case.request.headers(), body, &Limits::default());
    match outcome {
        Ok(decoded) if case.expect.status != 202 => Some(format!("accepted {} events", decoded.events.len())),
        Ok(decoded) => {
            let found: Vec<Seen> = decoded.events.iter().map(seen).collect();
            (found != case.expect.events()).then(|| format!("found {found:?}"))
        }
        Err(rejection) => {
            let text = rejection.to_string();
            let is_expected = rejection.status() == case.expect.status
                && rejection.index() == case.expect.index
                && case.expect.is_explained_by(&text);
            (!is_expected)
                .then(|| format!("refused with {}, {:?}: {text}", rejection.status(), rejection.index()))
        }
    }
}

fn check(file: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance").join(file);
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let report = |case: &Case| fault(case).map(|fault| format!("{} ({}): {fault}", case.name, case.rule));
    let faults: Vec<String> = cases.iter().filter_map(report).collect();
    assert!(!cases.is_empty() && faults.is_empty(), "{file}:\n{}", faults.join("\n"));
}

#[test]
fn modes_follow_the_content_type() {
    check("modes.json");
}

#[test]
fn binary_headers_are_decoded() {
    check("binary_headers.json");
}

#[test]
fn attributes_are_validated() {
    check("attributes.json");
}

#[test]
fn the_json_format_is_read() {
    check("json_format.json");
}

#[test]
fn batches_are_all_or_nothing() {
    check("batches.json");
}
