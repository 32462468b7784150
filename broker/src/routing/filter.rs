//! Filters of the CloudEvents Subscriptions API (section 3.2.4.1), evaluated. Pure.

use sluice_config as config;
use sluice_schemas::Event;

/// A filter in the form it is evaluated in. Attributes compare by their canonical text; an absent one is plain false.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    Exact(Vec<(String, String)>),
    Prefix(Vec<(String, String)>),
    Suffix(Vec<(String, String)>),
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
}

/// A condition that every event a filter accepts fulfils: an attribute that is, or begins with, a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub attribute: String,
    pub text: String,
    pub is_prefix: bool,
}

/// More terms than this are no help in an index.
const TERMS_MAX: usize = 64;

impl From<&config::Filter> for Filter {
    fn from(filter: &config::Filter) -> Self {
        let list = |filters: &[config::Filter]| filters.iter().map(Self::from).collect();
        match filter {
            config::Filter::Exact(pairs) => Self::Exact(pairs.clone()),
            config::Filter::Prefix(pairs) => Self::Prefix(pairs.clone()),
            config::Filter::Suffix(pairs) => Self::Suffix(pairs.clone()),
            config::Filter::All(filters) => Self::All(list(filters)),
            config::Filter::Any(filters) => Self::Any(list(filters)),
            config::Filter::Not(inner) => Self::Not(Box::new(Self::from(&**inner))),
        }
    }
}

impl Filter {
    pub fn matches(&self, event: &Event) -> bool {
        let every = |pairs: &[(String, String)], holds: fn(&str, &str) -> bool| {
            pairs.iter().all(|(name, wanted)| event.text(name).is_some_and(|text| holds(text, wanted)))
        };
        match self {
            Self::Exact(pairs) => every(pairs, |text, wanted| text == wanted),
            Self::Prefix(pairs) => every(pairs, |text, wanted| text.starts_with(wanted)),
            Self::Suffix(pairs) => every(pairs, |text, wanted| text.ends_with(wanted)),
            Self::All(filters) => filters.iter().all(|filter| filter.matches(event)),
            Self::Any(filters) => filters.iter().any(|filter| filter.matches(event)),
            Self::Not(inner) => !inner.matches(event),
        }
    }

    /// Terms of which an accepted event fulfils at least one; `None` when nothing of the kind is known.
    pub fn terms(&self) -> Option<Vec<Term>> {
        let first = |pairs: &[(String, String)], is_prefix| {
            let pair = pairs.iter().find(|(name, _)| name == "type").or(pairs.first())?;
            Some(vec![Term { attribute: pair.0.clone(), text: pair.1.clone(), is_prefix }])
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let required =
            Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/s");
        required.attribute("type", "com.example.a").attribute("count", "5").build().expect("valid")
    }

    fn pairs(name: &str, text: &str) -> Vec<(String, String)> {
        vec![(name.into(), text.into())]
    }

    #[test]
    fn an_absent_attribute_is_false_and_so_its_negation_true() {
        let filter = Filter::Exact(pairs("subject", "x"));
        assert!(!filter.matches(&event()));
        assert!(Filter::Not(Box::new(filter)).matches(&event()));
    }

    #[test]
    fn every_pair_must_hold() {
        let filter = |count: &str| {
            Filter::Exact(vec![("type".into(), "com.example.a".into()), ("count".into(), count.into())])
        };
        assert!(filter("5").matches(&event()));
        assert!(!filter("6").matches(&event()));
    }

    #[test]
    fn prefix_and_suffix_are_case_sensitive() {
        assert!(Filter::Prefix(pairs("type", "com.")).matches(&event()));
        assert!(!Filter::Prefix(pairs("type", "COM.")).matches(&event()));
        assert!(Filter::Suffix(pairs("type", ".a")).matches(&event()));
        assert!(!Filter::Suffix(pairs("type", ".b")).matches(&event()));
    }
}
