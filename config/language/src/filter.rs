//! Filters of the CloudEvents Subscriptions API (section 3.2.4.1), and the dialects that look into data.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::{Facts, cel, cesql, pattern};

/// A compiled filter. Attributes compare by their canonical text; an absent one is plain false.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    Exact(Vec<(String, String)>),
    Prefix(Vec<(String, String)>),
    Suffix(Vec<(String, String)>),
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    Cesql(Arc<cesql::Expression>),
    Data(Arc<pattern::Pattern>),
    Cel(Arc<cel::Program>),
}

/// A predicate could not be evaluated: the whole trigger does not match, also under `not` and `any`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Errs(pub String);

/// The first predicate that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The place within the filter, such as `data.amount` or `exact.type`.
    pub filter: String,
    pub expected: String,
    pub actual: String,
    /// One sentence: "`data.amount`: 80 is not > 100".
    pub message: String,
}

/// A condition that every event a filter accepts fulfils: the subject is, or begins with, a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub subject: Subject,
    pub text: String,
    pub is_prefix: bool,
}

/// What a term is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Attribute(String),
    /// One of the scalars at a path in the data. The text is then the one that [`Facts::visit_data`] gives for equal scalars;
    /// there are no prefixes.
    Data(String),
}

/// More terms than this are no help in an index.
pub(crate) const TERMS_MAX: usize = 64;

impl Filter {
    pub fn holds(&self, facts: &Facts<'_>) -> Result<bool, Errs> {
        let every = |pairs: &[(String, String)], holds: fn(&str, &str) -> bool| {
            pairs.iter().all(|(name, wanted)| facts.event.text(name).is_some_and(|text| holds(text, wanted)))
        };
        Ok(match self {
            Self::Exact(pairs) => every(pairs, |text, wanted| text == wanted),
            Self::Prefix(pairs) => every(pairs, |text, wanted| text.starts_with(wanted)),
            Self::Suffix(pairs) => every(pairs, |text, wanted| text.ends_with(wanted)),
            Self::All(filters) => {
                for filter in filters {
                    if !filter.holds(facts)? {
                        return Ok(false);
                    }
                }
                true
            }
            Self::Any(filters) => {
                for filter in filters {
                    if filter.holds(facts)? {
                        return Ok(true);
                    }
                }
                false
            }
            Self::Not(inner) => !inner.holds(facts)?,
            Self::Cesql(expression) => expression.holds(facts)?,
            Self::Data(pattern) => pattern.holds(facts)?,
            Self::Cel(program) => program.holds(facts)?,
        })
    }

    /// The filter as it is written in a configuration.
    pub fn to_json(&self) -> Value {
        let attributes = |pairs: &[(String, String)]| -> Value {
            pairs.iter().map(|(name, text)| (name.clone(), json!(text))).collect::<Map<_, _>>().into()
        };
        let nested = |filters: &[Self]| -> Value { filters.iter().map(Self::to_json).collect() };
        match self {
            Self::Exact(pairs) => json!({ "exact": attributes(pairs) }),
            Self::Prefix(pairs) => json!({ "prefix": attributes(pairs) }),
            Self::Suffix(pairs) => json!({ "suffix": attributes(pairs) }),
            Self::All(filters) => json!({ "all": nested(filters) }),
            Self::Any(filters) => json!({ "any": nested(filters) }),
            Self::Not(inner) => json!({ "not": inner.to_json() }),
            Self::Cesql(expression) => json!({ expression.key().name(): expression.text() }),
            Self::Data(pattern) => json!({ "data": pattern.source() }),
            Self::Cel(program) => json!({ "cel": program.text() }),
        }
    }

    /// Terms of which an accepted event fulfils at least one; `None` when nothing of the kind is known.
    pub fn terms(&self) -> Option<Vec<Term>> {
        let first = |pairs: &[(String, String)], is_prefix| {
            let pair = pairs.iter().find(|(name, _)| name == "type").or(pairs.first())?;
            Some(vec![Term { subject: Subject::Attribute(pair.0.clone()), text: pair.1.clone(), is_prefix }])
        };
        match self {
            Self::Exact(pairs) => first(pairs, false),
            Self::Prefix(pairs) => first(pairs, true),
            Self::Suffix(_) | Self::Not(_) => None,
            // An exact term is the sharper one, then the fewest.
            Self::All(filters) => filters
                .iter()
                .filter_map(Self::terms)
                .min_by_key(|terms| (terms.iter().filter(|term| term.is_prefix).count(), terms.len())),
            Self::Any(filters) => {
                let terms: Vec<_> = filters.iter().map(Self::terms).collect::<Option<Vec<_>>>()?.concat();
                (terms.len() <= TERMS_MAX).then_some(terms)
            }
            Self::Cesql(expression) => expression.terms(),
            Self::Data(pattern) => pattern.terms(),
            Self::Cel(program) => program.terms(),
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_schemas::Event;

    use super::*;

    fn event() -> Event {
        let required =
            Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/s");
        required.attribute("type", "com.example.a").attribute("count", "5").build().expect("valid")
    }

    fn pairs(name: &str, text: &str) -> Vec<(String, String)> {
        vec![(name.into(), text.into())]
    }

    fn holds(filter: &Filter) -> bool {
        filter.holds(&Facts::of(&event())).expect("no dialect that can err")
    }

    #[test]
    fn an_absent_attribute_is_false_and_so_its_negation_true() {
        let filter = Filter::Exact(pairs("subject", "x"));
        assert!(!holds(&filter));
        assert!(holds(&Filter::Not(Box::new(filter))));
    }

    #[test]
    fn every_pair_must_hold() {
        let filter = |count: &str| {
            Filter::Exact(vec![("type".into(), "com.example.a".into()), ("count".into(), count.into())])
        };
        assert!(holds(&filter("5")));
        assert!(!holds(&filter("6")));
    }

    /// Case, another alphabet, an accent of its own, an invisible character: none of them is equal to the text as it is.
    #[test]
    fn texts_that_look_alike_are_not_equal() {
        let texts = ["caf\u{e9}", "cafe\u{301}", "CAF\u{c9}", "c\u{430}f\u{e9}", "ca\u{200b}f\u{e9}"];
        for found in texts {
            let event = Event::builder()
                .attribute("specversion", "1.0")
                .attribute("id", "1")
                .attribute("source", "/s");
            let event = event.attribute("type", "a").attribute("region", found).build().expect("valid");
            for wanted in texts {
                for filter in [Filter::Exact, Filter::Prefix, Filter::Suffix] {
                    let holds = filter(pairs("region", wanted)).holds(&Facts::of(&event));
                    assert_eq!(holds, Ok(wanted == found), "{wanted:?} and {found:?}");
                }
            }
        }
    }

    #[test]
    fn prefix_and_suffix_are_case_sensitive() {
        assert!(holds(&Filter::Prefix(pairs("type", "com."))));
        assert!(!holds(&Filter::Prefix(pairs("type", "COM."))));
        assert!(holds(&Filter::Suffix(pairs("type", ".a"))));
        assert!(!holds(&Filter::Suffix(pairs("type", ".b"))));
    }
}
