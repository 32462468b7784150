//! Which events a trigger gets.

use serde_json::json;

use crate::broker::Broker;
use crate::sink::{Sink, reply, status};

/// Publishes events `id type source subject` and says which of them a trigger with these keys gets.
async fn check(keys: &str, events: &[(&str, &str)], expected: &[&str]) {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&format!("triggers: {{ t: {{ sink: \"{}\", {keys} }} }}", sink.url)).await;
    for (id, ty) in events {
        let answer = broker.publish(&[("id", id), ("type", ty), ("subject", id)], "{}").await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    let trigger =
        broker.trigger_when("t", |trigger| trigger["seen"] == events.len() && trigger["pending"] == 0).await;
    let mut ids = sink.ids();
    ids.sort();
    assert_eq!(ids, expected, "{keys}");
    assert_eq!(trigger["matched"], expected.len());
    assert_eq!(trigger["unmatched"], events.len() - expected.len());
}

const EVENTS: &[(&str, &str)] =
    &[("a", "com.example.order.created"), ("b", "com.example.order.paid"), ("c", "org.example.created")];

#[tokio::test(flavor = "multi_thread")]
async fn no_filters_match_everything() {
    check("filters: []", EVENTS, &["a", "b", "c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_prefix_and_suffix_compare_attributes() {
    check("filters: [exact: { type: com.example.order.paid }]", EVENTS, &["b"]).await;
    check("filters: [prefix: { type: com.example. }]", EVENTS, &["a", "b"]).await;
    check("filters: [suffix: { type: .created }]", EVENTS, &["a", "c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_any_and_not_combine_and_all_filters_must_hold() {
    check("filters: [prefix: { type: com. }, suffix: { type: .created }]", EVENTS, &["a"]).await;
    check("filters: [any: [exact: { subject: b }, exact: { subject: c }]]", EVENTS, &["b", "c"]).await;
    check("filters: [all: [prefix: { type: com. }, not: { exact: { subject: a } }]]", EVENTS, &["b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_attribute_does_not_match() {
    check("filters: [prefix: { nosuch: \"x\" }]", EVENTS, &[]).await;
    check("filters: [not: { exact: { nosuch: x } }]", EVENTS, &["a", "b", "c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_tell_replies_from_what_was_published() {
    let function = Sink::answering(|number, _| reply(&format!("reply-{number}"), "com.example.reply")).await;
    let (published, replies) = (Sink::accepting().await, Sink::accepting().await);
    let broker = Broker::start(&format!(
        "triggers:\n  function: {{ sources: [http], sink: \"{}\" }}\n  published: {{ sources: [http], sink: \"{}\" }}\n  replies: {{ sources: [reply], sink: \"{}\" }}\n",
        function.url, published.url, replies.url
    ))
    .await;
    broker.publish_ids(&["1", "2"]).await;
    replies.wait_for(2).await;
    broker.trigger_when("published", |trigger| trigger["seen"] == 4 && trigger["pending"] == 0).await;
    assert_eq!(published.ids().len(), 2);
    assert_eq!(replies.received()[0].header("ce-type"), Some("com.example.reply"));
    assert_eq!(function.received().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_triggers_get_one_event_independently() {
    let (bad, good) = (Sink::answering(|_, _| status(422)).await, Sink::accepting().await);
    let broker = Broker::start(&format!(
        "triggers: {{ bad: {{ sink: \"{}\" }}, good: {{ sink: \"{}\" }} }}",
        bad.url, good.url
    ))
    .await;
    broker.publish_ids(&["1"]).await;
    broker.trigger_when("good", |trigger| trigger["delivered"] == 1).await;
    broker.trigger_when("bad", |trigger| trigger["dead"] == 1).await;
    assert_eq!((bad.ids(), good.ids()), (vec!["1".to_owned()], vec!["1".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_starts_where_it_says() {
    let broker = Broker::start("triggers: {}").await;
    broker.publish_ids(&["old"]).await;
    let rows = broker.get("events").await;
    let old_at: jiff::Timestamp = rows["items"][0]["received_at"].as_str().unwrap().parse().unwrap();
    // Times are kept in milliseconds: the next event is later when the clock says so.
    crate::eventually("the next millisecond", || async {
        (jiff::Timestamp::now().as_millisecond() > old_at.as_millisecond() + 1).then_some(())
    })
    .await;
    broker.publish_ids(&["middle"]).await;
    let rows = broker.get("events").await;
    let middle_at = rows["items"][0]["received_at"].as_str().unwrap().to_owned();

    let sinks = [Sink::accepting().await, Sink::accepting().await, Sink::accepting().await];
    let answer = broker
        .reload(&format!(
            "triggers:\n  latest: {{ sink: \"{}\" }}\n  earliest: {{ sink: \"{}\", start: earliest }}\n  since: {{ sink: \"{}\", start: \"{middle_at}\" }}\n",
            sinks[0].url, sinks[1].url, sinks[2].url
        ))
        .await;
    assert_eq!(answer.json()["added"], json!(["earliest", "latest", "since"]));
    broker.publish_ids(&["new"]).await;
    for (name, count) in [("latest", 1), ("earliest", 3), ("since", 2)] {
        let trigger = broker.trigger_when(name, |trigger| trigger["delivered"] == count).await;
        assert_eq!(trigger["seen"], count, "{name}: {trigger}");
    }
    assert_eq!(sinks[0].ids(), ["new"]);
    let mut since = sinks[2].ids();
    since.sort();
    assert_eq!(since, ["middle", "new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_counts_only_when_the_name_is_first_seen() {
    let sink = Sink::accepting().await;
    let yaml = |start: &str| format!("triggers: {{ t: {{ sink: \"{}\", start: {start} }} }}", sink.url);
    let broker = Broker::start(&yaml("latest")).await;
    broker.publish_ids(&["1"]).await;
    broker.trigger_when("t", |trigger| trigger["delivered"] == 1).await;
    assert_eq!(broker.reload(&yaml("earliest")).await.status, 200);
    let broker = broker.stop_and_restart().await;
    broker.publish_ids(&["2"]).await;
    broker.trigger_when("t", |trigger| trigger["delivered"] == 2).await;
    assert_eq!(sink.ids(), ["1", "2"]);
}
