//! The file format as its users meet it: YAML in, text out.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its case shall panic")]

mod bad_filters;
mod delivery;
mod examples;
mod expressions;
mod files;
mod filters;
mod hostile;
mod references;
mod sections;
mod sinks;
mod sources;
mod syntax;
mod transforms;
mod triggers;

use expect_test::Expect;
use sluice_config::{Errors, Loaded, check_text, to_json};

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "TOKEN" => "canary-token-of-32-characters-ok",
        "SHORT" => "canary-23-characters-ok",
        "KEY" => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "LONG" => return Some(format!("whsec_{}", "A".repeat(88))),
        "KEY32" => "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=",
        "PORT" => "9090",
        "AMQP" => "amqp://sluice:canary-token@rabbit/shop",
        "EMPTY" => "",
        "NESTED" => "${TOKEN}",
        "YAML" => "x\nadmin: { open: true }",
        _ => return None,
    };
    Some(value.to_owned())
}

fn read(yaml: &str) -> Result<Loaded, Errors> {
    check_text("sluice.yaml", yaml, &environment)
}

/// The errors, else the warnings, else `ok`.
fn report(loaded: Result<Loaded, Errors>) -> String {
    match loaded {
        Err(errors) => format!("{errors}\n"),
        Ok(loaded) if loaded.warnings.is_empty() => "ok\n".into(),
        Ok(loaded) => loaded.warnings.iter().map(|warning| format!("{warning}\n")).collect(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "`expect!` reads better at the call")]
fn check(yaml: &str, expected: Expect) {
    expected.assert_eq(&report(read(yaml)));
}

/// Checks the body of a trigger `t` that has a sink.
fn check_trigger(body: &str, expected: Expect) {
    check(
        &format!("triggers:\n  t:\n    sink: http://localhost/\n    {}\n", body.replace('\n', "\n    ")),
        expected,
    );
}

/// Shows a part of the configuration in force, by its JSON pointer.
#[expect(clippy::needless_pass_by_value, reason = "`expect!` reads better at the call")]
fn shows(yaml: &str, pointer: &str, expected: Expect) {
    let loaded = read(yaml).unwrap_or_else(|errors| panic!("{errors}"));
    let shown = to_json(&loaded.config);
    expected.assert_eq(&shown.pointer(pointer).map_or("nothing".into(), ToString::to_string));
}
