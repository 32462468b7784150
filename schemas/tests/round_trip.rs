//! Events survive the way through all modes, and no input makes a parser panic.
//!
//! What does change, and why:
//!
//! - Kinds: HTTP headers have no types, so Integer and Boolean come back as String with the same text.
//! - Empty data: in binary mode it cannot be told from none.
//! - Implied JSON: it gets an explicit `application/json` in binary mode (JSON format, section 3.1.1).
//! - White space around a JSON value belongs to the envelope in the JSON format and is not read back.
//! - Attribute order: `datacontenttype`, which is no `ce-` header, comes last from binary mode.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use sluice_schemas::http::{self as binding, Limits};
use sluice_schemas::{DataForm, Event, Kind, Value, json};

fn text() -> impl Strategy<Value = String> {
    let legal =
        |c: &char| !c.is_control() && !matches!(c, '\u{FDD0}'..='\u{FDEF}') && (*c as u32) & 0xFFFE != 0xFFFE;
    prop::collection::vec(any::<char>().prop_filter("legal in a String", legal), 1..20)
        .prop_map(|characters| characters.into_iter().collect())
}

/// Text that looks like what the header codec treats in a special way.
fn tricky_text() -> impl Strategy<Value = String> {
    prop_oneof![text(), r#"[ "%\\a-f0-9]{1,12}"#, Just(" x ".to_owned()), Just("\"%41\"".to_owned())]
}

fn value() -> impl Strategy<Value = Value> {
    let value = |kind| move |text: String| Value { text: text.into(), kind };
    prop_oneof![
        tricky_text().prop_map(value(Kind::String)),
        any::<i32>().prop_map(|number| number.to_string()).prop_map(value(Kind::Integer)),
        any::<bool>().prop_map(|truth| truth.to_string()).prop_map(value(Kind::Boolean)),
    ]
}

fn json_text() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,5})?(e[+-]?[0-9]{1,4})?",
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    let nested = leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[ {}]", items.join(" ,"))),
            prop::collection::vec(inner, 0..4).prop_map(|items| format!(
                "{{{}}}",
                items.iter().map(|i| format!("\"k\": {i}")).collect::<Vec<_>>().join(",")
            )),
        ]
    });
    nested.prop_map(String::into_bytes)
}

fn content() -> impl Strategy<Value = (Option<&'static str>, Option<(Vec<u8>, DataForm)>)> {
    let types = prop::sample::select(vec![
        None,
        Some("application/json"),
        Some("Application/Vnd.X+JSON; charset=\"utf-8\""),
        Some("text/plain"),
        Some("image/svg+xml"),
        Some("application/octet-stream"),
    ]);
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..40)
            .prop_filter("no space around", |bytes| bytes.trim_ascii() == bytes),
        text()
            .prop_map(String::into_bytes)
            .prop_filter("no space around", |bytes| bytes.trim_ascii() == bytes),
        json_text(),
    ];
    let opaque = prop::option::of(bytes.prop_map(|bytes| (bytes, DataForm::Opaque)));
    let implied = json_text().prop_map(|bytes| (None, Some((bytes, DataForm::ImpliedJson))));
    prop_oneof![4 => (types, opaque), 1 => implied]
}

prop_compose! {
    fn event()(
        id in tricky_text(),
        kind in tricky_text(),
        source in prop::sample::select(vec!["/a", "https://example.com/%20?ü#x", "urn:a:b", "1-555"]),
        time in prop::option::of(prop::sample::select(vec!["2018-04-05T17:31:00.1234567+01:00", "2016-12-31t23:59:60z"])),
        extensions in prop::collection::btree_map("[a-z0-9]{1,12}", value(), 0..4),
        (content_type, data) in content(),
    ) -> Event {
        let mut builder = Event::builder().attribute("specversion", "1.0").attribute("id", &id);
        builder = builder.attribute("source", source).attribute("type", &kind);
        for (name, text) in [("time", time), ("datacontenttype", content_type)] {
            builder = text.into_iter().fold(builder, |builder, text| builder.attribute(name, text));
        }
        for (name, value) in extensions {
            let is_core = ["id", "source", "type", "subject", "time", "data"].contains(&&*name);
            builder = if is_core { builder } else { builder.value(&name, value) };
        }
        if let Some((bytes, form)) = data {
            builder = builder.data(bytes, form);
        }
        builder.build().unwrap()
    }
}

/// What must not change: the text of each attribute and the bytes of the data.
fn essence(event: &Event) -> (BTreeMap<String, String>, Option<Bytes>) {
    let mut attributes: BTreeMap<_, _> =
        event.attributes().map(|(name, value)| (name.to_owned(), value.text.to_string())).collect();
    if event.data().is_some_and(|data| data.form == DataForm::ImpliedJson) {
        attributes.entry("datacontenttype".to_owned()).or_insert("application/json".to_owned());
    }
    (attributes, event.data().map(|data| data.bytes.clone()))
}

fn through_binary(event: &Event) -> Event {
    let mut headers = HeaderMap::new();
    let body = binding::encode_binary(event, &mut headers).unwrap();
    only_event(&headers, body)
}

fn through_structured(event: &Event) -> Event {
    let (content_type, body) = binding::encode_structured(event);
    only_event(&content_type_header(content_type), body)
}

fn through_batch(event: &Event) -> Event {
    let (content_type, body) = binding::encode_batch(&[event]);
    only_event(&content_type_header(content_type), body)
}

fn content_type_header(content_type: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type))])
}

fn only_event(headers: &HeaderMap, body: Bytes) -> Event {
    let mut decoded = binding::decode(headers, body, &Limits::default()).unwrap();
    assert_eq!(decoded.events.len(), 1);
    decoded.events.remove(0)
}

proptest! {
    #[test]
    fn an_event_survives_all_modes(event in event()) {
        let binary = through_binary(&event);
        prop_assert_eq!(essence(&binary), essence(&event));
        let structured = through_structured(&binary);
        prop_assert_eq!(essence(&structured), essence(&event));
        let batch = through_batch(&structured);
        prop_assert_eq!(essence(&batch), essence(&event));
        prop_assert_eq!(through_binary(&batch), through_binary(&structured));
    }

    #[test]
    fn the_json_format_keeps_kinds_order_and_form(event in event()) {
        prop_assert_eq!(through_structured(&event), event.clone());
        prop_assert_eq!(through_batch(&event), event);
    }

    #[test]
    fn what_is_written_as_json_is_json(event in event()) {
        let text = json::encode(&event);
        prop_assert!(serde_json::from_slice::<&serde_json::value::RawValue>(&text).is_ok());
    }

    #[test]
    fn arbitrary_json_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let body = Bytes::from(bytes);
        let _ = json::decode(&body);
        let _ = json::decode_batch(&body, 100);
    }

    #[test]
    fn a_damaged_event_never_panics(event in event(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = json::encode_batch(&[&event]);
        let at = at.index(text.len());
        text[at] = byte;
        let _ = json::decode_batch(&Bytes::from(text.clone()), usize::MAX);
        text.truncate(at);
        let _ = json::decode(&Bytes::from(text).slice(1.min(at)..));
    }

    #[test]
    fn arbitrary_headers_never_panic(
        lines in prop::collection::vec(
            (
                prop::sample::select(vec!["ce-specversion", "ce-id", "ce-source", "ce-time", "ce-type", "ce-dataschema", "content-type", "ce-x", "ce-"]),
                prop::collection::vec(prop::sample::select(b" \"\\%aF09:/;=-.T\xc3\xbc\xff+[]@?#".to_vec()), 0..24),
            ),
            0..10,
        ),
        body in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(&value).unwrap());
        }
        let _ = binding::decode(&headers, body.into(), &Limits::default());
    }
}

#[test]
fn what_does_not_survive_is_known() {
    let minimal = || {
        let builder = Event::builder().attribute("specversion", "1.0").attribute("id", "1");
        builder.attribute("source", "/a").attribute("type", "t")
    };
    let empty = minimal().data("", DataForm::Opaque).build().unwrap();
    assert_eq!(through_structured(&empty), empty);
    assert_eq!(through_binary(&empty).data(), None);

    let spaced =
        minimal().attribute("datacontenttype", "text/json").data(" {}\n", DataForm::Opaque).build().unwrap();
    assert_eq!(through_binary(&spaced), minimal_with(&spaced, " {}\n"));
    assert_eq!(through_structured(&spaced), minimal_with(&spaced, "{}"));
}

fn minimal_with(event: &Event, data: &'static str) -> Event {
    let builder = event
        .attributes()
        .fold(Event::builder(), |builder, (name, value)| builder.value(name, value.clone()));
    builder.data(data, DataForm::Opaque).build().unwrap()
}
