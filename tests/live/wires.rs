//! Between the broker and the server the wire is cut, or goes silent with both ends open, under the source and the sink at once.

use bytes::Bytes;

use crate::proxy::Wire;
use crate::story::{COUNT, Story};

pub async fn a_cut_wire_is_a_reason_and_loses_nothing(story: Story) {
    break_and_mend(story, Wire::Cut).await;
}

pub async fn a_silent_wire_is_noticed_and_loses_nothing(story: Story) {
    break_and_mend(story, Wire::Silent).await;
}

async fn break_and_mend(story: Story, broken: Wire) {
    story.create(1).await;
    story.system.redeliver_soon(story.services, &story.inward);
    let proxy = story.system.behind_proxy(story.services).await;
    let behind = story.system.plain_at(proxy.address.to_string());
    let sink = story.system.sink(&story.plain(), &story.outward, "binary");
    let yaml = story.there_and_back(&behind, &behind, "binary").trigger("other", "http", &sink, "");
    let running = story.start(&yaml).await;
    story.send(0..COUNT);
    running.until("some events", async || !running.numbers("in").await.is_empty()).await;
    proxy.set(broken);
    running.until_source_is("in", "down").await;
    running.assert_degraded_by(&["in"]).await;
    // What does not need the wire goes on.
    assert_eq!(running.publish("other", Bytes::from_static(b"x")).await, 202);
    running
        .until("another trigger delivers", async || running.trigger("other").await["delivered"] == 1)
        .await;
    let before = running.numbers("in").await.len();
    story.send(COUNT..2 * COUNT);
    assert_eq!(running.numbers("in").await.len(), before, "nothing passes");
    // A connection that was silent stays so; new ones flow.
    proxy.set(Wire::Flows);
    running.until_all(2 * COUNT).await;
    let source = running.until_source_is("in", "running").await;
    // Only what was under way when the wire broke comes again.
    assert!(source["duplicates"].as_u64().unwrap() <= COUNT as u64, "{source}");
    running.stop().await;
}
