//! What commands print and how they end.

use std::process::Stdio;

use serde_json::json;

use crate::broker::{Broker, Running, finished, keep, run, sluice};
use crate::sink::{Sink, status};
use crate::{PATIENCE, eventually};

fn told(words: &[&str]) -> crate::broker::Told {
    let mut command = sluice();
    command.args(words);
    run(command)
}

#[test]
fn a_wrong_configuration_is_78_with_file_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.yaml");
    std::fs::write(&file, "triggers:\n  t: { sink: \"http://127.0.0.1:9/\", filers: [] }\n").unwrap();
    let name = file.to_str().unwrap();
    for command in ["check", "run"] {
        let told = told(&[command, name]);
        assert_eq!(told.code, 78, "{told:?}");
        assert!(told.err.contains(&format!("{name}:2:")) && told.err.contains("`filters`"), "{told:?}");
        assert_eq!(told.out, "");
    }
    assert!(!dir.path().join("data").exists(), "nothing was begun");
    let missing = told(&["check", "no-such-file.yaml"]);
    assert_eq!(missing.code, 78);
    assert!(missing.err.starts_with("no-such-file.yaml: "), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_json_is_json_in_every_line() {
    let warned = "triggers: { t: { sink: { http: { url: \"http://127.0.0.1:9/\", headers: { authorization: \"Bearer abc\" } } } } }";
    let mut broker = Broker::start_told(&["--log", "json"], warned).await;
    broker.rewrite("triggers: [");
    broker.signal(rustix::process::Signal::HUP);
    eventually("the wrong file to be told", || async { broker.said().contains("unclosed").then_some(()) })
        .await;
    broker.stop().await;
    let messages: Vec<String> = broker
        .said()
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
            assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
            line["fields"]["message"].as_str().unwrap().to_owned()
        })
        .collect();
    for what in ["takes events at http://", "sources not up", "stopping", "unclosed bracket", "authorization"]
    {
        assert!(messages.iter().any(|message| message.contains(what)), "{what}: {messages:#?}");
    }

    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.yaml");
    let told = told(&["--log", "json", "run", missing.to_str().unwrap()]);
    assert_eq!(told.code, 78, "{told:?}");
    let line: serde_json::Value = serde_json::from_str(&told.err).unwrap();
    assert_eq!(line["level"], "ERROR", "{told:?}");
}

#[test]
fn check_warns_of_a_timer_whose_only_time_has_passed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sluice.yaml");
    let yaml = "sources:\n  past: { cron: { at: \"2021-01-01T00:00:00\", timezone: Europe/Berlin } }\n  ahead: { cron: { at: 9000-01-01T00:00:00Z } }\ntriggers: { t: { sink: { stdout: {} } } }\n";
    std::fs::write(&file, yaml).unwrap();
    let told = told(&["check", file.to_str().unwrap()]);
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.err.contains("sluice.yaml:2:23: warning: `at` has passed: nothing comes of it"), "{told:?}");
    assert_eq!(told.err.matches("warning").count(), 1, "{told:?}");
}

#[test]
fn a_sink_that_cannot_be_opened_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("none.pem"), "not a certificate").unwrap();
    let (file, url) = (dir.path().join("sluice.yaml"), "https://localhost/");
    let text =
        format!("triggers:\n  t:\n    sink: {{ http: {{ url: \"{url}\", tls: {{ ca: none.pem }} }} }}\n");
    std::fs::write(&file, text).unwrap();
    let checked = told(&["check", file.to_str().unwrap()]);
    assert_eq!(checked.code, 78, "{checked:?}");
    assert!(
        checked.err.starts_with(&format!("{}:3:11: `sink` of trigger `t`: ", file.display())),
        "{checked:?}"
    );
    assert!(checked.err.contains("none.pem holds no certificate"), "{checked:?}");
}

#[test]
fn usage_is_2_and_help_is_0() {
    assert_eq!(told(&["run"]).code, 2);
    assert_eq!(told(&["no-such-command"]).code, 2);
    assert_eq!(told(&["--help"]).code, 0);
    assert!(told(&["--version"]).out.starts_with("sluice "));
}

#[test]
fn a_broker_that_is_not_there_is_1_with_its_address() {
    let told = told(&["status", "--admin", "http://127.0.0.1:1"]);
    assert_eq!(told.code, 1);
    assert!(told.err.contains("127.0.0.1:1"), "{told:?}");
}

#[test]
fn init_check_and_schema_fit_together() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sluice.yaml");
    let name = file.to_str().unwrap();
    assert_eq!(told(&["init", name]).code, 0);
    assert_eq!(told(&["init", name]).code, 1, "it overwrites nothing");
    let checked = told(&["check", name]);
    assert!(checked.code == 0 && checked.out.starts_with("ok: "), "{checked:?}");
    assert!(told(&["schema"]).json()["properties"]["triggers"].is_object());
    assert!(told(&["completions", "bash"]).out.contains("sluice"));
}

#[tokio::test(flavor = "multi_thread")]
async fn run_says_in_five_lines_what_it_listens_on_what_it_loaded_and_where_to_look_next() {
    let broker = Broker::start("triggers: { t: { sink: { stdout: {} } } }").await;
    let said = eventually("five lines", || async {
        let said = broker.said();
        (said.lines().count() >= 5).then_some(said)
    })
    .await;
    assert_eq!(said.lines().count(), 5, "{said}");
    assert!(said.contains("1 trigger from 1 file"), "{said}");
    assert!(said.contains(&format!("curl -i http://{}/events", broker.public)), "{said}");
    assert!(said.contains(&format!("sluice triggers --admin http://{}", broker.operators)), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stdout_sink_prints_the_event() {
    let broker = Broker::start("triggers: { t: { sink: { stdout: {} } } }").await;
    let told = broker.cli("publish --type com.example.hello --source /me --id 1 --data hello");
    assert_eq!((told.code, told.out.as_str()), (0, "0\n"), "{told:?}");
    let printed = eventually("the event", || async {
        let printed = broker.printed();
        printed.contains("com.example.hello").then_some(printed)
    })
    .await;
    assert!(printed.contains("hello"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_believes_nobody_that_says_no_offset() {
    let other = Sink::accepting().await;
    let words = ["publish", "--type", "t", "--source", "/me", "--data", "hello", "--url", &other.url];
    let told = told(&words);
    assert!(told.code == 1 && told.err.contains("is no Sluice"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_takes_a_batch_of_any_size_and_a_byte_order_mark() {
    let broker = Broker::start("triggers: {}").await;
    let event =
        |id: usize| json!({ "specversion": "1.0", "id": id.to_string(), "source": "/me", "type": "t" });
    let batch: Vec<_> = (0..60_000).map(event).collect();
    std::fs::write(broker.path().join("batch.json"), serde_json::to_vec(&batch).unwrap()).unwrap();
    let told = broker.cli("publish batch.json");
    assert_eq!((told.code, told.out.lines().count()), (0, 60_000), "{}", told.err);
    std::fs::write(broker.path().join("marked.json"), format!("\u{feff}{}", event(60_000))).unwrap();
    assert_eq!(broker.cli("publish marked.json").out, "60000\n");
    std::fs::write(broker.path().join("none.json"), "[ ]").unwrap();
    assert_eq!(broker.cli("publish none.json").code, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::await_holding_lock, reason = "it is what keeps the output from being read")]
async fn an_output_that_nobody_reads_holds_up_nothing_else() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&format!(
        "triggers: {{ out: {{ sink: {{ stdout: {{}} }} }}, quick: {{ sink: \"{}\" }} }}",
        sink.url
    ))
    .await;
    let unread = broker.unread();
    // Each is more than a pipe takes; one is read, by who may not keep it and reads no more.
    let data = format!("\"{}\"", "x".repeat(256 << 10));
    for id in 0..24 {
        assert_eq!(broker.publish(&[("id", &id.to_string())], &data).await.status, 202);
    }
    broker.trigger_when("quick", |trigger| trigger["delivered"] == 24).await;
    broker.trigger_when("out", |trigger| trigger["delivered"] == 1 && trigger["in_flight"] == 23).await;
    let shown = tokio::time::timeout(PATIENCE, broker.get("events/3")).await;
    assert_eq!(shown.expect("the log can be read")["event"]["id"], "3");
    drop(unread);
    broker.trigger_when("out", |trigger| trigger["delivered"] == 24).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_takes_files_and_says_what_was_refused() {
    let broker = Broker::start("triggers: {}").await;
    let event = json!({ "specversion": "1.0", "id": "1", "source": "/f", "type": "com.example.file" });
    std::fs::write(broker.path().join("one.json"), event.to_string()).unwrap();
    assert_eq!(broker.cli("publish one.json").out, "0\n");
    let again = broker.cli("publish one.json");
    assert!(again.code == 0 && again.err.contains("duplicate"), "{again:?}");
    let wrong = json!({ "specversion": "1.0", "id": "2", "source": "/f" });
    std::fs::write(broker.path().join("wrong.json"), wrong.to_string()).unwrap();
    let refused = broker.cli("publish wrong.json");
    assert!(refused.code == 1 && refused.err.contains("`type`"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_tables_or_json() {
    let sink = Sink::answering(|_, _| status(503)).await;
    let broker = Broker::start(&format!("triggers: {{ t: {{ sink: \"{}\" }} }}", sink.url)).await;
    broker.publish_ids(&["1"]).await;
    broker.trigger_when("t", |trigger| trigger["retrying"] == 1).await;
    let table = broker.cli("triggers");
    assert!(table.out.starts_with("NAME") && table.out.contains("503"), "{table:?}");
    assert_eq!(broker.cli("triggers list --json").json()[0]["name"], "t");
    assert_eq!(broker.cli("events list --json").json()[0]["type"], "com.example.test");
    assert_eq!(broker.cli("triggers pending t --json").json()[0]["offset"], "0");
    assert_eq!(broker.cli("triggers show nothing").code, 1);
    let status = broker.cli("status --json").json();
    assert_eq!((&status["store"]["next_offset"], &status["dead_letters"]), (&json!("1"), &json!(0)));
    assert_eq!(broker.cli("status").code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_verified_when_it_is_not_in_use() {
    let mut broker = Broker::start("triggers: {}").await;
    broker.publish_ids(&["1", "2"]).await;
    let used = broker.cli("store verify data");
    assert_eq!(used.code, 1, "{used:?}");
    let second = broker.cli("run sluice.yaml");
    assert_eq!(second.code, 1, "a second broker in the same directory: {second:?}");
    assert!(broker.stop().await.success());
    let report = broker.cli("store verify data --json").json();
    assert_eq!(
        (&report["events"], &report["closed"], &report["damage"]),
        (&json!(2), &json!(true), &json!([]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_development_sink_fails_as_told_and_prints_what_it_gets() {
    let mut child = sluice();
    child.args(["sink", "--listen", "127.0.0.1:0", "--fail-first", "1"]);
    let mut child = Running(child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let printed = keep(child.0.stdout.take().unwrap());
    let url = eventually("the sink's address", || async {
        let text = printed.lock().unwrap().clone();
        let (_, rest) = text.split_once("listening on ")?;
        rest.split_once(',').map(|(url, _)| url.to_owned())
    })
    .await;
    let broker = Broker::start(&format!("triggers: {{ t: {{ sink: \"{url}/\" }} }}")).await;
    broker.publish_ids(&["1"]).await;
    broker.trigger_when("t", |trigger| trigger["delivered"] == 1).await;
    eventually("both attempts to be printed", || async {
        (printed.lock().unwrap().matches("type: com.example.test").count() == 2).then_some(())
    })
    .await;
    rustix::process::kill_process(rustix::process::Pid::from_child(&child.0), rustix::process::Signal::TERM)
        .unwrap();
    assert!(finished(child).await.success());
}
