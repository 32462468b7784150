//! What a reload changes.

use std::collections::BTreeMap;

use crate::model::Config;

/// The difference between two configurations. Names are in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
    pub sources_added: Vec<String>,
    pub sources_changed: Vec<String>,
    pub sources_removed: Vec<String>,
    /// Sections that differ and need a restart: `http`, `admin`, `store`. A reload with one of these is refused as a whole.
    pub refused: Vec<&'static str>,
}

/// Compares the configuration in force with one that is to take its place.
pub fn changes(old: &Config, new: &Config) -> Changes {
    let (added, changed, removed) = differences(&old.triggers, &new.triggers);
    let (sources_added, sources_changed, sources_removed) = differences(&old.sources, &new.sources);
    let sections = [
        ("http", old.http != new.http),
        ("admin", old.admin != new.admin),
        ("store", old.store != new.store),
    ];
    let refused = sections.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
    Changes { added, changed, removed, sources_added, sources_changed, sources_removed, refused }
}

fn differences<T: PartialEq>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
) -> (Vec<String>, Vec<String>, Vec<String>) {
    let names = |names: Vec<&String>| names.into_iter().cloned().collect();
    let added = new.keys().filter(|name| !old.contains_key(*name)).collect();
    let differs = |(name, value): &(&String, &T)| old.get(*name).is_some_and(|before| before != *value);
    let changed = new.iter().filter(differs).map(|(name, _)| name).collect();
    let removed = old.keys().filter(|name| !new.contains_key(*name)).collect();
    (names(added), names(changed), names(removed))
}
