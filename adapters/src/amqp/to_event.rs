//! From an AMQP 0.9.1 message to an event. There is no official binding: this reads what the Knative draft for RabbitMQ says
//! (`ce-`), and what senders of AMQP 1.0 write (`cloudEvents:`, `cloudEvents_`), which RabbitMQ passes on as headers.

use sluice_schemas::Event;

use super::record::ILLEGAL;
use crate::message::{self, Attributes, Defaults, Mapping, unfit};
use crate::{Record, Unfit};

const FAMILIES: [&str; 3] = ["ce-", "cloudEvents:", "cloudEvents_"];

/// What a message is: structured by its content type, binary by headers of one of the families, or something that becomes an
/// event.
pub fn to_event(record: &Record, mapping: &Mapping) -> Result<Event, Unfit> {
    mapping.check_size(record)?;
    let content_type = record.header("content-type");
    if let Some(text) = content_type.filter(|text| message::is_structured(text)) {
        return message::structured(text, record);
    }
    let families =
        FAMILIES.into_iter().filter(|family| record.headers.iter().any(|(name, _)| has(name, family)));
    let families: Vec<_> = families.collect();
    match families.as_slice() {
        [] => {
            let id = record.header("message-id").filter(|id| !id.is_empty()).unwrap_or(&record.position);
            mapping.wrap(record, &Defaults { ty: "sluice.amqp.message", id, content_type })
        }
        [family] => binary(record, family),
        [one, other, ..] => {
            Err(unfit(format!("headers that begin with `{one}` and with `{other}` are mixed")))
        }
    }
}

/// Whether a header is an attribute in any of the families.
pub(super) fn is_attribute(header: &str) -> bool {
    FAMILIES.iter().any(|family| has(header, family))
}

fn has(header: &str, family: &str) -> bool {
    header.get(..family.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(family))
}

fn binary(record: &Record, family: &str) -> Result<Event, Unfit> {
    let mut attributes = Attributes::default();
    for (header, value) in record.headers.iter().filter(|(name, _)| has(name, family)) {
        if let Some(kind) = value.strip_prefix(&[ILLEGAL]) {
            let kind = String::from_utf8_lossy(kind);
            return Err(unfit(format!("header `{header}` is {kind}: no attribute can be one")));
        }
        let text =
            std::str::from_utf8(value).map_err(|_| unfit(format!("header `{header}` is not valid UTF-8")))?;
        attributes.add(&header[family.len()..], text)?;
    }
    if let Some(text) = record.header("content-type") {
        attributes.add_content_type(text)?;
    }
    attributes.build(record.body.clone())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sluice_schemas::json;

    use super::*;
    use crate::EventTemplate;

    fn four(family: &str) -> Vec<(String, Vec<u8>)> {
        let values = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")];
        values.iter().map(|(name, value)| (format!("{family}{name}"), value.as_bytes().to_vec())).collect()
    }

    fn check(headers: Vec<(String, Vec<u8>)>, body: &'static [u8], expected: Result<&str, &str>) {
        let record = Record {
            position: "0198-made-up".into(),
            topic: Some("key".into()),
            headers: headers.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect(),
            body: Some(Bytes::from_static(body)),
            ..Record::default()
        };
        let mapping =
            Mapping { name: "payments".into(), template: EventTemplate::default(), event_bytes_max: 100 };
        let event = to_event(&record, &mapping);
        let shown = event.map(|event| String::from_utf8(json::encode(&event)).expect("JSON is text"));
        assert_eq!(shown.as_deref().map_err(|unfit| &*unfit.detail), expected, "{record:?}");
    }

    fn and(mut headers: Vec<(String, Vec<u8>)>, more: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
        headers.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())));
        headers
    }

    #[test]
    fn each_family_of_headers_is_binary_mode() {
        for family in FAMILIES {
            check(
                and(four(family), &[("content-type", b"text/plain"), ("x-death", b"\xfflist")]),
                b"1",
                Ok(
                    r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"1"}"#,
                ),
            );
        }
        check(
            and(four("ce-"), &[("ce-subject", "100% ü".as_bytes())]),
            b"1",
            Ok(
                r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"100% ü","data_base64":"MQ=="}"#,
            ),
        );
    }

    #[test]
    fn families_are_not_mixed() {
        check(
            and(four("ce-"), &[("cloudEvents:subject", b"s")]),
            b"1",
            Err("headers that begin with `ce-` and with `cloudEvents:` are mixed"),
        );
    }

    #[test]
    fn what_claims_to_be_an_event_and_is_none_is_unfit() {
        check(four("ce-")[..3].to_vec(), b"1", Err("attribute `type` is required"));
        check(
            and(four("ce-"), &[("ce-ext", b"\xffa table")]),
            b"1",
            Err("header `ce-ext` is a table: no attribute can be one"),
        );
        check(and(four("ce-"), &[("ce-id", b"2")]), b"1", Err("attribute `id` occurs more than once"));
    }

    #[test]
    fn structured_mode_goes_by_the_content_type() {
        let body = br#"{"specversion":"1.0","id":"9","source":"/x","type":"y"}"#;
        let headers = and(Vec::new(), &[("content-type", b"application/cloudevents+json; charset=utf-8")]);
        check(headers, body, Ok(r#"{"specversion":"1.0","id":"9","source":"/x","type":"y"}"#));
        check(
            Vec::new(),
            body,
            Ok(
                r#"{"specversion":"1.0","id":"0198-made-up","source":"/payments","type":"sluice.amqp.message","data_base64":"eyJzcGVjdmVyc2lvbiI6IjEuMCIsImlkIjoiOSIsInNvdXJjZSI6Ii94IiwidHlwZSI6InkifQ=="}"#,
            ),
        );
    }

    #[test]
    fn anything_else_is_wrapped_with_the_id_of_the_message() {
        check(
            and(Vec::new(), &[("content-type", b"text/plain"), ("message-id", b"m-1")]),
            b"hello",
            Ok(
                r#"{"specversion":"1.0","id":"m-1","source":"/payments","type":"sluice.amqp.message","datacontenttype":"text/plain","data":"hello"}"#,
            ),
        );
    }
}
