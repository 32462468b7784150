//! How a client reaches its cluster, in librdkafka's words.

use std::path::Path;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use sluice_config as config;

/// A configuration with what sources and sinks have in common.
pub fn configure(client: &config::KafkaClient) -> ClientConfig {
    let mut configured = ClientConfig::new();
    for (name, value) in &client.properties {
        configured.set(name, value.expose());
    }
    configured.set("bootstrap.servers", client.brokers.join(","));
    configured.set("client.id", "sluice");
    // A connection that is cut without a word is noticed by the request that gets no answer.
    set_default(&mut configured, "socket.timeout.ms", "10000");
    set_default(&mut configured, "socket.keepalive.enable", "true");
    set_default(&mut configured, "reconnect.backoff.max.ms", "2000");
    let protocol = match (&client.tls, &client.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    configured.set("security.protocol", protocol);
    if let Some(tls) = &client.tls {
        // Without one of our own, the authorities of the machine, wherever they are.
        configured.set("ssl.ca.location", tls.ca.as_deref().map_or("probe".into(), shown));
        if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
            configured.set("ssl.certificate.location", shown(cert));
            configured.set("ssl.key.location", shown(key));
        }
    }
    if let Some(sasl) = &client.sasl {
        configured.set("sasl.mechanism", &sasl.mechanism);
        configured.set("sasl.username", &sasl.username);
        configured.set("sasl.password", sasl.password.expose());
    }
    configured
}

/// Whether librdkafka knows what it is told, before anything is reached.
pub fn check(configured: &ClientConfig) -> Result<(), String> {
    match configured.create_native_config() {
        Ok(_) => Ok(()),
        // The value may be a secret.
        Err(KafkaError::ClientConfig(_, why, property, _)) => Err(format!("property `{property}`: {why}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Sets what the file says nothing about.
pub fn set_default(configured: &mut ClientConfig, name: &str, value: &str) {
    if configured.get(name).is_none() {
        configured.set(name, value);
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
