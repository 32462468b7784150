//! `event:` of a source: what a record that is no CloudEvent becomes.

use serde_json::Value;
use sluice_language::template::{Document, Root, Scope};
use sluice_language::{Draft, EventFields, WrongField};
use sluice_schemas::Event;

use crate::{Record, Unfit};

/// The compiled `event:` of a source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventTemplate {
    fields: EventFields,
}

impl EventTemplate {
    /// Compiles the fields of a source whose records have these roots.
    pub fn compile(fields: &[(String, Value)], roots: &[Root]) -> Result<Self, WrongField> {
        EventFields::compile(fields, roots).map(|fields| Self { fields })
    }

    /// Makes an event of a record: `defaults` is what the system gives it, and `event:` overrides that field by field.
    /// `scheduled` is the instant of a timer.
    pub fn apply(&self, record: &Record, scheduled: Option<&str>, defaults: Draft) -> Result<Event, Unfit> {
        let scope = Scope {
            body: record.body.as_deref().map(Document::new),
            headers: &record.headers,
            key: record.key.as_deref(),
            topic: record.topic.as_deref(),
            subject: record.subject.as_deref(),
            scheduled,
            ..Scope::default()
        };
        self.fields
            .apply(defaults, &scope)
            .map_err(|error| Unfit { is_conflict: false, detail: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;
    use sluice_schemas::json::encode;

    use super::*;

    fn template(fields: Value) -> EventTemplate {
        let Value::Object(members) = fields else { return EventTemplate::default() };
        EventTemplate::compile(&members.into_iter().collect::<Vec<_>>(), &Root::ALL).expect("compiles")
    }

    fn record(body: &'static [u8]) -> Record {
        Record {
            position: "orders/0/7".into(),
            topic: Some("orders".into()),
            key: Some(Bytes::from_static(b"customer-1")),
            headers: vec![("X-Kind".into(), Bytes::from_static(b"order"))],
            body: Some(Bytes::from_static(body)),
            ..Record::default()
        }
    }

    fn defaults(record: &Record) -> Draft {
        let draft = Draft::default().attribute("id", &record.position).attribute("source", "/orders");
        let draft = draft.attribute("type", "sluice.kafka.record");
        record.body.clone().map_or(draft.clone(), |body| draft.data(body))
    }

    fn applied(template: &EventTemplate, record: &Record) -> Result<String, String> {
        let event = template.apply(record, None, defaults(record)).map_err(|unfit| unfit.detail)?;
        Ok(String::from_utf8(encode(&event)).expect("JSON is text"))
    }

    #[test]
    fn nothing_said_is_the_default_of_the_system_with_the_bytes_as_they_came() {
        let event = EventTemplate::default().apply(
            &record(b"{ \"a\" : 1 }"),
            None,
            defaults(&record(b"{ \"a\" : 1 }")),
        );
        let event = event.expect("fits");
        assert_eq!(event.ty(), "sluice.kafka.record");
        assert_eq!(event.data().map(|data| &data.bytes[..]), Some(&b"{ \"a\" : 1 }"[..]));
    }

    #[test]
    fn the_sample_of_the_readme_becomes_an_event_also_from_a_body_that_is_no_json() {
        let template = template(json!({
            "type": "com.example.order.{body.action|unknown}", "source": "/kafka/{topic}", "subject": "{key}",
            "kind": "{headers.x-kind}",
        }));
        let event = applied(&template, &record(br#"{"action":"paid"}"#));
        assert_eq!(
            event.as_deref(),
            Ok(
                r#"{"specversion":"1.0","id":"orders/0/7","source":"/kafka/orders","type":"com.example.order.paid","kind":"order","subject":"customer-1","data_base64":"eyJhY3Rpb24iOiJwYWlkIn0="}"#
            )
        );
        let event = template.apply(&record(b"no json"), None, defaults(&record(b"no json"))).expect("fits");
        assert_eq!(event.ty(), "com.example.order.unknown");
    }

    #[test]
    fn an_absent_id_refuses_the_record_and_an_absent_subject_does_not() {
        let refused = applied(&template(json!({ "id": "{body.id}" })), &record(b"{}"));
        assert_eq!(refused, Err("`id`: `{body.id}` is absent, and has no default".into()));
        let event = template(json!({ "subject": "{body.subject}" }));
        let event = event.apply(&record(b"{}"), None, defaults(&record(b"{}"))).expect("fits");
        assert_eq!(event.subject(), None);
    }

    #[test]
    fn a_tombstone_has_no_body_to_look_into() {
        let tombstone = Record { body: None, ..record(b"") };
        let template =
            template(json!({ "type": "order.{body.action|deleted}", "data": { "body": "{body}" } }));
        let event = template.apply(&tombstone, None, defaults(&tombstone)).expect("fits");
        assert_eq!((event.ty(), &event.data().expect("there").bytes[..]), ("order.deleted", &b"{}"[..]));
    }

    #[test]
    fn a_timer_has_its_instant() {
        let template = template(json!({ "data": { "at": "{scheduled}" } }));
        let draft = Draft::default()
            .attribute("id", "nightly/1")
            .attribute("source", "/nightly")
            .attribute("type", "t");
        let event = template.apply(&Record::default(), Some("2026-01-31T02:30:00Z"), draft).expect("fits");
        assert_eq!(&event.data().expect("there").bytes[..], br#"{"at":"2026-01-31T02:30:00Z"}"#);
    }
}
