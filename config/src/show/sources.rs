//! Sources, and the clients they share with sinks.

use serde_json::{Map, Value, json};

use super::{HIDDEN, tls_json, word};
use crate::client::shown_url;
use crate::model::{
    AmqpSink, AmqpSource, CronSource, CronWhen, GitSource, KafkaClient, KafkaSink, KafkaSource, NatsClient,
    NatsFrom, NatsSink, NatsSource, Scheme, Source, SourceKind, Tls, TokenPlace, Topics, Verify,
    WebhookSource,
};
use crate::sink::MODES;
use crate::source::OVERSIZES;
use crate::source::cron::CATCH_UPS;
use crate::source::git::PROVIDERS;
use crate::source::kafka::{KEYS, STARTS};
use crate::source::webhook::{HMAC_ALGORITHMS, HMAC_ENCODINGS};
use crate::units::{duration_text, size_text};

pub(super) fn source_json(source: &Source) -> Value {
    let kind = match &source.kind {
        SourceKind::Kafka(kafka) => kafka_json(kafka),
        SourceKind::Amqp(amqp) => amqp_json(amqp),
        SourceKind::Nats(nats) => nats_json(nats),
        SourceKind::Webhook(webhook) => webhook_json(webhook),
        SourceKind::Git(git) => git_json(git),
        SourceKind::Cron(cron) => cron_json(cron),
    };
    let mut shown = json!({
        "event_bytes": size_text(source.event_bytes as u64),
        "oversize": word(OVERSIZES, &source.oversize),
    });
    shown[source.kind.name()] = kind;
    if !source.event.is_empty() {
        shown["event"] = Value::Object(source.event.iter().cloned().collect());
    }
    shown
}

fn kafka_json(kafka: &KafkaSource) -> Value {
    let mut shown = kafka_client(&kafka.client);
    match &kafka.topics {
        Topics::Listed(topics) => shown["topics"] = json!(topics),
        Topics::Pattern(pattern) => shown["pattern"] = json!(pattern),
    }
    shown["group"] = json!(kafka.group);
    shown["start"] = json!(word(STARTS, &kafka.start));
    shown["key"] = json!(word(KEYS, &kafka.key));
    if let Some(instance) = &kafka.instance {
        shown["instance"] = json!(instance);
    }
    shown["session_timeout"] = json!(duration_text(kafka.session_timeout));
    shown
}

fn kafka_client(client: &KafkaClient) -> Value {
    let mut shown = json!({ "brokers": client.brokers, "tls": tls_or_not(client.tls.as_ref()) });
    if let Some(sasl) = &client.sasl {
        let (mechanism, username) = (&sasl.mechanism, &sasl.username);
        shown["sasl"] = json!({ "mechanism": mechanism, "username": username, "password": HIDDEN });
    }
    if !client.properties.is_empty() {
        let hidden = client.properties.iter().map(|(name, _)| (name.clone(), json!(HIDDEN)));
        shown["properties"] = Value::Object(hidden.collect::<Map<_, _>>());
    }
    shown
}

fn tls_or_not(tls: Option<&Tls>) -> Value {
    match tls {
        None => json!(false),
        Some(tls) if *tls == Tls::default() => json!(true),
        Some(tls) => tls_json(tls),
    }
}

fn amqp_json(amqp: &AmqpSource) -> Value {
    let mut shown = json!({
        "url": shown_url(&amqp.url),
        "queue": amqp.queue,
        "prefetch": amqp.prefetch,
        "heartbeat": duration_text(amqp.heartbeat),
        "tls": tls_json(&amqp.tls),
    });
    if let Some(declare) = &amqp.declare {
        let bind = declare
            .bind
            .iter()
            .map(|bind| json!({ "exchange": bind.exchange, "routing_key": bind.routing_key }));
        shown["declare"] = json!({
            "durable": declare.durable,
            "arguments": Value::Object(declare.arguments.iter().cloned().collect()),
            "bind": bind.collect::<Vec<_>>(),
        });
    }
    shown
}

fn nats_client(client: &NatsClient) -> Value {
    let servers: Vec<String> = client.servers.iter().map(shown_url).collect();
    let mut shown = json!({ "servers": servers, "tls": tls_or_not(client.tls.as_ref()) });
    if let Some(path) = &client.credentials {
        shown["credentials"] = json!(path.display().to_string());
    }
    shown
}

fn nats_json(nats: &NatsSource) -> Value {
    let mut shown = nats_client(&nats.client);
    match &nats.from {
        NatsFrom::JetStream { stream, consumer, filter_subjects, idle_heartbeat } => {
            shown["stream"] = json!(stream);
            shown["consumer"] = json!(consumer);
            shown["filter_subjects"] = json!(filter_subjects);
            shown["idle_heartbeat"] = json!(duration_text(*idle_heartbeat));
        }
        NatsFrom::Core { subjects, queue_group } => {
            shown["subjects"] = json!(subjects);
            shown["allow_lossy"] = json!(true);
            if let Some(group) = queue_group {
                shown["queue_group"] = json!(group);
            }
        }
    }
    shown
}

fn webhook_json(webhook: &WebhookSource) -> Value {
    match &webhook.verify {
        None => json!({ "insecure": true }),
        Some(verify) => json!({ "verify": verify_json(verify) }),
    }
}

fn verify_json(verify: &Verify) -> Value {
    let mut shown = json!({
        "secrets": vec![HIDDEN; verify.secrets.len()],
        "tolerance": duration_text(verify.tolerance),
    });
    shown["scheme"] = json!(match &verify.scheme {
        Scheme::Github => "github",
        Scheme::Gitlab => "gitlab",
        Scheme::Stripe => "stripe",
        Scheme::Slack => "slack",
        Scheme::Shopify => "shopify",
        Scheme::StandardWebhooks => "standard-webhooks",
        Scheme::Svix => "svix",
        Scheme::Hmac(_) => "hmac",
        Scheme::Token(_) => "token",
        Scheme::Basic { .. } => "basic",
    });
    match &verify.scheme {
        Scheme::Hmac(hmac) => {
            shown["algorithm"] = json!(word(HMAC_ALGORITHMS, &hmac.algorithm));
            shown["header"] = json!(hmac.header);
            shown["encoding"] = json!(word(HMAC_ENCODINGS, &hmac.encoding));
            shown["prefix"] = json!(hmac.prefix);
            shown["signed"] = json!(hmac.signed);
            if let Some(header) = &hmac.timestamp_header {
                shown["timestamp_header"] = json!(header);
            }
        }
        Scheme::Token(TokenPlace::Header(name)) => shown["header"] = json!(name),
        Scheme::Token(TokenPlace::Query(name)) => shown["query"] = json!(name),
        Scheme::Basic { username } => shown["username"] = json!(username),
        Scheme::Github
        | Scheme::Gitlab
        | Scheme::Stripe
        | Scheme::Slack
        | Scheme::Shopify
        | Scheme::StandardWebhooks
        | Scheme::Svix => {}
    }
    shown
}

fn git_json(git: &GitSource) -> Value {
    let provider = word(PROVIDERS, &git.provider);
    match git.secrets.len() {
        0 => json!({ "provider": provider, "insecure": true }),
        secrets => json!({ "provider": provider, "secrets": vec![HIDDEN; secrets] }),
    }
}

fn cron_json(cron: &CronSource) -> Value {
    let mut shown = json!({
        "timezone": cron.timezone.iana_name().unwrap_or("UTC"),
        "catch_up": word(CATCH_UPS, &cron.catch_up),
        "catch_up_max": cron.catch_up_max,
    });
    match &cron.when {
        CronWhen::Schedule(schedule) => shown["schedule"] = json!(schedule.as_str()),
        CronWhen::At(ms) => shown["at"] = json!(super::instant(*ms)),
    }
    shown
}

pub(super) fn kafka_sink(sink: &KafkaSink) -> Value {
    let mut shown = kafka_client(&sink.client);
    shown["topic"] = json!(sink.topic);
    shown["mode"] = json!(word(MODES, &sink.mode));
    if let Some(key) = &sink.key {
        shown["key"] = json!(key);
    }
    shown
}

pub(super) fn amqp_sink(sink: &AmqpSink) -> Value {
    json!({
        "url": shown_url(&sink.url),
        "exchange": sink.exchange,
        "routing_key": sink.routing_key,
        "mode": word(MODES, &sink.mode),
        "persistent": sink.persistent,
        "tls": tls_json(&sink.tls),
    })
}

pub(super) fn nats_sink(sink: &NatsSink) -> Value {
    let mut shown = nats_client(&sink.client);
    shown["subject"] = json!(sink.subject);
    shown["mode"] = json!(word(MODES, &sink.mode));
    shown
}
