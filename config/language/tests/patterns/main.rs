//! Patterns beside AWS's event-ruler and beside a naive evaluation.

mod generate;
mod naive;
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

/// Whether oracles are to be run: `tests/run` says so.
fn is_wanted() -> bool {
    std::env::var("SLUICE_ORACLES").is_ok_and(|value| value == "1")
}

fn event(data: &str) -> Event {
    let event =
        Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/s");
    event.attribute("type", "t").data(data.to_owned().into_bytes(), DataForm::Opaque).build().expect("valid")
}

fn ours(pair: &Pair) -> Verdict {
    verdict(&pair.pattern, &pair.event.text())
}

fn verdict(pattern: &Value, data: &str) -> Verdict {
    let Ok(pattern) = Pattern::compile(pattern) else { return Verdict::Refused };
    let event = event(data);
    let facts = Facts::of(&event);
    let holds = pattern.holds(&facts).expect("JSON");
    assert_eq!(pattern.failure(&facts).is_none(), holds, "{}", pattern.source());
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
    if !is_wanted() {
        eprintln!("SLUICE_ORACLES is not 1: patterns were not compared with event-ruler");
        return;
    }
    let seed =
        std::env::var("SLUICE_SEED").map_or(SEED, |seed| seed.parse().expect("SLUICE_SEED is a number"));
    let mut rng = fastrand::Rng::with_seed(seed);
    let pairs: Vec<_> = (0..PAIRS).map(|_| generate::pair(&mut rng)).collect();
    let question =
        |pair: &Pair| json!({ "rules": { "r": pair.pattern.to_string() }, "event": pair.event.text() });
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
            wrong.push(format!(
                "{}\n  {}\n  ours {ours:?}, event-ruler: {answer}",
                pair.pattern,
                pair.event.text()
            ));
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

/// Where the two differ on purpose: pattern, data, our verdict, event-ruler's. The module's documentation says why.
const DIFFERENCES: [(&str, &str, Verdict, Verdict); 15] = {
    use Verdict::{Differs, Matches, Refused};
    [
        (r#"{"$or":[{"a":[1]},{"b":[2]}],"a":[3]}"#, r#"{"a":3}"#, Refused, Matches),
        (r#"{"a":{"b":[1]},"a.b":[2]}"#, r#"{"a":{"b":2}}"#, Refused, Matches),
        (r#"{"$or":[{"a":["x"]},{"a":["x","y"]}]}"#, r#"{"a":"y"}"#, Matches, Differs),
        (r#"{"a":[{"cidr":"2000::/3"}]}"#, r#"{"a":"33.0.0.0"}"#, Differs, Matches),
        (r#"{"a":[{"cidr":"33.0.0.0/8"}]}"#, r#"{"a":"2100::"}"#, Differs, Matches),
        (r#"{"a":[{"cidr":"16.0.0.0/8"}]}"#, r#"{"a":105}"#, Differs, Matches),
        (r#"{"a":["16.0.0.1"]}"#, r#"{"a":10000001}"#, Differs, Matches),
        (r#"{"a":[{"equals-ignore-case":"\ud83d\ude00"}]}"#, r#"{"a":"\ud83d\ude00"}"#, Matches, Differs),
        (r#"{"a":[{"equals-ignore-case":"\ud83d\ude00"}]}"#, r#"{"a":"??"}"#, Differs, Matches),
        (r#"{"a":[{"prefix":"x\""}]}"#, r#"{"a":"x"}"#, Differs, Matches),
        (r#"{"a":[{"suffix":"\""}]}"#, r#"{"a":""}"#, Differs, Matches),
        (r#"{"a":[{"anything-but":{"prefix":"\""}}]}"#, r#"{"a":""}"#, Matches, Differs),
        (
            r#"{"a":[{"wildcard":"*b"},{"anything-but":{"equals-ignore-case":"q"}}]}"#,
            r#"{"a":"x"}"#,
            Matches,
            Differs,
        ),
        (r#"{"a":[1,{"anything-but":{"prefix":[]}}]}"#, r#"{"a":1}"#, Refused, Matches),
        (r#"{"a":[0.12345678901234567891]}"#, r#"{"a":0.12345678901234567891}"#, Differs, Matches),
    ]
};

#[test]
fn the_differences_are_those_that_are_stated() {
    let ours = DIFFERENCES
        .map(|(pattern, data, ..)| (pattern, verdict(&serde_json::from_str(pattern).expect("JSON"), data)));
    assert_eq!(ours, DIFFERENCES.map(|(pattern, _, ours, _)| (pattern, ours)));
    if !is_wanted() {
        return;
    }
    let questions =
        DIFFERENCES.map(|(pattern, data, ..)| json!({ "rules": { "r": pattern }, "event": data }));
    let answers = ruler::ask(&questions, &Path::new(env!("CARGO_TARGET_TMPDIR")).join("ruler-differences"));
    let theirs: Vec<_> = answers.iter().map(|answer| theirs(answer, "matches")).collect();
    assert_eq!(theirs, DIFFERENCES.map(|(.., theirs)| theirs));
}

#[test]
fn patterns_match_as_when_evaluated_naively() {
    let mut rng = fastrand::Rng::with_seed(SEED);
    let mut matching = 0;
    for _ in 0..PAIRS {
        let pair = generate::pair(&mut rng);
        let ours = ours(&pair);
        if ours != Verdict::Refused {
            let naive = naive::matches(&pair.pattern, &pair.event);
            assert_eq!(ours == Verdict::Matches, naive, "{}\n{}", pair.pattern, pair.event.text());
            matching += usize::from(naive);
        }
    }
    assert!(matching * 4 >= PAIRS, "{matching} match");
}
