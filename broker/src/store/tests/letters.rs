//! Dead letters are copied before their segment goes, whatever comes in between.

use super::super::{LogRecord, Next, Offset, Options, Routed, TriggerId};
use super::disk::SimDisk;
use super::rig::{Run, event, layout, one_trigger, options, outcome, segment_files};
use crate::delivery::Reason;

/// Five segments of dead letters, thirty or so in each: more than is copied at once. No snapshot needs the first two.
fn dead_letters() -> (SimDisk, Options) {
    let options = Options { window: None, segment_bytes: 3 << 20, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    run.append(&[], vec![one_trigger()]).unwrap();
    for n in 0..130 {
        let offset = Offset(n);
        let routed = Routed {
            epoch: 1,
            from: offset,
            to: offset,
            matches: vec![(offset, vec![TriggerId(1)])],
            only: None,
        };
        let records =
            vec![LogRecord::Routed(routed), outcome(TriggerId(1), n, 0, Next::Dead(Reason::Attempts))];
        run.append(&[event(&n.to_string(), 100_000)], records).unwrap();
        run.keeper.step();
    }
    assert_eq!(run.log.reader().segments().len(), 5);
    run.stop().unwrap();
    (disk, Options { retention_age_ms: 0, ..options })
}

fn copied_bytes(disk: &SimDisk) -> usize {
    let names = disk.names().into_iter().filter(|path| path.starts_with(layout().letters()));
    names.map(|path| disk.content(&path).len()).sum()
}

#[test]
fn letters_before_a_block_that_cannot_be_read_are_copied_once() {
    let (disk, options) = dead_letters();
    let first = segment_files(&disk)[0].clone();
    disk.scratch(&first, (5 << 19)..(5 << 19) + 1);
    let mut run = Run::open(&disk, &options).unwrap();
    run.keeper.step();
    let bytes = copied_bytes(&disk);
    assert!(bytes > 2 << 20, "{bytes}");
    for _ in 0..5 {
        run.keeper.step();
        let problem = run.log.report().problem.expect("said");
        assert!(problem.contains("000000000001.seg cannot be read at byte"), "{problem}");
    }
    assert_eq!(copied_bytes(&disk), bytes);
    assert_eq!(segment_files(&disk)[0], first, "what is not copied stays");
    run.stop().unwrap();
}

#[test]
fn letters_that_found_no_room_are_copied_when_there_is_some_and_those_before_them_once() {
    let (disk, options) = dead_letters();
    let mut run = Run::open(&disk, &options).unwrap();
    disk.leave_free(3 << 19);
    (0..5).for_each(|_| run.keeper.step());
    assert!((1 << 20..3 << 19).contains(&copied_bytes(&disk)), "{}", copied_bytes(&disk));
    disk.set_capacity(None);
    run.keeper.step();
    assert!(segment_files(&disk)[0].ends_with("000000000003.seg"), "{:?}", segment_files(&disk));
    let (letters, first) = (run.log.reader().letters(), run.log.reader().first_offset().0);
    assert_eq!(letters.verify().unwrap(), (2 * first, vec![]), "an event and an attempt of each");
    for n in 0..first {
        assert_eq!(run.log.reader().read(Offset(n)).unwrap().event.id(), n.to_string());
        assert_eq!(letters.attempts(Offset(n)).unwrap().len(), 1);
    }
    run.stop().unwrap();
}

#[test]
fn a_block_that_was_never_used_does_not_keep_a_segment() {
    let (disk, options) = dead_letters();
    let first = segment_files(&disk)[0].clone();
    let last = disk.content(&first).len() as u64 - 1;
    disk.scratch(&first, last..last + 1);
    let mut run = Run::open(&disk, &options).unwrap();
    run.keeper.step();
    assert_eq!(run.log.report().problem, None);
    assert!(!segment_files(&disk).contains(&first));
    run.stop().unwrap();
}
