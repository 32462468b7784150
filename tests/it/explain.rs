//! Why an event goes to a trigger or does not, and what nobody takes.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::broker::{Broker, Told, run, sluice};
use crate::documents::{blocks, shows};
use crate::sink::Sink;

/// Runs a command in a directory with a text on its standard input.
fn fed(dir: &std::path::Path, arguments: &[&str], input: &str) -> Told {
    let mut command = sluice();
    command
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Told {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap(),
    }
}

pub fn event(id: &str, extra: &Value) -> Value {
    let mut event = json!({ "specversion": "1.0", "id": id, "source": "/shop", "type": "com.example.order" });
    event.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    event
}

/// What `explain` says of one event under these triggers, each as `NAME: matches` or `NAME: FILTER: MESSAGE`.
pub fn verdicts(triggers: &str, event: &Value) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("sluice.yaml"), format!("triggers:\n{triggers}\n")).unwrap();
    let arguments = ["explain", "-", "--json", "--config", "sluice.yaml"];
    let told = fed(dir.path(), &arguments, &event.to_string());
    assert_eq!(told.code, 0, "{told:?}");
    let answer = told.json();
    assert_eq!(answer["event"], json!({ "source": event["source"], "id": event["id"] }));
    let verdict = |verdict: &Value| {
        let name = verdict["trigger"].as_str().unwrap();
        let Some(failed) = verdict.get("failed") else {
            assert_eq!(verdict["matched"], true);
            return format!("{name}: matches");
        };
        assert_eq!(verdict["matched"], false);
        assert!(failed["expected"].is_string() && failed["actual"].is_string(), "{verdict}");
        format!("{name}: {}: {}", failed["filter"].as_str().unwrap(), failed["message"].as_str().unwrap())
    };
    answer["triggers"].as_array().unwrap().iter().map(verdict).collect()
}

/// The one trigger `t` with these filters, in flow style.
fn check(filters: &str, extra: &Value, expected: &str) {
    let told = verdicts(
        &format!("  t: {{ sink: \"http://localhost/\", filters: [{filters}] }}"),
        &event("1", extra),
    );
    assert_eq!(told, [format!("t: {expected}")], "{filters}");
}

#[test]
fn the_first_condition_that_fails_is_named_with_both_values() {
    let none = json!({});
    check("exact: { type: com.example.order }", &none, "matches");
    check("exact: { type: a }", &none, "filters[0].exact.type: `type` is `com.example.order`, not `a`");
    check("exact: { subject: a }", &none, "filters[0].exact.subject: attribute `subject` is absent");
    check(
        "prefix: { type: com. }, suffix: { source: /x }",
        &none,
        "filters[1].suffix.source: `source` is `/shop`, which does not end with `/x`",
    );
    check(
        "all: [ exact: { source: /shop }, prefix: { type: org. } ]",
        &none,
        "filters[0].all[1].prefix.type: `type` is `com.example.order`, which does not begin with `org.`",
    );
    check(
        "any: [ exact: { region: eu }, exact: { type: b } ]",
        &none,
        "filters[0].any: none of 2 alternatives holds: attribute `region` is absent; `type` is `com.example.order`, not `b`",
    );
    check(
        "not: { any: [ exact: { subject: x }, prefix: { source: /s } ] }",
        &none,
        "filters[0].not: `source` is `/shop`, which `not` excludes",
    );
}

#[test]
fn data_and_expressions_say_what_they_found() {
    let order = json!({ "data": { "amount": 80, "items": [1, 2] } });
    check(
        "data: { amount: [ { numeric: [ '>', 100 ] } ] }",
        &order,
        "filters[0].data.amount: `data.amount`: 80 is not > 100",
    );
    check("data: { other: [ 1 ] }", &order, "filters[0].data.other: `data.other` is absent");
    check(
        "cel: 'event.type.startsWith(\"com.\") && size(event.data.items) > 5'",
        &order,
        "filters[0].cel: `size(event.data.items) > 5` is false: `event.data.items` is [1,2]",
    );
    check("cel: event.data.amount < 100", &order, "matches");
    check(
        "sql: \"type LIKE 'com.%' AND source = '/other'\"",
        &json!({}),
        "filters[0].sql: `source = '/other'` is false: `source` is `/shop`",
    );
    check("sql: \"type LIKE 'com.%' AND NOT EXISTS subject\"", &json!({}), "matches");
}

#[test]
fn an_error_fails_the_trigger_and_is_told() {
    let text = json!({ "datacontenttype": "text/plain", "data": "hello" });
    check(
        "not: { data: { a: [ 1 ] } }",
        &text,
        "filters[0].not.data: the data is not JSON: expected a value at byte 0: an error, so the trigger does not match",
    );
    check(
        "not: { cesql: \"missing = 'x'\" }",
        &json!({}),
        "filters[0].not.cesql: `missing = 'x'`: attribute `missing` is absent; guard it with `EXISTS missing AND`: an error, so the trigger does not match",
    );
    check(
        "any: [ cel: 'event.subject == \"x\"', exact: { source: /shop } ]",
        &json!({}),
        "filters[0].any[0].cel: attribute `subject` is absent; guard it with `has(event.subject)`, at column 1 of the expression: an error, so the trigger does not match",
    );
    check("any: [ exact: { source: /shop }, cel: 'event.subject == \"x\"' ]", &json!({}), "matches");
}

#[test]
fn the_entry_point_is_told_after_the_filters() {
    let triggers = "  r: { sources: [reply], sink: http://localhost/ }\n  s: { sources: [reply], filters: [exact: { type: a }], sink: http://localhost/ }";
    let expected = [
        "r: sources: came in via `http`, the trigger takes `reply`",
        "s: filters[0].exact.type: `type` is `com.example.order`, not `a`",
    ];
    assert_eq!(verdicts(triggers, &event("1", &json!({}))), expected);
}

#[test]
fn events_come_one_a_line_or_in_arrays_and_a_wrong_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("sluice.yaml"), "triggers: { t: { sink: http://localhost/ } }").unwrap();
    let one = |id: &str| event(id, &json!({})).to_string();
    let arguments = ["explain", "-", "--json", "--config", "sluice.yaml"];
    let told =
        fed(dir.path(), &arguments, &format!("{}\n[{},\n{}]\n{}", one("1"), one("2"), one("3"), one("4")));
    let ids: Vec<Value> = told
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event"]["id"].clone())
        .collect();
    assert_eq!((ids, told.code), (vec![json!("1"), json!("2"), json!("3"), json!("4")], 0));

    let told = fed(dir.path(), &arguments, &format!("{}\n{{\"id\": \"5\"}}", one("1")));
    assert_eq!((told.code, told.out.lines().count()), (1, 1));
    assert!(told.err.contains("standard input, event 2: "), "{told:?}");
    // The lines before and behind it are explained all the same.
    for (bad, why) in [
        ("not json", "standard input, line 2: not JSON: expected a value at column 2"),
        ("{\"id\": \"5\",", "standard input, line 2: not JSON: it ends too early"),
        ("5", "standard input, event 2: "),
    ] {
        let told = fed(dir.path(), &arguments, &format!("{}\n{bad}\n{}\n", one("1"), one("3")));
        assert_eq!((told.code, told.out.lines().count()), (1, 2), "{told:?}");
        assert!(told.err.contains(why), "{told:?}");
        assert!(told.err.ends_with("sluice: 1 of 3 could not be explained\n"), "{told:?}");
    }
    let told = fed(dir.path(), &arguments, "");
    assert_eq!((told.code, told.err.as_str()), (1, "sluice: standard input holds no event\n"));
    std::fs::write(dir.path().join("sluice.yaml"), "triggers: { t: { filters: [ cel: 'a' ] } }").unwrap();
    let told = fed(dir.path(), &arguments, &one("1"));
    assert_eq!(told.code, 78);
    assert!(told.err.contains("sluice.yaml:1:35: `cel`: unknown name `a`"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_event_is_a_question_too_and_an_entry_point_is_one_that_exists() {
    let yaml = "sources: { hook: { webhook: { insecure: true } } }\ntriggers: { t: { sources: [hook], sink: { stdout: {} } } }";
    let broker = Broker::start(yaml).await;
    broker.publish_ids(&["1"]).await;
    let event = event("2", &json!({}));
    for (question, matched) in [
        (event.clone(), false),
        (json!({ "event": event, "via": "hook" }), true),
        (json!({ "event": event, "via": "reply" }), false),
        (json!({ "offset": 0 }), false),
    ] {
        let answer = broker.do_call("explain", &question).await;
        assert_eq!(answer["triggers"][0]["matched"], matched, "{question}: {answer:#}");
    }
    let refused = broker.call("explain", &json!({ "event": event, "via": "hok" })).await;
    let expected = "events cannot come in by `hok`: expected `http`, `reply` or the name of a source";
    assert_eq!((refused.status.as_u16(), &refused.json()["detail"]), (400, &json!(expected)));

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("sluice.yaml"), yaml).unwrap();
    let told =
        fed(dir.path(), &["explain", "-", "--config", "sluice.yaml", "--via", "hok"], &event.to_string());
    assert_eq!(told.code, 1);
    assert!(told.err.ends_with(&format!("sluice: {expected}\n")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_explains_with_the_triggers_of_now_and_of_then() {
    let sink = Sink::accepting().await;
    let yaml = |ty: &str, more: &str| {
        format!("triggers:\n  t: {{ filters: [exact: {{ type: {ty} }}], sink: \"{0}\" }}\n{more}", sink.url)
    };
    let broker = Broker::start(&yaml("com.example.test", "")).await;
    broker.publish_ids(&["1"]).await;
    sink.wait_for(1).await;
    let later = format!("  later: {{ sink: \"{}\" }}\n", sink.url);
    assert_eq!(broker.reload(&yaml("other", &later)).await.status, 200);
    broker.publish_ids(&["2"]).await;
    broker.trigger_when("later", |trigger| trigger["seen"] == 1).await;

    let now = broker.do_call("explain", &json!({ "offset": "0" })).await;
    assert_eq!(now["event"]["via"], "http");
    assert_eq!(
        now["triggers"][0]["failed"]["message"], "the trigger begins at offset 1, behind this event",
        "{now:#}"
    );
    let failed = &now["triggers"][1]["failed"];
    assert_eq!(failed["message"], "`type` is `com.example.test`, not `other`");
    assert!(failed["at"].as_str().unwrap().ends_with("sluice.yaml:6:27"), "{failed}");

    let then = broker.do_call("explain", &json!({ "offset": "0", "config": "then" })).await;
    assert_eq!(then["triggers"], json!([{ "trigger": "t", "matched": true }]));
    let then = broker.do_call("explain", &json!({ "offset": "1", "config": "then" })).await;
    assert_eq!(then["triggers"][0], json!({ "trigger": "later", "matched": true }));
    assert_eq!(then["triggers"][1]["failed"]["actual"], "`com.example.test`");

    // The sets are found in the log after a restart, too.
    let broker = broker.stop_and_restart().await;
    let told = broker.cli_words(&["explain", "--offset", "0", "--then", "--json"]);
    assert_eq!(told.json()["triggers"], json!([{ "trigger": "t", "matched": true }]), "{told:?}");
    let told = broker.cli_words(&["explain", "--offset", "7"]);
    assert_eq!((told.code, told.err.as_str()), (1, "sluice: there is no event at offset `7`\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_sink_got_then_is_told_by_the_transform_of_then() {
    let sink = Sink::accepting().await;
    let yaml = |transforms: [&str; 2]| {
        let [set, jq] = transforms;
        format!(
            "triggers:\n  set: {{ sink: \"{0}\"{set} }}\n  jq: {{ sink: \"{0}\", dead_letter: \"{0}\"{jq} }}\n",
            sink.url
        )
    };
    let then = [
        ", transform: { set: { type: 'then.{event.id}' } }",
        ", transform: { jq: '.data.nothing.here | error' }",
    ];
    let broker = Broker::start(&yaml(then)).await;
    broker.publish(&[("id", "1"), ("type", "a")], "{\"nothing\": {\"here\": \"no\"}}").await;
    broker.trigger_when("set", |trigger| trigger["delivered"] == 1).await;
    // A change of nothing but a transform is a new set, too.
    assert_eq!(broker.reload(&yaml([", transform: { set: { type: now } }", ""])).await.status, 200);

    let types = |answer: &Value| answer["triggers"][1]["transformed"]["type"].clone();
    let now = broker.do_call("explain", &json!({ "offset": "0" })).await;
    assert_eq!(
        (types(&now), &now["triggers"][0]),
        (json!("now"), &json!({ "trigger": "jq", "matched": true }))
    );
    let broker = broker.stop_and_restart().await;
    let then = broker.do_call("explain", &json!({ "offset": "0", "config": "then" })).await;
    assert_eq!(types(&then), json!("then.1"), "{then:#}");
    let failed = then["triggers"][0]["untransformed"].as_str().unwrap_or_default();
    assert!(failed.contains("no"), "{then:#}");
    let told = broker.cli_words(&["explain", "--offset", "0", "--then", "--json"]);
    assert_eq!(told.json()["triggers"], then["triggers"], "{told:?}");
    let told = broker.cli_words(&["explain", "--offset", "0", "--then"]);
    assert!(told.out.contains("cannot be transformed: ") && told.out.contains("its sink gets {"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_trigger_matches_and_says_that_it_is_paused() {
    let broker = Broker::start("triggers: { t: { sink: \"http://127.0.0.1:9/\" } }").await;
    broker.do_call("triggers/t/pause", &json!({})).await;
    let answer = broker.do_call("explain", &json!({ "event": event("1", &json!({})) })).await;
    let expected = json!([{ "trigger": "t", "matched": true, "paused": "paused by an operator" }]);
    assert_eq!(answer["triggers"], expected);
    for (question, field) in [
        (json!({}), "event"),
        (json!({ "event": {}, "offset": "0" }), "event"),
        (json!({ "event": { "id": "1" } }), "event"),
        (json!({ "event": event("1", &json!({})), "config": "then" }), "config"),
    ] {
        let refused = broker.call("explain", &question).await;
        assert_eq!(
            (refused.status.as_u16(), refused.json()["field"].as_str()),
            (400, Some(field)),
            "{question}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_explain_says_is_what_is_delivered() {
    let sinks =
        [Sink::accepting().await, Sink::accepting().await, Sink::accepting().await, Sink::accepting().await];
    let filters = [
        "prefix: { type: com.example. }, data: { amount: [ { numeric: [ '>', 2 ] } ] }",
        "cel: \"event.type == 'com.example.b' && event.data.amount != 3\"",
        "not: { any: [ data: { amount: [ 1 ] }, exact: { type: com.example.b } ] }",
        "any: [ cel: has(event.subject), data: { amount: [ 4 ] } ]",
    ];
    let triggers = sinks.iter().zip(filters).enumerate();
    let triggers = triggers
        .map(|(n, (sink, filters))| format!("  t{n}: {{ filters: [{filters}], sink: \"{}\" }}\n", sink.url));
    let broker = Broker::start(&format!("triggers:\n{}", triggers.collect::<String>())).await;
    let mut expected = vec![Vec::new(); sinks.len()];
    for (n, data) in
        ["{\"amount\": 1}", "{\"amount\": 3}", "{\"amount\": 4}", "no json", "{}"].into_iter().enumerate()
    {
        for ty in ["com.example.a", "com.example.b", "org.c"] {
            let id = format!("{n}-{ty}");
            let answer = broker.publish(&[("id", &id), ("type", ty)], data).await;
            let offset = answer.header("sluice-offset").unwrap().to_owned();
            let told = broker.do_call("explain", &json!({ "offset": offset })).await;
            for (expected, verdict) in expected.iter_mut().zip(told["triggers"].as_array().unwrap()) {
                if verdict["matched"] == true {
                    expected.push(id.clone());
                }
            }
        }
    }
    for (n, expected) in expected.iter().enumerate() {
        let wanted = |trigger: &Value| trigger["seen"] == 15 && trigger["delivered"] == expected.len();
        broker.trigger_when(&format!("t{n}"), wanted).await;
        let mut ids = sinks[n].ids();
        ids.sort();
        assert_eq!(ids, *expected, "t{n}");
        assert!(!ids.is_empty() && ids.len() < 15, "t{n}: {ids:?}");
    }
    let page = broker.ask("/metrics").await.text();
    assert!(page.contains("sluice_trigger_filter_errors_total{trigger=\"t2\"} 3"), "{page}");
    let said = broker.said();
    assert!(said.contains("see `sluice explain --offset ") && said.contains("trigger=\"t2\""), "{said}");
    assert_eq!(said.matches("trigger=\"t2\"").count(), 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_and_what_nobody_sends_is_listed() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&format!(
        "triggers:\n  used: {{ filters: [exact: {{ type: a }}], sink: \"{0}\" }}\n  idle: {{ filters: [exact: {{ region: eu }}, data: {{ order: {{ total: [1] }} }}, sql: \"NOT EXISTS vip\"], sink: \"{0}\" }}\n",
        sink.url
    ))
    .await;
    for (id, ty) in [("1", "a"), ("2", "b"), ("3", "b"), ("4", "c")] {
        assert_eq!(broker.publish(&[("id", id), ("type", ty)], "{\"order\": 1}").await.status, 202);
    }
    broker.trigger_when("used", |trigger| trigger["seen"] == 4).await;
    let found = broker.get("unmatched").await;
    let types: Vec<_> = found["types"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ty| (ty["type"].clone(), ty["count"].clone()))
        .collect();
    assert_eq!(types, [(json!("b"), json!(2)), (json!("c"), json!(1))]);
    assert_eq!(found["idle"], json!([]), "the broker has not run for an hour");
    let fields = [("idle", "data.order.total"), ("idle", "region"), ("idle", "vip")];
    let expected: Vec<_> =
        fields.iter().map(|(name, field)| json!({ "trigger": name, "field": field })).collect();
    assert_eq!(found["never_seen"], json!(expected));
    let idle = broker.get("unmatched?idle_since=2000-01-01T00:00:00Z").await;
    assert_eq!(idle["idle"], json!([{ "trigger": "idle", "last_matched_at": null }]));

    let told = broker.cli_words(&["triggers", "--unmatched"]);
    for line in ["b     2", "idle     data.order.total", "triggers without a match for an hour: none"] {
        assert!(told.out.contains(line), "{}", told.out);
    }
    assert_eq!(
        broker
            .publish(&[("id", "5"), ("region", "us"), ("vip", "1")], "{\"order\": {\"total\": 1}}")
            .await
            .status,
        202
    );
    broker.get_when("unmatched", |found| found["never_seen"] == json!([])).await;
}

#[test]
fn a_remark_on_an_expression_is_a_warning_and_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = "triggers:\n  t:\n    sink: http://localhost/\n    filters:\n      - sql: type = 'a' AND id = 'b' OR id = 'c'\n";
    std::fs::write(dir.path().join("sluice.yaml"), yaml).unwrap();
    let told = fed(dir.path(), &["check", "sluice.yaml"], "");
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.err.contains("sluice.yaml:5:38: warning: `sql`: AND and OR bind alike"), "{told:?}");
}

/// The sections "Filters" and "Why did this event not match?": the triggers, the event, and what is printed of it.
#[test]
fn the_samples_of_the_readme_are_explained_as_it_shows() {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<String> = blocks("yml");
    let event = blocks("jsonc").remove(0);
    std::fs::write(dir.path().join("filters.yaml"), &files[0]).unwrap();
    std::fs::write(dir.path().join("order.json"), &event).unwrap();
    let mut check = sluice();
    let told = run({
        check.args(["check", "filters.yaml"]).current_dir(dir.path());
        check
    });
    assert_eq!((told.code, told.err.as_str()), (0, ""), "{told:?}");
    let steps: Vec<String> = blocks("shell")
        .iter()
        .flat_map(|block| block.split("$ ").skip(1).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(!steps.is_empty());
    for step in steps {
        let (command, sample) = step.split_once('\n').unwrap();
        let words: Vec<&str> = command.split_whitespace().skip(1).collect();
        let told = fed(dir.path(), &words, "");
        assert!(told.code == 0 && shows(&told.out, sample), "{command}\n{}\nis not\n{sample}", told.out);
    }
}
