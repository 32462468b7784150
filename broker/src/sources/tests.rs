use sluice_adapters::hook::Found;

use super::*;
use crate::store::{self, Options, RealDisk};

const HOOK: &str = "sources: { hook: { webhook: { insecure: true } } }";

/// One thread: no task is polled behind the back of the test.
#[tokio::test]
async fn a_hook_is_open_when_its_source_is_in_force_or_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sluice.yaml");
    std::fs::write(&file, HOOK).unwrap();
    let config = config::load(&[file], &|_| None).unwrap().config;
    let opened = store::open(Arc::new(RealDisk), &Options::bare(&dir.path().join("data"))).unwrap();
    let dispatch = Dispatch::new(opened.log.clone(), opened.state, config.limits, 1000);
    let hooks = Hooks::default();
    let sources = Sources::new(dispatch, hooks.clone(), config.limits.put_aside_bytes);
    let is_open = || matches!(hooks.find("hook"), Found::Open(_));

    sources.adopt(prepare(&config.sources).unwrap()).await;
    assert!(is_open());
    sources.pause("hook").await.unwrap();
    assert!(!is_open());
    sources.resume("hook").await.unwrap();
    assert!(is_open());

    sources.stop(STOP_DEADLINE).await;
    opened.log.stop();
    opened.ended.await.unwrap().unwrap();
}
