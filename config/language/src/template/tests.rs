use bytes::Bytes;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_schemas::{Event, Kind};

use super::{Document, RENDERED_BYTES_MAX, RenderError, Root, Scope, TEXT_BYTES_MAX, Template};

const BODY: &str = r#"{"action": "opened", "n": 42, "price": 1.5, "ok": true, "none": null, "empty": "", "a.b": "dotted",
    "first name": "spaced", "items": [{"sku": "A1"}, {"sku": "B2"}], "nested": {"deep": {"er": [1, [2, 3]]}}}"#;

/// A place that has everything.
fn rendered(template: &Value, body: &[u8]) -> Result<Value, String> {
    let headers = [
        ("X-Event".to_owned(), Bytes::from_static(b"push")),
        ("x-event".to_owned(), Bytes::from_static(b"second")),
        ("a.b".to_owned(), Bytes::from_static(b"dotted header")),
        ("raw".to_owned(), Bytes::from_static(b"\xff\xfe")),
    ];
    let event = Event::builder().attribute("specversion", "1.0").attribute("id", "1");
    let event = event.attribute("source", "/s").attribute("type", "com.example");
    let event = event
        .value("count", sluice_schemas::Value { text: "7".into(), kind: Kind::Integer })
        .value("flag", sluice_schemas::Value { text: "true".into(), kind: Kind::Boolean })
        .build()
        .expect("valid");
    let scope = Scope {
        body: Some(Document::new(body)),
        headers: &headers,
        key: Some(b"k-1"),
        topic: Some("orders"),
        subject: Some("orders.eu"),
        event: Some(&event),
        data: Some(Document::new(br#"{"amount": 9}"#)),
        scheduled: Some("2026-01-31T12:00:00Z"),
    };
    let template = Template::compile(template, &Root::ALL).map_err(|wrong| {
        let at = if wrong.place.is_empty() { String::new() } else { format!("{}: ", wrong.place) };
        format!("{at}{}: {}", wrong.error.at, wrong.error)
    })?;
    template.render(&scope).map_err(|error| error.to_string())
}

fn check(templates: &[&str], expected: &Expect) {
    let line = |text: &&str| match rendered(&json!(text), BODY.as_bytes()) {
        Ok(value) => format!("{text}  ->  {value}\n"),
        Err(error) => format!("{text}  ->  ! {error}\n"),
    };
    expected.assert_eq(&templates.iter().map(line).collect::<String>());
}

#[test]
fn paths_descend_by_names_and_places() {
    check(
        &[
            "com.{body.action}.x",
            "{body.items[1].sku}",
            "{body.nested.deep.er[1][0]}",
            "{body[\"a.b\"]}",
            "{body.first name}",
            "{body.items[2].sku|none}",
            "{body.items.sku|none}",
            "{body[0]|none}",
            "{headers.x-EVENT}/{headers.a.b}",
            "{headers.raw|not text}",
            "{key}@{topic}@{subject}",
            "{event.type} {event.count} {data.amount} {scheduled}",
        ],
        &expect![[r#"
            com.{body.action}.x  ->  "com.opened.x"
            {body.items[1].sku}  ->  "B2"
            {body.nested.deep.er[1][0]}  ->  2
            {body["a.b"]}  ->  "dotted"
            {body.first name}  ->  "spaced"
            {body.items[2].sku|none}  ->  "none"
            {body.items.sku|none}  ->  "none"
            {body[0]|none}  ->  "none"
            {headers.x-EVENT}/{headers.a.b}  ->  "push/dotted header"
            {headers.raw|not text}  ->  "not text"
            {key}@{topic}@{subject}  ->  "k-1@orders@orders.eu"
            {event.type} {event.count} {data.amount} {scheduled}  ->  "com.example 7 9 2026-01-31T12:00:00Z"
        "#]],
    );
}

#[test]
fn one_whole_path_keeps_the_type_and_a_longer_text_does_not() {
    check(
        &[
            "{body.n}",
            "n={body.n}",
            "{body.price}",
            "{body.ok}",
            "{body.none}",
            "{body.none|default}",
            "x{body.none|default}",
            "{body.items}",
            "i={body.items}",
            "{event.count}",
            "{event.flag}",
            "{event}",
            "{headers}",
            "{body.n}{body.n}",
            "{body.empty|default}",
            "{body.n|0}",
            "{body.missing|0}",
        ],
        &expect![[r#"
            {body.n}  ->  42
            n={body.n}  ->  "n=42"
            {body.price}  ->  1.5
            {body.ok}  ->  true
            {body.none}  ->  null
            {body.none|default}  ->  "default"
            x{body.none|default}  ->  "xdefault"
            {body.items}  ->  [{"sku":"A1"},{"sku":"B2"}]
            i={body.items}  ->  "i=[{\"sku\":\"A1\"},{\"sku\":\"B2\"}]"
            {event.count}  ->  7
            {event.flag}  ->  true
            {event}  ->  {"count":7,"flag":true,"id":"1","source":"/s","specversion":"1.0","type":"com.example"}
            {headers}  ->  {"a.b":"dotted header","x-event":"push"}
            {body.n}{body.n}  ->  "4242"
            {body.empty|default}  ->  ""
            {body.n|0}  ->  42
            {body.missing|0}  ->  "0"
        "#]],
    );
}

#[test]
fn braces_are_doubled_and_a_lone_closing_one_is_itself() {
    check(
        &["{{", "}}", "}", "{{body.n}}", "a}b", "{{{body.n}}}", "{body.n}}", "{{}}", "", "{body.x|}", "}}}"],
        &expect![[r#"
            {{  ->  "{"
            }}  ->  "}"
            }  ->  "}"
            {{body.n}}  ->  "{body.n}"
            a}b  ->  "a}b"
            {{{body.n}}}  ->  "{42}"
            {body.n}}  ->  "42}"
            {{}}  ->  "{}"
              ->  ""
            {body.x|}  ->  ""
            }}}  ->  "}}"
        "#]],
    );
}

#[test]
fn what_is_absent_without_a_default_is_an_error_of_the_whole() {
    check(
        &[
            "{body.missing}",
            "a {body.missing.deeper} b",
            "a {body.none}",
            "{headers.absent}",
            "{event.subject}",
        ],
        &expect![[r#"
            {body.missing}  ->  ! `{body.missing}` is absent, and has no default
            a {body.missing.deeper} b  ->  ! `{body.missing.deeper}` is absent, and has no default
            a {body.none}  ->  ! `{body.none}` is absent, and has no default
            {headers.absent}  ->  ! `{headers.absent}` is absent, and has no default
            {event.subject}  ->  ! `{event.subject}` is absent, and has no default
        "#]],
    );
}

#[test]
fn errors_have_a_place_and_say_what_was_expected() {
    check(
        &[
            "ab {",
            "ab {body",
            "{body.",
            "{}",
            "{|x}",
            "{.a}",
            "{bdy.x}",
            "{ body.x}",
            "{body. x}",
            "{body..x}",
            "{body[x]}",
            "{body[-1]}",
            "{body[1}",
            "{body[99999999999999999999]}",
            "{body[\"a]}",
            "{body]}",
            "{body.a{b}}",
            "{body.a|{key}}",
            "{body.a|b",
            "{key.id}",
            "{headers[0]}",
            "{headers.a[0]}",
            "{event.Type}",
            "{event.type.x}",
            "{event.data.x}",
            "{\"a\": 1}",
        ],
        &expect![[r#"
            ab {  ->  ! 3: `{` without `}`: expected a path such as `{body.name}`; for a brace write `{{`
            ab {body  ->  ! 3: `{` without `}`: expected a path such as `{body.name}`; for a brace write `{{`
            {body.  ->  ! 0: `{` without `}`: expected a path such as `{body.name}`; for a brace write `{{`
            {}  ->  ! 1: expected a path after `{`, which begins with `body`, `headers`, `key`, `topic`, `subject`, `event`, `data` or `scheduled`; for a brace write `{{`
            {|x}  ->  ! 1: expected a path after `{`, which begins with `body`, `headers`, `key`, `topic`, `subject`, `event`, `data` or `scheduled`; for a brace write `{{`
            {.a}  ->  ! 1: expected a path after `{`, which begins with `body`, `headers`, `key`, `topic`, `subject`, `event`, `data` or `scheduled`; for a brace write `{{`
            {bdy.x}  ->  ! 1: unknown `bdy`: a path begins with `body`, `headers`, `key`, `topic`, `subject`, `event`, `data` or `scheduled`; for a brace write `{{`
            { body.x}  ->  ! 1: white space in a path: expected the name at once after `{`
            {body. x}  ->  ! 6: white space around a name: if it belongs to it, write [" x"]
            {body..x}  ->  ! 6: expected a name after `.`
            {body[x]}  ->  ! 6: expected a place such as [0], or a name in double quotes, and `]`
            {body[-1]}  ->  ! 6: expected a place such as [0], or a name in double quotes, and `]`
            {body[1}  ->  ! 6: expected a place such as [0], or a name in double quotes, and `]`
            {body[99999999999999999999]}  ->  ! 6: expected a place such as [0], or a name in double quotes, and `]`
            {body["a]}  ->  ! 6: a name that does not end: expected `"]`
            {body]}  ->  ! 5: expected `.`, `[`, `|` or `}` in a path, found `]`
            {body.a{b}}  ->  ! 7: expected `.`, `[`, `|` or `}` in a path, found `{`
            {body.a|{key}}  ->  ! 8: a default is plain text: expected `}`, found `{`
            {body.a|b  ->  ! 0: `{` without `}`: expected a path such as `{body.name}`; for a brace write `{{`
            {key.id}  ->  ! 4: `key` is text: expected `}` or `|` after it
            {headers[0]}  ->  ! 8: a header is text: expected `}` or `|` after its name
            {headers.a[0]}  ->  ! 10: a header is text: expected `}` or `|` after its name
            {event.Type}  ->  ! 6: expected the name of an attribute, which is a-z and 0-9 only
            {event.type.x}  ->  ! 11: an attribute is text: expected `}` or `|` after its name
            {event.data.x}  ->  ! 6: the data is no attribute: write `{data}` without `event.`
            {"a": 1}  ->  ! 1: expected a path after `{`, which begins with `body`, `headers`, `key`, `topic`, `subject`, `event`, `data` or `scheduled`; for a brace write `{{`
        "#]],
    );
}

#[test]
fn a_place_takes_only_the_roots_it_has() {
    let wrong = Template::compile_text("{key}", &[Root::Body, Root::Headers]).expect_err("no key here");
    assert_eq!((wrong.at, &*wrong.message), (1, "there is no `key` here: expected `body` or `headers`"));
    let wrong = Template::compile_text("{event.type}", &[]).expect_err("nothing here");
    assert_eq!(wrong.message, "there is no `event` here: expected nothing: there are no paths here");
}

#[test]
fn a_body_that_is_no_json_is_text_and_nothing_is_in_it() {
    let text = |template: &str, body: &[u8]| rendered(&json!(template), body);
    assert_eq!(text("{body}", b"plain"), Ok(json!("plain")));
    assert_eq!(text("<{body}>", b"plain"), Ok(json!("<plain>")));
    assert_eq!(text("{body.action|unknown}", b"plain"), Ok(json!("unknown")));
    assert_eq!(text("{body|binary}", b"\xff"), Ok(json!("binary")));
    assert_eq!(text("{body}", b"\"quoted\""), Ok(json!("quoted")));
    assert_eq!(text("{body.a|x}", b"{\"a\": 1} trailing"), Ok(json!("x")));
}

#[test]
fn lists_and_mappings_are_rendered_and_what_is_absent_is_left_out_of_them() {
    let template = json!({
        "plain": "text", "n": 5, "null": null, "action": "{body.action}", "gone": "{body.gone}",
        "list": ["{body.n}", "{body.gone}", ["{key}", true]], "inner": { "gone": "x{body.gone}", "{key}": "{{" },
    });
    let expected = json!({
        "plain": "text", "n": 5, "null": null, "action": "opened",
        "list": [42, ["k-1", true]], "inner": { "{key}": "{" },
    });
    assert_eq!(rendered(&template, BODY.as_bytes()), Ok(expected));
    let template = Template::compile(&template, &Root::ALL).expect("compiles");
    assert_eq!(Template::compile(&template.to_json(), &Root::ALL), Ok(template));
}

#[test]
fn an_error_in_nested_json_names_its_place() {
    let template = json!({ "items": [{ "name": "ok" }, { "name": "{oops" }] });
    assert_eq!(
        rendered(&template, b""),
        Err("items[1].name: 1: unknown `oops`: a path begins with `body`, `headers`, `key`, `topic`, `subject`, \
             `event`, `data` or `scheduled`; for a brace write `{{`"
            .into())
    );
}

#[test]
fn text_of_what_is_no_text_is_its_json() {
    let text = |template: Value| {
        let scope = Scope { body: Some(Document::new(BODY.as_bytes())), ..Scope::default() };
        Template::compile(&template, &Root::ALL).expect("compiles").render_text(&scope)
    };
    assert_eq!(text(json!("{body.n}")), Ok("42".into()));
    assert_eq!(text(json!(["{body.n}"])), Ok("[42]".into()));
    assert_eq!(text(json!(true)), Ok("true".into()));
    assert_eq!(text(json!(null)), Err(RenderError::Absent { path: "null".into() }));
    assert_eq!(text(json!("{body.none}")), Err(RenderError::Absent { path: "body.none".into() }));
}

#[test]
fn what_a_template_renders_is_bounded() {
    let body = json!({ "long": "x".repeat(1 << 20) }).to_string();
    let times = |n: usize| json!("{body.long}".repeat(n));
    assert!(rendered(&times(31), body.as_bytes()).is_ok());
    let too_large = RenderError::TooLarge.to_string();
    assert_eq!(rendered(&times(33), body.as_bytes()), Err(too_large.clone()));
    let list = Value::Array(vec![json!("{body}"); RENDERED_BYTES_MAX / body.len() + 1]);
    assert_eq!(rendered(&list, body.as_bytes()), Err(too_large));
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    assert!(Template::compile_text(&long, &[]).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_an_error_has_a_place_in_the_text(
        text in r#"([{}|.\[\]"0-9a-z ]|body|headers|key|event|data|é|\PC){0,24}"#,
    ) {
        match Template::compile_text(&text, &Root::ALL) {
            Ok(template) => {
                let scope = Scope { body: Some(Document::new(BODY.as_bytes())), ..Scope::default() };
                let _ = template.render(&scope);
                prop_assert_eq!(Template::compile_text(template.to_json().as_str().expect("text"), &Root::ALL), Ok(template));
            }
            Err(error) => prop_assert!(text.is_char_boundary(error.at), "{} in {text:?}", error.at),
        }
    }

    #[test]
    fn any_text_comes_back_when_its_braces_are_doubled(text in r"\PC{0,40}") {
        let doubled = text.replace('{', "{{").replace('}', "}}");
        let template = Template::compile_text(&doubled, &[]).expect("no paths in it");
        prop_assert_eq!(template.render_text(&Scope::default()), Ok(text));
    }

    #[test]
    fn any_member_is_found_by_its_name_in_quotes(name in r#"[^"]{0,12}"#, place in 0_usize..4) {
        let body = json!({ &name: [0, 1, 2, 3] }).to_string();
        let scope = Scope { body: Some(Document::new(body.as_bytes())), ..Scope::default() };
        let template = Template::compile_text(&format!("{{body[\"{name}\"][{place}]}}"), &Root::ALL).expect("compiles");
        prop_assert_eq!(template.render(&scope), Ok(json!(place)));
    }
}
