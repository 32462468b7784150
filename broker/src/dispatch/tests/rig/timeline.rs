//! What happened when, in lines that are compared.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use super::Rig;
use crate::store::{Append, Attempted, LogRecord, Next, Offset, TriggerId};

/// Something that is to be on the timeline.
pub enum Line {
    Outcome(Attempted),
    Text(String),
    Named(TriggerId, String),
    Reply { id: String, parent: Offset, hops: u32 },
    Told(Offset),
}

#[derive(Clone, Default)]
pub struct Timeline(Arc<Mutex<Vec<(u64, Line)>>>);

impl Timeline {
    fn lines(&self) -> MutexGuard<'_, Vec<(u64, Line)>> {
        self.0.lock().unwrap()
    }

    pub fn add(&self, at_ms: u64, line: Line) {
        self.lines().push((at_ms, line));
    }

    /// Notes what is on its way to the disk.
    pub fn look(&self, now_ms: u64, append: &Append) {
        for event in &append.events {
            if let Some(parent) = event.parent {
                let id = event.event.id().to_owned();
                self.add(now_ms, Line::Reply { id, parent, hops: event.hops });
            }
        }
        for record in &append.records {
            match record {
                LogRecord::Outcomes(attempts) => {
                    for made in attempts {
                        let begun_ms = now_ms - u64::from(made.duration_ms);
                        self.add(begun_ms, Line::Outcome(made.clone()));
                    }
                }
                LogRecord::Pause(pause) => {
                    let what = pause.reason.as_ref().map_or("goes on".into(), |why| format!("paused: {why}"));
                    self.add(now_ms, Line::Named(pause.trigger, what));
                }
                LogRecord::Told(ids) => ids.iter().for_each(|id| self.add(now_ms, Line::Told(id.offset))),
                _ => {}
            }
        }
    }
}

impl Rig {
    pub fn text(&self) -> String {
        let mut lines: Vec<_> = self.timeline.lines().drain(..).collect();
        lines.sort_by_key(|(at, _)| *at);
        let mut text = String::new();
        for (at, line) in lines {
            let at = format!("+{}", seconds(at.saturating_sub(self.start_ms)));
            let _ = writeln!(text, "{at:<7} {}", self.describe(&line));
        }
        text
    }

    fn describe(&self, line: &Line) -> String {
        match line {
            Line::Text(text) => text.clone(),
            Line::Named(trigger, text) => format!("{} {text}", self.name_of(*trigger)),
            Line::Reply { id, parent, hops } => {
                format!("reply {id} to {}, {hops} from the first", self.event_id(*parent))
            }
            Line::Told(offset) => format!("told of {}", self.event_id(*offset)),
            Line::Outcome(made) => self.describe_outcome(made),
        }
    }

    fn describe_outcome(&self, made: &Attempted) -> String {
        let mut text = format!("{} {}", self.name_of(made.id.trigger), self.event_id(made.id.offset));
        if made.id.redrive > 0 {
            text += " (redriven)";
        }
        if made.attempt > 0 {
            let answer = match (made.status, &made.error) {
                (Some(status), _) => status.to_string(),
                (None, Some(error)) => error.to_string(),
                (None, None) => "no answer".into(),
            };
            let _ = write!(text, " try {} -> {answer}", made.attempt);
        }
        match made.next {
            Next::Delivered => {}
            Next::RetryAt { begun_ms, due_ms } => {
                let wait = due_ms - begun_ms - u64::from(made.duration_ms);
                let _ = write!(text, ", again in {}", seconds(wait));
            }
            Next::Dead(reason) => {
                let _ = write!(text, ", dead letter: {}", reason.as_str());
            }
        }
        text
    }

    fn name_of(&self, trigger: TriggerId) -> String {
        let core = self.dispatch.core();
        let entry = core.state.set.triggers.iter().find(|entry| entry.id == trigger);
        entry.map_or_else(|| format!("{trigger:?}"), |entry| entry.name.clone())
    }

    fn event_id(&self, offset: Offset) -> String {
        let record = self.dispatch.log().reader().read(offset);
        record.map_or_else(|error| error.to_string(), |record| record.event.id().to_owned())
    }
}

/// `90s`, `1.25s`.
fn seconds(ms: u64) -> String {
    format!("{}s", (ms / 10) as f64 / 100.0)
}
