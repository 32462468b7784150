//! `POST /events`: what is taken, and what is refused.

use ::http::Method;
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::http::{headers, send};
use crate::sink::Sink;

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

fn everything(sink: &Sink) -> String {
    format!("triggers: {{ all: {{ sink: \"{}\" }} }}", sink.url)
}

fn event(id: &str, data: &Value) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "/test", "type": "com.example.test", "data": data })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_comes_in_in_each_of_the_three_modes_and_goes_out_the_same() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&everything(&sink)).await;
    let binary = broker.publish(&[("id", "binary"), ("ext", "x")], "{ \"n\":  1.0 }").await;
    let structured = broker
        .post(headers([("content-type", STRUCTURED)]), event("structured", &json!({ "n": 2 })).to_string())
        .await;
    let batch = json!([event("batch-1", &json!(3)), event("batch-2", &json!(4))]).to_string();
    let batch = broker.post(headers([("content-type", BATCH)]), batch).await;

    assert_eq!([&binary, &structured, &batch].map(|answer| answer.status.as_u16()), [202; 3]);
    assert!(binary.body.is_empty());
    assert_eq!(binary.header("sluice-offset"), Some("0"));
    assert_eq!(batch.header("sluice-offset"), Some("2,3"));
    let mut received = sink.wait_for(4).await;
    received.sort_by_key(|request| request.id());
    assert_eq!(
        received.iter().map(|request| request.id()).collect::<Vec<_>>(),
        ["batch-1", "batch-2", "binary", "structured"]
    );
    assert_eq!(received[2].body, "{ \"n\":  1.0 }", "bytes go out as they came");
    assert_eq!(received[2].header("ce-ext"), Some("x"));
    assert_eq!(received[2].header("content-type"), Some("application/json"));
    assert_eq!(received[2].header("prefer"), Some("reply"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_data_goes_out_with_a_length() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&everything(&sink)).await;
    broker.publish(&[("id", "1")], "").await;
    let received = &sink.wait_for(1).await[0];
    assert_eq!((received.header("content-length"), received.body.len()), (Some("0"), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_stored_whole_or_not_at_all() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&everything(&sink)).await;
    let batch = json!([event("1", &json!(1)), { "specversion": "1.0", "id": "2", "source": "/test" }]);
    let refused = broker.post(headers([("content-type", BATCH)]), batch.to_string()).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    let problem = refused.json();
    assert!(problem["detail"].as_str().unwrap().contains("`type`"), "{problem}");
    assert_eq!(broker.get("events").await["items"], json!([]));
    let empty = broker.post(headers([("content-type", BATCH)]), "[]").await;
    assert_eq!((empty.status.as_u16(), empty.header("sluice-offset")), (202, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_is_answered_with_its_originals_offset_and_not_stored() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&everything(&sink)).await;
    broker.publish_ids(&["first", "twice"]).await;
    let again = broker.publish(&[("id", "twice")], "{}").await;
    assert_eq!(again.status, 202);
    assert_eq!(again.header("sluice-offset"), Some("1"));
    assert_eq!(again.header("sluice-duplicate"), Some("true"));
    assert_eq!(broker.get("events").await["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_is_known_after_a_kill() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&everything(&sink)).await;
    broker.publish_ids(&["first", "twice"]).await;
    let broker = broker.kill_and_restart().await;
    let again = broker.publish(&[("id", "twice")], "{}").await;
    assert_eq!(again.header("sluice-duplicate"), Some("true"));
    assert_eq!(again.header("sluice-offset"), Some("1"));
    let next = broker.publish_ids(&["third"]).await;
    assert_eq!(next, ["2"], "offsets go on where they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_with_other_content_is_a_conflict() {
    let broker = Broker::start("triggers: {}").await;
    broker.publish_ids(&["1"]).await;
    let other = broker.publish(&[("id", "1")], "{\"other\":true}").await;
    assert_eq!(other.status, 422);
    let problem = other.json();
    assert_eq!(problem["field"], "id", "{problem}");
    let elsewhere = broker.publish(&[("id", "1"), ("source", "/other")], "{\"other\":true}").await;
    assert_eq!(elsewhere.status, 202, "another source may use the id");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_duplicates_everything_is_stored() {
    let broker = Broker::start("duplicates: off\ntriggers: {}").await;
    assert_eq!(broker.publish_ids(&["1", "1"]).await, ["0", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_attribute_and_the_rule() {
    let broker = Broker::start("triggers: {}").await;
    let missing =
        broker.post(headers([("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-type", "t")]), "").await;
    assert_eq!(missing.status, 400);
    assert_eq!(missing.json()["field"], "source");
    let version = broker.publish(&[("id", "1"), ("specversion", "0.3")], "").await;
    assert_eq!(version.status, 400);
    assert!(version.json()["detail"].as_str().unwrap().contains("`specversion`"), "{}", version.text());
    let mut coded = headers([("content-type", STRUCTURED), ("content-encoding", "gzip")]);
    assert_eq!(broker.post(coded.clone(), "x").await.status, 415);
    coded.remove("content-encoding");
    assert_eq!(broker.post(coded, "{").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_and_the_limits_are_configured() {
    let broker = Broker::start("limits: { event_bytes: 1KiB, batch_bytes: 4KiB }\ntriggers: {}").await;
    assert_eq!(broker.publish(&[("id", "1")], &"x".repeat(900)).await.status, 202);
    assert_eq!(broker.publish(&[("id", "2")], &"x".repeat(1025)).await.status, 413);
    let large = "y".repeat(800);
    let fits: Vec<_> = (0..4).map(|number| event(&format!("b{number}"), &json!(large))).collect();
    let batch = |events: &[Value]| broker.post(headers([("content-type", BATCH)]), json!(events).to_string());
    assert_eq!(batch(&fits).await.status, 202);
    let over: Vec<_> = (0..6).map(|number| event(&format!("c{number}"), &json!(large))).collect();
    assert_eq!(batch(&over).await.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_listener_has_one_path_and_says_what_it_takes() {
    let broker =
        Broker::start("http: { listen: 127.0.0.1:0, webhook_origins: [events.example.com] }\ntriggers: {}")
            .await;
    let ask = |method, path, with| send(broker.public, method, path, with, "");
    assert_eq!(ask(Method::GET, "/events", headers([])).await.status, 405);
    assert_eq!(ask(Method::GET, "/events", headers([])).await.header("allow"), Some("POST, OPTIONS"));
    assert_eq!(ask(Method::POST, "/events/", headers([])).await.status, 404);
    assert_eq!(ask(Method::GET, "/metrics", headers([])).await.status, 404);
    let plain = ask(Method::OPTIONS, "/events", headers([])).await;
    assert_eq!((plain.status.as_u16(), plain.header("webhook-allowed-origin")), (200, None));
    let known = headers([("webhook-request-origin", "events.example.com")]);
    let consent = ask(Method::OPTIONS, "/events", known).await;
    assert_eq!(consent.header("webhook-allowed-origin"), Some("events.example.com"));
}
