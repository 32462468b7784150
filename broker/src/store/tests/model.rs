//! The store beside a naive model: random lives, and what was promised in them.

use std::collections::BTreeMap;

use sluice_adapters::Refusal;

use super::super::{
    Aside, AsidesGone, Attempted, DeliveryId, LogRecord, Mark, Next, Offset, Options, Pause, Purge, Redrive,
    Routed, SourcePause, State, TriggerEntry, TriggerId,
};
use super::disk::SimDisk;
use super::rig::{Promises, Run, check_books, event, kill, options};
use crate::delivery::Reason;

struct Model {
    random: fastrand::Rng,
    options: Options,
    disk: SimDisk,
    promises: Promises,
    /// The fold of what was acknowledged.
    state: State,
    /// Records of an append that was not acknowledged.
    doubtful: Vec<LogRecord>,
    /// Deliveries known as settled: they are never outstanding again.
    settled: BTreeMap<DeliveryId, bool>,
    names: u64,
    /// How many attempts of each delivery were acknowledged.
    attempts: BTreeMap<DeliveryId, usize>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let is_small = random.bool();
        let options = Options {
            segment_bytes: 16 << 10,
            retention_bytes: if is_small { 80 << 10 } else { 1 << 30 },
            retention_age_ms: 0,
            ..options()
        };
        Self {
            random,
            options,
            disk: SimDisk::new(),
            promises: Promises::default(),
            state: State::new(0),
            doubtful: vec![],
            settled: BTreeMap::new(),
            names: 0,
            attempts: BTreeMap::new(),
        }
    }

    fn live(&mut self, steps: usize) {
        let mut run = self.open();
        for _ in 0..steps {
            match self.random.u32(0..100) {
                0..40 => self.append_events(&mut run),
                40..48 => self.repeat_event(&mut run),
                48..90 => {
                    let record = self.control();
                    self.commit(&mut run, &[], record.into_iter().collect());
                }
                90..94 => {
                    run.keeper.step();
                    self.check_kept(&run);
                }
                94..96 => {
                    run.stop().unwrap();
                    run = self.open();
                }
                96..98 => {
                    self.disk = kill(&self.disk, run);
                    run = self.open();
                }
                _ => run = self.lose_power(run),
            }
        }
        drop(run);
    }

    fn open(&mut self) -> Run {
        let run = Run::open(&self.disk, &self.options).unwrap();
        let before = self.promises.events.len();
        self.promises.check(&run);
        self.state.base_ms = run.state.base_ms;
        if run.state.encode() != self.state.encode() {
            // The append that was not acknowledged is there, all of it.
            let records = std::mem::take(&mut self.doubtful);
            self.fold(&run, before, &records);
        }
        self.doubtful.clear();
        assert_eq!(text(&run.state), text(&self.state), "the state is the fold of what was acknowledged");
        if let Some(folded) = run.fold_from_start(&self.options) {
            assert_eq!(text(&folded), text(&run.state), "with a snapshot and without");
        }
        self.check_kept(&run);
        run
    }

    /// Whatever is dead or put aside can be shown, whether its segments are there or not.
    fn check_kept(&self, run: &Run) {
        let reader = run.log.reader();
        let redriven =
            self.state.triggers.values().flat_map(|held| held.redriven.keys().map(|(offset, _)| *offset));
        for offset in self.state.dead.keys().map(|id| id.offset).chain(redriven) {
            let read = reader.read(offset).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(read.event, self.promises.events[offset.0 as usize], "offset {offset}");
        }
        for id in self.state.dead.keys() {
            let kept = reader.kept_attempts(id.offset).unwrap();
            let mut found: Vec<_> = kept.into_iter().filter(|attempted| attempted.id == *id).collect();
            reader
                .walk(id.offset, &mut |record, _| {
                    let LogRecord::Outcomes(list) = record else { return true };
                    found.extend(list.into_iter().filter(|attempted| attempted.id == *id));
                    true
                })
                .unwrap();
            found.sort_by_key(|attempted| attempted.at_ms);
            found.dedup();
            assert_eq!(found.len(), self.attempts[id], "attempts of {id:?}");
        }
        for (number, entry) in self.state.asides.iter() {
            let found = reader.read_aside(number, entry.near).unwrap();
            let expected = aside(number, std::sync::Arc::clone(&entry.source), entry.near);
            assert_eq!(found, Some(expected));
        }
    }

    /// Cuts the power while something is being written.
    fn lose_power(&mut self, mut run: Run) -> Run {
        let at = self.random.u64(1..6);
        self.disk.set_fault(Some((at, super::disk::Fault::PowerCut)));
        for _ in 0..8 {
            if self.random.bool() {
                self.append_events(&mut run);
            } else {
                let record = self.control();
                self.commit(&mut run, &[], record.into_iter().collect());
            }
            if !self.doubtful.is_empty() || !self.promises.doubtful.is_empty() {
                break;
            }
            run.keeper.step();
        }
        drop(run.stop());
        let seed = self.random.u64(0..1000);
        self.disk = self.disk.power_cut(seed);
        self.open()
    }

    fn append_events(&mut self, run: &mut Run) {
        let events: Vec<_> = (0..self.random.usize(1..4))
            .map(|_| {
                self.names += 1;
                event(&format!("e{}", self.names), self.random.usize(0..1200))
            })
            .collect();
        let records = if self.random.u8(0..4) == 0 { self.control().into_iter().collect() } else { vec![] };
        self.commit(run, &events, records);
    }

    fn commit(
        &mut self,
        run: &mut Run,
        events: &[std::sync::Arc<sluice_schemas::Event>],
        records: Vec<LogRecord>,
    ) {
        if events.is_empty() && records.is_empty() {
            return;
        }
        let before = self.promises.events.len();
        match self.promises.append(run, events, records.clone()) {
            Ok(_) => self.fold(run, before, &records),
            Err(Refusal::Unavailable { .. }) => self.doubtful = records,
            Err(Refusal::Full { .. }) => assert!(self.options.retention_bytes < 1 << 30, "not full"),
            Err(refusal) => panic!("{refusal}"),
        }
    }

    fn fold(&mut self, run: &Run, before: usize, records: &[LogRecord]) {
        for offset in before..self.promises.events.len() {
            let record = run.log.reader().read(Offset(offset as u64)).unwrap();
            self.state.apply(&LogRecord::Event((*record).clone()), &|_| true);
        }
        for record in records {
            self.state.apply(record, &|_| true);
            if let LogRecord::Outcomes(list) = record {
                list.iter().for_each(|attempted| *self.attempts.entry(attempted.id).or_default() += 1);
                for attempted in list.iter().filter(|a| !matches!(a.next, Next::RetryAt { .. })) {
                    self.settled.insert(attempted.id, true);
                }
            }
        }
        check_books(&self.state);
        for (id, trigger) in &self.state.triggers {
            for slot in trigger.outstanding.iter() {
                let id = DeliveryId { trigger: *id, offset: slot.offset(), redrive: 0 };
                assert!(!self.settled.contains_key(&id), "{id:?} is outstanding again");
            }
        }
    }

    /// A duplicate of an event, or its key with other content.
    fn repeat_event(&mut self, run: &mut Run) {
        let first = run.log.reader().first_offset().0 as usize;
        if self.promises.events.len() <= first {
            return;
        }
        let at = self.random.usize(first..self.promises.events.len());
        let known = std::sync::Arc::clone(&self.promises.events[at]);
        if self.random.bool() {
            let receipts = run.append(&[event("fresh", 1), known], vec![]);
            // Whatever else there is in it, a conflict stores nothing; here there is none.
            match receipts {
                Ok(receipts) => {
                    assert_eq!((receipts[1].offset, receipts[1].duplicate), (at as u64, true));
                    if !receipts[0].duplicate {
                        let before = self.promises.events.len();
                        self.promises.events.push(event("fresh", 1));
                        self.fold(run, before, &[]);
                    }
                }
                Err(Refusal::Full { .. }) => {}
                Err(refusal) => panic!("{refusal}"),
            }
        } else {
            let length = known.data().map_or(0, |data| data.bytes.len()) + 1;
            let answer = run.append(&[event("never", 5), event(known.id(), length)], vec![]);
            match answer {
                Err(Refusal::Conflict { index: 1, offset }) => assert_eq!(offset, at as u64),
                Err(Refusal::Full { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// A record that makes sense now.
    fn control(&mut self) -> Option<LogRecord> {
        let state = &self.state;
        let random = &mut self.random;
        let trigger = random.choice(state.triggers.keys().copied().collect::<Vec<_>>());
        match random.u32(0..10) {
            0 if state.triggers.len() < 3 => {
                let mut set = super::super::TriggerSet::clone(&state.set);
                set.epoch += 1;
                let id = TriggerId(state.next_trigger);
                set.triggers.push(TriggerEntry {
                    id,
                    name: format!("t{}", id.0),
                    birth: state.next_offset,
                    filters: serde_json::Value::Null,
                    removed_at_ms: None,
                });
                Some(LogRecord::Triggers(set.into()))
            }
            0..4 => {
                let (from, end) = *state.unrouted.first()?;
                let to = Offset(random.u64(from.0..end.0));
                let ids: Vec<_> = state.triggers.keys().copied().collect();
                let mut matches = Vec::new();
                for offset in from.0..=to.0 {
                    let matched: Vec<_> = ids.iter().copied().filter(|_| random.bool()).collect();
                    if !matched.is_empty() {
                        matches.push((Offset(offset), matched));
                    }
                }
                Some(LogRecord::Routed(Routed { epoch: state.set.epoch, from, to, matches, only: None }))
            }
            4..8 => {
                let id = trigger?;
                let held = &state.triggers[&id];
                let mut open: Vec<_> = held.outstanding.iter().map(|slot| (slot.offset(), 0)).collect();
                open.extend(held.redriven.keys());
                random.shuffle(&mut open);
                open.truncate(5);
                let attempts = open.into_iter().map(|(offset, redrive)| Attempted {
                    id: DeliveryId { trigger: id, offset, redrive },
                    attempt: 1,
                    at_ms: random.u64(..),
                    duration_ms: 3,
                    status: Some(200),
                    error: None,
                    body: bytes::Bytes::from_static(b"no"),
                    owes_letter: random.bool(),
                    next: match random.u8(0..4) {
                        0 => Next::RetryAt { begun_ms: random.u64(..), due_ms: 5000 },
                        1 => Next::Dead(Reason::Attempts),
                        _ => Next::Delivered,
                    },
                });
                let attempts: Vec<_> = attempts.collect();
                (!attempts.is_empty()).then_some(LogRecord::Outcomes(attempts))
            }
            8 if random.bool() => self.of_a_source(),
            8 => {
                let reason = random.bool().then(|| "asked to".to_owned());
                Some(LogRecord::Pause(Pause { trigger: trigger?, at_ms: 20, reason }))
            }
            _ => {
                let id = random.choice(state.dead.keys().copied().collect::<Vec<_>>())?;
                if state.owed.contains(&id) && random.bool() {
                    return Some(LogRecord::Told(vec![id]));
                }
                if random.bool() {
                    return Some(LogRecord::Purge(Purge { at_ms: 30, ids: vec![id] }));
                }
                let to = DeliveryId { redrive: state.redrives + 1, ..id };
                Some(LogRecord::Redrive(Redrive { at_ms: 30, moved: vec![(id, to)] }))
            }
        }
    }

    /// A record of a source.
    fn of_a_source(&mut self) -> Option<LogRecord> {
        let (state, random) = (&self.state, &mut self.random);
        let source = std::sync::Arc::from(if random.bool() { "orders" } else { "nightly" });
        Some(match random.u8(0..4) {
            0 => LogRecord::Mark(Mark { source, text: random.u64(..).to_string() }),
            1 => {
                let reason = random.bool().then(|| "asked to".to_owned());
                LogRecord::SourcePause(SourcePause { source, at_ms: 40, reason })
            }
            2 => {
                let numbers =
                    vec![random.choice(state.asides.iter().map(|(number, _)| number).collect::<Vec<_>>())?];
                LogRecord::AsidesGone(AsidesGone { at_ms: 50, numbers })
            }
            _ => LogRecord::Aside(aside(state.last_aside + 1, source, state.next_offset)),
        })
    }
}

/// What was put aside, its content known from its number.
fn aside(number: u64, source: std::sync::Arc<str>, near: Offset) -> Aside {
    let body = bytes::Bytes::from(number.to_string().repeat(40));
    let size = body.len() + number as usize % 2;
    let record = sluice_adapters::Record {
        position: format!("t/0/{number}"),
        body: Some(body),
        ..sluice_adapters::Record::default()
    };
    let unfit = sluice_adapters::Unfit { is_conflict: number.is_multiple_of(3), detail: "no `type`".into() };
    Aside { number, at_ms: 60, source, near, aside: sluice_adapters::Aside { record, unfit, size } }
}

fn text(state: &State) -> String {
    String::from_utf8_lossy(&state.encode()).into_owned()
}

#[test]
fn random_lives_keep_every_promise() {
    for seed in 0..60 {
        let lived = std::panic::catch_unwind(|| Model::new(seed).live(250));
        assert!(lived.is_ok(), "seed {seed}");
    }
}
