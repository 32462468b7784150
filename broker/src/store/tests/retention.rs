//! What is old goes, also when the log hardly grows or does not grow at all.

use std::time::{Duration, Instant};

use super::super::{LogRecord, Offset, Options, Routed, WindowSize};
use super::disk::SimDisk;
use super::rig::{Run, options};

const PATIENCE: Duration = Duration::from_secs(60);

/// Several segments of settled events, and no snapshot yet.
fn settled(disk: &SimDisk, options: &Options) -> Run {
    let mut run = Run::open(disk, options).unwrap();
    for n in 0..30 {
        let offset = run.put(&n.to_string(), 1400);
        let routed = Routed { epoch: 1, from: offset, to: offset, matches: vec![], only: None };
        run.append(&[], vec![LogRecord::Routed(routed)]).unwrap();
    }
    assert!(run.log.reader().segments().len() > 3);
    run.log.note_floor(Offset(30));
    run
}

fn old() -> Options {
    let window = Some(WindowSize { window_ms: 1, entries: 10_000 });
    Options { window, segment_bytes: 12 << 10, retention_age_ms: 1, ..options() }
}

#[test]
fn what_is_old_goes_though_no_segment_is_sealed_any_more() {
    let disk = SimDisk::new();
    let mut run = settled(&disk, &old());
    let deadline = Instant::now() + PATIENCE;
    while run.log.reader().segments().len() > 1 {
        assert!(Instant::now() < deadline, "{:?}", run.log.report());
        run.keeper.step();
    }
    assert!(run.log.reader().first_offset() > Offset(0));
    run.stop().unwrap();
    assert_eq!(Run::open(&disk, &old()).unwrap().state.next_offset, Offset(30));
}

#[test]
fn a_log_whose_segments_are_not_old_is_left_in_peace() {
    for young in [
        Options { retention_age_ms: 1 << 40, ..old() },
        Options { window: Some(WindowSize { window_ms: 1 << 40, entries: 10_000 }), ..old() },
    ] {
        let disk = SimDisk::new();
        let mut run = settled(&disk, &young);
        run.keeper.step();
        disk.set_fault(None);
        let frame = run.log.report().snapshot_frame;
        (0..5).for_each(|_| run.keeper.step());
        assert_eq!((run.log.report().snapshot_frame, disk.operations()), (frame, 0), "{}", disk.trace());
        run.stop().unwrap();
    }
}
