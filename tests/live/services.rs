//! The servers: started once for the process, and gone with it.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// Where the servers are, and what ends them: they stop when the pipe to `tests/services hold` closes, with this process.
pub struct Services {
    env: HashMap<String, String>,
    dir: tempfile::TempDir,
    _holder: Mutex<(Child, ChildStdin)>,
}

/// The servers; `None` where they cannot be had, which in CI is a failure.
pub fn services() -> Option<&'static Services> {
    static SERVICES: OnceLock<Option<Services>> = OnceLock::new();
    SERVICES.get_or_init(start).as_ref()
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/services")
}

fn start() -> Option<Services> {
    let dir = tempfile::tempdir().expect("a directory");
    let mut child = Command::new(script())
        .arg("hold")
        .arg(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash starts");
    let mut said = String::new();
    let read = BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut said);
    if read.is_err() || said.trim() != "ready" {
        drop(child.wait());
        assert!(std::env::var_os("CI").is_none(), "the servers must run in CI: see tests/services");
        println!("SKIPPED live: the servers do not start here; run `tests/services install`");
        return None;
    }
    let text = std::fs::read_to_string(dir.path().join("env")).expect("tests/services writes it");
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let stdin = child.stdin.take().expect("a pipe");
    Some(Services { env, dir, _holder: Mutex::new((child, stdin)) })
}

impl Services {
    pub fn at(&self, name: &str) -> &str {
        &self.env[name]
    }

    /// `kill -9`.
    pub fn kill(&self, server: &str) {
        self.run("kill", server);
    }

    pub fn start(&self, server: &str) {
        self.run("start", server);
    }

    fn run(&self, verb: &str, server: &str) {
        let status = Command::new(script()).arg(verb).arg(self.dir.path()).arg(server).status();
        assert!(status.expect("bash starts").success(), "tests/services {verb} {server}");
    }
}
