//! Dead letters that outlive their segments: what the log holds of them is copied here before it is retired.
//!
//! ```text
//! DIR/dead-letters/000000000001.letters
//!
//! file   ┌─────────────────────┬───────┬───────┬────
//!        │ "SLUICEDL" store id │ entry │ entry │ ...    entries begin at multiples of 32 bytes
//!        └─────────────────────┴───────┴───────┴────
//! entry  ┌──────────┬──────────┬──────┬─────────┬────────┬─────────┬────────┐
//!        │ checksum │ checksum │ kind │ trigger │ offset │ redrive │ length │ body
//!        │ of head  │ of body  │ u8   │ u32     │ u64    │ u32     │ u32    │
//!        └──────────┴──────────┴──────┴─────────┴────────┴─────────┴────────┘
//! ```
//!
//! Bodies are those of the log's records: an event, an attempt, a record that was put aside (its number stands for the
//! offset). The keeper appends and syncs before it retires a segment, so whatever a crash tears here is in the log
//! still, and is copied again: a copy may be there twice and counts once. A file goes when nothing in it is listed any
//! more. An entry that is damaged hides no other: the next one is found by its alignment.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile};
use super::format::{RawRecord, RecordType};
use super::record::{self, Aside, Attempted, LogRecord, Record};
use super::scan::{FileWindow, Position};
use super::segment::{Layout, Segment, number_of};
use super::{DeliveryId, Offset, State, TriggerId};

const MAGIC: &[u8; 8] = b"SLUICEDL";
const FILE_HEADER_BYTES: usize = 24;
const HEAD_BYTES: usize = 32;
const ALIGNMENT: u64 = 32;
/// Read at once while looking for heads.
const READ_BYTES: usize = 64 << 10;
/// A file that holds this much is followed by a new one: what is purged goes file by file.
const FILE_BYTES: u64 = 8 << 20;
/// Copied in one go: a segment may be nothing but dead letters.
const KEEP_BYTES: usize = 1 << 20;

/// What an entry is a copy of. Attempts are named by event, trigger and redrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Event(Offset),
    Attempt(Offset, TriggerId, u32),
    Aside(u64),
}

/// A copy to be made.
#[derive(Clone, Debug)]
pub struct Copy {
    pub key: Key,
    pub body: Vec<u8>,
}

/// What must not go with its segment: dead letters, those that are being delivered again, and what was put aside.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    offsets: Vec<Offset>,
    deliveries: Vec<DeliveryId>,
    asides: Vec<u64>,
}

impl Kept {
    pub fn of(state: &State) -> Self {
        let redriven = state.triggers.iter().flat_map(|(trigger, held)| {
            let id = |(offset, redrive): &(Offset, u32)| DeliveryId {
                trigger: *trigger,
                offset: *offset,
                redrive: *redrive,
            };
            held.redriven.keys().map(id)
        });
        let mut deliveries: Vec<_> = state.dead.keys().copied().chain(redriven).collect();
        deliveries.sort_unstable();
        let mut offsets: Vec<_> = deliveries.iter().map(|id| id.offset).collect();
        offsets.sort_unstable();
        offsets.dedup();
        Self { offsets, deliveries, asides: state.asides.iter().map(|(number, _)| number).collect() }
    }

    pub fn needs(&self, key: Key) -> bool {
        match key {
            Key::Event(offset) => self.offsets.binary_search(&offset).is_ok(),
            Key::Attempt(offset, trigger, redrive) => {
                self.deliveries.binary_search(&DeliveryId { trigger, offset, redrive }).is_ok()
            }
            Key::Aside(number) => self.asides.binary_search(&number).is_ok(),
        }
    }

    /// Hands on what a segment holds of it behind a position, about [`KEEP_BYTES`] at a time, and where the next of it
    /// begins. Of a frame that is damaged nothing can be copied; the log's gap says so.
    pub fn copies_from(
        &self,
        segment: &Segment,
        mut from: Position,
        keep: &mut dyn FnMut(&[Copy], Position) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut copies = Vec::new();
        if self.deliveries.is_empty() && self.asides.is_empty() {
            return Ok(());
        }
        let (mut window, extent) = (FileWindow::new(segment), segment.extent());
        while from.at < extent.end {
            let at = from.at;
            let header = match window.header(at) {
                Ok(Some(header)) => header,
                // Behind the last frame there is space that was never used, and need not be readable.
                Ok(None) | Err(_) if extent.last_frame.is_some_and(|last| from.frame >= last) => break,
                Ok(None) => {
                    let Some((next, _)) = window.next_header(at, from.frame)? else { break };
                    from.at = next;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut offset = header.first_offset;
            for raw in window.records(at, &header)?.unwrap_or_default() {
                self.copy(&raw, offset, &mut copies);
                if raw.kind == RecordType::Event as u8 {
                    offset = offset.next();
                }
            }
            from = Position { at: at + header.span(), frame: header.frame, ..from };
            if copies.iter().map(|copy: &Copy| copy.body.len()).sum::<usize>() >= KEEP_BYTES {
                keep(&copies, from)?;
                copies.clear();
            }
        }
        keep(&copies, Position { at: extent.end, ..from })
    }

    fn copy(&self, raw: &RawRecord<'_>, offset: Offset, copies: &mut Vec<Copy>) {
        let mut add = |key: Key, body: &dyn Fn() -> Vec<u8>| {
            if self.needs(key) {
                copies.push(Copy { key, body: body() });
            }
        };
        if raw.kind == RecordType::Event as u8 {
            add(Key::Event(offset), &|| raw.body.to_vec());
            return;
        }
        match LogRecord::decode(raw, offset) {
            Ok(Some(LogRecord::Outcomes(attempts))) => {
                for attempted in attempts {
                    let DeliveryId { trigger, offset, redrive } = attempted.id;
                    add(Key::Attempt(offset, trigger, redrive), &|| {
                        let mut body = Vec::new();
                        record::put_attempted(&mut body, &attempted);
                        body
                    });
                }
            }
            Ok(Some(LogRecord::Aside(aside))) => add(Key::Aside(aside.number), &|| raw.body.to_vec()),
            Ok(_) | Err(_) => {}
        }
    }
}

/// The files, read when something is first looked for.
pub struct Letters {
    disk: Arc<dyn Disk>,
    layout: Layout,
    store: u128,
    files: Mutex<Option<Files>>,
}

#[derive(Default)]
struct Files {
    open: BTreeMap<u64, LettersFile>,
    places: BTreeMap<Key, Vec<Place>>,
    /// Where something stands that is no entry, before one that is, or a file that is not this store's: file and byte.
    holes: Vec<(u64, u64)>,
    /// The number of the last file there is, whatever it holds: no new one may take its place.
    last: u64,
}

struct LettersFile {
    file: Arc<dyn DiskFile>,
    end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    file: u64,
    at: u64,
}

impl Letters {
    pub fn new(disk: Arc<dyn Disk>, layout: Layout, store: u128) -> Self {
        Self { disk, layout, store, files: Mutex::new(None) }
    }

    /// An event that a dead letter is of.
    pub fn event(&self, offset: Offset) -> io::Result<Option<Record>> {
        let bodies = self.read(Key::Event(offset))?;
        Ok(bodies.iter().find_map(|body| record::decode_event(body, offset)))
    }

    /// The attempts of a delivery that segments no longer hold, oldest first.
    pub fn attempts(&self, offset: Offset) -> io::Result<Vec<Attempted>> {
        let key = |number| Key::Attempt(offset, TriggerId(number), number);
        let mut guard = self.lock();
        let files = self.loaded(&mut guard)?;
        let keys: Vec<Key> = files.places.range(key(0)..=key(u32::MAX)).map(|(key, _)| *key).collect();
        let mut attempts: Vec<Attempted> = Vec::new();
        for key in keys {
            for body in files.read(key, self.store)? {
                let Some(attempted) = record::decode_attempted(&body) else { continue };
                if !attempts.contains(&attempted) {
                    attempts.push(attempted);
                }
            }
        }
        Ok(attempts)
    }

    pub fn aside(&self, number: u64) -> io::Result<Option<Aside>> {
        Ok(self.read(Key::Aside(number))?.iter().find_map(|body| Aside::take(body)))
    }

    /// Where files are damaged, as far as their heads tell: file and byte.
    pub fn holes(&self) -> io::Result<Vec<(u64, u64)>> {
        let mut guard = self.lock();
        Ok(self.loaded(&mut guard)?.holes.clone())
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> io::Result<u64> {
        let mut guard = self.lock();
        Ok(self.loaded(&mut guard)?.open.values().map(|file| file.end).sum())
    }

    /// Appends copies; they are on disk when this returns.
    pub fn keep(&self, copies: &[Copy]) -> io::Result<()> {
        if copies.is_empty() {
            return Ok(());
        }
        let mut guard = self.lock();
        let files = self.loaded(&mut guard)?;
        let number = match files.open.last_key_value() {
            Some((number, last)) if last.end < FILE_BYTES => *number,
            _ => {
                let number = files.last + 1;
                files.open.insert(number, self.begin(number)?);
                files.last = number;
                number
            }
        };
        let Some(last) = files.open.get_mut(&number) else { return Ok(()) };
        let (mut bytes, mut places) = (Vec::new(), Vec::with_capacity(copies.len()));
        for copy in copies {
            places.push((copy.key, Place { file: number, at: last.end + bytes.len() as u64 }));
            push_entry(&mut bytes, copy, number, self.store);
        }
        last.file.write_at(&bytes, last.end)?;
        last.file.sync()?;
        last.end += bytes.len() as u64;
        places.into_iter().for_each(|(key, place)| files.places.entry(key).or_default().push(place));
        Ok(())
    }

    /// Removes the files of which nothing is needed any more.
    pub fn sweep(&self, is_needed: &dyn Fn(Key) -> bool) -> io::Result<()> {
        let mut guard = self.lock();
        let files = self.loaded(&mut guard)?;
        let before = files.open.len();
        let mut needed: std::collections::BTreeSet<u64> = std::collections::BTreeSet::new();
        for (key, places) in &files.places {
            if is_needed(*key) {
                needed.extend(places.iter().map(|place| place.file));
            }
        }
        let unneeded: Vec<u64> =
            files.open.keys().copied().filter(|number| !needed.contains(number)).collect();
        for number in unneeded {
            self.disk.remove(&self.layout.letters_file(number))?;
            files.open.remove(&number);
        }
        if files.open.len() < before {
            self.disk.sync_dir(&self.layout.letters())?;
            let open = &files.open;
            files.places.retain(|_, places| {
                places.retain(|place| open.contains_key(&place.file));
                !places.is_empty()
            });
        }
        Ok(())
    }

    /// How many entries there are, and where some are not whole: file and byte.
    pub fn verify(&self) -> io::Result<(u64, Vec<(u64, u64)>)> {
        let mut guard = self.lock();
        let files = self.loaded(&mut guard)?;
        let (mut entries, mut broken) = (0, files.holes.clone());
        for (key, places) in &files.places {
            for place in places {
                entries += 1;
                // What cannot be read is as little whole as what reads wrongly.
                if !matches!(files.body(*key, *place, self.store), Ok(Some(_))) {
                    broken.push((place.file, place.at));
                }
            }
        }
        broken.sort_unstable();
        Ok((entries, broken))
    }

    fn read(&self, key: Key) -> io::Result<Vec<Vec<u8>>> {
        let mut guard = self.lock();
        self.loaded(&mut guard)?.read(key, self.store)
    }

    fn begin(&self, number: u64) -> io::Result<LettersFile> {
        self.disk.create_dir(&self.layout.letters())?;
        let file = self.disk.create(&self.layout.letters_file(number))?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&self.store.to_le_bytes());
        file.write_at(&header, 0)?;
        file.sync()?;
        self.disk.sync_dir(&self.layout.letters())?;
        Ok(LettersFile { file, end: ALIGNMENT })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Files>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loaded<'g>(&self, guard: &'g mut MutexGuard<'_, Option<Files>>) -> io::Result<&'g mut Files> {
        if guard.is_none() {
            **guard = Some(self.load()?);
        }
        guard.as_mut().ok_or_else(|| io::Error::other("the dead letters could not be loaded"))
    }

    /// Reads the heads of all entries. What a crash tore is in the log still; the next copy goes over it.
    fn load(&self) -> io::Result<Files> {
        let mut files = Files::default();
        let names = self.disk.list(&self.layout.letters())?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name, "letters")).collect();
        numbers.sort_unstable();
        for number in numbers {
            files.last = number;
            let file = self.disk.open(&self.layout.letters_file(number))?;
            let mut header = [0; FILE_HEADER_BYTES];
            let read = file.read_at(&mut header, 0)?;
            if header[..8] != *MAGIC || header[8..] != self.store.to_le_bytes() {
                // A crash while a file was begun leaves nothing in it, and that is nobody's loss.
                if header[..read].iter().any(|byte| *byte != 0) {
                    tracing::warn!(
                        file = number,
                        "a file of dead letters is not this store's and is left alone"
                    );
                    files.holes.push((number, 0));
                }
                continue;
            }
            let end = self.load_heads(&*file, number, &mut files)?;
            files.open.insert(number, LettersFile { file, end });
        }
        Ok(files)
    }

    /// Notes where entries are; returns the end of the last one that is whole.
    fn load_heads(&self, file: &dyn DiskFile, number: u64, files: &mut Files) -> io::Result<u64> {
        let length = file.len()?;
        let (mut end, mut at) = (ALIGNMENT, ALIGNMENT);
        let (mut window, mut start) = (Vec::new(), 0);
        while at + HEAD_BYTES as u64 <= length {
            if at < start || at + HEAD_BYTES as u64 > start + window.len() as u64 {
                window.resize(READ_BYTES, 0);
                let read = file.read_at(&mut window, at)?;
                window.truncate(read);
                start = at;
            }
            let from = (at - start) as usize;
            let Some(head) = window.get(from..from + HEAD_BYTES) else { break };
            match decode_head(head, number, self.store) {
                Some((key, body_bytes)) if at + (HEAD_BYTES + body_bytes) as u64 <= length => {
                    if at > end {
                        files.holes.push((number, end));
                    }
                    files.places.entry(key).or_default().push(Place { file: number, at });
                    at = (at + (HEAD_BYTES + body_bytes) as u64).next_multiple_of(ALIGNMENT);
                    end = at;
                }
                _ => at += ALIGNMENT,
            }
        }
        Ok(end)
    }
}

impl Files {
    /// The bodies of a key's entries, those that are whole.
    fn read(&self, key: Key, store: u128) -> io::Result<Vec<Vec<u8>>> {
        let places = self.places.get(&key).into_iter().flatten();
        places.filter_map(|place| self.body(key, *place, store).transpose()).collect()
    }

    fn body(&self, key: Key, place: Place, store: u128) -> io::Result<Option<Vec<u8>>> {
        let Some(LettersFile { file, .. }) = self.open.get(&place.file) else { return Ok(None) };
        let mut head = [0; HEAD_BYTES];
        file.read_at(&mut head, place.at)?;
        let Some((found, length)) = decode_head(&head, place.file, store) else { return Ok(None) };
        let mut body = vec![0; length];
        let read = file.read_at(&mut body, place.at + HEAD_BYTES as u64)?;
        let whole = found == key && read == length && crc32c::crc32c(&body).to_le_bytes() == head[4..8];
        Ok(whole.then_some(body))
    }
}

/// Seeded with file and store, so that bytes of another file do not pass.
fn head_checksum(head: &[u8], file: u64, store: u128) -> [u8; 4] {
    crc32c::crc32c_append(file as u32 ^ store as u32, head).to_le_bytes()
}

fn push_entry(bytes: &mut Vec<u8>, copy: &Copy, file: u64, store: u128) {
    let (kind, trigger, offset, redrive) = match copy.key {
        Key::Event(offset) => (1, 0, offset.0, 0),
        Key::Attempt(offset, trigger, redrive) => (2, trigger.0, offset.0, redrive),
        Key::Aside(number) => (3, 0, number, 0),
    };
    let mut head = crc32c::crc32c(&copy.body).to_le_bytes().to_vec();
    head.push(kind);
    head.extend_from_slice(&u32::to_le_bytes(trigger));
    head.extend_from_slice(&u64::to_le_bytes(offset));
    head.extend_from_slice(&u32::to_le_bytes(redrive));
    head.extend_from_slice(&(copy.body.len() as u32).to_le_bytes());
    head.resize(HEAD_BYTES - 4, 0);
    bytes.extend_from_slice(&head_checksum(&head, file, store));
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&copy.body);
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
}

/// The key of an entry and the length of its body.
fn decode_head(head: &[u8], file: u64, store: u128) -> Option<(Key, usize)> {
    if head.len() < HEAD_BYTES || head_checksum(&head[4..], file, store) != head[..4] {
        return None;
    }
    let u32_at = |at: usize| head[at..at + 4].try_into().map(u32::from_le_bytes).ok();
    let offset = Offset(head[13..21].try_into().map(u64::from_le_bytes).ok()?);
    let key = match head[8] {
        1 => Key::Event(offset),
        2 => Key::Attempt(offset, TriggerId(u32_at(9)?), u32_at(21)?),
        3 => Key::Aside(offset.0),
        _ => return None,
    };
    Some((key, u32_at(25)? as usize))
}
