//! The power-cut suite can fail: it must go red when syncs are not made.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

#[path = "../harness/mod.rs"]
#[allow(dead_code, reason = "each suite uses its part of it")]
mod harness;
#[path = "../powercut/rounds.rs"]
mod rounds;

use std::path::PathBuf;
use std::process::Command;

use harness::workload::Workload;

const ROUNDS: usize = 3;
const SEED: u64 = 1;

/// The broker whose files are not synced: `SLUICE_NO_SYNC_BIN`, else it is built, in a target directory of its own.
fn binary_without_syncs() -> PathBuf {
    if let Some(path) = std::env::var_os("SLUICE_NO_SYNC_BIN") {
        return path.into();
    }
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let target = manifest.ancestors().nth(2).unwrap().join("target/unsafe-no-sync");
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--locked",
            "--bin",
            "sluice",
            "--no-default-features",
            "--features",
            "unsafe-no-sync",
        ])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target)
        .status()
        .unwrap();
    assert!(built.success(), "the broker without syncs could not be built");
    target.join("debug/sluice")
}

async fn must_go_red(what: &str, prepare: impl FnOnce(&mut Workload)) {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut disk) = rounds::disk(dir.path()) else { return };
    // The store is made with all its syncs: it is acknowledged events that must go missing, not the store.
    let mut workload = rounds::workload(&disk, dir.path(), SEED).await;
    let mut broker = workload.spawn();
    workload.open(&mut broker).await;
    workload.until("the first events are taken", &broker, |ledger| ledger.acknowledged() > 50).await;
    workload.terminate(broker).await;
    prepare(&mut workload);
    match rounds::run(&mut disk, workload, ROUNDS, SEED).await {
        Err(report) => println!("selftest: red as it must be {what}:\n{report}"),
        Ok(report) => panic!("the power-cut suite stays green {what}: {report}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_notices_a_broker_that_does_not_sync() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED selftest: needs root");
        return;
    }
    let binary = binary_without_syncs();
    must_go_red("without syncs", |workload| workload.setup.binary = binary).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_notices_a_disk_that_lies_about_syncs() {
    if !harness::can_run("selftest", true, &["strace"]) {
        return;
    }
    must_go_red("with syncs that do nothing", |workload| {
        workload.setup = workload.setup.with_injections(&["fdatasync:retval=0"]);
    })
    .await;
}
