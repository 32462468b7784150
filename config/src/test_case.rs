//! `tests`: what is expected of the triggers, for `sluice test`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use sluice_schemas::Event;

use crate::diagnostic::{Problems, quoted};
use crate::keys::{Keys, choice, duration, list, one_of, text, texts, whole, wrong};
use crate::place::Place;
use crate::template::read_json;
use crate::tree::{Entry, Node, Value};
use crate::trigger::ENTRY_POINTS;

pub(crate) const TEST_KEYS: &[&str] =
    &["name", "event", "record", "via", "becomes", "expect", "because", "requests", "deliveries"];
pub(crate) const RECORD_KEYS: &[&str] = &["key", "topic", "subject", "headers", "body"];
pub(crate) const EXPECT_KEYS: &[&str] = &["include", "exclude"];
pub(crate) const REQUEST_KEYS: &[&str] = &["method", "url", "headers", "body"];
pub(crate) const DELIVERY_KEYS: &[&str] = &["answers", "attempts", "ends"];
/// How a delivery can end at the hands of a sink.
pub(crate) const ENDS: &[(&str, Ends)] = &[
    ("delivered", Ends::Delivered),
    ("dead", Ends::Dead),
    ("attempts", Ends::DeadOf("attempts")),
    ("age", Ends::DeadOf("age")),
    ("rejected", Ends::DeadOf("rejected")),
    ("gone", Ends::DeadOf("gone")),
    ("reply", Ends::DeadOf("reply")),
    ("transform", Ends::DeadOf("transform")),
];
const EVENT_FILE_BYTES_MAX: u64 = 64 << 20;
const STORY_MAX: Duration = Duration::from_secs(3650 * 86_400);

/// One entry of `tests`.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    pub name: String,
    pub place: Place,
    pub given: Given,
    /// How the event came in: `http`, or a source.
    pub via: String,
    pub triggers: Option<ExpectedTriggers>,
    /// By trigger, a text in the message of the predicate that fails.
    pub because: Vec<(String, String)>,
    pub requests: Vec<(String, ExpectedRequest)>,
    pub deliveries: Vec<(String, Story)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    Event(Event),
    /// What a source receives; and the fields of the event it becomes, of which null is absent.
    Record {
        record: GivenRecord,
        becomes: Map<String, Json>,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct GivenRecord {
    pub key: Option<String>,
    pub topic: Option<String>,
    pub subject: Option<String>,
    pub headers: Vec<(String, String)>,
    /// `None` is a tombstone.
    pub body: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedTriggers {
    Exactly(Vec<String>),
    Partly { include: Vec<String>, exclude: Vec<String> },
}

/// What a sink gets, as far as it is named.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExpectedRequest {
    pub method: Option<String>,
    pub url: Option<String>,
    /// `None`: the header is not there.
    pub headers: Vec<(String, Option<String>)>,
    /// Text as it is sent, or JSON of any spelling.
    pub body: Option<ExpectedBody>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ExpectedBody {
    Text(String),
    Json(Json),
}

/// A delivery to a scripted sink on virtual time.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    /// At least one; the last repeats.
    pub answers: Vec<ScriptedAnswer>,
    /// When the attempts begin, from the first.
    pub attempts: Option<Vec<Duration>>,
    pub ends: Option<Ends>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptedAnswer {
    Status(u16),
    /// Nothing comes until the attempt is given up.
    Timeout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    Delivered,
    Dead,
    /// A dead letter with this reason.
    DeadOf(&'static str),
}

impl Ends {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::DeadOf(reason) => reason,
        }
    }
}

/// What tests can name.
pub(crate) struct Known<'n> {
    pub triggers: Vec<&'n str>,
    pub sources: Vec<&'n str>,
    pub folders: &'n [PathBuf],
    pub purpose: Purpose,
}

/// What a configuration is read for. A broker runs without the files that hold events for tests.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Purpose {
    Run,
    Test,
}

pub(crate) fn read_tests(node: &Node, known: &Known<'_>, problems: &mut Problems) -> Vec<Test> {
    if node.is_null() {
        return Vec::new();
    }
    let items = list("tests", node, problems).unwrap_or_default();
    items.iter().enumerate().filter_map(|(n, item)| read_test(n, item, known, problems)).collect()
}

fn read_test(n: usize, node: &Node, known: &Known<'_>, problems: &mut Problems) -> Option<Test> {
    let keys = Keys::of(node, "a test", TEST_KEYS, problems)?;
    let name = match keys.get("name") {
        Some(node) => text("name", node, problems)?.to_owned(),
        None => format!("test {}", n + 1),
    };
    let via = keys.get("via").map(|node| read_via(node, known, problems));
    let given = match (keys.entry("event"), keys.entry("record")) {
        (Some(event), None) => {
            if let Some(becomes) = keys.entry("becomes") {
                problems.error(becomes.key_at, "`becomes` is about a `record`: an event stays what it is");
            }
            read_event(&event.value, known, problems).map(Given::Event)
        }
        (None, Some(record)) => {
            if via.is_none() {
                problems.error(record.key_at, "a `record` needs `via`, the source that receives it");
            }
            let becomes = keys.get("becomes").map(|node| read_object("becomes", node, problems));
            let becomes = becomes.unwrap_or_else(|| Some(Map::new()));
            read_record(&record.value, problems)
                .zip(becomes)
                .map(|(record, becomes)| Given::Record { record, becomes })
        }
        (Some(_), Some(record)) => {
            problems.error(record.key_at, "a test has an `event` or a `record`, not both");
            None
        }
        (None, None) => {
            problems.error(node.at, "a test needs an `event`, or a `record` with `via`");
            None
        }
    };
    let triggers = keys.get("expect").map(|node| read_expected(node, known, problems));
    let because = by_trigger("because", keys.get("because"), known, problems, |name, node, problems| {
        text(name, node, problems).map(str::to_owned)
    });
    let requests = by_trigger("requests", keys.get("requests"), known, problems, read_request);
    let deliveries = by_trigger("deliveries", keys.get("deliveries"), known, problems, read_story);
    if ["expect", "because", "requests", "deliveries", "becomes"].iter().all(|key| keys.get(key).is_none()) {
        let message = format!("test {} expects nothing: add `expect`, for one", quoted(&name));
        problems.error(node.at, message);
    }
    Some(Test {
        name,
        place: problems.place_of(node.at),
        given: given?,
        via: via.unwrap_or_else(|| Some("http".into()))?,
        triggers: triggers.map_or(Some(None), |triggers| triggers.map(Some))?,
        because,
        requests,
        deliveries,
    })
}

fn read_via(node: &Node, known: &Known<'_>, problems: &mut Problems) -> Option<String> {
    let name = text("via", node, problems)?;
    let names: Vec<&str> = ENTRY_POINTS.iter().chain(&known.sources).copied().collect();
    if let Err(why) = is_among(name, "source", &names) {
        wrong("via", node, &why, problems);
        return None;
    }
    Some(name.to_owned())
}

/// Says which name was probably meant.
fn is_among(name: &str, what: &str, names: &[&str]) -> Result<String, String> {
    if names.contains(&name) {
        return Ok(name.to_owned());
    }
    let distance = |known: &&str| strsim::damerau_levenshtein(name, known);
    let near =
        names.iter().copied().min_by_key(distance).filter(|near| distance(near) <= (near.len() / 3).max(1));
    Err(match near {
        Some(near) => format!("no such {what} (did you mean `{near}`?)"),
        None if names.is_empty() => format!("no such {what}: there is none"),
        None if names.len() > 20 => format!("no such {what}"),
        None => format!("no such {what}: expected {}", one_of(names)),
    })
}

/// An event of the JSON format in YAML, or the name of a file with one. `specversion`, `id` and `source` have defaults.
fn read_event(node: &Node, known: &Known<'_>, problems: &mut Problems) -> Option<Event> {
    let mut members = match &node.value {
        Value::Scalar(_) if !node.is_null() => {
            let name = text("event", node, problems)?;
            if known.purpose == Purpose::Run {
                return None;
            }
            read_event_file(name, node, known, problems)?
        }
        Value::Scalar(_) | Value::List(_) | Value::Map(_) => read_object("event", node, problems)?,
    };
    for (name, default) in [("specversion", "1.0"), ("id", "test"), ("source", "/test")] {
        members.entry(name).or_insert_with(|| json!(default));
    }
    let bytes = Json::Object(members).to_string().into_bytes();
    match sluice_schemas::json::decode(&bytes.into()) {
        Ok(event) => Some(event),
        Err(error) => {
            problems.error(node.at, format!("`event` is no CloudEvent: {error}"));
            None
        }
    }
}

fn read_event_file(
    name: &str,
    node: &Node,
    known: &Known<'_>,
    problems: &mut Problems,
) -> Option<Map<String, Json>> {
    let path = known.folders.get(node.at.file).map_or_else(|| name.into(), |folder| folder.join(name));
    let read = || -> Result<Map<String, Json>, String> {
        let unreadable = |error: std::io::Error| format!("cannot read the file: {error}");
        if std::fs::metadata(&path).map_err(unreadable)?.len() > EVENT_FILE_BYTES_MAX {
            return Err(format!("the file has more than {} MiB", EVENT_FILE_BYTES_MAX >> 20));
        }
        let bytes = std::fs::read(&path).map_err(unreadable)?;
        serde_json::from_slice(&bytes).map_err(|error| format!("the file holds no JSON object: {error}"))
    };
    read().map_err(|why| problems.error(node.at, format!("`event`: {}: {why}", quoted(name)))).ok()
}

fn read_object(name: &str, node: &Node, problems: &mut Problems) -> Option<Map<String, Json>> {
    match read_json(name, node, problems)? {
        Json::Object(members) => Some(members),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
            wrong(name, node, "expected a mapping such as { type: ... }", problems);
            None
        }
    }
}

fn read_record(node: &Node, problems: &mut Problems) -> Option<GivenRecord> {
    let keys = Keys::of(node, "`record`", RECORD_KEYS, problems)?;
    let mut plain = |key: &str| {
        let node = keys.get(key)?;
        text(key, node, problems).map(str::to_owned)
    };
    let (key, topic, subject) = (plain("key"), plain("topic"), plain("subject"));
    let mut headers = Vec::new();
    for (name, value) in
        keys.get("headers").and_then(|node| read_object("headers", node, problems)).into_iter().flatten()
    {
        headers.push((name, plain_text(&value)));
    }
    let body = match keys.get("body").map(|node| read_json("body", node, problems)) {
        None | Some(Some(Json::Null)) => None,
        Some(None) => return None,
        Some(Some(body)) => Some(plain_text(&body)),
    };
    Some(GivenRecord { key, topic, subject, headers, body })
}

fn plain_text(json: &Json) -> String {
    match json {
        Json::String(text) => text.clone(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => json.to_string(),
    }
}

fn read_expected(node: &Node, known: &Known<'_>, problems: &mut Problems) -> Option<ExpectedTriggers> {
    let names = |key: &str, node: &Node, problems: &mut Problems| {
        texts(key, node, |name| is_among(name, "trigger", &known.triggers), problems)
    };
    match &node.value {
        Value::List(_) => Some(ExpectedTriggers::Exactly(names("expect", node, problems))),
        Value::Map(_) => {
            let keys = Keys::of(node, "`expect`", EXPECT_KEYS, problems)?;
            let mut part =
                |key: &str| keys.get(key).map(|node| names(key, node, problems)).unwrap_or_default();
            Some(ExpectedTriggers::Partly { include: part("include"), exclude: part("exclude") })
        }
        Value::Scalar(_) => {
            wrong(
                "expect",
                node,
                "expected a list of triggers, or { include: [...], exclude: [...] }",
                problems,
            );
            None
        }
    }
}

/// A mapping from triggers to something.
fn by_trigger<T>(
    name: &str,
    node: Option<&Node>,
    known: &Known<'_>,
    problems: &mut Problems,
    mut read: impl FnMut(&str, &Node, &mut Problems) -> Option<T>,
) -> Vec<(String, T)> {
    let Some(node) = node else { return Vec::new() };
    let Value::Map(entries) = &node.value else {
        wrong(name, node, "expected a mapping from triggers", problems);
        return Vec::new();
    };
    let mut all = Vec::new();
    for Entry { key, key_at, value } in entries {
        match is_among(key, "trigger", &known.triggers) {
            Ok(trigger) => {
                let one = read(&format!("{name}.{key}"), value, problems);
                all.extend(one.map(|one| (trigger, one)));
            }
            Err(why) => problems.error(*key_at, format!("`{name}`: {why}, found {}", quoted(key))),
        }
    }
    all
}

fn read_request(name: &str, node: &Node, problems: &mut Problems) -> Option<ExpectedRequest> {
    let keys = Keys::of(node, &format!("`{name}`"), REQUEST_KEYS, problems)?;
    let mut plain = |key: &str| {
        let node = keys.get(key)?;
        text(key, node, problems).map(str::to_owned)
    };
    let (method, url) = (plain("method"), plain("url"));
    let headers =
        keys.get("headers").and_then(|node| read_object("headers", node, problems)).unwrap_or_default();
    let headers = headers.into_iter().map(|(name, value)| {
        let value = if value.is_null() { None } else { Some(plain_text(&value)) };
        (name.to_ascii_lowercase(), value)
    });
    let body = match keys.get("body").map(|node| read_json("body", node, problems)) {
        None => None,
        Some(Some(Json::String(text))) => Some(ExpectedBody::Text(text)),
        Some(json) => Some(ExpectedBody::Json(json?)),
    };
    Some(ExpectedRequest { method, url, headers: headers.collect(), body })
}

fn read_story(name: &str, node: &Node, problems: &mut Problems) -> Option<Story> {
    let keys = Keys::of(node, &format!("`{name}`"), DELIVERY_KEYS, problems)?;
    let Some(answers) = keys.get("answers") else {
        problems.error(node.at, format!("`{name}` needs `answers`, such as [503, timeout, 200]"));
        return None;
    };
    let scripted: Vec<_> =
        list("answers", answers, problems)?.iter().map(|item| read_answer(item, problems)).collect();
    if scripted.is_empty() {
        problems.error(answers.at, "`answers` is empty: expected such as [503, timeout, 200]");
        return None;
    }
    let attempts = match keys.get("attempts") {
        Some(node) => {
            let items = list("attempts", node, problems)?;
            let read = |item| duration("attempts", item, Duration::ZERO..=STORY_MAX, problems);
            Some(items.iter().map(read).collect::<Option<Vec<_>>>()?)
        }
        None => None,
    };
    let ends = keys.get("ends").map(|node| choice("ends", node, ENDS, problems));
    if attempts.is_none() && ends.is_none() {
        problems.error(node.at, format!("`{name}` expects nothing: add `attempts` or `ends`"));
    }
    Some(Story {
        answers: scripted.into_iter().collect::<Option<_>>()?,
        attempts,
        ends: ends.map_or(Some(None), |ends| ends.map(Some))?,
    })
}

fn read_answer(node: &Node, problems: &mut Problems) -> Option<ScriptedAnswer> {
    if let Value::Scalar(scalar) = &node.value
        && scalar.text == "timeout"
    {
        return Some(ScriptedAnswer::Timeout);
    }
    let is_number =
        matches!(&node.value, Value::Scalar(scalar) if scalar.text.bytes().all(|byte| byte.is_ascii_digit()));
    if !is_number || node.is_null() {
        wrong("answers", node, "expected a status such as 503, or timeout", problems);
        return None;
    }
    whole("answers", node, 200..=599, problems)
        .and_then(|status| u16::try_from(status).ok())
        .map(ScriptedAnswer::Status)
}
