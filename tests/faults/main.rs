//! Faults of the disk, one at a time, under the real binary: with strace, small file systems, and wrong directories.
//!
//! strace counts the calls of each thread for itself: `when=10` is the tenth of the writer, and of any other thread
//! that comes so far.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

#[path = "../harness/mod.rs"]
#[allow(dead_code, reason = "each suite uses its part of it")]
mod harness;

use std::path::Path;
use std::time::{Duration, Instant};

use harness::broker::{Broker, Setup};
use harness::mounts::Mounted;
use harness::wire;
use harness::workload::{ROUND_EVENTS, Workload};
use serde_json::Value;
use tempfile::TempDir;

/// More than a round ever takes: publishers go on until the round is over.
const ENDLESS: usize = usize::MAX;
const OPEN_DEADLINE: Duration = Duration::from_secs(30);
/// A fault that has not come about by then does not: the thread does not make so many of these calls.
const FAULT_DEADLINE: Duration = Duration::from_millis(1500);

/// A workload on a directory of its own, after a first round without a fault that ended cleanly.
async fn workload(seed: u64, round_events: usize) -> (TempDir, Workload) {
    let dir = tempfile::tempdir().unwrap();
    let mut workload = Workload::start(seed, round_events, dir.path(), &dir.path().join("data")).await;
    let mut broker = workload.spawn();
    workload.open(&mut broker).await;
    workload.until("the first events are taken", &broker, |ledger| ledger.acknowledged() > 50).await;
    workload.terminate(broker).await;
    (dir, workload)
}

async fn verify(what: &str, workload: Workload) {
    match workload.verify().await {
        Ok(report) => println!("{what}: {report}"),
        Err(report) => panic!("{what}: {report}"),
    }
}

/// After the fault the broker ends with 74, at once, and the next one has all that was acknowledged.
async fn ends_with_74(injection: &str) {
    if !harness::can_run("faults", false, &["strace"]) {
        return;
    }
    let (_dir, mut workload) = workload(2, ENDLESS).await;
    let plain = workload.setup.clone();
    workload.setup = plain.with_injections(&[injection]);
    let mut broker = workload.spawn();
    workload.open(&mut broker).await;
    let status = broker.ended().await;
    workload.crashed(Instant::now());
    assert_eq!(status.code(), Some(74), "{injection}: {status}\n{}", broker.log());
    workload.setup = plain;
    verify(injection, workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_failed_sync_ends_the_process() {
    ends_with_74("fdatasync:error=EIO:when=10").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_after_which_all_succeed_is_not_forgotten() {
    ends_with_74("fdatasync:error=EIO:when=25").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_ends_the_process() {
    ends_with_74("pwrite64:error=EIO:when=12").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_where_space_was_reserved_ends_the_process() {
    ends_with_74("pwrite64:error=ENOSPC:when=15").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_nothing_is_not_taken_for_whole() {
    // strace makes up the result without making the call: 0 is the only short write that is none in truth, too.
    ends_with_74("pwrite64:retval=0:when=11").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_calls_are_made_again() {
    if !harness::can_run("faults", false, &["strace"]) {
        return;
    }
    let (_dir, mut workload) = workload(3, ROUND_EVENTS).await;
    let plain = workload.setup.clone();
    workload.setup = plain.with_injections(&["pwrite64,pread64:error=EINTR:when=3+4"]);
    let mut broker = workload.spawn();
    workload.open(&mut broker).await;
    let before = workload.ledger().acknowledged();
    workload.until("more is taken", &broker, |ledger| ledger.acknowledged() > before + 300).await;
    workload.terminate(broker).await;
    workload.setup = plain;
    verify("EINTR", workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_write_sync_or_rename() {
    if !harness::can_run("faults", false, &["strace"]) {
        return;
    }
    let (_dir, mut workload) = workload(4, ROUND_EVENTS).await;
    let plain = workload.setup.clone();
    let points = [
        ("fdatasync", [1, 2, 3, 4, 5, 8, 30].as_slice()),
        ("fsync", &[1, 2, 3]),
        ("pwrite64", &[1, 2, 3, 4, 5, 8, 30, 60]),
        ("rename", &[1, 2]),
        ("fallocate", &[1, 2]),
        ("ftruncate", &[1]),
    ];
    let mut killed = 0;
    for (call, times) in points {
        for time in times {
            workload.setup = plain.with_injections(&[&format!("{call}:signal=KILL:when={time}")]);
            let mut broker = workload.spawn();
            if broker.ready().await.is_ok() {
                workload.open_to_die(&mut broker).await;
                killed += usize::from(tokio::time::timeout(FAULT_DEADLINE, broker.ended()).await.is_ok());
            } else {
                killed += 1;
            }
            workload.kill(broker).await;
        }
    }
    println!("killed at {killed} of 23 points");
    assert!(killed >= 15, "only {killed} of the points were reached");
    workload.setup = plain;
    verify("killed at a call", workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_syncs_cost_time_and_nothing_else() {
    if !harness::can_run("faults", false, &["strace"]) {
        return;
    }
    let (_dir, mut workload) = workload(5, ROUND_EVENTS).await;
    let plain = workload.setup.clone();
    workload.setup = plain.with_injections(&["fdatasync:delay_exit=300000"]);
    let mut broker = workload.spawn();
    workload.open(&mut broker).await;
    let before = workload.ledger().acknowledged();
    let refused = workload.ledger().refused;
    workload.until("more is taken", &broker, |ledger| ledger.acknowledged() > before + 100).await;
    assert_eq!(workload.ledger().refused, refused, "nobody is refused because the disk is slow");
    workload.terminate(broker).await;
    workload.setup = plain;
    verify("300 ms a sync", workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_still_opening_its_store_stops_when_told() {
    if !harness::can_run("faults", false, &["strace"]) {
        return;
    }
    let (_dir, mut workload) = workload(12, ROUND_EVENTS).await;
    let plain = workload.setup.clone();
    workload.setup = plain.with_injections(&["pread64:delay_enter=300000"]);
    let mut broker = workload.spawn();
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    while !broker.has_open(".seg") {
        assert!(broker.started.elapsed() < OPEN_DEADLINE, "it does not open the log:\n{}", broker.log());
        tick.tick().await;
    }
    broker.signal(rustix::process::Signal::TERM);
    let status = broker.ended().await;
    assert!(
        status.success() && broker.log().contains("before the store was open"),
        "{status}\n{}",
        broker.log()
    );
    workload.setup = plain;
    verify("stopped while it opened", workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_space_for_a_segment_events_are_refused_until_there_is() {
    if !harness::can_run("faults", false, &["strace"]) {
        return;
    }
    let (_dir, mut workload) = workload(6, ENDLESS).await;
    let plain = workload.setup.clone();
    workload.setup = plain.with_injections(&["fallocate:error=ENOSPC:when=1..30"]);
    let mut broker = workload.spawn();
    workload.open(&mut broker).await;
    let before = workload.ledger().refused;
    workload.until("events are refused", &broker, |ledger| ledger.refused > before).await;
    let before = workload.ledger().acknowledged();
    workload.until("events are taken again", &broker, |ledger| ledger.acknowledged() > before + 300).await;
    workload.terminate(broker).await;
    workload.setup = plain;
    verify("ENOSPC at fallocate", workload).await;
}

/// What `sluice store` says of a directory when two reads of a file fail, the first of many bytes at once among them.
fn store_with_bad_sector(command: &[&str], file: &Path) -> (Option<i32>, String) {
    let mut strace = std::process::Command::new("strace");
    strace.args(["-f", "-qqq", "-o", "/dev/null", "-etrace=pread64", "-einject=pread64:error=EIO:when=2..3"]);
    let output =
        strace.arg("-P").arg(file).arg(harness::binary()).arg("store").args(command).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.code(), said.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sector_that_cannot_be_read_is_named_and_can_be_given_up() {
    if !harness::can_run("faults", false, &["strace"]) {
        return;
    }
    let (dir, mut workload) = workload(11, ROUND_EVENTS).await;
    let data = dir.path().join("data").display().to_string();
    let segment = dir.path().join("data/log/000000000001.seg");
    // The header is read, the first megabyte fails, and then its first block.
    let (code, said) = store_with_bad_sector(&["verify", &data], &segment);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("000000000001.seg bytes 4096 to ") && said.contains("cannot be read"), "{said}");
    let range = said.trim_end().rsplit(' ').next().unwrap().to_owned();
    let (code, said) = store_with_bad_sector(&["repair", &data, "--accept-loss", &range], &segment);
    assert_eq!(code, Some(0), "{said}");
    let mut broker = workload.spawn();
    workload.open(&mut broker).await;
    let before = workload.ledger().acknowledged();
    workload.until("events are taken", &broker, |ledger| ledger.acknowledged() > before + 50).await;
    workload.terminate(broker).await;
    let verified = std::process::Command::new(harness::binary()).args(["store", "verify", &data]).output();
    assert!(verified.unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_publishing_only_and_recovers_by_itself() {
    if !harness::can_run("faults", true, &["mount"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    let disk = match Mounted::tmpfs(&small, 24) {
        Ok(disk) => disk,
        Err(why) => panic!("cannot mount a tmpfs: {why}"),
    };
    let mut workload = Workload::start(7, ENDLESS, dir.path(), &small.join("data")).await;
    let mut broker = workload.spawn();
    let addresses = workload.open(&mut broker).await;
    workload.until("events are refused", &broker, |ledger| ledger.refused > 0).await;
    // Deliveries and dead letters go on: nothing is left of either, and the disk is still full.
    workload.settled(addresses.admin).await;
    assert!(!harness::ledger::dead_letters(addresses.admin, "flaky").await.is_empty());
    let ready = wire::call(addresses.admin, "GET", "/readyz", &Value::Null).await.unwrap();
    assert_eq!(
        (ready.status.as_u16(), &ready.json()["status"]),
        (503, &Value::from("full")),
        "{}",
        ready.json()
    );
    let before = workload.ledger().acknowledged();
    disk.resize(160);
    workload.until("events are taken again", &broker, |ledger| ledger.acknowledged() > before + 300).await;
    workload.kill(broker).await;
    verify("full tmpfs", workload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_finds_no_room_is_removed_until_there_is_some() {
    if !harness::can_run("faults", true, &["mount"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // The log's file system has room, so that the index finds out by writing.
    let disk = Mounted::tmpfs(&data.join("index"), 1).unwrap();
    let mut workload = Workload::start(10, ENDLESS, dir.path(), &data).await;
    let mut broker = workload.spawn();
    let addresses = workload.open(&mut broker).await;
    workload
        .until("the index meets the full disk", &broker, |_| {
            broker.log().contains("no room for the event index")
        })
        .await;
    let before = workload.ledger().acknowledged();
    workload
        .until("events are taken all the same", &broker, |ledger| ledger.acknowledged() > before + 300)
        .await;
    disk.resize(256);
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut index = Value::Null;
    while index["state"] != "ready" {
        assert!(Instant::now() < deadline, "the index does not come back: {index}\n{}", broker.log());
        index = wire::get(addresses.admin, "/api/v1/status").await["index"].clone();
    }
    assert!(!data.join("index.broken").exists(), "it was full, not broken");
    workload.kill(broker).await;
    verify("an index without room", workload).await;
}

/// A broker that must not start on this directory: exit 1 and an error that says which and why.
async fn does_not_start(dir: &Path, data: &Path, says: &str) {
    let workload = Workload::start(8, ROUND_EVENTS, dir, data).await;
    let mut broker = Broker::start(&Setup { ..workload.setup.clone() });
    let (status, log) = broker.ready().await.expect_err("it does not start");
    assert_eq!(status.code(), Some(1), "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains(says) && last.contains(&data.display().to_string()), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_place_of_the_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::write(&data, "not a directory").unwrap();
    does_not_start(dir.path(), &data, "Not a directory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_directory_is_named() {
    if !harness::can_run("faults", true, &["mount"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let fixed = dir.path().join("fixed");
    let disk = Mounted::tmpfs(&fixed, 8).unwrap();
    disk.make_read_only();
    does_not_start(dir.path(), &fixed.join("data"), "ead-only file system").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_a_directory_is_refused_and_the_first_goes_on() {
    let (dir, mut workload) = workload(9, ROUND_EVENTS).await;
    let mut broker = workload.spawn();
    workload.open(&mut broker).await;
    let other = tempfile::tempdir().unwrap();
    does_not_start(other.path(), &dir.path().join("data"), "in use by another process").await;
    let before = workload.ledger().acknowledged();
    workload.until("the first goes on", &broker, |ledger| ledger.acknowledged() > before).await;
    workload.kill(broker).await;
    verify("two processes", workload).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_a_request_and_says_nothing_is_given_up() {
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let answer = wire::call(address, "GET", "/readyz", &Value::Null).await;
    let error = answer.expect_err("nobody answers").to_string();
    assert_eq!(error, "GET /readyz was not answered within 60s");
}
