//! The workers that run jq programs: started when they are needed, kept for the next event, replaced when they die.

use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use sluice_language::transform::jq::RESULT_BYTES_MAX;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::Failed;
use super::turns::Turns;
use super::worker::{ANSWER_OK, EXIT_PANIC, EXIT_PROCESSOR, PROCESSOR_MAX};

/// For an answer, whatever else the machine has to do.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A worker that has closed its output is about to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// What an error of a program may take.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Runs jq programs, as many at once as there are processors, each program in its turn.
pub struct Pool {
    binary: PathBuf,
    idle: Mutex<Vec<Worker>>,
    turns: Turns<u64>,
    hasher: RandomState,
}

/// Killed when it is dropped.
struct Worker {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

/// How a run without an answer ended.
enum Broken {
    /// The worker ended in a way that says that the program is at fault.
    Program(String),
    Worker(String),
}

impl Default for Pool {
    fn default() -> Self {
        // A binary that was replaced while it runs has no path any more, but it still is this.
        let running = Path::new("/proc/self/exe");
        let named = || std::env::current_exe().unwrap_or_else(|_| "sluice".into());
        let binary = if running.exists() { running.to_path_buf() } else { named() };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { binary, idle: Mutex::default(), turns: Turns::new(processors), hasher: RandomState::new() }
    }
}

impl Pool {
    /// Runs a program on an event in the JSON format, and returns what it makes of it.
    pub async fn run(&self, program: &str, event: &[u8]) -> Result<Vec<u8>, Failed> {
        let _turn = self.turns.next(self.hasher.hash_one(program)).await;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(worker) = idle {
            match self.exchange(worker, program, event).await {
                Ok(answer) => return answer,
                Err(Broken::Program(why)) => return Err(Failed::Always(why)),
                // It may have ended while it was idle.
                Err(Broken::Worker(_)) => {}
            }
        }
        let worker =
            self.start().map_err(|error| Failed::NotNow(format!("cannot start a worker: {error}")))?;
        match self.exchange(worker, program, event).await {
            Ok(answer) => answer,
            Err(Broken::Program(why)) => Err(Failed::Always(why)),
            Err(Broken::Worker(why)) => Err(Failed::NotNow(why)),
        }
    }

    fn start(&self) -> std::io::Result<Worker> {
        let mut command = Command::new(&self.binary);
        command.arg("jq-worker").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // No program shall see the secrets of the broker; and a Ctrl-C is for the broker, which ends its workers.
        command.env_clear().envs(std::env::var_os("TZ").map(|zone| ("TZ", zone)));
        command.current_dir("/").process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        };
        Ok(Worker { child, input, output })
    }

    /// Has a worker answer, and keeps it for the next.
    async fn exchange(
        &self,
        mut worker: Worker,
        program: &str,
        event: &[u8],
    ) -> Result<Result<Vec<u8>, Failed>, Broken> {
        match tokio::time::timeout(ANSWER_TIMEOUT, worker.ask(program, event)).await {
            Ok(Ok(answer)) => {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
                Ok(answer.map_err(Failed::Always))
            }
            Ok(Err(error)) => Err(worker.ended(&error).await),
            Err(_) => Err(Broken::Worker(format!("no result within {ANSWER_TIMEOUT:?}"))),
        }
    }
}

impl Worker {
    async fn ask(&mut self, program: &str, event: &[u8]) -> std::io::Result<Result<Vec<u8>, String>> {
        for message in [program.as_bytes(), event] {
            let length = u32::try_from(message.len()).map_err(|_| std::io::ErrorKind::FileTooLarge)?;
            self.input.write_all(&length.to_le_bytes()).await?;
            self.input.write_all(message).await?;
        }
        self.input.flush().await?;
        let is_ok = self.output.read_u8().await? == ANSWER_OK;
        let length = self.output.read_u32_le().await? as usize;
        if length > if is_ok { RESULT_BYTES_MAX } else { ERROR_BYTES_MAX } {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut answer = vec![0; length];
        self.output.read_exact(&mut answer).await?;
        Ok(if is_ok { Ok(answer) } else { Err(String::from_utf8_lossy(&answer).into_owned()) })
    }

    /// Says why a worker that broke off has ended.
    async fn ended(mut self, error: &std::io::Error) -> Broken {
        match tokio::time::timeout(END_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) => describe(status),
            Ok(Err(_)) | Err(_) => Broken::Worker(format!("the worker does not answer: {error}")),
        }
    }
}

fn describe(status: ExitStatus) -> Broken {
    if status.code() == Some(EXIT_PROCESSOR) {
        return Broken::Program(format!("the program took more than {PROCESSOR_MAX:?} of processor time"));
    }
    if status.code() == Some(EXIT_PANIC) {
        return Broken::Program("the interpreter gave up on the program (a panic)".into());
    }
    // A memory limit ends in an abort, a stack in a fault. Whatever else kills a worker is no fault of the program.
    let at_fault = [Signal::ABORT, Signal::SEGV, Signal::BUS].map(Signal::as_raw);
    match status.signal() {
        Some(signal) if at_fault.contains(&signal) => {
            Broken::Program("the program took too much memory, or recursed too deeply".into())
        }
        _ => Broken::Worker(format!("the worker ended: {status}")),
    }
}
