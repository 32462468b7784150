//! Why an event goes to a trigger or does not, and what its sink gets.

use serde::Serialize;
use sluice_config::{self as config, Places};
use sluice_language::transform::Transform;
use sluice_language::{Facts, Failure, Filter, failure};
use sluice_schemas::Event;

use crate::store::{Offset, TriggerEntry};
use crate::transform::{self, Pool};

/// An event in question.
pub struct Asked<'a> {
    pub event: &'a Event,
    /// The entry point it came in by, or would.
    pub via: &'a str,
    /// `None` when it is not stored.
    pub offset: Option<Offset>,
}

/// Whether events can come in by this name.
pub fn is_entry_point(via: &str, is_source: impl Fn(&str) -> bool) -> bool {
    matches!(via, "http" | "reply") || is_source(via)
}

pub fn no_entry_point(via: &str) -> String {
    format!("events cannot come in by `{via}`: expected `http`, `reply` or the name of a source")
}

/// A trigger in question.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub name: String,
    pub sources: Option<Vec<String>>,
    /// The filters, or why they cannot be read.
    pub filters: Result<Vec<Filter>, String>,
    pub places: Places,
    /// The transform, or why it cannot be read.
    pub transform: Result<Option<Transform>, String>,
    /// The first offset it sees.
    pub birth: Option<Offset>,
    /// Why it is paused.
    pub paused: Option<String>,
}

/// What becomes of an event at one trigger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub trigger: String,
    pub matched: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failed>,
    /// It matched, and is not delivered for now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// It matched and has a transform: the event that its sink gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transformed: Option<serde_json::Value>,
    /// Why there is no such event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untransformed: Option<String>,
}

/// The first condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    pub filter: String,
    pub expected: String,
    pub actual: String,
    pub message: String,
    /// `FILE:LINE:COLUMN` of the condition, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

impl Candidate {
    pub fn of_config(name: &str, trigger: &config::Trigger) -> Self {
        Self {
            name: name.to_owned(),
            sources: trigger.sources.clone(),
            filters: Ok(trigger.filters.clone()),
            places: trigger.places.clone(),
            transform: Ok(trigger.transform.clone()),
            birth: None,
            paused: None,
        }
    }

    /// A trigger as the log describes it.
    pub fn of_entry(entry: &TriggerEntry) -> Self {
        let sources = entry.filters["sources"].as_array();
        let sources =
            sources.map(|names| names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect());
        let filters = entry.filters["filters"].as_array().into_iter().flatten().map(Filter::from_json);
        Self {
            name: entry.name.clone(),
            sources,
            filters: filters.collect(),
            places: Places::default(),
            transform: entry.filters.get("transform").map(Transform::from_json).transpose(),
            birth: Some(entry.birth),
            paused: None,
        }
    }

    /// Whether an event matches, and if not, why. The filters are asked first: they say most.
    pub fn explain(&self, asked: &Asked<'_>, facts: &Facts<'_>) -> Verdict {
        let failed = match &self.filters {
            Ok(filters) => failure(filters, facts),
            Err(error) => Some(Failure {
                filter: "filters".into(),
                expected: "filters of this version".into(),
                actual: "others".into(),
                message: format!("the filters cannot be read: {error}"),
            }),
        };
        let failed = failed.or_else(|| self.entry_point(asked)).or_else(|| self.beginning(asked));
        let failed = failed.map(|Failure { filter, expected, actual, message }| {
            let at = self.places.find(&filter).map(ToString::to_string);
            Failed { filter, expected, actual, message, at }
        });
        let paused = self.paused.clone().filter(|_| failed.is_none());
        Verdict {
            trigger: self.name.clone(),
            matched: failed.is_none(),
            failed,
            paused,
            ..Verdict::default()
        }
    }

    fn entry_point(&self, asked: &Asked<'_>) -> Option<Failure> {
        let sources = self.sources.as_ref()?;
        if sources.iter().any(|source| source == asked.via) {
            return None;
        }
        let named: Vec<_> = sources.iter().map(|source| format!("`{source}`")).collect();
        let named = named.join(", ");
        Some(Failure {
            filter: "sources".into(),
            expected: named.clone(),
            actual: format!("`{}`", asked.via),
            message: format!("came in via `{}`, the trigger takes {named}", asked.via),
        })
    }

    fn beginning(&self, asked: &Asked<'_>) -> Option<Failure> {
        let (birth, offset) = (self.birth?, asked.offset?);
        (offset < birth).then(|| Failure {
            filter: "start".into(),
            expected: format!("an offset from {birth}"),
            actual: offset.to_string(),
            message: format!("the trigger begins at offset {birth}, behind this event"),
        })
    }
}

/// Explains an event to each trigger in turn.
pub async fn explain(pool: &Pool, asked: &Asked<'_>, candidates: &[Candidate]) -> Vec<Verdict> {
    let mut verdicts = judge(asked, candidates);
    for (candidate, verdict) in candidates.iter().zip(&mut verdicts) {
        if !verdict.matched {
            continue;
        }
        let transform = match &candidate.transform {
            Ok(None) => continue,
            Ok(Some(transform)) => transform,
            Err(error) => {
                verdict.untransformed = Some(format!("the transform cannot be read: {error}"));
                continue;
            }
        };
        match transform::apply(pool, transform, asked.event).await {
            Ok(event) => {
                verdict.transformed = serde_json::from_slice(&sluice_schemas::json::encode(&event)).ok();
            }
            Err(error) => verdict.untransformed = Some(error.to_string()),
        }
    }
    verdicts
}

fn judge(asked: &Asked<'_>, candidates: &[Candidate]) -> Vec<Verdict> {
    let facts = Facts::of(asked.event);
    candidates.iter().map(|candidate| candidate.explain(asked, &facts)).collect()
}
