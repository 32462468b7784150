//! The real binary as a child process.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

const START_DEADLINE: Duration = Duration::from_secs(60);
const END_DEADLINE: Duration = Duration::from_secs(30);
const LOG_LINES: usize = 5_000;

/// What a broker is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    pub binary: PathBuf,
    pub config: PathBuf,
    /// Arguments of strace, without those that make it follow and stay out of the way; empty: no strace.
    pub strace: Vec<String>,
    /// Told to the sinks in a header.
    pub round: usize,
}

impl Setup {
    pub fn new(config: &Path) -> Self {
        Self { binary: super::binary(), config: config.to_path_buf(), strace: Vec::new(), round: 0 }
    }

    /// The same under strace, with these injections.
    pub fn with_injections(&self, injections: &[&str]) -> Self {
        let strace = injections.iter().map(|injection| format!("-einject={injection}")).collect();
        Self { strace, ..self.clone() }
    }

    fn command(&self) -> Command {
        let mut command = if self.strace.is_empty() {
            Command::new(&self.binary)
        } else {
            let mut strace = Command::new("strace");
            // With -D the broker is our child, not strace's: its id and its exit code are its own.
            strace.args(["-f", "-D", "-qqq", "--signal=none", "-o", "/dev/null"]);
            let traced: Vec<&str> = self.strace.iter().filter_map(|text| traced(text)).collect();
            strace.arg(format!("-etrace={}", traced.join(",")));
            strace.args(&self.strace).arg(&self.binary);
            strace
        };
        command.arg("run").arg(&self.config);
        command.env("SLUICE_ROUND", self.round.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }
}

/// The system calls an injection is about.
fn traced(injection: &str) -> Option<&str> {
    injection.strip_prefix("-einject=")?.split(':').next()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub events: SocketAddr,
    pub admin: SocketAddr,
}

/// A running broker. Dropping it kills it.
pub struct Broker {
    child: Child,
    pub started: Instant,
    addresses: watch::Receiver<Option<Addresses>>,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Broker {
    pub fn start(setup: &Setup) -> Self {
        let mut child = setup.command().spawn().expect("the broker starts");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (said, addresses) = watch::channel(None);
        let kept = Arc::clone(&log);
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            let mut events = None;
            while let Ok(Some(line)) = lines.next_line().await {
                let words: Vec<&str> = line.split(['/', ' ', ',']).collect();
                let address = words.iter().find_map(|word| word.parse::<SocketAddr>().ok());
                if line.contains(" takes events at http://") {
                    events = address;
                } else if let (true, Some(events), Some(admin)) =
                    (line.starts_with("health, metrics and the API: "), events, address)
                {
                    said.send_replace(Some(Addresses { events, admin }));
                }
                let mut kept = kept.lock().unwrap();
                if kept.len() == LOG_LINES {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        });
        Self { child, started: Instant::now(), addresses, log }
    }

    /// Waits until it takes events; the exit status and the log when it ends instead.
    pub async fn ready(&mut self) -> Result<Addresses, (ExitStatus, String)> {
        let found = tokio::time::timeout(START_DEADLINE, self.addresses.wait_for(Option::is_some)).await;
        let Ok(started) = found.map(|found| found.ok().and_then(|found| *found)) else {
            panic!("the broker did not become ready:\n{}", self.log());
        };
        match started {
            Some(addresses) => Ok(addresses),
            // Its standard error is closed: it has ended or is about to.
            None => Err((self.ended().await, self.log())),
        }
    }

    /// Waits until it takes events; a broker that does not start fails the test.
    pub async fn must_be_ready(&mut self) -> Addresses {
        match self.ready().await {
            Ok(addresses) => addresses,
            Err((status, log)) => panic!("the broker ended ({status}) instead of starting:\n{log}"),
        }
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        match tokio::time::timeout(END_DEADLINE, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("the broker does not end:\n{}", self.log()),
        }
    }

    /// `kill -9`.
    pub async fn kill(mut self) {
        // One that is dead already is no error.
        drop(self.child.start_kill());
        self.ended().await;
    }

    /// SIGSTOP; returns when no thread does anything any more: what was asked of the disk has ended.
    pub async fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id().expect("it runs"));
        let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
            // A thread that is gone since does nothing either; `t` is what a traced one is in.
            let stat = task.and_then(|task| std::fs::read_to_string(task.path().join("stat")));
            stat.map_or(true, |stat| {
                stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['T', 't']))
            })
        };
        let since = Instant::now();
        while !std::fs::read_dir(&tasks).unwrap().all(is_stopped) {
            assert!(since.elapsed() < END_DEADLINE, "it does not stop");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Whether it has a file open whose name ends so.
    pub fn has_open(&self, ending: &str) -> bool {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.child.id().expect("it runs")));
        let mut links =
            files.into_iter().flatten().flatten().flat_map(|file| std::fs::read_link(file.path()));
        links.any(|link| link.to_string_lossy().ends_with(ending))
    }

    /// SIGTERM, and its end.
    pub async fn terminate(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.ended().await
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        if let Some(id) = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            rustix::process::kill_process(id, signal).unwrap();
        }
    }

    /// The last lines it wrote.
    pub fn log(&self) -> String {
        Vec::from_iter(self.log.lock().unwrap().iter().cloned()).join("\n")
    }
}
