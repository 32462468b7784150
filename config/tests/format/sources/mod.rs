//! Sources: each kind, its defaults, and what is refused.

mod brokers;
mod hooks;
mod timers;

use expect_test::{Expect, expect};
use sluice_config::{changes, check_text};

use crate::{check, environment, shows};

/// The body of a source `s`.
fn source(body: &str) -> String {
    format!("sources:\n  s:\n    {}\n", body.replace('\n', "\n    "))
}

fn check_source(body: &str, expected: Expect) {
    check(&source(body), expected);
}

fn shows_source(body: &str, expected: Expect) {
    shows(&source(body), "/sources/s", expected);
}

#[test]
fn templates_know_what_their_kind_has() {
    check_source(
        r#"cron: { schedule: "@daily" }
event: { type: "{body.x}" }"#,
        expect![[r#"
            sluice.yaml:4:22: `type`: there is no `body` here: expected `scheduled`
                4 |     event: { type: "{body.x}" }
                  |                      ^^^^^^^
        "#]],
    );
    check_source(
        r#"webhook: { insecure: true }
event: { Type: x }"#,
        expect![[r#"
            sluice.yaml:4:14: `Type` of `event`: not the name of an attribute, which is 1 to 64 of a-z and 0-9
                4 |     event: { Type: x }
                  |              ^^^^
        "#]],
    );
}

#[test]
fn a_source_is_of_one_kind() {
    check_source(
        "event: { type: x }",
        expect![[r#"
        sluice.yaml:2:3: source `s`: expected exactly one of kafka, amqp, nats, webhook, git or cron, found none
            2 |   s:
              |   ^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "@daily" }
git: { insecure: true }"#,
        expect![[r#"
            sluice.yaml:3:5: source `s`: expected exactly one of kafka, amqp, nats, webhook, git or cron, found more
                3 |     cron: { schedule: "@daily" }
                  |     ^^^^
        "#]],
    );
    check_source(
        "kafak: { }",
        expect![[r#"
        sluice.yaml:2:3: source `s`: expected exactly one of kafka, amqp, nats, webhook, git or cron, found none
            2 |   s:
              |   ^
        sluice.yaml:3:5: unknown key `kafak` in source `s`: did you mean `kafka`?
            3 |     kafak: { }
              |     ^^^^^
    "#]],
    );
}

#[test]
fn names_of_sources() {
    check(
        r#"sources:
  http: { cron: { schedule: "@daily" } }
  reply: { cron: { schedule: "@daily" } }
  Nightly: { cron: { schedule: "@daily" } }
"#,
        expect![[r#"
            sluice.yaml:2:3: a source cannot be called `http`: that is what triggers call events that are published over HTTP
                2 |   http: { cron: { schedule: "@daily" } }
                  |   ^^^^
            sluice.yaml:3:3: a source cannot be called `reply`: that is what triggers call the replies of sinks
                3 |   reply: { cron: { schedule: "@daily" } }
                  |   ^^^^^
            sluice.yaml:4:3: `Nightly` is not a source name: 1 to 63 of a-z, 0-9 and -
                4 |   Nightly: { cron: { schedule: "@daily" } }
                  |   ^^^^^^^
        "#]],
    );
    check(
        "sources: [a]\n",
        expect![[r#"
        sluice.yaml:1:10: `sources`: expected names with sources, found a list
            1 | sources: [a]
              |          ^
    "#]],
    );
}

#[test]
fn triggers_name_sources_that_exist() {
    let yaml = |names: &str| {
        format!(
            "sources:\n  nightly: {{ cron: {{ schedule: \"@daily\" }} }}\ntriggers:\n  t: {{ sources: [{names}], sink: {{ stdout: {{}} }} }}\n"
        )
    };
    check(&yaml("nightly, http, reply"), expect!["ok\n"]);
    check(
        &yaml("nigthly"),
        expect![[r#"
        sluice.yaml:4:18: `sources`: no such source: did you mean nightly?, found `nigthly`
            4 |   t: { sources: [nigthly], sink: { stdout: {} } }
              |                  ^^^^^^^
    "#]],
    );
    check(
        &yaml("kafka"),
        expect![[r#"
        sluice.yaml:4:18: `sources`: no such source: expected http, reply or nightly, found `kafka`
            4 |   t: { sources: [kafka], sink: { stdout: {} } }
              |                  ^^^^^
    "#]],
    );
}

#[test]
fn a_reload_tells_which_sources_differ() {
    let config = |yaml: &str| check_text("a.yaml", yaml, &environment).unwrap().config;
    let old = config(
        r#"sources: { a: { cron: { schedule: "@daily" } }, b: { cron: { schedule: "@daily" } }, c: { cron: { schedule: "@daily" } } }"#,
    );
    let new = config(
        r#"sources: { a: { cron: { schedule: "@daily" } }, b: { cron: { schedule: "@hourly" } }, d: { cron: { schedule: "@daily" } } }"#,
    );
    let changes = changes(&old, &new);
    assert_eq!(changes.sources_added, ["d"]);
    assert_eq!(changes.sources_changed, ["b"]);
    assert_eq!(changes.sources_removed, ["c"]);
}

#[test]
fn words_of_other_systems_are_understood_in_errors() {
    for (source, expected) in [
        (
            "github: { secret: a }",
            "unknown key `github` in source `s`: did you mean `git: { provider: github, secret: ... }`?",
        ),
        (
            "webhook: { scheme: github }",
            "unknown key `scheme` in `webhook` of source `s`: did you mean `verify: { scheme: ..., secret: ... }`?",
        ),
        (
            "cron: { schedule: '@daily', tz: UTC }",
            "unknown key `tz` in `cron` of source `s`: did you mean `timezone`?",
        ),
        (
            "kafka: { bootstrap_servers: x }",
            "unknown key `bootstrap_servers` in `kafka` of source `s`: did you mean `brokers`?",
        ),
    ] {
        let found = crate::report(crate::read(&format!("sources: {{ s: {{ {source} }} }}")));
        assert!(found.contains(expected), "{found}");
    }
}
