//! Rounds of power cuts under a broker at work.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::mounts::Ext4;
use crate::harness::workload::{ROUND_EVENTS, Workload};

const DISK_MEBIBYTES: u64 = 512;
/// The least of a round: something must have been acknowledged when the power goes.
const ROUND_MIN: Duration = Duration::from_millis(100);
const ROUND_RANGE_MS: u64 = 700;

/// Whether the power can be cut here; in CI, as root, it must be possible.
pub fn disk(dir: &Path) -> Option<Ext4> {
    if !crate::harness::can_run("powercut", true, &["mkfs.ext4", "python3", "mount"]) {
        return None;
    }
    let made = Ext4::new(dir, DISK_MEBIBYTES).and_then(|mut disk| disk.prove().map(|()| disk));
    match made {
        Ok(disk) => Some(disk),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "power cuts must be possible in CI: {why}");
            println!("SKIPPED powercut: {why}");
            None
        }
    }
}

/// A workload whose data are on the disk.
pub async fn workload(disk: &Ext4, dir: &Path, seed: u64) -> Workload {
    Workload::start(seed, ROUND_EVENTS, dir, &disk.path.join("data")).await
}

/// Cuts the power under the broker, `rounds` times, and says what survived.
pub async fn run(
    disk: &mut Ext4,
    mut workload: Workload,
    rounds: usize,
    seed: u64,
) -> Result<String, String> {
    let mut random = fastrand::Rng::with_seed(seed);
    for number in 0..rounds {
        let mut broker = workload.spawn_ready().await.map_err(|why| format!("round {number}: {why}"))?;
        workload.open(&mut broker).await;
        // The moment of the cut is what is random here; there is no condition to wait for.
        tokio::time::sleep(ROUND_MIN + Duration::from_millis(random.u64(..ROUND_RANGE_MS))).await;
        // In every other round the broker is halted first, between any two of its steps, and every acknowledgement
        // counts. In the rest the cut comes in the middle of a sync, too. Then a machine without power answers nobody:
        // what this process said after the cut does not count. (A sync that the cut overtakes can return success: ext4
        // drops the conversion of the extents and has no commit to wait for.)
        let is_halted = number % 2 == 0;
        let halted = Instant::now();
        if is_halted {
            broker.freeze().await;
        }
        let cut = disk.cut()?;
        let at = if is_halted { halted } else { Instant::now() };
        broker.kill().await;
        if !is_halted {
            workload.ledger().withdraw_since(cut);
        }
        workload.crashed(at);
        disk.remount()?;
    }
    workload.verify().await
}
