//! Through the broker and back: a source, a trigger with a sink of the same system, and a source of what the sink wrote.

use serde_json::Value;

use crate::story::{COUNT, Running, Story, ask};

pub async fn binary_comes_back_as_it_was(story: Story) {
    everything_comes_back_as_it_was(story, "binary").await;
}

pub async fn structured_comes_back_as_it_was(story: Story) {
    everything_comes_back_as_it_was(story, "structured").await;
}

/// In order where there is one order, with all it carries, by the commands that people use.
async fn everything_comes_back_as_it_was(story: Story, mode: &str) {
    story.create(1).await;
    let running = story.start(&story.there_and_back(&story.plain(), &story.plain(), mode)).await;
    story.send(0..COUNT);
    running.until_all(COUNT).await;
    assert_eq!(running.numbers("in").await, (0..COUNT).collect::<Vec<_>>(), "in order");
    let newest =
        ask(running.addresses, &["events", "list", "--via", "back", "--type", "com.example.sent"]).unwrap();
    for event in [&newest[0], &newest[1]] {
        let shown = ask(running.addresses, &["events", "show", event["offset"].as_str().unwrap()]).unwrap();
        let shown = &shown["event"];
        let of = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
        assert_eq!((of("source"), of("subject")), ("/foreign".into(), "kept".into()), "{shown}");
        assert_eq!(
            (of("ownext"), of("datacontenttype")),
            ("42".into(), "application/json".into()),
            "{shown}"
        );
        assert_eq!(shown["data"]["n"].to_string(), of("id"), "{shown}");
    }
    for name in ["in", "back"] {
        let source = ask(running.addresses, &["sources", "show", name]).unwrap();
        assert_eq!((&source["state"], &source["error"]), (&Value::from("running"), &Value::Null), "{source}");
        assert_eq!(source["duplicates"], 0, "{source}");
    }
    running.stop().await;
}

/// `kill -9` of the broker in the middle, then of the server.
pub async fn nothing_is_lost_and_nothing_is_twice_after_kills(story: Story) {
    story.create(1).await;
    let yaml = story.there_and_back(&story.plain(), &story.plain(), "binary");
    let running = story.start(&yaml).await;
    story.send(0..COUNT);
    running.until("some events", async || !running.numbers("in").await.is_empty()).await;
    running.broker.kill().await;
    story.send(COUNT..COUNT + 100);
    let running: Running = story.start(&yaml).await;
    running.until_all(COUNT + 100).await;
    story.services.kill(story.system.server());
    running.until_source_is("in", "down").await;
    story.bring_back_server();
    story.send(COUNT + 100..COUNT + 200);
    running.until_all(COUNT + 200).await;
    running.stop().await;
}
