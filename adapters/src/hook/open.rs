//! Which hooks are open. The supervisor runs a [`HookSource`] like any other source; while it runs, the ingress finds its hook.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Hook;
use crate::{Context, Down, Health, Publisher, Report, Source};

/// The hooks by name, shared by the sources that open them and the ingress that finds them. Cheap to clone.
#[derive(Clone, Default)]
pub struct Hooks(Arc<Mutex<BTreeMap<String, Entry>>>);

struct Entry {
    hook: Arc<Hook>,
    /// `None` while the source does not run: paused, or about to start.
    open: Option<(Publisher, Health)>,
}

/// What there is at a name.
pub enum Found {
    Nothing,
    /// The source exists and takes nothing for the moment.
    Closed,
    Open(OpenHook),
}

/// A hook that takes deliveries, and whom it hands them to.
#[derive(Clone)]
pub struct OpenHook {
    pub hook: Arc<Hook>,
    pub publisher: Publisher,
    pub health: Health,
}

impl Hooks {
    pub fn find(&self, name: &str) -> Found {
        match self.entries().get(name) {
            None => Found::Nothing,
            Some(Entry { open: None, .. }) => Found::Closed,
            Some(Entry { hook, open: Some((publisher, health)) }) => Found::Open(OpenHook {
                hook: Arc::clone(hook),
                publisher: publisher.clone(),
                health: health.clone(),
            }),
        }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the entry of a hook, unless a reload has put another in its place.
    fn change(&self, hook: &Arc<Hook>, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries().get_mut(&hook.name).filter(|entry| Arc::ptr_eq(&entry.hook, hook))
        {
            change(entry);
        }
    }
}

/// A `webhook` or `git` source, from the supervisor's side. Dropping it takes its name away.
pub struct HookSource {
    hook: Arc<Hook>,
    hooks: Hooks,
}

impl HookSource {
    /// Puts a hook in place, closed.
    pub fn new(hook: impl Into<Arc<Hook>>, hooks: &Hooks) -> Self {
        let hook = hook.into();
        let entry = Entry { hook: Arc::clone(&hook), open: None };
        hooks.entries().insert(hook.name.clone(), entry);
        Self { hook, hooks: hooks.clone() }
    }
}

impl Source for HookSource {
    fn run(&self, mut context: Context) -> Pin<Box<dyn Future<Output = Result<(), Down>> + Send + '_>> {
        Box::pin(async move {
            let open = (context.publisher.clone(), context.health.clone());
            self.hooks.change(&self.hook, |entry| entry.open = Some(open));
            let _closes = Closes(self);
            context.health.tell(Report::Up);
            context.stop.requested().await;
            Ok(())
        })
    }
}

/// Closes the hook also when the supervisor drops the run instead of stopping it.
struct Closes<'s>(&'s HookSource);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.hooks.change(&self.0.hook, |entry| entry.open = None);
    }
}

impl Drop for HookSource {
    fn drop(&mut self) {
        let mut entries = self.hooks.entries();
        if entries.get(&self.hook.name).is_some_and(|entry| Arc::ptr_eq(&entry.hook, &self.hook)) {
            entries.remove(&self.hook.name);
        }
    }
}
