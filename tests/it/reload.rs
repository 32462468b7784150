//! Another configuration while the broker runs.

use rustix::process::Signal;
use serde_json::json;

use crate::broker::Broker;
use crate::eventually;
use crate::sink::{Sink, status};

fn yaml(triggers: &[(&str, &Sink)]) -> String {
    let rows = triggers.iter().map(|(name, sink)| format!("  {name}: {{ sink: \"{}\" }}\n", sink.url));
    format!("triggers:\n{}", rows.collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_by_each_way_puts_the_new_triggers_in_force() {
    let sink = Sink::accepting().await;
    let broker = Broker::start("triggers: {}").await;
    let answer = broker.reload(&yaml(&[("api", &sink)])).await.json();
    assert_eq!((&answer["added"], &answer["removed"]), (&json!(["api"]), &json!([])));

    broker.rewrite(&yaml(&[("api", &sink), ("command", &sink)]));
    let told = broker.cli("reload");
    assert!(told.code == 0 && told.out.contains("added: command"), "{told:?}");

    broker.rewrite(&yaml(&[("api", &sink), ("command", &sink), ("signal", &sink)]));
    broker.signal(Signal::HUP);
    // The trigger is listed a moment before events are matched with it; the log says when the reload is done.
    eventually("the reload by a signal", || async { broker.said().contains("[\"signal\"]").then_some(()) })
        .await;
    broker.publish_ids(&["1"]).await;
    sink.wait_for(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_check_warns_of_a_reload_says_too() {
    let broker = Broker::start("triggers: {}").await;
    let yaml = "sources: { once: { cron: { at: 2020-01-01T00:00:00Z } } }\n\
                triggers: { t: { sink: { stdout: {} }, filters: [sql: \"type = 'a' AND id = 'b' OR id = 'c'\"] } }";
    let answer = broker.reload(yaml).await.json();
    let checked = broker.cli("check sluice.yaml");
    let warnings = answer["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 2, "{answer}");
    let told = broker.cli("reload");
    assert_eq!(told.code, 0, "{told:?}");
    for warning in warnings {
        let text = |member: &str| warning[member].as_str().unwrap();
        let place =
            format!("sluice.yaml:{}:{}: warning: {}", warning["line"], warning["column"], text("message"));
        assert!(text("text").contains(&place) && text("file").ends_with("sluice.yaml"), "{warning}");
        assert!(checked.err.contains(&place), "{place}: {checked:?}");
        assert!(told.err.contains(text("text")), "{told:?}");
        eventually("the log to have it, too", || async {
            broker.said().contains(text("text")).then_some(())
        })
        .await;
    }
    assert!(!told.out.contains("warning"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_changes_nothing_and_says_where_it_is_wrong() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&yaml(&[("t", &sink)])).await;
    let before = broker.get("config").await;
    let wrong = format!("triggers: {{ t: {{ snk: \"{}\" }} }}", sink.url);
    let refused = broker.reload(&wrong).await;
    assert_eq!(refused.status, 422);
    assert!(refused.json()["detail"].as_str().unwrap().contains("sluice.yaml:5:"), "{}", refused.text());
    let told = broker.cli("reload");
    assert_eq!(told.code, 78);
    assert!(told.err.contains("`sink`"), "{told:?}");
    broker.signal(Signal::HUP);
    eventually("the failed reload to be said", || async {
        (broker.said().matches("was not reloaded").count() == 3).then_some(())
    })
    .await;
    assert_eq!(broker.get("config").await, before);
    let metrics = broker.ask("/metrics").await.text();
    assert!(metrics.contains("\nsluice_config_reload_success 0\n"));
    broker.publish_ids(&["1"]).await;
    sink.wait_for(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_cannot_be_opened_is_a_wrong_configuration() {
    let sink = Sink::accepting().await;
    let broker = Broker::start(&yaml(&[("t", &sink)])).await;
    let refused = broker
        .reload(
            "triggers: { t: { sink: { http: { url: \"https://localhost/\", tls: { ca: missing.pem } } } } }",
        )
        .await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("missing.pem"), "{}", refused.text());
    broker.publish_ids(&["1"]).await;
    sink.wait_for(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_need_a_restart_are_refused_by_name() {
    let broker = Broker::start("triggers: {}").await;
    let file = |text: &str| format!("{text}\ntriggers: {{}}");
    for (key, text) in [
        ("http", "http: { listen: 127.0.0.1:1 }"),
        ("admin", "admin: { listen: 127.0.0.1:1 }"),
        ("store", "store: { dir: ./elsewhere }"),
    ] {
        let refused = broker.reload(&file(text)).await;
        assert_eq!(refused.status, 422);
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(key) && detail.contains("restart"), "{detail}");
    }
    let limits = broker.reload(&file("limits: { event_bytes: 2KiB }")).await.json();
    assert_eq!(limits["needs_restart"], json!(["limits"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_restart_is_named_until_the_file_says_what_is_in_force() {
    let broker = Broker::start("triggers: {}").await;
    let file = |text: &str| format!("{text}\ntriggers: {{}}");
    let all = "limits: { hops: 3 }\nduplicates: off\ndead_letters: { age: 1d }\nshutdown_timeout: 7s";
    let needs_restart = json!(["limits", "duplicates", "dead_letters", "shutdown_timeout"]);
    for _ in 0..2 {
        assert_eq!(broker.reload(&file(all)).await.json()["needs_restart"], needs_restart);
    }
    let shown = broker.get("config").await;
    assert_eq!(
        (&shown["limits"]["hops"], &shown["duplicates"]["window"]),
        (&json!(16), &json!("10m")),
        "{shown}"
    );
    assert_eq!(broker.reload(&file("")).await.json()["needs_restart"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_filter_holds_for_events_after_the_reload() {
    let sink = Sink::accepting().await;
    let with = |ty: &str| {
        format!("triggers: {{ t: {{ sink: \"{}\", filters: [exact: {{ type: {ty} }}] }} }}", sink.url)
    };
    let broker = Broker::start(&with("com.example.none")).await;
    broker.publish_ids(&["1"]).await;
    broker.trigger_when("t", |trigger| trigger["unmatched"] == 1).await;
    assert_eq!(broker.reload(&with("com.example.test")).await.json()["changed"], json!(["t"]));
    broker.publish_ids(&["2"]).await;
    let trigger = broker.trigger_when("t", |trigger| trigger["delivered"] == 1).await;
    assert_eq!((&trigger["seen"], &trigger["unmatched"]), (&json!(2), &json!(1)));
    assert_eq!(sink.ids(), ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_trigger_is_frozen_and_goes_on_when_its_name_returns() {
    let sink = Sink::answering(|_, _| status(503)).await;
    let broker = Broker::start(&yaml(&[("t", &sink)])).await;
    broker.publish_ids(&["1", "2"]).await;
    sink.wait_for(2).await;
    let answer = broker.reload("triggers: {}").await.json();
    assert_eq!(answer["removed"], json!(["t"]));
    assert_eq!(answer["frozen"], json!([{ "trigger": "t", "pending": 2 }]));
    let frozen = broker.get("triggers/t").await;
    assert_eq!((&frozen["removed"], &frozen["pending"]), (&json!(true), &json!(2)));
    assert_eq!(broker.get("triggers/t/pending").await["items"][0]["reason"], "trigger_removed");
    broker.publish_ids(&["3"]).await;
    // Routed without it, and that on disk, which whoever looks at an event waits for: else the kill may have it routed anew.
    broker.trigger_when("t", |trigger| trigger["seen"] == 3).await;
    broker.get("events/2").await;

    sink.answer_from_now_on(204);
    let broker = broker.kill_and_restart().await;
    assert_eq!(broker.get("triggers/t").await["removed"], true);
    assert_eq!(broker.reload(&yaml(&[("t", &sink)])).await.status, 200);
    let trigger = broker.trigger_when("t", |trigger| trigger["delivered"] == 2).await;
    assert_eq!((&trigger["removed"], &trigger["pending"]), (&json!(false), &json!(0)));
    broker.publish_ids(&["4"]).await;
    broker.trigger_when("t", |trigger| trigger["delivered"] == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_grace_a_removed_triggers_backlog_is_dead() {
    let sink = Sink::answering(|_, _| status(503)).await;
    let store = "store: { dir: ./data, removed_grace: 1s }\n";
    let broker = Broker::start(&format!("{store}{}", yaml(&[("t", &sink)]))).await;
    broker.publish_ids(&["1"]).await;
    sink.wait_for(1).await;
    assert_eq!(broker.reload(&format!("{store}triggers: {{}}")).await.status, 200);
    let dead = &broker.dead_letters(1).await[0];
    assert_eq!((&dead["reason"], &dead["trigger"]), (&json!("trigger_removed"), &json!("t")));
}
