//! The parts alone: deliveries outstanding, what the records add up to, the reader, snapshots, leases.

use std::collections::BTreeMap;

use super::super::disk::Disk;
use super::super::state::Outstanding;
use super::super::stream::Input;
use super::super::{
    Aside, DeliveryId, Gap, LogRecord, Next, Offset, Options, Purge, Redrive, Routed, Slot, State,
    TriggerEntry, TriggerId, TriggerSet,
};
use super::disk::SimDisk;
use super::rig::{Run, check_books, event, options, outcome, segment_files};
use crate::delivery::Reason;

const FIRST: TriggerId = TriggerId(1);
const SECOND: TriggerId = TriggerId(2);

fn state(events: u64) -> State {
    let mut state = State::new(0);
    let entry = |id: TriggerId| TriggerEntry {
        id,
        name: format!("t{}", id.0),
        birth: Offset(0),
        filters: serde_json::Value::Null,
        removed_at_ms: None,
    };
    let set = TriggerSet { epoch: 1, at_ms: 0, triggers: vec![entry(FIRST), entry(SECOND)] };
    state.apply(&LogRecord::Triggers(set.into()), &|_| true);
    (0..events).for_each(|offset| state.events(Offset(offset), Offset(offset + 1), offset));
    state
}

fn routed(from: u64, to: u64, ids: &[TriggerId]) -> LogRecord {
    let matches = (from..=to).map(|offset| (Offset(offset), ids.to_vec())).collect();
    LogRecord::Routed(Routed { epoch: 1, from: Offset(from), to: Offset(to), matches, only: None })
}

fn apply(state: &mut State, records: &[LogRecord]) {
    for record in records {
        state.apply(record, &|_| true);
    }
}

#[test]
fn outstanding_deliveries_are_an_ordered_map() {
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut real, mut model) = (Outstanding::default(), BTreeMap::new());
        for step in 0..2000u64 {
            let known = random.choice(model.keys().copied().collect::<Vec<u64>>());
            match (random.u8(0..10), known) {
                (0..5, _) => {
                    let offset = if random.u8(0..8) == 0 { random.u64(0..step + 1) } else { step };
                    real.push(Slot::new(Offset(offset)));
                    model.insert(offset, ());
                }
                (_, Some(offset)) => {
                    assert!(real.remove(Offset(offset)));
                    assert!(!real.remove(Offset(offset)), "only once");
                    model.remove(&offset);
                }
                _ => {}
            }
            assert_eq!(real.len(), model.len());
            assert_eq!(real.first().map(|offset| offset.0), model.keys().next().copied());
            if step % 50 == 0 {
                let from = random.u64(0..2000);
                let offsets: Vec<_> = real.iter_from(Offset(from)).map(|slot| slot.offset().0).collect();
                assert_eq!(offsets, model.range(from..).map(|(offset, ())| *offset).collect::<Vec<_>>());
                assert_eq!(real.iter().count(), model.len());
            }
        }
    }
}

#[test]
fn an_event_whose_frame_is_damaged_and_whose_matches_are_not_is_counted_once() {
    let mut state = state(1);
    // The frame with event 1 is not whole; the next one begins with what event 1 matched.
    apply(&mut state, &[routed(0, 0, &[FIRST]), routed(1, 1, &[FIRST])]);
    state.events(Offset(2), Offset(3), 2);
    apply(&mut state, &[routed(2, 2, &[FIRST]), outcome(FIRST, 0, 0, Next::Delivered)]);
    let gap = Gap { at_ms: 0, from: Offset(1), to: Offset(2), segment: 1, start: 0, end: 0 };
    apply(&mut state, &[LogRecord::Gap(gap)]);
    let books = state.books(&state.triggers[&FIRST]);
    assert_eq!((books.seen(), books.matched, books.lost, books.pending()), (3, 2, 1, 1), "{books:?}");
    let books = state.books(&state.triggers[&SECOND]);
    assert_eq!((books.seen(), books.unmatched), (3, 3), "{books:?}");
}

#[test]
fn a_gap_takes_what_is_pending_dead_or_unrouted_and_leaves_what_is_settled() {
    let mut state = state(10);
    apply(
        &mut state,
        &[
            routed(0, 6, &[FIRST]),
            outcome(FIRST, 0, 0, Next::Delivered),
            outcome(FIRST, 2, 0, Next::Delivered),
            outcome(FIRST, 3, 0, Next::Dead(Reason::Attempts)),
            LogRecord::Gap(Gap { at_ms: 0, from: Offset(2), to: Offset(9), segment: 1, start: 0, end: 0 }),
        ],
    );
    let books = state.books(&state.triggers[&FIRST]);
    assert_eq!((books.delivered, books.dead, books.lost, books.pending()), (2, 0, 6, 1));
    assert_eq!(state.books(&state.triggers[&SECOND]).lost, 2);
    assert_eq!(state.unrouted, [(Offset(9), Offset(10))]);
    assert_eq!(state.routed_to(), Offset(9));
    apply(&mut state, &[routed(9, 9, &[])]);
    check_books(&state);
    // What comes late for the lost changes nothing.
    let before = state.encode();
    apply(&mut state, &[outcome(FIRST, 4, 0, Next::Delivered), outcome(FIRST, 3, 1, Next::Delivered)]);
    assert_eq!(state.encode(), before);
}

#[test]
fn a_redrive_is_a_new_delivery_and_a_purge_ends_one() {
    let mut state = state(3);
    let id = |trigger, redrive| DeliveryId { trigger, offset: Offset(1), redrive };
    apply(
        &mut state,
        &[
            routed(0, 2, &[FIRST]),
            outcome(FIRST, 1, 0, Next::Dead(Reason::Attempts)),
            LogRecord::Redrive(Redrive { at_ms: 1, moved: vec![(id(FIRST, 0), id(FIRST, 1))] }),
        ],
    );
    assert!(state.dead.is_empty());
    assert!(state.triggers[&FIRST].slot(id(FIRST, 1)).is_some_and(|slot| slot.attempts == 0));
    assert_eq!(state.floor(), Offset(0));
    apply(
        &mut state,
        &[
            outcome(FIRST, 0, 0, Next::Delivered),
            outcome(FIRST, 1, 1, Next::Dead(Reason::Attempts)),
            LogRecord::Redrive(Redrive { at_ms: 1, moved: vec![(id(FIRST, 1), id(SECOND, 2))] }),
        ],
    );
    let (first, second) = (state.books(&state.triggers[&FIRST]), state.books(&state.triggers[&SECOND]));
    assert_eq!((first.dead, first.purged, first.pending()), (0, 1, 1));
    assert_eq!((second.matched, second.pending()), (1, 1));
    assert_eq!(state.redrives, 2);
    apply(
        &mut state,
        &[
            outcome(SECOND, 1, 2, Next::Dead(Reason::Attempts)),
            LogRecord::Purge(Purge { at_ms: 2, ids: vec![id(SECOND, 2), id(SECOND, 2), id(FIRST, 9)] }),
        ],
    );
    let second = state.books(&state.triggers[&SECOND]);
    assert_eq!((second.dead, second.purged, second.pending()), (0, 1, 0));
    let disk = SimDisk::new();
    let file = disk.create(std::path::Path::new("/state")).unwrap();
    file.write_at(&state.encode(), 0).unwrap();
    let again = State::decode(&mut Input::new(&*file, 0).unwrap(), 2).unwrap();
    assert_eq!(again.encode(), state.encode());
}

#[test]
fn a_full_window_falls_behind_and_loses_no_match_whatever_its_order() {
    let mut state = state(10);
    let room = |trigger: &super::super::TriggerState| trigger.outstanding.len() < 3;
    state.apply(&routed(4, 9, &[FIRST]), &room);
    assert_eq!(state.triggers[&FIRST].behind, Some(Offset(7)));
    // History is routed afterwards, below what is behind.
    state.apply(&routed(0, 3, &[FIRST]), &room);
    for offset in 0..10 {
        state.apply(&outcome(FIRST, offset, 0, Next::Delivered), &room);
    }
    let trigger = &state.triggers[&FIRST];
    assert_eq!(state.books(trigger).delivered, 10);
    assert!(trigger.outstanding.is_empty(), "{trigger:?}");
}

#[test]
fn a_retry_is_due_when_it_was_said_also_if_the_clock_was_ahead_when_the_store_was_made() {
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options()).unwrap();
    let at_ms = super::super::clock::wall_ms() - 2 * 365 * 24 * 3_600_000;
    let due_ms = at_ms + 1000;
    let LogRecord::Outcomes(attempts) = outcome(FIRST, 0, 0, Next::RetryAt { begun_ms: at_ms, due_ms })
    else {
        return;
    };
    let records = vec![super::rig::one_trigger(), routed(0, 0, &[FIRST]), LogRecord::Outcomes(attempts)];
    run.append(&[event("0", 10)], records).unwrap();
    run.stop().unwrap();
    let run = Run::open(&disk, &options()).unwrap();
    let slot = run.state.triggers[&FIRST].outstanding.get(Offset(0)).unwrap();
    let base_ms = run.state.base_ms;
    let due = slot.due_ms(base_ms);
    assert!((due_ms..due_ms + 20).contains(&due), "{due} for {due_ms}");
    assert!(slot.first_ms(base_ms).is_some_and(|first| (at_ms - 10..=at_ms).contains(&first)));
    run.stop().unwrap();
}

#[test]
fn every_offset_is_read_across_segments_before_and_after_a_restart() {
    let options = Options { window: None, segment_bytes: 16 << 10, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    for n in 0..20u64 {
        let events: Vec<_> = (0..3).map(|part| event(&(n * 3 + part).to_string(), 500)).collect();
        run.append(&events, vec![]).unwrap();
        if n == 15 {
            run.keeper.step();
        }
    }
    let check = |run: &Run| {
        for offset in 0..60 {
            assert_eq!(run.log.reader().read(Offset(offset)).unwrap().event.id(), offset.to_string());
        }
        assert!(run.log.reader().read(Offset(60)).is_err());
    };
    check(&run);
    let disk = super::rig::kill(&disk, run);
    let run = Run::open(&disk, &options).unwrap();
    check(&run);
    run.stop().unwrap();
    check(&Run::open(&disk, &options).unwrap());
}

#[test]
fn snapshots_stay_two_and_retention_waits_for_age_and_for_leases() {
    let young = Options { window: None, segment_bytes: 12 << 10, retention_age_ms: 1 << 40, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &young).unwrap();
    let fill = |run: &mut Run, from: u64| {
        for n in from..from + 20 {
            let offset = run.put(&n.to_string(), 1400);
            run.append(&[], vec![routed(offset.0, offset.0, &[])]).unwrap();
            run.keeper.step();
        }
    };
    fill(&mut run, 0);
    let snapshots = disk.names().into_iter().filter(|path| path.extension().is_some_and(|e| e == "snap"));
    assert_eq!(snapshots.count(), 2);
    run.stop().unwrap();
    // A restart does not make segments old.
    let mut run = Run::open(&disk, &young).unwrap();
    (0..3).for_each(|_| run.keeper.step());
    assert!(segment_files(&disk)[0].ends_with("000000000001.seg"));
    run.stop().unwrap();
    let old = Options { retention_age_ms: 0, ..young };
    let mut run = Run::open(&disk, &old).unwrap();
    let lease = run.log.reader().segments()[1].clone();
    fill(&mut run, 20);
    assert!(segment_files(&disk)[0].ends_with("000000000002.seg"), "{:?}", segment_files(&disk));
    drop(lease);
    fill(&mut run, 40);
    assert!(!segment_files(&disk)[0].ends_with("000000000002.seg"));
    assert!(run.log.reader().read(Offset(0)).is_err());
}

#[test]
fn a_trigger_that_fell_behind_and_caught_up_does_not_hold_segments() {
    let options =
        Options { window: None, segment_bytes: 12 << 10, retention_age_ms: 0, outstanding: 4, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    let LogRecord::Triggers(set) = LogRecord::Triggers(state(0).set) else { unreachable!() };
    run.append(&[], vec![LogRecord::Triggers(set)]).unwrap();
    for n in 0..30 {
        let offset = run.put(&n.to_string(), 1400);
        run.append(&[], vec![routed(offset.0, offset.0, &[FIRST])]).unwrap();
        run.keeper.step();
    }
    for offset in 0..30 {
        run.append(&[], vec![outcome(FIRST, offset, 0, Next::Delivered)]).unwrap();
    }
    for n in 30..60 {
        let offset = run.put(&n.to_string(), 1400);
        run.append(&[], vec![routed(offset.0, offset.0, &[FIRST])]).unwrap();
        run.append(&[], vec![outcome(FIRST, offset.0, 0, Next::Delivered)]).unwrap();
        run.keeper.step();
    }
    assert!(run.log.reader().first_offset() > Offset(30), "{:?}", run.log.report());
    run.stop().unwrap();
    let run = Run::open(&disk, &options).unwrap();
    let trigger = &run.state.triggers[&FIRST];
    assert_eq!((run.state.books(trigger).delivered, trigger.behind), (60, None));
    assert!(trigger.ahead.is_empty());
}

#[test]
fn an_append_larger_than_a_segment_is_refused_and_many_small_ones_are_not() {
    let disk = SimDisk::new();
    let options = Options { segment_bytes: 12 << 10, ..options() };
    let mut run = Run::open(&disk, &options).unwrap();
    assert!(run.append(&[event("large", 9000)], vec![]).is_err());
    let answers: Vec<_> = (0..40)
        .map(|n| {
            let (answer, answered) = tokio::sync::oneshot::channel();
            let events = vec![super::rig::new_event(&event(&n.to_string(), 1000))];
            run.log.submit(super::super::Append { events, records: vec![], answer: Some(answer) });
            answered
        })
        .collect();
    let offsets: Vec<_> =
        answers.into_iter().map(|a| a.blocking_recv().unwrap().unwrap().receipts[0].offset).collect();
    assert_eq!(offsets, (0..40).collect::<Vec<_>>());
    run.put("after", 10);
}

#[test]
fn taking_gathers_company_but_never_waits_for_what_is_not_expected() {
    let second = std::time::Duration::from_secs(1);
    let queue = super::super::queue::Queue::new();
    let urgent = |queue: &super::super::queue::Queue| {
        let (answer, _) = tokio::sync::oneshot::channel();
        queue.append(super::super::Append { events: vec![], records: vec![], answer: Some(answer) });
    };
    let taken = || queue.take().map(|taken| taken.len());
    urgent(&queue);
    assert_eq!(taken(), Some(1), "alone: at once");
    // On a disk this slow it pays to wait for three who come back at once.
    let answered = || queue.answering(3, Some(second));
    answered();
    (0..3).for_each(|_| urgent(&queue));
    assert_eq!(taken(), Some(3), "all are there");
    answered();
    (0..2).for_each(|_| urgent(&queue));
    let started = std::time::Instant::now();
    assert_eq!(taken(), Some(2), "the third does not come");
    assert!(started.elapsed() >= std::time::Duration::from_millis(4), "it was waited for");
    assert!(started.elapsed() < second / 4, "gathering has a bound");
    queue.append(super::super::Append::later(vec![]));
    assert_eq!(taken(), Some(1), "what nobody waits for");
    std::thread::scope(|scope| {
        scope.spawn(|| (0..3).for_each(|_| urgent(&queue)));
        let mut all = 0;
        while all < 3 {
            all += taken().unwrap_or(0);
        }
    });
    queue.answering(1, None);
    urgent(&queue);
    assert_eq!(taken(), Some(1), "one that is alone");
    queue.answering(1, None);
    // The writer looks for it while it stays awake, and before it sleeps soundly.
    queue.append(super::super::Append::later(vec![]));
    assert_eq!(taken(), Some(1), "what nobody waits for, while someone is");
    urgent(&queue);
    queue.stop();
    assert_eq!(taken(), Some(1), "before the end, what waits");
    assert!(taken().is_none());
}

#[test]
fn a_store_that_is_large_and_settled_is_not_full_after_a_restart() {
    let filling = Options { window: None, segment_bytes: 12 << 10, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &filling).unwrap();
    for n in 0..40 {
        let offset = run.put(&n.to_string(), 1400);
        run.append(&[], vec![routed(offset.0, offset.0, &[])]).unwrap();
        run.keeper.step();
    }
    let bytes = run.log.report().bytes;
    run.stop().unwrap();
    let interval = std::time::Duration::from_secs(3600);
    let upkeep = super::super::Upkeep { snapshot_interval: interval, ..filling.upkeep };
    let small = Options { retention_bytes: bytes / 2, upkeep, ..filling };
    let mut run = Run::open(&disk, &small).unwrap();
    run.keeper.step();
    assert_eq!(run.log.full(), None);
}

#[test]
fn what_is_settled_in_the_segment_of_the_oldest_event_owed_is_not_owed() {
    let options = Options { segment_bytes: 8 << 20, retention_bytes: 1 << 20, ..options() };
    let mut run = Run::open(&SimDisk::new(), &options).unwrap();
    for n in 0..24 {
        let offset = run.put(&n.to_string(), 50_000);
        run.append(&[], vec![routed(offset.0, offset.0, &[])]).unwrap();
    }
    let owed_from = |run: &mut Run, floor: u64| {
        run.log.note_floor(Offset(floor));
        run.keeper.step();
        (run.log.report().owed_bytes, run.log.full().is_some())
    };
    assert_eq!(run.log.reader().segments().len(), 1);
    let (all, is_full) = owed_from(&mut run, 0);
    assert!(all > 24 * 50_000 && is_full, "{all}");
    let (last, is_full) = owed_from(&mut run, 23);
    assert!((50_000..200_000).contains(&last) && !is_full, "{last}");
    assert_eq!(owed_from(&mut run, 24), (0, false));
}

#[test]
fn a_store_that_is_full_of_what_is_owed_takes_a_reply_since_that_settles_its_cause() {
    let options = Options { segment_bytes: 8 << 20, retention_bytes: 1 << 20, ..options() };
    let mut run = Run::open(&SimDisk::new(), &options).unwrap();
    let cause = run.put("0", 1_100_000);
    run.keeper.step();
    let refused = |answer| matches!(answer, Err(sluice_adapters::Refusal::Full { .. }));
    let fresh = [event("fresh", 10)];
    assert!(refused(run.append(&fresh, vec![])));
    let settled = outcome(TriggerId(1), cause.0, 0, Next::Delivered);
    assert!(!refused(run.append(&[event("reply", 10)], vec![settled])));
    assert!(refused(run.append(&fresh, vec![])));
}

#[test]
fn a_store_on_the_file_system_of_this_machine_opens_once_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { dir: dir.path().join("deep/data"), segment_bytes: 1 << 20, ..options() };
    for life in 0..2u64 {
        let opened = super::super::open(std::sync::Arc::new(super::super::RealDisk), &options).unwrap();
        let second = super::super::open(std::sync::Arc::new(super::super::RealDisk), &options).err();
        assert!(matches!(second, Some(super::super::OpenError::InUse(_))), "{second:?}");
        let (answer, answered) = tokio::sync::oneshot::channel();
        let events = vec![super::rig::new_event(&event(&life.to_string(), 5000))];
        opened.log.submit(super::super::Append { events, records: vec![], answer: Some(answer) });
        assert_eq!(answered.blocking_recv().unwrap().unwrap().receipts[0].offset, life);
        drop(opened.tail);
        opened.log.stop();
        opened.ended.blocking_recv().unwrap().unwrap();
    }
    let report = super::super::verify(&options.dir, &mut |_| {}).unwrap();
    assert_eq!((report.events, report.closed, report.damage.len()), (2, true, 0));
}

#[test]
fn what_was_put_aside_before_the_first_event_is_found_behind_it() {
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options()).unwrap();
    let unfit = sluice_adapters::Unfit { is_conflict: false, detail: "no `id`".into() };
    let aside = sluice_adapters::Aside { size: 0, record: sluice_adapters::Record::default(), unfit };
    for number in 1..=3 {
        let aside = Aside { number, at_ms: 0, source: "hook".into(), near: Offset(0), aside: aside.clone() };
        run.append(&[], vec![LogRecord::Aside(aside)]).unwrap();
    }
    run.put("first", 100);
    run.put("second", 100);
    for number in 1..=3 {
        let found = run.log.reader().read_aside(number, Offset(0)).unwrap();
        assert_eq!(found.map(|aside| aside.number), Some(number));
    }
    run.stop().unwrap();
}

#[test]
fn retention_does_not_cut_inside_the_duplicate_window_right_after_a_restart_either() {
    let options = Options { segment_bytes: 12 << 10, retention_age_ms: 0, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    for n in 0..40 {
        let offset = run.put(&n.to_string(), 1400);
        run.append(&[], vec![routed(offset.0, offset.0, &[])]).unwrap();
        run.keeper.step();
    }
    assert!(segment_files(&disk)[0].ends_with("000000000001.seg"));
    run.stop().unwrap();
    let mut run = Run::open(&disk, &options).unwrap();
    run.keeper.step();
    assert!(segment_files(&disk)[0].ends_with("000000000001.seg"));
    assert!(run.append(&[event("0", 1400)], vec![]).unwrap()[0].duplicate);
}
