//! Sources: timers from end to end, pauses, reloads, how they are.

use serde_json::json;

use crate::broker::{Broker, run, sluice};
use crate::eventually;
use crate::sink::Sink;

const TICK: &str = r#"sources:
  tick:
    cron: { schedule: "* * * * * *" }
    event: { type: com.example.tick, data: { at: "{scheduled}" } }
"#;

fn with_sink(sources: &str, sink: &Sink) -> String {
    format!("{sources}triggers:\n  t: {{ sources: [tick], sink: \"{}\" }}\n", sink.url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_delivers_its_ticks_once_each_also_across_a_crash() {
    let sink = Sink::accepting().await;
    let mut broker = Broker::start(&with_sink(TICK, &sink)).await;
    sink.wait_for(2).await;
    broker = broker.kill_and_restart().await;
    let before = broker.get("sources/tick").await["accepted"].as_u64().unwrap();
    broker.get_when("sources/tick", |source| source["accepted"].as_u64().unwrap() >= before + 2).await;
    let events = broker.get("events").await["items"].as_array().unwrap().clone();
    let mut ids: Vec<_> = events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert!(count >= 4 && ids.len() == count, "{ids:?}");
    assert!(ids.iter().all(|id| id.starts_with("tick/20") && id.ends_with('Z')), "{ids:?}");
    assert!(
        events.iter().all(|event| event["via"] == "tick" && event["type"] == "com.example.tick"),
        "{events:?}"
    );
    let metrics = broker.ask("/metrics").await.text();
    assert!(metrics.contains("\nsluice_source_up{source=\"tick\"} 1\n"), "{metrics}");
    assert!(metrics.contains("\nsluice_events_accepted_total{via=\"tick\"} "), "{metrics}");
    assert!(
        metrics.contains("\nsluice_put_aside_total{source=\"tick\",reason=\"quarantine\"} 0\n"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_survives_a_restart_and_a_resume_goes_on() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&with_sink(TICK, &sink)).await;
    broker.get_when("sources/tick", |source| source["accepted"] != 0).await;
    let told = broker.cli("sources pause tick");
    assert!(told.code == 0 && told.out.contains("state: paused"), "{told:?}");
    let broker = broker.stop_and_restart().await;
    let paused = broker.get("sources/tick").await;
    assert_eq!((&paused["state"], &paused["error"]), (&json!("paused"), &json!("paused by an operator")));
    assert_eq!(paused["accepted"], 0);
    assert_eq!(broker.ask("/readyz").await.json()["status"], "ready");
    let told = broker.cli("sources resume tick --json");
    assert_eq!((told.code, &told.json()["name"]), (0, &json!("tick")));
    broker.get_when("sources/tick", |source| source["state"] == "running" && source["accepted"] != 0).await;
    let told = broker.cli("sources");
    assert!(told.out.contains("NAME") && told.out.contains("running"), "{told:?}");
    assert_eq!(broker.cli("sources show nothing").code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_adds_and_removes_sources_and_leaves_the_others_alone() {
    let broker = Broker::start(&format!("{TICK}triggers: {{}}\n")).await;
    let since = broker.get_when("sources/tick", |source| source["state"] == "running").await["since"].clone();
    let more = format!("{TICK}  yearly: {{ cron: {{ schedule: '@yearly' }} }}\ntriggers: {{}}\n");
    let answer = broker.reload(&more).await.json();
    assert_eq!(answer["sources"], json!({ "added": ["yearly"], "changed": [], "removed": [] }));
    broker.get_when("sources/yearly", |source| source["state"] == "running").await;
    assert_eq!(broker.get("sources/tick").await["since"], since);
    let answer = broker.reload("triggers: {}\n").await.json();
    assert_eq!(answer["sources"]["removed"], json!(["tick", "yearly"]));
    assert_eq!(broker.get("sources").await["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_down_is_shown_everywhere_and_stops_nothing_else() {
    // Bound and dropped: nobody listens there.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sink = Sink::accepting().await;
    let more = format!(
        "  by-kafka: {{ kafka: {{ brokers: [\"{nowhere}\"], topics: [t], group: g }} }}\n  \
         by-amqp: {{ amqp: {{ url: \"amqp://guest:canary-password@{nowhere}/%2f\", queue: q }} }}\n  \
         by-nats: {{ nats: {{ servers: [\"nats://u:canary-password@{nowhere}\"], stream: S, consumer: c }} }}\n"
    );
    let broker = Broker::start(&with_sink(&format!("{TICK}{more}"), &sink)).await;
    assert!(broker.said().contains("; 3 sources not up\n"), "{}", broker.said());
    sink.wait_for(1).await;
    assert_eq!(broker.publish(&[("id", "1")], "").await.status, 202);
    for kind in ["kafka", "amqp", "nats"] {
        let path = format!("sources/by-{kind}");
        let entry = broker.get_when(&path, |source| source["state"] == "down").await;
        assert!(entry["error"].as_str().unwrap().contains(&nowhere.to_string()), "{entry}");
        assert!(entry["since"].is_string() && entry["position"].is_null(), "{entry}");
        let counts = ["accepted", "put_aside", "duplicates"].map(|name| entry[name].as_u64());
        assert_eq!((&entry["kind"], counts), (&json!(kind), [Some(0); 3]));
    }
    let ready = broker.ask("/readyz").await;
    let state = ready.json();
    assert_eq!((ready.status.as_u16(), &state["status"]), (200, &json!("degraded")), "{state}");
    let reasons = state["sources"].as_object().unwrap();
    assert_eq!(reasons.keys().collect::<Vec<_>>(), ["by-amqp", "by-kafka", "by-nats"]);
    assert!(reasons.values().all(|why| why.as_str().unwrap().contains(&nowhere.to_string())), "{state}");
    let metrics = broker.ask("/metrics").await.text();
    for line in ["{source=\"by-kafka\"} 0\n", "{source=\"by-amqp\"} 0\n", "{source=\"tick\"} 1\n"] {
        assert!(metrics.contains(&format!("\nsluice_source_up{line}")), "{metrics}");
    }
    let (said, state) = (broker.said(), state.to_string());
    assert!(!said.contains("canary") && !metrics.contains("canary") && !state.contains("canary"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_a_webhook_warns_of_senders_that_do_not_come_again() {
    let broker = Broker::start("sources: { hook: { webhook: { insecure: true } } }\ntriggers: {}\n").await;
    let told = broker.cli("sources pause hook");
    assert!(told.code == 0 && told.err.contains("loses them"), "{told:?}");
    let refused = crate::http::send(
        broker.public,
        ::http::Method::POST,
        "/hooks/hook",
        crate::http::headers([("content-type", "application/json")]),
        "{}",
    )
    .await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    let told = broker.cli("sources resume hook");
    assert!(told.code == 0 && !told.err.contains("warning"), "{told:?}");
    eventually("the hook to take deliveries", || async {
        let with = crate::http::headers([("content-type", "application/json")]);
        let answer = crate::http::send(broker.public, ::http::Method::POST, "/hooks/hook", with, "{}").await;
        (answer.status == 202).then_some(())
    })
    .await;
}

#[test]
fn the_sample_of_the_readme_prints_what_it_shows() {
    let text = crate::documents::section("## Cron");
    let (command, shown) = text.split_once("$ sluice ").unwrap().1.split_once('\n').unwrap();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("{} {command}", env!("CARGO_BIN_EXE_sluice"))]);
    let told = run(shell);
    assert_eq!((told.code, told.out.trim()), (0, shown.split("```").next().unwrap().trim()));
}

#[test]
fn the_next_runs_of_a_schedule_are_printed_without_a_broker() {
    let next = |words: &[&str]| {
        let mut command = sluice();
        command.args(["cron", "next"]).args(words);
        run(command)
    };
    let berlin = ["--timezone", "Europe/Berlin", "--after", "2026-03-27T22:00:00Z", "--count", "2"];
    let told = next(&[&["30 2 * * *"], &berlin[..]].concat());
    assert_eq!((told.code, &*told.out), (0, "2026-03-28T02:30:00+01:00\n2026-03-29T03:00:00+02:00\n"));
    let told = next(&[&["30 2 * * *", "--json"], &berlin[..]].concat());
    assert_eq!(told.json()[1], json!({ "at": "2026-03-29T01:00:00Z", "local": "2026-03-29T03:00:00+02:00" }));
    let told = next(&["0 0 ? * 1"]);
    assert!(told.code == 2 && told.err.contains("write `*`"), "{told:?}");
    assert_eq!(next(&["@daily", "--timezone", "Mars/Base"]).code, 2);
}
