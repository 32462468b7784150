//! When the writer answers, and what it does without room.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sluice_adapters::{Published, Refusal};
use tokio::sync::oneshot;

use super::super::format::SEGMENT_HEADER_BYTES;
use super::super::queue::{NO_ROOM_PAUSE, Queue};
use super::super::segment::Spares;
use super::super::{Append, Disk, Log, LogRecord, Mark, NewEvent, Options, open_stepwise};
use super::disk::{Fault, SimDisk};
use super::rig::{Run, event, new_event, options};

type Answered = oneshot::Receiver<Result<Published, Refusal>>;

fn submit(log: &Log, events: Vec<NewEvent>, records: Vec<LogRecord>) -> Answered {
    let (answer, answered) = oneshot::channel();
    log.submit(Append { events, records, answer: Some(answer) });
    answered
}

fn mark(bytes: usize) -> LogRecord {
    LogRecord::Mark(Mark { source: "orders".into(), text: "x".repeat(bytes) })
}

#[test]
fn a_conflict_with_an_event_of_the_same_frame_is_answered_when_that_is_on_disk() {
    let disk = SimDisk::new();
    let (opened, mut writer) = open_stepwise(Arc::new(disk.clone()), &options()).unwrap();
    writer.step(&mut |_| ()).unwrap();
    let twins = |id: &str| {
        let first = submit(&opened.log, vec![new_event(&event(id, 10))], vec![]);
        (first, submit(&opened.log, vec![new_event(&event(id, 20))], vec![]))
    };
    let (mut first, mut second) = twins("one");
    writer.step(&mut |_| ()).unwrap();
    assert!(first.try_recv().unwrap().is_ok());
    assert_eq!(second.try_recv().unwrap(), Err(Refusal::Conflict { index: 0, offset: 0 }));
    // The write succeeds, the sync does not.
    let (mut first, mut second) = twins("two");
    disk.set_fault(Some((2, Fault::Eio)));
    writer.step(&mut |_| ()).unwrap_err();
    assert!(disk.trace().contains("2 sync"), "{}", disk.trace());
    assert!(first.try_recv().is_err() && second.try_recv().is_err(), "nothing is answered");
}

#[test]
fn what_no_segment_can_hold_is_refused_for_good_and_the_rest_goes_on() {
    let options = options();
    let (opened, mut writer) = open_stepwise(Arc::new(SimDisk::new()), &options).unwrap();
    let bytes = options.segment_bytes as usize;
    let mut large = submit(&opened.log, vec![new_event(&event("large", bytes))], vec![]);
    let mut small = submit(&opened.log, vec![new_event(&event("small", 10))], vec![]);
    writer.step(&mut |_| ()).unwrap();
    let refused = large.try_recv().unwrap();
    assert!(matches!(refused, Err(Refusal::TooLarge { bytes_max }) if bytes_max < bytes), "{refused:?}");
    assert_eq!(small.try_recv().unwrap().unwrap().receipts[0].offset, 0);
}

#[test]
fn what_found_no_room_rests_and_goes_on_at_once_when_there_is_some() {
    let queue = Arc::new(Queue::new());
    let waiting = || {
        let (answer, _) = oneshot::channel();
        vec![Append { events: vec![], records: vec![mark(1)], answer: Some(answer) }]
    };
    let before = Instant::now();
    assert!(queue.put_back(waiting(), Duration::from_millis(40)));
    assert_eq!(queue.take().unwrap().len(), 1);
    assert!(before.elapsed() >= Duration::from_millis(40));
    assert!(queue.put_back(waiting(), Duration::from_secs(3600)));
    let (taken, was_taken) = mpsc::sync_channel(1);
    std::thread::spawn({
        let queue = Arc::clone(&queue);
        move || taken.send(queue.take().unwrap().len()).unwrap()
    });
    queue.room_returned();
    assert_eq!(was_taken.recv_timeout(Duration::from_secs(60)), Ok(1));
    assert!(queue.put_back(waiting(), Duration::from_secs(3600)));
    queue.stop();
    assert_eq!(queue.take().unwrap().len(), 1, "a stop waits for no room");
}

#[test]
fn on_a_full_disk_the_writer_pauses_between_tries() {
    let disk = SimDisk::new();
    let run = Run::open(&disk, &options()).unwrap();
    let first = submit(&run.log, vec![], vec![mark(15_000)]);
    assert!(first.blocking_recv().unwrap().is_ok());
    disk.set_fault(Some((1, Fault::Enospc)));
    let before = Instant::now();
    let second = submit(&run.log, vec![], vec![mark(15_000)]);
    // A file cannot be made, and what may be there of it is removed.
    while disk.operations() < 6 {
        assert!(before.elapsed() < Duration::from_secs(60), "{}", disk.trace());
        std::thread::yield_now();
    }
    assert!(before.elapsed() >= 2 * NO_ROOM_PAUSE, "three tries in {:?}", before.elapsed());
    disk.set_fault(None);
    assert!(second.blocking_recv().unwrap().is_ok());
    run.stop().unwrap();
}

#[test]
fn a_spare_that_cannot_be_made_though_the_disk_has_room_is_said_until_it_can() {
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options()).unwrap();
    disk.set_fault(Some((1, Fault::Enospc)));
    for _ in 0..2 {
        run.keeper.step();
        let problem = run.log.report().problem.expect("said");
        assert!(problem.contains("a spare segment cannot be made"), "{problem}");
    }
    assert_eq!(run.log.full(), None, "there is room for what comes");
    disk.set_fault(None);
    run.keeper.step();
    assert_eq!(run.log.report().problem, None);
    run.stop().unwrap();
}

#[test]
fn segments_leave_the_space_that_is_to_stay_free_to_snapshots_and_copies() {
    let options = Options { segment_bytes: 12 << 10, free_bytes: 20 << 10, window: None, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    let free = || disk.free_bytes(&options.dir).unwrap();
    // A spare more would take of what is to stay free.
    disk.leave_free(2 * (12 << 10) + (19 << 10));
    run.keeper.step();
    assert_eq!(free(), (12 << 10) + (19 << 10));
    let full = run.log.full().expect("it is full");
    assert!(full.contains("has 31744 bytes left"), "{full}");
    assert!(matches!(run.append(&[event("e", 100)], vec![]), Err(Refusal::Full { .. })));
    // Then there is some for it, and the writer may use it.
    disk.leave_free((12 << 10) + (20 << 10));
    run.keeper.step();
    assert_eq!(run.log.full(), None);
    let mut taken = 0;
    while run.append(&[event(&taken.to_string(), 1400)], vec![]).is_ok() {
        taken += 1;
    }
    assert_eq!(run.log.reader().segments().len(), 2);
    assert_eq!(free(), 20 << 10);
    (0..2).for_each(|_| run.keeper.step());
    assert_eq!(run.log.report().problem, None, "there is room for a snapshot");
    assert!(run.log.report().snapshot_frame > 0);
    run.stop().unwrap();
}

#[test]
fn a_disk_that_others_fill_is_full_before_nothing_is_left_of_it() {
    let options = Options { free_bytes: 20 << 10, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    run.keeper.step();
    for (left, is_full) in [(20 << 10, false), ((20 << 10) - 1, true), (21 << 10, false)] {
        disk.leave_free(left);
        run.keeper.tell(None);
        assert_eq!(run.log.full().is_some(), is_full, "{left} bytes left");
    }
    run.stop().unwrap();
}

#[test]
fn a_frame_is_never_longer_than_its_header_can_say() {
    let dir = super::rig::layout();
    let frame_bytes_max = |segment_bytes| {
        Spares::new(Arc::new(SimDisk::new()), dir.clone(), segment_bytes, 0, vec![]).frame_bytes_max()
    };
    assert_eq!(frame_bytes_max(64 << 20), (64 << 20) - SEGMENT_HEADER_BYTES as usize);
    let largest = frame_bytes_max(9 << 30);
    assert!(u32::try_from(largest).is_ok() && largest > 4_000_000_000, "{largest}");
    assert_eq!(largest % 512, 0);
}
