//! Power cuts under load on a loop-mounted ext4: what was acknowledged is delivered or dead.
//!
//! Needs root. `SLUICE_CRASH_ROUNDS` and `SLUICE_CRASH_SEED` as in the crash suite; `SLUICE_BIN` names another binary.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

#[path = "../harness/mod.rs"]
#[allow(dead_code, reason = "each suite uses its part of it")]
mod harness;
mod rounds;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_power_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut disk) = rounds::disk(dir.path()) else { return };
    let count = harness::setting("SLUICE_CRASH_ROUNDS", 20) as usize;
    let seed = harness::setting("SLUICE_CRASH_SEED", 1);
    println!("powercut: seed {seed}, {count} rounds");
    let workload = rounds::workload(&disk, dir.path(), seed).await;
    match rounds::run(&mut disk, workload, count, seed).await {
        Ok(report) => println!("powercut: seed {seed}: {report}"),
        Err(report) => panic!("powercut: seed {seed}: {report}"),
    }
}
