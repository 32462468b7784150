//! Reading and writing the JSON format.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
#![allow(clippy::needless_pass_by_value, reason = "`Expect` is made where it is used up")]

use bytes::Bytes;
use expect_test::{Expect, expect};
use sluice_schemas::json::{self, DATA_DEPTH_MAX};
use sluice_schemas::{DataForm, Event, Kind};

const CORE: &str = r#""specversion":"1.0","id":"1","source":"/a","type":"t""#;

/// Reads an event with these members besides the required ones; shows the other attributes and the data, or the error.
fn check(members: &str, expected: Expect) {
    expected.assert_eq(&show(format!("{{{CORE},{members}}}")));
}

fn check_whole(text: impl AsRef<[u8]>, expected: Expect) {
    expected.assert_eq(&show(text));
}

fn show(text: impl AsRef<[u8]>) -> String {
    match json::decode(&Bytes::copy_from_slice(text.as_ref())) {
        Ok(event) => describe(&event),
        Err(error) => match error.field() {
            Some(field) => format!("{field}: {error}"),
            None => error.to_string(),
        },
    }
}

fn describe(event: &Event) -> String {
    let mut lines = Vec::new();
    for (name, value) in event.attributes().skip(4) {
        let kind = match value.kind {
            Kind::String => "",
            Kind::Integer => " (integer)",
            Kind::Boolean => " (boolean)",
        };
        lines.push(format!("{name}={}{kind}", value.text));
    }
    match event.data() {
        None => lines.push("no data".to_owned()),
        Some(data) => {
            let form = if data.form == DataForm::ImpliedJson { "implied JSON" } else { "data" };
            lines.push(format!("{form}: {}", data.bytes.escape_ascii()));
        }
    }
    lines.join(", ")
}

#[test]
fn values_keep_text_and_type() {
    check(
        r#""b":true,"i":-7,"zero":-0,"s":"5","u":"\u00fc\ud83d\ude00","e":"""#,
        expect!["b=true (boolean), i=-7 (integer), zero=0 (integer), s=5, u=ü😀, e=, no data"],
    );
}

#[test]
fn null_attributes_are_absent() {
    check(r#""subject":null,"x":null"#, expect!["no data"]);
    check_whole(
        r#"{"specversion":"1.0","id":null,"source":"/a","type":"t"}"#,
        expect!["id: attribute `id` is required"],
    );
    check(
        r#""My_Ext":null"#,
        expect![
            "My_Ext: attribute `My_Ext` has an illegal name: 1 to 64 characters of a to z and 0 to 9 are allowed"
        ],
    );
}

#[test]
fn attributes_of_no_type_are_refused() {
    check(
        r#""x":1.5"#,
        expect![
            "x: attribute `x` must be an integer from -2147483648 to 2147483647, without fraction or exponent"
        ],
    );
    check(
        r#""x":1e400"#,
        expect![
            "x: attribute `x` must be an integer from -2147483648 to 2147483647, without fraction or exponent"
        ],
    );
    check(
        r#""x":{"a":1}"#,
        expect!["x: attribute `x` must be a string, an integer or a boolean, not an object"],
    );
    check(r#""x":[]"#, expect!["x: attribute `x` must be a string, an integer or a boolean, not an array"]);
    check(r#""time":5"#, expect!["time: attribute `time` must be a string, not a number"]);
    check(
        r#""x":"\uDEAD""#,
        expect!["x: attribute `x` holds a surrogate that has no partner, or a broken escape"],
    );
    check(r#""x":"\u0001""#, expect!["x: attribute `x` holds U+0001, a control character or noncharacter"]);
}

#[test]
fn a_member_occurs_once() {
    check(r#""id":"2""#, expect!["id: attribute `id` occurs more than once"]);
    check(r#""x":null,"x":"y""#, expect!["x: attribute `x` occurs more than once"]);
    check(r#""data":1,"data":1"#, expect!["data: attribute `data` occurs more than once"]);
    check(r#""x":"a","\u0078":"b""#, expect!["x: attribute `x` occurs more than once"]);
}

#[test]
fn json_data_is_the_source_text() {
    let spelled = r#"{ "b" : 1.0, "a":1e400, "b":123456789012345678901234567890, "s":"\u0041" }"#;
    check(
        &format!(r#""datacontenttype":"application/vnd.x+JSON; v=1","data": {spelled} "#),
        expect![[
            r#"datacontenttype=application/vnd.x+JSON; v=1, data: { \"b\" : 1.0, \"a\":1e400, \"b\":123456789012345678901234567890, \"s\":\"\\u0041\" }"#
        ]],
    );
    check(r#""data":"text""#, expect![[r#"implied JSON: \"text\""#]]);
    check(r#""data":null"#, expect!["implied JSON: null"]);
    check(
        r#""datacontenttype":"text/json","data":"1""#,
        expect![[r#"datacontenttype=text/json, data: \"1\""#]],
    );
}

#[test]
fn json_data_shares_the_bytes_of_the_body() {
    let body = Bytes::from(format!(r#"{{{CORE},"data":{{"a":1}}}}"#));
    let event = json::decode(&body).unwrap();
    let data = event.data().unwrap();
    assert!(body.as_ptr_range().contains(&data.bytes.as_ptr()));
}

#[test]
fn text_data_is_the_text_of_the_string() {
    check(
        r#""datacontenttype":"text/plain","data":"a\n\u00e9""#,
        expect![[r#"datacontenttype=text/plain, data: a\n\xc3\xa9"#]],
    );
    check(
        r#""datacontenttype":"application/jsonp","data":"x""#,
        expect!["datacontenttype=application/jsonp, data: x"],
    );
    check(
        r#""datacontenttype":"text/plain","data":{}"#,
        expect!["data: `data` must be a string, because `datacontenttype` names no JSON: found an object"],
    );
    check(
        r#""datacontenttype":"text/plain","data":"\ud800""#,
        expect!["data: `data` holds a surrogate that has no partner, or a broken escape"],
    );
}

#[test]
fn base64_data_is_strict() {
    check(r#""data_base64":"AP8=""#, expect![[r#"data: \x00\xff"#]]);
    check(r#""data_base64":"""#, expect!["data: "]);
    check(r#""data_base64":null"#, expect!["no data"]);
    check(r#""data_base64":"AP8=","data":1"#, expect!["data: `data` and `data_base64` exclude each other"]);
    for bad in ["AP8", "AP9=", "A P8=", "AP-_", "AP8==", "!"] {
        let shown = show(format!(r#"{{{CORE},"data_base64":"{bad}"}}"#));
        assert!(shown.starts_with("data_base64: "), "{bad}: {shown}");
    }
    check(
        r#""data_base64":5"#,
        expect![
            "data_base64: `data_base64` must be a string of padded standard base64 (RFC 4648, section 4)"
        ],
    );
}

#[test]
fn only_one_object_is_an_event() {
    check_whole("", expect!["expected a JSON object with one event, found nothing"]);
    check_whole("null", expect!["expected a JSON object with one event, found null"]);
    check_whole(format!("[{{{CORE}}}]"), expect!["expected a JSON object with one event, found an array"]);
    check_whole("42", expect!["expected a JSON object with one event, found a number"]);
}

#[test]
fn syntax_errors_have_a_position() {
    check_whole(
        "{\n \"a\": \"b\",\n",
        expect!["not valid JSON at line 3 column 0: EOF while parsing a value"],
    );
    check_whole("{\"a\":NaN}", expect!["not valid JSON at line 1 column 6: expected value"]);
    check_whole(format!("{{{CORE}}} x"), expect!["not valid JSON at line 1 column 57: trailing characters"]);
    check_whole(b"{\n\"a\":\"\xff\"}", expect!["not valid UTF-8 at line 2 column 6"]);
    check_whole(b"\xff\xfe{\0}\0", expect!["not valid UTF-8 at line 1 column 1"]);
    check_whole("\u{feff}{x", expect!["not valid JSON at line 1 column 5: key must be a string"]);
}

#[test]
fn a_byte_order_mark_is_skipped() {
    check_whole(format!("\u{feff}{{{CORE}}}"), expect!["no data"]);
}

#[test]
fn depth_never_overflows_the_stack() {
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let at_limit = format!(r#"{{{CORE},"data":{}}}"#, deep(DATA_DEPTH_MAX));
    assert!(json::decode(&at_limit.into()).is_ok());
    check(
        &format!(r#""data":{}"#, deep(DATA_DEPTH_MAX + 1)),
        expect!["data: `data` nests deeper than 125 levels"],
    );
    check(&format!(r#""data":{}"#, deep(100_000)), expect!["data: `data` nests deeper than 125 levels"]);
    check(
        &format!(r#""x":{}"#, deep(100_000)),
        expect!["x: attribute `x` must be a string, an integer or a boolean, not an array"],
    );
    check_whole(deep(100_000), expect!["expected a JSON object with one event, found an array"]);
    let brackets_in_a_string = format!(r#""data":"{}""#, "[".repeat(1000));
    assert!(show(format!("{{{CORE},{brackets_in_a_string}}}")).starts_with("implied JSON"));
}

#[test]
fn a_batch_names_the_event_at_fault() {
    let batch = |text: String| match json::decode_batch(&text.into(), 200) {
        Ok(events) => format!("{} events", events.len()),
        Err(error) => error.to_string(),
    };
    expect!["0 events"].assert_eq(&batch("[]".to_owned()));
    expect!["2 events"].assert_eq(&batch(format!("[{{{CORE}}},{{{CORE}}}]")));
    expect!["event 1 of the batch: attribute `specversion` is required"]
        .assert_eq(&batch(format!("[{{{CORE}}},{{}}]")));
    expect!["event 1 of the batch: expected a JSON object, found a number"]
        .assert_eq(&batch(format!("[{{{CORE}}},5]")));
    expect!["expected a JSON array of events, found an object"].assert_eq(&batch(format!("{{{CORE}}}")));
    expect!["not valid JSON at line 2 column 1: trailing comma"]
        .assert_eq(&batch(format!("[{{{CORE}}},\n]")));
    expect!["event 1 of the batch: the event has 265 bytes, at most 200 are taken"]
        .assert_eq(&batch(format!("[{{{CORE}}},{{{CORE},\"data\":\"{}\"}}]", "x".repeat(200))));
    expect!["event 0 of the batch: not valid JSON at line 2 column 13: unexpected end of hex escape"]
        .assert_eq(&batch("[\n    {\"\\ud800\":1}]".to_owned()));
}

/// Writes an event with this content type and data.
fn written(content_type: Option<&str>, data: &[u8], form: DataForm) -> String {
    let mut builder =
        Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/a");
    builder = builder.attribute("type", "t");
    if let Some(content_type) = content_type {
        builder = builder.attribute("datacontenttype", content_type);
    }
    let event = builder.data(data.to_vec(), form).build().unwrap();
    let text = String::from_utf8(json::encode(&event)).unwrap();
    text.rsplit_once("\"data").map(|(_, member)| format!("data{member}")).unwrap()
}

#[test]
fn json_is_written_verbatim_if_it_is_json() {
    let spelled = b"{\"b\": 1.0, \"b\":1e400}\n";
    expect!["data\":{\"b\": 1.0, \"b\":1e400}\n}"].assert_eq(&written(
        Some("TEXT/json;x=y"),
        spelled,
        DataForm::Opaque,
    ));
    expect![[r#"data":"x"}"#]].assert_eq(&written(None, b"\"x\"", DataForm::ImpliedJson));
    expect![[r#"data_base64":"e30="}"#]].assert_eq(&written(None, b"{}", DataForm::Opaque));
    for not_json in [&b"{"[..], b"", b"\xef\xbb\xbf{}", b"{} {}", b"\"\xff\"", b"NaN"] {
        let member = written(Some("application/json"), not_json, DataForm::Opaque);
        assert!(member.starts_with("data_base64"), "{member}");
    }
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert!(written(Some("a/b+json"), deep.as_bytes(), DataForm::Opaque).starts_with("data_base64"));
}

#[test]
fn text_is_written_as_a_string_if_it_is_utf_8() {
    expect![[r#"data":"a\"\\\n\u0000é"}"#]].assert_eq(&written(
        Some("text/plain"),
        "a\"\\\n\0é".as_bytes(),
        DataForm::Opaque,
    ));
    expect![[r#"data":"<a/>"}"#]].assert_eq(&written(Some("image/svg+xml"), b"<a/>", DataForm::Opaque));
    expect![[r#"data_base64":"/w=="}"#]].assert_eq(&written(Some("text/plain"), b"\xff", DataForm::Opaque));
    expect![[r#"data_base64":"YQ=="}"#]].assert_eq(&written(
        Some("application/octet-stream"),
        b"a",
        DataForm::Opaque,
    ));
}

#[test]
fn attributes_are_written_in_received_order_with_their_type() {
    let text = r#"{"x":5,"type":"t","id":"1","y":false,"specversion":"1.0","source":"/a","s":"\"q\" €"}"#;
    let event = json::decode(&Bytes::from(text)).unwrap();
    assert_eq!(String::from_utf8(json::encode(&event)).unwrap(), text);
    assert_eq!(String::from_utf8(json::encode_batch(&[&event, &event])).unwrap(), format!("[{text},{text}]"));
    assert_eq!(json::encode_batch(&[]), b"[]");
}
