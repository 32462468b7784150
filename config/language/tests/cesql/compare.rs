//! CESQL beside the SDKs of the CloudEvents project, on generated expressions and on those that are known to differ.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use sluice_schemas::Event;

use crate::differences::DIFFERENCES;
use crate::generate;
use crate::oracle::{self, Sdk};
use crate::tck::{self, Outcome};

const EXPRESSIONS: usize = 5_000;
/// `SLUICE_SEED` takes its place.
const SEED: u64 = 0xCE50_2026;

/// Where an answer may differ from ours, and the rule that decides. `Err`: it may not.
type Verdict = Result<&'static str, ()>;

fn go(expression: &str, ours: &Outcome, theirs: &Theirs<'_>) -> Verdict {
    if ours.error == Some("parse") && theirs.is_refused() {
        return Ok("refused: a syntax error may panic there");
    }
    let is_largest = *theirs.value == json!(i32::MAX);
    if ours.error == Some("cast") && theirs.error == Some("cast") && is_largest && expression.contains("INT(")
    {
        return Ok("3.3: zero beside an error; there INT returns the largest Integer");
    }
    common(expression, ours, theirs)
}

fn java(expression: &str, ours: &Outcome, theirs: &Theirs<'_>) -> Verdict {
    if ours.error == Some("parse") && theirs.is_refused() {
        return Ok("refused: a syntax error may be any exception there");
    }
    common(expression, ours, theirs).or_else(|()| match (ours.error, theirs.error) {
        (Some("parse") | None, _) => Err(()),
        (Some(_), Some(_)) => Ok("4.1: complete evaluation goes on after an error, ours is fail-fast"),
        (Some(_), None) if expression.contains(" OR ") => {
            Ok("3.3: an error is returned; OR loses that of its left side there")
        }
        (Some(_), None) => Err(()),
    })
}

fn common(expression: &str, ours: &Outcome, theirs: &Theirs<'_>) -> Verdict {
    if ours.message.ends_with("is no 32-bit integer") {
        return Ok("3.1: an Integer has 32 bits; there it wraps around");
    }
    if ours.message.starts_with("SUBSTRING: the length") {
        return Ok("3.5.1: a negative length raises an error, whatever the position");
    }
    if ours.error != Some("parse") && theirs.is_refused() && has_sign_after_operand(expression) {
        return Ok("2.3: a sign after an operand is an operator; there it belongs to the digits behind it");
    }
    Err(())
}

/// `5 -1` and the like.
fn has_sign_after_operand(expression: &str) -> bool {
    let bytes = expression.as_bytes();
    bytes.windows(2).enumerate().any(|(at, pair)| {
        let before = expression[..at].trim_end().bytes().next_back();
        matches!(pair, [b'-' | b'+', b'0'..=b'9'])
            && before.is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b')' | b'\'' | b'"'))
    })
}

struct Theirs<'a> {
    value: &'a Json,
    error: Option<&'a str>,
}

impl<'a> Theirs<'a> {
    fn of(answer: &'a Json) -> Self {
        Self { value: &answer["value"], error: answer["error"].as_str() }
    }

    /// They panic and throw on many a text that does not parse.
    fn is_refused(&self) -> bool {
        matches!(self.error, Some("parse" | "panic" | "exception"))
    }

    fn agrees(&self, ours: &Outcome) -> bool {
        self.error == ours.error && (*self.value == ours.value || ours.error == Some("parse"))
    }
}

fn decoded(event: &Json) -> Event {
    let text = serde_json::to_vec(event).expect("JSON");
    sluice_schemas::json::decode(&text.into()).expect("valid")
}

fn compare(sdk: &Sdk, decide: fn(&str, &Outcome, &Theirs<'_>) -> Verdict) {
    let seed =
        std::env::var("SLUICE_SEED").map_or(SEED, |seed| seed.parse().expect("SLUICE_SEED is a number"));
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut question =
        || json!({ "expression": generate::expression(&mut rng), "event": generate::event(&mut rng) });
    let mut questions: Vec<_> = (0..EXPRESSIONS).map(|_| question()).collect();
    questions.extend(
        DIFFERENCES.iter().map(|known| json!({ "expression": known.expression, "event": known_event() })),
    );
    let answers = sdk.ask(&questions);
    let (mut same, mut without_error, mut excused, mut wrong) = (0, 0, BTreeMap::new(), Vec::new());
    for (question, answer) in questions[..EXPRESSIONS].iter().zip(&answers) {
        let expression = question["expression"].as_str().unwrap_or_default();
        let (ours, theirs) = (tck::evaluate(expression, &decoded(&question["event"])), Theirs::of(answer));
        without_error += usize::from(ours.error.is_none());
        if theirs.agrees(&ours) {
            same += 1;
            continue;
        }
        match decide(expression, &ours, &theirs) {
            Ok(rule) => *excused.entry(rule).or_insert(0) += 1,
            Err(()) => wrong
                .push(format!("{expression}\n  {}\n  ours {ours:?}\n  theirs {answer}", question["event"])),
        }
    }
    println!("{}: {same} of {EXPRESSIONS} alike; {without_error} have no error; {excused:#?}", sdk.name);
    assert!(without_error * 3 > EXPRESSIONS && same * 2 > EXPRESSIONS, "the expressions say too little");
    wrong.sort_by_key(String::len);
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
    for (known, answer) in DIFFERENCES.iter().zip(&answers[EXPRESSIONS..]) {
        let expected = (sdk.of)(known);
        let expected: Json =
            serde_json::from_str(expected).unwrap_or_else(|error| panic!("{expected}: {error}"));
        let found = match answer["error"].as_str() {
            Some(kind) => json!([answer["value"], kind]),
            None => answer["value"].clone(),
        };
        assert_eq!(found, expected, "{}: {}: no longer as it is listed", sdk.name, known.expression);
    }
}

fn known_event() -> Json {
    json!({ "specversion": "1.0", "id": "1", "source": "/", "type": "t" })
}

#[test]
fn differences_are_decided_by_the_specification() {
    let event = decoded(&known_event());
    for known in DIFFERENCES {
        let ours = tck::evaluate(known.expression, &event);
        let found = match ours.error {
            Some(kind) => json!([ours.value, kind]),
            None => ours.value,
        };
        let expected: Json = serde_json::from_str(known.ours).expect("JSON");
        assert_eq!(found, expected, "{}: {}", known.expression, known.rule);
    }
}

#[test]
fn expressions_evaluate_as_in_the_sdk_of_go() {
    if !oracle::is_wanted("SLUICE_ORACLES_GO") {
        println!("SLUICE_ORACLES_GO is not 1: CESQL was not compared with the Go SDK");
        return;
    }
    compare(&Sdk::go(), go);
}

#[test]
fn expressions_evaluate_as_in_the_sdk_of_java() {
    if !oracle::is_wanted("SLUICE_ORACLES") {
        println!("SLUICE_ORACLES is not 1: CESQL was not compared with the Java SDK");
        return;
    }
    compare(&Sdk::java(), java);
}
