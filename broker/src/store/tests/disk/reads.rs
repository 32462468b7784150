//! Reads that wait, and reads that fail.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::SimDisk;

/// What becomes of reads.
#[derive(Default)]
pub(super) struct Reads {
    plan: Mutex<ReadPlan>,
    changed: Condvar,
    held: Notify,
}

#[derive(Default)]
struct ReadPlan {
    are_held: bool,
    fail: bool,
    /// Of files, by inode.
    scratches: Vec<(usize, Range<u64>)>,
    waiting: usize,
    /// Someone waited so long for a read that nobody would have let it go.
    is_stuck: bool,
}

/// A held read fails after this, so that whoever waits for it in the wrong place is told instead of waiting for ever.
const HELD_MAX: Duration = Duration::from_secs(30);

impl SimDisk {
    /// From here on reads wait until they are let go.
    pub fn hold_reads(&self) {
        self.reads.plan.lock().unwrap().are_held = true;
    }

    pub fn let_reads_go(&self) {
        let mut plan = self.reads.plan.lock().unwrap();
        plan.are_held = false;
        assert!(!plan.is_stuck, "a read was waited for where nothing else could go on");
        self.reads.changed.notify_all();
    }

    /// How many reads wait at the moment.
    pub fn held_reads(&self) -> usize {
        self.reads.plan.lock().unwrap().waiting
    }

    /// Waits until a read is held.
    pub async fn read_held(&self) {
        self.reads.held.notified().await;
    }

    /// From here on reads fail, or work again.
    pub fn fail_reads(&self, fail: bool) {
        self.reads.plan.lock().unwrap().fail = fail;
    }

    pub(super) fn wait_to_read(&self, file: usize, wanted: Range<u64>) -> io::Result<()> {
        let mut plan = self.reads.plan.lock().unwrap();
        plan.waiting += 1;
        if plan.are_held {
            self.reads.held.notify_one();
        }
        let held = |plan: &mut ReadPlan| plan.are_held;
        let (mut plan, waited) = self.reads.changed.wait_timeout_while(plan, HELD_MAX, held).unwrap();
        plan.waiting -= 1;
        plan.is_stuck |= waited.timed_out();
        let is_hit = |(scratched, bytes): &(usize, Range<u64>)| {
            *scratched == file && bytes.start < wanted.end && wanted.start < bytes.end
        };
        if plan.fail || waited.timed_out() || plan.scratches.iter().any(is_hit) {
            Err(io::Error::from_raw_os_error(5))
        } else {
            Ok(())
        }
    }

    /// From here on these bytes of a file cannot be read.
    pub fn scratch(&self, path: &Path, bytes: Range<u64>) {
        let file = self.world().names[path];
        self.reads.plan.lock().unwrap().scratches.push((file, bytes));
    }
}
