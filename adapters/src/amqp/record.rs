//! From a delivery to a record: AMQP's typed headers become text.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, ShortString};

use super::to_event::is_attribute;
use crate::Record;

/// Stands before the kind of a header's value that no attribute can have. No UTF-8 begins with it.
pub const ILLEGAL: u8 = 0xff;

/// The properties come first, under the names of their headers elsewhere. Where the message has no id to be known by when it is
/// delivered again, `made_up` distinguishes this delivery.
pub fn record_of(delivery: &mut Delivery, made_up: String) -> Record {
    let properties = &delivery.properties;
    let id = properties.message_id().as_ref().map(|id| id.as_str().to_owned());
    let position = id.filter(|id| !id.is_empty()).unwrap_or(made_up);
    let of_property = |name: &str, value: &Option<ShortString>| {
        value.as_ref().map(|value| (name.to_owned(), Bytes::copy_from_slice(value.as_str().as_bytes())))
    };
    let mut headers: Vec<_> = [
        of_property("content-type", properties.content_type()),
        of_property("message-id", properties.message_id()),
        of_property("correlation-id", properties.correlation_id()),
        of_property("app-id", properties.app_id()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let Some(table) = properties.headers() {
        let named = table.inner().iter().map(|(name, value)| (name.as_str().to_owned(), value));
        headers.extend(named.filter_map(|(name, value)| text(&name, value).map(|text| (name, text))));
    }
    Record {
        position,
        topic: Some(delivery.routing_key.as_str().to_owned()),
        subject: None,
        key: None,
        time_ms: properties.timestamp().and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1000)),
        headers,
        body: Some(std::mem::take(&mut delivery.data).into()),
    }
}

/// The canonical text of a value (CloudEvents core, "Type System"); an absent value is no header.
fn text(name: &str, value: &AMQPValue) -> Option<Bytes> {
    let illegal = |kind: &str| Some([&[ILLEGAL], kind.as_bytes()].concat().into());
    let shown = |text: String| Some(Bytes::from(text));
    match value {
        AMQPValue::Boolean(value) => shown(value.to_string()),
        AMQPValue::ShortShortInt(value) => shown(value.to_string()),
        AMQPValue::ShortShortUInt(value) => shown(value.to_string()),
        AMQPValue::ShortInt(value) => shown(value.to_string()),
        AMQPValue::ShortUInt(value) => shown(value.to_string()),
        AMQPValue::LongInt(value) => shown(value.to_string()),
        AMQPValue::LongUInt(value) => shown(value.to_string()),
        AMQPValue::LongLongInt(value) => shown(value.to_string()),
        AMQPValue::ShortString(value) => shown(value.as_str().to_owned()),
        AMQPValue::LongString(value) => Some(Bytes::copy_from_slice(value.as_bytes())),
        AMQPValue::ByteArray(value) if is_attribute(name) => shown(BASE64_STANDARD.encode(value.as_slice())),
        AMQPValue::ByteArray(value) => Some(Bytes::copy_from_slice(value.as_slice())),
        AMQPValue::Timestamp(seconds) => {
            let time =
                i64::try_from(*seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
            time.map_or_else(|| illegal("a time out of range"), |time| shown(time.to_string()))
        }
        AMQPValue::Float(_) | AMQPValue::Double(_) => illegal("a floating-point number"),
        AMQPValue::DecimalValue(_) => illegal("a decimal"),
        AMQPValue::FieldArray(_) => illegal("a list"),
        AMQPValue::FieldTable(_) => illegal("a table"),
        AMQPValue::Void => None,
    }
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;
    use lapin::types::{FieldArray, FieldTable, LongString};

    use super::*;

    fn check(name: &str, value: AMQPValue, expected: Option<&[u8]>) {
        let mut table = FieldTable::default();
        table.insert(name.into(), value);
        let mut delivery = Delivery::mock(1, "".into(), "key".into(), false, b"body".to_vec());
        delivery.properties =
            BasicProperties::default().with_headers(table).with_content_type("text/plain".into());
        let record = record_of(&mut delivery, "p".into());
        assert_eq!(record.header("content-type"), Some("text/plain"));
        let found = record.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_ref());
        assert_eq!(found, expected);
    }

    #[test]
    fn a_message_is_known_by_its_id_if_it_has_one() {
        for (id, expected) in [(Some("m-1"), "m-1"), (Some(""), "made up"), (None, "made up")] {
            let mut delivery = Delivery::mock(1, "".into(), "key".into(), false, Vec::new());
            if let Some(id) = id {
                delivery.properties = BasicProperties::default().with_message_id(id.into());
            }
            assert_eq!(record_of(&mut delivery, "made up".into()).position, expected);
        }
    }

    #[test]
    fn each_type_of_a_header_has_its_text_or_is_marked() {
        check("ce-a", AMQPValue::Boolean(true), Some(b"true"));
        check("ce-a", AMQPValue::LongInt(-7), Some(b"-7"));
        check("ce-a", AMQPValue::LongLongInt(7), Some(b"7"));
        check("ce-a", AMQPValue::LongString(LongString::from("ü")), Some("ü".as_bytes()));
        check("ce-a", AMQPValue::ByteArray(vec![1, 2].into()), Some(b"AQI="));
        check("other", AMQPValue::ByteArray(vec![1, 2].into()), Some(&[1, 2]));
        check("ce-time", AMQPValue::Timestamp(1_700_000_000), Some(b"2023-11-14T22:13:20Z"));
        check("ce-a", AMQPValue::Double(1.5), Some(b"\xffa floating-point number"));
        check("ce-a", AMQPValue::FieldArray(FieldArray::default()), Some(b"\xffa list"));
        check("ce-a", AMQPValue::FieldTable(FieldTable::default()), Some(b"\xffa table"));
        check("ce-a", AMQPValue::Void, None);
    }
}
