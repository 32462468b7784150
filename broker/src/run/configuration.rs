//! What a configuration comes to: read, checked, shown, and as the parts take it.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};
use sluice_config::{self as config, Config, Diagnostic, Loaded};
use tracing::Level;

use super::greeting::counted;
use super::log;
use crate::cli::Error;
use crate::store::{Options, Upkeep, WindowSize, clock};
use crate::{dispatch, sources};

/// Loads a configuration and prints what it warns of.
pub fn load(paths: &[PathBuf]) -> Result<Loaded, Error> {
    let env = |name: &str| std::env::var(name).ok();
    let loaded = config::load(paths, &env).map_err(|errors| Error::Configuration(errors.to_string()))?;
    for warning in &loaded.warnings {
        log::say(Level::WARN, &warning.to_string());
    }
    Ok(loaded)
}

/// `sluice check`.
pub fn check(paths: &[PathBuf]) -> Result<(), Error> {
    let loaded = load(paths)?;
    for warning in due_warnings(&loaded) {
        log::say(Level::WARN, &warning.to_string());
    }
    dispatch::prepare(&loaded.config.triggers).map_err(|error| sink_error(&error))?;
    sources::prepare(&loaded.config.sources).map_err(|error| Error::Configuration(error.to_string()))?;
    let (triggers, files) =
        (counted(loaded.config.triggers.len(), "trigger"), counted(loaded.files.len(), "file"));
    println!("ok: {triggers} in {files}, hash {}", loaded.hash);
    Ok(())
}

/// What is to be warned of since an instant that has come.
pub fn due_warnings(loaded: &Loaded) -> impl Iterator<Item = &Diagnostic> {
    let now_ms = i64::try_from(clock::wall_ms()).unwrap_or(i64::MAX);
    let due = loaded.warnings_later.iter().filter(move |(from_ms, _)| *from_ms <= now_ms);
    due.map(|(_, warning)| warning)
}

/// A warning as the answer to a reload has it; `text` is what `check` prints.
pub fn warning(diagnostic: &Diagnostic) -> Value {
    let (line, column) = diagnostic.position.unzip();
    json!({
        "file": diagnostic.file, "line": line, "column": column,
        "message": diagnostic.message, "text": diagnostic.to_string(),
    })
}

pub fn sink_error(error: &dispatch::WrongSink) -> Error {
    let mut text = error.to_string();
    // The text has the error of the sink; what caused that comes behind it.
    let mut cause = std::error::Error::source(error).and_then(std::error::Error::source);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    Error::Configuration(text)
}

pub fn options(config: &Config) -> Options {
    let store = &config.store;
    Options {
        dir: std::path::absolute(&store.dir).unwrap_or_else(|_| store.dir.clone()),
        segment_bytes: config.segment_bytes(),
        retention_bytes: store.retention_bytes,
        retention_age_ms: store.retention_age.as_millis() as u64,
        stop_percent: store.watermark.stop_percent,
        resume_percent: store.watermark.resume_percent,
        free_bytes: store.watermark.free_bytes,
        outstanding: store.outstanding,
        skip_damage: store.on_damage == config::OnDamage::Skip,
        window: config.duplicates.map(|duplicates| WindowSize {
            window_ms: duplicates.window.as_millis() as u64,
            entries: duplicates.entries,
        }),
        upkeep: Upkeep::default(),
    }
}

/// Values of `Host` that name the operators' listener.
pub fn hosts(config: &Config, address: SocketAddr) -> Vec<String> {
    let mut hosts: Vec<String> = config.admin.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
    let port = format!(":{}", address.port());
    let own = address.to_string();
    // Whoever leaves the port out is no web page of somebody else's: its name would be another one.
    for name in [own.trim_end_matches(&port), "localhost", "127.0.0.1", "[::1]"] {
        hosts.extend([name.to_owned(), format!("{name}{port}")]);
    }
    hosts
}

/// The configuration as the API shows it.
pub fn shown(config: &Config, hash: &str) -> Value {
    let mut shown = config::to_json(config);
    if let Some(members) = shown.as_object_mut() {
        members.insert("hash".into(), Value::String(hash.to_owned()));
    }
    shown
}
