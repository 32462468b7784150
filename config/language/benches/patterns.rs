//! The time of matching an event against many patterns, parsing included, beside event-ruler's:
//! `cargo bench -p sluice-language --bench patterns`. It needs `mvn` and `java`.
//!
//! `loop` evaluates each pattern. `index` evaluates those that a term leads to, and those without terms, as the router does.

#[path = "../tests/patterns/ruler.rs"]
mod ruler;

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use fastrand::Rng;
use serde_json::{Map, Value, json};
use sluice_language::pattern::Pattern;
use sluice_language::{Facts, Paths, Subject};
use sluice_schemas::{DataForm, Event};

const EVENTS: usize = 100;
const COUNTS: [usize; 3] = [1, 100, 10_000];

/// Kinds of patterns in turn.
type Kinds = [fn(usize) -> Value];

const EXACT: &Kinds = &[
    |at| json!({ "kind": [format!("kind-{at}")], "amount": [{ "numeric": [">", 100] }] }),
    |at| json!({ "customer": { "id": [at] } }),
    |at| json!({ "items": { "sku": [format!("sku-{at}")], "count": [{ "numeric": [">=", at % 5] }] } }),
];
const MIXED: &Kinds = &[
    EXACT[0],
    EXACT[1],
    EXACT[2],
    |at| json!({ "customer": { "name": [{ "prefix": format!("name-{at}-") }] } }),
];

fn main() {
    // `cargo test --benches` has no time for it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut rng = Rng::with_seed(1);
    let mut questions = Vec::new();
    let mut rows = Vec::new();
    for (name, kinds) in [("exact", EXACT), ("mixed", MIXED)] {
        for count in COUNTS {
            let patterns: Vec<_> = (0..count).map(|at| kinds[at % kinds.len()](at)).collect();
            let events: Vec<_> = (0..EVENTS).map(|_| event(&mut rng, count)).collect();
            let rules: Map<String, Value> = patterns
                .iter()
                .enumerate()
                .map(|(at, pattern)| (at.to_string(), pattern.to_string().into()))
                .collect();
            let texts: Vec<_> = events.iter().map(Value::to_string).collect();
            let rounds = (1_000 / count).clamp(5, 200);
            questions.push(json!({ "rules": rules, "events": texts, "rounds": rounds }));
            rows.push((name, count, measured(&patterns, &texts, rounds)));
        }
    }
    let answers =
        ruler::ask(&questions, Path::new(env!("CARGO_TARGET_TMPDIR")).join("ruler-times").as_path());
    println!(
        "microseconds an event of {} bytes; matches of {EVENTS} events",
        event(&mut rng, 1).to_string().len()
    );
    println!(
        "{:8}{:>8}{:>10}{:>10}{:>13}{:>10}",
        "patterns", "number", "loop", "index", "event-ruler", "matches"
    );
    for ((name, count, ours), answer) in rows.iter().zip(&answers) {
        assert_eq!(answer["matches"], ours.matches, "{name} {count}: event-ruler finds others");
        let theirs = answer["nanos"].as_f64().expect("a number") / 1e3;
        println!(
            "{name:8}{count:>8}{:>10.2}{:>10.2}{theirs:>13.2}{:>10}",
            ours.looped, ours.indexed, ours.matches
        );
    }
}

/// An order of about 1 KiB.
fn event(rng: &mut Rng, count: usize) -> Value {
    let mut item = || {
        json!({ "sku": format!("sku-{}", rng.usize(..count)), "count": rng.usize(..10), "price": 12.5, "gift": false,
                "description": "a thing that is long enough to be described" })
    };
    let items: Vec<_> = (0..6).map(|_| item()).collect();
    json!({
        "kind": format!("kind-{}", rng.usize(..count)), "amount": rng.usize(..200), "currency": "EUR", "items": items,
        "customer": { "id": rng.usize(..count), "name": format!("name-{}-x", rng.usize(..count)), "since": "2020-01-01" },
        "note": "please leave the parcel with the neighbours if nobody answers the door",
    })
}

struct Measured {
    looped: f64,
    indexed: f64,
    matches: usize,
}

fn measured(patterns: &[Value], texts: &[String], rounds: usize) -> Measured {
    let patterns: Vec<_> =
        patterns.iter().map(|pattern| Pattern::compile(pattern).expect("a pattern")).collect();
    let index = Index::of(&patterns);
    let events: Vec<_> = texts.iter().map(|text| of_data(text)).collect();
    let all = |facts: &Facts<'_>| patterns.iter().filter(|pattern| pattern.holds(facts) == Ok(true)).count();
    let found = |facts: &Facts<'_>| index.matches(&patterns, facts);
    let (looped, matches) = timed(&events, rounds, all);
    let (indexed, matches_indexed) = timed(&events, rounds, found);
    assert_eq!(matches, matches_indexed);
    Measured { looped, indexed, matches }
}

/// Microseconds an event, and the matches of all events. The first run is not counted.
fn timed(events: &[Event], rounds: usize, count: impl Fn(&Facts<'_>) -> usize) -> (f64, usize) {
    let run = || events.iter().map(|event| count(&Facts::of(event))).sum::<usize>();
    let matches = run();
    let start = Instant::now();
    for _ in 0..rounds {
        assert_eq!(run(), matches);
    }
    (start.elapsed().as_secs_f64() * 1e6 / (rounds * events.len()) as f64, matches)
}

fn of_data(text: &str) -> Event {
    let event =
        Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/s");
    event.attribute("type", "t").data(text.to_owned().into_bytes(), DataForm::Opaque).build().expect("valid")
}

#[derive(Default)]
struct Index {
    paths: Paths,
    values: Vec<HashMap<String, Vec<usize>>>,
    others: Vec<usize>,
}

impl Index {
    fn of(patterns: &[Pattern]) -> Self {
        let mut index = Self::default();
        for (at, pattern) in patterns.iter().enumerate() {
            let Some(terms) = pattern.terms() else {
                index.others.push(at);
                continue;
            };
            for term in terms {
                let Subject::Data(path) = term.subject else { continue };
                let path = index.paths.insert(&path);
                index.values.resize_with(index.values.len().max(path + 1), HashMap::new);
                index.values[path].entry(term.text).or_default().push(at);
            }
        }
        index
    }

    fn matches(&self, patterns: &[Pattern], facts: &Facts<'_>) -> usize {
        let mut candidates = Vec::new();
        let mut look = |path: usize, key: &str| {
            candidates.extend(self.values[path].get(key).into_iter().flatten().copied());
        };
        facts.visit_data(&self.paths, &mut look).expect("JSON");
        candidates.sort_unstable();
        candidates.dedup();
        candidates.iter().chain(&self.others).filter(|at| patterns[**at].holds(facts) == Ok(true)).count()
    }
}
