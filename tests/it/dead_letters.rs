//! What could not be delivered: kept, shown, delivered again, removed.

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::sink::{Sink, status};

fn yaml(sink: &Sink) -> String {
    format!("triggers: {{ t: {{ sink: \"{}\" }} }}", sink.url)
}

/// A broker with one dead letter for each id.
async fn with_dead(sink: &Sink, ids: &[&str]) -> Broker {
    let broker = Broker::start(&yaml(sink)).await;
    broker.publish_ids(ids).await;
    broker.dead_letters(ids.len()).await;
    broker
}

async fn refusing() -> Sink {
    Sink::answering(|_, _| status(422)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_listed_and_shown_with_event_reason_and_attempts() {
    let sink = refusing().await;
    let broker = with_dead(&sink, &["1"]).await;
    let row = broker.dead_letters(1).await[0].clone();
    assert_eq!(row["trigger"], "t");
    assert_eq!(row["event"]["id"], "1");
    let shown = broker.get(&format!("dead-letters/{}", row["id"].as_str().unwrap())).await;
    assert_eq!(shown["event"]["data"], json!({}));
    assert_eq!(shown["attempts"][0]["status"], 422);
    assert_eq!(shown["attempts_omitted"], 0);
    let told = broker.cli(&format!("dlq show {}", row["id"].as_str().unwrap()));
    assert!(told.out.contains("reason:") && told.out.contains("rejected"), "{told:?}");
    let headings = "ID TRIGGER REASON STATUS ATTEMPTS LAST TYPE SOURCE EVENT DETAIL";
    let listed = broker.cli("dlq list").out;
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0].join(" "), headings);
    assert_eq!(lines[1][..5], ["0.t", "t", "rejected", "422", "1"], "{listed}");
    assert!(listed.contains("com.example.test"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_tells_of_each_what_became_of_it() {
    let sink = Sink::answering(|_, received| status(if received.id() == "3" { 410 } else { 503 })).await;
    let yaml = format!(
        "triggers: {{ t: {{ sink: \"{}\", delivery: {{ retry: 2, backoff_delay: 1ms }} }}, u: {{ sink: \"http://127.0.0.1:9/\", delivery: {{ retry: 0 }}, filters: [exact: {{ type: other }}] }} }}",
        sink.url
    );
    let broker = Broker::start(&yaml).await;
    broker.publish_ids(&["1", "2"]).await;
    broker.dead_letters(2).await;
    broker.publish_ids(&["3"]).await;
    broker.publish(&[("id", "4"), ("type", "other")], "{}").await;
    let rows = |rows: &[serde_json::Value]| -> Vec<serde_json::Value> {
        let mut shown: Vec<_> = rows
            .iter()
            .map(|row| {
                json!([row["event"]["id"], row["trigger"], row["reason"], row["status"], row["attempts"]])
            })
            .collect();
        shown.sort_by_key(ToString::to_string);
        shown
    };
    let found = broker.dead_letters(4).await;
    let expected = [
        json!(["1", "t", "attempts", 503, 3]),
        json!(["2", "t", "attempts", 503, 3]),
        json!(["3", "t", "gone", 410, 1]),
        json!(["4", "u", "attempts", null, 1]),
    ];
    assert_eq!(rows(&found), expected);
    for row in &found {
        let shown = broker.get(&format!("dead-letters/{}", row["id"].as_str().unwrap())).await;
        for field in ["detail", "first_at", "last_at"] {
            assert_eq!(row[field], shown[field], "{field} of {row}");
        }
    }
    assert_eq!(broker.cli("dlq list --json").json(), json!(found));

    let told = broker.cli("dlq list --reason attempt");
    assert_eq!(told.code, 1, "{told:?}");
    let expected = "there is no reason `attempt`: expected one of attempts, age, rejected, gone, reply, loop, transform, trigger_removed, discarded, quarantine, conflict (did you mean `attempts`?)";
    assert_eq!(told.err, format!("sluice: {expected}\n"));
    assert_eq!(broker.cli("dlq purge --reason bogus --yes").code, 1);
    assert_eq!(broker.dead_letters(4).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_on_where_they_ended_though_what_was_listed_is_purged() {
    let sink = refusing().await;
    let broker = with_dead(&sink, &["1", "2", "3", "4", "5"]).await;
    let ids = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = broker.get("dead-letters?limit=2").await;
    broker.do_call("dead-letters/purge", &json!({ "ids": ids(&first) })).await;
    let rest = broker.get(&format!("dead-letters?cursor={}", first["next"].as_str().unwrap())).await;
    assert_eq!(rest["next"], Value::Null);
    let mut seen = [ids(&first), ids(&rest)].concat();
    seen.sort();
    assert_eq!(seen, ["0.t", "1.t", "2.t", "3.t", "4.t"]);
    assert_eq!(broker.ask("/api/v1/dead-letters?limit=0").await.status, 400);
    assert_eq!(broker.ask("/api/v1/dead-letters?cursor=2").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_delivers_again_and_the_books_say_so() {
    let sink = refusing().await;
    let broker = with_dead(&sink, &["1", "2"]).await;
    sink.answer_from_now_on(204);
    let told = broker.cli("dlq redrive --trigger t");
    assert_eq!(told.code, 0, "{told:?}");
    let trigger = broker.trigger_when("t", |trigger| trigger["delivered"] == 2).await;
    assert_eq!(
        (&trigger["dead"], &trigger["pending"], &trigger["matched"]),
        (&json!(0), &json!(0), &json!(2))
    );
    broker.dead_letters(0).await;
    let shown = broker
        .get_when("events/0", |shown| shown["deliveries"].as_array().is_some_and(|all| all.len() == 2))
        .await;
    let states: Vec<_> = shown["deliveries"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["dead", "delivered"], "the first delivery died, its redrive arrived");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_that_fails_again_is_a_dead_letter_again() {
    let sink = refusing().await;
    let broker = with_dead(&sink, &["1"]).await;
    let first = broker.dead_letters(1).await[0]["id"].clone();
    let told = broker.do_call("dead-letters/redrive", &json!({ "ids": [first, first] })).await;
    assert_eq!(told["redriven"], 1, "{told}");
    sink.wait_for(2).await;
    let second = broker.dead_letters(1).await[0]["id"].clone();
    assert_ne!(first, second);
    sink.answer_from_now_on(204);
    broker.do_call("dead-letters/redrive", &json!({ "ids": [second] })).await;
    broker.trigger_when("t", |trigger| trigger["delivered"] == 1 && trigger["dead"] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_can_go_to_another_trigger() {
    let (sink, other) = (refusing().await, Sink::accepting().await);
    let broker = Broker::start(&format!(
        "triggers:\n  t: {{ sink: \"{}\" }}\n  other: {{ sink: \"{}\", filters: [exact: {{ type: nothing }}] }}\n",
        sink.url, other.url
    ))
    .await;
    broker.publish_ids(&["1"]).await;
    broker.dead_letters(1).await;
    let told = broker.cli("dlq redrive --all --to other");
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(other.wait_for(1).await[0].id(), "1");
    broker.dead_letters(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_whose_target_is_gone_is_refused_and_the_entry_stays() {
    let sink = refusing().await;
    let broker = with_dead(&sink, &["1"]).await;
    let told = broker.cli("dlq redrive --all --to nowhere");
    assert_eq!(told.code, 1, "{told:?}");
    assert_eq!(
        broker.call("dead-letters/redrive", &json!({ "all": true, "to": "nowhere" })).await.status,
        409
    );
    assert_eq!(broker.reload("triggers: {}").await.status, 200);
    let gone = broker.call("dead-letters/redrive", &json!({ "all": true })).await;
    assert_eq!(gone.status, 409, "{}", gone.text());
    broker.dead_letters(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_moves_from_dead_to_purged() {
    let sink = refusing().await;
    let broker = with_dead(&sink, &["1", "2"]).await;
    let id = broker.dead_letters(2).await[0]["id"].clone();
    assert_eq!(broker.do_call("dead-letters/purge", &json!({ "ids": [id] })).await["purged"], 1);
    let trigger = broker.get("triggers/t").await;
    assert_eq!((&trigger["dead"], &trigger["purged"]), (&json!(1), &json!(1)));
    assert_eq!(broker.cli("dlq purge --all --yes").code, 0);
    broker.dead_letters(0).await;
    assert_eq!(broker.get("events/0").await["deliveries"][0]["state"], "purged");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_narrow_a_list_a_redrive_and_a_purge() {
    let sink = refusing().await;
    let broker = Broker::start(&yaml(&sink)).await;
    broker.publish(&[("id", "1"), ("type", "com.example.a")], "{}").await;
    broker.publish(&[("id", "2"), ("type", "com.example.b")], "{}").await;
    broker.dead_letters(2).await;
    let listed = broker.cli("dlq list --type com.example.a --json").json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["event"]["id"], "1");
    for nothing in ["--reason age", "--via reply", "--trigger other"] {
        assert_eq!(broker.cli(&format!("dlq list {nothing} --json")).json(), json!([]), "{nothing}");
    }
    assert_eq!(
        broker
            .cli("dlq list --reason rejected --via http --since 1h --json")
            .json()
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let dry = broker.cli("dlq purge --type com.example.b --dry-run --json").json();
    assert_eq!((&dry["purged"], &dry["dry_run"]), (&json!(1), &json!(true)));
    broker.dead_letters(2).await;
    broker.do_call("dead-letters/purge", &json!({ "type": "com.example.b" })).await;
    assert_eq!(broker.dead_letters(1).await[0]["event"]["id"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writing_call_says_which_or_is_refused() {
    let sink = refusing().await;
    let broker = with_dead(&sink, &["1"]).await;
    for body in [json!({}), json!({ "ids": [], "unknown": 1 })] {
        for verb in ["redrive", "purge"] {
            assert_eq!(broker.call(&format!("dead-letters/{verb}"), &body).await.status, 400, "{body}");
        }
    }
    assert_eq!(broker.call("dead-letters/purge", &json!({ "ids": ["9.t"] })).await.status, 404);
    assert_eq!(broker.cli("dlq redrive").code, 2);
    broker.dead_letters(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_survive_a_kill_and_can_then_be_redriven() {
    let sink = refusing().await;
    let broker = with_dead(&sink, &["1"]).await;
    let id = broker.dead_letters(1).await[0]["id"].as_str().unwrap().to_owned();
    broker.get_when(&format!("dead-letters/{id}"), |shown| shown["attempts"][0].is_object()).await;
    let broker = broker.kill_and_restart().await;
    assert_eq!(broker.dead_letters(1).await[0]["id"], id.as_str());
    sink.answer_from_now_on(204);
    broker.do_call("dead-letters/redrive", &json!({ "ids": [id] })).await;
    broker.trigger_when("t", |trigger| trigger["delivered"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_sink_is_told_what_failed_where_and_why() {
    let (sink, funeral) = (refusing().await, Sink::accepting().await);
    let broker = Broker::start(&format!(
        "triggers: {{ t: {{ sink: \"{}\", dead_letter: \"{}\" }} }}",
        sink.url, funeral.url
    ))
    .await;
    broker.publish(&[("id", "1"), ("sluicetrigger", "forged")], "{\"n\":1}").await;
    let letter = &funeral.wait_for(1).await[0];
    assert_eq!(letter.body, "{\"n\":1}");
    for (name, value) in [
        ("ce-id", "1"),
        ("ce-knativeerrordest", &*sink.url),
        ("ce-knativeerrorcode", "422"),
        ("ce-sluicetrigger", "t"),
        ("ce-sluiceattempts", "1"),
        ("ce-sluicereason", "rejected"),
    ] {
        assert_eq!(letter.header(name), Some(value), "{name}");
    }
    broker.dead_letters(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_dead_letter_sink_loses_nothing() {
    let (sink, funeral) = (refusing().await, refusing().await);
    let broker = Broker::start(&format!(
        "triggers: {{ t: {{ sink: \"{}\", dead_letter: \"{}\" }} }}",
        sink.url, funeral.url
    ))
    .await;
    broker.publish_ids(&["1"]).await;
    funeral.wait_for(1).await;
    broker.dead_letters(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_older_than_its_age_is_purged() {
    let sink = refusing().await;
    let broker = Broker::start(&format!("dead_letters: {{ age: 1s }}\n{}", yaml(&sink))).await;
    broker.publish_ids(&["1"]).await;
    let trigger = broker.trigger_when("t", |trigger| trigger["purged"] == 1).await;
    assert_eq!((&trigger["dead"], &trigger["matched"]), (&json!(0), &json!(1)));
    broker.dead_letters(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_sink_that_was_away_is_told_after_a_restart() {
    let (sink, funeral) = (refusing().await, Sink::answering(|_, _| status(503)).await);
    let broker = Broker::start(&format!(
        "triggers: {{ t: {{ sink: \"{}\", dead_letter: \"{}\" }} }}",
        sink.url, funeral.url
    ))
    .await;
    broker.publish_ids(&["1", "2"]).await;
    broker.dead_letters(2).await;
    funeral.wait_for(1).await;
    let broker = broker.kill_and_restart().await;
    funeral.answer_with(|_, _| status(204));
    let before = funeral.received().len();
    funeral.wait_for(before + 2).await;
    let mut told: Vec<_> = funeral.received()[before..].to_vec();
    told.sort_by_key(|letter| letter.id());
    told.dedup_by_key(|letter| letter.id());
    assert_eq!(told.iter().map(|letter| letter.id()).collect::<Vec<_>>(), ["1", "2"]);
    for letter in &told {
        assert_eq!(letter.header("ce-knativeerrorcode"), Some("422"));
        assert_eq!(letter.header("ce-sluiceattempts"), Some("1"));
        assert_eq!(letter.header("ce-sluicereason"), Some("rejected"));
    }
    broker.dead_letters(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_outlives_the_segment_of_its_event() {
    let (sink, other) = (refusing().await, Sink::accepting().await);
    let broker = Broker::start(&format!(
        "store: {{ dir: ./data, segment: 1MiB, retention: {{ age: 7d, size: 8MiB }} }}\n\
         limits: {{ event_bytes: 256KiB, batch_bytes: 256KiB }}\n\
         duplicates: off\n\
         triggers:\n  t: {{ sink: \"{}\", filters: [exact: {{ subject: bad }}] }}\n  other: {{ sink: \"{}\" }}\n  none: {{ sink: \"{}\", filters: [exact: {{ subject: none }}] }}\n",
        sink.url, other.url, other.url
    ))
    .await;
    broker.publish(&[("id", "first"), ("subject", "bad")], "{\"n\":1}").await;
    let id = broker.dead_letters(1).await[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(broker.get("events/0").await["unmatched"], json!(["none"]));
    let data = format!("\"{}\"", "x".repeat(200 << 10));
    let is_gone = || async { !broker.get("events?limit=1000").await.to_string().contains("\"first\"") };
    let mut sent = 0;
    while !is_gone().await {
        assert!(sent < 2000, "the first segment is never retired");
        sent += 1;
        broker.publish(&[("id", &sent.to_string())], &data).await;
    }
    let shown = broker.get(&format!("dead-letters/{id}")).await;
    assert_eq!((&shown["event"]["data"], &shown["attempts"][0]["status"]), (&json!({ "n": 1 }), &json!(422)));
    let trail = broker.get("events/0").await;
    assert_eq!(trail["unmatched"], json!([]), "nobody knows any more: {trail}");
    let broker = broker.kill_and_restart().await;
    sink.answer_from_now_on(204);
    broker.do_call("dead-letters/redrive", &json!({ "ids": [id] })).await;
    assert_eq!(sink.wait_for(2).await[1].body, "{\"n\":1}");
    broker.trigger_when("t", |trigger| trigger["delivered"] == 1 && trigger["dead"] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writing_call_says_in_one_way_which_dead_letters_it_means() {
    let sink = refusing().await;
    let broker = with_dead(&sink, &["1"]).await;
    let dead = broker.dead_letters(1).await[0]["id"].clone();
    for body in [
        json!({ "ids": [dead], "all": true }),
        json!({ "ids": [dead], "trigger": "other" }),
        json!({ "all": true, "reason": "attempts" }),
    ] {
        let refused = broker.call("dead-letters/purge", &body).await;
        assert_eq!(refused.status, 400, "{body}");
        assert!(refused.text().contains("exclude each other"), "{}", refused.text());
    }
    assert_eq!(broker.do_call("dead-letters/purge", &json!({ "ids": [dead] })).await["purged"], 1);
}
