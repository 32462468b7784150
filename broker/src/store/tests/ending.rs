//! The end of a log that was there and is gone: never taken for a torn tail, nor for a log that ends earlier.

use std::path::Path;
use std::sync::Arc;

use super::super::format::SEGMENT_HEADER_BYTES;
use super::super::verify::repair_on;
use super::super::{Damage, Disk, LogRecord, Offset, OpenError, Options, Routed, TriggerId};
use super::damage::{check_skipped, flip, verify};
use super::disk::SimDisk;
use super::rig::{DIR, Run, event, kill, layout, one_trigger, options, segment_files};

fn small() -> Options {
    Options { window: None, segment_bytes: 12 << 10, ..options() }
}

/// `events` events over several segments, routed to a trigger; a snapshot before each of these.
fn log(events: u64, snapshots: &[u64]) -> (SimDisk, Run) {
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &small()).unwrap();
    run.append(&[], vec![one_trigger()]).unwrap();
    for n in 0..events {
        if snapshots.contains(&n) {
            run.keeper.step();
        }
        let (offset, matches) = (Offset(n), vec![(Offset(n), vec![TriggerId(1)])]);
        let routed = Routed { epoch: 1, from: offset, to: offset, matches, only: None };
        // In one frame: of an event that is not routed yet the books do not speak.
        run.append(&[event(&n.to_string(), 1400)], vec![LogRecord::Routed(routed)]).unwrap();
    }
    (disk, run)
}

fn refused(disk: &SimDisk, what: &str) -> Damage {
    let refused = Run::open(disk, &small()).err().unwrap_or_else(|| panic!("{what}: opened"));
    let OpenError::Damaged { damage, .. } = refused else { panic!("{what}: {refused}") };
    assert_eq!(damage.len(), 1, "{what}: {damage:?}");
    assert_eq!(verify(disk).damage, damage, "{what}");
    damage.into_iter().next().unwrap()
}

#[test]
fn a_last_segment_that_was_cut_after_a_clean_stop_is_damage() {
    for snapshots in [&[][..], &[10], &[10, 20]] {
        let (disk, run) = log(29, snapshots);
        let end = run.log.reader().segments().last().unwrap().extent().end + 512;
        run.stop().unwrap();
        let path = segment_files(&disk).pop().unwrap();
        let whole = disk.content(&path);
        assert!(end > SEGMENT_HEADER_BYTES + 2048, "{end}");
        // To the middle of the closing frame, of which the rest is padding.
        for length in (SEGMENT_HEADER_BYTES..end - 440).step_by(500) {
            for is_zeroed in [false, true] {
                let disk = disk.copy();
                let mut content = whole.clone();
                content.truncate(length as usize);
                if is_zeroed {
                    content.resize(whole.len(), 0);
                }
                disk.set_content(&path, content);
                let what = format!("{length} of {end} bytes, {is_zeroed}, snapshots {snapshots:?}");
                let damage = refused(&disk, &what);
                assert_eq!(path, layout().log().join(&damage.file), "{what}");
                assert!(damage.start < length + 512 && length < damage.end, "{what}: {damage:?}");
                assert_eq!(damage.offsets.1, Offset(29), "{what}");
                check_skipped(&disk, &small(), 29, &what);
            }
        }
    }
}

#[test]
fn a_last_segment_that_is_shorter_than_it_was_made_is_damage_after_a_kill_too() {
    let (disk, run) = log(29, &[]);
    let end = run.log.reader().segments().last().unwrap().extent().end;
    let disk = kill(&disk, run);
    let path = segment_files(&disk).pop().unwrap();
    let whole = disk.content(&path);
    for length in [SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES + 700, end - 512, end, whole.len() as u64 - 1] {
        let disk = disk.copy();
        let mut content = whole.clone();
        content.truncate(length as usize);
        disk.set_content(&path, content);
        let what = format!("{length} bytes");
        let damage = refused(&disk, &what);
        assert_eq!((path.clone(), damage.end), (layout().log().join(&damage.file), 12 << 10), "{what}");
        let skip = Options { skip_damage: true, ..small() };
        drop(Run::open(&disk, &skip).unwrap().stop());
        Run::open(&disk, &small()).unwrap_or_else(|error| panic!("{what}, again: {error}")).stop().unwrap();
        assert_eq!(verify(&disk).damage, [], "{what}");
    }
}

#[test]
fn the_newest_segments_cannot_go_unnoticed_after_a_clean_stop() {
    for snapshots in [&[][..], &[10], &[10, 20], &[10, 20, 28]] {
        let (disk, run) = log(29, snapshots);
        run.stop().unwrap();
        let paths = segment_files(&disk);
        for gone in 1..=paths.len() {
            let disk = disk.copy();
            paths.iter().rev().take(gone).for_each(|path| disk.forget(path));
            let what = format!("{gone} of {} segments, snapshots {snapshots:?}", paths.len());
            let damage = refused(&disk, &what);
            assert_eq!(layout().log().join(&damage.file), paths[paths.len() - gone], "{what}");
            assert_eq!(damage.offsets.1, Offset(29), "{what}");
            let accepted = damage.offsets.0.0..29;
            let repaired = disk.copy();
            repair_on(Arc::new(repaired.clone()), Path::new(DIR), accepted).unwrap();
            let run = Run::open(&repaired, &small()).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((run.state.next_offset, run.state.gaps.len()), (Offset(29), 1), "{what}");
            run.stop().unwrap();
            assert_eq!(verify(&repaired).damage, [], "{what}");
            check_skipped(&disk, &small(), 29, &what);
        }
    }
}

#[test]
fn an_end_that_a_snapshot_has_seen_cannot_go_unnoticed_after_a_kill_either() {
    let (disk, run) = log(29, &[10, 20]);
    let disk = kill(&disk, run);
    let paths = segment_files(&disk);
    paths.iter().skip(1).for_each(|path| disk.forget(path));
    let damage = refused(&disk, "killed");
    assert_eq!(damage.file, "000000000002.seg");
    let seen = damage.offsets.1;
    assert!(seen > Offset(10), "{seen}");
    check_skipped(&disk, &small(), seen.0, "killed");
    // What is left of the log is as it was.
    let run = Run::open(&disk, &small()).unwrap();
    assert_eq!(run.log.reader().read(Offset(0)).unwrap().event.id(), "0");
}

#[test]
fn a_closing_frame_that_is_damaged_is_said_to_be() {
    let (disk, run) = log(9, &[]);
    let end = run.log.reader().segments().last().unwrap().extent().end;
    run.stop().unwrap();
    let path = segment_files(&disk).pop().unwrap();
    flip(&disk, &path, end as usize + 70, 3);
    let damage = refused(&disk, "a flipped bit");
    assert_eq!((damage.start, damage.offsets), (end, (Offset(9), Offset(9))));
    check_skipped(&disk, &small(), 9, "a flipped bit");
}

#[test]
fn a_note_of_the_end_that_is_not_whole_is_ignored() {
    let (disk, run) = log(9, &[]);
    run.stop().unwrap();
    let path = layout().reached_file();
    flip(&disk, &path, disk.content(&path).len() / 2, 0);
    let run = Run::open(&disk, &small()).unwrap();
    assert_eq!(run.state.next_offset, Offset(9));
    run.stop().unwrap();
}

#[test]
fn the_newest_segment_cannot_go_unnoticed_after_a_kill_either() {
    for events in [3, 29] {
        let (disk, mut run) = log(events, &[]);
        run.keeper.step();
        let snapshots = disk.names().into_iter().filter(|path| path.starts_with(layout().snapshots()));
        // No snapshot has seen it, either.
        snapshots.for_each(|path| disk.forget(&path));
        run.append(&[event("last", 100)], vec![]).unwrap();
        let newest = run.log.reader().segments().last().unwrap().number();
        let disk = kill(&disk, run);
        disk.forget(&layout().segment(newest));
        let what = format!("{events} events");
        let damage = refused(&disk, &what);
        assert_eq!(damage.segment, newest, "{what}");
        check_skipped(&disk, &small(), damage.offsets.1.0, &what);
    }
}

#[test]
fn a_segment_that_was_given_up_and_is_there_again_is_passed() {
    let (disk, mut run) = log(29, &[]);
    run.keeper.step();
    let newest = layout().segment(run.log.reader().segments().last().unwrap().number());
    let disk = kill(&disk, run);
    let content = disk.content(&newest);
    disk.forget(&newest);
    let lost = refused(&disk, "killed").offsets;
    repair_on(Arc::new(disk.clone()), Path::new(DIR), lost.0.0..lost.1.0.max(lost.0.0 + 1)).unwrap();
    let mut run = Run::open(&disk, &small()).unwrap();
    run.put("after", 100);
    run.stop().unwrap();
    disk.create(&newest).unwrap();
    disk.set_content(&newest, content);
    let run = Run::open(&disk, &small()).unwrap();
    let offsets: Vec<_> = run.events().iter().map(|record| record.offset).collect();
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
    assert_eq!(run.events().last().unwrap().event.id(), "after");
    run.stop().unwrap();
}

#[test]
fn of_an_end_that_is_given_up_nothing_is_removed() {
    let (disk, run) = log(29, &[]);
    let end = run.log.reader().segments().last().unwrap().extent().end as usize;
    run.stop().unwrap();
    let path = segment_files(&disk).pop().unwrap();
    let frames = end - 2 * 2048;
    // Headers and bodies of the closing frame and of the last two before it.
    for places in [&[end + 70][..], &[end + 20, end - 1000], &[end + 70, end - 2028, frames + 100]] {
        let disk = disk.copy();
        places.iter().for_each(|place| flip(&disk, &path, *place, 3));
        let content = disk.content(&path);
        let what = format!("{places:?}");
        let damage = verify(&disk).damage;
        let from = damage.iter().map(|part| part.offsets.0.0).min().unwrap();
        let accepted = from..29.max(from + 1);
        repair_on(Arc::new(disk.clone()), Path::new(DIR), accepted).unwrap();
        assert!(disk.content(&path) == content, "{what}: it is removed or overwritten");
        assert_eq!(verify(&disk).damage, [], "{what}");
        let mut run = Run::open(&disk, &small()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let sealed = run.log.reader().segments().len();
        (0..sealed).for_each(|_| run.keeper.step());
        assert_eq!(run.log.report().problem, None, "{what}");
        let offset = run.put("after", 100);
        assert_eq!(run.log.reader().read(offset).unwrap().event.id(), "after", "{what}");
        for lost in from..29 {
            assert!(run.log.reader().read(Offset(lost)).is_err(), "{what}");
        }
        assert_eq!(run.events().len() as u64, from + 1, "{what}");
        run.stop().unwrap();
        let run = Run::open(&disk, &small()).unwrap_or_else(|error| panic!("{what}, again: {error}"));
        assert_eq!(run.events().len() as u64, from + 1, "{what}");
        run.stop().unwrap();
    }
}
