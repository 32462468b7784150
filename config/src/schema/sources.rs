//! Sources, and the sinks that are brokers of other systems.

use serde_json::{Value, json};

use super::{boolean, choice, duration, names, object, reference, section, size, strings, text, whole};
use crate::client::SASL_MECHANISMS;
use crate::sink::MODES;
use crate::source::OVERSIZES;
use crate::source::amqp::PREFETCH;
use crate::source::cron::{CATCH_UP_MAX, CATCH_UPS};
use crate::source::git::PROVIDERS;
use crate::source::kafka::{KEYS, STARTS};
use crate::source::webhook::{HMAC_ALGORITHMS, HMAC_ENCODINGS, SCHEMES};

pub(super) fn source() -> Value {
    let event = json!({
        "description": "What a record that is no CloudEvent becomes, field by field: templates such as \"com.example.{body.kind|other}\".",
        "type": ["object", "null"],
        "propertyNames": { "pattern": "^(data_base64|[a-z0-9]+)$" },
    });
    let oversize = "What becomes of a record that is no event and larger than limits.put_aside_bytes.";
    let keys = [
        ("kafka", kafka()),
        ("amqp", amqp()),
        ("nats", nats()),
        ("webhook", webhook()),
        ("git", git()),
        ("cron", cron()),
        ("event", event),
        ("event_bytes", size("Larger events are refused; 25MiB for git and webhook.", "1MiB")),
        ("oversize", choice(oversize, &names(OVERSIZES), "stop")),
    ];
    let mut source = object("What brings events in: exactly one kind.", &keys);
    source["oneOf"] = json!([
        { "required": ["kafka"] },
        { "required": ["amqp"] },
        { "required": ["nats"] },
        { "required": ["webhook"] },
        { "required": ["git"] },
        { "required": ["cron"] },
    ]);
    source
}

fn required(mut object: Value, keys: &[&str]) -> Value {
    object["required"] = json!(keys);
    object
}

fn brokers() -> Value {
    strings("Brokers to begin with, as HOST:PORT.")
}

fn servers() -> Value {
    strings("URLs of servers, such as nats://localhost:4222.")
}

fn tls_or_not() -> Value {
    json!({ "anyOf": [boolean("With the authorities of the system."), reference("tls")] })
}

fn sasl() -> Value {
    let keys = [
        ("mechanism", choice("How to log in.", &names(SASL_MECHANISMS), "PLAIN")),
        ("username", text("Who logs in.", "sluice")),
        ("password", text("The secret.", "${KAFKA_PASSWORD}")),
    ];
    required(object("A login by user and password.", &keys), &["mechanism", "username", "password"])
}

fn properties() -> Value {
    json!({
        "description": "Properties of librdkafka, except those that Sluice sets itself.",
        "type": ["object", "null"],
        "additionalProperties": { "type": ["string", "number", "boolean"] },
    })
}

fn kafka() -> Value {
    let keys = [
        ("brokers", brokers()),
        ("topics", strings("Topics to read.")),
        ("pattern", text("A regular expression for whole names of topics.", "orders-.*")),
        ("group", text("The consumer group, under whose name offsets are kept.", "sluice")),
        ("start", choice("Where a group without offsets begins.", &names(STARTS), "earliest")),
        ("key", choice("What the key of a record becomes.", &names(KEYS), "partitionkey")),
        ("instance", text("A member of its own name (static membership).", "sluice-1")),
        ("session_timeout", duration("When a member that is silent loses its partitions.", "10s")),
        ("tls", tls_or_not()),
        ("sasl", sasl()),
        ("properties", properties()),
    ];
    let mut kafka = required(object("Topics of Kafka.", &keys), &["brokers", "group"]);
    kafka["oneOf"] = json!([{ "required": ["topics"] }, { "required": ["pattern"] }]);
    kafka
}

fn amqp_url() -> Value {
    text("An amqp or amqps URL, with the virtual host as its path.", "amqp://localhost")
}

fn amqp() -> Value {
    let binding = [
        ("exchange", text("The exchange to bind to.", "orders")),
        ("routing_key", json!({ "description": "Empty unless set.", "type": "string" })),
    ];
    let bind = json!({
        "description": "Bindings of the queue.",
        "type": "array",
        "items": required(object("A binding.", &binding), &["exchange"]),
    });
    let durable =
        json!({ "description": "Whether the queue survives a restart.", "type": "boolean", "default": true });
    let arguments =
        json!({ "description": "Arguments of the queue, such as x-queue-type.", "type": "object" });
    let declare = [("durable", durable), ("arguments", arguments), ("bind", bind)];
    let keys = [
        ("url", amqp_url()),
        ("queue", text("The queue to read.", "payments")),
        ("declare", section("Declares the queue, which else exists.", &declare)),
        ("prefetch", whole("Messages on the way at the same time.", &PREFETCH, 256)),
        ("heartbeat", duration("When a silent connection is given up, in whole seconds.", "10s")),
        ("tls", reference("tls")),
    ];
    required(object("A queue of RabbitMQ (AMQP 0.9.1).", &keys), &["url", "queue"])
}

fn nats() -> Value {
    let lossy = "Core NATS: events that come while the broker is down are lost.";
    let keys = [
        ("servers", servers()),
        ("stream", text("The stream of JetStream.", "SENSORS")),
        ("consumer", text("Its durable pull consumer; an absent one is created.", "sluice")),
        ("filter_subjects", strings("What of the stream to receive.")),
        ("idle_heartbeat", duration("How often a silent server says that it is there.", "5s")),
        ("subjects", strings("Subjects of core NATS.")),
        ("queue_group", text("Members of a group share what comes.", "sluice")),
        ("allow_lossy", boolean(lossy)),
        ("credentials", text("A file with credentials.", "sluice.creds")),
        ("tls", tls_or_not()),
    ];
    let mut nats = required(object("A stream of JetStream, or subjects of core NATS.", &keys), &["servers"]);
    nats["oneOf"] =
        json!([{ "required": ["stream", "consumer"] }, { "required": ["subjects", "allow_lossy"] }]);
    nats
}

fn secret() -> Value {
    text("The secret: \"${NAME}\" or \"${file:PATH}\".", "${WEBHOOK_SECRET}")
}

fn secrets() -> Value {
    json!({
        "description": "Secrets of which any is right, for rotation.",
        "type": "array",
        "minItems": 1,
        "items": { "type": "string", "minLength": 1 },
    })
}

fn webhook() -> Value {
    let header = "Where the signature or the token stands.";
    let verify = [
        ("scheme", json!({ "description": "How deliveries are signed.", "enum": SCHEMES })),
        ("secret", secret()),
        ("secrets", secrets()),
        ("tolerance", duration("How far a signed time may be from now, both ways.", "5m")),
        ("algorithm", choice("Of `hmac`.", &names(HMAC_ALGORITHMS), "sha256")),
        ("header", text(header, "x-signature")),
        ("encoding", choice("Of the digest of `hmac`.", &names(HMAC_ENCODINGS), "hex")),
        ("prefix", json!({ "description": "What stands before the digest of `hmac`.", "type": "string" })),
        ("signed", text("What `hmac` signs.", "{timestamp}.{body}")),
        ("timestamp_header", text("Where the signed time stands.", "x-timestamp")),
        ("query", text("The query parameter with the token.", "token")),
        ("username", text("The user of `basic`.", "sluice")),
    ];
    let mut verify = required(object("How a delivery proves where it comes from.", &verify), &["scheme"]);
    verify["oneOf"] = json!([{ "required": ["secret"] }, { "required": ["secrets"] }]);
    let insecure = boolean("Takes what anyone sends.");
    let keys = [("verify", verify), ("insecure", insecure)];
    object("Deliveries to /hooks/NAME.", &keys)
}

fn git() -> Value {
    let keys = [
        ("provider", choice("Whose deliveries come to /hooks/NAME.", &names(PROVIDERS), "auto")),
        ("secret", secret()),
        ("secrets", secrets()),
        ("insecure", boolean("Takes what anyone sends.")),
    ];
    let mut git = section("Deliveries of a git host to /hooks/NAME.", &keys);
    git["type"] = json!("object");
    git
}

fn cron() -> Value {
    let keys = [
        ("schedule", text("Five fields, six with seconds first, or @daily and the like.", "30 2 * * *")),
        (
            "at",
            text(
                "Once: a time, in `timezone` unless it says how far it is from UTC.",
                "2026-01-31T12:00:00Z",
            ),
        ),
        (
            "timezone",
            json!({ "description": "A zone of the IANA database.", "type": "string", "default": "UTC" }),
        ),
        (
            "catch_up",
            choice("What of the runs that were missed is made up for.", &names(CATCH_UPS), "latest"),
        ),
        ("catch_up_max", whole("At most so many.", &CATCH_UP_MAX, 1000)),
    ];
    let mut cron = object("A timer.", &keys);
    cron["oneOf"] = json!([{ "required": ["schedule"] }, { "required": ["at"] }]);
    cron
}

fn template(description: &str, example: &str) -> Value {
    text(&format!("{description}; may hold paths such as {{event.type}}."), example)
}

pub(super) fn kafka_sink() -> Value {
    let keys = [
        ("brokers", brokers()),
        ("topic", template("The topic", "orders")),
        ("key", template("The key of the record, partitionkey unless set", "{event.subject}")),
        ("mode", choice("How events are sent.", &names(MODES), "binary")),
        ("tls", tls_or_not()),
        ("sasl", sasl()),
        ("properties", properties()),
    ];
    required(object("A topic of Kafka.", &keys), &["brokers", "topic"])
}

pub(super) fn amqp_sink() -> Value {
    let exchange = json!({ "description": "The exchange; \"\" is the default one.", "type": "string" });
    let persistent =
        json!({ "description": "Whether messages survive a restart.", "type": "boolean", "default": true });
    let keys = [
        ("url", amqp_url()),
        ("exchange", exchange),
        ("routing_key", template("The routing key", "orders.{event.type}")),
        ("mode", choice("How events are sent.", &names(MODES), "binary")),
        ("persistent", persistent),
        ("tls", reference("tls")),
    ];
    required(object("An exchange of RabbitMQ (AMQP 0.9.1).", &keys), &["url", "exchange", "routing_key"])
}

pub(super) fn nats_sink() -> Value {
    let keys = [
        ("servers", servers()),
        ("subject", template("The subject", "orders.{event.type}")),
        ("mode", choice("How events are sent.", &names(MODES), "binary")),
        ("credentials", text("A file with credentials.", "sluice.creds")),
        ("tls", tls_or_not()),
    ];
    required(object("A subject of a JetStream stream.", &keys), &["servers", "subject"])
}
