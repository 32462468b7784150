//! The event a dead-letter sink gets: what was to be delivered, and why it was not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sluice_schemas::{Event, Kind, Value};

use super::{Failure, Reason};

/// Of the answer, or else of the error, before it is encoded: Knative has no more than 1024 bytes of it.
const ERROR_DATA_BYTES: usize = 768;

/// Builds a dead letter's event: Knative's `knativeerror*` attributes and ours; those a publisher sent are replaced.
pub fn dead_letter_event(
    event: &Event,
    trigger: &str,
    sink: &str,
    attempts: u32,
    reason: Reason,
    failure: &Failure,
) -> Event {
    let mut added = vec![("knativeerrordest", Some(sink.to_owned()), Kind::String)];
    added.push(("knativeerrorcode", failure.status.map(|code| code.to_string()), Kind::Integer));
    let told = if failure.body.is_empty() { failure.error.as_bytes() } else { &failure.body };
    let kept = &told[..told.len().min(ERROR_DATA_BYTES)];
    added.push(("knativeerrordata", (!kept.is_empty()).then(|| STANDARD.encode(kept)), Kind::String));
    added.push(("sluicetrigger", Some(trigger.to_owned()), Kind::String));
    added.push(("sluiceattempts", Some(attempts.to_string()), Kind::Integer));
    added.push(("sluicereason", Some(reason.as_str().to_owned()), Kind::String));
    let own = |name: &str| added.iter().any(|(known, ..)| *known == name);
    let mut attributes: Vec<(Box<str>, Value)> = event
        .attributes()
        .filter(|(name, _)| !own(name))
        .map(|(name, value)| (name.into(), value.clone()))
        .collect();
    for (name, text, kind) in added {
        if let Some(text) = text {
            attributes.push((name.into(), Value { text: text.into(), kind }));
        }
    }
    Event::from_stored(attributes, event.data().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_why_and_how_often_and_replaces_what_was_forged() {
        let event =
            Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/s");
        let event = event.attribute("type", "t").attribute("sluiceattempts", "99").build().expect("valid");
        let failure = Failure { status: Some(422), error: "no".into(), body: vec![b'e'; 2000].into() };
        let dead = dead_letter_event(&event, "orders", "http://sink/", 3, Reason::Rejected, &failure);
        assert_eq!(dead.text("sluiceattempts"), Some("3"));
        assert_eq!(dead.text("sluicetrigger"), Some("orders"));
        assert_eq!(dead.text("sluicereason"), Some("rejected"));
        assert_eq!(dead.text("knativeerrorcode"), Some("422"));
        assert_eq!(dead.text("knativeerrordest"), Some("http://sink/"));
        let data = |dead: &Event| dead.text("knativeerrordata").expect("there").to_owned();
        assert_eq!(STANDARD.decode(data(&dead)).expect("base64"), vec![b'e'; 768]);
        assert_eq!(data(&dead).len(), 1024);
        let failure = Failure { error: "timed out".into(), ..Failure::default() };
        let dead = dead_letter_event(&event, "orders", "http://sink/", 3, Reason::Attempts, &failure);
        assert_eq!(STANDARD.decode(data(&dead)).expect("base64"), b"timed out");
        assert_eq!(dead.text("knativeerrorcode"), None);
    }
}
