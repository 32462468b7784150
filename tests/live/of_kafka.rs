//! What only a source of Kafka does.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};

use crate::rig::{Stored, run};
use crate::services::Services;
use crate::stories::{Story, tell};
use crate::systems::System;

fn yaml(story: &Story, topics: &str, more: &str) -> String {
    let (address, place) = (story.system.address(story.services), &story.place);
    format!("kafka: {{ brokers: [\"{address}\"], {topics}, group: g-{place}, session_timeout: 6s{more} }}")
}

/// Lines for the console's producer, with properties of its reader.
fn produce(services: &Services, topic: &str, properties: &[&str], lines: &str) {
    let mut java = Command::new("java");
    java.args([
        "-Xmx128m",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        &format!("{}/*", services.at("SLUICE_KAFKA_LIB")),
    ]);
    java.args(["org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", services.at("SLUICE_KAFKA")]);
    java.args(["--topic", topic, "--producer-property", "acks=all"]);
    java.args(["--producer-property", "max.request.size=4000000"]);
    for property in properties {
        java.args(["--property", property]);
    }
    let mut child =
        java.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn topics_that_match_are_found_also_later() {
    tell(System::Kafka, "topics_that_match_are_found_also_later", async |story| {
        let [early, late, other] = ["early", "late", "x"].map(|name| match name {
            "x" => format!("x{}-early", story.place),
            name => format!("{}-{name}", story.place),
        });
        for topic in [&early, &other] {
            System::Kafka.create(story.services, topic, 1).await;
            System::Kafka.send(
                story.services,
                topic,
                &[System::Kafka.binary(if topic == &other { 9 } else { 0 })],
            );
        }
        let _running = run(&story.store, &yaml(&story, &format!("pattern: \"{}-.*\"", story.place), ""));
        story.store.until("an event", |stored| stored.events.len() == 1).await;
        let created = Instant::now();
        System::Kafka.create(story.services, &late, 2).await;
        System::Kafka.send(story.services, &late, &[System::Kafka.binary(1)]);
        story.store.until("an event of the new topic", |stored| stored.events.len() == 2).await;
        // The rule is 30 s; the rest is for a machine that has other things to do.
        assert!(created.elapsed() < Duration::from_secs(45), "{:?}", created.elapsed());
        assert_eq!(story.store.lock().ids(), [0, 1]);
    });
}

#[test]
fn a_new_group_begins_where_the_file_says() {
    tell(System::Kafka, "a_new_group_begins_where_the_file_says", async |story| {
        story.create().await;
        story.send_numbered(0..5);
        let topics = format!("topics: [{}]", story.place);
        let latest = run(&story.store, &yaml(&story, &topics, ", start: latest"));
        story.store.until("it is up", Stored::is_up).await;
        // It takes a moment until it knows where the end is.
        let mut next = 5;
        while story.store.lock().events.is_empty() {
            assert!(next < 60, "nothing arrives");
            story.send_numbered(next..next + 1);
            next += 1;
        }
        latest.stop().await;
        assert!(story.store.lock().ids().iter().all(|id| *id >= 5), "{:?}", story.store.lock().ids());
        // Only of a group without offsets: this one goes on where it was.
        let earliest = run(&story.store, &yaml(&story, &topics, ", start: earliest"));
        story.send_numbered(next..next + 1);
        story.store.until("the next", |stored| stored.ids().contains(&next)).await;
        earliest.stop().await;
        assert!(story.store.lock().ids().iter().all(|id| *id >= 5), "{:?}", story.store.lock().ids());
    });
}

#[test]
fn offsets_that_are_gone_are_passed_over_with_a_warning() {
    tell(System::Kafka, "offsets_that_are_gone_are_passed_over_with_a_warning", async |story| {
        story.create().await;
        let yaml = story.yaml();
        let running = run(&story.store, &yaml);
        story.send_numbered(0..5);
        story.until_all(5).await;
        running.stop().await;
        story.send_numbered(5..10);
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", story.services.at("SLUICE_KAFKA")).create().unwrap();
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(&story.place, 0, Offset::Offset(8)).unwrap();
        admin.delete_records(&before, &AdminOptions::new()).await.unwrap();
        let _running = run(&story.store, &yaml);
        story.store.until("what is left", |stored| stored.ids().ends_with(&[8, 9])).await;
        assert_eq!(story.store.lock().ids(), [0, 1, 2, 3, 4, 8, 9]);
        crate::said::until(&[&story.place, "offset reset"]).await;
    });
}

#[test]
fn a_member_has_its_place_by_name() {
    tell(System::Kafka, "a_member_has_its_place_by_name", async |story| {
        story.create().await;
        let yaml = yaml(&story, &format!("topics: [{}]", story.place), ", instance: one");
        let first = run(&story.store, &yaml);
        story.send_numbered(0..3);
        story.until_all(3).await;
        // It comes back before anybody missed it.
        first.stop().await;
        let second = run(&story.store, &yaml);
        story.send_numbered(3..6);
        story.until_all(6).await;
        // Of two with one name the older has to go, and says so.
        let third = run(&story.store, &yaml);
        story
            .store
            .until("one of them is fenced", |stored| {
                stored.down.iter().any(|down| down.to_lowercase().contains("fenced"))
            })
            .await;
        drop(second);
        story.send_numbered(6..9);
        story.until_all(9).await;
        third.stop().await;
    });
}

#[test]
fn tombstones_and_keys_and_bodies_of_any_size_are_records() {
    tell(System::Kafka, "tombstones_and_keys_and_bodies_of_any_size_are_records", async |story| {
        story.create().await;
        let properties = ["parse.key=true", "parse.headers=true", "null.marker=NOTHING"];
        let headers = "ce_specversion:1.0,ce_id:0,ce_source:/foreign,ce_type:deleted";
        let large = "x".repeat(1_500_000);
        let lines = format!(
            "{headers},ce_subject:NOTHING\tcustomer-1\tNOTHING\nh:1\tcustomer-2\tNOTHING\nh:1\tNOTHING\t{large}\n{headers},ce_id:1\tk\ttwice\nh:1\tcustomer-3\tlast\n"
        );
        produce(story.services, &story.place, &properties, &lines);
        let yaml = format!("{}\nevent: {{ subject: \"{{key}}\" }}", story.yaml());
        let running = run(&story.store, &yaml);
        story
            .store
            .until("three events and two aside", |stored| stored.events.len() == 3 && stored.aside.len() == 2)
            .await;
        running.stop().await;
        let stored = story.store.lock();
        let shown: Vec<_> = stored
            .events
            .iter()
            .map(|event| {
                let key = (event.text("partitionkey"), event.subject());
                (event.ty(), key, event.data().map(|data| data.bytes.clone()))
            })
            .collect();
        let (one, two, three) = ("customer-1", "customer-2", "customer-3");
        assert_eq!(
            shown,
            [
                ("deleted", (Some(one), None), None),
                ("sluice.kafka.record", (Some(two), Some(two)), None),
                ("sluice.kafka.record", (Some(three), Some(three)), Some("last".into())),
            ]
        );
        let aside: Vec<_> = stored.aside.iter().map(|aside| (aside.size, &*aside.unfit.detail)).collect();
        assert_eq!(
            aside,
            [
                (1_500_000, "1500000 bytes are more than the 1048576 of event_bytes"),
                (5, "attribute `id` occurs more than once")
            ]
        );
        assert_eq!(stored.aside[0].record.position, format!("{}/0/2", story.place));
    });
}
