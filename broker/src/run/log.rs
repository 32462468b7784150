//! What goes to standard error: the log, and what is said whatever `SLUICE_LOG` filters. In JSON, both are objects, one a
//! line, so that whoever reads a log meets nothing else.

use std::io::Write as _;
use std::sync::OnceLock;

use serde_json::json;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::LogFormat;

/// Of `sluice run`; other commands have no log, and speak in text.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// A second call in one process keeps the first log.
pub fn start(format: LogFormat) {
    let format = *FORMAT.get_or_init(|| format);
    let wanted = std::env::var("SLUICE_LOG").unwrap_or_default();
    let wanted = if wanted.trim().is_empty() { "info" } else { wanted.as_str() };
    let filter = tracing_subscriber::EnvFilter::try_new(wanted).unwrap_or_else(|error| {
        let what = format!(
            "warning: SLUICE_LOG is `{wanted}`, which is no filter such as `info` or `debug`: {error}"
        );
        say(Level::WARN, &what);
        tracing_subscriber::EnvFilter::new("info")
    });
    let is_safe = |metadata: &Metadata<'_>| match metadata.target() {
        target if target.starts_with("sluice") => true,
        // It warns of each message that comes back, with its data.
        target if target.starts_with("lapin") => *metadata.level() <= Level::ERROR,
        // Clients of other systems log what they connect to at `debug`, passwords included.
        _ => *metadata.level() <= Level::WARN,
    };
    let filter = filter.and(filter_fn(is_safe).with_max_level_hint(Level::TRACE));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Json => tracing_subscriber::registry().with(layer.json().with_filter(filter)).try_init(),
        LogFormat::Text => {
            let layer = layer.with_target(false).with_ansi(is_terminal());
            tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()
        }
    };
    drop(started);
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none()
}

/// Says something that is not filtered: what was asked for, or why the process ends.
pub fn say(level: Level, text: &str) {
    let line = match FORMAT.get() {
        Some(LogFormat::Json) => {
            let now = jiff::Timestamp::now();
            let fields = json!({ "message": text });
            json!({ "timestamp": format!("{now:.6}"), "level": level.as_str(), "fields": fields, "target": "sluice" })
                .to_string()
        }
        Some(LogFormat::Text) | None => text.to_owned(),
    };
    // Whoever read it may have gone, which is no reason to stop.
    drop(writeln!(std::io::stderr(), "{line}"));
}
