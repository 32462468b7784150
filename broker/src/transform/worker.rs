//! The process that jq programs run in: `sluice jq-worker`, which nobody calls by hand.
//!
//! It reads requests from standard input and writes answers to standard output until either is closed:
//!
//! ```text
//! request  u32 length, the program;  u32 length, the event as JSON
//! answer   0, u32 length, the result;  or 1, u32 length, what is wrong
//! ```
//!
//! Numbers are little-endian. Over its limits the process ends: with [`EXIT_PROCESSOR`] when a program used too much
//! processor time, with [`EXIT_PANIC`] when the interpreter did, by a signal when it ran out of memory or stack. After a run
//! that left it large it ends by itself, and the next event gets a new one.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use sluice_language::transform::jq::{Program, STACK_BYTES};

use crate::cli::Error;

/// A program used more processor time than it may.
pub const EXIT_PROCESSOR: i32 = 3;
/// The interpreter panicked.
pub const EXIT_PANIC: i32 = 4;
/// Processor time of one run.
pub const PROCESSOR_MAX: Duration = Duration::from_secs(1);
/// Memory above what the process starts with.
const MEMORY_BYTES: u64 = 512 << 20;
/// A process that keeps more than this after a run ends.
const KEPT_BYTES_MAX: u64 = 64 << 20;
/// How often the processor time is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(20);
/// More than any event, and any program.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// Programs that are kept compiled.
const PROGRAMS_MAX: usize = 256;
/// There is no run.
const IDLE: u64 = u64::MAX;

pub const ANSWER_OK: u8 = 0;
pub const ANSWER_ERROR: u8 = 1;

/// Serves requests until nobody sends any more.
pub fn serve() -> Result<(), Error> {
    let started = Arc::new(AtomicU64::new(IDLE));
    let watched = Arc::clone(&started);
    let cannot = |error: io::Error| Error::failed_because("cannot start a thread", error);
    std::thread::Builder::new().spawn(move || watch(&watched)).map_err(cannot)?;
    let (begin, begun) = std::sync::mpsc::sync_channel::<()>(1);
    let runner = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        // Its stack counts as memory: the limit is set once that is there.
        begun.recv().ok().map_or(Ok(()), |()| answer_all(&started))
    });
    let runner = runner.map_err(cannot)?;
    limit_memory();
    // The runner waits for this and nothing else.
    let _ = begin.send(());
    match runner.join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Error::failed_because("cannot go on", error)),
        Err(_) => std::process::exit(EXIT_PANIC),
    }
}

/// Ends the process when a run takes too much processor time. The time of this thread is too little to count.
fn watch(started: &AtomicU64) {
    loop {
        std::thread::park_timeout(WATCH_EVERY);
        let start = started.load(Ordering::Acquire);
        if start != IDLE && processor_ms().saturating_sub(start) > PROCESSOR_MAX.as_millis() as u64 {
            std::process::exit(EXIT_PROCESSOR);
        }
    }
}

fn processor_ms() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// An allocation over the limit fails, and that ends the process.
fn limit_memory() {
    let Some((now, _)) = memory_bytes() else { return };
    let maximum = getrlimit(Resource::As).maximum;
    let limit = now.saturating_add(MEMORY_BYTES).min(maximum.unwrap_or(u64::MAX));
    // Without the limit the process still is one of its own.
    let _ = setrlimit(Resource::As, Rlimit { current: Some(limit), maximum });
}

/// What is mapped, and what of it is in memory.
fn memory_bytes() -> Option<(u64, u64)> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split(' ').map_while(|pages| pages.parse::<u64>().ok());
    let size = rustix::param::page_size() as u64;
    Some((pages.next()? * size, pages.next()? * size))
}

fn answer_all(started: &AtomicU64) -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut programs: HashMap<Vec<u8>, Program> = HashMap::new();
    while let Some(text) = read_message(&mut input)? {
        let Some(event) = read_message(&mut input)? else { return Ok(()) };
        started.store(processor_ms(), Ordering::Release);
        if programs.len() >= PROGRAMS_MAX && !programs.contains_key(&text) {
            programs.clear();
        }
        let result = run(&mut programs, &text, &event);
        started.store(IDLE, Ordering::Release);
        let (status, bytes) = match &result {
            Ok(bytes) => (ANSWER_OK, &bytes[..]),
            Err(error) => (ANSWER_ERROR, error.as_bytes()),
        };
        output.write_all(&[status])?;
        output.write_all(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes())?;
        output.write_all(bytes)?;
        output.flush()?;
        drop((text, event, result));
        if memory_bytes().is_some_and(|(_, resident)| resident > KEPT_BYTES_MAX) {
            return Ok(());
        }
    }
    Ok(())
}

fn run(programs: &mut HashMap<Vec<u8>, Program>, text: &[u8], event: &[u8]) -> Result<Vec<u8>, String> {
    if !programs.contains_key(text) {
        let program = std::str::from_utf8(text).map_err(|error| error.to_string())?;
        let program = Program::compile(program).map_err(|error| error.to_string())?;
        programs.insert(text.to_vec(), program);
    }
    programs.get(text).map_or_else(|| Err("the program is gone".into()), |program| program.run(event))
}

/// `None` at the end of the input.
fn read_message(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    input.read_exact(&mut message)?;
    Ok(Some(message))
}
