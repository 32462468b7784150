//! The file format as JSON Schema, for editors.

mod sources;
mod test_cases;

use serde_json::{Map, Value, json};

use crate::delivery::{BACKOFFS, CONCURRENCY, REPLIES, RETRY_MAX, RETRY_ON};
use crate::sections::{CONNECTIONS, ENTRIES, HOPS, ON_DAMAGE, OUTSTANDING};
use crate::sink::MODES;
use crate::trigger::ENTRY_POINTS;

const REFERENCE: &str = r"\$\{[^}]+\}";

/// Describes the file format as a JSON Schema (draft 2020-12). It accepts whatever [`crate::load`] accepts, and not everything that it
/// refuses: relations between values, for example, are only checked there.
pub fn json_schema() -> Value {
    let mut schema = object(
        "A configuration of Sluice. Relative paths are relative to the file. Text may hold ${NAME} and ${file:PATH}.",
        &[
            ("http", http()),
            ("admin", admin()),
            ("store", store()),
            ("limits", limits()),
            ("duplicates", duplicates()),
            ("dead_letters", dead_letters()),
            ("shutdown_timeout", duration("How long a stop waits for deliveries in flight.", "20s")),
            ("defaults", defaults()),
            (
                "sources",
                json!({
                    "description": "What brings events in from outside, by name.",
                    "type": ["object", "null"],
                    "propertyNames": { "pattern": "^[a-z0-9-]{1,63}$", "not": { "enum": ENTRY_POINTS } },
                    "additionalProperties": { "$ref": "#/$defs/source" },
                }),
            ),
            (
                "triggers",
                json!({
                    "description": "Which events go where, by name.",
                    "type": ["object", "null"],
                    "propertyNames": { "pattern": "^[a-z0-9-]{1,63}$" },
                    "additionalProperties": { "$ref": "#/$defs/trigger" },
                }),
            ),
            ("tests", test_cases::tests()),
        ],
    );
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Sluice configuration");
    schema["$defs"] = json!({
        "source": sources::source(),
        "trigger": trigger(),
        "filter": filter(),
        "attributes": attributes(),
        "transform": transform(),
        "sink": sink(),
        "tls": tls(),
        "delivery": delivery(),
        "headers": headers(),
    });
    schema
}

fn http() -> Value {
    let origins = "DNS names that get consent in the webhook handshake.";
    let keys = [
        ("listen", address("Where publishers send events.", "127.0.0.1:8080")),
        ("webhook_origins", strings(origins)),
    ];
    section("The listener for publishers.", &keys)
}

fn admin() -> Value {
    let keys = [
        ("listen", address("Where operators connect.", "127.0.0.1:8081")),
        ("open", boolean("Needed to listen on other addresses than loopback.")),
        ("hosts", strings("Further values of Host that writing calls may carry.")),
    ];
    section("The listener for operators.", &keys)
}

fn store() -> Value {
    let retention =
        [("age", duration("How long events are kept.", "7d")), ("size", size("How much is kept.", "10GiB"))];
    let watermark = [
        ("stop", percent("Share of the size at which intake stops.", "95%")),
        ("resume", percent("Share of the size below which intake goes on.", "90%")),
        ("free", size("What the file system must have free.", "16MiB")),
    ];
    let keys = [
        ("dir", text("The data directory.", "./data")),
        ("retention", section("What is kept once it is settled.", &retention)),
        ("segment", size("The size of one file of the log.", "64MiB")),
        ("watermark", section("When intake stops and goes on.", &watermark)),
        ("outstanding", whole("Outstanding deliveries in memory.", &OUTSTANDING, 2_000_000)),
        ("on_damage", choice("What a start does when the log is damaged.", &names(ON_DAMAGE), "refuse")),
        ("removed_grace", duration("How long the backlog of a trigger that is gone is kept.", "24h")),
    ];
    section("Where events are kept. A change needs a restart.", &keys)
}

fn limits() -> Value {
    let keys = [
        ("event_bytes", size("One event as it was sent.", "1MiB")),
        ("batch_bytes", size("The body of a batch.", "8MiB")),
        ("in_flight_bytes", size("All bodies that are being received.", "64MiB")),
        ("connections", whole("Connections of publishers.", &CONNECTIONS, 4096)),
        ("hops", whole("How many replies may cause one another.", &HOPS, 16)),
        ("put_aside_bytes", size("One record that is no event, kept as a dead letter.", "16MiB")),
    ];
    section("Bounds of what is taken in.", &keys)
}

fn duplicates() -> Value {
    let keys = [
        ("window", duration("How long an event is remembered.", "10m")),
        ("entries", whole("How many events are remembered.", &ENTRIES, 1_000_000)),
    ];
    let on = section("How long an event is recognised when it is sent again.", &keys);
    json!({ "anyOf": [on, { "enum": ["off", "false", false] }] })
}

fn dead_letters() -> Value {
    let keys = [("age", duration("How long dead letters are kept; for ever unless set.", "30d"))];
    section("What happens to dead letters.", &keys)
}

fn defaults() -> Value {
    let keys = [
        ("delivery", reference("delivery")),
        ("dead_letter", reference("sink")),
        ("headers", reference("headers")),
    ];
    section("What every trigger has where it says nothing itself, field by field.", &keys)
}

fn trigger() -> Value {
    let start = json!({
        "description": "Where the trigger begins when its name is first seen: latest, earliest or an RFC 3339 time.",
        "type": "string",
        "default": "latest",
    });
    let sources = json!({
        "description": "Only what came in this way.",
        "type": "array",
        "minItems": 1,
        "uniqueItems": true,
        "items": { "type": "string" },
    });
    let filters = json!({
        "description": "All must hold. An empty list matches every event.",
        "type": "array",
        "items": { "$ref": "#/$defs/filter" },
    });
    let keys = [
        ("sources", sources),
        ("filters", filters),
        ("transform", reference("transform")),
        ("sink", reference("sink")),
        ("delivery", reference("delivery")),
        ("dead_letter", reference("sink")),
        ("start", start),
    ];
    let mut trigger = object("Which events go where.", &keys);
    trigger["required"] = json!(["sink"]);
    trigger
}

fn filter() -> Value {
    let list = json!({ "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/filter" } });
    json!({
        "description": "One dialect of the CloudEvents Subscriptions API.",
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": false,
        "properties": {
            "exact": reference("attributes"),
            "prefix": reference("attributes"),
            "suffix": reference("attributes"),
            "all": list,
            "any": list,
            "not": reference("filter"),
            "sql": expression("CloudEvents SQL 1.0, on the attributes.", "EXISTS subject AND source LIKE '/shop/%'"),
            "cesql": expression("The same as `sql`.", "type = 'com.example.order'"),
            "data": {
                "description": "An EventBridge event pattern on the JSON data.",
                "type": "object",
                "examples": [{ "amount": [{ "numeric": [">", 100] }] }],
            },
            "cel": expression("The Common Expression Language, on `event`.", "event.data.amount > 100"),
        },
    })
}

fn transform() -> Value {
    let set = json!({
        "description": "Templates for attributes, such as \"com.example.{data.kind|other}\". Null leaves one out.",
        "type": "object",
        "propertyNames": { "pattern": "^[a-z0-9]+$", "not": { "enum": ["data", "specversion"] } },
        "additionalProperties": { "type": ["string", "integer", "boolean", "null"] },
    });
    let data = json!({ "description": "The data: JSON whose strings may be templates. Null is no data." });
    let jq = "A jq program that makes one event of one, both in the CloudEvents JSON format.";
    let keys = [("jq", text(jq, ".type = \"short\"")), ("set", set), ("data", data)];
    let mut transform = object("What the sink gets instead of the event.", &keys);
    transform["oneOf"] = json!([
        { "required": ["jq"], "maxProperties": 1 },
        { "anyOf": [{ "required": ["set"] }, { "required": ["data"] }] },
    ]);
    transform
}

fn expression(description: &str, example: &str) -> Value {
    json!({
        "description": description,
        "type": ["string", "boolean", "number"],
        "minLength": 1,
        "examples": [example],
    })
}

fn attributes() -> Value {
    json!({
        "description": "Attributes and the text they are compared with.",
        "type": "object",
        "minProperties": 1,
        "propertyNames": { "pattern": "^[a-z0-9]+$", "not": { "const": "data" } },
        "additionalProperties": { "type": ["string", "integer", "boolean"], "minLength": 1 },
    })
}

fn sink() -> Value {
    let http = [
        ("url", url()),
        ("mode", choice("How events are sent.", &names(MODES), "binary")),
        ("headers", reference("headers")),
        ("tls", reference("tls")),
        ("allow_link_local", boolean("Allows link-local and metadata addresses.")),
    ];
    let mut http = object("An HTTP endpoint.", &http);
    http["required"] = json!(["url"]);
    let stdout = json!({ "description": "Prints events.", "type": ["object", "null"], "maxProperties": 0 });
    json!({
        "description": "Where events go: a URL, or one kind of sink.",
        "anyOf": [
            url(),
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": false,
                "properties": {
                    "http": http,
                    "stdout": stdout,
                    "kafka": sources::kafka_sink(),
                    "amqp": sources::amqp_sink(),
                    "nats": sources::nats_sink(),
                },
            },
        ],
    })
}

fn tls() -> Value {
    let keys = [
        ("ca", text("Certificates to trust.", "ca.pem")),
        ("cert", text("The certificate to show.", "client.pem")),
        ("key", text("Its private key.", "client-key.pem")),
    ];
    section("Files in PEM form.", &keys)
}

fn url() -> Value {
    json!({
        "description": "An http or https URL without user name, password and fragment.",
        "type": "string",
        "pattern": format!("^([Hh][Tt][Tt][Pp][Ss]?://|.*{REFERENCE})"),
    })
}

fn headers() -> Value {
    json!({
        "description": "Sent with every delivery. For secrets write \"${NAME}\" or \"${file:PATH}\".",
        "type": ["object", "null"],
        "additionalProperties": { "type": ["string", "number", "boolean"] },
    })
}

fn delivery() -> Value {
    let retry = json!({
        "description": "Further attempts after the first.",
        "anyOf": [
            { "const": "unlimited" },
            { "type": "integer", "minimum": 0, "maximum": RETRY_MAX },
            { "type": "string", "pattern": REFERENCE },
        ],
        "default": "unlimited",
    });
    let retry_on = json!({
        "description": "Statuses that are retried besides those that always are.",
        "type": "array",
        "uniqueItems": true,
        "items": { "type": "integer", "minimum": RETRY_ON.start(), "maximum": RETRY_ON.end() },
    });
    let order = "One in flight per key: none, an attribute, or \"{data.path}\".";
    let rate = json!({
        "description": "At most so many attempts.",
        "type": "string",
        "pattern": format!(r"^[0-9]+(\.[0-9]*)?/[smh]$|{REFERENCE}"),
        "examples": ["100/s"],
    });
    let keys = [
        ("retry", retry),
        ("backoff", choice("How the wait grows.", &names(BACKOFFS), "exponential")),
        ("backoff_delay", duration("The first wait, before jitter.", "1s")),
        ("backoff_max", duration("The longest wait.", "10m")),
        ("max_age", duration("When attempts end in any case.", "24h")),
        ("timeout", duration("One attempt, its answer included.", "30s")),
        ("concurrency", whole("Attempts at the same time.", &CONCURRENCY, 32)),
        ("rate", rate),
        ("order", text(order, "none")),
        ("reply", choice("What a 2xx body that is no CloudEvent means.", &names(REPLIES), "lenient")),
        ("retry_on", retry_on),
    ];
    section("How events are attempted, and when that ends.", &keys)
}

/// A mapping with fixed keys, besides `x-*`.
fn object(description: &str, keys: &[(&str, Value)]) -> Value {
    let properties: Map<String, Value> =
        keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    json!({
        "description": description,
        "type": "object",
        "properties": properties,
        "patternProperties": { "^x-": true },
        "additionalProperties": false,
    })
}

/// A mapping with fixed keys that may be left empty.
fn section(description: &str, keys: &[(&str, Value)]) -> Value {
    let mut section = object(description, keys);
    section["type"] = json!(["object", "null"]);
    section
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

fn text(description: &str, example: &str) -> Value {
    json!({ "description": description, "type": "string", "minLength": 1, "examples": [example] })
}

fn strings(description: &str) -> Value {
    json!({ "description": description, "type": "array", "uniqueItems": true, "items": { "type": "string" } })
}

fn boolean(description: &str) -> Value {
    json!({
        "description": description,
        "anyOf": [{ "type": "boolean" }, { "type": "string", "pattern": REFERENCE }],
        "default": false,
    })
}

fn address(description: &str, default: &str) -> Value {
    let pattern = format!(r"^([0-9.]+|\[[0-9a-fA-F:.]+\]):[0-9]+$|{REFERENCE}");
    json!({ "description": description, "type": "string", "pattern": pattern, "default": default })
}

fn duration(description: &str, default: &str) -> Value {
    let pattern = format!("^[0-9]+(ms|s|m|h|d)$|^P.+$|{REFERENCE}");
    json!({ "description": description, "type": "string", "pattern": pattern, "default": default })
}

fn size(description: &str, default: &str) -> Value {
    let pattern = format!("^[0-9]+([KMGT]iB)?$|{REFERENCE}");
    json!({
        "description": description,
        "anyOf": [{ "type": "string", "pattern": pattern }, { "type": "integer", "minimum": 0 }],
        "default": default,
    })
}

fn percent(description: &str, default: &str) -> Value {
    let pattern = format!("^([1-9][0-9]?|100)%$|{REFERENCE}");
    json!({ "description": description, "type": "string", "pattern": pattern, "default": default })
}

fn whole(description: &str, range: &std::ops::RangeInclusive<u64>, default: u64) -> Value {
    json!({
        "description": description,
        "anyOf": [
            { "type": "integer", "minimum": range.start(), "maximum": range.end() },
            { "type": "string", "pattern": REFERENCE },
        ],
        "default": default,
    })
}

fn choice(description: &str, words: &[&str], default: &str) -> Value {
    json!({
        "description": description,
        "anyOf": [{ "enum": words }, { "type": "string", "pattern": REFERENCE }],
        "default": default,
    })
}

fn names<T>(words: &[(&'static str, T)]) -> Vec<&'static str> {
    words.iter().map(|(word, _)| *word).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Value, json_schema};

    #[test]
    fn the_file_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/sluice.schema.json");
        let text = format!("{}\n", serde_json::to_string_pretty(&json_schema()).unwrap());
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let file = std::fs::read_to_string(path).unwrap_or_default();
        assert!(file == text, "schemas/sluice.schema.json is stale: run this test with UPDATE_SCHEMA=1");
    }

    #[test]
    fn it_has_the_keys_that_are_read() {
        let sections: &[(&str, &[&str])] = &[
            ("", crate::load::TOP_KEYS),
            ("/properties/http", crate::sections::HTTP_KEYS),
            ("/properties/admin", crate::sections::ADMIN_KEYS),
            ("/properties/store", crate::sections::STORE_KEYS),
            ("/properties/store/properties/retention", crate::sections::RETENTION_KEYS),
            ("/properties/store/properties/watermark", crate::sections::WATERMARK_KEYS),
            ("/properties/limits", crate::sections::LIMITS_KEYS),
            ("/properties/duplicates/anyOf/0", crate::sections::DUPLICATES_KEYS),
            ("/properties/dead_letters", crate::sections::DEAD_LETTERS_KEYS),
            ("/properties/defaults", crate::trigger::DEFAULTS_KEYS),
            ("/$defs/trigger", crate::trigger::TRIGGER_KEYS),
            ("/properties/tests/items", crate::test_case::TEST_KEYS),
            ("/properties/tests/items/properties/record", crate::test_case::RECORD_KEYS),
            ("/properties/tests/items/properties/expect/anyOf/1", crate::test_case::EXPECT_KEYS),
            (
                "/properties/tests/items/properties/requests/additionalProperties",
                crate::test_case::REQUEST_KEYS,
            ),
            (
                "/properties/tests/items/properties/deliveries/additionalProperties",
                crate::test_case::DELIVERY_KEYS,
            ),
            ("/$defs/transform", crate::transform::TRANSFORM_KEYS),
            ("/$defs/delivery", crate::delivery::DELIVERY_KEYS),
            ("/$defs/filter", crate::filter::DIALECTS),
            ("/$defs/sink/anyOf/1", crate::sink::SINK_KINDS),
            ("/$defs/sink/anyOf/1/properties/http", crate::sink::HTTP_SINK_KEYS),
            ("/$defs/sink/anyOf/1/properties/kafka", crate::sink::brokers::KAFKA_SINK_KEYS),
            ("/$defs/sink/anyOf/1/properties/kafka/properties/sasl", crate::client::SASL_KEYS),
            ("/$defs/sink/anyOf/1/properties/amqp", crate::sink::brokers::AMQP_SINK_KEYS),
            ("/$defs/sink/anyOf/1/properties/nats", crate::sink::brokers::NATS_SINK_KEYS),
            ("/$defs/tls", crate::sink::TLS_KEYS),
            ("/$defs/source", crate::source::SOURCE_KEYS),
            ("/$defs/source/properties/kafka", crate::source::kafka::KAFKA_KEYS),
            ("/$defs/source/properties/kafka/properties/sasl", crate::client::SASL_KEYS),
            ("/$defs/source/properties/amqp", crate::source::amqp::AMQP_KEYS),
            ("/$defs/source/properties/amqp/properties/declare", crate::source::amqp::DECLARE_KEYS),
            (
                "/$defs/source/properties/amqp/properties/declare/properties/bind/items",
                crate::source::amqp::BINDING_KEYS,
            ),
            ("/$defs/source/properties/nats", crate::source::nats::NATS_KEYS),
            ("/$defs/source/properties/webhook", crate::source::webhook::WEBHOOK_KEYS),
            ("/$defs/source/properties/webhook/properties/verify", crate::source::webhook::VERIFY_KEYS),
            ("/$defs/source/properties/git", crate::source::git::GIT_KEYS),
            ("/$defs/source/properties/cron", crate::source::cron::CRON_KEYS),
        ];
        let schema = json_schema();
        for (place, keys) in sections {
            let properties =
                schema.pointer(&format!("{place}/properties")).and_then(Value::as_object).unwrap();
            let described: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
            let read: BTreeSet<&str> = keys.iter().copied().collect();
            assert_eq!(described, read, "at {place}");
        }
        // No mapping with fixed keys is left out above; `stdout` has none.
        assert_eq!(count_of_properties(&schema), sections.len());
    }

    fn count_of_properties(value: &Value) -> usize {
        match value {
            Value::Object(map) => {
                // Kafka has a key called `properties`, which is no mapping with fixed keys.
                let is_fixed = map.get("properties").is_some_and(Value::is_object)
                    && map.contains_key("additionalProperties");
                let own = usize::from(is_fixed);
                own + map.values().map(count_of_properties).sum::<usize>()
            }
            Value::Array(items) => items.iter().map(count_of_properties).sum(),
            _ => 0,
        }
    }
}
