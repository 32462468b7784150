//! The index over the filters of all triggers.

use std::collections::HashMap;

use sluice_language::{Facts, Filter};
use sluice_schemas::Event;

use crate::store::{Offset, TriggerId};

/// What decides whether a trigger matches an event.
#[derive(Clone, Debug)]
pub struct Rule {
    pub trigger: TriggerId,
    /// The first offset the trigger sees.
    pub birth: Offset,
    /// Entry points the trigger is limited to.
    pub sources: Option<Vec<String>>,
    pub filter: Filter,
}

impl Rule {
    pub fn matches(&self, facts: &Facts<'_>, via: &str, offset: Offset) -> bool {
        self.birth <= offset
            && self.sources.as_ref().is_none_or(|sources| sources.iter().any(|source| source == via))
            && self.filter.holds(facts).unwrap_or(false)
    }
}

/// All rules, findable by what an event must have to match them.
#[derive(Debug, Default)]
pub struct Table {
    rules: Vec<Rule>,
    attributes: HashMap<String, Terms>,
    /// Rules of which nothing is known that an event must have.
    others: Vec<u32>,
}

#[derive(Debug, Default)]
struct Terms {
    exact: HashMap<String, Vec<u32>>,
    prefix: HashMap<String, Vec<u32>>,
    /// Lengths in bytes that prefixes have, ascending.
    lengths: Vec<usize>,
}

impl Table {
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut table = Self { rules, ..Self::default() };
        for (at, rule) in table.rules.iter().enumerate() {
            let Some(terms) = rule.filter.terms() else {
                table.others.push(at as u32);
                continue;
            };
            for term in terms {
                let known = table.attributes.entry(term.attribute).or_default();
                if term.is_prefix {
                    if let Err(place) = known.lengths.binary_search(&term.text.len()) {
                        known.lengths.insert(place, term.text.len());
                    }
                    known.prefix.entry(term.text).or_default().push(at as u32);
                } else {
                    known.exact.entry(term.text).or_default().push(at as u32);
                }
            }
        }
        table
    }

    pub fn rule(&self, trigger: TriggerId) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.trigger == trigger)
    }

    /// The triggers that an event matches, in a fixed order.
    pub fn matches(&self, event: &Event, via: &str, offset: Offset) -> Vec<TriggerId> {
        let mut candidates: Vec<u32> = Vec::new();
        for (attribute, terms) in &self.attributes {
            let Some(text) = event.text(attribute) else { continue };
            if let Some(found) = terms.exact.get(text) {
                candidates.extend_from_slice(found);
            }
            for length in terms.lengths.iter().take_while(|length| **length <= text.len()) {
                if let Some(found) = text.get(..*length).and_then(|start| terms.prefix.get(start)) {
                    candidates.extend_from_slice(found);
                }
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        let all = candidates.iter().chain(&self.others);
        let rules = all.map(|at| &self.rules[*at as usize]);
        let facts = Facts::of(event);
        rules.filter(|rule| rule.matches(&facts, via, offset)).map(|rule| rule.trigger).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair() -> impl Strategy<Value = Vec<(String, String)>> {
        let name =
            prop_oneof![Just("type".to_owned()), Just("source".to_owned()), Just("subject".to_owned())];
        proptest::collection::vec((name, "[ab]{1,3}"), 1..3)
    }

    fn filter() -> impl Strategy<Value = Filter> {
        let leaf = prop_oneof![
            pair().prop_map(Filter::Exact),
            pair().prop_map(Filter::Prefix),
            pair().prop_map(Filter::Suffix)
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 1..3).prop_map(Filter::All),
                proptest::collection::vec(inner.clone(), 1..3).prop_map(Filter::Any),
                inner.prop_map(|filter| Filter::Not(Box::new(filter))),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_index_finds_what_brute_force_finds(
            filters in proptest::collection::vec(filter(), 1..20),
            (ty, source) in ("[ab]{1,4}", "[ab]{1,4}"),
            subject in proptest::option::of("[ab]{1,4}"),
        ) {
            let mut event = Event::builder().attribute("specversion", "1.0").attribute("id", "1");
            event = event.attribute("source", &source).attribute("type", &ty);
            if let Some(subject) = &subject {
                event = event.attribute("subject", subject);
            }
            let event = event.build().expect("valid");
            let rule = |(at, filter): (usize, Filter)| Rule {
                trigger: TriggerId(at as u32), birth: Offset(0), sources: None, filter,
            };
            let rules: Vec<_> = filters.into_iter().enumerate().map(rule).collect();
            let brute: Vec<_> = rules.iter().filter(|r| r.filter.holds(&Facts::of(&event)).unwrap()).map(|r| r.trigger).collect();
            let mut found = Table::new(rules).matches(&event, "http", Offset(0));
            found.sort_unstable();
            prop_assert_eq!(found, brute);
        }
    }
}
