//! Patterns beside AWS's event-ruler and beside a naive evaluation.

mod generate;
mod ruler;

use std::path::Path;

use serde_json::{Value, json};
use sluice_language::Facts;
use sluice_language::pattern::Pattern;
use sluice_schemas::{DataForm, Event};

use generate::Pair;

const PAIRS: usize = 10_000;
/// `SLUICE_SEED` takes its place.
const SEED: u64 = 0x5107_1CE0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Matches,
    Differs,
    Refused,
}

fn event(data: &str) -> Event {
    let event =
        Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/s");
    event.attribute("type", "t").data(data.to_owned().into_bytes(), DataForm::Opaque).build().expect("valid")
}

fn ours(pair: &Pair) -> Verdict {
    let Ok(pattern) = Pattern::compile(&pair.pattern) else { return Verdict::Refused };
    let event = event(&pair.event);
    let facts = Facts::of(&event);
    let holds = pattern.holds(&facts).expect("JSON");
    assert_eq!(pattern.failure(&facts).is_none(), holds, "{}", pair.pattern);
    if holds { Verdict::Matches } else { Verdict::Differs }
}

fn theirs(answer: &Value, list: &str) -> Verdict {
    let has_rule = |list: &Value| list.as_array().is_some_and(|names| !names.is_empty());
    match &answer["refused"]["r"] {
        Value::Null if has_rule(&answer[list]) => Verdict::Matches,
        Value::Null => Verdict::Differs,
        _ => Verdict::Refused,
    }
}

#[test]
fn patterns_match_as_in_event_ruler() {
    if !ruler::is_wanted() {
        eprintln!("SLUICE_ORACLES is not 1: patterns were not compared with event-ruler");
        return;
    }
    let seed =
        std::env::var("SLUICE_SEED").map_or(SEED, |seed| seed.parse().expect("SLUICE_SEED is a number"));
    let mut rng = fastrand::Rng::with_seed(seed);
    let pairs: Vec<_> = (0..PAIRS).map(|_| generate::pair(&mut rng)).collect();
    let question = |pair: &Pair| json!({ "rules": { "r": pair.pattern.to_string() }, "event": pair.event });
    let questions: Vec<_> = pairs.iter().map(question).collect();
    let answers = ruler::ask(&questions, Path::new(env!("CARGO_TARGET_TMPDIR")).join("ruler").as_path());
    let (mut matching, mut differing, mut refused, mut dropped) = (0, 0, 0, 0);
    let mut wrong = Vec::new();
    for (pair, answer) in pairs.iter().zip(&answers) {
        let (ours, theirs, whole) = (ours(pair), theirs(answer, "branches"), theirs(answer, "matches"));
        match ours {
            Verdict::Matches => matching += 1,
            Verdict::Differs => differing += 1,
            Verdict::Refused => refused += 1,
        }
        // event-ruler drops branches of `$or`, the one difference that these pairs meet.
        dropped += usize::from(theirs != whole);
        if ours != theirs {
            wrong.push(format!("{}\n  {}\n  ours {ours:?}, event-ruler: {answer}", pair.pattern, pair.event));
        }
    }
    println!(
        "{matching} match, {differing} do not, {refused} are refused; event-ruler drops a branch in {dropped}"
    );
    assert!(
        wrong.is_empty(),
        "{} of {PAIRS} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    assert!(matching * 4 >= PAIRS && differing * 4 >= PAIRS, "{matching} match and {differing} do not");
    assert!(refused * 50 >= PAIRS && dropped * 100 < PAIRS, "{refused} refused, {dropped} dropped");
}
