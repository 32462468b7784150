//! Single blocks that cannot be read, in a store that opens all the same: what is beside them is there.

use super::super::format::SEGMENT_HEADER_BYTES;
use super::super::unreadable::{Unreadable, read_around};
use super::super::{Disk, LogRecord, Offset, Options, Passed, ReadError};
use super::damage::verify;
use super::disk::SimDisk;
use super::rig::{Run, kill, layout, options, segment_files};

/// Where the frame of each event stands: segment, start, end.
type Places = Vec<(u64, u64, u64)>;

/// Sixty events in frames of their own, over two segments and a bit; a snapshot, and a clean stop.
fn covered_log() -> (SimDisk, Options, Places) {
    log(true)
}

fn log(is_covered: bool) -> (SimDisk, Options, Places) {
    let options = Options { window: None, segment_bytes: 196 << 10, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    let mut places = Places::new();
    for n in 0..60 {
        let before = run.log.reader().segments().last().map(|last| (last.number(), last.extent().end));
        run.put(&n.to_string(), 7000);
        let segment = run.log.reader().segments().last().unwrap().clone();
        let start = before.filter(|(number, _)| *number == segment.number());
        let start = start.map_or(SEGMENT_HEADER_BYTES, |(_, end)| end);
        places.push((segment.number(), start, segment.extent().end));
    }
    if is_covered {
        run.keeper.step();
    }
    run.stop().unwrap();
    (disk, options, places)
}

#[test]
fn a_block_that_cannot_be_read_hides_no_other_event_of_its_segment() {
    let (disk, options, places) = covered_log();
    for block in (4096..160 << 10).step_by(20 << 10) {
        let disk = disk.copy();
        disk.scratch(&segment_files(&disk)[0], block..block + 1);
        let run = Run::open(&disk, &options).unwrap_or_else(|error| panic!("{block}: {error:?}"));
        for (n, (segment, start, end)) in places.iter().enumerate() {
            let read = run.log.reader().read(Offset(n as u64));
            if *segment == 1 && *start < block + 4096 && block < *end {
                let error = read.map(|_| ()).expect_err("it is not read");
                assert!(matches!(error, ReadError::Io { .. }), "{block}, offset {n}: {error}");
                continue;
            }
            let read = read.unwrap_or_else(|error| panic!("{block}, offset {n}: {error:?}"));
            assert_eq!(read.event.id(), n.to_string(), "{block}");
        }
        // And it is found at once, not by reading all from there on.
        let first = run.log.reader().segment(1).unwrap();
        let last = places.iter().rposition(|(segment, ..)| *segment == 1).unwrap();
        let near = first.seek(Offset(last as u64));
        assert!(near + (80 << 10) > places[last].1, "{block}: from {near}");
        run.stop().unwrap();
    }
}

#[test]
fn a_note_of_the_end_that_cannot_be_read_is_ignored() {
    let (disk, options, places) = covered_log();
    let notes = [layout().reached_file(), layout().begun_file()];
    notes.iter().for_each(|note| disk.scratch(note, 0..1));
    assert_eq!(verify(&disk).damage, []);
    let run = Run::open(&disk, &options).unwrap();
    assert_eq!(run.state.next_offset, Offset(places.len() as u64));
    run.stop().unwrap();
}

#[test]
fn a_block_before_the_snapshot_in_the_last_segment_that_cannot_be_read_does_not_keep_it_shut() {
    let (disk, options, places) = covered_log();
    let (segment, start, _) = places[places.len() - 4];
    assert_eq!(segment, places[places.len() - 1].0, "it is in the last segment");
    // So full that it takes a snapshot of the closing frame, too.
    let pressed = Options { retention_bytes: 1, ..options.clone() };
    let mut run = Run::open(&disk, &pressed).unwrap();
    (0..2).for_each(|_| run.keeper.step());
    let disk = kill(&disk, run);
    disk.scratch(&layout().segment(segment), start + 10..start + 11);
    let mut run = Run::open(&disk, &options).unwrap();
    let is_read = |run: &Run, n: usize| run.log.reader().read(Offset(n as u64)).is_ok();
    assert!(is_read(&run, places.len() - 1));
    let next = run.put("after", 10);
    assert_eq!(next, Offset(places.len() as u64));
    run.stop().unwrap();
    let run = Run::open(&disk, &options).unwrap();
    assert!(is_read(&run, places.len()) && !is_read(&run, places.len() - 4));
    run.stop().unwrap();
}

#[test]
fn a_block_that_was_never_used_needs_not_be_readable_in_a_sealed_segment() {
    let (disk, options, places) = log(false);
    let path = &segment_files(&disk)[0];
    let last = disk.content(path).len() as u64 - 1;
    let end = places.iter().filter(|(segment, ..)| *segment == 1).map(|(.., end)| *end).max().unwrap();
    assert!(end + 4096 < last, "{end}");
    disk.scratch(path, last..last + 1);
    assert_eq!(verify(&disk).damage, []);
    let run = Run::open(&disk, &options).unwrap();
    assert_eq!((run.gaps, run.events().len()), (0, places.len()));
    run.stop().unwrap();
}

#[test]
fn a_block_of_which_only_a_part_was_given_up_is_not_passed_over() {
    let disk = SimDisk::new();
    let path = layout().segment(1);
    let file = disk.create(&path).unwrap();
    file.write_at(&[1; 8192], 0).unwrap();
    disk.scratch(&path, 0..1);
    for (lost, is_noted) in [(0..512, true), (512..8192, true), (0..4096, false), (0..8192, false)] {
        let (mut bytes, mut unreadable) = (vec![0; 8192], Unreadable::default());
        let read = read_around(&*file, &mut bytes, 0, std::slice::from_ref(&lost), &mut unreadable);
        assert_eq!(read.unwrap(), 8192);
        assert_eq!(!unreadable.places.is_empty(), is_noted, "{lost:?}");
    }
}

#[test]
fn a_walk_fails_for_a_block_that_cannot_be_read_only_if_it_finds_nothing_elsewhere() {
    let (disk, options, places) = covered_log();
    let (segment, start, _) = places[5];
    disk.scratch(&segment_files(&disk)[0], start..start + 1);
    let run = Run::open(&disk, &options).unwrap();
    let (reader, mut seen) = (run.log.reader(), Vec::new());
    let mut walk = |until: u64| {
        seen.clear();
        let walked = reader.walk(Offset(0), &mut |record, _| {
            if let LogRecord::Event(record) = record {
                seen.push(record.offset.0);
            }
            seen.last().is_none_or(|last| *last < until)
        });
        (walked, seen.clone())
    };
    let lost: Vec<u64> = (0..60)
        .filter(|n| {
            let (of, from, to) = places[*n as usize];
            of == segment && from < start / 4096 * 4096 + 4096 && start / 4096 * 4096 < to
        })
        .collect();
    let (walked, seen) = walk(40);
    assert!(walked.is_ok(), "{walked:?}");
    assert!(seen.iter().copied().eq((0..=40).filter(|n| !lost.contains(n))), "{seen:?}");
    let (walked, seen) = walk(99);
    assert!(matches!(walked, Err(ReadError::Io { .. })), "{walked:?}");
    assert_eq!(seen.len(), 60 - lost.len());
    let walked = reader.walk_all(Offset(0), &mut |passed| matches!(passed, Passed::Record(..)));
    assert!(matches!(walked, Err(ReadError::Io { .. })), "who is told of damage is not told of an end");
    run.stop().unwrap();
}
