//! The index against a scan that knows nothing of it, and against everything that can happen to its directory.

mod breaking;
mod retention;
mod room;
mod stopping;
mod unreadable;

use std::fs;
use std::io;
use std::time::Instant;

use bytes::Bytes;
use sluice_schemas::Event;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::super::format::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use super::super::scan::FileWindow;
use super::super::{
    Attempted, DeliveryId, DiskFile, Lock, Log, LogRecord, NewEvent, Next, Offset, OpenError, Options, Purge,
    ReadError, RealDisk, Record, Routed, TriggerId, digest, open,
};
use super::worker::Throttle;
use super::*;

const SEGMENT_BYTES: u64 = 768 << 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// A log on disk, as random as its seed says.
struct Stand {
    dir: TempDir,
    log: Log,
    ended: oneshot::Receiver<io::Result<()>>,
    random: fastrand::Rng,
}

fn options(dir: &Path) -> Options {
    Options { segment_bytes: SEGMENT_BYTES, skip_damage: true, ..Options::bare(dir) }
}

impl Stand {
    async fn new(seed: u64, events: usize) -> Self {
        let mut stand = Self::open(TempDir::new().unwrap(), seed);
        stand.publish(events).await;
        stand
    }

    fn open(dir: TempDir, seed: u64) -> Self {
        let options = options(dir.path());
        Self::with(dir, &options, seed)
    }

    fn with(dir: TempDir, options: &Options, seed: u64) -> Self {
        let opened = open(Arc::new(RealDisk), options).unwrap();
        let mut tail = opened.tail;
        tokio::spawn(async move { while tail.recv().await.is_some() {} });
        Self { dir, log: opened.log, ended: opened.ended, random: fastrand::Rng::with_seed(seed) }
    }

    async fn stop(self) -> TempDir {
        self.log.stop();
        self.ended.await.unwrap().unwrap();
        self.dir
    }

    /// What somebody finds who takes over after a `kill -9` at this moment.
    fn copy(&self) -> TempDir {
        let copy = TempDir::new().unwrap();
        copy_dir(self.dir.path(), copy.path());
        copy
    }

    /// Events in frames of all sizes; some ids come again, some types are rare.
    async fn publish(&mut self, events: usize) {
        let mut left = events;
        while left > 0 {
            let count = self.random.usize(1..2000).min(left);
            left -= count;
            let new: Vec<_> = (0..count).map(|_| new_event(&mut self.random)).collect();
            let next = self.next_offset();
            let records = if next == 0 { Vec::new() } else { self.records(next) };
            self.log.append(new, records).await.unwrap();
        }
    }

    fn next_offset(&self) -> u64 {
        self.log.reader().segments().last().unwrap().extent().next_offset.0
    }

    fn records(&mut self, next: u64) -> Vec<LogRecord> {
        let from = self.random.u64(0..next);
        let matches = vec![(Offset(from), vec![TriggerId(1)])];
        let to = Offset((from + self.random.u64(0..50)).min(next - 1));
        let routed = Routed { epoch: 1, from: Offset(from), to, matches, only: None };
        let outcomes = (0..self.random.usize(1..400)).map(|_| {
            let offset = Offset(self.random.u64(0..next));
            attempted(offset, self.random.u32(1..4))
        });
        let mut records = vec![LogRecord::Routed(routed), LogRecord::Outcomes(outcomes.collect())];
        if self.random.bool() {
            let offset = Offset(self.random.u64(0..next));
            let id = DeliveryId { trigger: TriggerId(1), offset, redrive: 0 };
            records.push(LogRecord::Purge(Purge { at_ms: 1, ids: vec![id] }));
        }
        records
    }

    fn index(&self) -> Index {
        let room = Room { disk: Arc::new(RealDisk), free_bytes_min: 0 };
        self.index_with(room)
    }

    fn index_with(&self, room: Room) -> Index {
        Index::new(Arc::clone(self.log.reader()), self.dir.path().join("index"), room)
    }

    fn all(&self) -> Vec<Record> {
        let mut all: Vec<Record> = Vec::new();
        self.log
            .reader()
            .walk(Offset(0), &mut |record, _| {
                if let LogRecord::Event(record) = record {
                    all.push(record);
                }
                true
            })
            .unwrap();
        all
    }

    fn check(&mut self, index: &Index) {
        let all = self.all();
        for _ in 0..12 {
            let wanted = self.wanted(&all);
            let expected = all.iter().rev().filter(|record| wanted.takes(record)).take(wanted.limit);
            let found = index.events(&wanted).unwrap();
            assert_eq!(offsets(&found), offsets(expected), "{wanted:?}");
        }
        for _ in 0..12 {
            let like = &all[self.random.usize(0..all.len())].event;
            let (source, id) = (like.source(), like.id());
            let expected = all.iter().rfind(|r| r.event.source() == source && r.event.id() == id);
            assert_eq!(offsets(index.by_id(source, id).unwrap().as_ref()), offsets(expected));
        }
        assert!(index.by_id("/none", "none").unwrap().is_none());
        for _ in 0..6 {
            let offset = all[self.random.usize(0..all.len())].offset;
            assert_eq!(outcomes(index, offset), self.scanned_outcomes(offset), "outcomes of {offset}");
        }
    }

    fn wanted(&mut self, all: &[Record]) -> Wanted {
        let random = &mut self.random;
        let like = &all[random.usize(0..all.len())];
        let maybe = |yes: bool, text: &str| yes.then(|| text.to_owned());
        Wanted {
            ty: maybe(random.bool(), like.event.ty()),
            source: maybe(random.bool(), like.event.source()),
            subject: like.event.subject().filter(|_| random.bool()).map(str::to_owned),
            via: maybe(random.bool(), &like.via),
            since_ms: if random.bool() { like.received_at_ms } else { 0 },
            until_ms: random.bool().then_some(like.received_at_ms + 5),
            before: random.bool().then(|| Offset(random.u64(0..all.len() as u64))),
            limit: random.usize(0..300),
        }
    }

    fn scanned_outcomes(&self, offset: Offset) -> Vec<String> {
        let mut found = Vec::new();
        let reader = self.log.reader();
        reader
            .walk(offset, &mut |record, _| {
                note(&record, offset, &mut found);
                true
            })
            .unwrap();
        found
    }
}

fn outcomes(index: &Index, offset: Offset) -> Vec<String> {
    let mut found = Vec::new();
    index.outcomes(&[offset], &mut |record| note(&record, offset, &mut found)).unwrap();
    found
}

/// What a trail takes from a record.
fn note(record: &LogRecord, offset: Offset, found: &mut Vec<String>) {
    match record {
        LogRecord::Routed(routed) if routed.from <= offset && offset <= routed.to => {
            found.push(format!("{routed:?}"));
        }
        LogRecord::Outcomes(list) => {
            found.extend(list.iter().filter(|one| one.id.offset == offset).map(|one| format!("{one:?}")));
        }
        LogRecord::Purge(purge) if purge.ids.iter().any(|id| id.offset == offset) => {
            found.push(format!("{purge:?}"));
        }
        _ => {}
    }
}

fn offsets<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<u64> {
    records.into_iter().map(|record| record.offset.0).collect()
}

fn attempted(offset: Offset, attempt: u32) -> Attempted {
    let id = DeliveryId { trigger: TriggerId(1), offset, redrive: 0 };
    let next = Next::Delivered;
    Attempted {
        id,
        attempt,
        at_ms: 1,
        duration_ms: 1,
        status: None,
        error: None,
        body: Bytes::new(),
        owes_letter: false,
        next,
    }
}

fn new_event(random: &mut fastrand::Rng) -> NewEvent {
    let ty = if random.u32(0..500) == 0 { "rare".to_owned() } else { format!("t{}", random.u32(0..3)) };
    // From here and there so many sources in a block that they are not told apart.
    let source = format!("/s{}", if random.bool() { random.u32(0..4) } else { random.u32(0..120) });
    let mut event = Event::builder()
        .attribute("specversion", "1.0")
        .attribute("id", &random.u32(0..50_000).to_string())
        .attribute("source", &source)
        .attribute("type", &ty);
    if random.bool() {
        event = event.attribute("subject", &random.u32(0..5).to_string());
    }
    stored(event.build().unwrap(), if random.bool() { "http" } else { "orders" })
}

fn stored(event: Event, via: &str) -> NewEvent {
    NewEvent {
        key: digest::key(via, &event),
        content: digest::content(&event),
        event: Arc::new(event),
        via: via.into(),
        trace: None,
        parent: None,
        hops: 0,
        unique: false,
    }
}

/// A file that grows or goes while it is copied is copied in part, as by a crash.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_dir(&path, &to);
        } else if let Err(error) = fs::copy(&path, &to) {
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
        }
    }
}

/// Where the frames of a segment begin, and how long their bodies are.
fn frame_positions(segment: &Segment) -> Vec<(u64, u32)> {
    let mut window = FileWindow::new(segment);
    let (mut at, mut found) = (SEGMENT_HEADER_BYTES, Vec::new());
    while let Some((position, header)) = window.frame(at, segment.extent().end, 0).unwrap() {
        found.push((position, header.body_bytes));
        at = position + header.span();
    }
    found
}

/// Threads of sled hold the lock on its file a moment longer than the database is open.
fn open_index(index: &Index) -> Arc<Trees> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match index.open() {
            Ok(trees) => return trees,
            Err(error) if error.is_lock() && Instant::now() < deadline => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Opens the index if it is not open and indexes so many blocks at most; returns how many.
fn build(index: &Index, blocks: usize) -> usize {
    let trees = index.trees().unwrap_or_else(|| open_index(index));
    let done =
        (0..blocks).take_while(|_| index.step(&trees, &mut Throttle::new(index, false)).unwrap()).count();
    index.set_trees(Some(trees));
    done
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn run(index: &Arc<Index>) -> std::thread::JoinHandle<()> {
    let running = Arc::clone(index);
    index.start();
    std::thread::spawn(move || running.run())
}

/// Runs the index on a directory in some shape until it is ready, checks it, and says whether it was set aside.
async fn check_rebuilt(stand: &mut Stand, index: Arc<Index>) -> bool {
    let running = run(&index);
    until("the index is ready", || index.state() == IndexState::Ready).await;
    assert!(index.lag() < block::EVENTS_MAX as u64);
    stand.check(&index);
    index.stop();
    running.join().unwrap();
    index.dir.with_extension("broken").is_dir()
}

#[tokio::test]
async fn answers_as_a_scan_does_however_much_is_indexed() {
    for seed in 0..2 {
        let mut stand = Stand::new(seed, 12_000).await;
        for blocks in [0, 1, usize::MAX] {
            let index = stand.index();
            build(&index, blocks);
            stand.check(&index);
            stand.publish(300).await;
            stand.check(&index);
            assert!(index.control().broken.is_none());
            index.set_trees(None);
        }
    }
}

#[tokio::test]
async fn goes_on_where_it_was_when_it_is_opened_again() {
    let mut stand = Stand::new(7, 16_000).await;
    let first = stand.index();
    assert_eq!(first.lag(), 16_000, "nothing is indexed");
    assert_eq!(build(&first, 2), 2);
    let lag = first.lag();
    assert!(lag < 16_000, "two blocks are");
    first.set_trees(None);
    let second = stand.index();
    build(&second, 0);
    assert_eq!(second.lag(), lag);
    stand.check(&second);
    build(&second, usize::MAX);
    assert!(second.lag() < block::EVENTS_MAX as u64, "all but the last block");
}

#[tokio::test]
async fn damage_in_the_log_is_passed_over_as_by_a_scan() {
    let stand = Stand::new(37, 24_000).await;
    let segments = stand.log.reader().segments();
    assert!(segments.len() > 3, "{} segments", segments.len());
    let (header_at, _) = frame_positions(&segments[0])[1];
    let (frame_at, body_bytes) = frame_positions(&segments[1])[0];
    let places = [
        (segments[0].path.clone(), header_at + 9),
        (segments[1].path.clone(), frame_at + FRAME_HEADER_BYTES as u64 + u64::from(body_bytes) / 2),
    ];
    drop(segments);
    let dir = stand.stop().await;
    for (path, at) in places {
        let mut bytes = fs::read(&path).unwrap();
        bytes[at as usize] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let mut stand = Stand::open(dir, 41);
    assert!(stand.all().len() < 24_000, "events are missing");
    let index = stand.index();
    assert!(build(&index, usize::MAX) > 2);
    stand.check(&index);
    assert!(index.lag() < block::EVENTS_MAX as u64, "what is lost does not count as behind: {}", index.lag());
    index.set_trees(None);
    let again = stand.index();
    build(&again, 0);
    assert!(again.lag() < block::EVENTS_MAX as u64, "the index is believed when it is opened again");
}

#[tokio::test]
async fn a_frame_that_recovery_wrote_again_is_shown_once() {
    let stand = Stand::new(43, 9_000).await;
    let index = stand.index();
    build(&index, usize::MAX);
    index.set_trees(None);
    // Nobody closed this one, so its last frame is repeated in a segment of its own.
    let mut taken_over = Stand::open(stand.copy(), 43);
    let segments = taken_over.log.reader().segments();
    let [.., before, last] = &segments[..] else { panic!("{} segments", segments.len()) };
    assert!(last.header.first_offset < before.extent().next_offset, "the last frame is there twice");
    drop(segments);
    let index = taken_over.index();
    build(&index, 0);
    taken_over.check(&index);
    taken_over.publish(9_000).await;
    build(&index, usize::MAX);
    taken_over.check(&index);
    let all = index.events(&Wanted { limit: 20_000, ..Wanted::default() }).unwrap();
    assert_eq!(offsets(&all), (0..18_000).rev().collect::<Vec<_>>());
}
