//! The log on standard error.

use tracing::Metadata;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::LogFormat;

pub fn start_log(format: LogFormat) {
    let wanted = std::env::var("SLUICE_LOG").unwrap_or_default();
    let wanted = if wanted.trim().is_empty() { "info" } else { wanted.as_str() };
    let filter = tracing_subscriber::EnvFilter::try_new(wanted).unwrap_or_else(|error| {
        eprintln!("warning: SLUICE_LOG is `{wanted}`, which is no filter such as `info` or `debug`: {error}");
        tracing_subscriber::EnvFilter::new("info")
    });
    // Clients of other systems log what they connect to at `debug`, passwords included.
    let is_safe = |metadata: &Metadata<'_>| {
        metadata.target().starts_with("sluice") || *metadata.level() <= tracing::Level::WARN
    };
    let filter = filter.and(filter_fn(is_safe).with_max_level_hint(tracing::Level::TRACE));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Json => tracing_subscriber::registry().with(layer.json().with_filter(filter)).try_init(),
        LogFormat::Text => {
            let layer = layer.with_target(false).with_ansi(is_terminal());
            tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()
        }
    };
    // A second call in one process keeps the first log.
    drop(started);
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none()
}
