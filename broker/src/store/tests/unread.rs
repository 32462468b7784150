//! What a walk of the log, and a trigger that is behind, make of places that cannot be read.

use std::path::Path;
use std::sync::Arc;

use super::super::format::{FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, seal};
use super::super::verify::repair_on;
use super::super::{
    Attempted, Damage, DeliveryId, LogRecord, Next, Offset, Options, Passed, Routed, TriggerEntry, TriggerId,
    TriggerSet, Unread,
};
use super::damage::{flip, long_log, verify};
use super::disk::SimDisk;
use super::rig::{DIR, Run, check_books, kill, layout, options, segment_files};

/// Where a walk of the whole log meets something that cannot be read.
fn unread(run: &Run) -> Vec<Unread> {
    let mut places = Vec::new();
    let visit = &mut |passed| {
        if let Passed::Damage(place) = passed {
            places.push(place);
        }
        true
    };
    run.log.reader().walk_all(Offset(0), visit).unwrap();
    places
}

#[test]
fn a_walk_tells_of_damage_where_verify_does_and_nowhere_else() {
    for snapshots in [0, 3] {
        let (disk, options) = long_log(snapshots);
        // Killed and begun again: a frame stands there twice.
        let mut run = Run::open(&disk, &options).unwrap();
        (30..34).for_each(|n| _ = run.put(&n.to_string(), 1400));
        let disk = kill(&disk, run);
        let mut run = Run::open(&disk, &options).unwrap();
        run.put("34", 1400);
        assert_eq!(unread(&run), []);
        run.stop().unwrap();
        let paths = segment_files(&disk);
        for (at, path) in paths.iter().enumerate().take(paths.len() - 2) {
            let frames: Vec<_> = (SEGMENT_HEADER_BYTES as usize..disk.content(path).len())
                .step_by(512)
                .filter(|start| disk.content(path)[*start..].starts_with(b"SLFR"))
                .collect();
            // Headers and bodies, in turn.
            let bytes = frames.iter().enumerate().map(|(n, frame)| frame + if n % 2 == 0 { 20 } else { 100 });
            for byte in bytes {
                let disk = disk.copy();
                let what = format!("segment {at}, byte {byte}, {snapshots} snapshots");
                let run = Run::open(&disk, &options).unwrap();
                flip(&disk, path, byte, 0);
                let places = unread(&run);
                let found: Vec<_> = places.iter().map(|place| (place.segment, place.start)).collect();
                run.stop().unwrap();
                let damage = verify(&disk).damage;
                let verified: Vec<_> = damage.iter().map(|part| (part.segment, part.start)).collect();
                assert_eq!(found, verified, "{what}");
                // A frame that stands there twice is not lost with one of the two.
                if damage.is_empty() {
                    continue;
                }
                assert_eq!(places[0].next_offset, damage[0].offsets.1, "{what}");
                let (from, to) = damage[0].offsets;
                repair_on(Arc::new(disk.clone()), Path::new(DIR), from.0..to.0).unwrap();
                let run = Run::open(&disk, &options).unwrap();
                let is_accepted = |place: &Unread| run.state.gaps.iter().any(|gap| place.is_within(gap));
                assert!(unread(&run).iter().all(is_accepted), "{what}");
                run.stop().unwrap();
            }
        }
    }
}

/// A log that was stopped or killed, and then begun again, stopped or killed.
fn two_runs(snapshots: usize, is_killed: bool) -> (SimDisk, Options) {
    let (disk, options) = long_log(snapshots);
    let mut run = Run::open(&disk, &options).unwrap();
    (30..34).for_each(|n| _ = run.put(&n.to_string(), 1400));
    let disk = kill(&disk, run);
    let mut run = Run::open(&disk, &options).unwrap();
    (34..36).for_each(|n| _ = run.put(&n.to_string(), 1400));
    if is_killed {
        return (kill(&disk, run), options);
    }
    run.stop().unwrap();
    (disk, options)
}

/// All events that no gap took are there.
fn check_rest(run: &Run, what: &str) {
    let is_lost = |offset: Offset| run.state.gaps.iter().any(|gap| gap.from <= offset && offset < gap.to);
    let kept: Vec<u64> = (0..run.state.next_offset.0).filter(|offset| !is_lost(Offset(*offset))).collect();
    let found: Vec<u64> = run.events().iter().map(|record| record.offset.0).collect();
    assert_eq!(found, kept, "{what}");
    for offset in kept.into_iter().map(Offset) {
        let read = run.log.reader().read(offset).unwrap_or_else(|error| panic!("{what}, {offset}: {error}"));
        let id = read.event.id();
        assert!(id == offset.to_string() || id == "after", "{what}: {id} at {offset}");
    }
    let is_accepted = |place: &Unread| run.state.gaps.iter().any(|gap| place.is_within(gap));
    assert!(unread(run).iter().all(is_accepted), "{what}");
    check_books(&run.state);
}

#[test]
fn a_block_that_cannot_be_read_can_be_given_up_wherever_it_is() {
    for (snapshots, is_killed) in [(0, true), (3, false)] {
        let (disk, options) = two_runs(snapshots, is_killed);
        let paths = segment_files(&disk);
        for (at, path) in paths.iter().enumerate() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            for block in (0..disk.content(path).len() as u64).step_by(4096) {
                let disk = disk.copy();
                let what = format!("{name} at {block}, {snapshots} snapshots, killed: {is_killed}");
                disk.scratch(path, block..block + 1);
                let damage = verify(&disk).damage;
                // Space that was never used, or a frame that recovery wrote again: nothing is lost with it.
                if damage.is_empty() && at + 1 < paths.len() {
                    let run = Run::open(&disk, &options).unwrap_or_else(|e| panic!("{what}: {e:?}"));
                    let read = |n: u64| run.log.reader().read(Offset(n)).unwrap().event.id().to_owned();
                    (0..36).for_each(|n| assert_eq!(read(n), n.to_string(), "{what}"));
                    run.stop().unwrap();
                    continue;
                }
                let is_it = |part: &&Damage| {
                    part.is_unreadable && part.file == name && part.start <= block && block < part.end
                };
                assert!(damage.iter().any(|part| is_it(&part)), "{what}: {damage:?}");
                let from = damage.iter().map(|part| part.offsets.0.0).min().unwrap();
                let to = damage.iter().map(|part| part.offsets.1.0).max().unwrap().max(from + 1);
                let content = disk.content(path);
                let dir = Path::new(DIR);
                repair_on(Arc::new(disk.clone()), dir, from..to).unwrap_or_else(|e| panic!("{what}: {e:?}"));
                // Space that was never used may be cut off.
                let left = disk.content(path);
                let is_kept =
                    content.starts_with(&left) && content[left.len()..].iter().all(|byte| *byte == 0);
                assert!(is_kept, "{what}: it is removed or overwritten");
                assert_eq!(verify(&disk).damage, [], "{what}");
                let mut run = Run::open(&disk, &options).unwrap_or_else(|e| panic!("{what}: {e:?}"));
                check_rest(&run, &what);
                run.put("after", 100);
                run.keeper.step();
                assert_eq!(run.log.report().problem, None, "{what}");
                run.stop().unwrap();
                let run = Run::open(&disk, &options).unwrap_or_else(|e| panic!("{what}: {e:?}"));
                check_rest(&run, &what);
                run.stop().unwrap();
                // The next day it can be read, and is lost all the same.
                for path in disk.names().iter().filter(|path| path.starts_with(layout().snapshots())) {
                    flip(&disk, path, 60, 4);
                }
                let disk = disk.copy();
                let run = Run::open(&disk, &options).unwrap_or_else(|e| panic!("{what}, later: {e:?}"));
                check_books(&run.state);
                let offsets: Vec<_> = run.events().iter().map(|record| record.offset).collect();
                assert!(offsets.is_sorted_by(|a, b| a < b), "{what}, later: {offsets:?}");
                run.stop().unwrap();
            }
        }
    }
}

#[test]
fn a_snapshot_does_not_pass_over_what_cannot_be_read_any_more() {
    for is_scratched in [true, false] {
        let (disk, options) = long_log(0);
        let mut run = Run::open(&disk, &options).unwrap();
        let path = segment_files(&disk)[1].clone();
        match is_scratched {
            true => disk.scratch(&path, 8192..8193),
            false => flip(&disk, &path, 8192 + 100, 0),
        }
        run.keeper.step();
        let problem = run.log.report().problem.expect("said");
        assert!(problem.contains("no snapshot") && problem.contains("000000000002.seg"), "{problem}");
        assert!(
            !disk.names().iter().any(|path| path.starts_with(layout().snapshots())),
            "{:?}",
            disk.names()
        );
        run.stop().unwrap();
    }
}

#[test]
fn a_snapshot_does_not_look_at_what_the_writer_writes_meanwhile() {
    let disk = SimDisk::new();
    let pressed = Options { window: None, segment_bytes: 12 << 10, retention_bytes: 1, ..options() };
    let mut run = Run::open(&disk, &pressed).unwrap();
    (0..6).for_each(|n| _ = run.put(&n.to_string(), 1400));
    run.keeper.step();
    let segment = run.log.reader().segments().last().unwrap().clone();
    let extent = segment.extent();
    let last_frame = extent.last_frame.unwrap();
    // A frame that is half there, and the one behind it.
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    LogRecord::Close.append_to(&mut frame);
    let header = FrameHeader {
        segment: segment.number(),
        frame: last_frame + 2,
        first_offset: extent.next_offset,
        written_at_ms: extent.last_received_ms,
        body_bytes: 0,
        records: 1,
        events: 0,
        store: segment.header.store as u64,
        checksum: 0,
    };
    seal(&mut frame, header);
    segment.file.write_at(&[7; 300], extent.end).unwrap();
    segment.file.write_at(&frame, extent.end + 512).unwrap();
    run.keeper.step();
    assert_eq!(run.log.report().problem, None);
    assert_eq!(run.log.report().snapshot_frame, last_frame);
    run.stop().unwrap();
}

/// A trigger without room for most of its 30 matches, each in a frame of its own; also where those frames are.
fn long_backlog() -> (SimDisk, Options, Run, Vec<(u64, usize)>) {
    let options = Options { window: None, segment_bytes: 12 << 10, outstanding: 4, ..options() };
    let disk = SimDisk::new();
    let mut run = Run::open(&disk, &options).unwrap();
    let entry = TriggerEntry {
        id: TriggerId(1),
        name: "t".into(),
        birth: Offset(0),
        filters: serde_json::Value::Null,
        removed_at_ms: None,
    };
    let set = TriggerSet { epoch: 1, at_ms: 0, triggers: vec![entry] };
    run.append(&[], vec![LogRecord::Triggers(set.into())]).unwrap();
    let mut frames = Vec::new();
    for n in 0..30 {
        let offset = run.put(&n.to_string(), 500);
        run.append(&[], vec![routed(offset)]).unwrap();
        let segment = run.log.reader().segments().last().unwrap().clone();
        frames.push((segment.number(), segment.extent().end as usize - 512 + 70));
    }
    (disk, options, run, frames)
}

fn routed(offset: Offset) -> LogRecord {
    let matches = vec![(offset, vec![TriggerId(1)])];
    LogRecord::Routed(Routed { epoch: 1, from: offset, to: offset, matches, only: None })
}

/// Accepts the loss of what is damaged.
fn accept(disk: &SimDisk) {
    let lost = verify(disk).damage[0].offsets;
    repair_on(Arc::new(disk.clone()), Path::new(DIR), lost.0.0..lost.1.0).unwrap();
}

#[test]
fn what_was_routed_again_is_not_taken_to_be_lost_when_it_stands_behind_what_cannot_be_read() {
    let (disk, options, run, frames) = long_backlog();
    run.stop().unwrap();
    flip(&disk, &layout().segment(frames[10].0), frames[10].1, 0);
    accept(&disk);
    let mut run = Run::open(&disk, &options).unwrap();
    let unrouted = run.state.unrouted.clone();
    assert_eq!(unrouted, [(Offset(10), Offset(11))]);
    run.append(&[], vec![routed(Offset(10))]).unwrap();
    run.keeper.step();
    assert_eq!(run.log.report().problem, None);
    run.stop().unwrap();
    flip(&disk, &layout().segment(frames[20].0), frames[20].1, 0);
    let deliver_all = || {
        for _ in 0..10 {
            let mut run = Run::open(&disk, &options).unwrap();
            let slots = run.state.triggers[&TriggerId(1)].outstanding.iter();
            let offsets: Vec<u64> = slots.map(|slot| slot.offset().0).collect();
            offsets.iter().for_each(|offset| delivered(&mut run, *offset));
            run.stop().unwrap();
        }
    };
    deliver_all();
    let run = Run::open(&disk, &options).unwrap();
    assert!(run.state.floor() <= Offset(10), "it is still needed");
    run.stop().unwrap();
    flip(&disk, &layout().segment(frames[20].0), frames[20].1, 0);
    deliver_all();
    let run = Run::open(&disk, &options).unwrap();
    check_books(&run.state);
    let books = run.state.books(&run.state.triggers[&TriggerId(1)]);
    assert_eq!((books.delivered, books.lost, books.pending()), (30, 0, 0), "{books:?}");
}

fn delivered(run: &mut Run, offset: u64) {
    let attempted = Attempted {
        id: DeliveryId { trigger: TriggerId(1), offset: Offset(offset), redrive: 0 },
        attempt: 1,
        at_ms: 1,
        duration_ms: 0,
        status: Some(200),
        error: None,
        body: bytes::Bytes::new(),
        owes_letter: false,
        next: Next::Delivered,
    };
    run.append(&[], vec![LogRecord::Outcomes(vec![attempted])]).unwrap();
}

#[test]
fn matches_in_damaged_frames_are_waited_for_until_the_loss_is_accepted() {
    let (disk, options, mut run, frames) = long_backlog();
    run.keeper.step();
    run.stop().unwrap();
    flip(&disk, &layout().segment(frames[10].0), frames[10].1, 0);

    let behind = |run: &Run| run.state.triggers[&TriggerId(1)].behind;
    let mut run = Run::open(&disk, &options).unwrap();
    assert_eq!(behind(&run), Some(Offset(4)));
    // All that is known of is delivered: what it is behind with is not passed over.
    (0..10).for_each(|offset| delivered(&mut run, offset));
    run.stop().unwrap();
    let run = Run::open(&disk, &options).unwrap();
    assert_eq!((behind(&run), run.state.floor()), (Some(Offset(10)), Offset(10)));
    run.stop().unwrap();

    accept(&disk);
    let mut run = Run::open(&disk, &options).unwrap();
    assert_eq!(behind(&run), Some(Offset(15)));
    (11..30).for_each(|offset| delivered(&mut run, offset));
    run.stop().unwrap();
    let run = Run::open(&disk, &options).unwrap();
    check_books(&run.state);
    let books = run.state.books(&run.state.triggers[&TriggerId(1)]);
    assert_eq!((books.delivered, books.lost, books.pending()), (29, 1, 0), "{books:?}");
}
