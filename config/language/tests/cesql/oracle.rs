//! The CloudEvents SDKs of Go and Java, run by `tests/oracles/cesql-go` and `tests/oracles/cesql-java`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value as Json;

use crate::differences::Difference;

const ORACLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/oracles");

/// Whether a variable asks for an oracle: `tests/run` sets them.
pub fn is_wanted(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| value == "1")
}

/// One of the SDKs, built.
pub struct Sdk {
    pub name: &'static str,
    command: Vec<String>,
    /// What a difference says of it.
    pub of: fn(&Difference) -> &'static str,
}

impl Sdk {
    pub fn java() -> Self {
        let out = built("cesql-java");
        let built = Command::new("mvn")
            .args(["-q", "-B", "-f", &format!("{ORACLES}/cesql-java"), "compile"])
            .arg(format!("-Dout={}", out.display()))
            .status()
            .expect("the Java SDK needs `mvn`: install maven, or unset SLUICE_ORACLES");
        assert!(built.success(), "mvn could not build tests/oracles/cesql-java: {built}");
        let classes = format!("{0}/classes:{0}/dependency/*", out.display());
        let command = ["java", "-cp", &classes, "Oracle"].map(str::to_owned).into();
        Self { name: "Java SDK", command, of: |known| known.java }
    }

    pub fn go() -> Self {
        let out = built("cesql-go");
        let built = Command::new("go")
            .args(["build", "-o"])
            .arg(&out)
            .arg(".")
            .current_dir(format!("{ORACLES}/cesql-go"))
            .status()
            .expect("the Go SDK needs `go` 1.23 or later: install it, or unset SLUICE_ORACLES_GO");
        assert!(built.success(), "go could not build tests/oracles/cesql-go: {built}");
        Self { name: "Go SDK", command: vec![out.display().to_string()], of: |known| known.go }
    }

    /// An answer for each question.
    pub fn ask(&self, questions: &[Json]) -> Vec<Json> {
        let started = Command::new(&self.command[0])
            .args(&self.command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // The parsers made by ANTLR print what they do not know.
            .stderr(Stdio::null())
            .spawn();
        let mut child =
            started.unwrap_or_else(|error| panic!("the {} needs `{}`: {error}", self.name, self.command[0]));
        let mut input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let answers: Vec<Json> = std::thread::scope(|scope| {
            scope.spawn(move || {
                for question in questions {
                    writeln!(input, "{question}").expect("the oracle reads");
                }
            });
            let answers = output.lines().map(|line| line.expect("the oracle answers"));
            answers.map(|line| serde_json::from_str(&line).expect("an answer in JSON")).collect()
        });
        assert!(child.wait().expect("the oracle ends").success(), "the oracle failed: see its output");
        assert_eq!(answers.len(), questions.len(), "an answer for each question");
        answers
    }
}

fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}
