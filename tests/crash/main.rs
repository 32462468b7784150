//! `kill -9` at random moments, again and again, on one growing store: what was acknowledged is delivered or dead.
//!
//! `SLUICE_CRASH_ROUNDS` asks for more rounds than the 50 of a build, `SLUICE_CRASH_SEED` for other moments.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

#[path = "../harness/mod.rs"]
#[allow(dead_code, reason = "each suite uses its part of it")]
mod harness;

use std::time::{Duration, Instant};

use harness::workload::{ROUND_EVENTS, Workload};

/// How a round ends. All times are random up to their bound.
enum Round {
    /// Killed before or just after it became ready.
    KilledAtStart,
    /// Asked to stop, under load.
    Stopped,
    /// Long enough for snapshots and the recycling of segments; dead letters are purged, then it is killed.
    Long,
    Killed,
}

impl Round {
    fn of(number: usize) -> Self {
        match number {
            _ if number % 5 == 4 => Self::KilledAtStart,
            _ if number % 10 == 7 => Self::Long,
            _ if number % 4 == 2 => Self::Stopped,
            _ => Self::Killed,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    let rounds = harness::setting("SLUICE_CRASH_ROUNDS", 50) as usize;
    let seed = harness::setting("SLUICE_CRASH_SEED", 1);
    println!("crash: seed {seed}, {rounds} rounds");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut workload = Workload::start(seed, ROUND_EVENTS, dir.path(), &dir.path().join("data")).await;
    let mut start = Duration::from_millis(100);
    for number in 0..rounds {
        let round = Round::of(number);
        let mut upto = |millis: u64| Duration::from_micros(random.u64(..=millis * 1000));
        let mut broker = workload.spawn();
        if let Round::KilledAtStart = round {
            // The moment of death is what is random here; there is no condition to wait for.
            tokio::time::sleep(upto(start.as_millis() as u64)).await;
            workload.kill(broker).await;
            continue;
        }
        let spawned = Instant::now();
        let addresses = workload.open(&mut broker).await;
        start = spawned.elapsed();
        match round {
            Round::Long => {
                tokio::time::sleep(Duration::from_millis(5500) + upto(500)).await;
                workload.purge(addresses.admin).await;
                tokio::time::sleep(upto(300)).await;
                workload.kill(broker).await;
            }
            Round::Stopped => {
                tokio::time::sleep(upto(600)).await;
                workload.terminate(broker).await;
            }
            Round::KilledAtStart | Round::Killed => {
                tokio::time::sleep(upto(900)).await;
                workload.kill(broker).await;
            }
        }
    }
    match workload.verify().await {
        Ok(report) => println!("crash: seed {seed}: {report}"),
        Err(report) => panic!("crash: seed {seed}: {report}"),
    }
}
