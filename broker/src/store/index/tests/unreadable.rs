//! The index beside places of the log that cannot be read.

use super::super::super::fields::Writer;
use super::super::super::format::{FrameHeader, RecordType, push_record, seal};
use super::super::super::record::append_event;
use super::super::super::tests::disk::SimDisk;
use super::super::super::tests::rig::{self, Run};
use super::*;

#[test]
fn a_segment_that_cannot_be_read_is_passed_over_and_said() {
    let disk = SimDisk::new();
    let log_options = Options { window: None, segment_bytes: 12 << 10, ..rig::options() };
    let mut run = Run::open(&disk, &log_options).unwrap();
    (0..40).for_each(|n| _ = run.put(&n.to_string(), 1400));
    let segments = run.log.reader().segments();
    assert!(segments.len() > 4);
    let dir = TempDir::new().unwrap();
    let index = || {
        let room = Room { disk: Arc::new(RealDisk), free_bytes_min: 0 };
        Index::new(Arc::clone(run.log.reader()), dir.path().join("index"), room)
    };
    let number = segments[1].number();
    let sealed: Vec<u64> = segments.iter().rev().skip(1).map(|segment| segment.number()).collect();
    drop(segments);
    disk.scratch(&rig::layout().segment(number), 8192..8193);
    let first = index();
    build(&first, usize::MAX);
    assert_eq!(first.passed_over(), [number]);
    let trees = first.trees().unwrap();
    for other in sealed.iter().filter(|other| **other != number) {
        assert!(trees.reached(*other).unwrap().is_done, "segment {other}");
    }
    drop(trees);
    let id = |id: &str| first.by_id("/tests", id).map(|found| found.map(|record| record.offset.0));
    assert_eq!(id("39").unwrap(), Some(39));
    assert!(
        matches!(id("0"), Err(ReadError::Io { .. })),
        "it may be in what cannot be read, and that is said"
    );
    first.set_trees(None);
    // What was indexed while it could be read keeps nothing from opening, either.
    disk.scratch(&rig::layout().segment(number + 1), 4096..1 << 20);
    let second = index();
    build(&second, usize::MAX);
    assert_eq!(second.passed_over(), [number, number + 1]);
}

#[test]
fn an_event_that_cannot_be_decoded_takes_its_offset_all_the_same() {
    let disk = SimDisk::new();
    let log_options = Options { window: None, ..rig::options() };
    let mut run = Run::open(&disk, &log_options).unwrap();
    run.put("first", 10);
    let segment = run.log.reader().segments()[0].clone();
    let whole = run.log.reader().read(Offset(0)).unwrap();
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    // What recovery needs of an event, and no more.
    push_record(&mut frame, RecordType::Event, |body| {
        Writer(body).bytes(1, &whole.key.0).number(3, whole.received_at_ms);
    });
    append_event(&mut frame, &Record { event: rig::event("behind", 10), ..(*whole).clone() });
    let header = FrameHeader {
        segment: 1,
        frame: segment.extent().last_frame.unwrap() + 1,
        first_offset: Offset(1),
        written_at_ms: whole.received_at_ms,
        body_bytes: 0,
        records: 2,
        events: 2,
        store: segment.header.store as u64,
        checksum: 0,
    };
    seal(&mut frame, header);
    segment.file.write_at(&frame, segment.extent().end).unwrap();
    let disk = rig::kill(&disk, run);
    let run = Run::open(&disk, &log_options).unwrap();
    let dir = TempDir::new().unwrap();
    let room = Room { disk: Arc::new(RealDisk), free_bytes_min: 0 };
    let index = Index::new(Arc::clone(run.log.reader()), dir.path().join("index"), room);
    let id = |id: &str| index.by_id("/tests", id).unwrap().map(|record| record.offset);
    assert_eq!((id("first"), id("behind")), (Some(Offset(0)), Some(Offset(2))));
    run.stop().unwrap();
}
