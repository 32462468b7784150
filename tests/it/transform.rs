//! `transform:` of a trigger: what the sink gets, and what becomes of an event that cannot be transformed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::eventually;
use crate::sink::{Sink, status};

fn yaml(sink: &Sink, transform: &Value) -> String {
    triggers(
        &json!({ "t": { "sink": sink.url, "transform": transform, "delivery": { "backoff_delay": "10ms" } } }),
    )
}

fn triggers(all: &Value) -> String {
    format!("triggers: {all}")
}

const ORDER: &str = r#"{"kind": "order", "amount": 120, "card": "4111"}"#;

async fn publish(broker: &Broker, data: &str) {
    let answer = broker.publish(&[("id", "1"), ("type", "com.example.a"), ("subject", "s")], data).await;
    assert_eq!(answer.status, 202, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sink_gets_what_a_jq_program_makes_and_the_store_keeps_what_came() {
    let sink = Sink::accepting().await;
    let program = r#".type = "com.example.\(.data.kind)" | del(.subject) | .data |= {amount}"#;
    let broker = Broker::start(&yaml(&sink, &json!({ "jq": program }))).await;
    publish(&broker, ORDER).await;
    let received = &sink.wait_for(1).await[0];
    assert_eq!(
        (received.header("ce-type"), received.header("ce-subject")),
        (Some("com.example.order"), None)
    );
    assert_eq!(received.body, r#"{"amount":120}"#);
    let shown = broker.get("events/0").await;
    assert_eq!(
        (&shown["event"]["type"], &shown["event"]["data"]["card"]),
        (&json!("com.example.a"), &json!("4111"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_set_attributes_and_data() {
    let sink = Sink::accepting().await;
    let transform = json!({
        "set": { "type": "com.example.{data.kind}", "subject": "{data.customer|nobody}", "amount": "{data.amount}" },
        "data": { "was": "{event.type}", "amount": "{data.amount}" },
    });
    let broker = Broker::start(&yaml(&sink, &transform)).await;
    publish(&broker, ORDER).await;
    let received = &sink.wait_for(1).await[0];
    let header = |name: &str| received.header(name).map(str::to_owned);
    assert_eq!(header("ce-type").as_deref(), Some("com.example.order"));
    assert_eq!(header("ce-subject").as_deref(), Some("nobody"));
    assert_eq!(header("ce-amount").as_deref(), Some("120"));
    assert_eq!(
        serde_json::from_slice::<Value>(&received.body).unwrap(),
        json!({ "was": "com.example.a", "amount": 120 })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_transformed_is_a_dead_letter_and_the_sink_hears_nothing() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&yaml(&sink, &json!({ "jq": ".type = .data.kind" }))).await;
    publish(&broker, r#"{"kind": 5}"#).await;
    let row = broker.dead_letters(1).await[0].clone();
    assert_eq!(row["reason"], "transform");
    let shown = broker.get(&format!("dead-letters/{}", row["id"].as_str().unwrap())).await;
    assert_eq!(
        shown["detail"],
        "the transformation failed: the result is no CloudEvent: attribute `type` must be a string, not a number"
    );
    assert_eq!(
        (&shown["event"]["type"], &shown["event"]["data"]),
        (&json!("com.example.a"), &json!({ "kind": 5 }))
    );
    let trigger = broker.trigger_when("t", |trigger| trigger["dead"] == 1).await;
    assert!(trigger["last_error"]["error"].as_str().unwrap().contains("must be a string"), "{trigger}");
    assert!(sink.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_transforms_anew_under_the_present_configuration() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&yaml(&sink, &json!({ "set": { "type": "{data.missing}" } }))).await;
    publish(&broker, ORDER).await;
    broker.dead_letters(1).await;
    assert_eq!(
        broker.reload(&yaml(&sink, &json!({ "set": { "type": "mended.{data.kind}" } }))).await.status,
        200
    );
    assert_eq!(broker.cli("dlq redrive --trigger t").code, 0);
    assert_eq!(sink.wait_for(1).await[0].header("ce-type"), Some("mended.order"));
    broker.trigger_when("t", |trigger| trigger["delivered"] == 1 && trigger["dead"] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_a_transformed_event_is_the_original() {
    let (sink, failed) = (Sink::answering(|_, _| status(422)).await, Sink::accepting().await);
    let trigger = json!({
        "sink": sink.url, "dead_letter": failed.url, "transform": { "set": { "type": "changed" } },
    });
    let broker = Broker::start(&triggers(&json!({ "t": trigger }))).await;
    publish(&broker, ORDER).await;
    assert_eq!(sink.wait_for(1).await[0].header("ce-type"), Some("changed"));
    assert_eq!(broker.dead_letters(1).await[0]["event"]["type"], "com.example.a");
    assert_eq!(failed.wait_for(1).await[0].header("ce-type"), Some("com.example.a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_what_the_sink_gets_or_why_it_gets_nothing() {
    let sink = Sink::accepting().await;
    let all = json!({
        "good": { "sink": sink.url, "transform": { "jq": ".type = \"b\" | del(.data)" } },
        "bad": { "sink": sink.url, "transform": { "set": { "type": "{data.missing}" } } },
    });
    let broker = Broker::start(&triggers(&all)).await;
    let event = json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": "a", "data": {} });
    let shown = broker.do_call("explain", &json!({ "event": event })).await;
    assert_eq!(
        shown["triggers"],
        json!([
            { "trigger": "bad", "matched": true, "untransformed": "`type`: `{data.missing}` is absent, and has no default" },
            { "trigger": "good", "matched": true, "transformed": { "specversion": "1.0", "id": "1", "source": "/s", "type": "b" } },
        ])
    );
    std::fs::write(broker.path().join("event.json"), event.to_string()).unwrap();
    let told = broker.cli("explain event.json --config sluice.yaml");
    assert!(
        told.out.contains("cannot be transformed: `type`") && told.out.contains("its sink gets {"),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_takes_long_delays_another_by_one_turn() {
    let sink = Sink::accepting().await;
    // Each takes a second of a processor.
    let slow = 4 * std::thread::available_parallelism().unwrap().get();
    let program = |text: &str, kind: &str| {
        json!({ "sink": sink.url, "transform": { "jq": text }, "filters": [{ "exact": { "type": kind } }],
            "delivery": { "concurrency": slow } })
    };
    let all = json!({ "slow": program("def f: f; f", "slow"), "quick": program(".type = \"quick\"", "t") });
    let broker = Broker::start(&triggers(&all)).await;
    let event = |id: usize| json!({ "specversion": "1.0", "id": id.to_string(), "source": "/s", "type": "slow", "data": {} });
    let batch: Vec<_> = (0..slow).map(event).collect();
    std::fs::write(broker.path().join("batch.json"), serde_json::to_vec(&batch).unwrap()).unwrap();
    assert_eq!(broker.cli("publish batch.json").code, 0);
    broker.trigger_when("slow", |trigger| trigger["in_flight"] == slow).await;
    assert_eq!(broker.publish(&[("id", "quick"), ("type", "t")], ORDER).await.status, 202);
    sink.wait_for(1).await;
    let waiting = broker.get("triggers/slow").await["in_flight"].as_u64().unwrap();
    assert!(waiting as usize > slow / 2, "{waiting} of {slow} still wait");
}

/// Whatever a program does, the broker lives, other triggers go on, and the event is a dead letter that says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_runs_grows_or_recurses_without_end_is_stopped() {
    let cases = [
        ("def f: f; f", "more than 1s of processor time"),
        ("reduce range(60) as $n (\"x\" * 1024; . + .) | {}", "the program took"),
        ("[range(1e18)] | {}", "the program took"),
        (".data = \"x\" * 1000000000000", "memory"),
        ("def f: 1 + f; f", "took too much memory, or recursed too deeply"),
        ("empty", "no result"),
        ("., .", "more than one result"),
        ("repeat(.)", "more than one result"),
        (".data = \"x\" * 40000000", "more than 32 MiB"),
    ];
    let (sink, other) = (Sink::accepting().await, Sink::accepting().await);
    let mut all: serde_json::Map<String, Value> = cases
        .iter()
        .enumerate()
        .map(|(n, (program, _))| {
            (format!("t{n}"), json!({ "sink": sink.url, "transform": { "jq": program } }))
        })
        .collect();
    all.insert("well".into(), json!({ "sink": other.url, "transform": { "jq": ".type = \"well\"" } }));
    let broker = Broker::start(&triggers(&Value::Object(all))).await;
    publish(&broker, ORDER).await;
    assert_eq!(other.wait_for(1).await[0].header("ce-type"), Some("well"));
    let dead = broker.dead_letters(cases.len()).await;
    for (n, (program, expected)) in cases.iter().enumerate() {
        let row = dead.iter().find(|row| row["trigger"] == format!("t{n}")).unwrap();
        let shown = broker.get(&format!("dead-letters/{}", row["id"].as_str().unwrap())).await;
        let detail = shown["detail"].as_str().unwrap();
        assert!(row["reason"] == "transform" && detail.contains(expected), "{program}: {detail}");
    }
    assert!(sink.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_sees_no_secret_of_the_broker() {
    let sink = Sink::accepting().await;
    let refused = Broker::start(&yaml(&sink, &json!({ "jq": "." }))).await;
    refused.rewrite(&yaml(&sink, &json!({ "jq": ".data = env" })));
    let told = refused.cli_words(&["check", refused.file().to_str().unwrap()]);
    assert_eq!(told.code, 78, "{told:?}");
    assert!(told.err.contains("there is no filter `env`"), "{told:?}");
}

/// The workers of a broker, by their parent in /proc.
fn workers(broker: u32) -> Vec<u32> {
    let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parent = |pid: u32| stat(pid).rsplit(") ").next()?.split(' ').nth(1)?.parse::<u32>().ok();
    pids.filter(|pid| parent(*pid) == Some(broker)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_costs_no_event_and_none_outlives_the_broker() {
    let sink = Sink::accepting().await;
    let mut broker = Broker::start(&yaml(&sink, &json!({ "jq": ".type = \"b\"" }))).await;
    broker.publish_ids(&["1"]).await;
    sink.wait_for(1).await;
    let first = workers(broker.pid());
    assert!(!first.is_empty());
    for pid in &first {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(!environment.windows(5).any(|name| name == b"PATH="), "what the broker has is not handed on");
        let pid = rustix::process::Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    broker.publish_ids(&["2", "3"]).await;
    sink.wait_for(3).await;
    broker.trigger_when("t", |trigger| trigger["delivered"] == 3 && trigger["dead"] == 0).await;
    let left = workers(broker.pid());
    broker.stop().await;
    let gone = |pid: &u32| !std::path::Path::new(&format!("/proc/{pid}/exe")).exists();
    eventually("the workers end", || async { left.iter().all(gone).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_events_pass_through_few_workers() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&yaml(&sink, &json!({ "jq": ".data.seen = true" }))).await;
    let ids: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let started = Instant::now();
    broker.publish_ids(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    sink.wait_for(200).await;
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(workers(broker.pid()).len() <= std::thread::available_parallelism().unwrap().get());
}
