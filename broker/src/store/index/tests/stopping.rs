//! The lock on the data directory is another process's only when the index does not touch the directory any more.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, mpsc};

use super::*;

#[tokio::test]
async fn a_stop_waits_for_the_index_and_the_store_opens_again_at_once() {
    let mut dir = TempDir::new().unwrap();
    for seed in 0..4 {
        let mut stand = Stand::open(dir, seed);
        let index = Arc::clone(stand.log.index());
        index.start();
        stand.publish(5_000).await;
        until("the index is open", || index.state() != IndexState::Starting).await;
        dir = stand.stop().await;
        assert_eq!(index.state(), IndexState::Stopped, "before the lock is free");
        assert!(index.trees().is_none());
    }
}

#[tokio::test]
async fn nothing_is_opened_before_the_log_holds_a_block() {
    let mut stand = Stand::new(3, 100).await;
    let index = Arc::clone(stand.log.index());
    index.start();
    until("the index has looked", || index.state() == IndexState::Ready).await;
    assert_eq!(index.lag(), 100);
    stand.check(&index);
    assert!(index.trees().is_none() && !stand.dir.path().join("index").exists());
    stand.publish(5_000).await;
    until("a block is indexed", || index.lag() < 4_096).await;
    stand.stop().await;
}

#[tokio::test]
async fn a_stop_is_heeded_within_a_block() {
    let stand = Stand::new(4, 5_000).await;
    let index = stand.index();
    let trees = open_index(&index);
    index.stop();
    let (mut throttle, begun) = (Throttle::new(&index, true), Instant::now());
    while begun.elapsed() < Duration::from_millis(1) {
        std::hint::spin_loop();
    }
    assert!(
        !index.step(&trees, &mut throttle).unwrap(),
        "it has worked long enough to look whether it is to stop"
    );
    stand.stop().await;
}

#[tokio::test]
async fn a_store_is_closed_without_its_index_having_been_started() {
    let stand = Stand::new(1, 10).await;
    let dir = stand.stop().await;
    assert!(!dir.path().join("index").exists());
}

/// A file system that never answers for the directory of the index.
struct Stuck {
    has_met: AtomicBool,
    for_ever: Mutex<mpsc::Receiver<()>>,
}

impl Disk for Stuck {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.ends_with("index") {
            self.has_met.store(true, Relaxed);
            let _ = self.for_ever.lock().unwrap().recv();
        }
        RealDisk.create_dir(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        RealDisk.lock(path)
    }
}

/// It must not hang the process: the log is closed by then. But nobody else may have the directory yet.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_hangs_does_not_hang_the_stop_and_keeps_the_lock() {
    let dir = TempDir::new().unwrap();
    let (release, for_ever) = mpsc::sync_channel(0);
    let stuck = Arc::new(Stuck { has_met: AtomicBool::new(false), for_ever: Mutex::new(for_ever) });
    let opened = open(Arc::clone(&stuck) as Arc<dyn Disk>, &options(dir.path())).unwrap();
    opened.log.index().start();
    let mut tail = opened.tail;
    tokio::spawn(async move { while tail.recv().await.is_some() {} });
    let new = (0..5_000).map(|_| new_event(&mut fastrand::Rng::with_seed(5))).collect();
    opened.log.append(new, Vec::new()).await.unwrap();
    until("the index hangs", || stuck.has_met.load(Relaxed)).await;
    opened.log.stop();
    tokio::time::timeout(PATIENCE, opened.ended).await.unwrap().unwrap().unwrap();
    assert!(matches!(open(Arc::new(RealDisk), &options(dir.path())), Err(OpenError::InUse(_))));
    drop(release);
}
