//! A pulling source over the binary, with the cluster that librdkafka brings along. `tests/live` has the real servers.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use serde_json::json;

use crate::broker::Broker;
use crate::sink::Sink;

const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

struct Cluster {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: FutureProducer,
}

impl Cluster {
    fn start() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("t", 1, 1).unwrap();
        let servers = cluster.bootstrap_servers();
        let producer = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
        Self { cluster, producer }
    }

    fn yaml(&self, sink: &Sink, more: &str) -> String {
        format!(
            "limits: {{ put_aside_bytes: 1KiB }}\nsources:\n  orders:\n    kafka: {{ brokers: [\"{}\"], topics: [t], group: g, \
             session_timeout: {}s }}\n    {more}\n  tick: {{ cron: {{ schedule: \"* * * * * *\" }} }}\n\
             triggers: {{ all: {{ sources: [orders], sink: \"{}\" }} }}\n",
            self.cluster.bootstrap_servers(),
            SESSION_TIMEOUT.as_secs(),
            sink.url
        )
    }

    async fn send(&self, attributes: &[(&str, &str)], body: &str) {
        let headers = attributes.iter().fold(OwnedHeaders::new(), |headers, (name, value)| {
            headers.insert(Header { key: &format!("ce_{name}"), value: Some(*value) })
        });
        let record = FutureRecord::<str, str>::to("t").payload(body).headers(headers);
        self.producer.send(record, Duration::from_secs(30)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_record_cannot_become_is_put_aside_and_tried_again() {
    let (cluster, sink) = (Cluster::start(), Sink::accepting().await);
    let broker = Broker::start(&cluster.yaml(&sink, "event: { type: \"com.example.{body.kind}\" }")).await;
    let event = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")];
    cluster.send(&[], r#"{"kind":"a"}"#).await;
    cluster.send(&[], r#"{"other":1}"#).await;
    cluster.send(&event, "one").await;
    cluster.send(&event, "two").await;
    cluster.send(&event, "one").await;
    cluster.send(&event[..3], "three").await;
    cluster.send(&[], r#"{"kind":"b"}"#).await;
    // The position is what is committed.
    let source = broker.get_when("sources/orders", |source| source["position"] == "t/0/6").await;
    let counts = ["accepted", "duplicates", "put_aside"].map(|name| source[name].as_u64().unwrap());
    assert_eq!(counts, [3, 1, 3], "{source}");
    let metrics = broker.ask("/metrics").await.text();
    for line in ["reason=\"quarantine\"} 2", "reason=\"conflict\"} 1"] {
        assert!(
            metrics.contains(&format!("\nsluice_put_aside_total{{source=\"orders\",{line}\n")),
            "{metrics}"
        );
    }

    let broker = broker.kill_and_restart().await;
    let listed = broker.cli("dlq list --via orders --reason conflict --json").json();
    let id = listed[0]["id"].as_str().unwrap();
    let shown = broker.cli(&format!("dlq show {id} --json")).json();
    assert_eq!((&shown["event"], &shown["record"]["position"]), (&json!(null), &json!("t/0/3")), "{shown}");
    assert!(
        shown["detail"].as_str().unwrap().contains("the same source and id and other content"),
        "{shown}"
    );
    let better = cluster.yaml(&sink, "event: { type: \"com.example.{body.kind|none}\" }");
    assert_eq!(broker.reload(&better).await.status, 200);
    let answer = broker.do_call("dead-letters/redrive", &json!({ "via": "orders" })).await;
    assert_eq!((&answer["redriven"], answer["failed"].as_array().unwrap().len()), (&json!(1), 2), "{answer}");
    broker.dead_letters(2).await;
    broker.trigger_when("all", |trigger| trigger["delivered"] == 4).await;
    let mut types: Vec<_> =
        sink.received().iter().map(|one| one.header("ce-type").unwrap().to_owned()).collect();
    types.sort();
    types.dedup();
    assert_eq!(types, ["com.example.a", "com.example.b", "com.example.none", "t"]);
}

/// As after a kill before the commit, told by a group that knows no offset.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_put_aside_and_comes_again_is_listed_once() {
    let (cluster, sink) = (Cluster::start(), Sink::accepting().await);
    let event = "event: { type: \"{body.kind}\" }";
    let broker = Broker::start(&cluster.yaml(&sink, event)).await;
    // The same at another place is another record.
    for _ in 0..2 {
        cluster.send(&[], "{}").await;
    }
    cluster.send(&[], r#"{"kind":"a"}"#).await;
    broker.get_when("sources/orders", |source| source["position"] == "t/0/2").await;
    let listed = broker.dead_letters(2).await;

    let anew = async |broker: &Broker, group: &str| {
        let yaml = cluster.yaml(&sink, event).replace("group: g", &format!("group: {group}"));
        assert_eq!(broker.reload(&yaml).await.status, 200);
        broker
            .get_when("sources/orders", |source| source["put_aside"] == 2 && source["duplicates"] == 1)
            .await;
    };
    let broker = broker.kill_and_restart().await;
    anew(&broker, "again").await;
    assert_eq!(broker.dead_letters(2).await, listed);
    // By a snapshot, too.
    let broker = broker.stop_and_restart().await;
    anew(&broker, "once-more").await;
    assert_eq!(broker.dead_letters(2).await, listed);
    // What was purged is not known any more.
    assert_eq!(broker.cli("dlq purge --all --yes").code, 0);
    let broker = broker.stop_and_restart().await;
    anew(&broker, "last").await;
    assert_ne!(broker.dead_letters(2).await, listed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_too_large_even_to_be_put_aside_is_named_until_the_file_says_what_to_do() {
    let (cluster, sink) = (Cluster::start(), Sink::accepting().await);
    let event = "event: { type: \"{body.kind}\" }";
    let broker = Broker::start(&cluster.yaml(&sink, event)).await;
    cluster.send(&[], r#"{"kind":"before"}"#).await;
    cluster.send(&[], &"x".repeat(3000)).await;
    cluster.send(&[], r#"{"kind":"behind"}"#).await;
    let source = broker.get_when("sources/orders", |source| source["state"] == "down").await;
    let error = source["error"].as_str().unwrap();
    assert!(
        error.contains("t/0/1") && error.contains("3000 bytes") && error.contains("oversize: truncate"),
        "{error}"
    );
    assert_eq!(broker.ask("/readyz").await.json()["status"], "degraded");
    broker.get_when("sources/tick", |source| source["state"] == "running").await;
    assert_eq!(sink.wait_for(1).await[0].header("ce-type"), Some("before"));

    let cutting = cluster.yaml(&sink, &format!("{event}\n    oversize: truncate"));
    assert_eq!(broker.reload(&cutting).await.status, 200);
    broker.trigger_when("all", |trigger| trigger["delivered"] == 2).await;
    let id = broker.dead_letters(1).await[0]["id"].as_str().unwrap().to_owned();
    let shown = broker.cli(&format!("dlq show {id} --json")).json();
    assert_eq!((&shown["record"]["size"], &shown["via"]), (&json!(3000), &json!("orders")));
}

/// Limits so low that a segment holds less than what a source hands over at once.
#[tokio::test(flavor = "multi_thread")]
async fn small_segments_take_a_backlog_in_parts() {
    const COUNT: usize = 600;
    let (cluster, sink) = (Cluster::start(), Sink::accepting().await);
    let body = "x".repeat(4000);
    for _ in 0..COUNT {
        cluster.send(&[], &body).await;
    }
    let low = "put_aside_bytes: 1KiB, event_bytes: 16KiB, batch_bytes: 16KiB";
    let yaml = cluster.yaml(&sink, "").replace("put_aside_bytes: 1KiB", low);
    let broker = Broker::start(&format!("store: {{ dir: ./data, segment: 64KiB }}\n{yaml}")).await;
    let source = broker.get_when("sources/orders", |source| source["accepted"] == COUNT).await;
    assert_eq!((&source["duplicates"], &source["state"]), (&json!(0), &json!("running")), "{source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_flows_again_after_a_kill_once_the_group_has_missed_the_member() {
    let (cluster, sink) = (Cluster::start(), Sink::accepting().await);
    let broker = Broker::start(&cluster.yaml(&sink, "")).await;
    cluster.send(&[], "one").await;
    broker.get_when("sources/orders", |source| source["accepted"] == 1).await;
    let killed = Instant::now();
    let broker = broker.kill_and_restart().await;
    cluster.send(&[], "two").await;
    broker.get_when("sources/orders", |source| source["accepted"] == 1).await;
    // The rule is 5 s; the rest is for a machine that has other things to do.
    assert!(killed.elapsed() < SESSION_TIMEOUT + Duration::from_secs(5 + 10), "{:?}", killed.elapsed());
    println!("flows {:?} after the kill", killed.elapsed());
    broker.trigger_when("all", |trigger| trigger["delivered"] == 2).await;
}
