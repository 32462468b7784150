//! Timers. Each tick is an event whose id is the source's name and the instant it was due, so a tick that is published twice is
//! a duplicate; its instant is the source's mark, in one frame with the event, so a tick that is on disk is not published again.
//!
//! The mark says up to which instant everything due has had its turn, and under which schedule: under another one, the source
//! begins anew. A source that was never run begins now.

mod ticks;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sluice_config::{self as config, CatchUp, CronWhen};
use sluice_language::template::Root;
use sluice_language::{Draft, WrongField};
use sluice_schemas::Event;
use tokio::time::sleep;

use crate::{Aside, Context, Down, Entry, EventTemplate, Outcome, Record, Report, Source, Unfit};

use ticks::{Due, Ticks};

/// The wall clock is looked at so often, because it may jump.
const LOOK: Duration = Duration::from_secs(15);
/// What is later than this has been missed.
const LATE: SignedDuration = SignedDuration::from_secs(60);
/// Who wakes up later than this after the time he set has been asleep: suspended, or the clock was set.
const ASLEEP: SignedDuration = SignedDuration::from_secs(2);
/// A mark that is further ahead than this is of a clock that was wrong.
const AHEAD_MAX: SignedDuration = SignedDuration::from_hours(24);

/// 2025-12-31T23:59:59Z: where a test of a timer begins.
const TESTED_FROM: Timestamp = Timestamp::constant(1_767_225_599, 0);

type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A compiled timer.
pub struct CronSource {
    name: String,
    ticks: Ticks,
    catch_up: CatchUp,
    catch_up_max: usize,
    template: EventTemplate,
    event_bytes: usize,
    clock: Clock,
}

impl CronSource {
    pub fn compile(
        name: &str,
        cron: &config::CronSource,
        source: &config::Source,
    ) -> Result<Self, WrongField> {
        Self::with_clock(name, cron, source, Arc::new(Timestamp::now))
    }

    /// With a wall clock of its own.
    pub fn with_clock(
        name: &str,
        cron: &config::CronSource,
        source: &config::Source,
        clock: Clock,
    ) -> Result<Self, WrongField> {
        Ok(Self {
            name: name.to_owned(),
            ticks: Ticks::new(cron),
            catch_up: cron.catch_up,
            catch_up_max: cron.catch_up_max,
            template: EventTemplate::compile(&source.event, &[Root::Scheduled])?,
            event_bytes: source.event_bytes,
            clock,
        })
    }

    /// A tick that is the same at any time: the first of 2026, or the only one.
    pub(crate) fn first_tick(&self) -> String {
        let tick = self.ticks.next(TESTED_FROM).or_else(|| self.ticks.next(Timestamp::UNIX_EPOCH));
        tick.unwrap_or(TESTED_FROM).to_string()
    }

    /// The event of a tick; the record's position is the instant it was due.
    pub fn to_event(&self, record: &Record) -> Result<Event, Unfit> {
        let instant = &record.position;
        let draft = Draft::default()
            .attribute("id", &format!("{}/{instant}", self.name))
            .attribute("source", &format!("/{}", self.name))
            .attribute("type", "sluice.cron")
            .attribute("time", instant);
        let event = self.template.apply(record, Some(instant), draft)?;
        let bytes = event.data().map_or(0, |data| data.bytes.len());
        if bytes > self.event_bytes {
            let detail =
                format!("{bytes} bytes of data are more than the {} of event_bytes", self.event_bytes);
            return Err(Unfit { is_conflict: false, detail });
        }
        Ok(event)
    }

    /// Up to when everything has had its turn.
    async fn begin(&self, context: &mut Context) -> Result<Option<Timestamp>, Down> {
        let now = (self.clock)();
        if let Some(done) = context.mark.as_deref().and_then(|mark| self.ticks.read_mark(mark)) {
            if done.duration_since(now) <= AHEAD_MAX {
                return Ok(Some(done));
            }
            tracing::warn!(source = %self.name, %done, %now, "the last tick is in the future: the clock was wrong, beginning anew");
        } else if let CronWhen::At(_) = self.ticks.when()
            && self.ticks.next(now).is_none()
        {
            tracing::warn!(source = %self.name, "`at` is in the past: this source will never bring an event");
        }
        // Written down before anything is due: what is missed from now on can be made up for.
        match context.store(Vec::new(), Vec::new(), Some(self.ticks.mark(now))).await {
            Outcome::Stored(_) => Ok(Some(now)),
            Outcome::Conflict { offset, .. } => Err(conflict(offset)),
            Outcome::TooLarge { bytes_max } => Err(Context::no_room_ever("its beginning", bytes_max)),
            Outcome::Stopped => Ok(None),
        }
    }

    async fn tick(&self, context: &mut Context) -> Result<(), Down> {
        let Some(mut done) = self.begin(context).await? else { return Ok(()) };
        context.health.tell(Report::Up);
        // Nobody was there for what came due before this.
        let mut was_away = true;
        loop {
            let now = (self.clock)();
            let due = self.ticks.due(done, now, self.catch_up_max, &context.stop).await;
            let (due, left_out) = self.choose(due, now, was_away);
            if left_out > 0 {
                context.health.tell(Report::Skipped { ticks: left_out });
            }
            for tick in due {
                if !self.publish(context, tick).await? {
                    return Ok(());
                }
                done = tick;
            }
            // What was left out has had its turn as well.
            done = done.max(now);
            let now = (self.clock)();
            let wait = self.ticks.next(done).map_or(LOOK, |next| wait_until(next, now));
            tokio::select! {
                () = sleep(wait) => {}
                () = context.stop.requested() => return Ok(()),
            }
            let slept = (self.clock)().duration_since(now);
            was_away =
                slept > ASLEEP + SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX - ASLEEP);
        }
    }

    /// Which of the ticks that are due are published, and how many are not. To whoever was away, only the last of several can
    /// be in time.
    fn choose(&self, due: Due, now: Timestamp, was_away: bool) -> (VecDeque<Timestamp>, u64) {
        let Due { total, mut latest } = due;
        let late = latest.iter().filter(|tick| now.duration_since(**tick) > LATE).count();
        let late = if was_away { late.max(latest.len().saturating_sub(1)) } else { late };
        match self.catch_up {
            CatchUp::All => {}
            CatchUp::Skip => drop(latest.drain(..late)),
            // One that is in time stands for those before it.
            CatchUp::Latest if late < latest.len() => drop(latest.drain(..late)),
            CatchUp::Latest => drop(latest.drain(..late.saturating_sub(1))),
        }
        let left_out = total - latest.len() as u64;
        if left_out > 0 {
            let first = latest.front().map(ToString::to_string);
            tracing::warn!(source = %self.name, left_out, first, "ticks were missed and are not made up for");
        }
        (latest, left_out)
    }

    /// Publishes one tick with its mark. False when told to stop before it was stored.
    async fn publish(&self, context: &mut Context, tick: Timestamp) -> Result<bool, Down> {
        let record =
            Record { position: tick.to_string(), time_ms: Some(tick.as_millisecond()), ..Record::default() };
        let mark = Some(self.ticks.mark(tick));
        let mut made = self.to_event(&record).map(Arc::new);
        loop {
            let (entries, aside) = match &made {
                Ok(event) => (vec![Entry { event: Arc::clone(event), trace: None }], Vec::new()),
                Err(unfit) => (Vec::new(), vec![context.aside(record.clone(), unfit.clone())?]),
            };
            let is_conflict = aside.first().map(|Aside { unfit, .. }| unfit.is_conflict);
            match context.store(entries, aside, mark.clone()).await {
                Outcome::Stored(published) => {
                    let report = match (is_conflict, published.receipts.first()) {
                        (Some(is_conflict), _) => Report::PutAside { is_conflict },
                        (None, Some(receipt)) if receipt.duplicate => {
                            Report::Accepted { events: 0, duplicates: 1 }
                        }
                        (None, _) => Report::Accepted { events: 1, duplicates: 0 },
                    };
                    context.health.tell(report);
                    context.health.tell(Report::Position(record.position));
                    return Ok(true);
                }
                Outcome::Conflict { offset, .. } if made.is_ok() => {
                    let detail = format!(
                        "an event with the same source and id and other content is at offset {offset}"
                    );
                    made = Err(Unfit { is_conflict: true, detail });
                }
                Outcome::Conflict { offset, .. } => return Err(conflict(offset)),
                Outcome::TooLarge { bytes_max } => {
                    return Err(Context::no_room_ever(&record.position, bytes_max));
                }
                Outcome::Stopped => return Ok(false),
            }
        }
    }
}

impl Source for CronSource {
    fn run(&self, mut context: Context) -> Pin<Box<dyn Future<Output = Result<(), Down>> + Send + '_>> {
        Box::pin(async move { self.tick(&mut context).await })
    }
}

fn conflict(offset: u64) -> Down {
    Down::because(format!("the store sees a conflict with offset {offset} where there is no event"))
}

fn wait_until(next: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(next.duration_since(now)).unwrap_or(Duration::ZERO).min(LOOK)
}

#[cfg(test)]
mod tests;
