//! The operators' listener: health, metrics, books, and what an operator can do.

use ::http::Method;
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::http::{headers, send};
use crate::sink::{Sink, status};

fn yaml(sink: &Sink, delivery: &str) -> String {
    format!("triggers: {{ t: {{ sink: \"{}\", delivery: {{ {delivery} }} }} }}", sink.url)
}

fn assert_balanced(trigger: &Value) {
    let of = |name: &str| trigger[name].as_u64().unwrap();
    assert_eq!(of("seen"), of("matched") + of("unmatched") + of("lost"), "{trigger}");
    assert_eq!(of("matched"), of("delivered") + of("dead") + of("purged") + of("pending"), "{trigger}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness_say_how_it_is() {
    let sink = Sink::held().await;
    let broker = Broker::start(&yaml(&sink, "")).await;
    let live = broker.ask("/healthz").await;
    assert_eq!((live.status.as_u16(), live.text().as_str()), (200, "ok\n"));
    let ready = broker.ask("/readyz").await;
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json()["status"], "ready");
    broker.publish_ids(&["1"]).await;
    sink.wait_for(1).await;
    assert_eq!(broker.ask("/readyz").await.json()["holds_oldest_segment"], "t");
    broker.signal(rustix::process::Signal::TERM);
    let draining = crate::eventually("readiness to end", || async {
        let answer = broker.ask("/readyz").await;
        (answer.status == 503).then(|| answer.json())
    })
    .await;
    assert_eq!(draining["status"], "draining");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_page_has_the_documented_names_and_counts() {
    let sink = Sink::with_statuses(&[503]).await;
    let broker = Broker::start(&yaml(&sink, "order: partitionkey")).await;
    broker.publish_ids(&["1", "1"]).await;
    broker.publish(&[("id", "2"), ("specversion", "9")], "").await;
    broker.trigger_when("t", |trigger| trigger["delivered"] == 1).await;
    let page = broker.ask("/metrics").await;
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4"));
    let text = page.text();
    for line in [
        "sluice_events_accepted_total{via=\"http\"} 1",
        "sluice_events_duplicate_total{via=\"http\"} 1",
        "sluice_events_refused_total{reason=\"invalid\"} 1",
        "sluice_trigger_matched_total{trigger=\"t\"} 1",
        "sluice_trigger_unmatched_total{trigger=\"t\"} 0",
        "sluice_deliveries_total{trigger=\"t\",outcome=\"accepted\"} 1",
        "sluice_deliveries_total{trigger=\"t\",outcome=\"retriable\"} 1",
        "sluice_deliveries_total{trigger=\"t\",outcome=\"rejected\"} 0",
        "sluice_retries_total{trigger=\"t\"} 1",
        "sluice_dead_letters_total{trigger=\"t\",reason=\"rejected\"} 0",
        "sluice_dead_letters{trigger=\"t\"} 0",
        "sluice_trigger_pending{trigger=\"t\"} 0",
        "sluice_trigger_oldest_pending_seconds{trigger=\"t\"} 0",
        "sluice_deliveries_in_flight{trigger=\"t\"} 0",
        "sluice_delivery_seconds_count{trigger=\"t\"} 2",
        "sluice_trigger_paused{trigger=\"t\"} 0",
        "sluice_trigger_unkeyed_total{trigger=\"t\"} 1",
        "sluice_replies_total{trigger=\"t\"} 0",
        "sluice_config_reload_success 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing from\n{text}");
    }
    for name in [
        "sluice_store_bytes",
        "sluice_store_owed_bytes",
        "sluice_store_limit_bytes",
        "sluice_store_segments",
        "sluice_index_lag_events",
        "sluice_store_sync_seconds_count",
        "sluice_store_batch_events_count",
    ] {
        assert!(text.contains(&format!("\n{name} ")), "{name} is missing from\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_balance_at_any_time_and_across_a_kill() {
    let sink = Sink::answering(|number, _| status([204, 422, 503][number % 3])).await;
    let broker = Broker::start(&format!(
        "triggers: {{ t: {{ sink: \"{}\", filters: [not: {{ exact: {{ subject: odd }} }}], delivery: {{ retry: 2 }} }} }}",
        sink.url
    ))
    .await;
    for number in 0..60 {
        let (id, subject) = (number.to_string(), if number % 4 == 0 { "odd" } else { "even" });
        broker.publish(&[("id", &id), ("subject", subject)], "{}").await;
        assert_balanced(&broker.get("triggers/t").await);
    }
    let id =
        broker.get_when("dead-letters", |list| list["items"][0].is_object()).await["items"][0]["id"].clone();
    broker.do_call("dead-letters/purge", &json!({ "ids": [id] })).await;
    let broker = broker.kill_and_restart().await;
    let trigger = broker.trigger_when("t", |trigger| trigger["pending"] == 0 && trigger["seen"] == 60).await;
    assert_balanced(&trigger);
    assert_eq!((&trigger["unmatched"], &trigger["purged"]), (&json!(15), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_listed_newest_first_in_pages_and_by_filter() {
    let broker = Broker::start("triggers: {}").await;
    for (id, ty) in [("1", "com.example.a"), ("2", "com.example.b"), ("3", "com.example.a")] {
        broker.publish(&[("id", id), ("type", ty), ("subject", id)], "{\"secret\":1}").await;
    }
    let page = broker.get("events?limit=2").await;
    let ids = |page: &Value| {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|item| item["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&page), ["3", "2"]);
    assert!(page["items"][0].get("data").is_none(), "lists carry no data");
    let next = page["next"].as_str().unwrap();
    assert_eq!(ids(&broker.get(&format!("events?limit=2&cursor={next}")).await), ["1"]);
    assert_eq!(ids(&broker.get("events?type=com.example.a").await), ["3", "1"]);
    assert_eq!(ids(&broker.get("events?subject=2&via=http&source=%2Ftest").await), ["2"]);
    assert_eq!(ids(&broker.get("events?until=2001-01-01T00:00:00Z").await), Vec::<String>::new());
    assert_eq!(broker.ask("/api/v1/events?since=yesterday").await.status, 400);
    assert_eq!(broker.ask("/api/v1/events/99").await.status, 404);
    let told = broker.cli("events show --raw 0");
    assert_eq!(told.json()["data"], json!({ "secret": 1 }));
    assert_eq!(broker.cli("events show /test 3 --json").json()["offset"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_shows_which_triggers_it_did_not_match() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&format!(
        "triggers:\n  yes: {{ sink: \"{0}\" }}\n  \"no\": {{ sink: \"{0}\", filters: [exact: {{ type: x }}] }}\n",
        sink.url
    ))
    .await;
    broker.publish_ids(&["1"]).await;
    let shown = broker.get_when("events/0", |shown| shown["deliveries"][0]["state"] == "delivered").await;
    assert_eq!(shown["unmatched"], json!(["no"]));
    assert_eq!(shown["deliveries"][0]["trigger"], "yes");
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_resume_retry_and_discard_do_what_they_say() {
    let sink = Sink::answering(|_, _| status(503)).await;
    let broker = Broker::start(&yaml(&sink, "backoff_delay: 1h, backoff_max: 1h")).await;
    broker.publish_ids(&["1"]).await;
    broker.trigger_when("t", |trigger| trigger["retrying"] == 1).await;
    let pending = broker.get("triggers/t/pending").await;
    assert_eq!(
        (&pending["items"][0]["reason"], &pending["items"][0]["attempts"]),
        (&json!("retry"), &json!(1))
    );
    assert!(pending["items"][0]["next_at"].is_string());

    assert_eq!(broker.cli("triggers pause t").code, 0);
    assert_eq!(broker.get("triggers/t/pending").await["items"][0]["reason"], "paused");
    assert_eq!(broker.get("triggers/t").await["paused_reason"], "paused by an operator");
    assert_eq!(broker.cli("triggers resume t").code, 0);

    assert_eq!(broker.cli("triggers retry t").code, 0);
    sink.wait_for(2).await;
    broker.trigger_when("t", |trigger| trigger["retrying"] == 1 && trigger["in_flight"] == 0).await;
    let told = broker.cli("triggers discard t --yes --json").json();
    assert_eq!(told["discarded"], 1);
    let dead = &broker.dead_letters(1).await[0];
    assert_eq!(dead["reason"], "discarded");
    let shown = broker.get(&format!("dead-letters/{}", dead["id"].as_str().unwrap())).await;
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 2, "what was tried is kept: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_rate_says_so_and_until_when() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&yaml(&sink, "rate: 1/m")).await;
    broker.publish_ids(&["1", "2", "3"]).await;
    sink.wait_for(1).await;
    let waiting = crate::eventually("the rate to hold two back", || async {
        let items = broker.get("triggers/t/pending").await["items"].as_array().unwrap().clone();
        let is_held = |item: &Value| item["reason"] == "rate" && item["next_at"].is_string();
        (items.len() == 2 && items.iter().all(is_held)).then_some(items)
    })
    .await;
    assert_eq!(waiting[0]["offset"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pending_behind_what_is_in_memory_is_counted() {
    let sink = Sink::held().await;
    let store = "store: { dir: ./data, outstanding: 1000 }";
    let broker = Broker::start(&format!("{store}\n{}", yaml(&sink, "concurrency: 1"))).await;
    let event = |id: u64| json!({ "specversion": "1.0", "id": id.to_string(), "source": "/me", "type": "t" });
    let batch: Vec<_> = (0..3000).map(event).collect();
    std::fs::write(broker.path().join("batch.json"), serde_json::to_vec(&batch).unwrap()).unwrap();
    assert_eq!(broker.cli("publish batch.json").code, 0);
    broker.trigger_when("t", |trigger| trigger["pending"] == 3000).await;
    let page = broker.get("triggers/t/pending?limit=10000").await;
    let listed = page["items"].as_array().unwrap().len() as u64;
    assert!(listed > 0 && page["next"].is_null(), "{page}");
    assert_eq!(listed + page["behind"].as_u64().unwrap(), 3000);
    let told = broker.cli("triggers pending t --limit 10000");
    assert!(told.err.contains(&format!("{} more are behind", 3000 - listed)), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_or_removed_is_not_said_to_be_tried() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&yaml(&sink, "")).await;
    assert_eq!(broker.cli("triggers pause t").code, 0);
    let told = broker.cli("triggers retry t");
    assert!(told.code == 1 && told.err.contains("paused"), "{told:?}");
    broker.publish_ids(&["1"]).await;
    broker.trigger_when("t", |trigger| trigger["pending"] == 1).await;
    assert_eq!(
        broker.reload("triggers: {}").await.json()["frozen"],
        json!([{ "trigger": "t", "pending": 1 }])
    );
    let told = broker.cli("triggers retry t");
    assert!(told.code == 1 && told.err.contains("removed"), "{told:?}");
    // As long as it holds, each reload and each start says so.
    assert_eq!(
        broker.reload("triggers: {}").await.json()["frozen"],
        json!([{ "trigger": "t", "pending": 1 }])
    );
    let broker = broker.kill_and_restart().await;
    assert!(broker.said().contains("not in the configuration any more"), "{}", broker.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writing_call_needs_our_host_and_a_json_body() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&format!(
        "admin: {{ listen: 127.0.0.1:0, hosts: [broker.example] }}\n{}",
        yaml(&sink, "")
    ))
    .await;
    let pause = |with: &'static [(&'static str, &'static str)], body: &'static str| {
        send(broker.operators, Method::POST, "/api/v1/triggers/t/pause", headers(with.iter().copied()), body)
    };
    assert_eq!(pause(&[], "{}").await.status, 421);
    assert_eq!(pause(&[("content-type", "text/plain")], "{}").await.status, 421);
    for (body, detail) in [
        ("{", "the body is not what this call takes"),
        ("[]", "the body is a JSON object"),
        ("[null, true]", "the body is a JSON object"),
        ("{\"reason\":\"x\"}", "this call takes no `reason`: its body is `{}`"),
    ] {
        let refused = pause(&[("content-type", "application/json")], body).await;
        assert_eq!(refused.status, 400, "{body}");
        let said = refused.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(said.starts_with(detail), "{body}: {said}");
    }
    let json = ("content-type", "application/json");
    let foreign = send(
        broker.operators,
        Method::POST,
        "/api/v1/triggers/t/pause",
        headers([json, ("host", "evil.example")]),
        "{}",
    )
    .await;
    assert_eq!(foreign.status, 421);
    assert_eq!(broker.get("triggers/t").await["paused"], false);
    assert_eq!(
        pause(&[("content-type", "application/json"), ("host", "broker.example")], "{}").await.status,
        200
    );
    assert_eq!(broker.get("triggers/t").await["paused"], true);
    for (host, status) in
        [("localhost", 200), ("127.0.0.1", 200), ("127.0.0.1.evil.example", 421), ("localhost:1", 421)]
    {
        let path = "/api/v1/triggers/t/resume";
        let answer = send(broker.operators, Method::POST, path, headers([json, ("host", host)]), "{}").await;
        assert_eq!(answer.status, status, "{host}");
    }
    assert_eq!(broker.call("triggers/unknown/pause", &json!({})).await.status, 404);
    assert_eq!(broker.ask("/api/v1/triggers/t/pause").await.status, 405);
    assert_eq!(broker.ask("/api/v1/nothing").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_even_be_read_is_refused_with_a_problem() {
    let broker = Broker::start("triggers: {}").await;
    let large = json!({ "event": "x".repeat(5 << 20) });
    for (answer, status) in
        [(broker.call("explain", &large).await, 413), (broker.ask("/api/v1/triggers/%ff").await, 400)]
    {
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
        assert_eq!(answer.json()["status"], status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_not_shown() {
    let broker = Broker::start(
        "triggers: { t: { sink: { http: { url: \"http://127.0.0.1:9/\", headers: { authorization: \"Bearer abc-123\" } } } } }",
    )
    .await;
    let shown = broker.ask("/api/v1/config").await.text();
    assert!(shown.contains("\"t\"") && !shown.contains("abc-123"), "{shown}");
    assert!(broker.get("config").await["hash"].is_string());
    assert!(!broker.cli("config show").out.contains("abc-123"));
}

#[tokio::test(flavor = "multi_thread")]
async fn how_full_the_store_is_is_known_as_soon_as_the_api_answers() {
    let broker = Broker::start("triggers: {}").await;
    let store = broker.get("status").await["store"].clone();
    assert_eq!(store["limit_bytes"], 10_u64 << 30, "{store}");
    assert!(store["segments"].as_u64() > Some(0) && store["free_bytes"].as_u64() > Some(0), "{store}");
    broker.publish_ids(&["1"]).await;
    let broker = broker.kill_and_restart().await;
    let metrics = broker.ask("/metrics").await.text();
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().parse::<u64>().unwrap()
    };
    assert_eq!(value("sluice_store_limit_bytes "), 10 << 30);
    assert!(value("sluice_store_bytes ") > 0 && value("sluice_store_segments ") > 0, "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_that_is_pending_is_as_old_after_a_restart_whatever_comes_in() {
    let sink = Sink::answering(|_, _| status(503)).await;
    let broker = Broker::start(&yaml(&sink, "backoff_delay: 1h, backoff_max: 1h")).await;
    broker.publish_ids(&["1"]).await;
    broker.trigger_when("t", |trigger| trigger["retrying"] == 1).await;
    let received = broker.get("events/0").await["received_at"].clone();
    let broker = broker.kill_and_restart().await;
    broker.publish_ids(&["2", "3"]).await;
    let trigger = broker.trigger_when("t", |trigger| trigger["pending"] == 3).await;
    assert_eq!(trigger["oldest_pending_at"], received, "{trigger}");
    assert_eq!(broker.get("triggers").await["items"][0]["oldest_pending_at"], received);
    assert_eq!(broker.get("status").await["triggers"][0]["oldest_pending_at"], received);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_refused_by_their_head_alone_are_counted_too() {
    let broker = Broker::start("triggers: {}").await;
    let many: Vec<String> = (0..300).map(|n| format!("x-{n}")).collect();
    let with = headers(many.iter().map(|name| (&**name, "v")));
    assert_eq!(broker.post(with, "").await.status, 431);
    let long = format!("/events?{}", "x".repeat(9000));
    assert_eq!(send(broker.public, Method::POST, &long, headers([]), "").await.status, 414);
    let twice = headers([("transfer-encoding", "gzip")]);
    assert_eq!(send(broker.public, Method::POST, "/events", twice, "").await.status, 400);
    let metrics = broker.ask("/metrics").await.text();
    for counted in ["reason=\"too_large\"} 2", "reason=\"malformed\"} 1", "reason=\"busy\"} 0"] {
        assert!(
            metrics.contains(&format!("sluice_events_refused_total{{{counted}\n")),
            "{counted}: {metrics}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pending_is_listed_page_by_page() {
    let sink = Sink::answering(|_, _| status(422)).await;
    let broker = Broker::start(&yaml(&sink, "")).await;
    broker.publish_ids(&["1", "2"]).await;
    broker.dead_letters(2).await;
    broker.do_call("triggers/t/pause", &json!({})).await;
    broker.do_call("dead-letters/redrive", &json!({ "all": true })).await;
    broker.publish_ids(&["3", "4", "5"]).await;
    broker.trigger_when("t", |trigger| trigger["pending"] == 5).await;
    let (mut offsets, mut cursor) = (Vec::new(), String::new());
    for _ in 0..3 {
        let page = broker.get(&format!("triggers/t/pending?limit=2{cursor}")).await;
        let items = page["items"].as_array().unwrap();
        offsets.extend(items.iter().map(|item| item["offset"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(offsets, ["2", "3", "4", "0", "1"], "what was matched, and then what was redriven");
    assert_eq!(broker.cli("triggers pending t --limit 3 --json").json().as_array().unwrap().len(), 3);
    assert_eq!(broker.ask("/api/v1/triggers/t/pending?cursor=x").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_has_a_line_for_each_trigger() {
    let triggers = (0..20).map(|n| format!("  t-{n}: {{ sink: {{ stdout: {{}} }} }}\n")).collect::<String>();
    let broker = Broker::start(&format!("triggers:\n{triggers}")).await;
    let told = broker.cli("status");
    assert!(told.out.starts_with("status: ready\nstore:\n"), "{told:?}");
    assert!(told.out.contains("sources: none\ntriggers:\nNAME"), "{told:?}");
    let lines = told.out.lines().filter(|line| line.starts_with("t-")).count();
    assert_eq!((told.code, lines), (0, 20), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_not_logged_however_much_is() {
    let sinks = "triggers:
  http: { sink: { http: { url: 'http://127.0.0.1:9/?key=${SECRET}', headers: { authorization: 'Bearer ${SECRET}' } } } }
  nats: { sink: { nats: { servers: ['nats://user:${SECRET}@127.0.0.1:9'], subject: a } } }
  amqp: { sink: { amqp: { url: 'amqp://user:${SECRET}@127.0.0.1:9', exchange: '', routing_key: a } } }";
    let secret = ("SECRET", "canary-7f3a9c");
    let broker = Broker::start_with(sinks, &[secret, ("SLUICE_LOG", "trace")]).await;
    broker.publish_ids(&["1"]).await;
    for trigger in ["http", "nats", "amqp"] {
        broker.trigger_when(trigger, |trigger| trigger["last_error"].is_object()).await;
    }
    crate::eventually("what is seldom logged", || async { broker.said().contains("DEBUG").then_some(()) })
        .await;
    let said = broker.said();
    assert!(!said.contains(secret.1), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_refuses_says_why_and_takes_again_after_a_discard() {
    let sink = Sink::answering(|_, _| status(503)).await;
    let broker = Broker::start(&format!(
        "store: {{ dir: ./data, segment: 1MiB, retention: {{ age: 7d, size: 24MiB }} }}\nlimits: {{ event_bytes: 256KiB, batch_bytes: 256KiB }}\n{}",
        yaml(&sink, "backoff_delay: 1h, backoff_max: 1h")
    ))
    .await;
    let data = format!("\"{}\"", "x".repeat(200_000));
    let mut stored = 0;
    let refused = loop {
        let answer = broker.publish(&[("id", &stored.to_string())], &data).await;
        if answer.status == 503 {
            break answer;
        }
        assert_eq!(answer.status, 202, "{}", answer.text());
        stored += 1;
        assert!(stored < 2000, "it never fills");
    };
    assert!(refused.header("retry-after").is_some() && refused.text().contains("full"), "{}", refused.text());
    let ready = broker.ask("/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.text());
    let ready = ready.json();
    assert_eq!((&ready["status"], &ready["holds_oldest_segment"]), (&json!("full"), &json!("t")));
    assert!(ready["reason"].is_string(), "{ready}");
    let status = broker.get("status").await;
    assert_eq!((&status["status"], &status["reason"]), (&json!("full"), &ready["reason"]));
    assert!(broker.cli("status").out.starts_with("status: full\nreason: "), "{status}");
    crate::eventually("nothing to be in flight", || async {
        (broker.get("triggers/t").await["in_flight"] == 0).then_some(())
    })
    .await;
    broker.do_call("triggers/t/discard", &json!({})).await;
    broker.do_call("dead-letters/purge", &json!({ "all": true })).await;
    crate::eventually("room", || async { (broker.ask("/readyz").await.status == 200).then_some(()) }).await;
    assert_eq!(broker.publish(&[("id", "after")], &data).await.status, 202);
}
