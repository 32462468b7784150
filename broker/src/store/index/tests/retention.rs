//! The index and segments that go.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::super::super::Upkeep;
use super::*;

#[tokio::test]
async fn a_retired_segment_is_not_held_and_its_tree_is_dropped() {
    let mut stand = Stand::new(17, 24_000).await;
    let index = stand.index();
    let trees = open_index(&index);
    while index.step(&trees, &mut Throttle::new(&index, false)).unwrap() {}
    index.set_trees(Some(Arc::clone(&trees)));
    let reader = Arc::clone(stand.log.reader());
    let before = trees.names();
    assert!(before > 1, "{before} segments");
    let first = reader.segments()[0].number();
    // The keeper leases segments for moments, too; the index has dropped its lease with the block.
    until("the segment is free", || reader.take_oldest(first).is_some()).await;
    trees.retain(&reader.segments()).unwrap();
    assert_eq!(trees.names(), before - 1);
    assert!(trees.reached(first).is_none());
    stand.check(&index);
    drop(trees);
    index.set_trees(None);
    let again = stand.index();
    build(&again, 0);
    stand.check(&again);
}

/// Rule 14: age and size take segments while the index is built and asked; it holds none of them up, and forgets them.
#[tokio::test(flavor = "multi_thread")]
async fn retention_goes_on_under_an_index_that_is_built_and_asked() {
    let dir = TempDir::new().unwrap();
    let retention_bytes = 3 * SEGMENT_BYTES;
    let upkeep = Upkeep { snapshot_interval: Duration::from_millis(100), ..Upkeep::default() };
    let options = Options { retention_bytes, upkeep, ..options(dir.path()) };
    let mut stand = Stand::with(dir, &options, 71);
    let index = Arc::clone(stand.log.index());
    index.start();
    let is_over = Arc::new(AtomicBool::new(false));
    let asking = std::thread::spawn({
        let (index, is_over) = (Arc::clone(&index), Arc::clone(&is_over));
        move || {
            let mut asked = 0;
            while !is_over.load(Relaxed) {
                let found =
                    index.events(&Wanted { ty: Some("t1".into()), limit: 50, ..Wanted::default() }).unwrap();
                let are_right = found.iter().all(|record| record.event.ty() == "t1");
                assert!(are_right && found.is_sorted_by(|one, next| one.offset > next.offset));
                asked += 1;
                std::thread::yield_now();
            }
            asked
        }
    });
    for _ in 0..8 {
        let first = stand.next_offset();
        stand.publish(6_000).await;
        // Nothing waits for these events.
        let (from, to) = (Offset(first), Offset(stand.next_offset() - 1));
        let routed = Routed { epoch: 1, from, to, matches: Vec::new(), only: None };
        stand.log.append(Vec::new(), vec![LogRecord::Routed(routed)]).await.unwrap();
        stand.log.note_floor(to.next());
    }
    let reader = Arc::clone(stand.log.reader());
    let bytes = || reader.segments().iter().map(|segment| segment.extent().end).sum::<u64>();
    until("segments have gone", || bytes() <= retention_bytes).await;
    assert!(reader.first_offset() > Offset(10_000), "{}", reader.first_offset());
    is_over.store(true, Relaxed);
    assert!(asking.join().unwrap() > 0, "look-ups were made all the time");
    until("the index is ready", || index.state() == IndexState::Ready).await;
    until("trees have gone with their segments", || {
        let trees = index.trees().unwrap();
        trees.names() <= reader.segments().len()
    })
    .await;
    stand.check(&index);
    assert!(index.control().broken.is_none());
    stand.stop().await;
}
