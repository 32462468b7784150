//! Snapshots: the state at an exact record, in files of their own. The two newest are kept.
//!
//! ```text
//! "SLUICESN" | version u32 | crc32c u32 of all that follows | head length u64 | head (JSON) | state | window
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, BufWriter, ErrorKind, IntoInnerError, Read, Write};
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::format::SEGMENT_HEADER_BYTES;
use super::open::Identity;
use super::record::LogRecord;
use super::scan::{self, Found, Position};
use super::segment::{Layout, Segment, number_of};
use super::state::{State, TriggerState};
use super::window::{Window, WindowSize};
use super::{Offset, TriggerId, record};

const MAGIC: &[u8; 8] = b"SLUICESN";
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 16;
const PIECE_BYTES: usize = 128 << 10;
const KEPT: usize = 2;

/// What is folded together, and up to where.
#[derive(Clone, Debug)]
pub struct Folded {
    pub position: Position,
    pub state: State,
    pub window: Option<Window>,
    /// Deliveries held in memory, settled ones not taken off before it matters.
    held: usize,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Head {
    position: Position,
    /// Of the window: its time in milliseconds and its entries; absent when duplicates are off.
    window: Option<(u64, usize)>,
}

impl Folded {
    /// Folds a frame in. `capacity` bounds what is held in memory for all triggers together.
    pub fn fold(&mut self, found: &Found<'_>, capacity: usize) -> io::Result<()> {
        if found.is_repeated {
            return Ok(());
        }
        let mut offset = found.header.first_offset;
        if self.held >= capacity {
            self.held = self.state.outstanding();
        }
        let held = std::cell::Cell::new(self.held);
        let room = |_: &TriggerState| {
            let is_free = held.get() < capacity;
            held.set(held.get() + usize::from(is_free));
            is_free
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
        self.held = held.get();
        self.position = Position {
            segment: found.segment.number(),
            at: found.at + found.header.span(),
            frame: found.header.frame,
        };
        Ok(())
    }

    /// Folds in the frames of these segments behind where this stands, up to frame `until`.
    pub fn catch_up(&mut self, segments: &[Arc<Segment>], until: u64, capacity: usize) -> io::Result<()> {
        let (from, next) = (self.position, self.state.next_offset);
        let mut failed = None;
        scan::scan(segments, from, next, &mut |found| {
            if failed.is_none() && found.header.frame <= until {
                failed = self.fold(found, capacity).err();
            }
            Ok(())
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Takes up what triggers are behind with, as far as there is room. Only what is folded in is looked at.
    pub fn take_up(&mut self, segments: &[Arc<Segment>], capacity: usize) -> io::Result<()> {
        let behind: Vec<_> =
            self.state.triggers.iter().filter_map(|(id, trigger)| Some((*id, trigger.behind?))).collect();
        let Some(oldest) = behind.iter().map(|(_, offset)| *offset).min() else { return Ok(()) };
        let Some(first) = segments.iter().find(|segment| segment.extent().next_offset > oldest) else {
            return Ok(());
        };
        // No more than may be needed: those there is room for, those settled already, and the first that stays behind.
        let mut room = capacity.saturating_sub(self.state.outstanding()).min(usize::MAX >> 1);
        let mut matches: BTreeMap<TriggerId, BTreeSet<Offset>> = BTreeMap::new();
        let start = Position {
            segment: first.number(),
            at: SEGMENT_HEADER_BYTES,
            frame: first.header.first_frame.saturating_sub(1),
        };
        scan::scan(segments, start, first.header.first_offset, &mut |found| {
            if found.is_repeated || found.header.frame > self.position.frame {
                return Ok(());
            }
            for raw in &found.records {
                let Ok(Some(LogRecord::Routed(routed))) = LogRecord::decode(raw, Offset(0)) else { continue };
                for (id, from) in &behind {
                    let from = self.state.triggers.get(id).map_or(*from, |trigger| trigger.birth.max(*from));
                    let matched = routed.matches.iter().filter(|(at, ids)| *at >= from && ids.contains(id));
                    let matches = matches.entry(*id).or_default();
                    matches.extend(matched.map(|(offset, _)| *offset));
                    let ahead = self.state.triggers.get(id).map_or(0, |trigger| trigger.ahead.len());
                    while matches.len() > room + ahead + 1 {
                        matches.pop_last();
                    }
                }
            }
            Ok(())
        })?;
        for (id, _) in behind {
            if let Some(trigger) = self.state.triggers.get_mut(&id) {
                let before = trigger.outstanding.len();
                trigger.catch_up(&matches.remove(&id).unwrap_or_default(), room, &self.state.gaps);
                room = room.saturating_sub(trigger.outstanding.len().saturating_sub(before));
            }
        }
        Ok(())
    }

    fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let size = self.window.as_ref().map(Window::size);
        let window = size.map(|size| (size.window_ms, size.entries));
        let head = serde_json::to_vec(&Head { position: self.position, window })?;
        out.write_all(&(head.len() as u64).to_le_bytes())?;
        out.write_all(&head)?;
        self.state.write_to(out)?;
        self.window.as_ref().map_or(Ok(()), |window| window.write_to(out))
    }

    fn decode(input: &mut impl Read, size: Option<WindowSize>) -> io::Result<Self> {
        let mut head_bytes = [0; 8];
        input.read_exact(&mut head_bytes)?;
        let mut head = vec![0; u64::from_le_bytes(head_bytes) as usize];
        input.read_exact(&mut head)?;
        let head: Head = serde_json::from_slice(&head)?;
        let state = State::decode(input)?;
        let window = match (size, head.window) {
            (None, _) => None,
            (Some(size), Some(_)) => Some(Window::decode(input, size)?),
            (Some(size), None) => Some(Window::new(size)),
        };
        let held = state.outstanding();
        Ok(Self { position: head.position, state, window, held })
    }
}

/// The file of a snapshot, written or read piece by piece: a state may be a large part of the memory there is.
struct Pieces {
    file: Arc<dyn DiskFile>,
    at: u64,
    checksum: u32,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(bytes, self.at)?;
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Pieces {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.at)?;
        self.checksum = crc32c::crc32c_append(self.checksum, &bytes[..read]);
        self.at += read as u64;
        Ok(read)
    }
}

/// Writes a snapshot and removes all but the newest ones.
pub fn write(disk: &dyn Disk, layout: &Layout, folded: &Folded) -> io::Result<()> {
    let dir = layout.snapshots();
    let path = dir.join(format!("{:020}.snap", folded.position.frame));
    let partial = dir.join("partial");
    let file = disk.create(&partial)?;
    let body = Pieces { file: Arc::clone(&file), at: HEADER_BYTES as u64, checksum: 0 };
    let mut body = BufWriter::with_capacity(PIECE_BYTES, body);
    folded.write_to(&mut body)?;
    let checksum = body.into_inner().map_err(IntoInnerError::into_error)?.checksum;
    file.write_at(&header(checksum), 0)?;
    file.sync()?;
    disk.rename(&partial, &path)?;
    disk.sync_dir(&dir)?;
    for (_, name) in list(disk, layout)?.into_iter().skip(KEPT) {
        disk.remove(&dir.join(name))?;
    }
    Ok(())
}

/// What to fold the log onto: the newest snapshot that is whole and that the log goes on from, else nothing, if the log
/// is there from its beginning. `None` when it is not: what was retired cannot be folded again. `keep_offsets` then
/// begins at the first offset that is left, everything before it forgotten.
pub fn base(
    disk: &dyn Disk,
    layout: &Layout,
    size: Option<WindowSize>,
    segments: &[Arc<Segment>],
    identity: &Identity,
    keep_offsets: bool,
) -> io::Result<Option<Folded>> {
    let first = segments.first().map(|first| first.header);
    if let Some(folded) = newest(disk, layout, size, first.map_or(0, |first| first.segment))? {
        return Ok(Some(folded));
    }
    let Some(first) = first else {
        let start = Position { segment: 1, at: SEGMENT_HEADER_BYTES, frame: 0 };
        return Ok(Some(Folded::start(identity.created_at_ms, start, size)));
    };
    if first.first_frame > 1 && !keep_offsets {
        return Ok(None);
    }
    let start = Position {
        segment: first.segment,
        at: SEGMENT_HEADER_BYTES,
        frame: first.first_frame.saturating_sub(1),
    };
    let mut folded = Folded::start(identity.created_at_ms, start, size);
    folded.state.next_offset = first.first_offset;
    Ok(Some(folded))
}

/// The newest snapshot that is whole and not of a time before segment `first`.
fn newest(
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

/// A snapshot; `None` when it is not whole. It is read twice, since what it says holds only if its checksum does.
fn read(
    disk: &dyn Disk,
    layout: &Layout,
    name: &str,
    size: Option<WindowSize>,
) -> io::Result<Option<Folded>> {
    let file = disk.open(&layout.snapshots().join(name))?;
    let mut found = [0; HEADER_BYTES];
    let is_header = file.read_at(&mut found, 0)? == HEADER_BYTES;
    let body = || Pieces { file: Arc::clone(&file), at: HEADER_BYTES as u64, checksum: 0 };
    let (mut whole, mut piece) = (body(), vec![0; PIECE_BYTES]);
    while whole.read(&mut piece)? > 0 {}
    if !is_header || found != header(whole.checksum) {
        return Ok(None);
    }
    match Folded::decode(&mut BufReader::with_capacity(PIECE_BYTES, body()), size) {
        Ok(folded) => Ok(Some(folded)),
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) => Ok(None),
        Err(error) => Err(error),
    }
}

fn header(checksum: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..].copy_from_slice(&checksum.to_le_bytes());
    bytes
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
        Self { position: first, state: State::new(base_ms), window: size.map(Window::new), held: 0 }
    }

    pub fn next_offset(&self) -> Offset {
        self.state.next_offset
    }
}
