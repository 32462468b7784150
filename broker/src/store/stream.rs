//! A file written or read from front to back in pieces, so that what is in memory is not there a second time as bytes.

use std::io;

use super::disk::DiskFile;

const PIECE_BYTES: usize = 256 << 10;

/// Bytes on their way into a file.
pub struct Output<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    piece: Vec<u8>,
    checksum: u32,
    failed: Option<io::Error>,
}

impl<'a> Output<'a> {
    /// Writes from a position on.
    pub fn new(file: &'a dyn DiskFile, at: u64) -> Self {
        Self { file, at, piece: Vec::with_capacity(PIECE_BYTES), checksum: 0, failed: None }
    }

    /// An error is kept for the end: who has many small things to put need not look each time.
    pub fn put(&mut self, bytes: &[u8]) {
        if self.piece.len() + bytes.len() > PIECE_BYTES {
            self.flush();
        }
        self.piece.extend_from_slice(bytes);
    }

    /// The checksum of all that was put; it is in the file, not synced.
    pub fn finish(mut self) -> io::Result<u32> {
        self.flush();
        self.failed.map_or(Ok(self.checksum), Err)
    }

    fn flush(&mut self) {
        self.checksum = crc32c::crc32c_append(self.checksum, &self.piece);
        if self.failed.is_none() {
            self.failed = self.file.write_at(&self.piece, self.at).err();
        }
        self.at += self.piece.len() as u64;
        self.piece.clear();
    }
}

/// Bytes on their way out of a file.
pub struct Input<'a> {
    file: &'a dyn DiskFile,
    /// Where the next piece begins, and where all ends.
    at: u64,
    end: u64,
    piece: Vec<u8>,
    taken: usize,
}

impl<'a> Input<'a> {
    /// Reads from a position to the end of the file.
    pub fn new(file: &'a dyn DiskFile, at: u64) -> io::Result<Self> {
        Ok(Self { file, at, end: file.len()?, piece: Vec::new(), taken: 0 })
    }

    /// The next so many bytes.
    pub fn take(&mut self, count: usize) -> io::Result<&[u8]> {
        let have = self.piece.len() - self.taken;
        if have < count {
            let missing = count - have;
            let left = self.end.saturating_sub(self.at);
            if missing as u64 > left {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.piece.drain(..self.taken);
            self.taken = 0;
            let more = missing.max(PIECE_BYTES).min(usize::try_from(left).unwrap_or(usize::MAX));
            self.piece.resize(have + more, 0);
            if self.file.read_at(&mut self.piece[have..], self.at)? < more {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.at += more as u64;
        }
        self.taken += count;
        Ok(&self.piece[self.taken - count..self.taken])
    }

    pub fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    pub fn u32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of things that take so many bytes each at least: what is left must hold them.
    pub fn count(&mut self, bytes_each: u64) -> io::Result<usize> {
        let count = self.u64()?;
        self.holds(count, bytes_each)?;
        usize::try_from(count).map_err(invalid)
    }

    /// Fails unless so many things that take so many bytes each may follow: nothing is reserved for what is not there.
    pub fn holds(&self, count: u64, bytes_each: u64) -> io::Result<()> {
        let left = self.end.saturating_sub(self.at) + (self.piece.len() - self.taken) as u64;
        if count.checked_mul(bytes_each).is_some_and(|bytes| bytes <= left) {
            return Ok(());
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// The checksum of all that is left.
    pub fn checksum(mut self) -> io::Result<u32> {
        let mut checksum = 0;
        loop {
            let have = self.piece.len() - self.taken;
            let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
            let count = if have > 0 { have } else { left.min(PIECE_BYTES) };
            if count == 0 {
                return Ok(checksum);
            }
            checksum = crc32c::crc32c_append(checksum, self.take(count)?);
        }
    }
}

/// What was read is not what was written.
pub fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
