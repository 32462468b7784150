//! The `tests:` of a configuration, run without a broker: the same filters, transforms, requests and retry policy, on an
//! event that nobody sent and a clock that nobody waits for.

mod request;
mod story;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};
use sluice_adapters::Record;
use sluice_config::{Config, ExpectedTriggers, Given, GivenRecord, Test, Trigger};
use sluice_language::Facts;
use sluice_schemas::Event;

use crate::explain::{Asked, Candidate, Verdict};
use crate::transform::{self, Failed, Pool};

/// What came of one test.
#[derive(Debug, Serialize)]
pub struct Report {
    pub name: String,
    /// `FILE:LINE:COLUMN`.
    pub at: String,
    pub passed: bool,
    pub failures: Vec<Difference>,
}

/// Something that is not as expected.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `triggers`, `requests.NAME.body`, ...
    pub what: String,
    pub expected: String,
    pub actual: String,
}

impl Difference {
    fn new(what: impl Into<String>, expected: impl Into<String>, actual: impl Into<String>) -> Self {
        Self { what: what.into(), expected: expected.into(), actual: actual.into() }
    }
}

/// Runs one test.
pub async fn run(test: &Test, config: &Config, pool: &Pool) -> Report {
    let failures = match given(test, config) {
        Ok((event, mut failures)) => {
            failures.extend(Trial { test, config, pool, event }.differences().await);
            failures
        }
        Err(difference) => vec![difference],
    };
    Report { name: test.name.clone(), at: test.place.to_string(), passed: failures.is_empty(), failures }
}

/// The event of a test, and how it differs from what a record was to become.
fn given(test: &Test, config: &Config) -> Result<(Event, Vec<Difference>), Difference> {
    let (record, becomes) = match &test.given {
        Given::Event(event) => return Ok((event.clone(), Vec::new())),
        Given::Record { record, becomes } => (record, becomes),
    };
    let refused = |why: String| Difference::new("record", "an event", format!("none: {why}"));
    let event = event_of(record, &test.via, config).map_err(refused)?;
    let differences = differences_of_fields(&event, becomes);
    Ok((event, differences))
}

/// What a source makes of a record. A batch cannot be tested: its events have nothing to do with each other.
fn event_of(record: &GivenRecord, via: &str, config: &Config) -> Result<Event, String> {
    let source = config.sources.get(via).ok_or_else(|| format!("there is no source `{via}`"))?;
    let mut record = Record {
        topic: record.topic.clone(),
        subject: record.subject.clone(),
        key: record.key.clone().map(Bytes::from),
        headers: record.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect(),
        body: record.body.clone().map(Bytes::from),
        ..Record::default()
    };
    let opened = sluice_adapters::open(via, source).map_err(|error| error.to_string())?;
    record.position = opened.position(&record);
    let events = opened.to_events(&record).map_err(|unfit| unfit.detail)?;
    let count = events.len();
    <[Event; 1]>::try_from(events)
        .map(|[event]| event)
        .map_err(|_| format!("a batch of {count} events cannot be tested"))
}

fn differences_of_fields(event: &Event, expected: &Map<String, Value>) -> Vec<Difference> {
    let encoded: Map<String, Value> =
        serde_json::from_slice(&sluice_schemas::json::encode(event)).unwrap_or_default();
    let data = event.data().and_then(|data| serde_json::from_slice(&data.bytes).ok());
    let mut differences = Vec::new();
    for (name, expected) in expected {
        // Data that is JSON is that, whatever its content type says.
        let actual = if name == "data" { data.as_ref().or(encoded.get(name)) } else { encoded.get(name) };
        if actual.unwrap_or(&Value::Null) != expected {
            let shown = actual.map_or("absent".into(), Value::to_string);
            let expected = if expected.is_null() { "absent".into() } else { expected.to_string() };
            differences.push(Difference::new(format!("becomes.{name}"), expected, shown));
        }
    }
    differences
}

/// A test that has its event.
struct Trial<'t> {
    test: &'t Test,
    config: &'t Config,
    pool: &'t Pool,
    event: Event,
}

impl Trial<'_> {
    async fn differences(&self) -> Vec<Difference> {
        let asked = Asked { event: &self.event, via: &self.test.via, offset: None };
        let facts = Facts::of(&self.event);
        let candidates =
            self.config.triggers.iter().map(|(name, trigger)| Candidate::of_config(name, trigger));
        let verdicts: Vec<Verdict> = candidates.map(|candidate| candidate.explain(&asked, &facts)).collect();
        let mut differences = Vec::new();
        if let Some(expected) = &self.test.triggers {
            differences.extend(differences_of_triggers(expected, &verdicts));
        }
        for (name, text) in &self.test.because {
            differences.extend(difference_of_cause(name, text, &verdicts));
        }
        for (name, expected) in &self.test.requests {
            let what = format!("requests.{name}");
            match self.delivered(name, &verdicts).await {
                Ok((trigger, event)) => {
                    differences.extend(request::differences(&what, expected, trigger, &event));
                }
                Err(why) => differences.push(Difference::new(what, "a request", format!("none: {why}"))),
            }
        }
        for (name, expected) in &self.test.deliveries {
            let what = format!("deliveries.{name}");
            let Some(trigger) = self.config.triggers.get(name) else { continue };
            let transformed = match self.delivered(name, &verdicts).await {
                Ok(_) => Ok(()),
                Err(Undelivered::Transform(why)) => Err(why),
                Err(why) => {
                    differences.push(Difference::new(what, "a delivery", format!("none: {why}")));
                    continue;
                }
            };
            let told = story::tell(trigger, &self.config.limits, &expected.answers, transformed);
            differences.extend(story::differences(&what, expected, &told));
        }
        differences
    }

    /// A trigger that matches, and the event that its sink gets.
    async fn delivered(&self, name: &str, verdicts: &[Verdict]) -> Result<(&Trigger, Event), Undelivered> {
        let verdict = verdicts.iter().find(|verdict| verdict.trigger == name);
        let message = |verdict: &Verdict| verdict.failed.as_ref().map(|failed| failed.message.clone());
        if let Some(message) = verdict.and_then(message) {
            return Err(Undelivered::NoMatch(message));
        }
        let Some(trigger) = self.config.triggers.get(name) else {
            return Err(Undelivered::NoMatch("there is no such trigger".into()));
        };
        let Some(transform) = &trigger.transform else { return Ok((trigger, self.event.clone())) };
        match transform::apply(self.pool, transform, &self.event).await {
            Ok(event) => Ok((trigger, event)),
            Err(Failed::Always(why)) => Err(Undelivered::Transform(why)),
            Err(error @ Failed::NotNow(_)) => Err(Undelivered::NotNow(error.to_string())),
        }
    }
}

/// Why a sink gets nothing.
#[derive(Debug, thiserror::Error)]
enum Undelivered {
    #[error("the trigger does not match: {0}")]
    NoMatch(String),
    #[error("the transformation failed: {0}")]
    Transform(String),
    #[error("{0}")]
    NotNow(String),
}

fn differences_of_triggers(expected: &ExpectedTriggers, verdicts: &[Verdict]) -> Vec<Difference> {
    let matched: Vec<&str> =
        verdicts.iter().filter(|verdict| verdict.matched).map(|verdict| &*verdict.trigger).collect();
    let is_expected = |name: &str| match expected {
        ExpectedTriggers::Exactly(names) => Some(names.iter().any(|known| known == name)),
        ExpectedTriggers::Partly { include, .. } if include.iter().any(|known| known == name) => Some(true),
        ExpectedTriggers::Partly { exclude, .. } if exclude.iter().any(|known| known == name) => Some(false),
        ExpectedTriggers::Partly { .. } => None,
    };
    let mut differences = Vec::new();
    for verdict in verdicts {
        let what = format!("expect.{}", verdict.trigger);
        match (is_expected(&verdict.trigger), &verdict.failed) {
            (Some(true), Some(failed)) => {
                let place = failed.at.as_ref().map(|at| format!(" ({at})")).unwrap_or_default();
                differences.push(Difference::new(
                    what,
                    "a match",
                    format!("none: {}{place}", failed.message),
                ));
            }
            (Some(false), None) => {
                let all = format!("a match; those that match: {}", matched.join(", "));
                differences.push(Difference::new(what, "no match", all));
            }
            (Some(true), None) | (Some(false), Some(_)) | (None, _) => {}
        }
    }
    differences
}

fn difference_of_cause(name: &str, text: &str, verdicts: &[Verdict]) -> Option<Difference> {
    let verdict = verdicts.iter().find(|verdict| verdict.trigger == name)?;
    let actual = match &verdict.failed {
        Some(failed) if failed.message.contains(text) => return None,
        Some(failed) => failed.message.clone(),
        None => "a match".into(),
    };
    Some(Difference::new(format!("because.{name}"), format!("no match, because … {text} …"), actual))
}

/// Data of a test in one line, for a difference.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| format!("{} bytes that are no text", bytes.len()))
}
