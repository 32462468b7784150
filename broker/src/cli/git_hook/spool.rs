//! Events that the broker has not taken yet, on the disk of the repository.
//!
//! A file for each push, `<nanoseconds>-<process>.ndjson`, one event in the JSON format a line, written whole and synced before
//! it gets its name. Whoever holds the lock sends the files in the order of their names and takes away what was accepted; a
//! hook that is killed in between leaves events that are sent again, which the broker knows by their ids. `turns` remembers
//! the last update of each ref.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluice_adapters::git::push::RefUpdate;
use tokio::time::{Instant, sleep};

/// Bounds of what waits; a push beyond them is not kept.
const BYTES_MAX: u64 = 64 << 20;
const FILES_MAX: usize = 4096;
const LOCK_INTERVAL: Duration = Duration::from_millis(20);
/// Refs whose last update is remembered; beyond them the memory begins anew.
const TURNS_MAX: usize = 20_000;

pub struct Spool {
    dir: PathBuf,
    /// Of files; whoever may write the repository's objects may write these.
    mode: u32,
}

/// Held by whoever sends.
pub struct Lock(#[expect(dead_code, reason = "dropping the file gives the lock back")] File);

impl Spool {
    pub fn open(git_dir: &Path) -> io::Result<Self> {
        let dir = git_dir.join("sluice");
        let objects = fs::metadata(git_dir.join("objects"))?.permissions();
        if !dir.is_dir() {
            fs::create_dir_all(&dir)?;
            fs::set_permissions(&dir, objects.clone())?;
            File::open(git_dir)?.sync_all()?;
        }
        Ok(Self { dir, mode: objects.mode() & 0o666 })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits for the lock until the deadline.
    pub async fn lock(&self, deadline: Instant) -> io::Result<Option<Lock>> {
        let path = self.dir.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(self.mode).open(path)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Lock(file))),
                Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_INTERVAL).await,
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Keeps the events of one push, on disk when this returns.
    pub fn keep(&self, events: &[Vec<u8>]) -> io::Result<()> {
        let lines = lines(events);
        let files = self.files()?;
        let waiting: u64 = files.iter().map(|path| fs::metadata(path).map_or(0, |found| found.len())).sum();
        if files.len() >= FILES_MAX || waiting + lines.len() as u64 > BYTES_MAX {
            return Err(io::Error::other(format!("{} is full", self.dir.display())));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("{:020}-{}.ndjson", now.as_nanos(), std::process::id());
        self.write(&name, &lines)
    }

    /// What waits, in the order it is to be sent.
    pub fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "ndjson") {
                files.push(path);
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    /// The events of a file.
    pub fn read(&self, file: &Path) -> io::Result<Vec<Vec<u8>>> {
        let bytes = fs::read(file)?;
        Ok(bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect())
    }

    /// Leaves only these events in a file, or takes it away.
    pub fn leave(&self, file: &Path, events: &[Vec<u8>]) -> io::Result<()> {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match events {
            [] => fs::remove_file(file),
            _ => self.write(name, &lines(events)),
        }
    }

    /// How often each ref had changed otherwise before this update, so that a ref that goes back and forth is told each time, and
    /// the same update told twice is the same event. For whoever holds the lock; a memory that is lost begins at 0.
    pub fn turns(&self, updates: &[RefUpdate]) -> Vec<u64> {
        let path = self.dir.join("turns");
        let text = fs::read(&path).unwrap_or_default();
        let mut known: BTreeMap<String, (String, u64)> = text
            .split(|byte| *byte == b'\n')
            .filter_map(|line| {
                let mut words = std::str::from_utf8(line).ok()?.split(' ');
                let (name, update, turn) = (words.next()?, words.next()?, words.next()?);
                Some((name.to_owned(), (update.to_owned(), turn.parse().ok()?)))
            })
            .collect();
        if known.len() + updates.len() > TURNS_MAX {
            known.clear();
        }
        let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..32].to_owned();
        let turns = updates.iter().map(|update| {
            let change = hash(format!("{:?} {:?}", update.old, update.new).as_bytes());
            let (last, turn) = known.entry(hash(&update.name)).or_insert_with(|| (change.clone(), 0));
            if *last != change {
                (*last, *turn) = (change, turn.saturating_add(1));
            }
            *turn
        });
        let turns = turns.collect();
        let text: String =
            known.iter().map(|(name, (change, turn))| format!("{name} {change} {turn}\n")).collect();
        // Without the memory, a ref that goes back and forth within the duplicate window is told once too few.
        drop(self.write("turns", text.as_bytes()));
        turns
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unnamed = self.dir.join(format!("{name}.{}.new", std::process::id()));
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(self.mode).open(&unnamed)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        let named = written.and_then(|()| fs::rename(&unnamed, self.dir.join(name)));
        if named.is_err() {
            // The first error is the one that says why.
            drop(fs::remove_file(&unnamed));
        }
        named?;
        File::open(&self.dir)?.sync_all()
    }
}

fn lines(events: &[Vec<u8>]) -> Vec<u8> {
    let mut lines = Vec::new();
    for event in events {
        lines.extend_from_slice(event);
        lines.push(b'\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("objects")).unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        (dir, spool)
    }

    fn events(texts: &[&str]) -> Vec<Vec<u8>> {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    #[test]
    fn what_is_kept_comes_back_in_order() {
        let (_dir, spool) = spool();
        spool.keep(&events(&["1", "2"])).unwrap();
        spool.keep(&events(&["3"])).unwrap();
        let files = spool.files().unwrap();
        let all: Vec<_> = files.iter().map(|file| spool.read(file).unwrap()).collect();
        assert_eq!(all, [events(&["1", "2"]), events(&["3"])]);
        spool.leave(&files[0], &events(&["2"])).unwrap();
        assert_eq!(spool.read(&files[0]).unwrap(), events(&["2"]));
        spool.leave(&files[0], &[]).unwrap();
        assert_eq!(spool.files().unwrap(), files[1..]);
    }

    #[test]
    fn the_spool_is_bounded() {
        let (_dir, spool) = spool();
        let large = vec![vec![b'x'; 40 << 20]];
        spool.keep(&large).unwrap();
        let refused = spool.keep(&large).unwrap_err();
        assert!(refused.to_string().ends_with("/sluice is full"), "{refused}");
        spool.keep(&events(&["small"])).unwrap();
    }

    #[test]
    fn a_ref_that_goes_back_and_forth_takes_turns() {
        let (_dir, spool) = spool();
        let update = |old: &str, new: &str, name: &str| {
            RefUpdate::parse(format!("{} {} {name}", old.repeat(40), new.repeat(40)).as_bytes()).unwrap()
        };
        let turn = |old, new, name| spool.turns(&[update(old, new, name)])[0];
        assert_eq!(turn("a", "b", "refs/heads/x"), 0);
        assert_eq!(turn("a", "b", "refs/heads/x"), 0);
        assert_eq!(turn("b", "a", "refs/heads/x"), 1);
        assert_eq!(turn("a", "b", "refs/heads/x"), 2);
        assert_eq!(turn("a", "b", "refs/heads/y"), 0);
        fs::write(spool.dir().join("turns"), b"\xff garbage\n1 2\n").unwrap();
        assert_eq!(turn("a", "b", "refs/heads/x"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_sends_at_a_time() {
        let (_dir, spool) = spool();
        let soon = Instant::now() + Duration::from_secs(1);
        let held = spool.lock(soon).await.unwrap();
        assert!(held.is_some());
        assert!(spool.lock(soon).await.unwrap().is_none());
        drop(held);
        assert!(spool.lock(soon).await.unwrap().is_some());
    }
}
