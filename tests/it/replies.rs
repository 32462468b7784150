//! Events that sinks answer with.

use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::broker::Broker;
use crate::sink::{Sink, reply, status};

/// A function that takes what was published, and a listener that takes what the function answers.
fn yaml(function: &Sink, listener: &Sink) -> String {
    format!(
        "triggers:\n  function: {{ sources: [http], sink: \"{}\" }}\n  listener: {{ sources: [reply], sink: \"{}\" }}\n",
        function.url, listener.url
    )
}

fn json_answer(media_type: &'static str, body: &serde_json::Value) -> Response {
    ([("content-type", media_type)], body.to_string()).into_response()
}

fn event(id: &str) -> serde_json::Value {
    json!({ "specversion": "1.0", "id": id, "source": "/function", "type": "com.example.reply", "data": { "n": 1 } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_in_each_mode_is_stored_and_routed() {
    let function = Sink::answering(|_, received| match &*received.id() {
        "binary" => reply("r-binary", "com.example.reply"),
        "structured" => json_answer("application/cloudevents+json", &event("r-structured")),
        _ => json_answer("application/cloudevents-batch+json", &json!([event("r-1"), event("r-2")])),
    })
    .await;
    let listener = Sink::accepting().await;
    let broker = Broker::start(&yaml(&function, &listener)).await;
    broker.publish_ids(&["binary", "structured", "batch"]).await;
    listener.wait_for(4).await;
    let mut ids = listener.ids();
    ids.sort();
    assert_eq!(ids, ["r-1", "r-2", "r-binary", "r-structured"]);
    let shown = broker.get("events/by-id?source=%2Ffunction&id=r-binary").await;
    assert_eq!((&shown["via"], &shown["hops"]), (&json!("reply"), &json!(1)));
    let cause = broker.get(&format!("events/{}", shown["parent"].as_str().unwrap())).await;
    assert_eq!(cause["event"]["id"], "binary");
    let page = broker.ask("/metrics").await.text();
    for line in
        ["sluice_events_accepted_total{via=\"reply\"} 4", "sluice_events_duplicate_total{via=\"reply\"} 0"]
    {
        assert!(page.lines().any(|found| found == line), "{line} is missing from\n{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_goes_to_all_triggers_also_to_the_one_it_came_from_until_the_hops_are_used_up() {
    let echo = Sink::answering(|number, _| reply(&format!("r-{number}"), "com.example.again")).await;
    let broker =
        Broker::start(&format!("limits: {{ hops: 3 }}\ntriggers: {{ echo: {{ sink: \"{}\" }} }}", echo.url))
            .await;
    broker.publish_ids(&["1"]).await;
    let dead = &broker.dead_letters(1).await[0];
    assert_eq!(dead["reason"], "loop");
    assert_eq!(echo.received().len(), 4, "the event itself and three hops");
    let shown = broker.get(&format!("dead-letters/{}", dead["id"].as_str().unwrap())).await;
    assert!(shown["detail"].as_str().unwrap().contains("hop 4 of at most 3"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_claims_to_be_an_event_and_is_none_is_a_dead_letter() {
    let function = Sink::answering(|_, _| {
        json_answer("application/cloudevents+json", &json!({ "specversion": "1.0", "id": "1" }))
    })
    .await;
    let listener = Sink::accepting().await;
    let broker = Broker::start(&yaml(&function, &listener)).await;
    broker.publish_ids(&["1"]).await;
    let dead = &broker.dead_letters(1).await[0];
    assert_eq!(dead["reason"], "reply");
    assert_eq!(function.received().len(), 1, "it is not retried");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_claims_nothing_is_forgiven_unless_reply_is_strict() {
    let plain = || Sink::answering(|_, _| ([("content-type", "text/plain")], "thanks").into_response());
    let (lenient, strict, ignored) = (plain().await, plain().await, plain().await);
    let broker = Broker::start(&format!(
        "triggers:\n  lenient: {{ sink: \"{}\" }}\n  strict: {{ sink: \"{}\", delivery: {{ reply: strict }} }}\n  ignored: {{ sink: \"{}\", delivery: {{ reply: ignore }} }}\n",
        lenient.url, strict.url, ignored.url
    ))
    .await;
    broker.publish_ids(&["1"]).await;
    for (name, member) in [("lenient", "delivered"), ("ignored", "delivered"), ("strict", "dead")] {
        broker.trigger_when(name, |trigger| trigger[member] == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_answer_is_never_a_reply() {
    let function = Sink::answering(|_, _| {
        let mut response = reply("r", "com.example.reply");
        *response.status_mut() = ::http::StatusCode::ACCEPTED;
        response
    })
    .await;
    let listener = Sink::accepting().await;
    let broker = Broker::start(&yaml(&function, &listener)).await;
    broker.publish_ids(&["1"]).await;
    broker.trigger_when("function", |trigger| trigger["delivered"] == 1).await;
    assert_eq!(broker.get("triggers/listener").await["seen"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_may_reuse_its_causes_id() {
    let function = Sink::answering(|_, received| {
        let id = received.id();
        (
            [
                ("ce-specversion", "1.0"),
                ("ce-id", &*id),
                ("ce-source", "/test"),
                ("ce-type", "com.example.test"),
            ],
            "",
        )
            .into_response()
    })
    .await;
    let listener = Sink::accepting().await;
    let broker = Broker::start(&yaml(&function, &listener)).await;
    broker.publish_ids(&["same"]).await;
    assert_eq!(listener.wait_for(1).await[0].id(), "same");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_reply_to_another_event_is_a_duplicate_and_one_that_differs_a_dead_letter() {
    let function = Sink::answering(|number, _| match number {
        0 | 1 => reply("r", "com.example.reply"),
        _ => reply("r", "com.example.other"),
    })
    .await;
    let listener = Sink::accepting().await;
    let broker = Broker::start(&yaml(&function, &listener)).await;
    broker.publish_ids(&["1"]).await;
    let reply = "events/by-id?source=%2Ffunction&id=r";
    listener.wait_for(1).await;
    broker.get_when(reply, |shown| shown["deliveries"][0]["state"] == "delivered").await;
    let broker = broker.kill_and_restart().await;
    broker.publish_ids(&["2"]).await;
    broker.trigger_when("function", |trigger| trigger["delivered"] == 2).await;
    broker.publish_ids(&["3"]).await;
    let dead = &broker.dead_letters(1).await[0];
    assert_eq!((&dead["reason"], &dead["event"]["id"]), (&json!("reply"), &json!("3")));
    assert_eq!(function.received().len(), 3, "it is not retried");
    assert_eq!(listener.ids(), ["r"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_whose_outcome_was_lost_is_stored_once() {
    // The broker dies between the function's answer and anything it could write: the function is called again.
    let function = Sink::held().await;
    function.answer_with(|_, received| {
        let id = format!("r-{}", received.id());
        (
            [
                ("ce-specversion", "1.0"),
                ("ce-id", &*id),
                ("ce-source", "/function"),
                ("ce-type", "com.example.reply"),
            ],
            "",
        )
            .into_response()
    });
    let listener = Sink::accepting().await;
    let broker = Broker::start(&yaml(&function, &listener)).await;
    broker.publish_ids(&["1"]).await;
    function.wait_for(1).await;
    let broker = broker.kill_and_restart().await;
    function.wait_for(2).await;
    function.let_go(2);
    broker.trigger_when("function", |trigger| trigger["delivered"] == 1).await;
    broker.trigger_when("listener", |trigger| trigger["delivered"] == 1).await;
    assert_eq!(listener.ids(), ["r-1"]);
    let events = broker.get("events").await;
    assert_eq!(events["items"].as_array().unwrap().len(), 2, "{events:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_full_of_what_a_function_owes_answers_to_recovers_when_it_answers() {
    let function = Sink::answering(|_, _| status(503)).await;
    let broker = Broker::start(&format!(
        "store: {{ dir: ./data, segment: 1MiB, retention: {{ age: 7d, size: 24MiB }} }}\n\
         limits: {{ event_bytes: 256KiB, batch_bytes: 256KiB }}\n\
         triggers: {{ t: {{ sources: [http], sink: \"{}\", delivery: {{ backoff_delay: 1h, backoff_max: 1h }} }} }}\n",
        function.url
    ))
    .await;
    let data = format!("\"{}\"", "x".repeat(200_000));
    let mut stored = 0;
    while broker.publish(&[("id", &stored.to_string())], &data).await.status == 202 {
        stored += 1;
        assert!(stored < 2000, "it never fills");
    }
    broker.trigger_when("t", |trigger| trigger["retrying"] == stored).await;
    let before = function.received().len();
    function.answer_with(|number, _| reply(&format!("r-{number}"), "com.example.reply"));
    broker.do_call("triggers/t/retry", &json!({})).await;
    broker.trigger_when("t", |trigger| trigger["delivered"] == stored).await;
    crate::eventually("room", || async { (broker.ask("/readyz").await.status == 200).then_some(()) }).await;
    assert_eq!(function.received().len() - before, stored, "each was answered once");
}
