//! Snapshots: the state at an exact record, in files of their own. The two newest are kept.
//!
//! ```text
//! "SLUICESN" | version u32 | crc32c u32 of all that follows | head length u64 | head (JSON)
//! | state length u64 | state | window
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::format::SEGMENT_HEADER_BYTES;
use super::open::Identity;
use super::record::{Gap, LogRecord};
use super::scan::{self, Damage, Found, Position};
use super::segment::{Layout, Segment, number_of};
use super::state::{State, TriggerState};
use super::stream::{Input, Output, invalid};
use super::window::{Window, WindowSize};
use super::{Offset, TriggerId, record};

const MAGIC: &[u8; 8] = b"SLUICESN";
/// Version 1 counted the times of slots in another way.
const VERSION: u32 = 2;
/// Where what the checksum covers begins.
const START: u64 = 16;
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
        let ending = scan::scan_until(segments, from, until, next, &mut |found| {
            if failed.is_none() {
                failed = self.fold(found, capacity).err();
            }
            Ok(())
        })?;
        failed.map_or(Ok(()), Err)?;
        // The gap itself may stand further on.
        let is_new = |part: &&Damage| {
            let segment = segments.iter().find(|segment| segment.number() == part.segment);
            segment.is_some_and(|segment| !segment.has_given_up(&(part.start..part.end)))
        };
        let Some(Damage { file, start, end, .. }) = ending.damage.iter().find(is_new) else { return Ok(()) };
        Err(invalid(format!("no snapshot is taken: {file} cannot be read from byte {start} to {end}")))
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
        let start = Position::start_of(first);
        // Up to where the matches of each are known, and which triggers know no more of theirs.
        let mut read_to: BTreeMap<TriggerId, Offset> = behind.iter().copied().collect();
        let mut unread: BTreeSet<TriggerId> = BTreeSet::new();
        let mut last = start;
        scan::scan(segments, start, first.header.first_offset, &mut |found| {
            if found.is_repeated || last.frame >= self.position.frame {
                return Ok(());
            }
            if found.header.frame > last.frame + 1 && !is_accepted(&self.state.gaps, last, found) {
                // Matches are recorded behind their events.
                for (id, from) in behind.iter().filter(|(_, from)| *from < found.header.first_offset) {
                    if unread.insert(*id) && !self.state.gaps.is_empty() {
                        // What was recorded in a gap is recorded anew behind the rest: any of it may be unread.
                        matches.remove(id);
                        read_to.insert(*id, *from);
                    }
                }
            }
            last = Position {
                segment: found.segment.number(),
                at: found.at + found.header.span(),
                frame: found.header.frame,
            };
            if last.frame > self.position.frame {
                return Ok(());
            }
            for raw in &found.records {
                let Ok(Some(LogRecord::Routed(routed))) = LogRecord::decode(raw, Offset(0)) else { continue };
                let concerned = behind
                    .iter()
                    .filter(|(id, _)| !unread.contains(id) && routed.only.is_none_or(|only| only == *id));
                for (id, from) in concerned {
                    if let Some(known) = read_to.get_mut(id) {
                        *known = routed.to.next().max(*known);
                    }
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
                let unread = read_to.get(&id).copied().filter(|_| unread.contains(&id));
                trigger.catch_up(&matches.remove(&id).unwrap_or_default(), room, &self.state.gaps, unread);
                room = room.saturating_sub(trigger.outstanding.len().saturating_sub(before));
            }
        }
        Ok(())
    }

    /// Writes all of it into an empty file, the checksum last.
    fn encode_into(&self, file: &dyn DiskFile) -> io::Result<()> {
        let size = self.window.as_ref().map(Window::size);
        let window = size.map(|size| (size.window_ms, size.entries));
        let head = serde_json::to_vec(&Head { position: self.position, window }).map_err(io::Error::other)?;
        let mut output = Output::new(file, START);
        output.put(&(head.len() as u64).to_le_bytes());
        output.put(&head);
        let mut state_bytes = 0;
        self.state.encode_into(&mut |bytes| state_bytes += bytes.len() as u64);
        output.put(&u64::to_le_bytes(state_bytes));
        self.state.encode_into(&mut |bytes| output.put(bytes));
        if let Some(window) = &self.window {
            window.encode_into(&mut |bytes| output.put(bytes));
        }
        let mut start = MAGIC.to_vec();
        start.extend_from_slice(&VERSION.to_le_bytes());
        start.extend_from_slice(&output.finish()?.to_le_bytes());
        file.write_at(&start, 0)
    }

    fn decode(file: &dyn DiskFile, size: Option<WindowSize>) -> io::Result<Self> {
        let mut input = Input::new(file, 0)?;
        let magic: [u8; 8] = input.array()?;
        let (version, checksum) = (input.u32()?, input.u32()?);
        if magic != *MAGIC || version == 0 || version > VERSION || input.checksum()? != checksum {
            return Err(invalid("not what was written"));
        }
        let mut input = Input::new(file, START)?;
        let head = input.count(1)?;
        let head: Head = serde_json::from_slice(input.take(head)?).map_err(invalid)?;
        input.count(1)?;
        let state = State::decode(&mut input, version)?;
        let window = match (size, head.window) {
            (None, _) => None,
            (Some(size), Some(_)) => Some(Window::decode(&mut input, size)?),
            (Some(size), None) => Some(Window::new(size)),
        };
        let held = state.outstanding();
        Ok(Self { position: head.position, state, window, held })
    }
}

/// Writes a snapshot and removes all but the newest ones.
pub fn write(disk: &dyn Disk, layout: &Layout, folded: &Folded) -> io::Result<()> {
    let dir = layout.snapshots();
    let path = dir.join(format!("{:020}.snap", folded.position.frame));
    let partial = dir.join("partial");
    let file = disk.create(&partial)?;
    folded.encode_into(&*file)?;
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
        return Ok(Some(Folded::start(identity.base_ms(), start, size)));
    };
    if first.first_frame > 1 && !keep_offsets {
        return Ok(None);
    }
    let start = Position {
        segment: first.segment,
        at: SEGMENT_HEADER_BYTES,
        frame: first.first_frame.saturating_sub(1),
    };
    let mut folded = Folded::start(identity.base_ms(), start, size);
    folded.state.next_offset = first.first_offset;
    Ok(Some(folded))
}

/// Whether gaps say that what is missing between a position and the next whole frame is lost.
fn is_accepted(gaps: &[Gap], from: Position, found: &Found<'_>) -> bool {
    let (mut place, until) = ((from.segment, from.at), (found.segment.number(), found.at));
    while place < until {
        let here = gaps.iter().filter(|gap| (gap.segment, gap.start) <= place && place.0 == gap.segment);
        let reached = here.map(|gap| gap.end).max().filter(|end| *end > place.1);
        let other = gaps.iter().any(|gap| place.0 < gap.segment && (gap.segment, gap.start) < until);
        match reached {
            Some(end) => place.1 = end,
            // What is missing reaches into another segment, or all of one is.
            None => return place.0 < until.0 && (place != (from.segment, from.at) || other),
        }
    }
    true
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
            Ok(folded) if folded.position.segment >= first => return Ok(Some(folded)),
            Ok(_) => tracing::warn!(snapshot = %name, "snapshot is too old, using the one before it"),
            Err(error) => {
                tracing::warn!(snapshot = %name, %error, "cannot read snapshot, using the one before it");
            }
        }
    }
    Ok(None)
}

/// The older of the kept snapshots: what comes before it is not needed to recover. None when it is not whole: then
/// nothing is retired until there is another.
pub fn older(disk: &dyn Disk, layout: &Layout, size: Option<WindowSize>) -> io::Result<Option<Folded>> {
    let kept = list(disk, layout)?;
    let Some((_, name)) = kept.get(KEPT - 1) else { return Ok(None) };
    let read = read(disk, layout, name, size);
    Ok(read.inspect_err(|error| tracing::warn!(snapshot = %name, %error, "cannot read snapshot")).ok())
}

fn read(disk: &dyn Disk, layout: &Layout, name: &str, size: Option<WindowSize>) -> io::Result<Folded> {
    Folded::decode(&*disk.open(&layout.snapshots().join(name))?, size)
}

/// Names of the snapshots that are not whole.
pub fn broken(disk: &dyn Disk, layout: &Layout) -> io::Result<Vec<String>> {
    let is_broken = |name: &String| read(disk, layout, name, None).is_err();
    Ok(list(disk, layout)?.into_iter().map(|(_, name)| name).filter(is_broken).collect())
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
