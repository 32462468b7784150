//! The samples of the README's sections on systems, run as they are written but for the addresses.

use std::time::{Duration, Instant};

use crate::harness::broker::{Broker, Setup};
use crate::services::services;
use crate::story::ask;
use crate::systems::System;

fn sample(section: &str) -> String {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let after = text.split_once(&format!("\n## {section}\n")).expect("the section").1;
    let block = after.split_once("```yaml\n").expect("a sample").1;
    block.split_once("```").unwrap().0.to_owned()
}

fn check(system: System, section: &str, place: &str, source: &str, ours: &[(&str, &str)]) {
    let _turn = system.turn();
    let Some(services) = services() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut yaml = sample(section);
    for (written, name) in ours {
        assert!(yaml.contains(written), "{written}");
        let value = if name.starts_with("SLUICE_") { services.at(name) } else { name };
        yaml = yaml.replace(written, value);
    }
    let listen = "http: { listen: 127.0.0.1:0 }\nadmin: { listen: 127.0.0.1:0 }\n";
    let path = dir.path().join("sample.yaml");
    std::fs::write(&path, format!("{listen}store: {{ dir: {} }}\n{yaml}", dir.path().join("data").display()))
        .unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        if system != System::Amqp {
            system.create(services, place, 1).await;
        }
        let mut broker = Broker::start(&Setup::new(&path));
        let addresses = broker.must_be_ready().await;
        let since = Instant::now();
        // An AMQP queue is declared by the source.
        let mut was_sent = false;
        loop {
            let shown = ask(addresses, &["sources", "show", source]).unwrap_or_default();
            if shown["state"] == "running" && !was_sent {
                system.send(services, place, &[system.binary(0)]);
                was_sent = true;
            }
            if shown["accepted"].to_string().trim_matches('"') == "1" {
                break;
            }
            assert!(since.elapsed() < Duration::from_secs(60), "{shown}\n{}", broker.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
}

#[test]
fn kafka() {
    check(System::Kafka, "Kafka", "orders", "orders", &[("localhost:9092", "SLUICE_KAFKA")]);
}

#[test]
fn amqp() {
    let ours = [("guest:${AMQP_PASSWORD}", "sluice:open-sesame"), ("localhost:5672", "SLUICE_AMQP")];
    check(System::Amqp, "AMQP", "payments", "payments", &ours);
}

#[test]
fn nats() {
    check(System::Nats, "NATS", "SENSORS", "sensors", &[("localhost:4222", "SLUICE_NATS")]);
}
