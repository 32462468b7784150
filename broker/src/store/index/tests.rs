//! The index against a scan that knows nothing of it, and against everything that can happen to its directory.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use sluice_schemas::Event;
use tempfile::TempDir;

use super::super::{
    Attempted, DeliveryId, DiskFile, Lock, Log, LogRecord, NewEvent, Next, Offset, Options, Purge, RealDisk,
    Record, Routed, TriggerId, digest, open,
};
use super::*;

const SEGMENT_BYTES: u64 = 2 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// A log on disk, as random as its seed says.
struct Stand {
    dir: TempDir,
    log: Log,
    random: fastrand::Rng,
}

impl Stand {
    async fn new(seed: u64, events: usize) -> Self {
        Self::with_segments(SEGMENT_BYTES, seed, events).await
    }

    async fn with_segments(segment_bytes: u64, seed: u64, events: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let mut options = Options::bare(dir.path());
        options.segment_bytes = segment_bytes;
        let opened = open(Arc::new(RealDisk), &options).unwrap();
        let mut tail = opened.tail;
        tokio::spawn(async move { while tail.recv().await.is_some() {} });
        let mut stand = Self { dir, log: opened.log, random: fastrand::Rng::with_seed(seed) };
        stand.publish(events).await;
        stand
    }

    /// Events in frames of all sizes; some ids come again, some types are rare.
    async fn publish(&mut self, events: usize) {
        let mut left = events;
        while left > 0 {
            let count = self.random.usize(1..2000).min(left);
            left -= count;
            let new: Vec<_> = (0..count).map(|_| new_event(&mut self.random)).collect();
            let next = self.log.reader().segments().last().unwrap().extent().next_offset.0;
            let records = if next == 0 { Vec::new() } else { self.records(next) };
            self.log.append(new, records).await.unwrap();
        }
    }

    fn records(&mut self, next: u64) -> Vec<LogRecord> {
        let from = self.random.u64(0..next);
        let matches = vec![(Offset(from), vec![TriggerId(1)])];
        let to = Offset(from + self.random.u64(0..50));
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
            let offset = Offset(self.random.u64(0..all.len() as u64));
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
    index.outcomes(offset, &mut |record| note(&record, offset, &mut found)).unwrap();
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

/// Opens the index and indexes so many blocks at most; returns how many.
fn build(stand: &Stand, index: &Index, blocks: usize) -> usize {
    let trees = Arc::new(Trees::open(&index.dir, &stand.log.reader().segments()).unwrap());
    let done = (0..blocks).take_while(|_| index.step(&trees).unwrap()).count();
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

/// Runs the index on a directory in some shape until it is ready, checks it, and says whether it was set aside.
async fn check_rebuilt(stand: &mut Stand, index: Arc<Index>) -> bool {
    let running = std::thread::spawn({
        let index = Arc::clone(&index);
        move || index.run()
    });
    index.start();
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
            build(&stand, &index, blocks);
            stand.check(&index);
            stand.publish(300).await;
            stand.check(&index);
            assert_eq!(index.control().broken, None);
            index.set_trees(None);
        }
    }
}

#[tokio::test]
async fn goes_on_where_it_was_when_it_is_opened_again() {
    let mut stand = Stand::new(7, 16_000).await;
    let first = stand.index();
    assert_eq!(build(&stand, &first, 2), 2);
    let lag = first.lag();
    first.set_trees(None);
    let second = stand.index();
    build(&stand, &second, 0);
    assert_eq!(second.lag(), lag);
    stand.check(&second);
}

#[tokio::test]
async fn a_broken_directory_is_set_aside_and_rebuilt() {
    type Breaking = fn(&std::path::Path);
    let breakings: [(&str, bool, Breaking); 5] = [
        ("deleted", false, |dir| fs::remove_dir_all(dir).unwrap()),
        ("a file in its place", true, |dir| {
            fs::remove_dir_all(dir).unwrap();
            fs::create_dir(dir).unwrap();
            fs::create_dir(dir.join("db")).unwrap();
        }),
        ("a corrupt configuration", true, |dir| fs::write(dir.join("conf"), [0xa5; 300]).unwrap()),
        ("a corrupt db", false, |dir| {
            let bytes = fs::metadata(dir.join("db")).unwrap().len() as usize;
            fs::write(dir.join("db"), vec![0xa5; bytes]).unwrap();
        }),
        ("a truncated db", false, |dir| {
            let file = fs::OpenOptions::new().write(true).open(dir.join("db")).unwrap();
            file.set_len(file.metadata().unwrap().len() / 3).unwrap();
        }),
    ];
    let mut stand = Stand::new(11, 10_000).await;
    for (name, must_be_set_aside, breaking) in breakings {
        let index = stand.index();
        build(&stand, &index, usize::MAX);
        index.set_trees(None);
        let aside = index.dir.with_extension("broken");
        if aside.exists() {
            fs::remove_dir_all(&aside).unwrap();
        }
        breaking(&index.dir);
        let was_set_aside = check_rebuilt(&mut stand, Arc::new(index)).await;
        assert!(was_set_aside || !must_be_set_aside, "{name}");
    }
}

#[tokio::test]
async fn a_value_that_is_missing_is_noticed_and_the_index_rebuilt() {
    let mut stand = Stand::new(13, 10_000).await;
    let index = stand.index();
    build(&stand, &index, usize::MAX);
    index.set_trees(None);
    let db = sled::open(&index.dir).unwrap();
    for name in db.tree_names() {
        let tree = db.open_tree(name).unwrap();
        for key in tree.iter().keys().map(Result::unwrap).filter(|key| b"itso".contains(&key[0])) {
            tree.remove(key).unwrap();
        }
    }
    drop(db);
    assert!(check_rebuilt(&mut stand, Arc::new(index)).await, "a look-up notices");
}

#[test]
fn a_panic_in_the_database_is_an_error() {
    let result: Result<(), _> = tree::guarded(|| panic!("index out of bounds"));
    assert_eq!(result.unwrap_err().to_string(), "sled panicked: index out of bounds");
}

/// Whatever bytes of whatever file are wrong, the answers are right, while the index finds out and afterwards.
#[tokio::test]
async fn random_damage_never_shows_in_an_answer() {
    let mut stand = Stand::new(19, 10_000).await;
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let index = stand.index();
        build(&stand, &index, usize::MAX);
        index.set_trees(None);
        let files = fs::read_dir(&index.dir).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
        files.sort();
        let path = &files[random.usize(0..files.len())];
        let mut bytes = fs::read(path).unwrap();
        match random.u32(0..3) {
            0 => bytes.truncate(random.usize(0..=bytes.len())),
            _ if bytes.is_empty() => bytes.push(1),
            1 => (0..random.usize(1..40)).for_each(|_| {
                let at = random.usize(0..bytes.len());
                bytes[at] = random.u8(..);
            }),
            _ => {
                let from = random.usize(0..bytes.len());
                let to = (from + 4096).min(bytes.len());
                random.fill(&mut bytes[from..to]);
            }
        }
        fs::write(path, bytes).unwrap();
        check_rebuilt(&mut stand, Arc::new(index)).await;
    }
}

/// A disk that tells what it is told to, and panics once.
struct Moody {
    free_bytes: AtomicU64,
    panics: AtomicBool,
}

impl Disk for Moody {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        assert!(!self.panics.swap(false, Relaxed), "a mood");
        RealDisk.create_dir(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.free_bytes.load(Relaxed))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        RealDisk.lock(path)
    }
}

fn moody(free_bytes: u64, panics: bool) -> Arc<Moody> {
    Arc::new(Moody { free_bytes: free_bytes.into(), panics: panics.into() })
}

#[tokio::test]
async fn an_open_that_panics_is_tried_again_on_a_new_directory() {
    let mut stand = Stand::new(23, 6_000).await;
    let index = stand.index();
    build(&stand, &index, usize::MAX);
    index.set_trees(None);
    let index = stand.index_with(Room { disk: moody(u64::MAX, true), free_bytes_min: 0 });
    assert!(check_rebuilt(&mut stand, Arc::new(index)).await, "the directory was set aside");
}

#[tokio::test]
async fn on_a_disk_without_room_the_index_waits_and_look_ups_scan() {
    let mut stand = Stand::new(29, 6_000).await;
    let disk = moody(SPARED_BYTES, false);
    let room = Room { disk: Arc::clone(&disk) as Arc<dyn Disk>, free_bytes_min: 1 };
    let index = Arc::new(stand.index_with(room));
    let running = std::thread::spawn({
        let index = Arc::clone(&index);
        move || index.run()
    });
    index.start();
    until("the index waits", || index.state() == IndexState::Waiting).await;
    stand.check(&index);
    assert!(!index.dir.exists(), "nothing is written");
    disk.free_bytes.store(u64::MAX, Relaxed);
    until("the index is ready", || index.state() == IndexState::Ready).await;
    disk.free_bytes.store(0, Relaxed);
    until("the index waits again", || index.state() == IndexState::Waiting).await;
    let lag = index.lag();
    stand.publish(5000).await;
    stand.check(&index);
    assert_eq!(index.lag(), lag + 5000, "what is indexed stays, and nothing is added");
    index.stop();
    running.join().unwrap();
    assert!(!index.dir.with_extension("broken").exists());
}

#[tokio::test]
async fn an_index_that_found_the_disk_full_leaves_nothing_behind() {
    let mut stand = Stand::new(31, 6_000).await;
    let index = stand.index();
    for error in [
        IndexError::Sled(sled::Error::Io(io::Error::from_raw_os_error(28))),
        IndexError::Panicked("called `unwrap` on Io(Custom { kind: StorageFull, error: .. })".into()),
    ] {
        build(&stand, &index, usize::MAX);
        index.start_over(&error);
        assert_eq!(index.state(), IndexState::Waiting);
        assert!(!index.dir.exists() && !index.dir.with_extension("broken").exists());
        stand.check(&index);
    }
}

#[tokio::test]
async fn a_retired_segment_is_not_held_and_its_tree_is_dropped() {
    let mut stand = Stand::new(17, 24_000).await;
    let index = stand.index();
    let trees = Arc::new(Trees::open(&index.dir, &stand.log.reader().segments()).unwrap());
    while index.step(&trees).unwrap() {}
    index.set_trees(Some(Arc::clone(&trees)));
    let reader = Arc::clone(stand.log.reader());
    let before = trees.names();
    assert!(before > 1, "{before} segments");
    let first = reader.segments()[0].number();
    // The keeper leases segments for moments, too; the index has dropped its lease with the block.
    until("the segment is free", || reader.take_oldest(first).is_some()).await;
    index.step(&trees).unwrap();
    assert_eq!(trees.names(), before - 1);
    let names: BTreeSet<_> = reader.segments().iter().map(|segment| segment.number()).collect();
    assert!(names.iter().all(|number| *number != first));
    let found = index.events(&Wanted { limit: 10, ..Wanted::default() }).unwrap();
    assert_eq!(found.len(), 10);
    stand.publish(10).await;
}

/// Run with `--ignored --nocapture`, in release.
#[tokio::test]
#[ignore = "a measurement"]
async fn by_id_over_a_million_events() {
    let mut stand = Stand::with_segments(64 << 20, 1, 0).await;
    for block in 0..500_u32 {
        let new = (0..2000_u32).map(|at| {
            let event = Event::builder()
                .attribute("specversion", "1.0")
                .attribute("id", &(block * 2000 + at).to_string())
                .attribute("source", "/orders")
                .attribute("type", if at == 0 { "rare" } else { "order" })
                .data(vec![b'x'; 256], sluice_schemas::DataForm::Opaque);
            stored(event.build().unwrap(), "http")
        });
        let offset = Offset(u64::from(block.saturating_sub(1) * 2000));
        let outcomes = (0..2000).map(|at| attempted(Offset(offset.0 + at), 1));
        stand.log.append(new.collect(), vec![LogRecord::Outcomes(outcomes.collect())]).await.unwrap();
    }
    let index = stand.index();
    let time = |what: &str, work: &dyn Fn()| {
        let started = Instant::now();
        work();
        println!("{what}: {:?}", started.elapsed());
    };
    let rare = Wanted { ty: Some("rare".into()), limit: 100, ..Wanted::default() };
    let look_up = |when: &str| {
        time(&format!("{when}: by id"), &|| drop(index.by_id("/orders", "1234").unwrap()));
        time(&format!("{when}: 100 of a rare type"), &|| drop(index.events(&rare).unwrap()));
        time(&format!("{when}: outcomes"), &|| drop(outcomes(&index, Offset(1234))));
    };
    look_up("scan");
    time("build", &|| assert!(build(&stand, &index, usize::MAX) > 0));
    look_up("index");
    index.set_trees(None);
    let size: u64 = fs::read_dir(&index.dir).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    let blobs = fs::read_dir(index.dir.join("blobs")).map_or(0, Iterator::count);
    println!("index: {} MiB, {blobs} blobs; log: {} MiB", size >> 20, stand.log.report().bytes >> 20);
    stand.publish(1).await;
}
