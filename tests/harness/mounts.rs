//! Small file systems to cut off and to fill. All need root; they are unmounted on drop.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

const UNMOUNT_DEADLINE: Duration = Duration::from_secs(10);
/// `FS_IOC_GOINGDOWN` with `NOLOGFLUSH`: what is not on the medium yet is gone. The workspace forbids unsafe code,
/// which an ioctl is.
const CUT: &str = "import fcntl, os, struct, sys, time\n\
    print(time.time_ns(), flush=True)\n\
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";

fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Result<String, String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A mounted directory.
pub struct Mounted(PathBuf);

impl Mounted {
    fn new(path: &Path, arguments: &[&OsStr]) -> Result<Self, String> {
        fs::create_dir_all(path).map_err(|error| error.to_string())?;
        let mut all: Vec<&OsStr> = arguments.to_vec();
        all.push(path.as_os_str());
        run("mount", &all)?;
        Ok(Self(path.to_path_buf()))
    }

    /// A file system in memory of this size.
    pub fn tmpfs(path: &Path, mebibytes: u64) -> Result<Self, String> {
        let size = format!("size={mebibytes}m");
        Self::new(path, &["-t", "tmpfs", "-o", &size, "crash-suite"].map(OsStr::new))
    }

    pub fn resize(&self, mebibytes: u64) {
        self.remount(&format!("size={mebibytes}m"));
    }

    pub fn make_read_only(&self) {
        self.remount("ro");
    }

    fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        run("mount", &["-o".as_ref(), option.as_ref(), self.0.as_os_str()]).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A process that was just killed may hold it a moment longer.
        let deadline = Instant::now() + UNMOUNT_DEADLINE;
        while run("umount", &[&self.0]).is_err() {
            if Instant::now() > deadline {
                drop(run("umount", &["-l".as_ref(), self.0.as_os_str()]));
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// An ext4 file system in a file, whose power can be cut.
pub struct Ext4 {
    image: PathBuf,
    pub path: PathBuf,
    mounted: Option<Mounted>,
}

impl Ext4 {
    pub fn new(dir: &Path, mebibytes: u64) -> Result<Self, String> {
        let image = dir.join("disk.img");
        let made = fs::File::create(&image).and_then(|file| file.set_len(mebibytes << 20));
        made.map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_os_str()])?;
        let mut disk = Self { image, path: dir.join("disk"), mounted: None };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&mut self) -> Result<(), String> {
        let arguments = ["-o".as_ref(), "loop".as_ref(), self.image.as_os_str()];
        self.mounted = Some(Mounted::new(&self.path, &arguments)?);
        Ok(())
    }

    /// Everything not synced vanishes, and nothing can be written any more. Returns a time just before.
    pub fn cut(&self) -> Result<SystemTime, String> {
        let printed = run("python3", &["-c".as_ref(), CUT.as_ref(), self.path.as_os_str()])?;
        let nanoseconds = printed.trim().parse().map_err(|_| format!("python3 printed {printed}"))?;
        Ok(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds))
    }

    /// Power is back.
    pub fn remount(&mut self) -> Result<(), String> {
        self.mounted = None;
        self.mount()
    }

    /// That the cut is one: what was synced survives, in place and as a new file; what was only written does not.
    pub fn prove(&mut self) -> Result<(), String> {
        let io = |error: std::io::Error| error.to_string();
        let [synced, written] = ["synced", "written"].map(|name| self.path.join(name));
        let mut file = fs::File::create(&synced).map_err(io)?;
        file.write_all(&[b'x'; 8192]).and_then(|()| file.sync_all()).map_err(io)?;
        fs::File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(io)?;
        file.write_all_at(&[b'y'; 4096], 4096).map_err(io)?;
        drop(file);
        fs::write(&written, [b'z'; 8192]).map_err(io)?;
        self.cut()?;
        self.remount()?;
        if fs::read(&synced).ok() != Some(vec![b'x'; 8192]) {
            return Err("a synced file did not survive the cut, or what was not synced of it did".into());
        }
        if fs::read(&written).is_ok_and(|bytes| bytes == [b'z'; 8192]) {
            return Err("a file that was not synced survived the cut".into());
        }
        fs::remove_file(synced).map_err(io)
    }
}
