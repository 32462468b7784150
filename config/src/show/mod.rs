//! The configuration in force as JSON, with the keys of the YAML.

mod sources;

use serde_json::{Map, Value, json};

use crate::delivery::{BACKOFFS, REPLIES};
use sluice_language::Filter;

use crate::model::{Config, Delivery, HttpSink, Order, Retry, Sink, Start, Tls, Trigger};
use crate::sections::ON_DAMAGE;
use crate::sink::MODES;
use crate::units::{duration_text, rate_text, size_text};

const HIDDEN: &str = "[hidden]";

/// Shows a configuration with its defaults filled in. Secrets, header values and the queries of URLs are hidden. What has no value is left
/// out.
pub fn to_json(config: &Config) -> Value {
    let triggers: Map<String, Value> =
        config.triggers.iter().map(|(name, trigger)| (name.clone(), trigger_json(trigger))).collect();
    let mut shown = sections_json(config);
    let sources = config.sources.iter().map(|(name, source)| (name.clone(), sources::source_json(source)));
    shown["sources"] = Value::Object(sources.collect());
    shown["triggers"] = Value::Object(triggers);
    shown
}

/// A hash of what `to_json` shows, without holding it all at once.
pub(crate) fn hash(config: &Config) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(sections_json(config).to_string().as_bytes());
    for (name, source) in &config.sources {
        hasher.update(json!([name, sources::source_json(source)]).to_string().as_bytes());
    }
    for (name, trigger) in &config.triggers {
        hasher.update(json!([name, trigger_json(trigger)]).to_string().as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

fn sections_json(config: &Config) -> Value {
    let limits = config.limits;
    let duplicates = match config.duplicates {
        Some(duplicates) => {
            json!({ "window": duration_text(duplicates.window), "entries": duplicates.entries })
        }
        None => json!("off"),
    };
    let dead_letters = match config.dead_letters_age {
        Some(age) => json!({ "age": duration_text(age) }),
        None => json!({}),
    };
    json!({
        "http": {
            "listen": config.http.listen.to_string(),
            "webhook_origins": config.http.webhook_origins,
        },
        "admin": {
            "listen": config.admin.listen.to_string(),
            "open": !config.admin.listen.ip().is_loopback(),
            "hosts": config.admin.hosts,
        },
        "store": store_json(config),
        "limits": {
            "event_bytes": size_text(limits.event_bytes as u64),
            "batch_bytes": size_text(limits.batch_bytes as u64),
            "in_flight_bytes": size_text(limits.in_flight_bytes as u64),
            "connections": limits.connections,
            "hops": limits.hops,
            "put_aside_bytes": size_text(limits.put_aside_bytes as u64),
        },
        "duplicates": duplicates,
        "dead_letters": dead_letters,
        "shutdown_timeout": duration_text(config.shutdown_timeout),
    })
}

fn store_json(config: &Config) -> Value {
    let store = &config.store;
    let watermark = store.watermark;
    json!({
        "dir": store.dir.display().to_string(),
        "retention": {
            "age": duration_text(store.retention_age),
            "size": size_text(store.retention_bytes),
        },
        "segment": size_text(config.segment_bytes()),
        "watermark": {
            "stop": format!("{}%", watermark.stop_percent),
            "resume": format!("{}%", watermark.resume_percent),
            "free": size_text(watermark.free_bytes),
        },
        "outstanding": store.outstanding,
        "on_damage": word(ON_DAMAGE, &store.on_damage),
        "removed_grace": duration_text(store.removed_grace),
    })
}

fn trigger_json(trigger: &Trigger) -> Value {
    let start = match trigger.start {
        Start::Latest => "latest".to_owned(),
        Start::Earliest => "earliest".to_owned(),
        Start::At(milliseconds) => instant(milliseconds),
    };
    let filters: Vec<Value> = trigger.filters.iter().map(Filter::to_json).collect();
    let mut shown = json!({
        "filters": filters,
        "sink": sink_json(&trigger.sink),
        "delivery": delivery_json(&trigger.delivery),
        "start": start,
    });
    if let Some(transform) = &trigger.transform {
        shown["transform"] = transform.to_json();
    }
    if let Some(sources) = &trigger.sources {
        shown["sources"] = json!(sources);
    }
    if let Some(sink) = &trigger.dead_letter {
        shown["dead_letter"] = sink_json(sink);
    }
    shown
}

fn instant(milliseconds: i64) -> String {
    match jiff::Timestamp::from_millisecond(milliseconds) {
        Ok(instant) => instant.to_string(),
        Err(_) => format!("{milliseconds} ms since 1970"),
    }
}

fn sink_json(sink: &Sink) -> Value {
    match sink {
        Sink::Stdout => json!({ "stdout": {} }),
        Sink::Http(http) => json!({ "http": http_json(http) }),
        Sink::Kafka(kafka) => json!({ "kafka": sources::kafka_sink(kafka) }),
        Sink::Amqp(amqp) => json!({ "amqp": sources::amqp_sink(amqp) }),
        Sink::Nats(nats) => json!({ "nats": sources::nats_sink(nats) }),
    }
}

fn http_json(http: &HttpSink) -> Value {
    let headers: Map<String, Value> =
        http.headers.iter().map(|(name, _)| (name.clone(), json!(HIDDEN))).collect();
    json!({
        "url": http.shown_url(),
        "mode": word(MODES, &http.mode),
        "headers": headers,
        "tls": tls_json(&http.tls),
        "allow_link_local": http.allow_link_local,
    })
}

fn tls_json(tls: &Tls) -> Value {
    let Tls { ca, cert, key } = tls;
    let shown = [("ca", ca), ("cert", cert), ("key", key)]
        .into_iter()
        .filter_map(|(name, path)| Some((name.to_owned(), json!(path.as_ref()?.display().to_string()))));
    Value::Object(shown.collect())
}

fn delivery_json(delivery: &Delivery) -> Value {
    let order = match &delivery.order {
        Order::None => "none".to_owned(),
        Order::Attribute(name) => name.clone(),
        Order::Data(path) => format!("{{data.{}}}", path.join(".")),
    };
    let retry = match delivery.retry {
        Retry::Unlimited => json!("unlimited"),
        Retry::AtMost(retries) => json!(retries),
    };
    let mut shown = json!({
        "retry": retry,
        "backoff": word(BACKOFFS, &delivery.backoff),
        "backoff_delay": duration_text(delivery.backoff_delay),
        "backoff_max": duration_text(delivery.backoff_max),
        "max_age": duration_text(delivery.max_age),
        "timeout": duration_text(delivery.timeout),
        "concurrency": delivery.concurrency,
        "order": order,
        "reply": word(REPLIES, &delivery.reply),
        "retry_on": delivery.retry_on,
    });
    if let Some(rate) = delivery.rate {
        shown["rate"] = json!(rate_text(rate.per_second));
    }
    shown
}

/// The word that stands for a value in the YAML.
fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word)
}
