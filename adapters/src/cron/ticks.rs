//! Which instants are due, and how the last one is remembered.

use std::collections::VecDeque;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sluice_config::{CronSource, CronWhen};

use crate::Stop;

/// So many instants are counted before others get a turn.
const TURN: u64 = 1000;

pub(super) struct Ticks {
    when: CronWhen,
    zone: TimeZone,
    /// What the marks of this schedule end in.
    label: String,
}

/// The instants that are due: how many, and the last of them, in order.
pub(super) struct Due {
    pub total: u64,
    pub latest: VecDeque<Timestamp>,
}

impl Ticks {
    pub fn new(cron: &CronSource) -> Self {
        let zone = cron.timezone.clone();
        let label = match &cron.when {
            CronWhen::Schedule(schedule) => {
                format!("{} {}", schedule.as_str(), zone.iana_name().unwrap_or("UTC"))
            }
            CronWhen::At(ms) => format!("at {ms}"),
        };
        Self { when: cron.when.clone(), zone, label }
    }

    pub fn when(&self) -> &CronWhen {
        &self.when
    }

    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.when {
            CronWhen::Schedule(schedule) => schedule.next(&self.zone, after),
            CronWhen::At(ms) => Timestamp::from_millisecond(*ms).ok().filter(|at| *at > after),
        }
    }

    pub fn mark(&self, done: Timestamp) -> String {
        format!("{done} {}", self.label)
    }

    /// The instant of a mark, if it is of this schedule.
    pub fn read_mark(&self, mark: &str) -> Option<Timestamp> {
        let (done, label) = mark.split_once(' ')?;
        if label == self.label { done.parse().ok() } else { None }
    }

    /// What is due in `(after, now]`, keeping the last `max`.
    pub async fn due(&self, after: Timestamp, now: Timestamp, max: usize, stop: &Stop) -> Due {
        let mut due = Due { total: 0, latest: VecDeque::new() };
        let mut last = after;
        while let Some(next) = self.next(last).filter(|next| *next <= now) {
            if due.latest.len() == max {
                due.latest.pop_front();
            }
            due.latest.push_back(next);
            due.total += 1;
            last = next;
            // Months of seconds take a while to count.
            if due.total.is_multiple_of(TURN) {
                tokio::task::yield_now().await;
                if stop.is_requested() {
                    break;
                }
            }
        }
        due
    }
}
