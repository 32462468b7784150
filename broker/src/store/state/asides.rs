//! The records that sources put aside.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::delivery::Reason;
use crate::store::record::{Aside, Digest};
use crate::store::{Offset, digest};

/// A record that a source put aside, as the list of dead letters has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsideEntry {
    pub source: Arc<str>,
    pub at_ms: u64,
    /// Where in the log it is looked for.
    pub near: Offset,
    pub is_conflict: bool,
    /// Of the whole record; unknown for those of snapshots that did not have it.
    pub digest: Option<Digest>,
}

impl AsideEntry {
    pub fn reason(&self) -> Reason {
        if self.is_conflict { Reason::Conflict } else { Reason::Quarantine }
    }
}

/// Those that are listed, by number.
#[derive(Clone, Debug, Default)]
pub struct Asides {
    entries: BTreeMap<u64, AsideEntry>,
    by_digest: HashMap<Digest, u64>,
}

impl Asides {
    pub fn add(&mut self, aside: &Aside) {
        let entry = AsideEntry {
            source: Arc::clone(&aside.source),
            at_ms: aside.at_ms,
            near: aside.near,
            is_conflict: aside.aside.unfit.is_conflict,
            digest: Some(digest::aside(&aside.source, &aside.aside)),
        };
        self.insert(aside.number, entry);
    }

    pub fn insert(&mut self, number: u64, entry: AsideEntry) {
        if let Some(digest) = entry.digest {
            self.by_digest.insert(digest, number);
        }
        self.entries.insert(number, entry);
    }

    pub fn remove(&mut self, number: u64) {
        let gone = self.entries.remove(&number).and_then(|entry| entry.digest);
        if let Some(digest) = gone.filter(|digest| self.by_digest.get(digest) == Some(&number)) {
            self.by_digest.remove(&digest);
        }
    }

    /// Whether this very record is listed: its source came by it again, because it could not say any more that it was kept.
    pub fn has(&self, digest: &Digest) -> bool {
        self.by_digest.contains_key(digest)
    }

    pub fn get(&self, number: u64) -> Option<&AsideEntry> {
        self.entries.get(&number)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &AsideEntry)> {
        self.entries.iter().map(|(number, entry)| (*number, entry))
    }

    /// Those behind a number.
    pub fn after(&self, number: Option<u64>) -> impl Iterator<Item = (u64, &AsideEntry)> {
        let from = number.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range((from, Bound::Unbounded)).map(|(number, entry)| (*number, entry))
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }
}
