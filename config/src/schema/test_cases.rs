//! `tests`.

use serde_json::{Value, json};

use super::{duration, object, section, strings, text};

pub(super) fn tests() -> Value {
    let any = |description: &str| json!({ "description": description });
    let names = |description: &str| strings(description);
    let by_trigger = |description: &str, item: Value| json!({ "description": description, "type": "object", "additionalProperties": item });
    let record = [
        ("key", text("The key.", "customer-1")),
        ("topic", text("Kafka's topic, AMQP's routing key.", "orders")),
        ("subject", text("NATS' subject.", "orders.eu")),
        ("headers", json!({ "description": "Headers by name.", "type": "object" })),
        ("body", any("The body: text, or JSON. Null or nothing is a tombstone.")),
    ];
    let partly = [("include", names("These, among others.")), ("exclude", names("None of these."))];
    let request = [
        ("method", text("The method.", "POST")),
        ("url", text("The URL.", "http://localhost:9000/")),
        (
            "headers",
            json!({ "description": "These headers; null is one that is not there.", "type": "object" }),
        ),
        ("body", any("Text as it is sent, or JSON in any spelling.")),
    ];
    let answer =
        json!({ "anyOf": [{ "const": "timeout" }, { "type": "integer", "minimum": 200, "maximum": 599 }] });
    let ends: Vec<&str> = crate::test_case::ENDS.iter().map(|(word, _)| *word).collect();
    let times = json!({ "description": "When attempts begin, from the first.", "type": "array", "items": duration("A time.", "1s") });
    let delivery = [
        (
            "answers",
            json!({ "description": "What the sink answers; the last repeats.", "type": "array", "minItems": 1, "items": answer }),
        ),
        ("attempts", times),
        (
            "ends",
            json!({ "description": "How the delivery ends: delivered, dead, or the reason.", "enum": ends }),
        ),
    ];
    let mut delivery = object("A delivery to a scripted sink on virtual time, without jitter.", &delivery);
    delivery["required"] = json!(["answers"]);
    let keys = [
        ("name", text("What is tested.", "big orders are delivered")),
        (
            "event",
            json!({ "description": "An event, or a file with one. specversion, id and source have defaults.", "type": ["object", "string"] }),
        ),
        ("record", section("What a source receives; with `via`.", &record)),
        ("via", text("How it came in: http, reply, or a source.", "http")),
        ("becomes", json!({ "description": "Fields of the event that a record becomes.", "type": "object" })),
        (
            "expect",
            json!({ "anyOf": [names("Exactly these triggers match."), object("Some of the triggers.", &partly)] }),
        ),
        (
            "because",
            by_trigger("A text in the message of the condition that fails.", json!({ "type": "string" })),
        ),
        (
            "requests",
            by_trigger("The HTTP request that the sink gets.", object("As far as it is named.", &request)),
        ),
        ("deliveries", by_trigger("How a delivery goes.", delivery)),
    ];
    json!({ "description": "What `sluice test` tries.", "type": ["array", "null"], "items": object("One test.", &keys) })
}
