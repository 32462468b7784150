//! What is on the disk, and what of it would survive.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::{Fault, SECTOR};

#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) life: u64,
    pub(super) files: Vec<Inode>,
    pub(super) names: BTreeMap<PathBuf, usize>,
    pub(super) durable_names: BTreeMap<PathBuf, usize>,
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) pending: Vec<NameChange>,
    pub(super) fault: Option<(u64, Fault)>,
    pub(super) operations: u64,
    pub(super) trace: Vec<String>,
    pub(super) is_off: bool,
    pub(super) syncs_lie: bool,
    pub(super) capacity: Option<u64>,
    pub(super) locked: BTreeSet<(u64, PathBuf)>,
}

#[derive(Clone, Default)]
pub(super) struct Inode {
    pub(super) content: Vec<u8>,
    pub(super) synced: Vec<u8>,
    pub(super) dirty: BTreeSet<usize>,
}

#[derive(Clone)]
pub(super) enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

impl NameChange {
    pub(super) fn dir(&self) -> Option<&Path> {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(path, _, _) => path.parent(),
        }
    }

    pub(super) fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, file) => drop(names.insert(path, file)),
            Self::Unlink(path) => drop(names.remove(&path)),
            Self::Rename(from, to, file) => {
                if names.get(&from) == Some(&file) {
                    names.remove(&from);
                }
                names.insert(to, file);
            }
        }
    }
}

impl World {
    pub(super) fn used(&self) -> u64 {
        let files: BTreeSet<usize> = self.names.values().copied().collect();
        files.into_iter().map(|file| self.files[file].content.len() as u64).sum()
    }

    pub(super) fn make_room(&self, file: usize, length: usize) -> io::Result<()> {
        let more = length.saturating_sub(self.files[file].content.len()) as u64;
        if more > 0 && self.capacity.is_some_and(|capacity| self.used() + more > capacity) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    pub(super) fn name_changed(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.pending.push(change);
    }
}

impl Inode {
    pub(super) fn grow(&mut self, length: usize) {
        if self.content.len() < length {
            self.dirty.extend(self.content.len() / SECTOR..=(length - 1) / SECTOR);
            self.content.resize(length, 0);
        }
    }
}

pub(super) fn put(file: &mut Inode, bytes: &[u8], start: usize) {
    if bytes.is_empty() {
        return;
    }
    let end = start + bytes.len();
    file.grow(end);
    file.content[start..end].copy_from_slice(bytes);
    file.dirty.extend(start / SECTOR..=(end - 1) / SECTOR);
}
