//! The index on a disk that is full, or nearly.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::*;

/// A disk that tells what it is told to, and panics once.
pub struct Moody {
    free_bytes: AtomicU64,
    panics: AtomicBool,
}

impl Disk for Moody {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        assert!(!self.panics.swap(false, Relaxed), "a mood");
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

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.free_bytes.load(Relaxed))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        RealDisk.lock(path)
    }
}

pub fn moody(free_bytes: u64, panics: bool) -> Arc<Moody> {
    Arc::new(Moody { free_bytes: free_bytes.into(), panics: panics.into() })
}

#[tokio::test]
async fn on_a_disk_without_room_the_index_waits_and_look_ups_scan() {
    let mut stand = Stand::new(29, 6_000).await;
    let disk = moody(SPARED_BYTES, false);
    let room = Room { disk: Arc::clone(&disk) as Arc<dyn Disk>, free_bytes_min: 1 };
    let index = Arc::new(stand.index_with(room));
    let running = run(&index);
    until("the index waits", || index.state() == IndexState::Waiting).await;
    stand.check(&index);
    assert!(!index.dir.exists(), "nothing is written");
    disk.free_bytes.store(u64::MAX, Relaxed);
    until("the index is ready", || index.state() == IndexState::Ready).await;
    disk.free_bytes.store(0, Relaxed);
    until("the index waits again", || index.state() == IndexState::Waiting).await;
    let lag = index.lag();
    stand.publish(5000).await;
    stand.check(&index);
    assert_eq!(index.lag(), lag + 5000, "what is indexed stays, and nothing is added");
    index.stop();
    running.join().unwrap();
    assert!(!index.dir.with_extension("broken").exists());
}

#[tokio::test]
async fn an_index_that_found_the_disk_full_leaves_nothing_behind() {
    let mut stand = Stand::new(31, 6_000).await;
    let index = stand.index();
    for error in [
        IndexError::Sled(sled::Error::Io(io::Error::from_raw_os_error(28))),
        IndexError::Panicked("called `unwrap` on Io(Custom { kind: StorageFull, error: .. })".into()),
    ] {
        build(&index, usize::MAX);
        index.start_over(&error);
        assert_eq!(index.state(), IndexState::Waiting);
        assert!(!index.dir.exists() && !index.dir.with_extension("broken").exists());
        stand.check(&index);
    }
}
