//! Opening a store: the lock, recovery, and the threads that write and keep it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::disk::{Disk, DiskFile, Lock};
use super::format::{self, HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::index::{Index, Room};
use super::keeper::{self, Keeper};
use super::letters::Letters;
use super::metrics::Measures;
use super::queue::Queue;
use super::reader::Reader;
use super::record::Record;
use super::recovery::recover;
use super::scan::{self, Damage, FileWindow};
use super::segment::{Layout, Segment, Spares, number_of};
use super::snapshot::Folded;
use super::unreadable::{self, Unreadable};
use super::window::{Twins, WindowSize};
use super::writer::Writer;
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
    pub upkeep: Upkeep,
}

/// How often the store looks after itself.
#[derive(Clone, Copy, Debug)]
pub struct Upkeep {
    pub tick: Duration,
    pub snapshot_interval: Duration,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self { tick: Duration::from_millis(100), snapshot_interval: Duration::from_secs(5) }
    }
}

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    #[error("{}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}", path.display())]
    Header { path: PathBuf, source: HeaderError },
    #[error("{}: not a Sluice store", .0.display())]
    NotAStore(PathBuf),
    #[error("{} holds format version {found}, this program reads {}", path.display(), format::FORMAT_VERSION)]
    Version { path: PathBuf, found: u32 },
    #[error("{}", damage_text(.dir, .damage))]
    Damaged { dir: PathBuf, damage: Vec<Damage> },
    #[error(
        "{}: no snapshot is whole, and the log before {} is not there; `store.on_damage: skip` begins with what is left",
        dir.display(), .segment.display()
    )]
    NoSnapshot { dir: PathBuf, segment: PathBuf },
}

fn damage_text(dir: &std::path::Path, damage: &[Damage]) -> String {
    let mut text = String::from("the log is damaged:");
    for part in damage {
        let Damage { file, start, end, .. } = part;
        let why = if part.is_unreadable { "cannot be read: " } else { "" };
        text += &format!(" {file} bytes {start} to {end} ({why}{});", part.events());
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

/// Five years: of those that a slot can count there are sixteen left.
const CLOCK_AHEAD_MAX_MS: u64 = 5 * 365 * 24 * 3_600_000;
/// Frames that wait to be routed.
const TAIL_FRAMES: usize = 64;
const TAIL_BYTES: usize = 12 << 20;
/// A stop waits so long for the index; a block takes it milliseconds.
const INDEX_PATIENCE: Duration = Duration::from_secs(5);

/// Opens the store in a directory, making it when there is none.
pub fn open(disk: Arc<dyn Disk>, options: &Options) -> Result<Opened, OpenError> {
    open_accepting(disk, options, &[])
}

/// Opens a store, taking as lost what `accepted` names besides what the options allow.
///
/// What `accepted` names need not be found by recovery: it may be in what a snapshot covers.
pub fn open_accepting(
    disk: Arc<dyn Disk>,
    options: &Options,
    accepted: &[Damage],
) -> Result<Opened, OpenError> {
    let Prepared { writer, keeper, lock, tell, opened } = prepare(disk, options, accepted)?;
    let index = Arc::clone(opened.log.index());
    let shared = Arc::clone(keeper.shared());
    let mut held =
        Held { shared, keeping: None, index: Arc::clone(&index), indexing: None, lock: Some(lock) };
    held.keeping = Some(spawn(options, "store-keeper", move || keeper.run())?);
    held.indexing = Some(spawn(options, "store-index", move || index.run())?);
    spawn(options, "store-writer", move || {
        let held = held;
        // Dropped before `held`, in a panic too: nobody waits for the keeper of a disk that fails.
        let tell = tell;
        match writer.run() {
            Ok(()) => {
                drop(held);
                let _ = tell.send(Ok(()));
            }
            // The process ends at once: there is nothing to wait for.
            Err(error) => drop(tell.send(Err(error))),
        }
    })?;
    Ok(opened)
}

/// The directory of an open store. It is given up when nothing here touches it any more, however the writer ended and
/// whichever thread could not be started.
struct Held {
    shared: Arc<keeper::Shared>,
    keeping: Option<JoinHandle<()>>,
    index: Arc<Index>,
    indexing: Option<JoinHandle<()>>,
    lock: Option<Lock>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.stop();
        self.index.stop();
        if let Some(keeping) = self.keeping.take() {
            let _ = keeping.join();
        }
        let has_ended = self.indexing.is_none() || self.index.has_ended_within(INDEX_PATIENCE);
        if let Some(lock) = self.lock.take_if(|_| !has_ended) {
            // The log is closed, and an index that hangs must not hang the process; the lock goes when that ends.
            tracing::warn!("the event index does not stop; its directory is given up when the process ends");
            Box::leak(lock);
        }
    }
}

/// Opens a store whose upkeep is done step by step.
#[cfg(test)]
pub fn open_by_hand(disk: Arc<dyn Disk>, options: &Options) -> Result<(Opened, Keeper), OpenError> {
    let Prepared { writer, keeper, lock, tell, opened } = prepare(disk, options, &[])?;
    spawn(options, "store-writer", move || {
        let result = writer.run();
        drop(lock);
        let _ = tell.send(result);
    })?;
    Ok((opened, keeper))
}

/// Opens a store whose writer is run step by step, too.
#[cfg(test)]
pub fn open_stepwise(disk: Arc<dyn Disk>, options: &Options) -> Result<(Opened, Writer), OpenError> {
    let Prepared { writer, opened, .. } = prepare(disk, options, &[])?;
    Ok((opened, writer))
}

fn spawn<T: Send + 'static>(
    options: &Options,
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, OpenError> {
    let io = |source| OpenError::Io { path: options.dir.clone(), source };
    std::thread::Builder::new().name(name.into()).spawn(run).map_err(io)
}

/// A recovered store whose threads do not run yet.
struct Prepared {
    writer: Writer,
    keeper: Keeper,
    lock: Lock,
    tell: oneshot::Sender<io::Result<()>>,
    opened: Opened,
}

fn prepare(disk: Arc<dyn Disk>, options: &Options, accepted: &[Damage]) -> Result<Prepared, OpenError> {
    let started = Instant::now();
    let layout = Layout { dir: options.dir.clone() };
    let io = |source| OpenError::Io { path: options.dir.clone(), source };
    for dir in [&options.dir, &layout.log(), &layout.snapshots()] {
        disk.create_dir(dir).map_err(io)?;
    }
    let lock = lock(&*disk, &layout)?;
    let identity = Identity::load_or_make(&*disk, &layout)?;
    let mut files = LogFiles::load(&*disk, &layout, identity.id()?)?;
    let found = std::mem::take(&mut files.spares);
    let spares = Arc::new(Spares::new(
        Arc::clone(&disk),
        layout.clone(),
        options.segment_bytes,
        options.free_bytes,
        found,
    ));
    let recovered = recover(&disk, &layout, options, &identity, files, &spares, accepted)?;

    let letters = Letters::new(Arc::clone(&disk), layout.clone(), identity.id()?);
    let reader = Arc::new(Reader::new(recovered.segments, letters, TAIL_BYTES));
    let queue = Arc::new(Queue::new());
    let measures = Arc::new(Measures::default());
    let (committed, tail) = mpsc::channel(TAIL_FRAMES);
    let Folded { state, window, .. } = recovered.folded;
    let writer = Writer {
        queue: Arc::clone(&queue),
        disk: Arc::clone(&disk),
        layout: layout.clone(),
        reader: Arc::clone(&reader),
        spares: Arc::clone(&spares),
        segment_bytes: recovered.active.file.len().map_err(io)?,
        segment: recovered.active,
        store: identity.id()?,
        next_frame: recovered.next_frame,
        next_offset: state.next_offset,
        last_received_ms: state.last_received_ms,
        window: window.map(Twins::new),
        committed,
        measures: Arc::clone(&measures),
        buffer: Vec::new(),
    };
    queue.active.store(writer.segment.number(), std::sync::atomic::Ordering::Release);
    let shared = Arc::new(keeper::Shared::default());
    // What the keeper wants to see before it takes events, see `Keeper::tell`.
    let free_bytes_min = options.free_bytes.saturating_add(options.segment_bytes);
    let room = Room { disk: Arc::clone(&disk), free_bytes_min };
    let index = Arc::new(Index::new(Arc::clone(&reader), layout.index(), room));
    let frame_bytes_max = spares.frame_bytes_max();
    shared.set_floor(state.floor());
    let mut keeper = Keeper::new(
        disk,
        layout,
        options.clone(),
        Arc::clone(&reader),
        spares,
        Arc::clone(&queue),
        Arc::clone(&shared),
    );
    keeper.tell(None);
    let (tell, ended) = oneshot::channel();
    let recovery = Recovery { took: started.elapsed(), ..recovered.report };
    let log = Log { queue, reader, measures, keeper: shared, index, frame_bytes_max };
    Ok(Prepared { writer, keeper, lock, tell, opened: Opened { log, state, tail, ended, recovery } })
}

/// Takes the lock that only one process can have.
pub fn lock(disk: &dyn Disk, layout: &Layout) -> Result<Lock, OpenError> {
    let path = layout.lock_file();
    let taken = disk.lock(&path).map_err(|source| OpenError::Io { path, source })?;
    taken.ok_or_else(|| OpenError::InUse(layout.dir.clone()))
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
        let path = layout.store_file();
        let io = |source| OpenError::Io { path: path.clone(), source };
        if let Some(identity) = Self::load(disk, layout)? {
            // Whoever made it may have died before its name was durable.
            disk.sync_dir(&layout.dir).map_err(io)?;
            return Ok(identity);
        }
        if disk.list(&layout.log()).map_err(io)?.iter().any(|name| number_of(name, "seg").is_some()) {
            return Err(OpenError::NotAStore(layout.dir.clone()));
        }
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

    /// What times in the state are counted from. The clock may have been ahead when the store was made: what is earlier
    /// than this could not be told from it.
    pub fn base_ms(&self) -> u64 {
        self.created_at_ms.saturating_sub(CLOCK_AHEAD_MAX_MS)
    }

    pub fn id(&self) -> Result<u128, OpenError> {
        u128::from_str_radix(&self.id, 16).map_err(|_| OpenError::NotAStore(PathBuf::from(&self.id)))
    }
}

/// The files of the log as they are found.
pub struct LogFiles {
    pub segments: Vec<Arc<Segment>>,
    pub spares: Vec<u64>,
    /// Headers that are not whole, and are known from what stands behind them.
    pub damage: Vec<Damage>,
}

impl LogFiles {
    /// Opens all segments. Missing ones are found by the scan, from the frames that are missing.
    pub fn load(disk: &dyn Disk, layout: &Layout, store: u128) -> Result<Self, OpenError> {
        let io = |path: PathBuf| move |source| OpenError::Io { path, source };
        let names = disk.list(&layout.log()).map_err(io(layout.log()))?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name, "seg")).collect();
        numbers.sort_unstable();
        let mut files =
            Self { segments: Vec::with_capacity(numbers.len()), spares: Vec::new(), damage: Vec::new() };
        for number in numbers {
            let path = layout.segment(number);
            let file = disk.open(&path).map_err(io(path.clone()))?;
            let (segment, damage) = load_segment(path, file, store, number)?;
            files.segments.push(Arc::new(segment));
            files.damage.extend(damage);
        }
        files.spares = names.iter().filter_map(|name| number_of(name, "spare")).collect();
        files.spares.sort_unstable();
        Ok(files)
    }
}

/// A segment, and what is wrong with its header if that is known from its first frame.
fn load_segment(
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    store: u128,
    number: u64,
) -> Result<(Segment, Option<Damage>), OpenError> {
    let io = |source| OpenError::Io { path: path.clone(), source };
    let mut bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
    let mut unreadable = Unreadable::default();
    let read = unreadable::read_around(&*file, &mut bytes, 0, &[], &mut unreadable).map_err(io)?;
    let decoded = SegmentHeader::decode(&bytes[..read]).and_then(|header| {
        let is_ours = header.store == store && header.segment == number;
        if is_ours { Ok(header) } else { Err(HeaderError::Magic) }
    });
    let source = match decoded {
        Ok(header) => return Ok((Segment::new(header, path, file), None)),
        Err(source) => source,
    };
    let nameless = SegmentHeader {
        store,
        segment: number,
        first_frame: 0,
        first_offset: Default::default(),
        file_bytes: 0,
    };
    let segment = Segment::new(nameless, path.clone(), file);
    let first = FileWindow::new(&segment).around_unreadable().first_header().map_err(io)?;
    let Some(first) = first else {
        unreadable.check(&path, 0..SEGMENT_HEADER_BYTES).map_err(io)?;
        // Without a frame of this store and segment it is another's file, or there is nothing to go by.
        return Err(OpenError::Header { path, source });
    };
    let damage = Damage {
        file: scan::file_name(&segment),
        segment: number,
        start: 0,
        end: SEGMENT_HEADER_BYTES,
        offsets: (first.first_offset, first.first_offset),
        is_unreadable: !unreadable.places.is_empty(),
    };
    let header = SegmentHeader { first_frame: first.frame, first_offset: first.first_offset, ..nameless };
    Ok((Segment::new(header, path, segment.file), Some(damage)))
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
            upkeep: Upkeep::default(),
        }
    }
}
