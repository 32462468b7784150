//! Reading and writing HTTP messages. What a request must look like is in `tests/conformance`; here is what those cases
//! cannot say.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(clippy::needless_pass_by_value, reason = "`Expect` is made where it is used up")]

use bytes::Bytes;
use expect_test::{Expect, expect};
use http::{HeaderMap, HeaderName, HeaderValue};
use sluice_schemas::http::{self as binding, Limits, Mode};
use sluice_schemas::{DataForm, Event, Kind, Value};

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers
            .append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn minimal() -> sluice_schemas::Builder {
    Event::builder()
        .attribute("specversion", "1.0")
        .attribute("id", "1")
        .attribute("source", "/a")
        .attribute("type", "t")
}

/// Writes an event in binary mode and shows all but the required headers, then the body.
fn check_written(event: &Event, expected: Expect) {
    let mut headers = HeaderMap::new();
    let body = binding::encode_binary(event, &mut headers).unwrap();
    for required in ["ce-specversion", "ce-id", "ce-source", "ce-type"] {
        assert!(headers.remove(required).is_some(), "{required}");
    }
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect();
    lines.sort_unstable();
    expected.assert_eq(&format!("{}{}", lines.concat(), body.escape_ascii()));
}

#[test]
fn values_are_percent_encoded_once() {
    let event = minimal()
        .attribute("a", "100%")
        .attribute("b", "a b")
        .attribute("c", "a%20b")
        .attribute("d", "\"€~!\"");
    check_written(
        &event.build().unwrap(),
        expect![[r#"
            ce-a: 100%25
            ce-b: a%20b
            ce-c: a%2520b
            ce-d: %22%E2%82%AC~!%22
        "#]],
    );
}

#[test]
fn content_type_is_written_only_if_there_is_one() {
    check_written(&minimal().data("x", DataForm::Opaque).build().unwrap(), expect!["x"]);
    check_written(
        &minimal()
            .attribute("datacontenttype", "a/b; c=\"d e\"")
            .data("x", DataForm::Opaque)
            .build()
            .unwrap(),
        expect![[r#"
            content-type: a/b; c="d e"
            x"#]],
    );
    check_written(
        &minimal().data("\"x\"", DataForm::ImpliedJson).build().unwrap(),
        expect![[r#"
            content-type: application/json
            \"x\""#]],
    );
}

#[test]
fn headers_that_are_there_are_replaced() {
    let mut headers = headers(&[("content-type", "text/html"), ("ce-id", "old"), ("authorization", "kept")]);
    binding::encode_binary(&minimal().build().unwrap(), &mut headers).unwrap();
    assert_eq!(headers.get_all("ce-id").iter().collect::<Vec<_>>(), ["1"]);
    assert!(!headers.contains_key("content-type") && headers.contains_key("authorization"));
}

#[test]
fn header_bytes_are_what_goes_over_the_wire() {
    let event = minimal().attribute("subject", "é \"x\"").attribute("b", "").data("1", DataForm::ImpliedJson);
    let event = event.build().unwrap();
    let mut headers = HeaderMap::new();
    binding::encode_binary(&event, &mut headers).unwrap();
    let on_the_wire: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    assert_eq!(binding::binary_header_bytes(&event), on_the_wire);
}

#[test]
fn an_event_that_was_stored_broken_is_an_error_and_no_panic() {
    let value = |text: &str| Value { text: text.into(), kind: Kind::String };
    let bad_name = Event::from_stored(vec![("a b".into(), value("x"))], None);
    let bad_type = Event::from_stored(vec![("datacontenttype".into(), value("a\nb"))], None);
    let many = (0..40_000).map(|number| (format!("x{number}").into(), value("x"))).collect();
    let errors = [bad_name, bad_type, Event::from_stored(many, None)].map(|event| {
        binding::encode_binary(&event, &mut HeaderMap::new()).map_err(|error| error.to_string()).unwrap_err()
    });
    expect![[r#"
        [
            "attribute `a b` makes no legal header",
            "attribute `datacontenttype` makes no legal header",
            "the event has more attributes than a message can have headers",
        ]
    "#]]
    .assert_debug_eq(&errors);
}

#[test]
fn content_types_of_json_modes_are_lower_case() {
    let event = minimal().build().unwrap();
    assert_eq!(binding::encode_structured(&event).0, "application/cloudevents+json; charset=utf-8");
    assert_eq!(binding::encode_batch(&[&event]).0, "application/cloudevents-batch+json; charset=utf-8");
}

#[test]
fn claims_are_made_by_specversion_or_content_type() {
    let claims = |lines: &[(&str, &str)]| binding::claims_to_be_event(&headers(lines));
    assert!(claims(&[("ce-specversion", "")]));
    assert!(claims(&[("content-type", "Application/CloudEvents+xml")]));
    assert!(claims(&[("content-type", " application/cloudevents-batch+json")]));
    assert!(!claims(&[("content-type", "application/json"), ("ce-id", "1")]));
    assert!(!claims(&[]));
}

#[test]
fn limits_hold_for_bodies_and_for_events_of_a_batch() {
    let limits = Limits { event_bytes_max: 80, batch_bytes_max: 180 };
    let status = |content_type: &str, body: String| {
        let headers = headers(&[("content-type", content_type)]);
        match binding::decode(&headers, body.into(), &limits) {
            Ok(decoded) => format!("{:?}: {} events", decoded.mode, decoded.events.len()),
            Err(rejection) => format!("{} {:?}: {rejection}", rejection.status(), rejection.index()),
        }
    };
    let event = |padding: usize| {
        let data = "x".repeat(padding);
        format!(r#"{{"specversion":"1.0","id":"1","source":"/a","type":"t","data":"{data}"}}"#)
    };
    let (structured, batch) = ("application/cloudevents+json", "application/cloudevents-batch+json");
    expect!["Structured: 1 events"].assert_eq(&status(structured, event(0)));
    expect!["413 None: the body has 85 bytes, at most 80 are taken"]
        .assert_eq(&status(structured, event(20)));
    expect!["Batch: 2 events"].assert_eq(&status(batch, format!("[{},{}]", event(0), event(1))));
    expect!["413 Some(1): event 1 of the batch: the event has 85 bytes, at most 80 are taken"]
        .assert_eq(&status(batch, format!("[{},{}]", event(0), event(20))));
    expect!["413 None: the body has 199 bytes, at most 180 are taken"]
        .assert_eq(&status(batch, format!("[{},{},{}]", event(0), event(0), event(0))));
}

#[test]
fn the_body_of_a_binary_event_is_not_copied() {
    let headers =
        headers(&[("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/a"), ("ce-type", "t")]);
    let body = Bytes::from(vec![0; 1024]);
    let decoded = binding::decode(&headers, body.clone(), &Limits::default()).unwrap();
    assert_eq!(decoded.mode, Mode::Binary);
    assert_eq!(decoded.events[0].data().unwrap().bytes.as_ptr(), body.as_ptr());
}
