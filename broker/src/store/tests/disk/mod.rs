//! A disk in memory that forgets what was not synced: sector by sector, and name by name.

mod reads;
mod world;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::disk::{Disk, DiskFile, Lock};
use reads::Reads;
use world::{Inode, NameChange, World, put};

const SECTOR: usize = 512;
const POWER_OFF: &str = "the power goes off";

/// What goes wrong at an operation. Operations that change something are counted, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power fails: this operation and all later ones fail.
    PowerCut,
    /// This operation fails, a sync among them drops what it should have written.
    Eio,
    /// Whoever is at it panics.
    Panic,
    /// This operation and those after it that take space fail, until [`SimDisk::set_fault`] says otherwise.
    Enospc,
}

/// A handle on the disk as one life of the process sees it: after a kill or a power cut it only fails.
#[derive(Clone)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
    reads: Arc<Reads>,
    life: u64,
}

impl SimDisk {
    pub fn new() -> Self {
        Self { world: Arc::default(), reads: Arc::default(), life: 0 }
    }

    /// A copy of all there is, with a life of its own.
    pub fn copy(&self) -> Self {
        let world = World { locked: BTreeSet::new(), ..self.world().clone() };
        Self { life: world.life, world: Arc::new(Mutex::new(world)), reads: Arc::default() }
    }

    /// Ends the process: what it wrote stays visible, and unsynced.
    pub fn kill(&self) -> Self {
        let mut world = self.world();
        world.life += 1;
        world.is_off = false;
        world.fault = None;
        Self { world: Arc::clone(&self.world), reads: Arc::clone(&self.reads), life: world.life }
    }

    /// Cuts the power; what was not synced survives in part, as the seed says: 0 nothing, 1 all, else a mixture.
    pub fn power_cut(&self, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut survives = move || match seed {
            0 => false,
            1 => true,
            _ => random.bool(),
        };
        let mut world = self.world();
        let pending = std::mem::take(&mut world.pending);
        for change in pending {
            if survives() {
                change.apply(&mut world.durable_names);
            }
        }
        world.names = world.durable_names.clone();
        for file in &mut world.files {
            let length = if survives() { file.content.len() } else { file.synced.len() };
            for sector in std::mem::take(&mut file.dirty) {
                let (start, end) = (sector * SECTOR, file.content.len().min((sector + 1) * SECTOR));
                if start < end && survives() {
                    let needed = file.synced.len().max(end);
                    file.synced.resize(needed, 0);
                    file.synced[start..end].copy_from_slice(&file.content[start..end]);
                }
            }
            file.synced.resize(length, 0);
            file.content = file.synced.clone();
        }
        drop(world);
        self.kill()
    }

    /// From here on the n-th changing operation fails so; counting begins anew.
    pub fn set_fault(&self, fault: Option<(u64, Fault)>) {
        let mut world = self.world();
        (world.fault, world.operations) = (fault, 0);
        world.trace.clear();
    }

    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.world().capacity = bytes;
    }

    /// From here on there is so much space besides what is taken.
    pub fn leave_free(&self, bytes: u64) {
        let mut world = self.world();
        world.capacity = Some(world.used() + bytes);
    }

    /// Whether a process holds the directory.
    pub fn is_locked(&self) -> bool {
        !self.world().locked.is_empty()
    }

    pub fn let_syncs_lie(&self) {
        self.world().syncs_lie = true;
    }

    /// Changing operations since the last [`Self::set_fault`].
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// The last of them, for the message of a failing test.
    pub fn trace(&self) -> String {
        let world = self.world();
        world.trace[world.trace.len().saturating_sub(12)..].join("\n")
    }

    pub fn names(&self) -> Vec<PathBuf> {
        self.world().names.keys().cloned().collect()
    }

    pub fn content(&self, path: &Path) -> Vec<u8> {
        let world = self.world();
        world.files[world.names[path]].content.clone()
    }

    pub fn set_content(&self, path: &Path, content: Vec<u8>) {
        let mut world = self.world();
        let file = world.names[path];
        world.files[file] = Inode { synced: content.clone(), content, dirty: BTreeSet::new() };
    }

    /// Removes a file as an operator would, durably.
    pub fn forget(&self, path: &Path) {
        let mut world = self.world();
        world.names.remove(path);
        world.durable_names.remove(path);
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.world();
        if world.life != self.life || world.is_off {
            return Err(io::Error::other("the process is dead"));
        }
        Ok(world)
    }

    /// Counts an operation; fails it when the plan says so. `grows` is whether it takes space.
    fn change(&self, what: impl FnOnce() -> String, grows: bool) -> io::Result<MutexGuard<'_, World>> {
        let mut world = self.alive()?;
        world.operations += 1;
        let line = format!("{} {}", world.operations, what());
        world.trace.push(line);
        match world.fault {
            Some((at, Fault::PowerCut)) if at == world.operations => {
                world.is_off = true;
                Err(io::Error::other(POWER_OFF))
            }
            Some((at, Fault::Panic)) if at == world.operations => {
                drop(world);
                panic!("the disk was told to");
            }
            Some((at, Fault::Eio)) if at == world.operations => Err(io::Error::from_raw_os_error(5)),
            Some((at, Fault::Enospc)) if at <= world.operations && grows => {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            _ => Ok(world),
        }
    }
}

impl Disk for SimDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.alive()?;
        let within = world.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(within.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if self.alive()?.dirs.contains(dir) {
            return Ok(());
        }
        self.change(|| format!("mkdir {}", dir.display()), true)?.dirs.insert(dir.to_path_buf());
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let world = self.alive()?;
        let file = *world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), file, name: name(path) }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.change(|| format!("create {}", name(path)), true)?;
        let file = match world.names.get(path).copied() {
            Some(file) => {
                world.files[file].content.clear();
                world.files[file].dirty.clear();
                file
            }
            None => {
                world.files.push(Inode::default());
                let file = world.files.len() - 1;
                world.name_changed(NameChange::Link(path.to_path_buf(), file));
                file
            }
        };
        Ok(Arc::new(SimFile { disk: self.clone(), file, name: name(path) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.change(|| format!("rename {} {}", name(from), name(to)), false)?;
        let file = *world.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        world.name_changed(NameChange::Rename(from.to_path_buf(), to.to_path_buf(), file));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.change(|| format!("remove {}", name(path)), false)?;
        if !world.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.name_changed(NameChange::Unlink(path.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.change(|| format!("sync_dir {}", name(dir)), false)?;
        if world.syncs_lie {
            return Ok(());
        }
        let pending = std::mem::take(&mut world.pending);
        for change in pending {
            if change.dir() == Some(dir) {
                change.apply(&mut world.durable_names);
            } else {
                world.pending.push(change);
            }
        }
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let world = self.alive()?;
        Ok(world.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(world.used())))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let mut world = self.alive()?;
        let held = (self.life, path.to_path_buf());
        if !world.locked.insert(held.clone()) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock { disk: self.clone(), held })))
    }
}

struct SimLock {
    disk: SimDisk,
    held: (u64, PathBuf),
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.world().locked.remove(&self.held);
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

struct SimFile {
    disk: SimDisk,
    file: usize,
    name: String,
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.disk.wait_to_read(self.file, position..position + buf.len() as u64)?;
        let world = self.disk.alive()?;
        let content = &world.files[self.file].content;
        let start = (position as usize).min(content.len());
        let length = buf.len().min(content.len() - start);
        buf[..length].copy_from_slice(&content[start..start + length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let (start, end) = (position as usize, position as usize + bytes.len());
        let what = || format!("write {} {start}..{end}", self.name);
        let grows = self.disk.world().files[self.file].content.len() < end;
        let cut = |error: &io::Error| {
            // The power may fail in the middle of a write: its sectors are as any unsynced ones.
            if error.to_string() == POWER_OFF {
                put(&mut self.disk.world().files[self.file], bytes, start);
            }
        };
        let mut world = self.disk.change(what, grows).inspect_err(cut)?;
        world.make_room(self.file, end)?;
        put(&mut world.files[self.file], bytes, start);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let synced = self.disk.change(|| format!("sync {}", self.name), false);
        let mut world = match synced {
            Ok(world) => world,
            Err(error) => {
                // A failed sync leaves the pages clean: a later one says nothing about them.
                let mut world = self.disk.world();
                if !world.is_off && world.life == self.disk.life {
                    world.files[self.file].dirty.clear();
                }
                return Err(error);
            }
        };
        if world.syncs_lie {
            return Ok(());
        }
        let file = &mut world.files[self.file];
        file.synced.resize(file.content.len(), 0);
        for sector in std::mem::take(&mut file.dirty) {
            let (start, end) = (sector * SECTOR, file.content.len().min((sector + 1) * SECTOR));
            if start < end {
                file.synced[start..end].copy_from_slice(&file.content[start..end]);
            }
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut world = self.disk.change(|| format!("allocate {} {len}", self.name), true)?;
        world.make_room(self.file, len as usize)?;
        world.files[self.file].grow(len as usize);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut world = self.disk.change(|| format!("truncate {} {len}", self.name), false)?;
        world.files[self.file].content.resize(len as usize, 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.alive()?.files[self.file].content.len() as u64)
    }
}
