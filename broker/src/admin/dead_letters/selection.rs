//! Which dead letters are meant: by id or by filters.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::super::answer;
use super::super::events::moment;
use super::super::{Admin, trail, view};
use crate::dispatch::Core;
use crate::edge::Problem;
use crate::store::{AsideEntry, DeadLetter, DeliveryId, Offset, Record, TriggerId};

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

    pub fn reason(&self) -> &'static str {
        match self {
            Self::Delivery(_, letter) => letter.reason.as_str(),
            Self::Aside(_, entry) => entry.reason().as_str(),
        }
    }

    /// Newest first; of one moment by offset or number.
    pub fn order(&self) -> impl Ord + use<> {
        let place = match self {
            Self::Delivery(id, _) => id.offset.0,
            Self::Aside(number, _) => *number,
        };
        std::cmp::Reverse((self.at_ms(), place))
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
    fn is_empty(&self) -> bool {
        let filters = [&self.trigger, &self.via, &self.reason, &self.ty, &self.since];
        self.ids.is_none() && !self.all && filters.iter().all(|filter| filter.is_none())
    }

    /// Those that the state alone can tell are asked for.
    fn candidates(&self, core: &Core) -> Result<Vec<Letter>, Problem> {
        if let Some(ids) = &self.ids {
            return ids.iter().map(|id| Letter::find(core, id)).collect();
        }
        let since = self.since.iter().map(|text| ("since".to_owned(), text.clone())).collect();
        let since = moment(&since, "since")?.unwrap_or(0);
        let triggers: Option<Vec<TriggerId>> = self.trigger.as_ref().map(|name| {
            core.state.set.triggers.iter().filter(|entry| entry.name == *name).map(|entry| entry.id).collect()
        });
        let dead = core.state.dead.iter().map(|(id, letter)| Letter::Delivery(*id, *letter));
        let asides = core.state.asides.iter().map(|(number, entry)| Letter::Aside(number, entry.clone()));
        let wanted = |letter: &Letter| {
            let fits = match letter {
                Letter::Delivery(id, _) => {
                    triggers.as_ref().is_none_or(|triggers| triggers.contains(&id.trigger))
                }
                // It has no trigger, no event, and cannot be sent to one.
                Letter::Aside(_, entry) => {
                    triggers.is_none()
                        && self.ty.is_none()
                        && self.to.is_none()
                        && self.via.as_deref().is_none_or(|via| *entry.source == *via)
                }
            };
            fits && self.reason.as_deref().is_none_or(|reason| letter.reason() == reason)
                && letter.at_ms() >= since
        };
        Ok(dead.chain(asides).filter(wanted).collect())
    }

    fn needs_event(&self) -> bool {
        self.ty.is_some() || self.via.is_some()
    }

    fn takes(&self, record: &Record) -> bool {
        self.ty.as_deref().is_none_or(|ty| record.event.ty() == ty)
            && self.via.as_deref().is_none_or(|via| *record.via == *via)
    }
}

/// Keeps those whose event fits too.
pub async fn narrowed(admin: &Admin, selection: Arc<Selection>) -> Result<Vec<Letter>, Problem> {
    let candidates = selection.candidates(&admin.dispatch.core())?;
    if !selection.needs_event() {
        return Ok(candidates);
    }
    let reader = Arc::clone(admin.dispatch.log().reader());
    trail::blocking(move || {
        let fits = |letter: &Letter| match letter {
            Letter::Delivery(id, _) => reader.read(id.offset).is_ok_and(|record| selection.takes(&record)),
            Letter::Aside(..) => true,
        };
        candidates.into_iter().filter(fits).collect()
    })
    .await
}

/// What a writing call means; it must say which.
pub async fn selected(admin: &Admin, body: &Bytes) -> Result<(Arc<Selection>, Vec<Letter>), Problem> {
    let selection: Arc<Selection> = Arc::new(answer::body(body)?);
    if selection.is_empty() {
        return Err(answer::bad(
            "ids",
            "say which: `ids`, `all`, or filters (`trigger`, `via`, `reason`, `type`, `since`)",
        ));
    }
    let found = narrowed(admin, Arc::clone(&selection)).await?;
    Ok((selection, found))
}
