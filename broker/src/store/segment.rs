//! The files of the log: segments in use, and spares made ready to become one.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::disk::{Disk, DiskFile};
use super::format::{ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::scan::FileWindow;
use super::unreadable::{self, Unreadable};
use super::{Offset, clock};

/// One entry of a segment's sparse index for so many bytes of frames.
const SPARSE_BYTES: u64 = 64 << 10;
/// Blocks of a spare are written and synced in pieces of this.
const WRITTEN_AT_ONCE: usize = 1 << 20;

/// A segment file. Whoever holds an `Arc` leases it: it is not recycled before that is dropped.
pub struct Segment {
    pub header: SegmentHeader,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    /// Blocks before this have been written at least once; nothing depends on it but speed.
    written_to: AtomicU64,
    progress: Mutex<Progress>,
    /// What was accepted as lost. Where that cannot be read either, it reads as zeros, which are no frame.
    given_up: OnceLock<Vec<Range<u64>>>,
}

/// How far a segment is filled.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// Where the next frame goes; all before is durable.
    end: u64,
    last_frame: Option<u64>,
    next_offset: Offset,
    last_received_ms: u64,
    /// Offsets of first events and where their frames begin, about one each [`SPARSE_BYTES`].
    sparse: Vec<(Offset, u64)>,
    /// Set while `sparse` is still to be made, when it is first needed.
    is_unread: bool,
}

/// A copy of how far a segment is filled.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub end: u64,
    /// `None` when there is no frame yet.
    pub last_frame: Option<u64>,
    pub next_offset: Offset,
    pub last_received_ms: u64,
}

impl Segment {
    pub fn new(header: SegmentHeader, path: PathBuf, file: Arc<dyn DiskFile>) -> Self {
        let next_offset = header.first_offset;
        let progress = Progress { end: SEGMENT_HEADER_BYTES, next_offset, ..Progress::default() };
        Self {
            header,
            path,
            file,
            written_to: AtomicU64::new(0),
            progress: Mutex::new(progress),
            given_up: OnceLock::new(),
        }
    }

    pub fn written_to(&self) -> u64 {
        self.written_to.load(Ordering::Relaxed)
    }

    pub fn wrote_to(&self, position: u64) {
        self.written_to.store(position, Ordering::Relaxed);
    }

    pub fn number(&self) -> u64 {
        self.header.segment
    }

    /// Notes a frame that is on disk (or was found there).
    pub fn advance(&self, header: &FrameHeader, position: u64) {
        let mut progress = self.progress();
        if header.events > 0 && progress.sparse.last().is_none_or(|(_, at)| position >= at + SPARSE_BYTES) {
            progress.sparse.push((header.first_offset, position));
        }
        progress.end = progress.end.max(position + header.span());
        progress.last_frame = progress.last_frame.max(Some(header.frame));
        progress.next_offset = progress.next_offset.max(header.end_offset());
        progress.last_received_ms = progress.last_received_ms.max(header.written_at_ms);
    }

    pub fn extent(&self) -> Extent {
        let progress = self.progress();
        Extent {
            end: progress.end,
            last_frame: progress.last_frame,
            next_offset: progress.next_offset,
            last_received_ms: progress.last_received_ms,
        }
    }

    /// Takes from the next segment's header where this one, which the snapshot covers, ends.
    pub fn seal_before(&self, next: &Self) -> io::Result<()> {
        let end = self.file.len()?;
        let last_received_ms = next.begun_ms();
        let mut progress = self.progress();
        progress.end = end;
        progress.last_frame = Some(next.header.first_frame.saturating_sub(1));
        progress.next_offset = progress.next_offset.max(next.header.first_offset);
        progress.last_received_ms = progress.last_received_ms.max(last_received_ms);
        progress.is_unread = true;
        Ok(())
    }

    /// Notes, once, what was accepted as lost.
    pub fn give_up(&self, places: Vec<Range<u64>>) {
        let _ = self.given_up.set(places);
    }

    /// Whether all of a place was accepted as lost.
    pub fn has_given_up(&self, place: &Range<u64>) -> bool {
        let given_up = self.given_up.get().map_or(&[][..], Vec::as_slice);
        unreadable::is_given_up(given_up, place)
    }

    /// Reads as [`DiskFile::read_at`] does; an error says where.
    pub fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let mut unreadable = Unreadable::default();
        let read = self.read_around(buf, position, &mut unreadable)?;
        unreadable.check(&self.path, position..position + read as u64).map(|()| read)
    }

    /// Reads around what cannot be read: that is noted, and reads as zeros.
    pub fn read_around(
        &self,
        buf: &mut [u8],
        position: u64,
        unreadable: &mut Unreadable,
    ) -> io::Result<usize> {
        let given_up = self.given_up.get().map_or(&[][..], Vec::as_slice);
        unreadable::read_around(&*self.file, buf, position, given_up, unreadable)
    }

    /// When the first frame was written: nothing in the segment before is younger. Now, if that cannot be told.
    fn begun_ms(&self) -> u64 {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let read = self.read_at(&mut bytes, SEGMENT_HEADER_BYTES).unwrap_or(0);
        let header = FrameHeader::decode(&bytes[..read], self.header.store, self.header.segment);
        header.map_or_else(clock::wall_ms, |header| header.written_at_ms)
    }

    /// Reads the headers of the frames before a position, and nothing else of them but where one is not whole or cannot be
    /// read: what is behind it is looked for.
    pub fn walk_headers(&self, until: u64) -> io::Result<()> {
        // Behind the last frame of a sealed segment there is unused space, which need not be searched.
        let known = self.extent();
        let sealed_at = known.last_frame.unwrap_or(u64::MAX);
        let mut window = FileWindow::sized(self, FRAME_HEADER_BYTES).around_unreadable();
        let (mut at, mut last_frame) = (SEGMENT_HEADER_BYTES, self.header.first_frame.saturating_sub(1));
        while at < until {
            let header = match window.header(at)? {
                Some(header) => header,
                None if last_frame >= sealed_at => break,
                None => {
                    let mut search = FileWindow::sized(self, SPARSE_BYTES as usize).around_unreadable();
                    let next = search.next_header(at, last_frame)?;
                    let Some((position, header)) = next.filter(|(position, _)| *position < until) else {
                        break;
                    };
                    at = position;
                    header
                }
            };
            let is_known = known.last_frame.is_some_and(|last| header.frame <= last);
            if is_known && header.end_offset() > known.next_offset {
                // It was given up, unread, when the next segment was begun, and is readable again.
                break;
            }
            self.advance(&header, at);
            at += header.span();
            last_frame = header.frame;
        }
        Ok(())
    }

    /// The position of a frame at or before the one that holds an offset.
    pub fn seek(&self, offset: Offset) -> u64 {
        let is_unread = std::mem::take(&mut self.progress().is_unread);
        if is_unread && let Err(error) = self.walk_headers(u64::MAX) {
            tracing::warn!(segment = self.number(), %error, "cannot index a segment, it is read from its start");
        }
        let progress = self.progress();
        let at = progress.sparse.partition_point(|(first, _)| *first <= offset);
        if at == 0 { SEGMENT_HEADER_BYTES } else { progress.sparse[at - 1].1 }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names and places of the files in a data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    pub dir: PathBuf,
}

impl Layout {
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub fn snapshots(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    pub fn letters(&self) -> PathBuf {
        self.dir.join("dead-letters")
    }

    pub fn letters_file(&self, number: u64) -> PathBuf {
        self.letters().join(format!("{number:012}.letters"))
    }

    pub fn index(&self) -> PathBuf {
        self.dir.join("index")
    }

    pub fn set_aside(&self) -> PathBuf {
        self.dir.join("set-aside")
    }

    pub fn store_file(&self) -> PathBuf {
        self.dir.join("store.json")
    }

    pub fn reached_file(&self) -> PathBuf {
        self.dir.join("reached.json")
    }

    pub fn begun_file(&self) -> PathBuf {
        self.dir.join("begun.json")
    }

    pub fn lock_file(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub fn segment(&self, number: u64) -> PathBuf {
        self.log().join(segment_name(number))
    }

    pub fn spare(&self, number: u64) -> PathBuf {
        self.log().join(format!("{number:012}.spare"))
    }
}

pub fn segment_name(number: u64) -> String {
    format!("{number:012}.seg")
}

/// The number in a file name with this extension.
pub fn number_of(name: &str, extension: &str) -> Option<u64> {
    name.strip_suffix(extension)?.strip_suffix('.')?.parse().ok()
}

/// Spare files: as long as a segment, their space reserved, no name in the log.
pub struct Spares {
    disk: Arc<dyn Disk>,
    layout: Layout,
    segment_bytes: u64,
    /// What the file system is to keep free besides: snapshots and copies of dead letters need it.
    free_bytes: u64,
    ready: Mutex<SpareState>,
}

#[derive(Default)]
struct SpareState {
    files: Vec<Spare>,
    next: u64,
}

#[derive(Clone, Copy)]
struct Spare {
    number: u64,
    /// Whether its blocks have been written, as far as is known.
    is_written: bool,
}

impl Spares {
    pub fn new(
        disk: Arc<dyn Disk>,
        layout: Layout,
        segment_bytes: u64,
        free_bytes: u64,
        found: Vec<u64>,
    ) -> Self {
        let next = found.iter().max().map_or(1, |last| last + 1);
        let files = found.into_iter().map(|number| Spare { number, is_written: false }).collect();
        Self { disk, layout, segment_bytes, free_bytes, ready: Mutex::new(SpareState { files, next }) }
    }

    /// A frame of this many bytes fits every segment, and its header can say how long it is.
    pub fn frame_bytes_max(&self) -> usize {
        let room = self.segment_bytes.saturating_sub(SEGMENT_HEADER_BYTES).min(u64::from(u32::MAX));
        usize::try_from(room - room % ALIGNMENT).unwrap_or(usize::MAX)
    }

    pub fn count(&self) -> usize {
        self.state().files.len()
    }

    /// Makes one more spare if that leaves free what is to stay free.
    pub fn make_ahead(&self, is_idle: &dyn Fn() -> bool) -> io::Result<()> {
        // A disk that does not say how much is free is found full when it is written to.
        let free_bytes = self.disk.free_bytes(&self.layout.dir).unwrap_or(u64::MAX);
        if free_bytes < self.free_bytes.saturating_add(self.segment_bytes) {
            let error = format!("the file system has {free_bytes} bytes left");
            return Err(io::Error::new(io::ErrorKind::StorageFull, error));
        }
        self.make(is_idle)
    }

    /// Makes one more spare, reserving its space. While `is_idle` says so its blocks are written too, so that a later
    /// sync commits no file-system journal; beside events that would cost them more than it saves.
    pub fn make(&self, is_idle: &dyn Fn() -> bool) -> io::Result<()> {
        let number = {
            let mut state = self.state();
            state.next += 1;
            state.next - 1
        };
        let path = self.layout.spare(number);
        match self.fill(&path, is_idle) {
            Ok(is_written) => {
                self.state().files.push(Spare { number, is_written });
                Ok(())
            }
            Err(error) => {
                // What was reserved of it would be missing elsewhere.
                let _ = self.disk.remove(&path);
                Err(error)
            }
        }
    }

    /// Whether all its blocks were written.
    fn fill(&self, path: &Path, is_idle: &dyn Fn() -> bool) -> io::Result<bool> {
        let file = self.disk.create(path)?;
        file.allocate(self.segment_bytes)?;
        let (mut at, zeros) = (0, vec![0; WRITTEN_AT_ONCE]);
        while at < self.segment_bytes && is_idle() {
            let length = zeros.len().min((self.segment_bytes - at) as usize);
            file.write_at(&zeros[..length], at)?;
            // Not all at the end: a sync of the log would wait for it.
            file.sync()?;
            at += length as u64;
        }
        file.sync()?;
        self.disk.sync_dir(&self.layout.log())?;
        Ok(at >= self.segment_bytes)
    }

    /// Turns a spare into the segment of this header: header, sync, rename, directory sync. Keeps `reserve` back.
    pub fn take(&self, header: SegmentHeader, reserve: usize) -> io::Result<Option<Segment>> {
        let taken = {
            let mut state = self.state();
            if state.files.len() <= reserve {
                return Ok(None);
            }
            state.files.remove(0)
        };
        let (spare, path) = (self.layout.spare(taken.number), self.layout.segment(header.segment));
        let file = self.disk.open(&spare)?;
        if file.len()? < self.segment_bytes
            && let Err(error) = file.allocate(self.segment_bytes)
        {
            // It was made in part before a crash, or for smaller segments. It is kept for when there is space.
            if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                return Err(error);
            }
            self.state().files.push(taken);
            return Ok(None);
        }
        let header = SegmentHeader { file_bytes: file.len()?, ..header };
        file.write_at(&header.encode(), 0)?;
        file.sync()?;
        self.disk.rename(&spare, &path)?;
        self.disk.sync_dir(&self.layout.log())?;
        let segment = Segment::new(header, path, file);
        if taken.is_written {
            segment.wrote_to(self.segment_bytes);
        }
        Ok(Some(segment))
    }

    /// Retires a segment whose content nobody needs: it becomes a spare, or goes when there are enough.
    pub fn retire(&self, segment: &Segment, spares_max: usize) -> io::Result<()> {
        if self.count() >= spares_max || segment.file.len()? < self.segment_bytes {
            self.disk.remove(&segment.path)?;
            return self.disk.sync_dir(&self.layout.log());
        }
        let number = {
            let mut state = self.state();
            state.next += 1;
            state.next - 1
        };
        self.disk.rename(&segment.path, &self.layout.spare(number))?;
        self.disk.sync_dir(&self.layout.log())?;
        self.state().files.push(Spare { number, is_written: true });
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, SpareState> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
