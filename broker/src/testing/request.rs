//! The HTTP request that a sink would get, from the code that sends it.

use serde_json::Value;
use sluice_config::{ExpectedBody, ExpectedRequest, Sink as Configured, Trigger};
use sluice_schemas::Event;

use super::{Difference, shown};
use crate::sink::Sink;

/// How the request differs from what is expected of it.
pub fn differences(
    what: &str,
    expected: &ExpectedRequest,
    trigger: &Trigger,
    event: &Event,
) -> Vec<Difference> {
    let none = |why: String| vec![Difference::new(what, "a request", format!("none: {why}"))];
    let Configured::Http(configured) = &trigger.sink else {
        return none("the sink is not one for HTTP".into());
    };
    let request = match Sink::open(&trigger.sink, trigger.delivery.concurrency) {
        Ok(Sink::Http(sink)) => sink.request(event, None),
        Ok(_) => return none("the sink is not one for HTTP".into()),
        Err(error) => return none(error.to_string()),
    };
    let (head, body) = match request {
        Ok(request) => request.into_parts(),
        Err(error) => return none(error),
    };
    let mut differences = Vec::new();
    let mut compare = |part: &str, expected: &str, actual: &str, shown: &str| {
        if expected != actual {
            differences.push(Difference::new(format!("{what}.{part}"), expected, shown));
        }
    };
    if let Some(method) = &expected.method {
        compare("method", method, head.method.as_str(), head.method.as_str());
    }
    if let Some(url) = &expected.url {
        compare("url", url, &configured.url, &configured.shown_url());
    }
    for (name, expected) in &expected.headers {
        let value = head.headers.get(name);
        let actual = value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        if actual == *expected {
            continue;
        }
        let absent = || "absent".to_owned();
        let shown = match value {
            Some(value) if value.is_sensitive() => "[hidden]".into(),
            Some(_) | None => actual.unwrap_or_else(absent),
        };
        let expected = expected.clone().unwrap_or_else(absent);
        differences.push(Difference::new(format!("{what}.headers.{name}"), expected, shown));
    }
    differences.extend(expected.body.as_ref().and_then(|expected| body_difference(what, expected, &body)));
    differences
}

fn body_difference(what: &str, expected: &ExpectedBody, actual: &[u8]) -> Option<Difference> {
    let is_same = match expected {
        ExpectedBody::Text(text) => actual == text.as_bytes(),
        ExpectedBody::Json(json) => {
            serde_json::from_slice::<Value>(actual).is_ok_and(|actual| actual == *json)
        }
    };
    let expected = match expected {
        ExpectedBody::Text(text) => text.clone(),
        ExpectedBody::Json(json) => json.to_string(),
    };
    (!is_same).then(|| Difference::new(format!("{what}.body"), expected, shown(actual)))
}
