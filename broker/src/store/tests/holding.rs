//! Who holds what, and for how long: segments while they are read, the directory while anything touches it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Append, Index, LogRecord, Mark, Offset, Options, Passed, Wanted, open};
use super::disk::{Fault, SimDisk};
use super::rig::{Run, event, options};

const PATIENCE: Duration = Duration::from_secs(60);

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::yield_now();
    }
}

fn small() -> Options {
    Options { window: None, segment_bytes: 12 << 10, ..options() }
}

fn log_of_segments(disk: &SimDisk) -> Run {
    let mut run = Run::open(disk, &small()).unwrap();
    (0..30).for_each(|n| _ = run.put(&n.to_string(), 1400));
    assert!(run.log.reader().segments().len() > 3);
    run
}

/// What looks something up, and whether it begins with the oldest segment.
type LookUp = (&'static str, fn(&Index, &super::super::Reader), bool);

#[test]
fn whoever_reads_a_segment_leases_no_other() {
    let look_ups: [LookUp; 4] = [
        ("events", |index, _| drop(index.events(&Wanted { limit: 99, ..Wanted::default() }).unwrap()), false),
        ("by id", |index, _| drop(index.by_id("/tests", "none").unwrap()), false),
        ("outcomes", |index, _| index.outcomes(&[Offset(0)], &mut drop).unwrap(), true),
        ("walk", |_, reader| reader.walk(Offset(0), &mut |_, _| true).unwrap(), true),
    ];
    for (what, look_up, begins_with_oldest) in look_ups {
        let disk = SimDisk::new();
        let run = log_of_segments(&disk);
        let (index, reader) = (Arc::clone(run.log.index()), Arc::clone(run.log.reader()));
        disk.hold_reads();
        let looking = std::thread::spawn(move || look_up(&index, &reader));
        until("a segment is read", || disk.held_reads() == 1);
        let mut segments = run.log.reader().segments();
        // The newest is the writer's, too.
        let newest = segments.pop().unwrap();
        let (read, others) = if begins_with_oldest { (segments.remove(0), 2) } else { (newest, 3) };
        // One is the log's, one is ours.
        assert!(Arc::strong_count(&read) > others, "{what}: the segment that is read");
        for segment in &segments {
            assert_eq!(Arc::strong_count(segment), 2, "{what}: segment {} is leased", segment.number());
        }
        disk.let_reads_go();
        looking.join().unwrap();
    }
}

/// Segments that come while the last one is read are none that follow what was read of it.
#[test]
fn a_walk_ends_where_the_log_did_and_leaves_nothing_out_before() {
    let disk = SimDisk::new();
    let mut run = log_of_segments(&disk);
    let reader = Arc::clone(run.log.reader());
    let mut seen = Vec::new();
    let mut written = 30..60;
    let visit = &mut |passed| {
        match passed {
            Passed::Record(LogRecord::Event(record), _) => seen.push(record.offset.0),
            Passed::Record(..) => {}
            Passed::Damage(place) => panic!("{place:?}"),
        }
        if seen.len() == 29 {
            written.by_ref().for_each(|n| _ = run.put(&n.to_string(), 1400));
        }
        true
    };
    reader.walk_all(Offset(0), visit).unwrap();
    assert_eq!(written, 60..60, "they were written meanwhile");
    assert!(seen.len() >= 30, "{seen:?}");
    assert!(seen.iter().copied().eq(0..seen.len() as u64), "{seen:?}");
}

/// What became of an event is told in the order of the log.
#[test]
fn outcomes_that_are_written_meanwhile_are_told_after_all_before_them_or_not_at_all() {
    let disk = SimDisk::new();
    let mut run = log_of_segments(&disk);
    let told = |number: u64| LogRecord::Mark(Mark { source: "s".into(), text: number.to_string() });
    run.append(&[], vec![told(0)]).unwrap();
    let index = Arc::clone(run.log.index());
    let mut seen = Vec::new();
    index
        .outcomes(&[Offset(0)], &mut |record| {
            let LogRecord::Mark(mark) = record else { return };
            seen.push(mark.text);
            if seen.len() == 1 {
                (1..30).for_each(|n| _ = run.append(&[event("more", 1400)], vec![told(n)]).unwrap());
            }
        })
        .unwrap();
    assert!(seen.iter().cloned().eq((0..seen.len()).map(|n| n.to_string())), "{seen:?}");
}

/// Another process may have the directory when the lock is free: the keeper must have ended by then.
#[test]
fn a_writer_that_panics_keeps_the_directory_while_the_keeper_is_at_it() {
    let disk = SimDisk::new();
    log_of_segments(&disk).stop().unwrap();
    until("the lock is free", || !disk.is_locked());
    let opened = open(Arc::new(disk.clone()), &small()).unwrap();
    disk.hold_reads();
    until("the keeper reads", || disk.held_reads() > 0);
    disk.set_fault(Some((1, Fault::Panic)));
    opened.log.submit(Append::later(vec![LogRecord::Close]));
    opened.ended.blocking_recv().expect_err("the writer has panicked");
    until("the keeper is asked to end", || opened.log.keeper.is_stopping());
    assert!(disk.is_locked(), "the keeper is at it");
    disk.let_reads_go();
    until("the lock is free", || !disk.is_locked());
}
