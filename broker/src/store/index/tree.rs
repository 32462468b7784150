//! The one owner of sled. Whatever it does wrong, panics included, comes out as an [`IndexError`].
//!
//! One tree a segment, named after segment and store. Keys: `p` the position reached, and by block (four bytes, big
//! endian) `b` its [`Meta`], `i` ids, `t` and `s` with a hash the offsets of a type or source, `o` with a piece number
//! references to outcomes.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use super::super::fields::{put_number, take_number};
use super::super::format::SEGMENT_HEADER_BYTES;
use super::super::segment::Segment;
use super::block::{Block, Meta};

const CACHE_BYTES: u64 = 8 << 20;

/// Why the index has to be built anew.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("{0}")]
    Sled(#[from] sled::Error),
    #[error("sled panicked: {0}")]
    Panicked(String),
    #[error("{0}")]
    Inconsistent(&'static str),
    #[error("{0}")]
    Log(#[from] io::Error),
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
                text.contains("StorageFull") || text.contains("No space left")
            }
            Self::Inconsistent(_) | Self::Log(_) => false,
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
    /// The last frame before `at`; 0 when there is none.
    pub frame: u64,
    pub next_offset: u64,
    pub blocks: u32,
    /// Nothing will follow in this segment.
    pub is_done: bool,
}

impl Reached {
    pub fn start(segment: &Segment) -> Self {
        let next_offset = segment.header.first_offset.0;
        Self { at: SEGMENT_HEADER_BYTES, frame: 0, next_offset, blocks: 0, is_done: false }
    }

    fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [self.at, self.frame, self.next_offset, u64::from(self.blocks), u64::from(self.is_done)]
        {
            put_number(&mut bytes, number);
        }
        bytes
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        Some(Self {
            at: take_number(bytes)?,
            frame: take_number(bytes)?,
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
    pub fn open(dir: &Path, segments: &[std::sync::Arc<Segment>]) -> Result<Self, IndexError> {
        guarded(|| {
            // Low space: the index is small and written once. No flusher: its periodic syncs would compete with the
            // log's, and a lost tail is only indexed again; what is complete is flushed at a segment's end.
            let config = sled::Config::new()
                .path(dir)
                .cache_capacity(CACHE_BYTES)
                .mode(sled::Mode::LowSpace)
                .flush_every_ms(None);
            let trees = Self { db: config.open()?, segments: RwLock::default() };
            trees.retain(segments)?;
            for segment in segments {
                trees.load(segment)?;
            }
            Ok(trees)
        })
    }

    fn load(&self, segment: &Segment) -> Result<(), IndexError> {
        let name = name(segment);
        if !self.db.tree_names().iter().any(|known| *known == name.as_bytes()) {
            return Ok(());
        }
        let tree = self.db.open_tree(&name)?;
        let reached = tree.get(b"p")?.and_then(|bytes| Reached::decode(&bytes));
        let reached = reached.ok_or(IndexError::Inconsistent("a segment without a position"))?;
        let extent = segment.extent();
        if reached.at > extent.end || extent.last_frame.is_none_or(|last| last < reached.frame) {
            self.db.drop_tree(&name)?;
            return Ok(());
        }
        let blocks = metas(&tree, reached)?;
        let mut end = SEGMENT_HEADER_BYTES;
        let mut at = end;
        for block in &blocks {
            if block.at != end && block.at != at {
                return Err(IndexError::Inconsistent("a block is missing"));
            }
            (at, end) = (block.at, block.end);
        }
        self.write_segments().insert(segment.number(), (tree, reached));
        Ok(())
    }

    pub fn reached(&self, segment: u64) -> Option<Reached> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.get(&segment).map(|(_, reached)| *reached)
    }

    /// Drops the trees of segments that are not in the log any more.
    pub fn retain(&self, segments: &[std::sync::Arc<Segment>]) -> Result<(), IndexError> {
        guarded(|| {
            let live: Vec<String> = segments.iter().map(|segment| name(segment)).collect();
            for known in self.db.tree_names() {
                let is_live = live.iter().any(|name| known == name.as_bytes());
                if !is_live && known != b"__sled__default" {
                    self.db.drop_tree(&known)?;
                }
            }
            let is_known = |number: &u64| segments.iter().any(|segment| segment.number() == *number);
            self.write_segments().retain(|number, _| is_known(number));
            Ok(())
        })
    }

    /// Adds blocks and the position behind them, all or nothing.
    pub fn write(&self, segment: &Segment, blocks: &[Block], mut reached: Reached) -> Result<(), IndexError> {
        guarded(|| {
            let mut batch = sled::Batch::default();
            for block in blocks {
                let number = reached.blocks;
                reached.blocks += 1;
                batch.insert(key(b'b', number, None), block.meta.encode());
                batch.insert(key(b'i', number, None), &*block.ids);
                for (kind, lists) in [(b't', &block.types), (b's', &block.sources)] {
                    for (hash, bytes) in lists {
                        batch.insert(key(kind, number, Some(*hash)), &**bytes);
                    }
                }
                for (piece, bytes) in (0..).zip(&block.references) {
                    batch.insert(key(b'o', number, Some(piece)), &**bytes);
                }
            }
            batch.insert(b"p", reached.encode());
            let tree = self.db.open_tree(name(segment))?;
            tree.apply_batch(batch)?;
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

    /// What there is of a segment, to look things up in.
    pub fn segment(&self, number: u64) -> Option<Indexed> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.get(&number).map(|(tree, reached)| Indexed { tree: tree.clone(), reached: *reached })
    }

    #[cfg(test)]
    pub fn names(&self) -> usize {
        self.db.tree_names().len() - 1
    }

    fn write_segments(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<u64, (sled::Tree, Reached)>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The indexed part of a segment.
pub struct Indexed {
    tree: sled::Tree,
    pub reached: Reached,
}

impl Indexed {
    pub fn blocks(&self) -> Result<Vec<Meta>, IndexError> {
        guarded(|| metas(&self.tree, self.reached))
    }

    /// A value that the block's meta has announced.
    pub fn value(&self, kind: u8, block: usize, part: Option<u32>) -> Result<sled::IVec, IndexError> {
        guarded(|| {
            let value = self.tree.get(key(kind, block as u32, part))?;
            value.ok_or(IndexError::Inconsistent("a value is missing"))
        })
    }
}

fn metas(tree: &sled::Tree, reached: Reached) -> Result<Vec<Meta>, IndexError> {
    let mut metas = Vec::with_capacity(reached.blocks as usize);
    for entry in tree.range(key(b'b', 0, None)..key(b'b', reached.blocks, None)) {
        let meta = Meta::decode(&entry?.1).ok_or(IndexError::Inconsistent("a block cannot be read"))?;
        metas.push(meta);
    }
    if metas.len() != reached.blocks as usize {
        return Err(IndexError::Inconsistent("a block is missing"));
    }
    Ok(metas)
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

/// sled 0.34 panics on damage that it did not expect.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(IndexError::Panicked(text.to_owned()))
    })
}
