//! Events are found by id and by type however old they are, and whatever happens to the index that helps to find them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::http::headers;
use crate::sink::Sink;

/// More than two blocks of the index.
const EVENTS: usize = 9_000;

async fn yaml() -> (Sink, String) {
    let sink = Sink::accepting().await;
    let filter = "filters: [{ exact: { type: com.example.rare } }]";
    let yaml = format!("triggers: {{ rare: {{ sink: \"{}\", {filter} }} }}", sink.url);
    (sink, yaml)
}

/// Events `first..first + count`; every thousandth is of a rare type.
async fn publish(broker: &Broker, first: usize, count: usize) {
    let of = |number: usize| {
        let ty = if number.is_multiple_of(1000) { "com.example.rare" } else { "com.example.common" };
        json!({ "specversion": "1.0", "id": number.to_string(), "source": "/it", "type": ty })
    };
    let batch: Vec<Value> = (first..first + count).map(of).collect();
    let with = headers([("content-type", "application/cloudevents-batch+json")]);
    let answer = broker.post(with, Value::Array(batch).to_string()).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
}

async fn is_ready(broker: &Broker) -> Value {
    broker.get_when("status", |status| status["index"]["state"] == "ready").await["index"].clone()
}

/// What a look-up must show, with an index or without one.
async fn check(broker: &Broker) {
    for number in [0, 1000, 4711, EVENTS - 1] {
        let shown = broker.get(&format!("events/by-id?source=/it&id={number}")).await;
        assert_eq!(shown["offset"], number.to_string(), "{shown}");
        assert_eq!(shown["event"]["id"], number.to_string());
        let states: Vec<&Value> =
            shown["deliveries"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
        let expected: &[&str] = if number % 1000 == 0 { &["delivered"] } else { &[] };
        assert_eq!(states, expected, "{shown}");
    }
    let absent = broker.ask("/api/v1/events/by-id?source=/it&id=none").await;
    assert_eq!(absent.status, 404);
    let rare = broker.get("events?type=com.example.rare&limit=5").await;
    let ids = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&rare), ["8000", "7000", "6000", "5000", "4000"]);
    let cursor = rare["next"].as_str().unwrap();
    let rest = broker.get(&format!("events?type=com.example.rare&limit=5&cursor={cursor}")).await;
    assert_eq!(ids(&rest), ["3000", "2000", "1000", "0"]);
}

fn index_of(broker: &Broker) -> PathBuf {
    broker.path().join("data/index")
}

fn spoil(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::write(&path, [0xa5; 5000]).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_found_whatever_becomes_of_the_index() {
    let (sink, yaml) = yaml().await;
    let broker = Broker::start(&yaml).await;
    publish(&broker, 0, EVENTS).await;
    sink.wait_for(9).await;
    broker.trigger_when("rare", |trigger| trigger["delivered"] == 9).await;
    let index = is_ready(&broker).await;
    assert!(index["lag"].as_u64().unwrap() < 4096, "{index}");
    check(&broker).await;

    // Killed, with the index as it was.
    let broker = broker.kill_and_restart().await;
    check(&broker).await;
    is_ready(&broker).await;
    check(&broker).await;

    // Deleted while the broker runs, and written to afterwards.
    fs::remove_dir_all(index_of(&broker)).unwrap();
    check(&broker).await;

    // Killed with no index at all: it is rebuilt, and the duplicate window never needed it.
    let broker = broker.kill_and_restart().await;
    let twin = broker.publish(&[("id", "0"), ("source", "/it"), ("type", "com.example.rare")], "").await;
    assert_eq!(twin.status, 422, "other content under a key that the log knows: {}", twin.text());
    check(&broker).await;
    is_ready(&broker).await;
    assert!(index_of(&broker).join("db").exists());
    check(&broker).await;

    // Corrupt: said once, set aside, rebuilt.
    let mut broker = broker;
    assert!(broker.stop().await.success());
    spoil(&index_of(&broker));
    let broker = broker.start_again().await;
    check(&broker).await;
    is_ready(&broker).await;
    assert!(broker.said().contains("set aside and rebuilt from the log"), "{}", broker.said());
    assert!(broker.path().join("data/index.broken").is_dir());
    check(&broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_says_how_far_its_index_is_behind() {
    let (_sink, yaml) = yaml().await;
    let broker = Broker::start(&yaml).await;
    let idle = is_ready(&broker).await;
    assert_eq!(idle["lag"], 0, "{idle}");
    // Fewer than a block: they stay to be scanned.
    publish(&broker, 1, 900).await;
    for path in ["/api/v1/status", "/readyz"] {
        assert_eq!(
            broker.ask(path).await.json()["index"],
            json!({ "state": "ready", "lag": 900, "unreadable": [] }),
            "{path}"
        );
    }
    let page = broker.ask("/metrics").await.text();
    assert!(page.lines().any(|line| line == "sluice_index_lag_events 900"), "{page}");
    let told = broker.cli("status");
    assert!(told.out.contains("index:\n  lag: 900\n  state: ready\n"), "{told:?}");
    publish(&broker, 901, EVENTS).await;
    let caught_up = is_ready(&broker).await;
    assert!(caught_up["lag"].as_u64().unwrap() < 4096, "{caught_up}");
}
