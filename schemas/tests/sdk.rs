//! cloudevents-sdk as a foreign reader and writer.
//!
//! Where it and we differ (cloudevents-sdk 0.9), with the test that shows it or the reason why none does:
//!
//! - It keeps JSON data as a tree: order, duplicate keys and the spelling of numbers go.
//! - It sees no JSON in `application/json` written in upper case or in `+json` with parameters, and then refuses data
//!   that is an object.
//! - It reads `data_base64` under a JSON content type as JSON.
//! - It turns `time` to UTC and normalises `dataschema`.
//! - It refuses `data_base64: null`; we write no null, so this is never met.
//! - It takes much that the standard forbids: empty ids, illegal names, integers beyond 32 bits, no media types.
//! - It has no percent-encoding in headers; its HTTP binding is not used here.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(clippy::needless_pass_by_value, reason = "`Expect` is made where it is used up")]
#![cfg(feature = "sdk")]

use cloudevents::{AttributesReader, AttributesWriter};
use expect_test::{Expect, expect};
use sluice_schemas::{Builder, DataForm, Event, Kind, Value, json};

fn minimal() -> Builder {
    Event::builder()
        .attribute("specversion", "1.0")
        .attribute("id", "1")
        .attribute("source", "/a")
        .attribute("type", "t")
}

fn full() -> Builder {
    minimal()
        .attribute("subject", "é \"s\"")
        .attribute("time", "2018-04-05T17:31:00Z")
        .attribute("dataschema", "https://example.com/s")
        .attribute("text", "x")
        .value("number", Value { text: "-5".into(), kind: Kind::Integer })
        .value("truth", Value { text: "true".into(), kind: Kind::Boolean })
}

/// The event by name of attribute, because the SDK keeps no order.
fn show(event: &Event) -> String {
    let mut lines: Vec<String> =
        event.attributes().map(|(name, value)| format!("{name}: {} {:?}", value.text, value.kind)).collect();
    lines.sort_unstable();
    let data = event.data().map(|data| format!("{:?} {}", data.form, data.bytes.escape_ascii()));
    lines.join("\n") + "\n" + &data.unwrap_or_default()
}

/// Writes JSON, lets the SDK read and write it, and reads that.
fn through_foreign_json(event: &Event) -> Result<Event, String> {
    let foreign: cloudevents::Event =
        serde_json::from_slice(&json::encode(event)).map_err(|error| error.to_string())?;
    let text = serde_json::to_vec(&foreign).unwrap();
    json::decode(&text.into()).map_err(|error| error.to_string())
}

fn check_differs(event: &Event, expected: Expect) {
    match through_foreign_json(event) {
        Ok(back) => {
            assert_ne!(show(&back), show(event));
            expected.assert_eq(&show(&back));
        }
        Err(error) => expected.assert_eq(&error),
    }
}

#[test]
fn the_sdk_reads_and_writes_what_we_write() {
    let json_type = full().attribute("datacontenttype", "application/json");
    let events = [
        full().build(),
        json_type.data(r#"{"a":[1,"x",null]}"#, DataForm::Opaque).build(),
        full().data(r#""text""#, DataForm::ImpliedJson).build(),
        full().attribute("datacontenttype", "text/plain").data("é\n", DataForm::Opaque).build(),
        full().attribute("datacontenttype", "image/png").data(&b"\x00\xff"[..], DataForm::Opaque).build(),
    ];
    for event in events {
        let event = event.unwrap();
        // The offset of a timestamp in UTC is written as `Z` by both, so nothing differs here.
        assert_eq!(show(&through_foreign_json(&event).unwrap()), show(&event));
    }
}

#[test]
fn the_sdk_changes_what_it_keeps_as_trees_and_instants() {
    let event =
        minimal().attribute("time", "2018-04-05T17:31:00.10+02:00").attribute("dataschema", "HTTP://X");
    check_differs(
        &event.data(r#"{"b":1.0, "a":1, "a":2}"#, DataForm::ImpliedJson).build().unwrap(),
        expect![[r#"
            dataschema: http://x/ String
            id: 1 String
            source: /a String
            specversion: 1.0 String
            time: 2018-04-05T15:31:00.100Z String
            type: t String
            ImpliedJson {\"a\":2,\"b\":1.0}"#]],
    );
}

#[test]
fn the_sdk_does_not_know_all_json_types() {
    let event =
        minimal().attribute("datacontenttype", "application/x+json; v=1").data("{}", DataForm::Opaque);
    check_differs(&event.build().unwrap(), expect!["invalid type: map, expected a string"]);
}

#[test]
fn the_sdk_parses_base64_under_a_json_type() {
    let foreign: cloudevents::Event = serde_json::from_str(
        r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","datacontenttype":"application/json","data_base64":"e30="}"#,
    )
    .unwrap();
    assert!(matches!(foreign.data(), Some(cloudevents::Data::Json(_))));
}

#[test]
fn conversion_keeps_bytes_and_types() {
    let event =
        full().attribute("datacontenttype", "application/json").data(r#"{"b":1.0, "a":1}"#, DataForm::Opaque);
    let event = event.build().unwrap();
    let foreign = cloudevents::Event::try_from(&event).unwrap();
    assert_eq!((foreign.id(), foreign.ty(), foreign.subject()), ("1", "t", Some("é \"s\"")));
    let back = Event::try_from(&foreign).unwrap();
    expect![[r#"
        datacontenttype: application/json String
        dataschema: https://example.com/s String
        id: 1 String
        number: -5 Integer
        source: /a String
        specversion: 1.0 String
        subject: é "s" String
        text: x String
        time: 2018-04-05T17:31:00+00:00 String
        truth: true Boolean
        type: t String
        Opaque {\"b\":1.0, \"a\":1}"#]]
    .assert_eq(&show(&back));
}

#[test]
fn conversion_makes_implied_json_explicit() {
    let foreign =
        cloudevents::Event::try_from(&minimal().data("1", DataForm::ImpliedJson).build().unwrap()).unwrap();
    assert_eq!(foreign.datacontenttype(), Some("application/json"));
}

#[test]
fn conversion_refuses_what_is_not_valid() {
    let mut foreign = cloudevents::Event::try_from(&minimal().build().unwrap()).unwrap();
    foreign.set_extension("number", i64::MAX);
    let error = Event::try_from(&foreign).unwrap_err();
    expect![
        "attribute `number` must be an integer from -2147483648 to 2147483647, without fraction or exponent"
    ]
    .assert_eq(&error.to_string());
    foreign.remove_extension("number");
    foreign.set_id("");
    expect!["attribute `id` must not be empty"]
        .assert_eq(&Event::try_from(&foreign).unwrap_err().to_string());
}
