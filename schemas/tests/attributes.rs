//! The rules for attributes (CloudEvents core, "Context Attributes" and "Type System").
#![allow(clippy::needless_pass_by_value, reason = "`Expect` is made where it is used up")]

use expect_test::{Expect, expect};
use sluice_schemas::{Event, Kind, Value};

/// Builds an event in which one attribute differs from a minimal one, and shows what is said of it.
fn check(name: &str, text: &str, expected: Expect) {
    expected.assert_eq(&verdict(name, text));
}

fn accepts(name: &str, texts: &[&str]) {
    for text in texts {
        assert_eq!(verdict(name, text), "valid", "{name}: {text:?}");
    }
}

fn refuses(name: &str, texts: &[&str]) {
    for text in texts {
        let verdict = verdict(name, text);
        assert!(verdict.contains(&format!("`{name}`")), "{name}: {text:?} gave: {verdict}");
    }
}

fn verdict(name: &str, text: &str) -> String {
    let minimal = [("specversion", "1.0"), ("id", "1"), ("source", "/a"), ("type", "t")];
    let mut builder = Event::builder();
    for (known, default) in minimal.into_iter().filter(|(known, _)| *known != name) {
        builder = builder.attribute(known, default);
    }
    outcome(builder.attribute(name, text).build())
}

fn typed(name: &str, text: &str, kind: Kind) -> String {
    let value = Value { text: text.into(), kind };
    let event =
        Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/a");
    outcome(event.attribute("type", "t").value(name, value).build())
}

fn outcome(built: Result<Event, sluice_schemas::Invalid>) -> String {
    built.map_or_else(|invalid| invalid.to_string(), |_| "valid".to_owned())
}

#[test]
fn required_attributes_are_required() {
    let built =
        Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("type", "t").build();
    expect!["attribute `source` is required"].assert_eq(&outcome(built));
}

#[test]
fn specversion_is_looked_at_first() {
    let built = Event::builder().attribute("specversion", "0.3").attribute("Bad_Name", "").build();
    expect!["attribute `specversion` has the unsupported value `0.3`: only `1.0` is known"]
        .assert_eq(&outcome(built));
}

#[test]
fn specversion_is_exactly_one_point_zero() {
    accepts("specversion", &["1.0"]);
    refuses("specversion", &["", "0.3", "0.9", "1", "1.0.2", "2.0", "abc"]);
}

#[test]
fn core_attributes_are_never_empty() {
    check("id", "", expect!["attribute `id` must not be empty"]);
    for name in ["source", "type", "subject", "time", "dataschema", "datacontenttype"] {
        assert_eq!(verdict(name, ""), format!("attribute `{name}` must not be empty"));
    }
    accepts("extension", &[""]);
}

#[test]
fn names_are_lower_case_letters_and_digits() {
    accepts("a1", &["x"]);
    accepts("1", &["x"]);
    accepts(&"a".repeat(64), &["x"]);
    for name in ["", "MyExt", "my_ext", "my-ext", "a.b", "é", "data_base64"] {
        refuses(name, &["x"]);
    }
    refuses(&"a".repeat(65), &["x"]);
    check("data", "x", expect!["attribute `data` cannot be an attribute: the name `data` is reserved"]);
    check(
        "my_ext",
        "x",
        expect![
            "attribute `my_ext` has an illegal name: 1 to 64 characters of a to z and 0 to 9 are allowed"
        ],
    );
}

#[test]
fn a_name_occurs_once_among_few_and_among_many() {
    for others in [0, 100] {
        let mut builder = Event::builder().attribute("specversion", "1.0").attribute("id", "1");
        builder = builder.attribute("source", "/a").attribute("type", "t").attribute("id", "2");
        for number in 0..others {
            builder = builder.attribute(&format!("x{number}"), "x");
        }
        expect!["attribute `id` occurs more than once"].assert_eq(&outcome(builder.build()));
    }
}

#[test]
fn source_is_a_uri_reference() {
    accepts(
        "source",
        &[
            "https://example.com/a?b=c#d",
            "mailto:cncf-wg-serverless@lists.cncf.io",
            "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
            "/cloudevents/spec/pull/123",
            "/a/b",
            "1-555-123-4567",
            "#fragment",
            "?query",
            "//host/path",
            "http://user:pw@host:80/",
            "http://[::1]:8080/x",
            "http://[v1.fe]/",
            "http://",
            "a%20b",
            "./a:b",
            "urn:event:from:myapi/resource/123",
        ],
    );
    refuses(
        "source",
        &[
            "http://[",
            "http://[::1",
            "http://[zz]/",
            "http://host:80a/",
            "http://a b/",
            " /a",
            "/a b",
            "a%2",
            "a%zz",
            "%",
            "1:2",
            "under_score:x",
            ":a",
            "a#b#c",
            "<x>",
            "a\\b",
            "{id}",
            "http://a[b]/",
        ],
    );
}

#[test]
fn source_may_hold_what_an_iri_holds() {
    accepts("source", &["/bestellungen/größe", "https://例え.jp/?q=é#ü"]);
    refuses("source", &["/a\u{3000}b", "/a\u{2028}b"]);
}

#[test]
fn dataschema_is_an_absolute_uri() {
    accepts("dataschema", &["https://example.com/s.json", "urn:x:y", "https://example.com/s#/definitions/a"]);
    refuses("dataschema", &["#", "/a", "s.json", "http://[", "https:", "//host/s"]);
}

#[test]
fn datacontenttype_is_a_media_type() {
    accepts(
        "datacontenttype",
        &[
            "application/json",
            "TEXT/Plain; CharSet=utf-8",
            "application/vnd.a+json;v=1;w=\"a; b\\\"\"",
            "text/plain;",
            "text/plain ; a=b",
            "a/b",
        ],
    );
    refuses(
        "datacontenttype",
        &["xyz", "a/", "/b", "a/b/c", "a b/c", "a/b; c", "a/b;c=", "a/b;=c", "a/b;c=\"d", "a/b c", "é/b"],
    );
}

#[test]
fn time_is_rfc_3339() {
    accepts(
        "time",
        &[
            "2018-04-05T17:31:00Z",
            "2018-04-05t17:31:00z",
            "2018-04-05T17:31:00.1234567Z",
            "2018-04-05T17:31:00.123456789+01:00",
            "2018-04-05T17:31:00-01:00",
            "2018-04-05T17:31:00-00:00",
            "2018-04-05T17:31:00+23:59",
            "0000-01-01T00:00:00Z",
            "2000-02-29T00:00:00Z",
            "2016-12-31T23:59:60Z",
            "1990-12-31T15:59:60-08:00",
        ],
    );
    refuses(
        "time",
        &[
            "yesterday",
            "2018-04-05",
            "2018-04-05T17:31Z",
            "2018-04-05T17:31:00",
            "2018-04-05 17:31:00Z",
            "2018-04-05T17:31:00X",
            "2018-04-05T17:31:00.Z",
            "2018-04-05T17:31:00+25:00",
            "2018-04-05T17:31:00+01:60",
            "2018-04-05T17:31:00+05",
            "2018-04-05T17:31:00+0500",
            "2018-04-05T24:00:00Z",
            "2018-04-05T17:60:00Z",
            "2018-04-05T17:31:60Z",
            "2018-04-05T17:31:61Z",
            "2026-02-30T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2018-13-01T00:00:00Z",
            "2018-00-01T00:00:00Z",
            "2018-01-00T00:00:00Z",
            "2018-04-05T17:31:00Z ",
            "２018-04-05T17:31:00Z",
        ],
    );
}

#[test]
fn integers_have_32_bits_and_no_fraction() {
    for text in ["0", "-1", "2147483647", "-2147483648"] {
        assert_eq!(typed("extension", text, Kind::Integer), "valid", "{text}");
    }
    for text in ["", "-", "5.0", "1e1", "2147483648", "-2147483649", "+1", "01", "-0", "9223372036854775808"]
    {
        let verdict = typed("extension", text, Kind::Integer);
        assert!(verdict.contains("`extension` must be an integer"), "{text}: {verdict}");
    }
}

#[test]
fn booleans_are_true_or_false() {
    assert_eq!(typed("extension", "true", Kind::Boolean), "valid");
    expect!["attribute `extension` must be `true` or `false`"].assert_eq(&typed(
        "extension",
        "True",
        Kind::Boolean,
    ));
}

#[test]
fn core_attributes_are_strings() {
    expect!["attribute `subject` must be a string, not a number"].assert_eq(&typed(
        "subject",
        "5",
        Kind::Integer,
    ));
    expect!["attribute `subject` must be a string, not a boolean"].assert_eq(&typed(
        "subject",
        "true",
        Kind::Boolean,
    ));
}

#[test]
fn strings_hold_no_control_characters_and_no_noncharacters() {
    accepts("subject", &["Euro € 😀", "\u{a0}", "\u{fffd}", "\u{e000}", "\u{feff}", "~"]);
    refuses(
        "subject",
        &[
            "\0",
            "a\nb",
            "\t",
            "\u{1f}",
            "\u{7f}",
            "\u{80}",
            "\u{9f}",
            "\u{fdd0}",
            "\u{ffff}",
            "\u{1fffe}",
            "\u{10ffff}",
        ],
    );
    check(
        "subject",
        "a\u{85}",
        expect!["attribute `subject` holds U+0085, a control character or noncharacter"],
    );
}

#[test]
fn an_error_quotes_little_of_a_long_value() {
    let verdict = verdict("specversion", &"9".repeat(100_000));
    assert!(verdict.len() < 200, "{} bytes", verdict.len());
}
