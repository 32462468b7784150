//! Reading around what a disk cannot read: a sector that fails must not hide its neighbours.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::disk::DiskFile;

/// Where reading fails it goes on in blocks of this, as a page cache does.
pub const BLOCK_BYTES: u64 = 4096;

/// Places of one file that could not be read.
#[derive(Debug, Default)]
pub struct Unreadable {
    pub places: Vec<Range<u64>>,
    /// Why the first of them could not.
    cause: Option<io::Error>,
}

impl Unreadable {
    fn note(&mut self, place: Range<u64>, cause: Option<io::Error>) {
        self.cause = self.cause.take().or(cause);
        let touches = |known: &&mut Range<u64>| known.start <= place.end && place.start <= known.end;
        match self.places.iter_mut().find(touches) {
            Some(known) => *known = known.start.min(place.start)..known.end.max(place.end),
            None => self.places.push(place),
        }
    }

    /// The first noted place that is among these bytes.
    pub fn among(&self, bytes: &Range<u64>) -> Option<&Range<u64>> {
        self.places.iter().find(|place| meet(place, bytes))
    }

    /// Fails, and says where, if any of these bytes could not be read.
    pub fn check(&self, path: &Path, bytes: Range<u64>) -> io::Result<()> {
        let Some(place) = self.among(&bytes) else { return Ok(()) };
        let name = path.file_name().unwrap_or_default().display();
        let (kind, cause) = match &self.cause {
            Some(cause) => (cause.kind(), cause.to_string()),
            None => (io::ErrorKind::UnexpectedEof, "it ends there".to_owned()),
        };
        Err(io::Error::new(kind, format!("{name} cannot be read at byte {}: {cause}", place.start)))
    }
}

pub fn meet(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Whether all of a place was accepted as lost.
pub fn is_given_up(given_up: &[Range<u64>], place: &Range<u64>) -> bool {
    given_up.iter().any(|lost| lost.start <= place.start && place.end <= lost.end)
}

/// Reads as [`DiskFile::read_at`] does. A block that cannot be read reads as zeros, which are no frame, and is noted unless
/// it is given up.
pub fn read_around(
    file: &dyn DiskFile,
    buf: &mut [u8],
    position: u64,
    given_up: &[Range<u64>],
    unreadable: &mut Unreadable,
) -> io::Result<usize> {
    if let Ok(read) = file.read_at(buf, position) {
        return Ok(read);
    }
    let left = usize::try_from(file.len()?.saturating_sub(position)).unwrap_or(usize::MAX);
    let length = left.min(buf.len());
    let mut done = 0;
    while done < length {
        let at = position + done as u64;
        let until = length.min(done + (BLOCK_BYTES - at % BLOCK_BYTES) as usize);
        let block = &mut buf[done..until];
        let read = file.read_at(block, at);
        if !read.as_ref().is_ok_and(|read| *read == block.len()) {
            block.fill(0);
            let place = at..at + block.len() as u64;
            if !is_given_up(given_up, &place) {
                unreadable.note(place, read.err());
            }
        }
        done = until;
    }
    Ok(length)
}
