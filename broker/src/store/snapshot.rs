//! Snapshots: the state at an exact record, in files of their own. The two newest are kept.
//!
//! ```text
//! "SLUICESN" | version u32 | crc32c u32 of all that follows | head length u64 | head (JSON) | state | window
//! ```

use std::io;
use std::sync::Arc;

use super::disk::Disk;
use super::record::LogRecord;
use super::scan::{self, Found, Position};
use super::segment::{Layout, Segment, number_of};
use super::state::{State, TriggerState};
use super::window::{Window, WindowSize};
use super::{Offset, record};

const MAGIC: &[u8; 8] = b"SLUICESN";
const VERSION: u32 = 1;
const KEPT: usize = 2;

/// What is folded together, and up to where.
#[derive(Clone, Debug)]
pub struct Folded {
    pub position: Position,
    pub state: State,
    pub window: Option<Window>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Head {
    position: Position,
    state_bytes: usize,
    /// Of the window: its time in milliseconds and its entries; absent when duplicates are off.
    window: Option<(u64, usize)>,
}

impl Folded {
    /// Folds a frame in. `capacity` bounds what is held in memory for all triggers together.
    pub fn fold(&mut self, found: &Found<'_>, capacity: usize) -> io::Result<()> {
        let mut offset = found.header.first_offset;
        let total = self.state.outstanding();
        let held = std::cell::Cell::new(total);
        let room = |_: &TriggerState| {
            held.set(held.get() + 1);
            held.get() <= capacity
        };
        for raw in &found.records {
            if raw.kind == super::format::RecordType::Event as u8 {
                let invalid =
                    || io::Error::new(io::ErrorKind::InvalidData, "an event record without its key");
                let (key, received_ms) = record::event_key(raw.body).ok_or_else(invalid)?;
                self.state.events(offset, offset.next(), received_ms);
                if let Some(window) = &mut self.window {
                    window.insert(&key, offset, received_ms);
                }
                offset = offset.next();
            } else if let Some(record) = LogRecord::decode(raw, offset).map_err(io::Error::other)? {
                self.state.apply(&record, &room);
            }
        }
        self.position = Position {
            segment: found.segment.number(),
            at: found.at + found.header.span(),
            frame: found.header.frame,
        };
        Ok(())
    }

    /// Folds in all frames of these segments behind where this stands.
    pub fn catch_up(&mut self, segments: &[Arc<Segment>], capacity: usize) -> io::Result<()> {
        let (from, next) = (self.position, self.state.next_offset);
        let mut failed = None;
        scan::scan(segments, from, next, &mut |found| {
            if failed.is_none() {
                failed = self.fold(found, capacity).err();
            }
            Ok(())
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn encode(&self) -> Vec<u8> {
        let state = self.state.encode();
        let size = self.window.as_ref().map(Window::size);
        let window = size.map(|size| (size.window_ms, size.entries));
        let head = Head { position: self.position, state_bytes: state.len(), window };
        let head = serde_json::to_vec(&head).unwrap_or_default();
        let mut bytes = Vec::with_capacity(state.len() + head.len() + 64);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(head.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&state);
        if let Some(window) = &self.window {
            bytes.extend_from_slice(&window.encode());
        }
        let checksum = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], size: Option<WindowSize>) -> Option<Self> {
        let version = u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?);
        let checksum = u32::from_le_bytes(bytes.get(12..16)?.try_into().ok()?);
        if bytes[..8] != *MAGIC || version != VERSION || crc32c::crc32c(&bytes[16..]) != checksum {
            return None;
        }
        let head_bytes = u64::from_le_bytes(bytes.get(16..24)?.try_into().ok()?) as usize;
        let (head, rest) = bytes[24..].split_at_checked(head_bytes)?;
        let head: Head = serde_json::from_slice(head).ok()?;
        let (state, window) = rest.split_at_checked(head.state_bytes)?;
        let window = match (size, head.window) {
            (None, _) => None,
            (Some(size), Some(_)) => Some(Window::decode(window, size)?),
            (Some(size), None) => Some(Window::new(size)),
        };
        Some(Self { position: head.position, state: State::decode(state)?, window })
    }
}

/// Writes a snapshot and removes all but the newest ones.
pub fn write(disk: &dyn Disk, layout: &Layout, folded: &Folded) -> io::Result<()> {
    let dir = layout.snapshots();
    let path = dir.join(format!("{:020}.snap", folded.position.frame));
    let partial = dir.join("partial");
    let file = disk.create(&partial)?;
    file.write_at(&folded.encode(), 0)?;
    file.sync()?;
    disk.rename(&partial, &path)?;
    disk.sync_dir(&dir)?;
    for (_, name) in list(disk, layout)?.into_iter().skip(KEPT) {
        disk.remove(&dir.join(name))?;
    }
    Ok(())
}

/// The newest snapshot that is whole and that the log goes on from, and the frame of the older one that is kept.
pub fn newest(
    disk: &dyn Disk,
    layout: &Layout,
    size: Option<WindowSize>,
    first: u64,
) -> io::Result<Option<Folded>> {
    for (_, name) in list(disk, layout)? {
        match read(disk, layout, &name, size) {
            Ok(Some(folded)) if folded.position.segment >= first => return Ok(Some(folded)),
            Ok(_) => {
                tracing::warn!(snapshot = %name, "snapshot is not whole or too old, using the one before it");
            }
            Err(error) => {
                tracing::warn!(snapshot = %name, %error, "cannot read snapshot, using the one before it");
            }
        }
    }
    Ok(None)
}

/// Where the older of the kept snapshots stands: what comes before it is not needed to recover.
pub fn oldest_position(disk: &dyn Disk, layout: &Layout) -> io::Result<Option<Folded>> {
    let kept = list(disk, layout)?;
    match kept.get(KEPT - 1) {
        Some((_, name)) => read(disk, layout, name, None),
        None => Ok(None),
    }
}

fn read(
    disk: &dyn Disk,
    layout: &Layout,
    name: &str,
    size: Option<WindowSize>,
) -> io::Result<Option<Folded>> {
    let file = disk.open(&layout.snapshots().join(name))?;
    let mut bytes = vec![0; file.len()? as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Folded::decode(&bytes, size))
}

/// Names of snapshots, newest first.
fn list(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<(u64, String)>> {
    let names = disk.list(&layout.snapshots())?;
    let mut found: Vec<_> =
        names.into_iter().filter_map(|name| Some((number_of(&name, "snap")?, name))).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

impl Folded {
    pub fn start(base_ms: u64, first: Position, size: Option<WindowSize>) -> Self {
        Self { position: first, state: State::new(base_ms), window: size.map(Window::new) }
    }

    pub fn next_offset(&self) -> Offset {
        self.state.next_offset
    }
}
