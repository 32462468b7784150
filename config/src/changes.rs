//! What a reload changes.

use crate::model::Config;

/// The difference between two configurations. Names are in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
    /// Sections that differ and need a restart: `http`, `admin`, `store`. A reload with one of these is refused as a whole.
    pub refused: Vec<&'static str>,
}

/// Compares the configuration in force with one that is to take its place.
pub fn changes(old: &Config, new: &Config) -> Changes {
    let mut changes = Changes::default();
    for (name, trigger) in &new.triggers {
        match old.triggers.get(name) {
            None => changes.added.push(name.clone()),
            Some(before) if before != trigger => changes.changed.push(name.clone()),
            Some(_) => {}
        }
    }
    changes.removed = old.triggers.keys().filter(|name| !new.triggers.contains_key(*name)).cloned().collect();
    let sections = [
        ("http", old.http != new.http),
        ("admin", old.admin != new.admin),
        ("store", old.store != new.store),
    ];
    changes.refused = sections.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
    changes
}
