//! Attempts, waits, order and pauses.

use std::time::Duration;

use ::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;

use crate::broker::Broker;
use crate::sink::{Sink, gaps, status};

fn yaml(sink: &Sink, delivery: &str) -> String {
    format!("triggers: {{ t: {{ sink: \"{}\", delivery: {{ {delivery} }} }} }}", sink.url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_sink_is_tried_until_it_accepts() {
    let sink = Sink::with_statuses(&[503, 404, 429]).await;
    let broker = Broker::start(&yaml(&sink, "backoff_delay: 10ms")).await;
    let offset = &broker.publish_ids(&["1"]).await[0];
    broker.trigger_when("t", |trigger| trigger["delivered"] == 1).await;
    let shown = broker
        .get_when(&format!("events/{offset}"), |shown| shown["deliveries"][0]["state"] == "delivered")
        .await;
    let attempts = shown["deliveries"][0]["attempts"].as_array().unwrap().iter();
    let told: Vec<_> =
        attempts.map(|attempt| (attempt["attempt"].clone(), attempt["status"].clone())).collect();
    assert_eq!(
        told,
        [(json!(1), json!(503)), (json!(2), json!(404)), (json!(3), json!(429)), (json!(4), json!(204))]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_succeed_is_not_retried() {
    for code in [400, 403, 422, 302] {
        let sink = Sink::answering(move |_, _| status(code)).await;
        let broker = Broker::start(&yaml(&sink, "")).await;
        broker.publish_ids(&["1"]).await;
        let dead = &broker.dead_letters(1).await[0];
        assert_eq!(dead["reason"], "rejected", "{code}");
        assert_eq!(sink.received().len(), 1, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_on_names_a_status_that_is_retried_too() {
    let sink = Sink::with_statuses(&[403, 403]).await;
    let broker = Broker::start(&yaml(&sink, "retry_on: [403]")).await;
    broker.publish_ids(&["1"]).await;
    broker.trigger_when("t", |trigger| trigger["delivered"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_end_at_the_configured_number() {
    let sink = Sink::answering(|_, _| (StatusCode::SERVICE_UNAVAILABLE, "busy now").into_response()).await;
    let broker = Broker::start(&yaml(&sink, "retry: 2")).await;
    broker.publish_ids(&["1"]).await;
    let dead = broker.dead_letters(1).await[0].clone();
    assert_eq!(dead["reason"], "attempts");
    assert_eq!(sink.received().len(), 3);
    let shown = broker.get(&format!("dead-letters/{}", dead["id"].as_str().unwrap())).await;
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 3);
    assert_eq!(shown["attempts"][2]["body"], "busy now");
    assert_eq!(shown["detail"], "the sink answered 503 Service Unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_the_attempt_count() {
    let sink = Sink::answering(|_, _| status(503)).await;
    let broker = Broker::start(&yaml(&sink, "retry: 3, backoff_delay: 1m, backoff_max: 1m")).await;
    let offset = broker.publish_ids(&["1"]).await.remove(0);
    let path = format!("events/{offset}");
    let attempts = |count: usize| {
        move |shown: &serde_json::Value| {
            shown["deliveries"][0]["attempts"].as_array().is_some_and(|all| all.len() == count)
        }
    };
    broker.get_when(&path, attempts(1)).await;
    broker.do_call("triggers/t/retry", &json!({})).await;
    broker.get_when(&path, attempts(2)).await;

    let broker = broker.kill_and_restart().await;
    let pending = broker.get("triggers/t/pending").await;
    assert_eq!(pending["items"][0]["attempts"], 2, "{pending}");
    broker.do_call("triggers/t/retry", &json!({})).await;
    broker.get_when(&path, attempts(3)).await;
    broker.do_call("triggers/t/retry", &json!({})).await;
    let dead = &broker.dead_letters(1).await[0];
    assert_eq!(dead["reason"], "attempts");
    assert_eq!(sink.received().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_waits_goes_by_itself_after_a_kill() {
    // The least wait is the sink's: jitter could make ours next to nothing.
    let sink = Sink::answering(|number, _| match number {
        0 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response(),
        _ => status(204),
    })
    .await;
    let broker = Broker::start(&yaml(&sink, "")).await;
    let offset = broker.publish_ids(&["1"]).await.remove(0);
    broker
        .get_when(&format!("events/{offset}"), |shown| shown["deliveries"][0]["attempts"][0].is_object())
        .await;
    let broker = broker.kill_and_restart().await;
    broker.trigger_when("t", |trigger| trigger["delivered"] == 1).await;
    let waited = gaps(&sink.received())[0];
    assert!(waited >= Duration::from_millis(990), "the wait goes on, it does not begin anew: {waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_delivered_before_a_kill_is_delivered_after_it() {
    let sink = Sink::answering(|_, _| status(503)).await;
    let broker = Broker::start(&yaml(&sink, "")).await;
    let ids: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    broker.publish_ids(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let broker = broker.kill_and_restart().await;
    sink.answer_from_now_on(204);
    let trigger = broker.trigger_when("t", |trigger| trigger["delivered"] == 50).await;
    assert_eq!((&trigger["pending"], &trigger["seen"]), (&json!(0), &json!(50)));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_waits_for_the_delivery_under_way_and_repeats_nothing() {
    let sink = Sink::held().await;
    let mut broker = Broker::start(&yaml(&sink, "")).await;
    broker.publish_ids(&["1"]).await;
    sink.wait_for(1).await;
    let let_go = async {
        crate::eventually("readiness to end", || async {
            (broker.ask("/readyz").await.status == 503).then_some(())
        })
        .await;
        sink.let_go(1);
    };
    broker.signal(rustix::process::Signal::TERM);
    let_go.await;
    assert!(broker.stop().await.success());
    let broker = broker.start_again().await;
    broker.publish_ids(&["2"]).await;
    sink.let_go(1);
    broker.trigger_when("t", |trigger| trigger["delivered"] == 2).await;
    assert_eq!(sink.ids(), ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_does_not_wait_and_what_was_under_way_is_made_again() {
    let sink = Sink::held().await;
    let mut broker = Broker::start(&format!("shutdown_timeout: 1h\n{}", yaml(&sink, ""))).await;
    broker.publish_ids(&["1"]).await;
    sink.wait_for(1).await;
    broker.signal(rustix::process::Signal::TERM);
    crate::eventually("readiness to end", || async {
        (broker.ask("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert!(broker.stop().await.success());
    let said = broker.said();
    assert!(said.contains("told to stop again") && !said.contains("panic"), "{said}");
    let broker = broker.start_again().await;
    sink.let_go(2);
    broker.trigger_when("t", |trigger| trigger["delivered"] == 1).await;
    assert_eq!(sink.ids(), ["1", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_the_least_wait() {
    let sink = Sink::answering(|number, _| match number {
        0 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response(),
        _ => status(204),
    })
    .await;
    let broker = Broker::start(&yaml(&sink, "backoff_delay: 1ms")).await;
    broker.publish_ids(&["1"]).await;
    let received = sink.wait_for(2).await;
    assert!(gaps(&received)[0] >= Duration::from_millis(990), "{:?}", gaps(&received));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_does_not_answer_in_time_is_tried_again() {
    let sink = Sink::held().await;
    let broker = Broker::start(&yaml(&sink, "timeout: 50ms, retry: 1")).await;
    let offset = broker.publish_ids(&["1"]).await.remove(0);
    broker.dead_letters(1).await;
    let shown =
        broker.get_when(&format!("events/{offset}"), |shown| shown["deliveries"][0]["state"] == "dead").await;
    let attempts = &shown["deliveries"][0]["attempts"];
    assert_eq!(attempts[1]["status"], json!(null));
    assert!(attempts[1]["error"].as_str().unwrap().contains("50ms"), "{attempts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn max_age_ends_the_attempts() {
    let sink = Sink::answering(|_, _| status(503)).await;
    let broker = Broker::start(&yaml(&sink, "max_age: 200ms, retry: unlimited, backoff_delay: 30ms")).await;
    broker.publish_ids(&["1"]).await;
    assert_eq!(broker.dead_letters(1).await[0]["reason"], "age");
    assert!(sink.received().len() > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_bounds_what_is_under_way() {
    let sink = Sink::held().await;
    let broker = Broker::start(&yaml(&sink, "concurrency: 2")).await;
    broker.publish_ids(&["1", "2", "3", "4"]).await;
    sink.wait_for(2).await;
    let trigger = broker.trigger_when("t", |trigger| trigger["pending"] == 4).await;
    assert_eq!(trigger["in_flight"], 2);
    let pending = broker.get("triggers/t/pending").await;
    let reasons: Vec<_> = pending["items"].as_array().unwrap().iter().map(|item| &item["reason"]).collect();
    assert_eq!(reasons, ["in_flight", "in_flight", "concurrency", "concurrency"]);
    sink.let_go(4);
    broker.trigger_when("t", |trigger| trigger["delivered"] == 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time_is_log_order() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&yaml(&sink, "concurrency: 1")).await;
    let ids: Vec<String> = (0..40).map(|number| format!("{number:02}")).collect();
    broker.publish_ids(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    broker.trigger_when("t", |trigger| trigger["delivered"] == 40).await;
    assert_eq!(sink.ids(), ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_spreads_deliveries() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&yaml(&sink, "rate: 5/s")).await;
    broker.publish_ids(&["1", "2", "3", "4", "5", "6", "7"]).await;
    let received = sink.wait_for(7).await;
    let took = received[6].at - received[0].at;
    assert!(took >= Duration::from_millis(350), "two more than a second's worth take 0.4 s, not {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn order_holds_a_keys_later_events_until_the_earlier_one_is_settled() {
    // The first delivery of `a1` fails twice; `b1` has another key and does not wait.
    let sink = Sink::answering({
        let failures = std::sync::atomic::AtomicUsize::new(0);
        move |_, received| {
            let fails =
                received.id() == "a1" && failures.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2;
            status(if fails { 503 } else { 204 })
        }
    })
    .await;
    let broker = Broker::start(&yaml(&sink, "order: partitionkey, backoff_delay: 50ms")).await;
    for (id, key) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")] {
        broker.publish(&[("id", id), ("partitionkey", key)], "{}").await;
    }
    broker.trigger_when("t", |trigger| trigger["delivered"] == 4).await;
    let of_a: Vec<_> = sink.ids().into_iter().filter(|id| id.starts_with('a')).collect();
    assert_eq!(of_a, ["a1", "a1", "a1", "a2", "a3"]);
    assert!(sink.ids().iter().position(|id| id == "b1") < sink.ids().iter().position(|id| id == "a2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_null_is_none() {
    let sink = Sink::held().await;
    let broker = Broker::start(&yaml(&sink, "order: \"{data.customer}\"")).await;
    for (id, data) in [("1", "{\"customer\":null}"), ("2", "{\"customer\":null}"), ("3", "{}")] {
        broker.publish(&[("id", id)], data).await;
    }
    sink.wait_for(3).await;
    let metrics = broker.ask("/metrics").await.text();
    assert!(metrics.contains("sluice_trigger_unkeyed_total{trigger=\"t\"} 3"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn order_holds_across_a_kill() {
    let sink = Sink::answering(|_, _| status(503)).await;
    let broker = Broker::start(&yaml(&sink, "order: partitionkey, backoff_delay: 200ms")).await;
    for id in ["1", "2", "3"] {
        broker.publish(&[("id", id), ("partitionkey", "k")], "{}").await;
    }
    broker.get_when("events/0", |shown| shown["deliveries"][0]["attempts"][0].is_object()).await;
    let broker = broker.kill_and_restart().await;
    sink.answer_from_now_on(204);
    broker.trigger_when("t", |trigger| trigger["delivered"] == 3).await;
    let mut ids = sink.ids();
    ids.dedup();
    assert_eq!(ids, ["1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_free_again_after_what_it_held_was_discarded() {
    let sink = Sink::held().await;
    let broker = Broker::start(&yaml(&sink, "order: partitionkey")).await;
    for id in ["1", "2", "3"] {
        broker.publish(&[("id", id), ("partitionkey", "k")], "{}").await;
    }
    sink.wait_for(1).await;
    broker.trigger_when("t", |trigger| trigger["pending"] == 3).await;
    broker.do_call("triggers/t/discard", &json!({})).await;
    sink.let_go(10);
    broker.trigger_when("t", |trigger| trigger["delivered"] == 1 && trigger["dead"] == 2).await;
    broker.publish(&[("id", "4"), ("partitionkey", "k")], "{}").await;
    broker.trigger_when("t", |trigger| trigger["delivered"] == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_when_the_rest_is_discarded_is_not_tried_again() {
    let sink = Sink::held().await;
    sink.answer_from_now_on(503);
    let broker = Broker::start(&yaml(&sink, "concurrency: 2, backoff_delay: 10ms, backoff_max: 10ms")).await;
    broker.publish_ids(&["1", "2", "3"]).await;
    sink.wait_for(2).await;
    broker.trigger_when("t", |trigger| trigger["pending"] == 3).await;
    let told = broker.do_call("triggers/t/discard", &json!({})).await;
    assert_eq!((&told["discarded"], &told["in_flight"]), (&json!(1), &json!(2)), "{told}");
    sink.let_go(10);
    let reasons: Vec<_> = broker.dead_letters(3).await.iter().map(|dead| dead["reason"].clone()).collect();
    assert_eq!(reasons, ["discarded"; 3]);
    broker.trigger_when("t", |trigger| trigger["pending"] == 0 && trigger["dead"] == 3).await;
    assert_eq!(sink.received().len(), 2);
    // What comes in afterwards is no part of it.
    broker.publish_ids(&["4"]).await;
    assert_eq!(sink.wait_for(4).await[3].id(), "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_answers_429_is_left_alone_by_its_trigger_until_an_operator_says_otherwise() {
    let sink = Sink::answering(|number, _| match number {
        0 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "3000")]).into_response(),
        _ => status(204),
    })
    .await;
    let broker = Broker::start(&yaml(&sink, "")).await;
    broker.publish_ids(&["1"]).await;
    broker.trigger_when("t", |trigger| trigger["retrying"] == 1).await;
    broker.publish_ids(&["2"]).await;
    let pending = broker.get_when("triggers/t/pending", |list| list["items"][1].is_object()).await;
    let waits = |n: usize| (&pending["items"][n]["reason"], pending["items"][n]["next_at"].is_string());
    assert_eq!((waits(0), waits(1)), ((&json!("retry"), true), (&json!("retry"), true)), "{pending}");
    assert_eq!(sink.received().len(), 1);
    broker.do_call("triggers/t/retry", &json!({})).await;
    broker.trigger_when("t", |trigger| trigger["delivered"] == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gone_sink_pauses_its_trigger_until_it_is_resumed() {
    let sink = Sink::with_statuses(&[410]).await;
    let broker = Broker::start(&yaml(&sink, "")).await;
    broker.publish_ids(&["1"]).await;
    let trigger = broker.trigger_when("t", |trigger| trigger["paused"] == true).await;
    assert_eq!(trigger["paused_reason"], format!("{} answered 410 Gone", sink.url));
    assert_eq!(broker.dead_letters(1).await[0]["reason"], "gone");
    assert!(broker.said().contains("paused trigger: its sink is gone (410)"));
    broker.publish_ids(&["2"]).await;
    let pending = broker.get_when("triggers/t/pending", |list| list["items"][0]["reason"] == "paused").await;
    assert_eq!(pending["items"].as_array().unwrap().len(), 1);

    let broker = broker.kill_and_restart().await;
    assert_eq!(broker.get("triggers/t").await["paused"], true, "a pause survives a restart");
    broker.do_call("triggers/t/resume", &json!({})).await;
    broker.trigger_when("t", |trigger| trigger["delivered"] == 1).await;
    assert_eq!(sink.ids(), ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_410_that_retry_on_names_is_retried_like_any_other() {
    let sink = Sink::with_statuses(&[410]).await;
    let broker = Broker::start(&yaml(&sink, "retry_on: [410], backoff_delay: 10ms")).await;
    broker.publish_ids(&["1"]).await;
    let trigger = broker.trigger_when("t", |trigger| trigger["delivered"] == 1).await;
    assert_eq!((&trigger["paused"], &trigger["dead"]), (&json!(false), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gone_sinks_trigger_goes_on_when_its_sink_changes() {
    let (gone, new) = (Sink::answering(|_, _| status(410)).await, Sink::accepting().await);
    let broker = Broker::start(&yaml(&gone, "")).await;
    broker.publish_ids(&["1"]).await;
    broker.trigger_when("t", |trigger| trigger["paused"] == true).await;
    broker.publish_ids(&["2"]).await;
    assert_eq!(broker.reload(&yaml(&new, "")).await.status, 200);
    broker.trigger_when("t", |trigger| trigger["delivered"] == 1 && trigger["paused"] == false).await;
    assert_eq!(new.ids(), ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_sink_delays_no_other_trigger() {
    let (slow, quick) = (Sink::held().await, Sink::accepting().await);
    let broker = Broker::start(&format!(
        "triggers: {{ slow: {{ sink: \"{}\" }}, quick: {{ sink: \"{}\" }} }}",
        slow.url, quick.url
    ))
    .await;
    let ids: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    broker.publish_ids(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    broker.trigger_when("quick", |trigger| trigger["delivered"] == 100).await;
    assert_eq!(broker.get("triggers/slow").await["pending"], 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_structured_sink_gets_json_and_its_headers() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&format!(
        "triggers: {{ t: {{ sink: {{ http: {{ url: \"{}\", mode: structured, headers: {{ x-team: audit }} }} }} }} }}",
        sink.url
    ))
    .await;
    broker.publish(&[("id", "1")], "{ \"n\":  1.0 }").await;
    let received = &sink.wait_for(1).await[0];
    assert_eq!(received.header("content-type"), Some("application/cloudevents+json; charset=utf-8"));
    assert_eq!(received.header("x-team"), Some("audit"));
    let text = String::from_utf8(received.body.to_vec()).unwrap();
    assert!(text.contains("{ \"n\":  1.0 }"), "data goes out as it came: {text}");
}
