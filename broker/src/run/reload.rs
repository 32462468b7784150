//! Another configuration while the broker runs.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use sluice_config::{self as config, Config};
use tracing::{Level, info, warn};

use super::Running;
use super::configuration::{due_warnings, shown, sink_error, warning};
use super::log;
use crate::{dispatch, sources};

impl Running {
    /// Reads the configuration again and puts it in force, or changes nothing and says why.
    pub async fn reload(&mut self) -> Result<Value, String> {
        let reloaded = self.try_reload().await;
        self.reload_success.store(reloaded.is_ok(), Ordering::Relaxed);
        match &reloaded {
            Ok(changes) => info!(%changes, "reloaded the configuration"),
            Err(_) => warn!("the configuration is wrong and was not reloaded; the old one keeps running"),
        }
        reloaded
    }

    async fn try_reload(&mut self) -> Result<Value, String> {
        let env = |name: &str| std::env::var(name).ok();
        let loaded = config::load(&self.paths, &env).map_err(|errors| errors.to_string())?;
        let changes = config::changes(&self.config, &loaded.config);
        if !changes.refused.is_empty() {
            let keys = changes.refused.join("`, `");
            return Err(format!("`{keys}` cannot be changed while the broker runs; restart it"));
        }
        let prepared =
            dispatch::prepare(&loaded.config.triggers).map_err(|error| sink_error(&error).to_string())?;
        let sources = sources::prepare(&loaded.config.sources).map_err(|error| error.to_string())?;
        self.dispatch
            .adopt(prepared)
            .await
            .map_err(|refusal| format!("the trigger set was not written: {refusal}"))?;
        self.sources.adopt(sources).await;
        let warnings: Vec<_> = loaded.warnings.iter().chain(due_warnings(&loaded)).collect();
        for warning in &warnings {
            log::say(Level::WARN, &warning.to_string());
        }
        let warnings: Vec<Value> = warnings.into_iter().map(warning).collect();
        let mut config = loaded.config;
        let needs_restart = keep_what_needs_a_restart(&self.config, &mut config);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown(&config, &loaded.hash);
        self.config = config;
        let frozen = self
            .frozen()
            .into_iter()
            .filter(|(name, pending)| *pending > 0 || changes.removed.contains(name));
        let frozen: Vec<Value> =
            frozen.map(|(name, pending)| json!({ "trigger": name, "pending": pending })).collect();
        Ok(json!({
            "hash": loaded.hash,
            "added": changes.added,
            "changed": changes.changed,
            "removed": changes.removed,
            "sources": {
                "added": changes.sources_added,
                "changed": changes.sources_changed,
                "removed": changes.sources_removed,
            },
            "frozen": frozen,
            "needs_restart": needs_restart,
            "warnings": warnings,
        }))
    }

    /// The triggers that were removed, and how much each still owes.
    pub fn frozen(&self) -> Vec<(String, u64)> {
        let core = self.dispatch.core();
        let removed = core.state.set.triggers.iter().filter(|entry| entry.removed_at_ms.is_some());
        let pending = |id| core.state.triggers.get(&id).map_or(0, |state| core.state.books(state).pending());
        removed.map(|entry| (entry.name.clone(), pending(entry.id))).collect()
    }
}

/// Puts back what is read once, when the process starts, so that what is shown is what is in force; names what was
/// wanted otherwise.
fn keep_what_needs_a_restart(running: &Config, wanted: &mut Config) -> Vec<&'static str> {
    fn keep<T: Clone + PartialEq>(running: &T, wanted: &mut T) -> bool {
        let differs = running != wanted;
        wanted.clone_from(running);
        differs
    }
    let sections = [
        ("limits", keep(&running.limits, &mut wanted.limits)),
        ("duplicates", keep(&running.duplicates, &mut wanted.duplicates)),
        ("dead_letters", keep(&running.dead_letters_age, &mut wanted.dead_letters_age)),
        ("shutdown_timeout", keep(&running.shutdown_timeout, &mut wanted.shutdown_timeout)),
    ];
    sections.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}
