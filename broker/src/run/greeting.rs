//! What a broker that takes events says of itself.

use std::net::SocketAddr;

use sluice_config::{self as config, Config};
use tracing::Level;

use super::log;

/// Names of hooks in the line that says where they are.
const HOOKS_SHOWN: usize = 8;

pub fn greet(
    config: &Config,
    (public, operators): (SocketAddr, SocketAddr),
    files: usize,
    sources_not_up: usize,
) {
    let (triggers, files) = (counted(config.triggers.len(), "trigger"), counted(files, "file"));
    let mut lines = vec![
        format!("sluice {} takes events at http://{public}/events", env!("CARGO_PKG_VERSION")),
        format!("health, metrics and the API: http://{operators}/readyz, /metrics, /api/v1/openapi.json"),
        format!("{triggers} from {files}; events are kept in {}", config.store.dir.display()),
        format!(
            "try: curl -i http://{public}/events -H 'ce-specversion: 1.0' -H 'ce-id: 1' -H 'ce-source: /me' \
             -H 'ce-type: com.example.hello' -H 'content-type: application/json' -d '{{\"hello\":\"world\"}}'"
        ),
    ];
    lines.extend(
        hooks_shown(config)
            .map(|hooks| format!("deliveries of webhooks: http://{public}/hooks/ and then {hooks}")),
    );
    let not_up = counted(sources_not_up, "source");
    lines.push(format!("next: sluice triggers --admin http://{operators}; {not_up} not up"));
    lines.iter().for_each(|line| log::say(Level::INFO, line));
}

/// Nothing else says it to who configures the sender of a webhook.
fn hooks_shown(config: &Config) -> Option<String> {
    let is_hook = |kind: &config::SourceKind| {
        matches!(kind, config::SourceKind::Webhook(_) | config::SourceKind::Git(_))
    };
    let names = config.sources.iter().filter(|(_, source)| is_hook(&source.kind)).map(|(name, _)| &**name);
    let names: Vec<&str> = names.collect();
    match names.as_slice() {
        [] => None,
        few if few.len() <= HOOKS_SHOWN => Some(few.join(", ")),
        many => Some(format!("{} or {} more", many[..HOOKS_SHOWN].join(", "), many.len() - HOOKS_SHOWN)),
    }
}

/// `1 file`, `2 files`.
pub fn counted(count: usize, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        _ => format!("{count} {thing}s"),
    }
}
