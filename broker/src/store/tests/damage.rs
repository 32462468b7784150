//! Files that are not as they were written: found, named, and never silently cut.

use std::path::Path;
use std::sync::Arc;

use super::super::format::{FrameHeader, SEGMENT_HEADER_BYTES};
use super::super::letters::{self, Letters};
use super::super::verify::{RepairError, VerifyError, repair_on, verify_on};
use super::super::{Disk, Offset, OpenError, Options, VerifyReport};
use super::disk::SimDisk;
use super::rig::{DIR, Run, check_books, event, kill, layout, options, segment_files};

pub fn verify(disk: &SimDisk) -> VerifyReport {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    verify_on(&disk, Path::new(DIR), &mut |_| {}).unwrap()
}

fn skipping(options: &Options) -> Options {
    Options { skip_damage: true, ..options.clone() }
}

/// Six frames of one event in one segment, killed without a closing frame.
fn small_log() -> (SimDisk, Options) {
    let options = Options { window: None, segment_bytes: 16 << 10, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    (0..6).for_each(|n| _ = run.put(&format!("{n}"), 30));
    (kill(&disk, run), options)
}

/// Events over several segments; `snapshots` of them on the way.
pub fn long_log(snapshots: usize) -> (SimDisk, Options) {
    let options = Options { window: None, segment_bytes: 12 << 10, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    for n in 0..30 {
        run.put(&format!("{n}"), 1400);
        if n % 10 == 9 && n / 10 < snapshots {
            run.keeper.step();
        }
    }
    run.stop().unwrap();
    (disk, options)
}

pub fn flip(disk: &SimDisk, path: &Path, byte: usize, bit: u8) {
    let mut content = disk.content(path);
    content[byte] ^= 1 << bit;
    disk.set_content(path, content);
}

/// What a skipped log still gives: all but the lost offsets, every one of them where it was.
pub fn check_skipped(disk: &SimDisk, options: &Options, events: u64, what: &str) {
    let run = Run::open(disk, &skipping(options)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let gaps = run.state.gaps.clone();
    assert!(run.gaps > 0, "{what}: a gap is written");
    check_books(&run.state);
    for offset in (0..events).map(Offset) {
        let lost = gaps.iter().any(|gap| gap.from <= offset && offset < gap.to);
        let read = run.log.reader().read(offset);
        if !lost {
            let read = read.unwrap_or_else(|error| panic!("{what}: offset {offset}: {error}"));
            assert_eq!(read.event.id(), offset.to_string(), "{what}");
        }
    }
    assert!(run.state.next_offset >= Offset(events), "{what}: offsets are not used again");
    let found: Vec<_> = run.events().iter().map(|record| record.offset.0).collect();
    assert!(found.is_sorted_by(|a, b| a < b), "{what}: {found:?}");
    run.stop().unwrap();
    // Accepted once, it is quiet, also for those who refuse.
    let mut run = Run::open(disk, options).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    assert_eq!(run.gaps, 0, "{what}");
    let offset = run.put("after", 10);
    assert!(offset >= Offset(events));
    run.stop().unwrap();
    assert_eq!(verify(disk).damage, [], "{what}");
}

#[test]
fn a_flipped_bit_anywhere_is_a_torn_tail_in_the_last_frame_and_damage_before_it() {
    let (disk, options) = small_log();
    let path = segment_files(&disk)[0].clone();
    let frame = 512;
    let (mut refused, mut torn) = (0, 0);
    for byte in 0..SEGMENT_HEADER_BYTES as usize + 7 * frame {
        let bit = (byte % 8) as u8;
        let disk = disk.copy();
        flip(&disk, &path, byte, bit);
        let what = format!("byte {byte}");
        match Run::open(&disk, &options) {
            Ok(run) => {
                let events = run.events();
                let is_cut = events.len() == 5;
                let last = SEGMENT_HEADER_BYTES as usize + 5 * frame;
                assert!(is_cut || events.len() == 6, "{what}: {} events", events.len());
                assert!(!is_cut || (last..last + frame).contains(&byte), "{what}: a silent cut");
                assert!(!is_cut || run.torn_bytes > 0, "{what}: the torn tail is set aside");
                torn += u32::from(is_cut);
            }
            Err(OpenError::Damaged { damage, .. }) => {
                refused += 1;
                assert_eq!(damage[0].file, "000000000001.seg", "{what}");
                assert!(
                    damage[0].start <= byte as u64 && (byte as u64) < damage[0].end,
                    "{what}: {damage:?}"
                );
                if byte % 16 == 0 || byte < 64 {
                    let report = verify(&disk);
                    assert_eq!(report.damage, damage, "{what}");
                    check_skipped(&disk, &options, 6, &what);
                }
            }
            Err(OpenError::Header { .. }) => panic!("{what}: the frames say what the header was"),
            Err(other) => panic!("{what}: {other}"),
        }
    }
    assert!(refused > 1000 && torn > 200, "{refused} refused, {torn} torn");
}

#[test]
fn damage_behind_a_closing_frame_is_no_end() {
    let (disk, options) = long_log(0);
    let mut run = Run::open(&disk, &options).unwrap();
    run.put("30", 20);
    run.put("31", 20);
    run.put("32", 20);
    let last = segment_files(&disk).pop().unwrap();
    let end = run.log.reader().segments().last().unwrap().extent().end;
    let disk = kill(&disk, run);
    flip(&disk, &last, end as usize - 3 * 512 + 100, 0);
    let refused = Run::open(&disk, &options).err().expect("refused");
    let OpenError::Damaged { damage, .. } = &refused else { panic!("{refused}") };
    assert_eq!(damage[0].offsets, (Offset(30), Offset(31)));
    assert!(refused.to_string().contains("--accept-loss 30..30"), "{refused}");
    check_skipped(&disk, &options, 33, "behind a closing frame");
}

#[test]
fn a_sealed_segment_that_is_cut_off_or_gone_or_unreadable_is_damage() {
    let (disk, options) = long_log(0);
    let paths = segment_files(&disk);
    assert!(paths.len() >= 4, "{paths:?}");
    for what in ["truncated", "half", "deleted", "zeroed", "two deleted", "header"] {
        let disk = disk.copy();
        let mut content = disk.content(&paths[1]);
        match what {
            "truncated" => content.truncate(SEGMENT_HEADER_BYTES as usize),
            "half" => content.truncate(7000),
            "zeroed" => content[SEGMENT_HEADER_BYTES as usize..].fill(0),
            "header" => content[3] ^= 1,
            _ => {}
        }
        disk.set_content(&paths[1], content);
        if what.ends_with("deleted") {
            disk.forget(&paths[1]);
        }
        if what == "two deleted" {
            disk.forget(&paths[2]);
        }
        let refused = Run::open(&disk, &options).err().unwrap_or_else(|| panic!("{what}: opened"));
        let OpenError::Damaged { damage, .. } = &refused else { panic!("{what}: {refused}") };
        assert_eq!(damage.len(), 1, "{what}: {damage:?}");
        assert_eq!(damage[0].file, "000000000002.seg", "{what}");
        check_skipped(&disk, &options, 30, what);
    }
}

#[test]
fn the_end_of_a_segment_is_damage_even_when_the_next_one_is_still_empty() {
    let options = Options { window: None, segment_bytes: 12 << 10, ..options() };
    // The power fails when the next segment has its name and no frame.
    let cut = (1..20)
        .find_map(|at| {
            let disk = SimDisk::new();
            let mut run = Run::open(&disk, &options).unwrap();
            (0..4).for_each(|n| _ = run.put(&n.to_string(), 1400));
            disk.set_fault(Some((at, super::disk::Fault::PowerCut)));
            drop(run.append(&[event("4", 1400)], vec![]));
            drop(run.stop());
            let disk = disk.power_cut(0);
            let last = disk.content(segment_files(&disk).last().unwrap());
            let is_empty = last[SEGMENT_HEADER_BYTES as usize..].iter().all(|byte| *byte == 0);
            (segment_files(&disk).len() == 2 && is_empty).then_some(disk)
        })
        .expect("there is such a moment");
    let files = segment_files(&cut);
    let before = &files[files.len() - 2];
    let content = cut.content(before);
    let last_frame = (SEGMENT_HEADER_BYTES as usize..content.len())
        .step_by(512)
        .rfind(|at| content[*at..].starts_with(b"SLFR"))
        .unwrap();
    flip(&cut, before, last_frame + 70, 0);
    let refused = Run::open(&cut, &options).err().expect("refused");
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    check_skipped(&cut, &options, 4, "the end of a segment");
}

#[test]
fn damage_that_grows_behind_an_accepted_gap_is_refused() {
    let (disk, options) = small_log();
    let path = segment_files(&disk)[0].clone();
    let second = SEGMENT_HEADER_BYTES as usize + 512;
    flip(&disk, &path, second + 20, 0);
    Run::open(&disk, &skipping(&options)).unwrap().stop().unwrap();
    flip(&disk, &path, second + 512 + 20, 0);
    let refused = Run::open(&disk, &options).err().expect("refused");
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
}

#[test]
fn verify_changes_nothing_and_repair_accepts_what_it_is_told() {
    let (disk, options) = small_log();
    let path = segment_files(&disk)[0].clone();
    flip(&disk, &path, SEGMENT_HEADER_BYTES as usize + 2 * 512 + 80, 3);
    disk.set_fault(None);
    let report = verify(&disk);
    assert_eq!(report.damage[0].offsets, (Offset(2), Offset(3)));
    assert_eq!(disk.operations(), 0, "{}", disk.trace());
    let dir = Path::new(DIR);
    let wider = repair_on(std::sync::Arc::new(disk.clone()), dir, 0..2).err();
    assert!(matches!(wider, Some(RepairError::Wider { .. })), "{wider:?}");
    assert_eq!(disk.operations(), 0, "{}", disk.trace());
    repair_on(std::sync::Arc::new(disk.clone()), dir, 2..3).unwrap();
    let again = repair_on(std::sync::Arc::new(disk.clone()), dir, 2..3).err();
    assert!(matches!(again, Some(RepairError::Sound)), "{again:?}");
    let run = Run::open(&disk, &options).unwrap();
    assert_eq!(run.events().len(), 5);
    assert_eq!(run.state.gaps.len(), 1);
}

#[test]
fn a_repair_covers_damage_that_a_snapshot_hides_from_recovery() {
    let (disk, options) = long_log(3);
    let path = segment_files(&disk)[0].clone();
    flip(&disk, &path, SEGMENT_HEADER_BYTES as usize + 70, 0);
    Run::open(&disk, &options).unwrap().stop().unwrap();
    let lost = verify(&disk).damage[0].offsets;
    repair_on(std::sync::Arc::new(disk.clone()), Path::new(DIR), lost.0.0..lost.1.0).unwrap();
    assert_eq!(verify(&disk).damage, []);
    let run = Run::open(&disk, &options).unwrap();
    assert_eq!(run.state.gaps.len(), 1);
    // What stands behind the damage in its segment is read all the same.
    assert_eq!(run.log.reader().read(lost.1).unwrap().event.id(), lost.1.to_string());
}

#[test]
fn a_damaged_snapshot_falls_back_to_the_older_one_and_then_to_the_log() {
    let (disk, options) = long_log(3);
    let whole = Run::open(&disk.copy(), &options).unwrap().state.encode();
    let snapshots: Vec<_> =
        disk.names().into_iter().filter(|path| path.extension().is_some_and(|e| e == "snap")).collect();
    assert_eq!(snapshots.len(), 2, "{snapshots:?}");
    for path in snapshots.iter().rev() {
        flip(&disk, path, 60, 4);
        let run = Run::open(&disk.copy(), &options).unwrap();
        assert_eq!(run.state.encode(), whole, "{}", path.display());
    }
}

#[test]
fn without_a_snapshot_a_log_whose_beginning_is_retired_does_not_open() {
    let options = Options { retention_bytes: 60 << 10, retention_age_ms: 0, window: None, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    for n in 0..60 {
        let offset = run.put(&n.to_string(), 1400);
        let routed = super::super::Routed { epoch: 1, from: offset, to: offset, matches: vec![], only: None };
        run.append(&[], vec![super::super::LogRecord::Routed(routed)]).unwrap();
        run.keeper.step();
    }
    run.stop().unwrap();
    assert!(segment_files(&disk)[0] > layout().segment(1), "nothing was retired");
    for path in disk.names().into_iter().filter(|path| path.extension().is_some_and(|e| e == "snap")) {
        flip(&disk, &path, 60, 4);
    }
    let refused = Run::open(&disk, &options).err().expect("refused");
    assert!(matches!(refused, OpenError::NoSnapshot { .. }), "{refused}");
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let verified = verify_on(&shared, Path::new(DIR), &mut |_| {}).unwrap_err();
    assert!(matches!(verified, VerifyError::Open(OpenError::NoSnapshot { .. })), "{verified}");
    let run = Run::open(&disk, &skipping(&options)).unwrap();
    assert_eq!(run.state.next_offset, Offset(60));
}

#[test]
fn a_zero_filled_tail_is_the_end_and_stale_bytes_do_not_pass() {
    let (disk, options) = small_log();
    let path = segment_files(&disk)[0].clone();
    let mut content = disk.content(&path);
    // The same frame again where the next one would stand, as a recycled file may hold one: of segment 9.
    let frame = content[SEGMENT_HEADER_BYTES as usize..][..512].to_vec();
    let end = SEGMENT_HEADER_BYTES as usize + 6 * 512;
    content[end + 512..end + 1024].copy_from_slice(&frame);
    content[end + 512 + 8] = 9;
    disk.set_content(&path, content);
    let run = Run::open(&disk, &options).unwrap();
    assert_eq!(run.events().len(), 6);
}

#[test]
fn a_log_without_its_identity_is_refused_and_left_alone() {
    let (disk, options) = small_log();
    disk.forget(&layout().store_file());
    disk.set_fault(None);
    let refused = Run::open(&disk, &options).err().expect("refused");
    assert!(matches!(refused, OpenError::NotAStore(_)), "{refused}");
    assert_eq!(disk.operations(), 0, "{}", disk.trace());
}

#[test]
fn unused_space_behind_the_last_frame_of_a_segment_is_no_damage() {
    let options = Options { window: None, segment_bytes: 12 << 10, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    for n in 0..40 {
        run.put(&format!("{n}"), 1000);
    }
    run.keeper.step();
    run.stop().unwrap();
    let mut run = Run::open(&disk, &options).unwrap();
    let sealed = run.log.reader().segments().len() - 1;
    assert!(sealed > 1, "a log of several segments");
    (0..sealed).for_each(|_| run.keeper.step());
    assert_eq!(run.log.report().problem, None);
    run.stop().unwrap();
}

#[test]
fn damage_in_a_sealed_segment_is_found_while_the_store_runs() {
    let (disk, options) = long_log(0);
    let mut run = Run::open(&disk, &options).unwrap();
    let sealed = run.log.reader().segments().len() as u64 - 1;
    assert!(sealed > 1, "a log of several segments");
    (0..sealed).for_each(|_| run.keeper.step());
    assert_eq!(run.log.report().problem, None);
    run.stop().unwrap();
    let mut run = Run::open(&disk, &options).unwrap();
    flip(&disk, &segment_files(&disk)[0], 4096 + 100, 0);
    (0..sealed).for_each(|_| run.keeper.step());
    let problem = run.log.report().problem.expect("found");
    assert_eq!(problem, "the log is damaged: 000000000001.seg bytes 4096 to 6144 (offsets 0..0)");
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_looked_at() {
    let (disk, options) = long_log(0);
    let paths = segment_files(&disk);
    disk.scratch(&paths[0], 8192..8193);
    let damage = verify(&disk).damage;
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert!(damage[0].is_unreadable && damage[0].start <= 8192 && 12288 <= damage[0].end, "{damage:?}");
    let refused = Run::open(&disk, &skipping(&options)).err().expect("refused: it may be readable tomorrow");
    let text = refused.to_string();
    assert!(
        text.contains("000000000001.seg bytes") && text.contains("cannot be read: offsets 2..3"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_read_while_the_store_runs_is_said_and_what_is_behind_it_verified() {
    let (disk, options) = long_log(0);
    let mut run = Run::open(&disk, &options).unwrap();
    run.keeper.step();
    run.stop().unwrap();
    let mut run = Run::open(&disk, &options).unwrap();
    let paths = segment_files(&disk);
    disk.scratch(&paths[0], 8192..8193);
    flip(&disk, &paths[2], 4096 + 100, 0);
    (0..paths.len()).for_each(|_| run.keeper.step());
    let problem = run.log.report().problem.expect("said");
    run.stop().unwrap();
    let found = verify(&disk).damage;
    let first =
        format!("the log is damaged in 2 places, the first: 000000000001.seg bytes {} to", found[0].start);
    assert!(problem.contains(&first) && problem.contains(&found[0].events()), "{problem}\n{found:?}");
}

#[test]
fn a_snapshot_that_is_not_whole_is_reported() {
    let (disk, _) = long_log(3);
    let snapshots: Vec<_> =
        disk.names().into_iter().filter(|path| path.extension().is_some_and(|e| e == "snap")).collect();
    assert_eq!(verify(&disk).other_problems(), Vec::<String>::new());
    flip(&disk, &snapshots[0], 60, 4);
    let name = snapshots[0].file_name().unwrap().to_string_lossy().into_owned();
    let report = verify(&disk);
    assert_eq!(report.broken_snapshots, [name]);
    assert_eq!(report.other_problems().len(), 1);
}

#[test]
fn a_file_of_dead_letters_that_cannot_be_told_is_never_written_over() {
    let disk = SimDisk::new();
    disk.create_dir(&layout().letters()).unwrap();
    let letters = || Letters::new(Arc::new(disk.clone()), layout(), 7);
    let copy = |n: u64| letters::Copy { key: letters::Key::Aside(n), body: vec![1; 40] };
    letters().keep(&[copy(1)]).unwrap();
    let file = layout().letters_file(1);
    flip(&disk, &file, 3, 0);
    let before = disk.content(&file);
    letters().keep(&[copy(2)]).unwrap();
    assert_eq!(disk.content(&file), before);
    assert!(disk.names().contains(&layout().letters_file(2)));
    assert_eq!(letters().verify().unwrap(), (1, vec![(1, 0)]), "and it is said");
}

#[test]
fn of_a_tail_whose_header_is_not_whole_all_is_set_aside_and_nothing_of_the_files_former_life() {
    let options = Options { window: None, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    run.put("first", 100);
    let last = run.log.reader().segments()[0].extent().end as usize;
    run.put("last", 5000);
    let segment = run.log.reader().segments()[0].clone();
    let end = segment.extent().end as usize;
    let disk = kill(&disk, run);
    let path = segment_files(&disk)[0].clone();
    let mut whole = disk.content(&path);
    let frame = whole[last..end].to_vec();
    // A frame of another segment, as a recycled file has them.
    let header = FrameHeader::decode(&frame, segment.header.store, 1).unwrap();
    FrameHeader { segment: 9, ..header }.encode_into(&mut whole[end..]);
    let lost = |lost: std::ops::Range<usize>, with: u8| {
        let mut content = whole.clone();
        content[last..][lost].fill(with);
        content
    };
    // A bit of it, and a block that did not reach the disk: zeros, or what was there before.
    for (content, from) in [(lost(25..26, 0xff), 32), (lost(0..512, 0), 512), (lost(0..512, 7), 512)] {
        let disk = disk.copy();
        disk.set_content(&path, content);
        let run = Run::open(&disk, &options).unwrap();
        assert_eq!(run.events().len(), 1);
        let aside = disk.names().into_iter().find(|path| path.starts_with(layout().set_aside())).unwrap();
        let kept = disk.content(&aside);
        assert!(
            kept.len() == frame.len() && kept[from..] == frame[from..],
            "{from}: what may have been acknowledged is kept"
        );
    }
}
