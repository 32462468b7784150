//! How far the log is known to have gone: what tells an end that is missing from a log that ends there.
//!
//! A clean stop writes it down when its last frame is on disk, the keeper when a segment is begun, and every snapshot says it
//! of the frames it covers. Once true it stays true: frames leave the log at its beginning only, and a segment never before
//! those that were begun earlier. So it is never withdrawn, and an old one does no harm.

use std::io;
use std::path::Path;

use super::Offset;
use super::disk::Disk;
use super::open::Identity;
use super::scan::Position;
use super::segment::{Layout, Segment};
use super::snapshot::Folded;

/// The end of a frame that was on disk, and the offset of the next event then. The default is the start of any log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    pub position: Position,
    pub next_offset: Offset,
}

/// As it is in the file.
#[derive(serde::Serialize, serde::Deserialize)]
struct Note {
    store: String,
    position: Position,
    next_offset: Offset,
    /// Of all the rest.
    checksum: u32,
}

impl Note {
    fn checksum(&self) -> u32 {
        let Position { segment, at, frame } = self.position;
        let numbers = [segment, at, frame, self.next_offset.0];
        numbers.iter().fold(crc32c::crc32c(self.store.as_bytes()), |checksum, number| {
            crc32c::crc32c_append(checksum, &number.to_le_bytes())
        })
    }
}

impl Reached {
    /// What a snapshot knows, or the start that stands for none.
    pub fn of(folded: &Folded) -> Self {
        Self { position: folded.position, next_offset: folded.next_offset() }
    }

    /// The further one.
    pub fn or_further(self, other: Option<Self>) -> Self {
        let order = |reached: &Self| (reached.position.frame, reached.position.segment);
        other.filter(|other| order(other) > order(&self)).unwrap_or(self)
    }

    /// How far a segment is filled; all before is on disk.
    pub fn of_segment(segment: &Segment) -> Self {
        let extent = segment.extent();
        let frame = extent.last_frame.unwrap_or(segment.header.first_frame.saturating_sub(1));
        let position = Position { segment: segment.number(), at: extent.end, frame };
        Self { position, next_offset: extent.next_offset }
    }

    /// The further one of what was written down.
    pub fn load(disk: &dyn Disk, layout: &Layout, identity: &Identity) -> io::Result<Option<Self>> {
        let stopped = Self::read(disk, &layout.reached_file(), identity)?;
        let begun = Self::read(disk, &layout.begun_file(), identity)?;
        Ok(stopped.map(|stopped| stopped.or_further(begun)).or(begun))
    }

    /// Nothing when it is not whole, cannot be read or is of another store.
    fn read(disk: &dyn Disk, path: &Path, identity: &Identity) -> io::Result<Option<Self>> {
        let file = match disk.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; 4096];
        let read = match file.read_at(&mut bytes, 0) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what was written down cannot be read, it is ignored");
                return Ok(None);
            }
        };
        let note = serde_json::from_slice::<Note>(&bytes[..read]).ok();
        let note = note.filter(|note| note.store == identity.id && note.checksum() == note.checksum);
        if note.is_none() {
            tracing::warn!(path = %path.display(), "not what was written down, it is ignored");
        }
        Ok(note.map(|Note { position, next_offset, .. }| Self { position, next_offset }))
    }

    /// Writes down where a clean stop ends; all before it is on disk.
    pub fn write(self, disk: &dyn Disk, layout: &Layout, store: u128) -> io::Result<()> {
        self.write_to(disk, layout, &layout.reached_file(), store)
    }

    /// Writes down that a segment was begun. The keeper does, in a file of its own: the writer may stop at that moment.
    pub fn write_begun(self, disk: &dyn Disk, layout: &Layout, store: u128) -> io::Result<()> {
        self.write_to(disk, layout, &layout.begun_file(), store)
    }

    fn write_to(self, disk: &dyn Disk, layout: &Layout, path: &Path, store: u128) -> io::Result<()> {
        let Self { position, next_offset } = self;
        let mut note = Note { store: format!("{store:032x}"), position, next_offset, checksum: 0 };
        note.checksum = note.checksum();
        let partial = path.with_extension("partial");
        let file = disk.create(&partial)?;
        file.write_at(&serde_json::to_vec(&note).map_err(io::Error::other)?, 0)?;
        file.sync()?;
        disk.rename(&partial, path)?;
        disk.sync_dir(&layout.dir)
    }
}
