//! Conversions from and to `cloudevents::Event` of cloudevents-sdk, for programs that have it.

use cloudevents::event::{
    AttributeValue, AttributesReader, EventBuilder as _, EventBuilderError, EventBuilderV10,
};
use serde_json::Value as Json;

use crate::event::{Builder, DataForm, Event, Kind, Value};
use crate::rules::Invalid;

/// Gives the SDK's view of an event. What is lost: the order of attributes; the offset and the precision beyond
/// nanoseconds of `time`; the spelling of `dataschema`, which is normalised. Data arrives as `Data::Binary`, byte for
/// byte; implied JSON gets the content type `application/json`. Some valid events are refused: a `dataschema` that the
/// `url` crate does not read, a `time` that `chrono` does not.
impl TryFrom<&Event> for cloudevents::Event {
    type Error = EventBuilderError;

    fn try_from(event: &Event) -> Result<Self, Self::Error> {
        let mut builder = EventBuilderV10::new();
        for (name, value) in event.attributes() {
            let text = &*value.text;
            builder = match name {
                "id" => builder.id(text),
                "source" => builder.source(text),
                "type" => builder.ty(text),
                "subject" => builder.subject(text),
                "time" => builder.time(text),
                "specversion" | "datacontenttype" | "dataschema" => builder,
                _ => match (value.kind, text.parse::<i64>()) {
                    (Kind::Integer, Ok(number)) => builder.extension(name, number),
                    (Kind::Boolean, _) => builder.extension(name, text == "true"),
                    (Kind::String | Kind::Integer, _) => builder.extension(name, text),
                },
            };
        }
        let mut foreign = builder.build()?;
        if let Some(text) = event.text("dataschema") {
            let schema = cloudevents::event::TryIntoUrl::into_url(text).map_err(|error| {
                EventBuilderError::ParseUrlError { attribute_name: "dataschema", source: error }
            })?;
            cloudevents::AttributesWriter::set_dataschema(&mut foreign, Some(schema));
        }
        if let Some(data) = event.data() {
            foreign.set_data_unchecked(data.bytes.to_vec());
        }
        let implied =
            event.data().filter(|data| data.form == DataForm::ImpliedJson).map(|_| "application/json");
        let content_type = event.datacontenttype().or(implied);
        cloudevents::AttributesWriter::set_datacontenttype(&mut foreign, content_type);
        Ok(foreign)
    }
}

/// Takes an event of the SDK, which checks less than the standard asks for, so this can fail. What is lost: a JSON tree
/// becomes compact text. Extensions, which the SDK keeps in no order, are sorted by name.
impl TryFrom<&cloudevents::Event> for Event {
    type Error = Invalid;

    fn try_from(foreign: &cloudevents::Event) -> Result<Self, Self::Error> {
        let specversion = Value { text: foreign.specversion().as_str().into(), kind: Kind::String };
        let mut builder = Event::builder().value("specversion", specversion);
        for (name, value) in foreign.iter_attributes().filter(|(name, _)| *name != "specversion") {
            builder = builder.value(name, from_foreign(&value));
        }
        let mut extensions: Vec<_> = foreign.iter_extensions().collect();
        extensions.sort_unstable_by_key(|(name, _)| *name);
        for (name, value) in extensions {
            builder = builder.value(name, from_foreign(&value.into()));
        }
        with_data(builder, foreign).build()
    }
}

fn from_foreign(value: &AttributeValue<'_>) -> Value {
    let kind = match value {
        AttributeValue::Boolean(_) => Kind::Boolean,
        AttributeValue::Integer(_) => Kind::Integer,
        AttributeValue::String(_)
        | AttributeValue::Binary(_)
        | AttributeValue::URI(_)
        | AttributeValue::URIRef(_)
        | AttributeValue::Time(_)
        | AttributeValue::SpecVersion(_) => Kind::String,
    };
    Value { text: value.to_string().into(), kind }
}

fn with_data(builder: Builder, foreign: &cloudevents::Event) -> Builder {
    match foreign.data() {
        None => builder,
        Some(cloudevents::Data::Binary(bytes)) => builder.data(bytes.clone(), DataForm::Opaque),
        Some(cloudevents::Data::String(text)) => builder.data(text.clone(), DataForm::Opaque),
        Some(cloudevents::Data::Json(tree)) => {
            let is_implied = foreign.datacontenttype().is_none();
            let form = if is_implied { DataForm::ImpliedJson } else { DataForm::Opaque };
            builder.data(Json::to_string(tree), form)
        }
    }
}
