//! AWS's event-ruler, run by `tests/oracles/ruler`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/oracles/ruler");

/// Builds the oracle; Maven keeps what it has downloaded.
fn start(out: &Path) -> Child {
    let built = Command::new("mvn")
        .args(["-q", "-B", "-f", SOURCES, "compile"])
        .arg(format!("-Dout={}", out.display()))
        .status()
        .expect("event-ruler needs `mvn`: install maven, or unset SLUICE_ORACLES");
    assert!(built.success(), "mvn could not build tests/oracles/ruler: {built}");
    let classes = format!("{0}/classes:{0}/dependency/*", out.display());
    Command::new("java")
        .args(["-Xss64m", "-cp", &classes, "Oracle"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("event-ruler needs `java`: install default-jdk-headless (Debian), or unset SLUICE_ORACLES")
}

/// An answer for each question.
pub fn ask(questions: &[Value], out: &Path) -> Vec<Value> {
    let mut java = start(out);
    let mut input = java.stdin.take().expect("piped");
    let output = BufReader::new(java.stdout.take().expect("piped"));
    let answers: Vec<Value> = std::thread::scope(|scope| {
        scope.spawn(move || {
            for question in questions {
                writeln!(input, "{question}").expect("the oracle reads");
            }
        });
        let answers = output.lines().map(|line| line.expect("the oracle answers"));
        answers.map(|line| serde_json::from_str(&line).expect("an answer in JSON")).collect()
    });
    assert!(java.wait().expect("the oracle ends").success(), "the oracle failed: see its output");
    assert_eq!(answers.len(), questions.len(), "an answer for each question");
    answers
}
