//! Triggers and the defaults that hold for all of them.

use std::path::{Path, PathBuf};

use crate::delivery::DeliveryFields;
use crate::diagnostic::{Problems, quoted};
use crate::filter::read_filters;
use crate::keys::{Keys, is_name, text, texts, wrong};
use crate::model::{Sink, Start, Trigger};
use crate::place::Places;
use crate::sink::{Headers, read_headers, read_sink, with_default_headers};
use crate::source::check_reference;
use crate::transform::read_transform;
use crate::tree::{Entry, Node, Value};

pub(crate) const TRIGGER_KEYS: &[&str] =
    &["sources", "filters", "transform", "sink", "delivery", "dead_letter", "start"];
pub(crate) const DEFAULTS_KEYS: &[&str] = &["delivery", "dead_letter", "headers"];
/// Entry points that exist without being configured.
pub(crate) const ENTRY_POINTS: &[&str] = &["http", "reply"];

/// `defaults`: what a trigger has where it says nothing itself.
#[derive(Default)]
pub(crate) struct Defaults {
    delivery: DeliveryFields,
    dead_letter: Option<Sink>,
    headers: Headers,
}

impl Defaults {
    pub fn read(node: &Node, folders: &[PathBuf], problems: &mut Problems) -> Self {
        let Some(keys) = Keys::of(node, "`defaults`", DEFAULTS_KEYS, problems) else {
            return Self::default();
        };
        let delivery = keys.get("delivery");
        let headers = keys.get("headers");
        Self {
            delivery: delivery
                .map(|node| DeliveryFields::read(node, "`defaults.delivery`", problems))
                .unwrap_or_default(),
            dead_letter: keys
                .get("dead_letter")
                .and_then(|node| sink_of("dead_letter", node, folders, problems)),
            headers: headers.map(|node| read_headers("headers", node, problems)).unwrap_or_default(),
        }
    }
}

/// Reads one entry of `triggers`.
pub(crate) fn read_trigger(
    entry: &Entry,
    defaults: &Defaults,
    known_sources: &[&str],
    folders: &[PathBuf],
    problems: &mut Problems,
) -> Option<Trigger> {
    let name = entry.key.as_str();
    if !is_name(name) {
        let message = format!("{} is not a trigger name: 1 to 63 of a-z, 0-9 and -", quoted(name));
        problems.error(entry.key_at, message);
    }
    let what = format!("trigger {}", quoted(name));
    let keys = Keys::of(&entry.value, &what, TRIGGER_KEYS, problems)?;
    let mut places = Places::default();
    if let Some(node) = keys.get("sources") {
        places.add("sources", problems.place_of(node.at));
    }
    for key in ["sink", "dead_letter"] {
        if let Some(node) = keys.get(key) {
            places.add(key, problems.place_of(node.at));
        }
    }
    let sources = keys.get("sources").map(|node| read_sources(node, known_sources, problems));
    let transform = keys.get("transform").map(|node| read_transform(node, problems));
    let filters = keys.get("filters").map(|node| read_filters(node, &mut places, problems));
    let sink = match keys.get("sink") {
        Some(node) => sink_of("sink", node, folders, problems),
        None => {
            problems.error(entry.key_at, format!("{what} has no `sink`"));
            None
        }
    };
    let delivery = keys.get("delivery");
    let delivery = delivery
        .map(|node| DeliveryFields::read(node, &format!("`delivery` of {what}"), problems))
        .unwrap_or_default()
        .over(&defaults.delivery, problems);
    let dead_letter = match keys.get("dead_letter") {
        Some(node) => sink_of("dead_letter", node, folders, problems),
        None => defaults.dead_letter.clone(),
    };
    let start = keys.get("start").and_then(|node| read_start(node, problems));
    let mut sink = sink?;
    with_default_headers(&mut sink, &defaults.headers);
    Some(Trigger {
        sources,
        filters: filters.unwrap_or_else(|| Some(Vec::new()))?,
        transform: transform.map_or(Some(None), |transform| transform.map(Some))?,
        sink,
        delivery,
        dead_letter,
        start: start.unwrap_or(Start::Latest),
        places,
    })
}

fn sink_of(name: &str, node: &Node, folders: &[PathBuf], problems: &mut Problems) -> Option<Sink> {
    let folder = folders.get(node.at.file).map_or(Path::new(""), PathBuf::as_path);
    read_sink(name, node, folder, problems)
}

fn read_sources(node: &Node, known: &[&str], problems: &mut Problems) -> Vec<String> {
    if let Value::List(items) = &node.value
        && items.is_empty()
    {
        problems.error(node.at, "`sources` is empty, so nothing would match: leave it out for every source");
    }
    texts("sources", node, |name| check_reference(name, known), problems)
}

fn read_start(node: &Node, problems: &mut Problems) -> Option<Start> {
    let text = text("start", node, problems)?;
    match text {
        "latest" => return Some(Start::Latest),
        "earliest" => return Some(Start::Earliest),
        _ => {}
    }
    // RFC 3339 has a `T` and an offset; the parser alone would take more.
    let is_rfc_3339 =
        text.len() >= 20 && text.as_bytes()[10].eq_ignore_ascii_case(&b'T') && !text.contains('[');
    let instant = text.parse::<jiff::Timestamp>().ok().filter(|_| is_rfc_3339);
    if instant.is_none() {
        let why = "expected latest, earliest or an RFC 3339 time such as 2026-01-31T12:00:00Z";
        wrong("start", node, why, problems);
    }
    instant.map(|instant| Start::At(instant.as_millisecond()))
}
