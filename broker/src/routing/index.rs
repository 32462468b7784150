//! The index over the filters of all triggers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_language::{Facts, Filter, Paths, Subject};
use sluice_schemas::Event;
use tracing::warn;

use crate::store::{Offset, Record, TriggerId};

/// What decides whether a trigger matches an event.
#[derive(Clone, Debug)]
pub struct Rule {
    pub trigger: TriggerId,
    pub name: Arc<str>,
    /// The first offset the trigger sees.
    pub birth: Offset,
    /// Entry points the trigger is limited to.
    pub sources: Option<Vec<String>>,
    pub filter: Filter,
    pub errors: Arc<FilterErrors>,
}

/// Events for which a filter could not be evaluated, which makes them no match.
#[derive(Debug, Default)]
pub struct FilterErrors(AtomicU64);

impl FilterErrors {
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Says so the first time; an operator can have the event explained. What the error says may hold data of the event.
    fn note(&self, trigger: &str, offset: Offset) {
        if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
            warn!(trigger, %offset, "a filter could not be evaluated: see `sluice explain --offset {offset}`");
        }
    }
}

impl Rule {
    pub fn matches(&self, facts: &Facts<'_>, via: &str, offset: Offset) -> bool {
        self.birth <= offset
            && self.sources.as_ref().is_none_or(|sources| sources.iter().any(|source| source == via))
            && self.filter.holds(facts).unwrap_or_else(|_| {
                self.errors.note(&self.name, offset);
                false
            })
    }
}

/// All rules, findable by what an event must have to match them.
#[derive(Debug, Default)]
pub struct Table {
    rules: Vec<Rule>,
    attributes: HashMap<String, Terms>,
    /// Paths in the data that terms are about, and for each the rules by the key of the value there.
    paths: Paths,
    values: Vec<HashMap<String, Vec<u32>>>,
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
                let attribute = match term.subject {
                    Subject::Attribute(attribute) => attribute,
                    Subject::Data(path) => {
                        let path = table.paths.insert(&path);
                        table.values.resize_with(table.values.len().max(path + 1), HashMap::new);
                        table.values[path].entry(term.text).or_default().push(at as u32);
                        continue;
                    }
                };
                let known = table.attributes.entry(attribute).or_default();
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

    /// Says where triggers begin of which that was not known before.
    pub fn set_births(&mut self, births: &HashMap<TriggerId, Offset>) {
        for rule in &mut self.rules {
            rule.birth = births.get(&rule.trigger).copied().unwrap_or(rule.birth);
        }
    }

    pub fn rule(&self, trigger: TriggerId) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.trigger == trigger)
    }

    /// Events that match some triggers, and which, in the order of the events.
    pub fn match_all<R: std::borrow::Borrow<Record>>(&self, records: &[R]) -> Vec<(Offset, Vec<TriggerId>)> {
        let matched = records.iter().map(|record| {
            let record: &Record = record.borrow();
            (record.offset, self.matches(&record.event, &record.via, record.offset))
        });
        matched.filter(|(_, triggers)| !triggers.is_empty()).collect()
    }

    /// The triggers that an event matches, in a fixed order. Data is parsed only if a filter looks into it. A rule with a term
    /// on data that is no JSON does not match: evaluating its filter says why.
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
        let facts = Facts::of(event);
        if !self.paths.is_empty() {
            // What is no JSON has no value at any path.
            let _ = facts.visit_data(&self.paths, &mut |path, key| {
                if let Some(found) = self.values[path].get(key) {
                    candidates.extend_from_slice(found);
                }
            });
        }
        candidates.sort_unstable();
        candidates.dedup();
        let all = candidates.iter().chain(&self.others);
        let rules = all.map(|at| &self.rules[*at as usize]);
        rules.filter(|rule| rule.matches(&facts, via, offset)).map(|rule| rule.trigger).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::{Value, json};
    use sluice_language::cel::Program;
    use sluice_language::cesql::Expression;
    use sluice_language::pattern::Pattern;
    use sluice_schemas::DataForm;

    use super::*;

    fn pair() -> impl Strategy<Value = Vec<(String, String)>> {
        let name =
            prop_oneof![Just("type".to_owned()), Just("source".to_owned()), Just("subject".to_owned())];
        proptest::collection::vec((name, "[ab]{1,3}"), 1..3)
    }

    fn scalar() -> impl Strategy<Value = Value> {
        proptest::sample::select(vec![json!("a"), json!("b"), json!(1), json!(1.5), json!(null), json!(true)])
    }

    /// Fields of which some have an index of their values and some not.
    fn fields() -> impl Strategy<Value = Value> {
        let entries = proptest::collection::vec(scalar(), 1..3);
        let list = prop_oneof![
            4 => entries.prop_map(Value::from),
            1 => Just(json!([{ "exists": false }])),
            1 => Just(json!([1, { "prefix": "a" }])),
        ];
        let name = proptest::sample::select(vec!["p", "q", "r.p", "r.q"]);
        proptest::collection::btree_map(name, list, 1..3)
            .prop_map(|fields| fields.into_iter().map(|(name, list)| (name.to_owned(), list)).collect())
    }

    fn pattern() -> impl Strategy<Value = Filter> {
        let choices = proptest::collection::vec(fields(), 2..4);
        let pattern = prop_oneof![3 => fields(), 1 => choices.prop_map(|choices| json!({ "$or": choices }))];
        pattern.prop_map(|pattern| Filter::Data(Arc::new(Pattern::compile(&pattern).expect("a pattern"))))
    }

    /// Data with arrays of scalars and of objects, numbers in other forms, and now and then no JSON.
    fn data() -> impl Strategy<Value = String> {
        let scalar = proptest::sample::select(vec!["\"a\"", "\"b\"", "1", "1.0", "15e-1", "null", "true"]);
        let scalar = scalar.prop_map(str::to_owned);
        let list =
            proptest::collection::vec(scalar.clone(), 0..3).prop_map(|all| format!("[{}]", all.join(",")));
        let value = prop_oneof![scalar, list];
        let name = proptest::sample::select(vec!["p", "q", "r.p"]);
        let flat = proptest::collection::vec((name, value), 0..4).prop_map(|members| {
            let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            members.join(",")
        });
        let object = (flat.clone(), proptest::collection::vec(flat, 0..3)).prop_map(|(flat, elements)| {
            let comma = if flat.is_empty() { "" } else { "," };
            let elements: Vec<_> = elements.iter().map(|flat| format!("{{{flat}}}")).collect();
            format!("{{{flat}{comma}\"r\":[{}]}}", elements.join(","))
        });
        prop_oneof![9 => object, 1 => Just("{".to_owned())]
    }

    /// Expressions of which some have an index of what they ask for and some not.
    fn expression() -> impl Strategy<Value = Filter> {
        let texts = [
            "event.type == 'a' || event.type == 'ab'",
            "event.type.startsWith('a') && event.data.p == 1",
            "event.data.p == 'a' && 'b' == event.type",
            "event.subject in ['a', 'b', 'ba']",
            "event.subject == 'a' || event.type.startsWith('b')",
            "!(event.type == 'a')",
            "has(event.subject) ? event.subject == 'b' : event.source.startsWith('b')",
            "event.data.q == null || event.source == 'a'",
        ];
        let sql = [
            "type = 'a' OR type = 'ab'",
            "type LIKE 'a%' AND EXISTS subject",
            "'a' = type AND subject IN ('a', 'b')",
            "source LIKE '_b%' OR subject = 'a'",
            "NOT type = 'a'",
            "NOT (type = 'a')",
            "type NOT LIKE 'a%' XOR source = 'b'",
            "LENGTH(type) = 2 AND source <> 'a'",
            "subject = 'a' OR type = 'b' AND source = 'b'",
        ];
        let cel = |text| Filter::Cel(Arc::new(Program::compile(text).expect("CEL")));
        let cesql = |text| Filter::Cesql(Arc::new(Expression::compile(text).expect("CESQL")));
        let all: Vec<_> = texts.into_iter().map(cel).chain(sql.into_iter().map(cesql)).collect();
        proptest::sample::select(all)
    }

    fn filter() -> impl Strategy<Value = Filter> {
        let leaf = prop_oneof![
            2 => pattern(),
            3 => expression(),
            1 => pair().prop_map(Filter::Exact),
            1 => pair().prop_map(Filter::Prefix),
            1 => pair().prop_map(Filter::Suffix)
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
            data in proptest::option::of(data()),
        ) {
            let mut event = Event::builder().attribute("specversion", "1.0").attribute("id", "1");
            event = event.attribute("source", &source).attribute("type", &ty);
            if let Some(subject) = &subject {
                event = event.attribute("subject", subject);
            }
            if let Some(data) = data {
                event = event.data(data.into_bytes(), DataForm::Opaque);
            }
            let event = event.build().expect("valid");
            let rule = |(at, filter): (usize, Filter)| Rule {
                trigger: TriggerId(at as u32), name: "t".into(), birth: Offset(0), sources: None, filter,
                errors: Arc::default(),
            };
            let rules: Vec<_> = filters.into_iter().enumerate().map(rule).collect();
            let brute: Vec<_> = rules.iter().filter(|r| r.filter.holds(&Facts::of(&event)).unwrap_or(false)).map(|r| r.trigger).collect();
            for rule in &rules {
                // What explains a filter says of each event what routes it does.
                let facts = Facts::of(&event);
                let (holds, failure) = (rule.filter.holds(&facts), rule.filter.failure("filter", &facts));
                prop_assert_eq!(failure.is_none(), holds == Ok(true), "{:?}", failure);
                let is_error = failure.is_some_and(|failure| failure.message.ends_with("the trigger does not match"));
                prop_assert_eq!(is_error, holds.is_err());
            }
            let mut found = Table::new(rules).matches(&event, "http", Offset(0));
            found.sort_unstable();
            prop_assert_eq!(found, brute);
        }
    }
}
