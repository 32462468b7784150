//! Faults of Kafka that a real server does not have on demand, with the cluster that librdkafka brings along.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use sluice_adapters::Report;

use crate::rig::{Running, Store, run};

struct Story {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: FutureProducer,
    store: Arc<Store>,
}

fn tell<F: Future<Output = ()>>(partitions: i32, story: impl FnOnce(Story) -> F) {
    crate::said::listen();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = MockCluster::new(3).unwrap();
        cluster.create_topic("t", partitions, 3).unwrap();
        let servers = cluster.bootstrap_servers();
        let producer = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
        story(Story { cluster, producer, store: Arc::default() }).await;
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
}

impl Story {
    fn run(&self) -> Running {
        let servers = self.cluster.bootstrap_servers();
        let brokers: Vec<_> = servers.split(',').map(|server| format!("\"{server}\"")).collect();
        let brokers = brokers.join(", ");
        run(
            &self.store,
            &format!("kafka: {{ brokers: [{brokers}], topics: [t], group: g, session_timeout: 6s }}"),
        )
    }

    async fn send(&self, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let id = number.to_string();
            let four = [("specversion", "1.0"), ("id", &*id), ("source", "/s"), ("type", "t")];
            let headers = four.iter().fold(OwnedHeaders::new(), |headers, (name, value)| {
                headers.insert(Header { key: &format!("ce_{name}"), value: Some(*value) })
            });
            let record = FutureRecord::<str, str>::to("t").key(&id).headers(headers);
            self.producer.send(record, Duration::from_secs(30)).await.unwrap();
        }
    }

    async fn until_all(&self, count: usize) {
        self.store.until(&format!("{count} events"), |stored| stored.events.len() >= count).await;
        let mut ids = self.store.lock().ids();
        ids.sort_unstable();
        assert_eq!(ids, (0..count).collect::<Vec<_>>());
    }
}

#[test]
fn another_leader_is_found_and_no_offset_is_left_out() {
    tell(1, async |story| {
        story.cluster.partition_leader("t", 0, Some(1)).unwrap();
        let _running = story.run();
        story.send(0..50).await;
        story.until_all(50).await;
        story.cluster.partition_leader("t", 0, Some(2)).unwrap();
        story.cluster.broker_down(1).unwrap();
        story.send(50..100).await;
        story.until_all(100).await;
        story.cluster.broker_up(1).unwrap();
        story.cluster.partition_leader("t", 0, Some(1)).unwrap();
        story.send(100..150).await;
        story.until_all(150).await;
        assert_eq!(story.store.lock().ids(), (0..150).collect::<Vec<_>>(), "in order");
    });
}

#[test]
fn a_commit_that_fails_is_made_again_or_means_duplicates() {
    tell(1, async |story| {
        let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; 3];
        story.cluster.request_errors(RDKafkaApiKey::OffsetCommit, &refused);
        let running = story.run();
        story.send(0..5).await;
        story.until_all(5).await;
        crate::said::until(&["a commit failed"]).await;
        story.send(5..10).await;
        story.until_all(10).await;
        story
            .store
            .until("a commit", |stored| {
                let last = Report::Position("t/0/9".into());
                stored.reports.contains(&last)
            })
            .await;
        running.stop().await;
        let _running = story.run();
        story.send(10..11).await;
        story.until_all(11).await;
        let stored = story.store.lock();
        assert!(stored.down.is_empty() && stored.duplicates == 0, "{:?} {}", stored.down, stored.duplicates);
    });
}

#[test]
fn nothing_is_committed_that_was_not_stored_whoever_gets_the_partitions() {
    tell(4, async |story| {
        story.store.is_full.store(true, Ordering::Relaxed);
        let one = story.run();
        story.send(0..200).await;
        // Longer than the interval of commits.
        story.store.until("it was refused for seconds", |stored| stored.refused > 5).await;
        // The other takes partitions away from it, with all it has received of them.
        let before = story.store.lock().reports.len();
        let other = story.run();
        story
            .store
            .until("the other is refused, too", |stored| {
                stored.refused > 10 && stored.reports[before..].contains(&Report::Up)
            })
            .await;
        assert!(story.store.lock().events.is_empty());
        one.stop().await;
        other.stop().await;
        let reports = story.store.lock().reports.clone();
        assert!(!reports.iter().any(|report| matches!(report, Report::Position(_))), "{reports:?}");
        story.store.is_full.store(false, Ordering::Relaxed);
        let _last = story.run();
        story.until_all(200).await;
    });
}
