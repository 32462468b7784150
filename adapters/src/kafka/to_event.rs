//! From a Kafka record to an event (CloudEvents Kafka binding, section 3).

use sluice_config::KafkaKey;
use sluice_language::Draft;
use sluice_schemas::Event;

use crate::message::{self, Attributes, Defaults, Mapping, unfit};
use crate::{Record, Unfit};

/// What a record is: an event in structured or binary mode, or something that becomes one. A record with any header that
/// begins with `ce_` claims to be an event.
pub fn to_event(record: &Record, mapping: &Mapping, key: KafkaKey) -> Result<Event, Unfit> {
    mapping.check_size(record)?;
    let content_type = record.header("content-type");
    let event = match content_type {
        Some(text) if message::is_structured(text) => message::structured(text, record)?,
        _ if record.headers.iter().any(|(name, _)| attribute(name).is_some()) => binary(record)?,
        _ => {
            let defaults = Defaults { ty: "sluice.kafka.record", id: &record.position, content_type };
            mapping.wrap(record, &defaults)?
        }
    };
    Ok(match key {
        KafkaKey::PartitionKey => with_partition_key(event, record),
        KafkaKey::Ignore => event,
    })
}

/// The attribute that a header is for. Names stay as they are: what is not lower case is no attribute's name.
fn attribute(header: &str) -> Option<&str> {
    let prefix = header.get(..3)?;
    prefix.eq_ignore_ascii_case("ce_").then(|| &header[3..])
}

fn binary(record: &Record) -> Result<Event, Unfit> {
    let mut attributes = Attributes::default();
    for (header, value) in &record.headers {
        let is_content_type = header.eq_ignore_ascii_case("content-type");
        let Some(name) = attribute(header).or(is_content_type.then_some("datacontenttype")) else { continue };
        let text =
            std::str::from_utf8(value).map_err(|_| unfit(format!("header `{header}` is not valid UTF-8")))?;
        attributes.add(name, text)?;
    }
    attributes.build(record.body.clone())
}

/// The key, where the event says nothing of its own. A key that makes no attribute is left alone.
fn with_partition_key(event: Event, record: &Record) -> Event {
    let key =
        record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).filter(|key| !key.is_empty());
    let Some(key) = key.filter(|_| event.attribute("partitionkey").is_none()) else { return event };
    Draft::of(&event).attribute("partitionkey", key).build().unwrap_or(event)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sluice_schemas::json;

    use super::*;
    use crate::EventTemplate;

    const BINARY: [(&str, &str); 4] =
        [("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "/s"), ("ce_type", "t")];

    fn record(headers: &[(&str, &str)], body: Option<&'static [u8]>) -> Record {
        let headers =
            headers.iter().map(|(name, value)| ((*name).into(), Bytes::copy_from_slice(value.as_bytes())));
        Record {
            position: "orders/0/7".into(),
            topic: Some("orders".into()),
            headers: headers.collect(),
            body: body.map(Bytes::from_static),
            ..Record::default()
        }
    }

    fn with(more: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        let four = BINARY.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let more = more.iter().map(|(name, value)| (&*(*name).to_owned().leak(), (*value).to_owned()));
        four.chain(more).collect()
    }

    fn check(record: &Record, expected: Result<&str, &str>) {
        check_with(record, KafkaKey::PartitionKey, expected);
    }

    fn check_with(record: &Record, key: KafkaKey, expected: Result<&str, &str>) {
        let mapping =
            Mapping { name: "orders".into(), template: EventTemplate::default(), event_bytes_max: 100 };
        let event = to_event(record, &mapping, key);
        let shown = event.map(|event| String::from_utf8(json::encode(&event)).expect("JSON is text"));
        let shown = shown.as_deref().map_err(|unfit| &*unfit.detail);
        assert_eq!(shown, expected, "{record:?}");
    }

    fn check_binary(more: &[(&str, &str)], expected: Result<&str, &str>) {
        let headers = with(more);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        check(&record(&headers, Some(b"1")), expected);
    }

    #[test]
    fn binary_mode_is_headers_of_plain_utf8() {
        check_binary(
            &[("content-type", "application/json"), ("ce_subject", "100% ü")],
            Ok(
                r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"100% ü","datacontenttype":"application/json","data":1}"#,
            ),
        );
        check_binary(
            &[("Content-Type", "text/plain"), ("ce_datacontenttype", "text/plain")],
            Ok(
                r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"1"}"#,
            ),
        );
    }

    #[test]
    fn a_tombstone_is_an_event_without_data() {
        check(&record(&BINARY, None), Ok(r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#));
    }

    #[test]
    fn what_claims_to_be_an_event_and_is_none_is_unfit() {
        check(&record(&BINARY[..3], Some(b"1")), Err("attribute `type` is required"));
        check(&record(&[("ce_x", "1")], Some(b"1")), Err("attribute `specversion` is required"));
        check_binary(&[("ce_id", "2")], Err("attribute `id` occurs more than once"));
        check_binary(
            &[("ce_Subject", "s")],
            Err(
                "attribute `Subject` has an illegal name: 1 to 64 characters of a to z and 0 to 9 are allowed",
            ),
        );
        check_binary(
            &[("ce_time", "today")],
            Err("attribute `time` must be a timestamp such as `2026-01-31T12:00:00Z` (RFC 3339)"),
        );
        check_binary(
            &[("content-type", "text/plain"), ("ce_datacontenttype", "text/html")],
            Err("there are two content types, `text/plain` and `text/html`"),
        );
        let mut broken = record(&BINARY, None);
        broken.headers.push(("ce_subject".into(), Bytes::from_static(b"\xff")));
        check(&broken, Err("header `ce_subject` is not valid UTF-8"));
    }

    #[test]
    fn structured_mode_is_known_by_its_content_type_in_any_case() {
        let body = br#"{"specversion":"1.0","id":"9","source":"/x","type":"y","data":{}}"#;
        let headers = [("Content-Type", "Application/CloudEvents+JSON; charset=UTF-8"), ("ce_id", "ignored")];
        check(
            &record(&headers, Some(body)),
            Ok(r#"{"specversion":"1.0","id":"9","source":"/x","type":"y","data":{}}"#),
        );
        let headers = [("content-type", "application/cloudevents+json")];
        check(&record(&headers, None), Err("an event in structured mode has no body"));
        check(&record(&headers, Some(b"")), Err("an event in structured mode has no body"));
        let batch = [("content-type", "application/cloudevents-batch+json")];
        check(&record(&batch, Some(b"[]")), Err("batches are not for message systems"));
    }

    #[test]
    fn anything_else_is_wrapped_with_its_position_as_id() {
        let mut plain = record(&[("content-type", "text/plain")], Some(b"hello"));
        plain.time_ms = Some(1_700_000_000_123);
        check(
            &plain,
            Ok(
                r#"{"specversion":"1.0","id":"orders/0/7","source":"/orders","type":"sluice.kafka.record","time":"2023-11-14T22:13:20.123Z","datacontenttype":"text/plain","data":"hello"}"#,
            ),
        );
        check(
            &record(&[("content-type", "no media type")], None),
            Ok(r#"{"specversion":"1.0","id":"orders/0/7","source":"/orders","type":"sluice.kafka.record"}"#),
        );
        let envelope = br#"{"specversion":"1.0","id":"9","source":"/x","type":"y"}"#;
        let plain_json = record(&[("content-type", "application/json")], Some(envelope));
        check(
            &plain_json,
            Ok(
                r#"{"specversion":"1.0","id":"orders/0/7","source":"/orders","type":"sluice.kafka.record","datacontenttype":"application/json","data":{"specversion":"1.0","id":"9","source":"/x","type":"y"}}"#,
            ),
        );
    }

    #[test]
    fn the_key_becomes_partitionkey_only_where_there_is_none() {
        let keyed = |key: &'static [u8], headers: &[(&str, &str)]| Record {
            key: Some(Bytes::from_static(key)),
            ..record(headers, None)
        };
        let with_key = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","partitionkey":"k"}"#;
        let without = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
        check(&keyed(b"k", &BINARY), Ok(with_key));
        check_with(&keyed(b"k", &BINARY), KafkaKey::Ignore, Ok(without));
        check(&keyed(b"\xff", &BINARY), Ok(without));
        check(&keyed(b"\x01", &BINARY), Ok(without));
        check(&keyed(b"", &BINARY), Ok(without));
        let five = [BINARY[0], BINARY[1], BINARY[2], BINARY[3], ("ce_partitionkey", "own")];
        check(
            &keyed(b"k", &five),
            Ok(r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","partitionkey":"own"}"#),
        );
    }

    #[test]
    fn a_body_above_the_limit_is_unfit() {
        check(&record(&BINARY, Some(&[b'x'; 101])), Err("101 bytes are more than the 100 of event_bytes"));
    }
}
