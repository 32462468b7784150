//! Who holds what, and for how long: segments while they are read, the directory while anything touches it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Append, Index, LogRecord, Offset, Options, Wanted, open};
use super::disk::{Fault, SimDisk};
use super::rig::{Run, options};

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
