//! The fields of an event as templates: `event:` of a source, `set` and `data` of a transform.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::Value;
use sluice_schemas::{self as schemas, Data, DataForm, Event, Invalid, Kind, json};

use crate::SyntaxError;
use crate::template::{RenderError, Root, Scope, Template};

/// Attributes that are text whatever a path finds for them, and must not be empty.
const CORE: [&str; 7] = ["id", "source", "type", "subject", "time", "datacontenttype", "dataschema"];
const REQUIRED: [&str; 3] = ["id", "source", "type"];

/// An event that is being put together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    attributes: Vec<(Box<str>, schemas::Value)>,
    data: Option<Data>,
}

impl Draft {
    /// Begins with what an event has.
    pub fn of(event: &Event) -> Self {
        let attributes = event.attributes().map(|(name, value)| (name.into(), value.clone()));
        Self { attributes: attributes.collect(), data: event.data().cloned() }
    }

    /// Sets a String attribute.
    #[must_use]
    pub fn attribute(mut self, name: &str, text: &str) -> Self {
        self.set(name, schemas::Value { text: text.into(), kind: Kind::String });
        self
    }

    /// Sets an attribute, or leaves it out.
    #[must_use]
    pub fn maybe(self, name: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.attribute(name, text),
            None => self,
        }
    }

    #[must_use]
    pub fn data(mut self, bytes: impl Into<Bytes>) -> Self {
        self.data = Some(Data { bytes: bytes.into(), form: DataForm::Opaque });
        self
    }

    /// Checks every rule of CloudEvents 1.0; the version need not be set.
    pub fn build(mut self) -> Result<Event, Invalid> {
        if !self.attributes.iter().any(|(name, _)| **name == *"specversion") {
            let version = schemas::Value { text: "1.0".into(), kind: Kind::String };
            self.attributes.insert(0, ("specversion".into(), version));
        }
        let mut builder = Event::builder();
        for (name, value) in self.attributes {
            builder = builder.value(&name, value);
        }
        match self.data {
            Some(data) => builder.data(data.bytes, data.form).build(),
            None => builder.build(),
        }
    }

    fn set(&mut self, name: &str, value: schemas::Value) {
        match self.attributes.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, known)) => *known = value,
            None => self.attributes.push((name.into(), value)),
        }
    }

    fn remove(&mut self, name: &str) {
        self.attributes.retain(|(known, _)| **known != *name);
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| **known == *name).map(|(_, value)| &*value.text)
    }
}

/// Templates for some fields of an event. They override a [`Draft`] field by field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventFields {
    attributes: Vec<(String, Template)>,
    data: Option<DataField>,
}

#[derive(Clone, Debug, PartialEq)]
enum DataField {
    None,
    Json(Template),
    Base64(Template),
}

/// A field that cannot be compiled, and where in its value the fault is (`items[0].name`, empty for the whole).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {error}")]
pub struct WrongField {
    pub field: String,
    pub place: String,
    pub error: SyntaxError,
}

/// Why the fields make no event here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmade {
    #[error("`{field}`: {error}")]
    Field { field: String, error: RenderError },
    #[error("`data_base64`: not padded standard base64 (RFC 4648, section 4)")]
    Base64,
    #[error("{0}")]
    Invalid(#[from] Invalid),
}

impl EventFields {
    /// Compiles fields by name: attributes, and `data` or `data_base64`. A null leaves a field out.
    pub fn compile(fields: &[(String, Value)], roots: &[Root]) -> Result<Self, WrongField> {
        let mut compiled = Self::default();
        for (field, json) in fields {
            let wrong = |message: String| WrongField {
                field: field.clone(),
                place: String::new(),
                error: SyntaxError { at: 0, message },
            };
            let template = Template::compile(json, roots).map_err(|wrong| WrongField {
                field: field.clone(),
                place: wrong.place,
                error: wrong.error,
            })?;
            match field.as_str() {
                "data" | "data_base64" if compiled.data.is_some() => {
                    return Err(wrong("`data` and `data_base64` exclude each other".into()));
                }
                "data" | "data_base64" if json.is_null() => compiled.data = Some(DataField::None),
                "data" => compiled.data = Some(DataField::Json(template)),
                "data_base64" => {
                    check_base64(json).map_err(wrong)?;
                    compiled.data = Some(DataField::Base64(template));
                }
                name => {
                    check_attribute(name, json).map_err(wrong)?;
                    compiled.attributes.push((field.clone(), template));
                }
            }
        }
        Ok(compiled)
    }

    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.data.is_none()
    }

    /// Puts the fields over a draft. What is absent without a default is left out; `id`, `source` and `type` cannot be.
    pub fn apply(&self, mut draft: Draft, scope: &Scope<'_>) -> Result<Event, Unmade> {
        for (name, template) in &self.attributes {
            match attribute(name, template, scope) {
                Ok(value) => draft.set(name, value),
                Err(RenderError::Absent { .. }) if !REQUIRED.contains(&&**name) => draft.remove(name),
                Err(error) => return Err(Unmade::Field { field: name.clone(), error }),
            }
        }
        if let Some(field) = &self.data {
            self.put_data(field, &mut draft, scope)?;
        }
        Ok(draft.build()?)
    }

    /// Data that is rendered is JSON, unless the fields name another content type: a string then is the data itself.
    fn put_data(&self, field: &DataField, draft: &mut Draft, scope: &Scope<'_>) -> Result<(), Unmade> {
        let names_type = self.attributes.iter().any(|(name, _)| name == "datacontenttype");
        if !names_type {
            draft.remove("datacontenttype");
        }
        draft.data = None;
        let bytes = match field {
            DataField::None => return Ok(()),
            DataField::Base64(template) => match template.render_text(scope) {
                Ok(text) => BASE64_STANDARD.decode(text).map_err(|_| Unmade::Base64)?,
                Err(RenderError::Absent { .. }) => return Ok(()),
                Err(error) => return Err(Unmade::Field { field: "data_base64".into(), error }),
            },
            DataField::Json(template) => {
                let value = match template.render(scope) {
                    Ok(value) => value,
                    Err(RenderError::Absent { .. }) => return Ok(()),
                    Err(error) => return Err(Unmade::Field { field: "data".into(), error }),
                };
                match (value, draft.text("datacontenttype")) {
                    (Value::String(text), Some(content_type)) if !json::is_json(content_type) => {
                        text.into_bytes()
                    }
                    (value, Some(_)) => value.to_string().into_bytes(),
                    (value, None) => {
                        let json = schemas::Value { text: "application/json".into(), kind: Kind::String };
                        draft.set("datacontenttype", json);
                        value.to_string().into_bytes()
                    }
                }
            }
        };
        draft.data = Some(Data { bytes: bytes.into(), form: DataForm::Opaque });
        Ok(())
    }

    /// The fields as they were written.
    pub fn to_json(&self) -> serde_json::Map<String, Value> {
        let mut fields: serde_json::Map<_, _> =
            self.attributes.iter().map(|(name, template)| (name.clone(), template.to_json())).collect();
        let data = match &self.data {
            None => None,
            Some(DataField::None) => Some(("data", Value::Null)),
            Some(DataField::Json(template)) => Some(("data", template.to_json())),
            Some(DataField::Base64(template)) => Some(("data_base64", template.to_json())),
        };
        fields.extend(data.map(|(name, json)| (name.to_owned(), json)));
        fields
    }
}

fn check_attribute(name: &str, json: &Value) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name == "specversion" {
        return Err("is always 1.0".into());
    }
    if !(1..=schemas::NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(legal) {
        let max = schemas::NAME_BYTES_MAX;
        return Err(format!("not the name of an attribute, which is 1 to {max} of a-z and 0-9"));
    }
    match json {
        Value::Null if REQUIRED.contains(&name) => Err("cannot be left out".into()),
        Value::Array(_) | Value::Object(_) => Err("an attribute is text, a whole number or a boolean".into()),
        Value::String(text) => check_constant(name, text),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn check_base64(json: &Value) -> Result<(), String> {
    match json {
        Value::String(text) if text.contains(['{', '}']) || BASE64_STANDARD.decode(text).is_ok() => Ok(()),
        _ => Err("not padded standard base64 (RFC 4648, section 4)".into()),
    }
}

/// What is the same for every event must be what an event may have. An empty optional attribute is left out.
fn check_constant(name: &str, text: &str) -> Result<(), String> {
    if text.contains(['{', '}']) || (text.is_empty() && !REQUIRED.contains(&name)) {
        return Ok(());
    }
    let complete = Draft::default().attribute("id", "i").attribute("source", "/s").attribute("type", "t");
    let built = complete.attribute(name, text).build();
    built.map(drop).map_err(|invalid| invalid.rule.to_string())
}

/// Whole numbers and booleans of extensions stay what they are; everything else is text.
fn attribute(name: &str, template: &Template, scope: &Scope<'_>) -> Result<schemas::Value, RenderError> {
    if CORE.contains(&name) {
        let text = template.render_text(scope)?;
        if text.is_empty() && !REQUIRED.contains(&name) {
            return Err(RenderError::Absent { path: name.into() });
        }
        return Ok(schemas::Value { text: text.into(), kind: Kind::String });
    }
    let (text, kind) = match template.render(scope)? {
        Value::Null => return Err(RenderError::Absent { path: name.into() }),
        Value::String(text) => (text, Kind::String),
        Value::Bool(value) => (value.to_string(), Kind::Boolean),
        // Its text has the digits that the number may have lost.
        Value::Number(number) if number.is_f64() => (template.render_text(scope)?, Kind::String),
        Value::Number(number) => {
            let is_integer = number.as_i64().is_some_and(|number| i32::try_from(number).is_ok());
            (number.to_string(), if is_integer { Kind::Integer } else { Kind::String })
        }
        json @ (Value::Array(_) | Value::Object(_)) => (json.to_string(), Kind::String),
    };
    Ok(schemas::Value { text: text.into(), kind })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;
    use crate::template::Document;

    const BODY: &str = r#"{"id": 42, "n": 7, "big": 3000000000, "price": 1.5, "ok": true, "none": null, "empty": "",
        "name": "x", "bytes": "aGk=", "list": [1]}"#;

    fn draft() -> Draft {
        let draft = Draft::default().attribute("id", "default").attribute("source", "/orders");
        let draft = draft.attribute("type", "sluice.kafka.record").attribute("datacontenttype", "text/plain");
        draft.attribute("subject", "s").data("body")
    }

    fn applied(fields: Value) -> String {
        let Value::Object(members) = fields else { return String::new() };
        let fields: Vec<_> = members.into_iter().collect();
        let compiled = match EventFields::compile(&fields, &[Root::Body]) {
            Ok(compiled) => compiled,
            Err(wrong) => return format!("refused: {wrong}"),
        };
        assert_eq!(
            EventFields::compile(&compiled.to_json().into_iter().collect::<Vec<_>>(), &[Root::Body]),
            Ok(compiled.clone())
        );
        let scope = Scope { body: Some(Document::new(BODY.as_bytes())), ..Scope::default() };
        match compiled.apply(draft(), &scope) {
            Ok(event) => String::from_utf8(json::encode(&event)).expect("JSON is text"),
            Err(error) => format!("no event: {error}"),
        }
    }

    fn check(fields: &[Value], expected: &Expect) {
        expected.assert_eq(
            &fields
                .iter()
                .map(|fields| format!("{fields}\n  {}\n", applied(fields.clone())))
                .collect::<String>(),
        );
    }

    #[test]
    fn attributes_are_overridden_one_by_one() {
        check(
            &[
                json!({}),
                json!({ "type": "com.{body.name}", "subject": "{body.missing}", "id": "{body.id}" }),
                json!({ "subject": null, "time": "2026-01-31T12:00:00Z" }),
                json!({ "subject": "{body.empty}", "datacontenttype": "{body.none}" }),
                json!({ "count": "{body.n}", "flag": "{body.ok}", "name": "{body.name}", "fixed": 5 }),
                json!({ "big": "{body.big}", "price": "{body.price}", "list": "{body.list}", "gone": "{body.none}" }),
            ],
            &expect![[r#"
                {}
                  {"specversion":"1.0","id":"default","source":"/orders","type":"sluice.kafka.record","datacontenttype":"text/plain","subject":"s","data":"body"}
                {"id":"{body.id}","subject":"{body.missing}","type":"com.{body.name}"}
                  {"specversion":"1.0","id":"42","source":"/orders","type":"com.x","datacontenttype":"text/plain","data":"body"}
                {"subject":null,"time":"2026-01-31T12:00:00Z"}
                  {"specversion":"1.0","id":"default","source":"/orders","type":"sluice.kafka.record","datacontenttype":"text/plain","time":"2026-01-31T12:00:00Z","data":"body"}
                {"datacontenttype":"{body.none}","subject":"{body.empty}"}
                  {"specversion":"1.0","id":"default","source":"/orders","type":"sluice.kafka.record","data_base64":"Ym9keQ=="}
                {"count":"{body.n}","fixed":5,"flag":"{body.ok}","name":"{body.name}"}
                  {"specversion":"1.0","id":"default","source":"/orders","type":"sluice.kafka.record","datacontenttype":"text/plain","subject":"s","count":7,"fixed":5,"flag":true,"name":"x","data":"body"}
                {"big":"{body.big}","gone":"{body.none}","list":"{body.list}","price":"{body.price}"}
                  {"specversion":"1.0","id":"default","source":"/orders","type":"sluice.kafka.record","datacontenttype":"text/plain","subject":"s","big":"3000000000","list":"[1]","price":"1.5","data":"body"}
            "#]],
        );
    }

    #[test]
    fn what_is_required_refuses_where_it_is_absent_or_wrong() {
        check(
            &[
                json!({ "id": "{body.missing}" }),
                json!({ "type": "a.{body.none}" }),
                json!({ "id": "{body.empty}" }),
                json!({ "source": "not a uri" }),
                json!({ "time": "{body.n}" }),
                json!({ "data_base64": "{body.name}" }),
            ],
            &expect![[r#"
                {"id":"{body.missing}"}
                  no event: `id`: `{body.missing}` is absent, and has no default
                {"type":"a.{body.none}"}
                  no event: `type`: `{body.none}` is absent, and has no default
                {"id":"{body.empty}"}
                  no event: attribute `id` must not be empty
                {"source":"not a uri"}
                  refused: `source`: must be a URI-reference (RFC 3986)
                {"time":"{body.n}"}
                  no event: attribute `time` must be a timestamp such as `2026-01-31T12:00:00Z` (RFC 3339)
                {"data_base64":"{body.name}"}
                  no event: `data_base64`: not padded standard base64 (RFC 4648, section 4)
            "#]],
        );
    }

    #[test]
    fn a_number_of_many_digits_keeps_them_as_text() {
        let body = br#"{"a": {"list": [0, {"id": 123456789012345678901234567890}]}, "neg": -9223372036854775809, "e": 1.50e+2,
            "twice": 1, "twice": 0.10, "d": 18446744073709551615}"#;
        let fields = json!({
            "id": "{body.a.list[1].id}", "subject": "{body.neg}/{body.e}", "big": "{body.a.list[1].id}", "twice": "{body.twice}",
            "max": "{body.d}",
        });
        let Value::Object(fields) = fields else { panic!("an object") };
        let fields =
            EventFields::compile(&fields.into_iter().collect::<Vec<_>>(), &Root::ALL).expect("compiles");
        let scope = Scope { body: Some(Document::new(body)), ..Scope::default() };
        let event = fields.apply(draft(), &scope).expect("fits");
        let texts =
            ["id", "subject", "big", "twice", "max"].map(|name| event.text(name).unwrap_or("-").to_owned());
        let digits = "123456789012345678901234567890";
        assert_eq!(texts, [digits, "-9223372036854775809/1.50e+2", digits, "0.10", "18446744073709551615"]);
    }

    #[test]
    fn rendered_data_is_json_unless_the_fields_say_otherwise() {
        check(
            &[
                json!({ "data": { "n": "{body.n}", "gone": "{body.missing}" } }),
                json!({ "data": "{body.name}" }),
                json!({ "data": "{body.none}" }),
                json!({ "data": "{body.missing}" }),
                json!({ "data": null }),
                json!({ "data": "<{body.name}/>", "datacontenttype": "application/xml" }),
                json!({ "data": "{body.name}", "datacontenttype": "application/problem+json" }),
                json!({ "data_base64": "{body.bytes}" }),
                json!({ "data_base64": "{body.bytes}", "datacontenttype": "text/plain" }),
            ],
            &expect![[r#"
                {"data":{"gone":"{body.missing}","n":"{body.n}"}}
                  {"specversion":"1.0","id":"default","source":"/orders","type":"sluice.kafka.record","subject":"s","datacontenttype":"application/json","data":{"n":7}}
                {"data":"{body.name}"}
                  {"specversion":"1.0","id":"default","source":"/orders","type":"sluice.kafka.record","subject":"s","datacontenttype":"application/json","data":"x"}
                {"data":"{body.none}"}
                  {"specversion":"1.0","id":"default","source":"/orders","type":"sluice.kafka.record","subject":"s","datacontenttype":"application/json","data":null}
                {"data":"{body.missing}"}
                  {"specversion":"1.0","id":"default","source":"/orders","type":"sluice.kafka.record","subject":"s"}
                {"data":null}
                  {"specversion":"1.0","id":"default","source":"/orders","type":"sluice.kafka.record","subject":"s"}
                {"data":"<{body.name}/>","datacontenttype":"application/xml"}
                  {"specversion":"1.0","id":"default","source":"/orders","type":"sluice.kafka.record","datacontenttype":"application/xml","subject":"s","data":"<x/>"}
                {"data":"{body.name}","datacontenttype":"application/problem+json"}
                  {"specversion":"1.0","id":"default","source":"/orders","type":"sluice.kafka.record","datacontenttype":"application/problem+json","subject":"s","data":"x"}
                {"data_base64":"{body.bytes}"}
                  {"specversion":"1.0","id":"default","source":"/orders","type":"sluice.kafka.record","subject":"s","data_base64":"aGk="}
                {"data_base64":"{body.bytes}","datacontenttype":"text/plain"}
                  {"specversion":"1.0","id":"default","source":"/orders","type":"sluice.kafka.record","datacontenttype":"text/plain","subject":"s","data":"hi"}
            "#]],
        );
    }

    #[test]
    fn fields_that_cannot_be_are_refused_when_they_are_compiled() {
        check(
            &[
                json!({ "specversion": "1.0" }),
                json!({ "Type": "x" }),
                json!({ "id": null }),
                json!({ "subject": ["x"] }),
                json!({ "type": "" }),
                json!({ "subject": "", "time": "{body}", "source": "urn:{body}" }),
                json!({ "time": "yesterday" }),
                json!({ "dataschema": "/relative" }),
                json!({ "data": "x", "data_base64": "eA==" }),
                json!({ "data_base64": "eA" }),
                json!({ "data_base64": 7 }),
                json!({ "type": "{key}" }),
                json!({ "data": { "a": ["{body"] } }),
            ],
            &expect![[r#"
                {"specversion":"1.0"}
                  refused: `specversion`: is always 1.0
                {"Type":"x"}
                  refused: `Type`: not the name of an attribute, which is 1 to 64 of a-z and 0-9
                {"id":null}
                  refused: `id`: cannot be left out
                {"subject":["x"]}
                  refused: `subject`: an attribute is text, a whole number or a boolean
                {"type":""}
                  refused: `type`: must not be empty
                {"source":"urn:{body}","subject":"","time":"{body}"}
                  no event: attribute `source` must be a URI-reference (RFC 3986)
                {"time":"yesterday"}
                  refused: `time`: must be a timestamp such as `2026-01-31T12:00:00Z` (RFC 3339)
                {"dataschema":"/relative"}
                  refused: `dataschema`: must be an absolute URI (RFC 3986)
                {"data":"x","data_base64":"eA=="}
                  refused: `data_base64`: `data` and `data_base64` exclude each other
                {"data_base64":"eA"}
                  refused: `data_base64`: not padded standard base64 (RFC 4648, section 4)
                {"data_base64":7}
                  refused: `data_base64`: not padded standard base64 (RFC 4648, section 4)
                {"type":"{key}"}
                  refused: `type`: there is no `key` here: expected `body`
                {"data":{"a":["{body"]}}
                  refused: `data`: `{` without `}`: expected a path such as `{body.name}`; for a brace write `{{`
            "#]],
        );
    }
}
