//! Sinks that answer as they are told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::event;
use super::timeline::{Line, Timeline};
use crate::delivery::Answered;
use crate::sink::scripted::{Play, Script};
use crate::store::clock;

/// What a sink answers: the sink's host, the event's id and the number of the request for it, from 1, to one of `200`,
/// `503 retry-after 9`, `200 after 5s`, `hang`, `200 reply ID TYPE` (`+1`: the number after the event's id).
pub type Answers = Box<dyn Fn(&str, &str, usize) -> &'static str + Send + Sync>;

/// Counts the requests for each event, and says what dead-letter sinks get.
pub fn script(answers: Answers, timeline: &Timeline) -> Script {
    let counts: Mutex<HashMap<(String, String), usize>> = Mutex::default();
    let timeline = timeline.clone();
    Arc::new(move |url, event| {
        let sink = url.trim_start_matches("http://").trim_end_matches('/');
        let attempt = {
            let mut counts = counts.lock().unwrap();
            let count = counts.entry((sink.to_owned(), event.id().to_owned())).or_default();
            *count += 1;
            *count
        };
        let answer = answers(sink, event.id(), attempt);
        if let (Some(reason), Some(attempts)) = (event.text("sluicereason"), event.text("sluiceattempts")) {
            let text =
                format!("{sink} gets dead letter {}: {reason}, attempts {attempts} -> {answer}", event.id());
            timeline.add(clock::steady_ms(), Line::Text(text));
        }
        play(answer, event.id())
    })
}

fn play(answer: &str, id: &str) -> Play {
    let (mut after, mut headers, mut body) = (Duration::ZERO, HeaderMap::new(), Bytes::new());
    let mut words = answer.split_whitespace();
    let first = words.next().unwrap();
    if first == "hang" {
        return Play { after, answered: None };
    }
    let status = StatusCode::from_bytes(first.as_bytes()).unwrap();
    while let Some(word) = words.next() {
        let next = words.next().unwrap();
        match word {
            "after" => after = next.trim_end_matches('s').parse().map(Duration::from_secs).unwrap(),
            "retry-after" => drop(headers.insert(header::RETRY_AFTER, next.parse().unwrap())),
            "reply" => {
                let id = match next {
                    "+1" => (id.parse::<u32>().unwrap() + 1).to_string(),
                    _ => next.to_owned(),
                };
                let reply = event(&id, words.next().unwrap(), None);
                let (content_type, structured) = sluice_schemas::http::encode_structured(&reply);
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
                body = structured;
            }
            _ => panic!("`{answer}` is no answer: `{word}`"),
        }
    }
    Play { after, answered: Some(Answered { status, headers, body, is_cut: false }) }
}
