//! When the writer waits for company, and when it stays awake: what follows from how fast publishers come back.
//!
//! A publisher that was answered sends its next event after a while. If all come back sooner than a sync takes, it pays
//! to wait until they are there: one sync serves them all, where two would each serve one half. If they take longer, the
//! writer had better sync for those who are there while the others come.

use std::time::{Duration, Instant};

/// Company is waited for no longer than this, however slow the disk is.
const GATHER_MAX: Duration = Duration::from_millis(4);
/// A thread that sleeps is woken late, which a lone publisher notices at each of its events. So the writer stays awake
/// for one that comes back sooner than this.
const AWAKE_MAX: Duration = Duration::from_micros(200);
/// What gathering costs by itself: the last one to come wakes the writer, which has all the encoding still to do.
const GATHERING: Duration = Duration::from_micros(100);
/// Whoever takes longer to come back is as good as gone, and one long pause is soon forgotten.
const TURNAROUND_MAX: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub struct Pace {
    /// How long a sync takes.
    sync: Duration,
    /// How many were answered last or waited already: so many may come.
    expected: usize,
    answered_at: Option<Instant>,
    /// How many of those who were answered have not come back.
    returning: usize,
    /// How long it takes until all who were answered have come back.
    turnaround: Option<Duration>,
}

impl Pace {
    /// So many are answered now, while others wait already.
    pub fn answered(&mut self, publishers: usize, waiting: usize, now: Instant) {
        if publishers == 0 {
            return;
        }
        if self.returning > 0 {
            // They take longer than from one sync to the next.
            self.came_back(now);
        }
        self.expected = publishers + waiting;
        self.returning = publishers;
        self.answered_at = Some(now);
    }

    /// Someone waits for an answer from now on.
    pub fn arrived(&mut self, now: Instant) {
        if self.returning > 0 {
            self.returning -= 1;
            if self.returning == 0 {
                self.came_back(now);
            }
        }
    }

    fn came_back(&mut self, now: Instant) {
        if let Some(answered_at) = self.answered_at {
            let took = now.saturating_duration_since(answered_at).min(TURNAROUND_MAX);
            // One that was held up once does not make all of them slow.
            let smoothed = |before: Duration| (before * 3 + took.min(before * 2)) / 4;
            self.turnaround = Some(self.turnaround.map_or(took, smoothed));
        }
    }

    pub fn synced(&mut self, took: Duration) {
        self.sync = if self.sync.is_zero() { took } else { (self.sync * 7 + took) / 8 };
    }

    /// How many to wait for and how long, when fewer wait and they will be there by then.
    pub fn gather(&self, waiting: usize) -> Option<(usize, Duration)> {
        let pause = (self.sync * 7 / 8).min(GATHER_MAX);
        let pays = self.turnaround.is_some_and(|turnaround| turnaround + GATHERING < pause);
        (pays && waiting < self.expected).then_some((self.expected, pause))
    }

    /// Until when to stay awake for a lone publisher that comes back at once.
    pub fn stay_awake(&self) -> Option<Instant> {
        let is_prompt = self.turnaround.is_some_and(|turnaround| turnaround < AWAKE_MAX);
        let answered_at = self.answered_at.filter(|_| self.expected == 1 && is_prompt)?;
        // Now and then it is a little late.
        Some(answered_at + 2 * AWAKE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// Rounds in which `answered` publishers come back, one each `step`, on a disk whose syncs take `sync`.
    fn after_rounds(answered: u32, step: Duration, sync: Duration) -> Pace {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for _ in 0..8 {
            pace.synced(sync);
            pace.answered(answered as usize, 0, now);
            let answered_at = now;
            for nth in 1..=answered {
                now = answered_at + step * nth;
                pace.arrived(now);
            }
            now += sync;
        }
        pace
    }

    #[test]
    fn company_is_waited_for_when_it_comes_sooner_than_a_sync_takes() {
        let slow_disk = after_rounds(64, 20 * US, 2_300 * US);
        assert_eq!(slow_disk.gather(3), Some((64, 2_012 * US + US / 2)));
        assert_eq!(slow_disk.gather(64), None, "all are there");
        let fast_disk = after_rounds(64, 20 * US, 130 * US);
        assert_eq!(fast_disk.gather(3), None, "a sync is over before they are back");
        let just_too_late = after_rounds(64, 30 * US, 2_300 * US);
        assert_eq!(just_too_late.gather(3), None, "they would come when the wait has ended");
        let few = after_rounds(4, 20 * US, 130 * US);
        assert_eq!(few.gather(3), None, "gathering takes its time, too");
        assert_eq!(Pace::default().gather(1), None, "nothing is known yet");
    }

    #[test]
    fn the_longest_wait_is_bounded_on_a_disk_that_hardly_moves() {
        let disk = after_rounds(8, 20 * US, 900_000 * US);
        assert_eq!(disk.gather(1), Some((8, GATHER_MAX)));
    }

    #[test]
    fn a_long_pause_is_soon_forgotten() {
        let mut pace = Pace::default();
        let start = Instant::now();
        pace.answered(1, 0, start);
        pace.arrived(start + Duration::from_secs(3600));
        for round in 0..16 {
            let now = start + Duration::from_secs(3600) + 300 * US * round;
            pace.answered(1, 0, now);
            pace.arrived(now + 100 * US);
        }
        assert!(pace.stay_awake().is_some());
    }

    #[test]
    fn who_does_not_come_back_is_not_waited_for_any_more() {
        let mut pace = after_rounds(8, 20 * US, 2_000 * US);
        assert!(pace.gather(1).is_some());
        // Seven have gone: the eighth is answered alone, and alone it is expected.
        pace.answered(1, 0, Instant::now());
        assert_eq!(pace.gather(1), None, "alone, it is all there is");
    }

    #[test]
    fn publishers_that_are_still_on_their_way_at_the_next_answer_are_slow() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        for round in 0..8 {
            pace.synced(500 * US);
            // Half of them are there for each sync, as two groups that take turns are.
            pace.answered(32, 0, start + 1_000 * US * round);
            (0..16).for_each(|_| pace.arrived(start + 1_000 * US * round + 10 * US));
        }
        assert_eq!(pace.gather(16), None);
    }

    #[test]
    fn the_writer_stays_awake_for_one_prompt_publisher_only() {
        let sync = 130 * US;
        assert!(after_rounds(1, 120 * US, sync).stay_awake().is_some());
        assert_eq!(after_rounds(1, 500 * US, sync).stay_awake(), None, "it comes back later");
        assert_eq!(after_rounds(2, 20 * US, sync).stay_awake(), None, "two share two cores with the writer");
        let mut held_up = after_rounds(1, 120 * US, sync);
        let now = Instant::now();
        held_up.answered(1, 0, now);
        assert_eq!(held_up.stay_awake(), Some(now + 2 * AWAKE_MAX), "and no longer: it may have gone");
        held_up.arrived(now + 10_000 * US);
        assert!(held_up.stay_awake().is_some(), "once is no habit");
        held_up.arrived(now + Duration::from_secs(1));
        assert!(held_up.stay_awake().is_some(), "whoever was not answered says nothing of the pace");
    }
}
