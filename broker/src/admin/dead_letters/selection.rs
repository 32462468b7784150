//! Which dead letters are meant: by id or by filters.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::super::answer;
use super::super::events::moment;
use super::super::{Admin, view};
use super::walk;
use crate::delivery::Reason;
use crate::dispatch::Core;
use crate::edge::Problem;
use crate::store::{AsideEntry, DeadLetter, DeliveryId, Offset, Reader, Record, TriggerId};

/// An entry of the list.
#[derive(Clone, Debug)]
pub enum Letter {
    /// A delivery that ended without success.
    Delivery(DeliveryId, DeadLetter),
    /// What a source put aside.
    Aside(u64, AsideEntry),
}

impl Letter {
    /// `OFFSET.TRIGGER`, `OFFSET.TRIGGER.N` for the n-th redrive, `N@SOURCE` for what a source put aside.
    pub fn name(&self, core: &Core) -> String {
        match self {
            Self::Delivery(id, _) if id.redrive == 0 => {
                format!("{}.{}", id.offset, view::name_of(core, id.trigger))
            }
            Self::Delivery(id, _) => {
                format!("{}.{}.{}", id.offset, view::name_of(core, id.trigger), id.redrive)
            }
            Self::Aside(number, entry) => format!("{number}@{}", entry.source),
        }
    }

    pub fn find(core: &Core, text: &str) -> Result<Self, Problem> {
        let absent = || answer::not_found("dead letter", text);
        if let Some((number, source)) = text.split_once('@') {
            let number = number.parse().map_err(|_| absent())?;
            let entry = core.state.asides.get(number).filter(|entry| *entry.source == *source);
            return entry.map(|entry| Self::Aside(number, entry.clone())).ok_or_else(absent);
        }
        let mut parts = text.split('.');
        let offset = parts.next().and_then(|part| part.parse().ok()).map(Offset).ok_or_else(absent)?;
        let trigger = parts.next().ok_or_else(absent)?;
        let redrive = parts.next().map_or(Some(0), |part| part.parse().ok()).ok_or_else(absent)?;
        let entries = core.state.set.triggers.iter().filter(|entry| entry.name == trigger);
        let mut ids = entries.map(|entry| DeliveryId { trigger: entry.id, offset, redrive });
        let found = ids.rfind(|id| core.state.dead.contains_key(id)).ok_or_else(absent)?;
        Ok(Self::Delivery(found, core.state.dead[&found]))
    }

    pub fn at_ms(&self) -> u64 {
        match self {
            Self::Delivery(_, letter) => letter.at_ms,
            Self::Aside(_, entry) => entry.at_ms,
        }
    }

    pub fn reason(&self) -> Reason {
        match self {
            Self::Delivery(_, letter) => letter.reason,
            Self::Aside(_, entry) => entry.reason(),
        }
    }

    pub fn place(&self) -> Place {
        let (number, trigger, redrive) = match self {
            Self::Delivery(id, _) => (id.offset.0, u64::from(id.trigger.0) + 1, id.redrive),
            Self::Aside(number, _) => (*number, 0, 0),
        };
        Place { at_ms: self.at_ms(), number, trigger, redrive }
    }
}

/// Where an entry stands in the list, which is newest first: by time, then by offset or number, and never twice. As the
/// cursor of a page it holds also when entries before it come or go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    at_ms: u64,
    number: u64,
    /// 0 for what a source put aside.
    trigger: u64,
    redrive: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{}", self.at_ms, self.number, self.trigger, self.redrive)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split('-').collect();
        let [at_ms, number, trigger, redrive] = parts[..] else { return Err(()) };
        let whole = |part: &str| part.parse().map_err(|_| ());
        Ok(Self {
            at_ms: whole(at_ms)?,
            number: whole(number)?,
            trigger: whole(trigger)?,
            redrive: redrive.parse().map_err(|_| ())?,
        })
    }
}

/// What is asked for, in a query or in the body of a writing call.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    #[serde(default)]
    pub ids: Option<Vec<String>>,
    #[serde(default)]
    pub all: bool,
    pub trigger: Option<String>,
    pub via: Option<String>,
    pub reason: Option<String>,
    #[serde(rename = "type")]
    pub ty: Option<String>,
    pub since: Option<String>,
    pub to: Option<String>,
    #[serde(default)]
    pub dry_run: bool,
}

impl Selection {
    /// A writing call says in one way which it means: what it says twice could be meant otherwise.
    fn says_which(&self) -> Result<(), Problem> {
        let filters = [&self.trigger, &self.via, &self.reason, &self.ty, &self.since];
        let has_filters = filters.iter().any(|filter| filter.is_some());
        match [self.ids.is_some(), self.all, has_filters].into_iter().filter(|is_said| *is_said).count() {
            0 => Err(answer::bad(
                "ids",
                "say which: `ids`, `all`, or filters (`trigger`, `via`, `reason`, `type`, `since`)",
            )),
            1 => Ok(()),
            _ => Err(answer::bad("ids", "`ids`, `all` and filters exclude each other")),
        }
    }

    /// What the state alone can tell of whether an entry is asked for.
    pub fn filter(&self, core: &Core) -> Result<Filter, Problem> {
        let no_reason = |text: &String| Reason::parse(text).ok_or_else(|| no_reason(text));
        let reason = self.reason.as_ref().map(no_reason).transpose()?;
        let since = self.since.iter().map(|text| ("since".to_owned(), text.clone())).collect();
        let since = moment(&since, "since")?.unwrap_or(0);
        let triggers = self.trigger.as_ref().map(|name| {
            core.state.set.triggers.iter().filter(|entry| entry.name == *name).map(|entry| entry.id).collect()
        });
        let takes_asides = triggers.is_none() && self.ty.is_none() && self.to.is_none();
        Ok(Filter { reason, since, triggers, takes_asides, via: self.via.clone() })
    }

    /// Whether an entry's event is asked for; reads it from the log.
    pub fn takes_event_of(&self, reader: &Reader, letter: &Letter) -> bool {
        match letter {
            Letter::Delivery(id, _) if self.needs_event() => {
                reader.read(id.offset).is_ok_and(|record| self.takes(&record))
            }
            Letter::Delivery(..) | Letter::Aside(..) => true,
        }
    }

    pub fn needs_event(&self) -> bool {
        self.ty.is_some() || self.via.is_some()
    }

    fn takes(&self, record: &Record) -> bool {
        self.ty.as_deref().is_none_or(|ty| record.event.ty() == ty)
            && self.via.as_deref().is_none_or(|via| *record.via == *via)
    }
}

/// What the state alone can tell.
pub struct Filter {
    reason: Option<Reason>,
    since: u64,
    triggers: Option<Vec<TriggerId>>,
    /// What a source put aside has no trigger, no event, and cannot be sent to one.
    takes_asides: bool,
    via: Option<String>,
}

impl Filter {
    pub fn takes(&self, letter: &Letter) -> bool {
        let fits = match letter {
            Letter::Delivery(id, _) => {
                self.triggers.as_ref().is_none_or(|triggers| triggers.contains(&id.trigger))
            }
            Letter::Aside(_, entry) => {
                self.takes_asides && self.via.as_deref().is_none_or(|via| *entry.source == *via)
            }
        };
        fits && self.reason.is_none_or(|reason| letter.reason() == reason) && letter.at_ms() >= self.since
    }
}

fn no_reason(reason: &str) -> Problem {
    let known = Reason::ALL.map(Reason::as_str);
    let near = sluice_config::nearest(reason, &known);
    let near = near.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
    answer::bad(
        "reason",
        format!("there is no reason `{reason}`: expected one of {}{near}", known.join(", ")),
    )
}

/// What a writing call means; it must say which.
pub async fn selected(admin: &Admin, body: &Bytes) -> Result<(Arc<Selection>, Vec<Letter>), Problem> {
    let selection: Arc<Selection> = Arc::new(answer::body(body)?);
    selection.says_which()?;
    let found = walk::all(admin, &selection).await?;
    Ok((selection, found))
}
