//! A store on a [`SimDisk`], driven step by step, and what must be true of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_adapters::{Receipt, Refusal};
use sluice_schemas::{DataForm, Event};
use tokio::sync::{mpsc, oneshot};

use super::super::disk::Disk;
use super::super::format::SEGMENT_HEADER_BYTES;
use super::super::keeper::Keeper;
use super::super::open::open_by_hand;
use super::super::scan::Position;
use super::super::segment::Layout;
use super::super::snapshot::Folded;
use super::super::{
    Append, Attempted, DeliveryId, Log, LogRecord, NewEvent, Next, Offset, OpenError, Options, Record, State,
    TriggerEntry, TriggerId, TriggerSet, Upkeep, WindowSize, digest,
};
use super::disk::SimDisk;

pub const DIR: &str = "/sluice/data";

pub fn layout() -> Layout {
    Layout { dir: PathBuf::from(DIR) }
}

pub fn options() -> Options {
    Options {
        segment_bytes: 24 << 10,
        retention_bytes: 1 << 30,
        window: Some(WindowSize { window_ms: 600_000, entries: 10_000 }),
        upkeep: Upkeep { snapshot_interval: std::time::Duration::ZERO, ..Upkeep::default() },
        ..Options::bare(Path::new(DIR))
    }
}

/// An event whose identity and size follow from its id.
pub fn event(id: &str, bytes: usize) -> Arc<Event> {
    let data: Vec<u8> = id.bytes().cycle().take(bytes).collect();
    let event = Event::builder()
        .attribute("specversion", "1.0")
        .attribute("id", id)
        .attribute("source", "/tests")
        .attribute("type", "com.example.tested");
    Arc::new(event.data(data, DataForm::Opaque).build().unwrap())
}

pub fn new_event(event: &Arc<Event>) -> NewEvent {
    NewEvent {
        event: Arc::clone(event),
        via: "http".into(),
        trace: None,
        parent: None,
        hops: 0,
        key: digest::key("http", event),
        content: digest::content(event),
        unique: true,
    }
}

/// An open store.
pub struct Run {
    pub log: Log,
    pub state: State,
    pub keeper: Keeper,
    pub tail: mpsc::Receiver<Vec<Arc<Record>>>,
    pub torn_bytes: usize,
    pub gaps: usize,
    ended: oneshot::Receiver<std::io::Result<()>>,
}

impl Run {
    pub fn open(disk: &SimDisk, options: &Options) -> Result<Self, OpenError> {
        let (opened, keeper) = open_by_hand(Arc::new(disk.clone()), options)?;
        Ok(Self {
            log: opened.log,
            state: opened.state,
            keeper,
            tail: opened.tail,
            ended: opened.ended,
            torn_bytes: opened.recovery.torn_bytes,
            gaps: opened.recovery.gaps,
        })
    }

    pub fn append(
        &mut self,
        events: &[Arc<Event>],
        records: Vec<LogRecord>,
    ) -> Result<Vec<Receipt>, Refusal> {
        while self.tail.try_recv().is_ok() {}
        let (answer, answered) = oneshot::channel();
        let events = events.iter().map(new_event).collect();
        self.log.submit(Append { events, records, answer: Some(answer) });
        let silent = || Refusal::Unavailable { reason: "no answer".into() };
        Ok(answered.blocking_recv().map_err(|_| silent())??.receipts)
    }

    /// Appends one event and says where it is.
    pub fn put(&mut self, id: &str, bytes: usize) -> Offset {
        Offset(self.append(&[event(id, bytes)], vec![]).unwrap()[0].offset)
    }

    /// Stops and waits for the end.
    pub fn stop(self) -> std::io::Result<()> {
        let Self { log, tail, ended, .. } = self;
        drop(tail);
        log.stop();
        ended.blocking_recv().unwrap_or_else(|_| Err(std::io::Error::other("the writer died")))
    }

    /// Every event on the log, in order.
    pub fn events(&self) -> Vec<Record> {
        let mut found = Vec::new();
        self.log
            .reader()
            .walk(Offset(0), &mut |record, _| {
                if let LogRecord::Event(record) = record {
                    found.push(record);
                }
                true
            })
            .unwrap();
        found
    }

    /// The state that all frames add up to, snapshots aside; `None` when the first ones have been retired.
    pub fn fold_from_start(&self, options: &Options) -> Option<State> {
        let segments = self.log.reader().segments();
        let first = segments.first()?;
        if first.number() != 1 {
            return None;
        }
        let start = Position { segment: 1, at: SEGMENT_HEADER_BYTES, frame: 0 };
        let mut folded = Folded::start(self.state.base_ms, start, options.window);
        folded.catch_up(&segments, u64::MAX, options.outstanding).unwrap();
        Some(folded.state)
    }
}

/// Kills whatever runs on the disk.
pub fn kill(disk: &SimDisk, run: Run) -> SimDisk {
    let next = disk.kill();
    drop(run.stop());
    next
}

/// What has been promised.
#[derive(Clone, Default)]
pub struct Promises {
    /// Acknowledged, or found once: events by offset.
    pub events: Vec<Arc<Event>>,
    /// Not acknowledged: all of it may be there, or nothing.
    pub doubtful: Vec<Arc<Event>>,
}

impl Promises {
    /// Appends and remembers what was said.
    pub fn append(
        &mut self,
        run: &mut Run,
        events: &[Arc<Event>],
        records: Vec<LogRecord>,
    ) -> Result<Vec<Receipt>, Refusal> {
        let answer = run.append(events, records);
        match &answer {
            Ok(receipts) => {
                for (event, receipt) in events.iter().zip(receipts) {
                    if !receipt.duplicate {
                        assert_eq!(receipt.offset, self.events.len() as u64, "offsets go up by one");
                        self.events.push(Arc::clone(event));
                    }
                }
            }
            Err(Refusal::Unavailable { .. }) => self.doubtful = events.to_vec(),
            Err(Refusal::Full { .. } | Refusal::Conflict { .. } | Refusal::TooLarge { .. }) => {}
        }
        answer
    }

    /// Checks them against an open store, and takes up what turned out to be there.
    pub fn check(&mut self, run: &Run) {
        let first = run.log.reader().first_offset().0 as usize;
        let found = run.events();
        let next = first + found.len();
        for (at, record) in found.iter().enumerate() {
            assert_eq!(record.offset, Offset((first + at) as u64), "offsets without holes");
        }
        assert!(next >= self.events.len(), "{} were acknowledged, {next} are there", self.events.len());
        let new: Vec<_> =
            found.iter().skip(self.events.len() - first).map(|r| Arc::clone(&r.event)).collect();
        assert!(new.is_empty() || new == self.doubtful, "part of an append, or what nobody sent: {new:?}");
        for (record, promised) in found.iter().zip(&self.events[first..]) {
            assert_eq!(record.event, *promised, "offset {}", record.offset);
        }
        self.events.extend(new);
        self.doubtful.clear();
        for (offset, promised) in self.events.iter().enumerate().skip(first) {
            let read = run.log.reader().read(Offset(offset as u64)).unwrap_or_else(|error| {
                let segments = run.log.reader().segments();
                let segments: Vec<_> = segments.iter().map(|s| (s.header, s.extent())).collect();
                panic!("{error}: {segments:#?}")
            });
            assert_eq!(read.event, *promised, "offset {offset}");
        }
        assert_eq!(run.state.next_offset, Offset(self.events.len() as u64));
        check_books(&run.state);
    }
}

pub fn check_books(state: &State) {
    let routed_to = state.routed_to();
    for (id, trigger) in &state.triggers {
        let books = &state.books(trigger);
        let routed = routed_to.0.saturating_sub(trigger.birth.0);
        assert_eq!(books.seen(), routed, "{id:?}: seen = matched + unmatched + lost: {books:?}");
        assert!(books.matched >= books.delivered + books.dead + books.purged, "{id:?}: {books:?}");
        let held = (trigger.outstanding.len() + trigger.redriven.len()) as u64;
        if trigger.behind.is_none() {
            assert_eq!(books.pending(), held, "{id:?}: pending are outstanding: {books:?}");
        }
    }
    for id in state.dead.keys() {
        assert!(state.triggers.get(&id.trigger).is_none_or(|trigger| state.books(trigger).dead > 0));
    }
}

pub fn segment_files(disk: &SimDisk) -> Vec<PathBuf> {
    let names = disk.list(&layout().log()).unwrap();
    let mut paths: Vec<_> =
        names.iter().filter(|name| name.ends_with(".seg")).map(|name| layout().log().join(name)).collect();
    paths.sort();
    paths
}

/// How the first attempt of a delivery ended.
pub fn outcome(trigger: TriggerId, offset: u64, redrive: u32, next: Next) -> LogRecord {
    LogRecord::Outcomes(vec![Attempted {
        id: DeliveryId { trigger, offset: Offset(offset), redrive },
        attempt: 1,
        at_ms: 100,
        duration_ms: 1,
        status: None,
        error: None,
        body: bytes::Bytes::new(),
        owes_letter: false,
        next,
    }])
}

/// A set with one trigger, which takes everything from the start.
pub fn one_trigger() -> LogRecord {
    let entry = TriggerEntry {
        id: TriggerId(1),
        name: "all".into(),
        birth: Offset(0),
        filters: serde_json::Value::Null,
        removed_at_ms: None,
    };
    LogRecord::Triggers(TriggerSet { epoch: 1, at_ms: 1, triggers: vec![entry] }.into())
}
