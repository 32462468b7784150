//! From a NATS message to an event (CloudEvents NATS binding, section 3, and what older senders do).

use sluice_schemas::{Event, http as binding};

use crate::message::{self, Attributes, Defaults, Mapping, unfit};
use crate::{Record, Unfit};

/// What a message is: structured by its content type, binary by its `ce-` headers, structured without any header as
/// version 1.0.2 has it, or something that becomes an event.
pub fn to_event(record: &Record, mapping: &Mapping) -> Result<Event, Unfit> {
    mapping.check_size(record)?;
    let content_type = record.header("content-type");
    if let Some(text) = content_type.filter(|text| message::is_structured(text)) {
        return message::structured(text, record);
    }
    if record.headers.iter().any(|(name, _)| attribute(name).is_some()) {
        return binary(record);
    }
    let has_headers = record.headers.iter().any(|(name, _)| !is_transport(name));
    if let Some(body) = record.body.as_ref().filter(|_| !has_headers)
        && let Some(found) = message::unannounced(body)
    {
        return found;
    }
    mapping.wrap(record, &Defaults { ty: "sluice.nats.message", id: &record.position, content_type })
}

/// The attribute that a header is for. NATS keeps the case of names, the binding does not care for it.
fn attribute(header: &str) -> Option<String> {
    let prefix = header.get(..3)?;
    prefix.eq_ignore_ascii_case("ce-").then(|| header[3..].to_ascii_lowercase())
}

/// The server's own, which say nothing about the event.
fn is_transport(header: &str) -> bool {
    header.get(..5).is_some_and(|prefix| prefix.eq_ignore_ascii_case("nats-"))
}

/// `ce-datacontenttype` wins over `content-type`, which some senders write instead.
fn binary(record: &Record) -> Result<Event, Unfit> {
    let mut attributes = Attributes::default();
    for (header, value) in &record.headers {
        let Some(name) = attribute(header) else { continue };
        let text = binding::decode_value(value)
            .map_err(|_| unfit(format!("header `{header}` is not valid UTF-8")))?;
        if name == "datacontenttype" && attributes.has_content_type() {
            return Err(unfit("attribute `datacontenttype` occurs more than once"));
        }
        attributes.add(&name, &text)?;
    }
    if let Some(text) = record.header("content-type").filter(|_| !attributes.has_content_type()) {
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

    const BINARY: [(&str, &str); 4] =
        [("ce-specversion", "1.0"), ("CE-Id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
    const WHOLE: &[u8] = br#"{"specversion":"1.0","id":"9","source":"/x","type":"y"}"#;

    fn check(headers: &[(&str, &str)], body: &'static [u8], expected: Result<&str, &str>) {
        let headers =
            headers.iter().map(|(name, value)| ((*name).into(), Bytes::copy_from_slice(value.as_bytes())));
        let record = Record {
            position: "S/7".into(),
            subject: Some("s.a".into()),
            headers: headers.collect(),
            body: Some(Bytes::from_static(body)),
            ..Record::default()
        };
        let mapping =
            Mapping { name: "sensors".into(), template: EventTemplate::default(), event_bytes_max: 100 };
        let event = to_event(&record, &mapping);
        let shown = event.map(|event| String::from_utf8(json::encode(&event)).expect("JSON is text"));
        assert_eq!(shown.as_deref().map_err(|unfit| &*unfit.detail), expected, "{record:?}");
    }

    fn check_binary(more: &[(&str, &str)], expected: Result<&str, &str>) {
        check(&[&BINARY, more].concat(), b"1", expected);
    }

    #[test]
    fn binary_mode_has_names_in_any_case_and_percent_encoding() {
        check_binary(
            &[("ce-datacontenttype", "application/json"), ("ce-subject", "a%20b %")],
            Ok(
                r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"a b %","datacontenttype":"application/json","data":1}"#,
            ),
        );
    }

    #[test]
    fn the_content_type_attribute_wins_over_the_header() {
        let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"1"}"#;
        check_binary(&[("content-type", "text/html"), ("ce-datacontenttype", "text/plain")], Ok(event));
        check_binary(&[("Content-Type", "text/plain")], Ok(event));
    }

    #[test]
    fn what_claims_to_be_an_event_and_is_none_is_unfit() {
        check(&BINARY[..3], b"1", Err("attribute `type` is required"));
        check_binary(&[("ce-id", "2")], Err("attribute `id` occurs more than once"));
        check_binary(
            &[("ce-datacontenttype", "text/plain"), ("Ce-Datacontenttype", "text/plain")],
            Err("attribute `datacontenttype` occurs more than once"),
        );
        check_binary(&[("ce-subject", "%FF")], Err("header `ce-subject` is not valid UTF-8"));
        check(
            &[("content-type", "application/cloudevents+json")],
            b"",
            Err("an event in structured mode has no body"),
        );
    }

    #[test]
    fn structured_mode_goes_by_the_content_type_or_by_no_header_at_all() {
        let event = r#"{"specversion":"1.0","id":"9","source":"/x","type":"y"}"#;
        check(&[("Content-Type", "application/CloudEvents+json"), ("ce-id", "ignored")], WHOLE, Ok(event));
        check(&[], WHOLE, Ok(event));
        check(&[("Nats-Msg-Id", "m")], WHOLE, Ok(event));
        check(
            &[],
            br#"{"specversion":"0.3","id":"9","source":"/x","type":"y"}"#,
            Err("attribute `specversion` has the unsupported value `0.3`: only `1.0` is known"),
        );
    }

    #[test]
    fn anything_else_is_wrapped_with_its_sequence_as_id() {
        check(
            &[("Content-Type", "application/json")],
            WHOLE,
            Ok(
                r#"{"specversion":"1.0","id":"S/7","source":"/sensors","type":"sluice.nats.message","datacontenttype":"application/json","data":{"specversion":"1.0","id":"9","source":"/x","type":"y"}}"#,
            ),
        );
        check(
            &[],
            b"{\"a\":1}",
            Ok(
                r#"{"specversion":"1.0","id":"S/7","source":"/sensors","type":"sluice.nats.message","data_base64":"eyJhIjoxfQ=="}"#,
            ),
        );
    }
}
