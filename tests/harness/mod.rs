//! What the crash suites share: the real binary as a child, a publisher and a sink in this process, and a ledger of
//! what was sent, acknowledged and delivered. Everything listens on ephemeral loopback ports, processes die and mounts
//! go with their owners.

pub mod broker;
pub mod event;
pub mod ledger;
pub mod mounts;
pub mod wire;
pub mod workload;

use std::path::PathBuf;
use std::process::Command;

/// Whether a suite may run here: as root, with these programs. Elsewhere it says why it does not; in CI, where the
/// set-up provides them, that is a failure.
pub fn can_run(suite: &str, needs_root: bool, programs: &[&str]) -> bool {
    let mut missing: Vec<String> = programs
        .iter()
        .filter(|program| Command::new(program).arg("-V").output().is_err())
        .map(|program| format!("`{program}` is not installed"))
        .collect();
    if needs_root && !rustix::process::geteuid().is_root() {
        println!("SKIPPED {suite}: needs root");
        return false;
    }
    if missing.is_empty() {
        return true;
    }
    let why = missing.split_off(0).join(", ");
    assert!(std::env::var_os("CI").is_none(), "{suite} must run in CI: {why}");
    println!("SKIPPED {suite}: {why}");
    false
}

/// The broker under test: `SLUICE_BIN`, else the one built with these tests.
pub fn binary() -> PathBuf {
    std::env::var_os("SLUICE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_sluice").into(), PathBuf::from)
}

/// A number from the environment, for soaks and for repeating a seed.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}
