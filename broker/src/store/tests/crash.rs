//! The power fails, or the disk does, at every single operation of a life that uses all of the store.

use std::sync::Arc;

use sluice_adapters::Refusal;

use super::super::{Attempted, DeliveryId, LogRecord, Next, Offset, Options, Pause, Routed, TriggerId};
use super::disk::{Fault, SimDisk};
use super::rig::{Promises, Run, event, kill, one_trigger, options};

fn small() -> Options {
    Options {
        segment_bytes: 12 << 10,
        retention_bytes: 40 << 10,
        retention_age_ms: 0,
        window: None,
        ..options()
    }
}

/// How a life went.
struct Life {
    disk: SimDisk,
    promises: Promises,
    /// Set when an acknowledgement came after the first failure of the writer.
    lied: bool,
}

fn routed(from: u64, to: u64) -> LogRecord {
    let matches = (from..=to).map(|offset| (Offset(offset), vec![TriggerId(1)])).collect();
    LogRecord::Routed(Routed { epoch: 1, from: Offset(from), to: Offset(to), matches, only: None })
}

fn delivered(from: u64, to: u64) -> LogRecord {
    let attempted = |offset| Attempted {
        id: DeliveryId { trigger: TriggerId(1), offset: Offset(offset), redrive: 0 },
        attempt: 1,
        at_ms: 5,
        duration_ms: 1,
        status: Some(200),
        error: None,
        body: bytes::Bytes::new(),
        owes_letter: false,
        next: Next::Delivered,
    };
    LogRecord::Outcomes((from..=to).map(attempted).collect())
}

/// Several runs over several segments: rolls, snapshots, retention, clean stops and a kill.
fn live(disk: SimDisk, options: &Options) -> Life {
    let mut life = Life { disk, promises: Promises::default(), lied: false };
    for run_number in 0..4 {
        let Ok(mut run) = Run::open(&life.disk, options) else { return life };
        let mut failed = false;
        if run_number == 0 {
            failed |= run.append(&[], vec![one_trigger()]).is_err();
        }
        for step in 0..7 {
            let before = life.promises.events.len() as u64;
            let name = |n: u64| format!("{run_number}-{step}-{n}");
            let events = [event(&name(0), 700), event(&name(1), 1500)];
            let answer = life.promises.append(&mut run, &events, vec![]);
            life.lied |= failed && answer.is_ok();
            failed |= matches!(answer, Err(Refusal::Unavailable { .. }));
            if answer.is_ok() && before > 0 {
                let from = run.state.routed_to().0;
                let records = vec![routed(from, before + 1), delivered(from, before + 1)];
                let answer = run.append(&[], records.clone());
                if answer.is_ok() {
                    run.state.next_offset = Offset(before + 2);
                    run.state.unrouted = vec![];
                }
                failed |= answer.is_err();
            } else if answer.is_ok() {
                run.state.next_offset = Offset(before + 2);
                run.state.unrouted = vec![(Offset(0), Offset(before + 2))];
            }
            if failed {
                // It stays so: see that nothing is acknowledged any more.
                life.lied |= run.append(&[event("late", 10)], vec![]).is_ok();
                drop(run.stop());
                return life;
            }
            if step % 2 == 1 {
                run.keeper.step();
            }
        }
        if run_number == 1 {
            life.disk = kill(&life.disk, run);
        } else if run.stop().is_err() {
            return life;
        }
    }
    life
}

fn total_operations(options: &Options) -> u64 {
    let disk = SimDisk::new();
    disk.set_fault(None);
    let life = live(disk.clone(), options);
    assert_eq!(life.promises.events.len(), 4 * 7 * 2);
    assert!(disk.trace().contains("sync"));
    disk.operations()
}

/// Opens after a crash and checks what was promised; what the state is then.
fn recover(disk: &SimDisk, options: &Options, promises: &mut Promises) -> Vec<u8> {
    let run = Run::open(disk, options).unwrap_or_else(|error| panic!("does not open: {error}"));
    promises.check(&run);
    if let Some(folded) = run.fold_from_start(options) {
        assert_eq!(
            String::from_utf8_lossy(&folded.encode()),
            String::from_utf8_lossy(&run.state.encode()),
            "the fold of the log and of a snapshot"
        );
    }
    let state = run.state.encode();
    drop(kill(disk, run));
    state
}

fn note(what: &str, disk: &SimDisk) -> impl Drop + use<> {
    struct Note(String);
    impl Drop for Note {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{}", self.0);
            }
        }
    }
    Note(format!("{what}; the last operations were\n{}", disk.trace()))
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let options = small();
    let total = total_operations(&options);
    assert!(total > 150, "{total} operations");
    for at in 1..=total {
        let disk = SimDisk::new();
        disk.set_fault(Some((at, Fault::PowerCut)));
        let life = live(disk, &options);
        for seed in 0..5 {
            let mut promises = life.promises.clone();
            let _note = note(&format!("cut at {at}, seed {seed}"), &life.disk);
            let disk = life.disk.copy().power_cut(if seed < 2 { seed } else { seed * 1000 + at });
            let first = recover(&disk, &options, &mut promises);
            let again = recover(&disk.kill(), &options, &mut promises);
            assert_eq!(first, again, "recovery twice");
            let third = recover(&disk.kill().power_cut(seed + 7), &options, &mut promises);
            assert_eq!(first, third, "recovery is on disk");
        }
    }
}

#[test]
fn a_power_cut_during_recovery_changes_nothing() {
    let options = small();
    let total = total_operations(&options);
    for at in (1..=total).step_by(3) {
        let disk = SimDisk::new();
        disk.set_fault(Some((at, Fault::PowerCut)));
        let life = live(disk, &options);
        for seed in [0, 1, at + 50] {
            let crashed = life.disk.copy().power_cut(seed);
            let operations = {
                let disk = crashed.copy();
                disk.set_fault(None);
                let mut promises = life.promises.clone();
                recover(&disk, &options, &mut promises);
                disk.operations()
            };
            for second in 1..=operations {
                for survival in [0, 1, at * 31 + second] {
                    let disk = crashed.copy();
                    let _note =
                        note(&format!("cut at {at} ({seed}), then at {second} ({survival})"), &life.disk);
                    disk.set_fault(Some((second, Fault::PowerCut)));
                    if let Ok(run) = Run::open(&disk, &options) {
                        drop(run.stop());
                    }
                    let _second = note("in recovery", &disk);
                    let mut promises = life.promises.clone();
                    recover(&disk.power_cut(survival), &options, &mut promises);
                }
            }
        }
    }
}

#[test]
fn without_syncs_the_crash_tests_go_red() {
    let options = small();
    let total = total_operations(&options);
    let mut red = 0;
    for at in (40..=total).step_by(20) {
        let disk = SimDisk::new();
        disk.let_syncs_lie();
        disk.set_fault(Some((at, Fault::PowerCut)));
        let life = live(disk, &options);
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            recover(&life.disk.copy().power_cut(at), &options, &mut life.promises.clone());
        }));
        red += u32::from(checked.is_err());
    }
    assert!(red > 0, "syncs that do nothing must be noticed");
}

#[test]
fn after_an_io_error_nothing_is_acknowledged_that_a_power_cut_could_take() {
    let options = small();
    let total = total_operations(&options);
    for at in 1..=total {
        let disk = SimDisk::new();
        disk.set_fault(Some((at, Fault::Eio)));
        let life = live(disk, &options);
        let _note = note(&format!("EIO at {at}"), &life.disk);
        assert!(!life.lied, "acknowledged after a failure");
        for seed in [0, 1, at + 99] {
            let disk = life.disk.copy();
            disk.set_fault(None);
            recover(&disk.power_cut(seed), &options, &mut life.promises.clone());
        }
        recover(&life.disk.kill(), &options, &mut life.promises.clone());
    }
}

#[test]
fn a_disk_that_is_full_from_any_operation_on_loses_nothing_and_is_met_as_full() {
    let options = small();
    let total = total_operations(&options);
    for at in 1..=total {
        let disk = SimDisk::new();
        disk.set_fault(Some((at, Fault::Enospc)));
        let life = live(disk, &options);
        let _note = note(&format!("ENOSPC from {at} on"), &life.disk);
        assert!(!life.lied, "acknowledged after a failure");
        let disk = life.disk.kill().power_cut(at);
        recover(&disk, &options, &mut life.promises.clone());
    }
}

#[test]
fn a_full_disk_refuses_events_and_takes_them_again_when_there_is_space() {
    let options = Options { segment_bytes: 12 << 10, window: None, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    run.keeper.step();
    disk.set_capacity(Some(40 << 10));
    let mut promises = Promises::default();
    let mut refused = 0;
    for n in 0..40 {
        match promises.append(&mut run, &[event(&format!("{n}"), 1000)], vec![]) {
            Ok(_) => assert_eq!(refused, 0, "the disk has not been emptied"),
            Err(Refusal::Full { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        if n % 5 == 0 {
            run.keeper.step();
        }
    }
    assert!(refused > 0);
    // The reserve is for outcomes and what else is no event.
    run.append(&[], vec![one_trigger()]).unwrap();
    run.append(
        &[],
        vec![LogRecord::Pause(Pause { trigger: TriggerId(1), at_ms: 1, reason: Some("r".repeat(3000)) })],
    )
    .unwrap();
    disk.set_capacity(None);
    run.keeper.step();
    promises.append(&mut run, &[event("at last", 1000)], vec![]).unwrap();
    run.stop().unwrap();
    let run = Run::open(&disk, &options).unwrap();
    promises.check(&run);
    assert!(run.state.triggers[&TriggerId(1)].paused.is_some());
    run.stop().unwrap();
}

#[test]
fn a_store_on_a_full_disk_can_be_stopped() {
    let options = Options { segment_bytes: 8 << 10, window: None, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    disk.set_capacity(Some(1));
    let long = |n: usize| {
        LogRecord::Pause(Pause { trigger: TriggerId(1), at_ms: n as u64, reason: Some("r".repeat(1500)) })
    };
    (0..8).for_each(|n| run.log.append_later(vec![long(n)]));
    let refused = run.append(&[event("e", 3000)], vec![]);
    assert!(matches!(refused, Err(Refusal::Full { .. })), "{refused:?}");
    run.stop().unwrap();
}

#[test]
fn an_error_of_the_disk_ends_the_store_and_says_so() {
    let disk = SimDisk::new();
    let opened = super::super::open(Arc::new(disk.clone()), &options()).unwrap();
    disk.set_fault(Some((1, Fault::Eio)));
    opened.log.append_later(vec![one_trigger()]);
    let ended = opened.ended.blocking_recv().expect("told");
    assert!(ended.is_err());
}

#[test]
fn recycled_segments_hold_only_what_was_written_last() {
    let options = small();
    let disk = SimDisk::new();
    let mut promises = Promises::default();
    let mut disk_of_run = disk;
    let mut recycled = false;
    for life in 0..8u64 {
        let mut run = Run::open(&disk_of_run, &options).unwrap();
        promises.check(&run);
        for n in 0..12 {
            let before = promises.events.len() as u64;
            promises.append(&mut run, &[event(&format!("{life}-{n}"), 900)], vec![]).unwrap();
            run.append(&[], vec![routed(before, before)]).unwrap();
            run.keeper.step();
        }
        recycled |= run.log.reader().first_offset() > Offset(0);
        disk_of_run = kill(&disk_of_run, run).power_cut(life);
    }
    assert!(recycled);
}

#[test]
fn a_control_record_taken_together_with_events_has_the_reserve() {
    let options = Options { segment_bytes: 8 << 10, window: None, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    run.keeper.step();
    disk.set_capacity(Some(1));
    while run.append(&[event("fill", 1400)], vec![]).is_ok() {}
    let ask = |events: Vec<_>, records| {
        let (answer, answered) = tokio::sync::oneshot::channel();
        run.log.submit(super::super::Append { events, records, answer: Some(answer) });
        answered
    };
    for _ in 0..20 {
        let refused = ask(vec![super::rig::new_event(&event("one more", 3900))], vec![]);
        let taken = ask(vec![], vec![one_trigger()]);
        assert!(matches!(refused.blocking_recv().unwrap(), Err(Refusal::Full { .. })));
        assert_eq!(taken.blocking_recv().unwrap().map(|published| published.receipts), Ok(vec![]));
        if run.log.reader().segments().len() > 2 {
            break;
        }
    }
}

#[test]
fn a_kill_at_any_operation_and_a_power_cut_in_the_next_life_lose_nothing() {
    let options = small();
    let total = total_operations(&options);
    for at in 1..=total {
        let disk = SimDisk::new();
        disk.set_fault(Some((at, Fault::PowerCut)));
        let life = live(disk, &options);
        // The page cache outlives the process.
        let killed = life.disk.kill();
        for second in [1, 2, 3, 4, 6, 8, 10].into_iter().filter(|second| (at + second) % 2 == 0) {
            for seed in [0, at * 7 + second] {
                let disk = killed.copy();
                let mut promises = life.promises.clone();
                let _note = note(&format!("killed at {at}, cut at {second} ({seed})"), &life.disk);
                disk.set_fault(Some((second, Fault::PowerCut)));
                if let Ok(mut run) = Run::open(&disk, &options) {
                    promises.check(&run);
                    let _ = promises.append(&mut run, &[event("after the kill", 1200)], vec![]);
                    let _ = run.append(&[event("late", 10)], vec![]);
                    drop(run.stop());
                    // What the second append left is not the matter here.
                    if promises.doubtful.is_empty() {
                        continue;
                    }
                }
                let _second = note("in the next life", &disk);
                recover(&disk.power_cut(seed), &options, &mut promises);
            }
        }
    }
}
