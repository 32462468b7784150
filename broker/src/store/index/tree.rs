//! The one owner of sled. Whatever it does wrong, panics included, comes out as an [`IndexError`].
//!
//! One tree a segment, named after segment and store. Keys: `p` the position reached, and by block (four bytes, big
//! endian) `b` its [`Meta`], `i` ids, `t` and `s` with a hash the offsets of a type or source, `o` with a piece number
//! references to outcomes. Each value ends with a checksum over its tree's name, its key and itself, so that a value of
//! another place or time cannot pass as this one.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::super::fields::{put_number, take_number};
use super::super::format::SEGMENT_HEADER_BYTES;
use super::super::scan::FileWindow;
use super::super::segment::Segment;
use super::block::{Block, Meta};

const CACHE_BYTES: u64 = 8 << 20;
const CHECKSUM_BYTES: usize = 4;
const DEFAULT_TREE: &[u8] = b"__sled__default";
/// Read where a header is looked for: nothing else of the page is wanted.
const HEADER_READ_BYTES: usize = 4096;

/// Why the index has to be built anew.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("{0}")]
    Sled(#[from] sled::Error),
    #[error("panicked: {0}")]
    Panicked(String),
    #[error("{0}")]
    Inconsistent(&'static str),
}

impl IndexError {
    /// There is no room on the disk. A panic of the database over it says so in its text.
    pub fn is_full(&self) -> bool {
        let is_full_kind = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        match self {
            Self::Sled(sled::Error::Io(error)) if is_full_kind(error) => true,
            Self::Sled(_) | Self::Panicked(_) => {
                let text = self.to_string();
                ["StorageFull", "No space left", "QuotaExceeded", "quota exceeded"]
                    .iter()
                    .any(|sign| text.contains(sign))
            }
            Self::Inconsistent(_) => false,
        }
    }

    /// The directory is held by a process that is still ending: nothing is wrong with it.
    pub fn is_lock(&self) -> bool {
        matches!(self, Self::Sled(sled::Error::Io(error)) if error.to_string().contains("acquire lock"))
    }
}

/// How far a segment is indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    pub at: u64,
    /// The last frame before `at`: its number (0 when there is none), where it begins, and its header's checksum, by which
    /// an index of another log, or of a later one than was restored, is told.
    pub frame: u64,
    pub frame_at: u64,
    pub frame_checksum: u32,
    pub next_offset: u64,
    pub blocks: u32,
    /// Nothing will follow in this segment.
    pub is_done: bool,
}

impl Reached {
    pub fn start(segment: &Segment) -> Self {
        let next_offset = segment.header.first_offset.0;
        Self {
            at: SEGMENT_HEADER_BYTES,
            frame: 0,
            frame_at: 0,
            frame_checksum: 0,
            next_offset,
            blocks: 0,
            is_done: false,
        }
    }

    /// All events of the segment below this offset are indexed; those that damage took are not missing.
    pub fn events_until(self) -> u64 {
        if self.is_done { u64::MAX } else { self.next_offset }
    }

    /// Whether the segment holds what was indexed up to here.
    fn is_of(&self, segment: &Segment) -> io::Result<bool> {
        if self.frame == 0 {
            return Ok(true);
        }
        if self.at > segment.extent().end {
            return Ok(false);
        }
        let header = FileWindow::sized(segment, HEADER_READ_BYTES).header(self.frame_at)?;
        Ok(header.is_some_and(|header| header.frame == self.frame && header.checksum == self.frame_checksum))
    }

    fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [
            self.at,
            self.frame,
            self.frame_at,
            u64::from(self.frame_checksum),
            self.next_offset,
            u64::from(self.blocks),
            u64::from(self.is_done),
        ] {
            put_number(&mut bytes, number);
        }
        bytes
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        Some(Self {
            at: take_number(bytes)?,
            frame: take_number(bytes)?,
            frame_at: take_number(bytes)?,
            frame_checksum: u32::try_from(take_number(bytes)?).ok()?,
            next_offset: take_number(bytes)?,
            blocks: u32::try_from(take_number(bytes)?).ok()?,
            is_done: take_number(bytes)? == 1,
        })
    }
}

/// The open database and how far each segment is in it.
pub struct Trees {
    db: sled::Db,
    segments: RwLock<HashMap<u64, (sled::Tree, Reached)>>,
}

impl Trees {
    /// Opens the database; trees of segments that are gone, or that say more than the log holds, are dropped.
    pub fn open(dir: &Path, segments: &[Arc<Segment>]) -> Result<Self, IndexError> {
        guarded(|| {
            // Low space: the index is small and written once. No flusher: its periodic syncs would compete with the
            // log's, and a lost tail is only indexed again; what is complete is flushed at a segment's end.
            let config = sled::Config::new()
                .path(dir)
                .cache_capacity(CACHE_BYTES)
                .mode(sled::Mode::LowSpace)
                .flush_every_ms(None);
            let trees = Self { db: config.open()?, segments: RwLock::default() };
            let live: Vec<String> = segments.iter().map(|segment| name(segment)).collect();
            for known in trees.db.tree_names() {
                let is_live = live.iter().any(|name| known == name.as_bytes());
                if !is_live && known != DEFAULT_TREE {
                    trees.db.drop_tree(&known)?;
                }
            }
            for (at, segment) in segments.iter().enumerate() {
                trees.load(segment, segments.get(at + 1))?;
            }
            Ok(trees)
        })
    }

    fn load(&self, segment: &Segment, next: Option<&Arc<Segment>>) -> Result<(), IndexError> {
        let name = name(segment);
        if !self.db.tree_names().iter().any(|known| *known == name.as_bytes()) {
            return Ok(());
        }
        let tree = self.db.open_tree(&name)?;
        let reached = get(&tree, b"p")?.and_then(|bytes| Reached::decode(&bytes));
        let mut reached = reached.ok_or(IndexError::Inconsistent("a segment without a position"))?;
        // Unless the next segment goes on with the next frame there may be more behind, if only damage.
        reached.is_done &= next.is_some_and(|next| next.header.first_frame <= reached.frame + 1);
        let is_of = reached.is_of(segment).unwrap_or_else(|error| {
            tracing::warn!(%error, "the event index cannot read the log here and does without");
            false
        });
        if !is_of {
            self.db.drop_tree(&name)?;
            return Ok(());
        }
        let (mut at, mut end) = (SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES);
        for block in &metas(&tree, reached)? {
            // Blocks cut from one frame share its place; otherwise each begins behind the one before, damage aside.
            if block.at < end && block.at != at || block.end < block.at {
                return Err(IndexError::Inconsistent("blocks overlap"));
            }
            (at, end) = (block.at, block.end);
        }
        if end > reached.at {
            return Err(IndexError::Inconsistent("a block is behind the position"));
        }
        self.write_segments().insert(segment.number(), (tree, reached));
        Ok(())
    }

    pub fn reached(&self, segment: u64) -> Option<Reached> {
        self.read_segments().get(&segment).map(|(_, reached)| *reached)
    }

    /// Drops the trees of segments that are not in the log any more.
    pub fn retain(&self, segments: &[Arc<Segment>]) -> Result<(), IndexError> {
        let is_gone = |number: &u64| !segments.iter().any(|segment| segment.number() == *number);
        let gone: Vec<u64> = self.read_segments().keys().copied().filter(is_gone).collect();
        for number in gone {
            // Whoever looks something up in a segment leases it, so nobody asks for this tree any more.
            let Some((tree, _)) = self.write_segments().remove(&number) else { continue };
            guarded(|| Ok(self.db.drop_tree(tree.name()).map(drop)?))?;
        }
        Ok(())
    }

    /// Adds blocks and the position behind them, all or nothing.
    pub fn write(&self, segment: &Segment, blocks: &[Block], mut reached: Reached) -> Result<(), IndexError> {
        guarded(|| {
            let mut batch = Batch { tree: name(segment), batch: sled::Batch::default() };
            for block in blocks {
                let number = reached.blocks;
                reached.blocks += 1;
                batch.insert(key(b'b', number, None), &block.meta.encode());
                batch.insert(key(b'i', number, None), &block.ids);
                for (kind, lists) in [(b't', &block.types), (b's', &block.sources)] {
                    for (hash, bytes) in lists {
                        batch.insert(key(kind, number, Some(*hash)), bytes);
                    }
                }
                for (piece, bytes) in (0..).zip(&block.references) {
                    batch.insert(key(b'o', number, Some(piece)), bytes);
                }
            }
            batch.insert(b"p".to_vec(), &reached.encode());
            let tree = self.db.open_tree(&batch.tree)?;
            tree.apply_batch(batch.batch)?;
            if reached.is_done {
                self.db.flush()?;
            }
            self.write_segments().insert(segment.number(), (tree, reached));
            Ok(())
        })
    }

    pub fn flush(&self) -> Result<(), IndexError> {
        guarded(|| Ok(self.db.flush().map(drop)?))
    }

    /// The blocks of a segment and how far they go; `None` when nothing of it is indexed.
    pub fn blocks(&self, segment: u64) -> Result<Option<(Reached, Vec<Meta>)>, IndexError> {
        let segments = self.read_segments();
        let Some((tree, reached)) = segments.get(&segment) else { return Ok(None) };
        guarded(|| Ok(Some((*reached, metas(tree, *reached)?))))
    }

    /// A value that the meta of a segment's block has announced.
    pub fn value(
        &self,
        segment: u64,
        kind: u8,
        block: usize,
        part: Option<u32>,
    ) -> Result<sled::IVec, IndexError> {
        let missing = || IndexError::Inconsistent("a value is missing");
        let segments = self.read_segments();
        let (tree, _) = segments.get(&segment).ok_or_else(missing)?;
        guarded(|| get(tree, &key(kind, block as u32, part))?.ok_or_else(missing))
    }

    #[cfg(test)]
    pub fn names(&self) -> usize {
        self.db.tree_names().len() - 1
    }

    fn read_segments(&self) -> RwLockReadGuard<'_, HashMap<u64, (sled::Tree, Reached)>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_segments(&self) -> RwLockWriteGuard<'_, HashMap<u64, (sled::Tree, Reached)>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn metas(tree: &sled::Tree, reached: Reached) -> Result<Vec<Meta>, IndexError> {
    let mut metas = Vec::with_capacity(reached.blocks as usize);
    for entry in tree.range(key(b'b', 0, None)..key(b'b', reached.blocks, None)) {
        let (key, value) = entry?;
        let meta = Meta::decode(&verified(&tree.name(), &key, &value)?);
        metas.push(meta.ok_or(IndexError::Inconsistent("a block cannot be read"))?);
    }
    if metas.len() != reached.blocks as usize {
        return Err(IndexError::Inconsistent("a block is missing"));
    }
    Ok(metas)
}

/// Values on their way into a tree, all or nothing.
struct Batch {
    tree: String,
    batch: sled::Batch,
}

impl Batch {
    fn insert(&mut self, key: Vec<u8>, value: &[u8]) {
        let mut bytes = Vec::with_capacity(value.len() + CHECKSUM_BYTES);
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(&checksum(self.tree.as_bytes(), &key, value).to_le_bytes());
        self.batch.insert(key, bytes);
    }
}

fn checksum(tree: &[u8], key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(tree), key), value)
}

/// What of a value was put in, if it belongs to this tree and key.
fn verified(tree: &[u8], key: &[u8], value: &sled::IVec) -> Result<sled::IVec, IndexError> {
    let body = value.len().checked_sub(CHECKSUM_BYTES).filter(|body| {
        let (content, sum) = value.split_at(*body);
        sum == checksum(tree, key, content).to_le_bytes()
    });
    Ok(value.subslice(0, body.ok_or(IndexError::Inconsistent("a value is not what was written"))?))
}

fn get(tree: &sled::Tree, key: &[u8]) -> Result<Option<sled::IVec>, IndexError> {
    tree.get(key)?.map(|value| verified(&tree.name(), key, &value)).transpose()
}

fn name(segment: &Segment) -> String {
    format!("{:012}-{:032x}", segment.number(), segment.header.store)
}

fn key(kind: u8, block: u32, part: Option<u32>) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&block.to_be_bytes());
    part.into_iter().for_each(|part| key.extend_from_slice(&part.to_be_bytes()));
    key
}

/// sled 0.34 panics on damage that it did not expect. A panic of ours in here is survived the same way.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(IndexError::Panicked(text.to_owned()))
    })
}
