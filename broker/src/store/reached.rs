//! How far the log is known to have gone: what tells an end that is missing from a log that ends there.
//!
//! A clean stop writes it down when its last frame is on disk, and every snapshot says it of the frames it covers. Once
//! true it stays true: frames leave the log at its beginning only. So it is never withdrawn, and an old one does no harm.

use std::io;

use super::Offset;
use super::disk::Disk;
use super::open::Identity;
use super::scan::Position;
use super::segment::Layout;
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
        other.filter(|other| other.position.frame > self.position.frame).unwrap_or(self)
    }

    /// What the last clean stop wrote; nothing when it is not whole or of another store.
    pub fn load(disk: &dyn Disk, layout: &Layout, identity: &Identity) -> io::Result<Option<Self>> {
        let file = match disk.open(&layout.reached_file()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; 4096];
        let read = file.read_at(&mut bytes, 0)?;
        let note = serde_json::from_slice::<Note>(&bytes[..read]).ok();
        let note = note.filter(|note| note.store == identity.id && note.checksum() == note.checksum);
        if note.is_none() {
            tracing::warn!(path = %layout.reached_file().display(), "not what a clean stop wrote, it is ignored");
        }
        Ok(note.map(|Note { position, next_offset, .. }| Self { position, next_offset }))
    }

    /// Writes it down; all before it is on disk.
    pub fn write(self, disk: &dyn Disk, layout: &Layout, store: u128) -> io::Result<()> {
        let Self { position, next_offset } = self;
        let mut note = Note { store: format!("{store:032x}"), position, next_offset, checksum: 0 };
        note.checksum = note.checksum();
        let partial = layout.dir.join("reached.partial");
        let file = disk.create(&partial)?;
        file.write_at(&serde_json::to_vec(&note).map_err(io::Error::other)?, 0)?;
        file.sync()?;
        disk.rename(&partial, &layout.reached_file())?;
        disk.sync_dir(&layout.dir)
    }
}
