//! What a trigger makes of an event before its sink gets it.

pub mod jq;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sluice_schemas::{self as schemas, Event};

use crate::template::{Root, Scope};
use crate::{EventFields, Unmade, WrongField};
use jq::Jq;

/// A compiled `transform`.
#[derive(Clone, Debug, PartialEq)]
pub enum Transform {
    /// A program that gets the event in the CloudEvents JSON format, and whose one result is an event in that format.
    Jq(Jq),
    /// Templates over the event.
    Set(EventFields),
}

impl Transform {
    /// Compiles templates for attributes, and one for the data.
    pub fn compile_set(set: &[(String, Value)], data: Option<&Value>) -> Result<Self, WrongField> {
        let mut fields = set.to_vec();
        fields.extend(data.map(|data| ("data".to_owned(), data.clone())));
        EventFields::compile(&fields, &Root::OF_EVENT).map(Self::Set)
    }

    /// The transform as it is written in a configuration.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Jq(program) => json!({ "jq": program.text() }),
            Self::Set(fields) => {
                let mut set = fields.to_json();
                let mut shown = Map::new();
                let data = set.remove("data");
                shown.insert("set".into(), Value::Object(set));
                shown.extend(data.map(|data| ("data".into(), data)));
                Value::Object(shown)
            }
        }
    }
}

/// Transforms as the log keeps them: the inverse of [`Transform::to_json`].
impl Transform {
    /// Compiles a transform from its JSON form. The error says which part of it is none.
    pub fn from_json(transform: &Value) -> Result<Self, String> {
        if let Some(program) = transform["jq"].as_str() {
            return Jq::compile(program).map(Self::Jq).map_err(|error| format!("`jq`: {error}"));
        }
        let set =
            transform["set"].as_object().ok_or_else(|| format!("expected jq or set, found {transform}"))?;
        let set: Vec<_> = set.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let compiled = Self::compile_set(&set, transform.get("data"));
        compiled.map_err(|error| format!("`set`: {error}"))
    }
}

/// Puts templates over an event. Data that no template names keeps its bytes.
pub fn set(fields: &EventFields, event: &Event) -> Result<Event, Unmade> {
    fields.apply(crate::Draft::of(event), &Scope::of(event))
}

/// The event as a program sees it: the JSON format, with data of other content types as text where it is that,
/// and of none as JSON.
pub fn to_program(event: &Event) -> Vec<u8> {
    let Some(data) = event.data() else { return schemas::json::encode(event) };
    let Ok(text) = std::str::from_utf8(&data.bytes) else { return schemas::json::encode(event) };
    let is_json = || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    let value = match event.datacontenttype() {
        // The JSON format has these in `data` already.
        Some(content_type) if schemas::json::is_json(content_type) => return schemas::json::encode(event),
        Some(_) => Value::from(text).to_string(),
        None if is_json() => text.to_owned(),
        // There `data` would be read as a string of JSON.
        None => return schemas::json::encode(event),
    };
    let attributes = event.attributes().map(|(name, value)| (name.to_owned(), value.clone()));
    let bare = Event::from_stored(attributes.map(|(name, value)| (name.into(), value)).collect(), None);
    let mut json = schemas::json::encode(&bare);
    json.pop();
    json.extend_from_slice(b",\"data\":");
    json.extend_from_slice(value.as_bytes());
    json.push(b'}');
    json
}

/// Reads what a program made. Its text is an error for people.
pub fn from_program(result: &Bytes) -> Result<Event, String> {
    schemas::json::decode(result).map_err(|error| {
        // jq has numbers that JSON has not, and nothing else that its results could not be written as.
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(result).is_ok();
        let hint =
            if is_json { "" } else { "; is a number in it infinite or none, as after a division by zero?" };
        format!("the result is no CloudEvent: {error}{hint}")
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::transform::jq::Program;

    fn event(content_type: Option<&str>, data: Option<&'static [u8]>) -> Event {
        let event =
            Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/s");
        let mut event = event.attribute("type", "com.example.a");
        if let Some(content_type) = content_type {
            event = event.attribute("datacontenttype", content_type);
        }
        if let Some(data) = data {
            event = event.data(data, schemas::DataForm::Opaque);
        }
        event.build().expect("valid")
    }

    #[test]
    fn what_the_log_keeps_of_a_transform_is_the_transform() {
        let set = [
            ("count".to_owned(), json!("{data.n}")),
            ("type".to_owned(), json!("b.{event.type|x}")),
            ("data_base64".to_owned(), json!("{data.b}")),
        ];
        let data = json!({ "a": ["{data.a}", 1, null, "{{"], "b": true });
        for transform in [
            Transform::compile_set(&set[..2], Some(&data)).expect("compiles"),
            Transform::compile_set(&set, None).expect("compiles"),
            Transform::compile_set(&[], Some(&Value::Null)).expect("compiles"),
            Transform::Jq(Jq::compile(".data.a |= . + 1").expect("compiles")),
        ] {
            let kept = transform.to_json();
            assert_eq!(Transform::from_json(&kept), Ok(transform), "{kept}");
        }
        for wrong in
            [json!(null), json!({}), json!({ "jq": ".a |" }), json!({ "set": { "type": "{nope.a}" } })]
        {
            Transform::from_json(&wrong).expect_err("no transform");
        }
    }

    fn through(program: &str, event: &Event) -> Result<Event, String> {
        let program = Program::compile(program).expect("compiles");
        from_program(&program.run(&to_program(event))?.into())
    }

    #[test]
    fn an_event_that_a_program_leaves_alone_keeps_its_data() {
        let cases: [(Option<&str>, Option<&'static [u8]>); 9] = [
            (None, None),
            (None, Some(br#"{"b":1,"a":2}"#)),
            (None, Some(b"text")),
            (None, Some(b"\xff\x00")),
            (Some("application/json"), Some(br#"{"amount":1.10,"big":123456789012345678901234567890}"#)),
            (Some("application/json"), Some(b"no json")),
            (Some("text/plain"), Some(b"\"quoted\"")),
            (Some("application/octet-stream"), Some(br#"{"a":1}"#)),
            (Some("application/octet-stream"), Some(b"\xff\x00")),
        ];
        for (content_type, data) in cases {
            let event = event(content_type, data);
            let result = through(".", &event).expect("an event");
            let bytes = |event: &Event| event.data().map(|data| data.bytes.clone());
            assert_eq!((result.datacontenttype(), bytes(&result)), (content_type, bytes(&event)));
        }
    }

    fn check(cases: &[(&str, Value)], expected: &Expect) {
        let event = event(Some("application/json"), Some(br#"{"n": 5, "items": [1, 2]}"#));
        let shown = |(program, _): &(&str, Value)| match through(program, &event) {
            Ok(event) => {
                format!("{program}\n  {}\n", String::from_utf8_lossy(&schemas::json::encode(&event)))
            }
            Err(error) => format!("{program}\n  ! {error}\n"),
        };
        expected.assert_eq(&cases.iter().map(shown).collect::<String>());
    }

    #[test]
    fn the_result_must_be_one_valid_event() {
        let programs = [
            ".type = \"b\" | .data |= {n, count: (.items | length)}",
            "{id, source, type: \"short\", data: .data.n}",
            "del(.id)",
            ".source = \"not a uri\"",
            ".Upper = 1",
            ".price = 1.5",
            ".count = 3 | .flag = true | del(.data)",
            ".datacontenttype = \"text/plain\" | .data = \"n=\\(.data.n)\"",
            ".datacontenttype = \"text/plain\"",
            ".data_base64 = \"aGk=\" | del(.data)",
            ".data_base64 = \"aGk=\"",
            ".data",
            "empty",
            "., .",
            "error(\"no \\(.id)\")",
            ".data.n.x",
            "infinite as $x | .data = $x",
            ".data = nan",
        ];
        check(
            &programs.map(|program| (program, Value::Null)),
            &expect![[r#"
                .type = "b" | .data |= {n, count: (.items | length)}
                  {"specversion":"1.0","id":"1","source":"/s","type":"b","datacontenttype":"application/json","data":{"n":5,"count":2}}
                {id, source, type: "short", data: .data.n}
                  {"id":"1","source":"/s","type":"short","specversion":"1.0","data":5}
                del(.id)
                  ! the result is no CloudEvent: attribute `id` is required
                .source = "not a uri"
                  ! the result is no CloudEvent: attribute `source` must be a URI-reference (RFC 3986)
                .Upper = 1
                  ! the result is no CloudEvent: attribute `Upper` has an illegal name: 1 to 64 characters of a to z and 0 to 9 are allowed
                .price = 1.5
                  ! the result is no CloudEvent: attribute `price` must be an integer from -2147483648 to 2147483647, without fraction or exponent
                .count = 3 | .flag = true | del(.data)
                  {"specversion":"1.0","id":"1","source":"/s","type":"com.example.a","datacontenttype":"application/json","flag":true,"count":3}
                .datacontenttype = "text/plain" | .data = "n=\(.data.n)"
                  {"specversion":"1.0","id":"1","source":"/s","type":"com.example.a","datacontenttype":"text/plain","data":"n=5"}
                .datacontenttype = "text/plain"
                  ! the result is no CloudEvent: `data` must be a string, because `datacontenttype` names no JSON: found an object
                .data_base64 = "aGk=" | del(.data)
                  {"specversion":"1.0","id":"1","source":"/s","type":"com.example.a","datacontenttype":"application/json","data_base64":"aGk="}
                .data_base64 = "aGk="
                  ! the result is no CloudEvent: `data` and `data_base64` exclude each other
                .data
                  ! the result is no CloudEvent: attribute `items` must be a string, an integer or a boolean, not an array
                empty
                  ! the program has no result, and must have one
                ., .
                  ! the program has more than one result
                error("no \(.id)")
                  ! no 1
                .data.n.x
                  ! cannot index 5 with "x"
                infinite as $x | .data = $x
                  ! the result is no CloudEvent: not valid JSON at line 1 column 112: expected value; is a number in it infinite or none, as after a division by zero?
                .data = nan
                  ! the result is no CloudEvent: not valid JSON at line 1 column 112: expected value; is a number in it infinite or none, as after a division by zero?
            "#]],
        );
    }

    #[test]
    fn templates_leave_the_data_as_it_came() {
        let event = event(Some("application/json"), Some(br#"{ "n" : 1.10 }"#));
        let fields =
            [("type".to_owned(), json!("b.{data.n}")), ("subject".to_owned(), json!("{event.type}"))];
        let Ok(Transform::Set(fields)) = Transform::compile_set(&fields, None) else { panic!("compiles") };
        let result = set(&fields, &event).expect("an event");
        assert_eq!((result.ty(), result.subject()), ("b.1.10", Some("com.example.a")));
        assert_eq!(result.data(), event.data());
    }

    #[test]
    fn a_transform_is_shown_as_it_was_written() {
        let set = [("type".to_owned(), json!("b.{data.n}"))];
        let transform = Transform::compile_set(&set, Some(&json!({ "n": "{data.n}" }))).expect("compiles");
        assert_eq!(
            transform.to_json(),
            json!({ "set": { "type": "b.{data.n}" }, "data": { "n": "{data.n}" } })
        );
        assert!(Transform::compile_set(&[("type".to_owned(), json!("{body.n}"))], None).is_err());
    }
}
