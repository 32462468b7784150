//! The sources that are delivered to over HTTP, as long as the configuration has them. It is all of the running of sources
//! that they need: they hold no connection, so nothing takes them down.

use std::sync::Arc;

use sluice_adapters::hook::{Found, Hook, HookSource, Hooks, WrongHook};
use sluice_adapters::{Context, Health, Publisher, Record, Source as _, Stop, Unfit};
use sluice_config::Config;
use sluice_schemas::Event;
use tokio::sync::watch;

use crate::dispatch::Dispatch;
use crate::intake::Intake;

/// Compiles the hooks of a configuration, or says which source is wrong.
pub fn compile(config: &Config) -> Result<Vec<(String, Hook)>, WrongHook> {
    let compiled = config
        .sources
        .iter()
        .map(|(name, source)| Hook::compile(name, source).map(|hook| hook.map(|hook| (name.clone(), hook))));
    compiled.filter_map(Result::transpose).collect()
}

/// The hooks that are open. Dropping it closes them.
pub struct OpenHooks {
    /// A source stops when its end of this goes.
    _stops: Vec<watch::Sender<bool>>,
}

impl OpenHooks {
    /// Opens hooks; those of the same names that were open give way.
    pub fn open(
        compiled: Vec<(String, Hook)>,
        hooks: &Hooks,
        dispatch: &Dispatch,
        put_aside_bytes: usize,
    ) -> Self {
        let stops = compiled.into_iter().map(|(name, hook)| {
            let (stop, stopped) = watch::channel(false);
            let context = Context {
                publisher: Publisher::new(&name, Arc::new(Intake::new(dispatch.clone()))),
                name: name.into(),
                health: Health::new(|_| {}),
                stop: Stop::new(stopped),
                mark: None,
                put_aside_bytes,
                oversize: hook.oversize(),
            };
            let source = HookSource::new(Arc::new(hook), hooks);
            tokio::spawn(async move {
                // It ends only when it is told to.
                drop(source.run(context).await);
            });
            stop
        });
        Self { _stops: stops.collect() }
    }
}

/// Makes an event of a record that a source put aside.
pub fn to_event(hooks: &Hooks, source: &str, record: &Record) -> Result<Event, Unfit> {
    match hooks.find(source) {
        Found::Open(open) => open.hook.to_event(record),
        Found::Nothing | Found::Closed => {
            let detail = format!("there is no source `{source}` any more");
            Err(Unfit { is_conflict: false, detail })
        }
    }
}
