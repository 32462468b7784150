//! The disk is full for ten seconds.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;

use crate::harness::can_run;
use crate::harness::mounts::Mounted;
use crate::harness::wire;
use crate::story::{Running, Story};

/// More than waits in memory, so that the source has to stop taking.
const MANY: usize = 1600;
const DISK_MIB: u64 = 64;
const FULL_FOR: Duration = Duration::from_secs(10);

pub async fn a_full_store_is_waited_for(story: Story) {
    if !can_run("live", true, &["mount"]) {
        return;
    }
    story.create(1).await;
    story.system.redeliver_soon(story.services, &story.inward);
    let disk = Mounted::tmpfs(&story.dir.path().join("broker"), DISK_MIB).unwrap();
    let proxy = story.system.behind_proxy(story.services).await;
    let behind = story.system.plain_at(proxy.address.to_string());
    let mut yaml = story.there_and_back(&behind, &story.plain(), "binary");
    yaml.limits = "event_bytes: 1MiB, batch_bytes: 1MiB".into();
    yaml.store = ", segment: 4MiB, watermark: { free: 1MiB }".into();
    let running = story.start(&yaml).await;
    running.until_source_is("in", "running").await;
    let mut filling = 0;
    let data = Bytes::from(vec![b'x'; 256 << 10]);
    while running.publish(&filling.to_string(), data.clone()).await != StatusCode::SERVICE_UNAVAILABLE {
        filling += 1;
        assert!(filling < 1000, "it never fills");
    }
    let connections = proxy.connections();
    story.send(0..MANY);
    running.until("the source waits", async || running.source("in").await["error"].is_string()).await;
    stays_full(&running).await;
    disk.resize(4 * DISK_MIB);
    running.until_all(MANY).await;
    assert_eq!(running.numbers("in").await, (0..MANY).collect::<Vec<_>>(), "in order");
    let source = running.source("in").await;
    assert_eq!((&source["duplicates"], &source["state"]), (&0.into(), &"running".into()), "{source}");
    assert_eq!(proxy.connections(), connections, "it kept its session");
    running.stop().await;
}

/// The source is up, says why it waits, and takes nothing.
async fn stays_full(running: &Running) {
    let since = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    while since.elapsed() < FULL_FOR {
        tick.tick().await;
        let source = running.source("in").await;
        assert_eq!((&source["state"], &source["accepted"]), (&"running".into(), &0.into()), "{source}");
        assert!(source["error"].as_str().is_some_and(|error| error.contains("full")), "{source}");
        assert!(source["position"].is_null(), "nothing is acknowledged: {source}");
    }
    let ready =
        wire::call(running.addresses.admin, "GET", "/readyz", &serde_json::Value::Null).await.unwrap();
    assert_eq!((ready.status.as_u16(), &ready.json()["status"]), (503, &"full".into()), "{}", ready.json());
}
