//! Through the broker and back: a source, a trigger with a sink of the same system, and a source of what the sink wrote.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::broker::{Addresses, Broker, Setup};
use crate::services::{Services, services, turn};
use crate::systems::System;

const COUNT: usize = 300;
const DEADLINE: Duration = Duration::from_secs(90);

struct Story {
    system: System,
    services: &'static Services,
    /// Where foreign senders send, and where the sink writes.
    places: [String; 2],
    setup: Setup,
    _dir: tempfile::TempDir,
}

fn tell<F: Future<Output = ()>>(system: System, mode: &str, story: impl FnOnce(Story) -> F) {
    let _turn = turn();
    let Some(services) = services() else { return };
    let dir = tempfile::tempdir().unwrap();
    let places = ["IN", "OUT"].map(|way| format!("{way}{}", uuid::Uuid::new_v4().simple()));
    let path = dir.path().join("sluice.yaml");
    std::fs::write(&path, yaml(system, services, &places, mode, dir.path())).unwrap();
    let story_of = Story { system, services, places, setup: Setup::new(&path), _dir: dir };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for place in &story_of.places {
            system.create(services, place, 1).await;
        }
        story(story_of).await;
    });
}

fn yaml(
    system: System,
    services: &Services,
    places: &[String; 2],
    mode: &str,
    dir: &std::path::Path,
) -> String {
    let address = system.address(services);
    let [inward, outward] = places;
    let sink = match system {
        System::Kafka => format!("kafka: {{ brokers: [\"{address}\"], topic: {outward}, mode: {mode} }}"),
        System::Amqp => format!(
            "amqp: {{ url: \"amqp://sluice:open-sesame@{address}/%2f\", exchange: \"\", routing_key: {outward}, mode: {mode} }}"
        ),
        System::Nats => {
            format!(
                "nats: {{ servers: [\"nats://{address}\"], subject: {}.x, mode: {mode} }}",
                outward.to_lowercase()
            )
        }
    };
    format!(
        "http: {{ listen: 127.0.0.1:0 }}\nadmin: {{ listen: 127.0.0.1:0 }}\nstore: {{ dir: {} }}\nsources:\n  in:\n    {}\n  \
         back:\n    {}\n  wrong:\n    amqp: {{ url: \"amqp://sluice:wrong-password@{}/%2f\", queue: any }}\ntriggers:\n  out:\n    \
         sources: [in]\n    start: earliest\n    sink: {{ {sink} }}\n    delivery: {{ backoff_delay: 200ms, backoff_max: 1s }}\n",
        dir.join("data").display(),
        system.yaml(&address, inward),
        system.yaml(&address, outward),
        services.at("SLUICE_AMQP"),
    )
}

pub fn ask(addresses: Addresses, words: &[&str]) -> Option<Value> {
    let mut command = Command::new(crate::harness::binary());
    command.args(words).args(["--json", "--admin", &format!("http://{}", addresses.admin)]);
    serde_json::from_slice(&command.output().unwrap().stdout).ok()
}

/// The events that came in this way, the newest first.
fn events(addresses: Addresses, via: &str) -> Vec<Value> {
    let listed = ask(addresses, &["events", "list", "--via", via, "--limit", "1000"]);
    listed.and_then(|listed| listed.as_array().cloned()).unwrap_or_default()
}

async fn until(what: &str, broker: &Broker, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}\n{}", broker.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

impl Story {
    fn send_numbered(&self, numbers: std::ops::Range<usize>) {
        let sent = numbers.map(|number| match number % 2 {
            0 => self.system.binary(number),
            _ => self.system.structured(number),
        });
        self.system.send(self.services, &self.places[0], &sent.collect::<Vec<_>>());
    }

    /// Each is there once in both ways, whatever was killed meanwhile.
    async fn until_all(&self, broker: &Broker, addresses: Addresses, count: usize) {
        for via in ["in", "back"] {
            until(&format!("{count} events by {via}"), broker, || events(addresses, via).len() >= count)
                .await;
            let mut ids: Vec<usize> = events(addresses, via)
                .iter()
                .map(|event| event["id"].as_str().unwrap().parse().unwrap())
                .collect();
            ids.sort_unstable();
            assert_eq!(ids, (0..count).collect::<Vec<_>>(), "by {via}");
        }
    }
}

/// What went out of a sink and came back is what came in.
async fn everything_comes_back_as_it_was(story: Story) {
    let mut broker = Broker::start(&story.setup);
    let addresses = broker.must_be_ready().await;
    story.send_numbered(0..COUNT);
    story.until_all(&broker, addresses, COUNT).await;
    let newest = events(addresses, "back");
    for event in [&newest[0], &newest[1]] {
        let shown = ask(addresses, &["events", "show", event["offset"].as_str().unwrap()]).unwrap();
        let shown = &shown["event"];
        assert_eq!(
            (&shown["source"], &shown["subject"]),
            (&Value::from("/foreign"), &Value::from("kept")),
            "{shown}"
        );
        assert_eq!(
            (&shown["ownext"], &shown["datacontenttype"]),
            (&Value::from("42"), &Value::from("application/json"))
        );
        assert_eq!(shown["data"]["n"].to_string(), shown["id"].as_str().unwrap(), "{shown}");
    }
    let wrong = ask(addresses, &["sources", "show", "wrong"]).unwrap();
    assert_eq!(wrong["state"], "down", "{wrong}");
    assert!(wrong["error"].as_str().unwrap().to_lowercase().contains("refused"), "{wrong}");
    assert!(!wrong.to_string().contains("wrong-password"), "{wrong}");
    assert_eq!(ask(addresses, &["sources", "show", "in"]).unwrap()["state"], "running");
    assert!(broker.terminate().await.success());
}

/// `kill -9` of the broker in the middle, then of the server.
async fn nothing_is_lost_and_nothing_is_twice(story: Story) {
    let mut broker = Broker::start(&story.setup);
    let addresses = broker.must_be_ready().await;
    story.send_numbered(0..COUNT);
    until("some events", &broker, || !events(addresses, "in").is_empty()).await;
    broker.kill().await;
    story.send_numbered(COUNT..COUNT + 100);
    let mut broker = Broker::start(&story.setup);
    let addresses = broker.must_be_ready().await;
    story.until_all(&broker, addresses, COUNT + 100).await;
    story.services.kill(story.system.server());
    until("the source is down", &broker, || {
        ask(addresses, &["sources", "show", "in"]).is_some_and(|source| source["state"] == "down")
    })
    .await;
    story.services.start(story.system.server());
    story.send_numbered(COUNT + 100..COUNT + 200);
    story.until_all(&broker, addresses, COUNT + 200).await;
    assert!(broker.terminate().await.success());
}

#[test]
fn kafka_everything_comes_back_as_it_was() {
    tell(System::Kafka, "binary", everything_comes_back_as_it_was);
}

#[test]
fn kafka_structured_comes_back_as_it_was() {
    tell(System::Kafka, "structured", everything_comes_back_as_it_was);
}

#[test]
fn kafka_nothing_is_lost_and_nothing_is_twice() {
    tell(System::Kafka, "binary", nothing_is_lost_and_nothing_is_twice);
}

#[test]
fn amqp_everything_comes_back_as_it_was() {
    tell(System::Amqp, "binary", everything_comes_back_as_it_was);
}

#[test]
fn amqp_structured_comes_back_as_it_was() {
    tell(System::Amqp, "structured", everything_comes_back_as_it_was);
}

#[test]
fn amqp_nothing_is_lost_and_nothing_is_twice() {
    tell(System::Amqp, "binary", nothing_is_lost_and_nothing_is_twice);
}

#[test]
fn nats_everything_comes_back_as_it_was() {
    tell(System::Nats, "binary", everything_comes_back_as_it_was);
}

#[test]
fn nats_structured_comes_back_as_it_was() {
    tell(System::Nats, "structured", everything_comes_back_as_it_was);
}

#[test]
fn nats_nothing_is_lost_and_nothing_is_twice() {
    tell(System::Nats, "binary", nothing_is_lost_and_nothing_is_twice);
}
