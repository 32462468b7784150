//! Two brokers with one consumer group, queue or durable consumer, and one of them is killed.

use std::collections::BTreeSet;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::story::{Running, Story};
use crate::systems::System;

const PARTITIONS: i32 = 4;
/// Acknowledged to the server by both before the kill, under way then, and sent after it.
const ACKNOWLEDGED: usize = 400;
const UNDER_WAY: usize = 1000;
const ALL: usize = 1200;

pub async fn two_brokers_share_the_work_and_one_is_killed(story: Story) {
    story.create(PARTITIONS).await;
    for place in [&story.inward, &story.outward] {
        story.system.redeliver_soon(story.services, place);
    }
    let yaml = story.there_and_back(&story.plain(), &story.plain(), "binary");
    let setups = ["one", "other"].map(|name| story.setup(name, &yaml));
    let one = Running::start(&setups[0]).await;
    let other = Running::start(&setups[1]).await;
    both_are_members(&story, [&one, &other]).await;
    story.send(0..ACKNOWLEDGED);
    other.until("all is acknowledged", async || is_acknowledged(&story, [&one, &other]).await).await;
    let before = [one.numbers("in").await.len(), other.numbers("in").await.len()];
    assert!(before.iter().all(|count| *count > 0), "both work: {before:?}");

    story.send(ACKNOWLEDGED..UNDER_WAY);
    one.until("it works on more", async || one.numbers("in").await.len() > before[0]).await;
    one.broker.kill().await;
    story.send(UNDER_WAY..ALL);
    let rest = async || other.numbers("in").await.into_iter().filter(|number| *number >= UNDER_WAY).count();
    other.until("the other has all that came later", async || rest().await == ALL - UNDER_WAY).await;

    // What the killed one has on its disk counts, too.
    let one = Running::start(&setups[0]).await;
    let brokers = [&one, &other];
    for via in ["in", "back"] {
        other
            .until(&format!("all are there by {via}"), async || union(brokers, via).await.len() == ALL)
            .await;
    }
    let [at_one, at_other] = [numbers(&one, "in").await, numbers(&other, "in").await];
    let twice: Vec<_> = at_one.intersection(&at_other).copied().collect();
    println!("{:?}: {} events are at both brokers", story.system, twice.len());
    assert!(twice.iter().all(|number| *number >= ACKNOWLEDGED), "only what was under way: {twice:?}");
    one.stop().await;
    other.stop().await;
}

/// Where the server gives each its share only while both are there.
async fn both_are_members(story: &Story, brokers: [&Running; 2]) {
    for running in brokers {
        running.until_source_is("in", "running").await;
    }
    if story.system == System::Kafka {
        let consumer = kafka(story);
        let members = || {
            let group = format!("g-{}", story.inward);
            let list = consumer.fetch_group_list(Some(&group), std::time::Duration::from_secs(10)).unwrap();
            let group = &list.groups()[0];
            (group.members().len(), group.state().to_owned())
        };
        brokers[0].until("both are members", async || members() == (2, "Stable".into())).await;
    }
}

/// Whether the server knows of everything that the brokers have that they have it.
async fn is_acknowledged(story: &Story, brokers: [&Running; 2]) -> bool {
    let mut count = 0;
    for running in brokers {
        let numbers = running.numbers("in").await;
        count += numbers.len();
        // The last part of a position counts deliveries (AMQP) or the stream's messages (NATS).
        let last = match story.system {
            System::Kafka => continue,
            System::Amqp => numbers.len(),
            System::Nats => numbers.iter().max().map_or(0, |number| number + 1),
        };
        let position = running.source("in").await["position"].as_str().unwrap_or_default().to_owned();
        if !position.ends_with(&format!("/{last}")) {
            return false;
        }
    }
    count == ACKNOWLEDGED && (story.system != System::Kafka || committed(story) == ACKNOWLEDGED as i64)
}

fn kafka(story: &Story) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", story.system.address(story.services));
    config.set("group.id", format!("g-{}", story.inward));
    config.create().unwrap()
}

fn committed(story: &Story) -> i64 {
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(&story.inward, 0, PARTITIONS - 1);
    let committed = kafka(story).committed_offsets(partitions, std::time::Duration::from_secs(10)).unwrap();
    let of = |offset| if let Offset::Offset(next) = offset { next } else { 0 };
    committed.elements().iter().map(|partition| of(partition.offset())).sum()
}

async fn numbers(running: &Running, via: &str) -> BTreeSet<usize> {
    running.numbers(via).await.into_iter().collect()
}

async fn union(brokers: [&Running; 2], via: &str) -> BTreeSet<usize> {
    let mut all = numbers(brokers[0], via).await;
    all.extend(numbers(brokers[1], via).await);
    all
}
