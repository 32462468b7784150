//! Opening a store: the lock, recovery, and the threads that write and keep it.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::disk::Disk;
use super::format::{self, FRAME_HEADER_BYTES, HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::index::Index;
use super::keeper::{self, Keeper};
use super::metrics::Measures;
use super::reader::Reader;
use super::record::{Gap, LogRecord, Record};
use super::scan::{self, Damage, FileWindow, Position};
use super::segment::{Layout, Segment, Spares, number_of};
use super::snapshot::{self, Folded};
use super::window::WindowSize;
use super::writer::{Queue, Writer};
use super::{Log, State, clock};

#[derive(Clone, Debug)]
pub struct Options {
    pub dir: PathBuf,
    pub segment_bytes: u64,
    pub retention_bytes: u64,
    pub retention_age_ms: u64,
    pub stop_percent: u8,
    pub resume_percent: u8,
    pub free_bytes: u64,
    /// Deliveries held in memory, all triggers together.
    pub outstanding: usize,
    pub skip_damage: bool,
    pub window: Option<WindowSize>,
}

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Header { path: PathBuf, source: HeaderError },
    #[error("{}: not a Sluice store", .0.display())]
    NotAStore(PathBuf),
    #[error("{} holds format version {found}, this program reads {}", path.display(), format::FORMAT_VERSION)]
    Version { path: PathBuf, found: u32 },
    #[error("{}", damage_text(.dir, .damage))]
    Damaged { dir: PathBuf, damage: Vec<Damage> },
    #[error("segment {number} is missing from {}", path.display())]
    Missing { path: PathBuf, number: u64 },
}

fn damage_text(dir: &std::path::Path, damage: &[Damage]) -> String {
    let mut text = String::from("the log is damaged:");
    for part in damage {
        text += &format!(
            " {} bytes {} to {} (offsets {} to {});",
            part.file, part.start, part.end, part.offsets.0, part.offsets.1
        );
    }
    let from = damage.iter().map(|part| part.offsets.0).min().unwrap_or_default();
    let to = damage.iter().map(|part| part.offsets.1).max().unwrap_or_default();
    let last = to.0.saturating_sub(1).max(from.0);
    format!(
        "{text} to go on without them: sluice store repair {} --accept-loss {from}..{last}",
        dir.display()
    )
}

/// An open store.
pub struct Opened {
    pub log: Log,
    /// What the log adds up to.
    pub state: State,
    /// Events as they become durable, in order. The receiver must keep up: the writer waits for it.
    pub tail: mpsc::Receiver<Vec<Arc<Record>>>,
    /// Resolves when the writer has ended: `Ok` after a stop, else the disk's error.
    pub ended: oneshot::Receiver<io::Result<()>>,
    pub recovery: Recovery,
}

/// What opening did.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    pub took: Duration,
    pub frames: u64,
    pub was_closed: bool,
    /// Bytes of a torn tail that were set aside.
    pub torn_bytes: usize,
    pub gaps: usize,
}

/// Frames that wait to be routed.
const TAIL_FRAMES: usize = 64;
const TAIL_BYTES: usize = 12 << 20;

/// Opens the store in a directory, making it when there is none.
pub fn open(disk: Arc<dyn Disk>, options: &Options) -> Result<Opened, OpenError> {
    let started = Instant::now();
    let layout = Layout { dir: options.dir.clone() };
    let io = |source| OpenError::Io { path: options.dir.clone(), source };
    for dir in [&options.dir, &layout.log(), &layout.snapshots()] {
        disk.create_dir(dir).map_err(io)?;
    }
    let lock = lock(&layout)?;
    let identity = Identity::load_or_make(&*disk, &layout)?;
    let files = LogFiles::load(&*disk, &layout, identity.id()?)?;
    let spares =
        Arc::new(Spares::new(Arc::clone(&disk), layout.clone(), options.segment_bytes, files.spares));
    let recovered = recover(&disk, &layout, options, &identity, files.segments, &spares)?;

    let reader = Arc::new(Reader::new(recovered.segments, TAIL_BYTES));
    let queue = Arc::new(Queue::new());
    let measures = Arc::new(Measures::default());
    let (committed, tail) = mpsc::channel(TAIL_FRAMES);
    let Folded { state, window, .. } = recovered.folded;
    let writer = Writer {
        queue: Arc::clone(&queue),
        reader: Arc::clone(&reader),
        spares: Arc::clone(&spares),
        segment: recovered.active,
        store: identity.id()?,
        next_frame: recovered.next_frame,
        next_offset: state.next_offset,
        last_received_ms: state.last_received_ms,
        window,
        committed,
        measures: Arc::clone(&measures),
        buffer: Vec::new(),
    };
    queue.active.store(writer.segment.number(), std::sync::atomic::Ordering::Release);
    let shared = Arc::new(keeper::Shared::default());
    let index = Arc::new(Index::new(Arc::clone(&reader), layout.index()));
    let keeper = Keeper::new(
        disk,
        layout,
        options.clone(),
        Arc::clone(&reader),
        spares,
        Arc::clone(&queue),
        Arc::clone(&shared),
    );
    let (tell, ended) = oneshot::channel();
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.into()).spawn(run).map_err(io)
    };
    let keeping = spawn("store-keeper", Box::new(move || keeper.run()))?;
    let indexing = spawn("store-index", {
        let index = Arc::clone(&index);
        Box::new(move || index.run())
    })?;
    spawn(
        "store-writer",
        Box::new(move || {
            let (queue, reader) = (Arc::clone(&writer.queue), Arc::clone(&writer.reader));
            let result = writer.run();
            drop((queue, reader));
            // The directory is another process's when nothing here touches it any more.
            let _ = keeping.join();
            let _ = indexing.join();
            drop(lock);
            let _ = tell.send(result);
        }),
    )?;
    let recovery = Recovery { took: started.elapsed(), ..recovered.report };
    Ok(Opened { log: Log { queue, reader, measures, keeper: shared, index }, state, tail, ended, recovery })
}

/// Takes the lock that only one process can have.
pub fn lock(layout: &Layout) -> Result<File, OpenError> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = layout.lock_file();
    let io = |source| OpenError::Io { path: path.clone(), source };
    let file =
        File::options().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse(layout.dir.clone())),
        Err(std::fs::TryLockError::Error(source)) => Err(io(source)),
    }
}

/// What says which store this is.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    pub format: u32,
    pub id: String,
    pub created_at_ms: u64,
}

impl Identity {
    pub fn load(disk: &dyn Disk, layout: &Layout) -> Result<Option<Self>, OpenError> {
        let path = layout.store_file();
        let io = |source| OpenError::Io { path: path.clone(), source };
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let mut bytes = vec![0; 4096];
        let read = file.read_at(&mut bytes, 0).map_err(io)?;
        let identity: Self =
            serde_json::from_slice(&bytes[..read]).map_err(|_| OpenError::NotAStore(layout.dir.clone()))?;
        if identity.format != format::FORMAT_VERSION {
            return Err(OpenError::Version { path: layout.dir.clone(), found: identity.format });
        }
        Ok(Some(identity))
    }

    fn load_or_make(disk: &dyn Disk, layout: &Layout) -> Result<Self, OpenError> {
        if let Some(identity) = Self::load(disk, layout)? {
            return Ok(identity);
        }
        let path = layout.store_file();
        let io = |source| OpenError::Io { path: path.clone(), source };
        let id = uuid::Uuid::new_v4().simple().to_string();
        let identity = Self { format: format::FORMAT_VERSION, id, created_at_ms: clock::wall_ms() };
        let partial = layout.dir.join("store.partial");
        let file = disk.create(&partial).map_err(io)?;
        file.write_at(&serde_json::to_vec(&identity).unwrap_or_default(), 0).map_err(io)?;
        file.sync().map_err(io)?;
        disk.rename(&partial, &path).map_err(io)?;
        disk.sync_dir(&layout.dir).map_err(io)?;
        Ok(identity)
    }

    pub fn id(&self) -> Result<u128, OpenError> {
        u128::from_str_radix(&self.id, 16).map_err(|_| OpenError::NotAStore(PathBuf::from(&self.id)))
    }
}

/// The files of the log as they are found.
pub struct LogFiles {
    pub segments: Vec<Arc<Segment>>,
    pub spares: Vec<u64>,
}

impl LogFiles {
    pub fn load(disk: &dyn Disk, layout: &Layout, store: u128) -> Result<Self, OpenError> {
        let io = |path: PathBuf| move |source| OpenError::Io { path, source };
        let names = disk.list(&layout.log()).map_err(io(layout.log()))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name, "seg")).collect();
        numbers.sort_unstable();
        let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(numbers.len());
        for number in numbers {
            let path = layout.segment(number);
            if let Some(last) = segments.last()
                && last.number() + 1 != number
            {
                return Err(OpenError::Missing { path: layout.log(), number: last.number() + 1 });
            }
            let file = disk.open(&path).map_err(io(path.clone()))?;
            let mut bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
            let read = file.read_at(&mut bytes, 0).map_err(io(path.clone()))?;
            let header = SegmentHeader::decode(&bytes[..read])
                .map_err(|source| OpenError::Header { path: path.clone(), source })?;
            if header.store != store || header.segment != number {
                return Err(OpenError::Header { path, source: HeaderError::Magic });
            }
            segments.push(Arc::new(Segment::new(header, path, file)));
        }
        let mut spares: Vec<u64> = names.iter().filter_map(|name| number_of(name, "spare")).collect();
        spares.sort_unstable();
        Ok(Self { segments, spares })
    }
}

struct Recovered {
    folded: Folded,
    segments: Vec<Arc<Segment>>,
    active: Arc<Segment>,
    next_frame: u64,
    report: Recovery,
}

/// Comes to the state the log holds, and to a segment that can be written to.
fn recover(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    options: &Options,
    identity: &Identity,
    mut segments: Vec<Arc<Segment>>,
    spares: &Spares,
) -> Result<Recovered, OpenError> {
    let io = |source| OpenError::Io { path: layout.dir.clone(), source };
    let start = segments.first().map_or(Position { segment: 1, at: 0, frame: 0 }, |first| Position {
        segment: first.number(),
        at: SEGMENT_HEADER_BYTES,
        frame: first.header.first_frame.saturating_sub(1),
    });
    let found = snapshot::newest(&**disk, layout, options.window, start.segment).map_err(io)?;
    let mut folded = found.unwrap_or_else(|| Folded::start(identity.created_at_ms, start, options.window));
    extend_before(&segments, folded.position).map_err(io)?;
    let (from, next_offset) = (folded.position, folded.next_offset());
    let mut failed = None;
    let mut ending = scan::scan(&segments, from, next_offset, &mut |found| {
        note(found);
        if failed.is_none() {
            failed = folded.fold(found, options.outstanding).err();
        }
        Ok(())
    })
    .map_err(io)?;
    if let Some(error) = failed {
        return Err(io(error));
    }
    let accepted = |damage: &Damage| {
        folded.state.gaps.iter().any(|gap| gap.segment == damage.segment && gap.start == damage.start)
    };
    let damage: Vec<_> = ending.damage.iter().filter(|damage| !accepted(damage)).cloned().collect();
    if !damage.is_empty() && !options.skip_damage {
        return Err(OpenError::Damaged { dir: layout.dir.clone(), damage });
    }
    let mut report = Recovery { frames: ending.frames, was_closed: ending.closed, ..Recovery::default() };
    let nothing_new = ending.last.is_none() && from.frame > 0 && is_closed_at(&segments, from).map_err(io)?;
    ending.closed |= nothing_new;
    let last_frame = ending.last.as_ref().map_or(from.frame, |(_, _, header)| header.frame);
    let (active, next_frame) = if ending.closed && damage.is_empty() && !segments.is_empty() {
        let active = segments.last().cloned().ok_or(OpenError::NotAStore(layout.dir.clone()))?;
        (active, last_frame + 1)
    } else {
        if let Some((segment, at, bytes)) = &ending.torn {
            set_aside(&**disk, layout, *segment, *at, bytes).map_err(io)?;
            report.torn_bytes = bytes.len();
        }
        let gaps: Vec<LogRecord> = damage.iter().map(|damage| LogRecord::Gap(gap(damage))).collect();
        report.gaps = gaps.len();
        let begun = begin_again(disk, layout, identity, &segments, spares, &ending, last_frame, &gaps)?;
        if !begun.reused {
            segments.push(Arc::clone(&begun.segment));
        }
        gaps.iter().for_each(|gap| folded.state.apply(gap, &|_| true));
        (begun.segment, begun.next_frame)
    };
    Ok(Recovered { folded, segments, active, next_frame, report })
}

/// Notes what a segment holds, for look-ups.
fn note(found: &scan::Found<'_>) {
    let header = &found.header;
    let (first, next) = (header.first_offset, header.end_offset());
    found.segment.advance(header.frame, found.at, header.span(), first, next, header.written_at_ms);
}

/// Says how far the segments go that the snapshot covers, without reading more of them than it must.
fn extend_before(segments: &[Arc<Segment>], until: Position) -> io::Result<()> {
    for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
        if segment.number() < until.segment {
            segment.seal_before(&next.header)?;
        }
    }
    match segments.iter().find(|segment| segment.number() == until.segment) {
        Some(segment) => segment.walk_headers(until.at),
        None => Ok(()),
    }
}

/// Whether the frame before a position is a closing one and nothing was begun behind it.
fn is_closed_at(segments: &[Arc<Segment>], position: Position) -> io::Result<bool> {
    let Some(segment) = segments.last().filter(|last| last.number() == position.segment) else {
        return Ok(false);
    };
    let mut window = FileWindow::new(segment);
    let mut at = SEGMENT_HEADER_BYTES;
    let mut closed = false;
    while at < position.at {
        let Some(header) = window.header(at)? else { return Ok(false) };
        let records = window.records(at, &header)?;
        closed = records.is_some_and(|(_, records)| {
            records.last().is_some_and(|last| last.kind == format::RecordType::Close as u8)
        });
        at += header.span();
    }
    Ok(closed && at == position.at)
}

fn gap(damage: &Damage) -> Gap {
    Gap {
        at_ms: clock::wall_ms(),
        from: damage.offsets.0,
        to: damage.offsets.1,
        segment: damage.segment,
        start: damage.start,
        end: damage.end,
    }
}

/// Keeps the bytes of a torn tail, under a name that says where they were.
fn set_aside(disk: &dyn Disk, layout: &Layout, segment: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
    let dir = layout.set_aside();
    disk.create_dir(&dir)?;
    let file = disk.create(&dir.join(format!("{segment:012}-{at}.torn")))?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    disk.sync_dir(&dir)
}

struct Begun {
    segment: Arc<Segment>,
    next_frame: u64,
    reused: bool,
}

/// Writes the last whole frame again, to a place of its own, and what recovery has to say, and syncs.
#[expect(clippy::too_many_arguments, reason = "each is one thing recovery has found out")]
fn begin_again(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    identity: &Identity,
    segments: &[Arc<Segment>],
    spares: &Spares,
    ending: &scan::Ending,
    last_frame: u64,
    gaps: &[LogRecord],
) -> Result<Begun, OpenError> {
    let io = |source| OpenError::Io { path: layout.dir.clone(), source };
    let copy = match &ending.last {
        Some((number, at, header)) => {
            let holder = segments.iter().find(|segment| segment.number() == *number);
            let holder = holder.ok_or_else(|| OpenError::NotAStore(layout.dir.clone()))?;
            let mut bytes = vec![0; FRAME_HEADER_BYTES + header.body_bytes as usize];
            holder.file.read_at(&mut bytes, *at).map_err(io)?;
            Some((*header, bytes))
        }
        None => None,
    };
    let first_frame = copy.as_ref().map_or(last_frame + 1, |(header, _)| header.frame);
    let first_offset = copy.as_ref().map_or(ending.next_offset, |(header, _)| header.first_offset);
    let empty = segments.last().filter(|last| {
        last.extent().last_frame.is_none() && last.header.first_frame == first_frame && ending.torn.is_none()
    });
    let (segment, reused) = match empty {
        Some(segment) => (Arc::clone(segment), true),
        None => {
            let number = segments.last().map_or(1, |last| last.number() + 1);
            let header = SegmentHeader { store: identity.id()?, segment: number, first_frame, first_offset };
            (Arc::new(new_segment(spares, header).map_err(io)?), false)
        }
    };
    let mut at = SEGMENT_HEADER_BYTES;
    let mut next_frame = first_frame;
    let mut write = |mut header: format::FrameHeader, mut bytes: Vec<u8>| -> io::Result<()> {
        header.segment = segment.number();
        let header = format::seal(&mut bytes, header);
        segment.file.write_at(&bytes, at)?;
        segment.advance(
            header.frame,
            at,
            header.span(),
            header.first_offset,
            header.end_offset(),
            header.written_at_ms,
        );
        at += header.span();
        next_frame = header.frame + 1;
        Ok(())
    };
    if let Some((header, bytes)) = copy {
        write(header, bytes).map_err(io)?;
    }
    if !gaps.is_empty() {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        gaps.iter().for_each(|gap| gap.append_to(&mut bytes));
        let header = format::FrameHeader {
            segment: segment.number(),
            frame: last_frame + 1,
            first_offset: ending.next_offset,
            written_at_ms: clock::wall_ms(),
            body_bytes: 0,
            records: gaps.len() as u32,
            events: 0,
            store: identity.id()? as u64,
            checksum: 0,
        };
        write(header, bytes).map_err(io)?;
    }
    segment.file.sync().map_err(io)?;
    disk.sync_dir(&layout.log()).map_err(io)?;
    if !reused && let Some(last) = segments.last() {
        // What follows the last whole frame is the torn tail, kept elsewhere by now, or space never used.
        let end = last.extent().end;
        if last.file.len().map_err(io)? > end {
            last.file.truncate(end).map_err(io)?;
            last.file.sync().map_err(io)?;
        }
    }
    Ok(Begun { segment, next_frame, reused })
}

fn new_segment(spares: &Spares, header: SegmentHeader) -> io::Result<Segment> {
    if spares.count() == 0 {
        spares.make(false)?;
    }
    spares.take(header, 0)?.ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))
}

impl Options {
    /// For a store that is only repaired.
    pub fn bare(dir: &std::path::Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            segment_bytes: 64 << 20,
            retention_bytes: u64::MAX,
            retention_age_ms: u64::MAX >> 1,
            stop_percent: 100,
            resume_percent: 100,
            free_bytes: 0,
            outstanding: usize::MAX,
            skip_damage: false,
            window: None,
        }
    }
}
