//! Webhooks and deliveries of git hosts, as their senders see them.

use std::time::{SystemTime, UNIX_EPOCH};

use ::http::{HeaderMap, Method, StatusCode};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::broker::{Broker, run};
use crate::eventually;
use crate::http::{Answer, headers, send};
use crate::sink::{Sink, status};

const SECRET: &str = "It's a Secret to Everybody";

/// Sources of several schemes, and a trigger that takes all of them.
fn yaml(sink: &str) -> String {
    format!(
        "\
sources:
  hub: {{ webhook: {{ verify: {{ scheme: github, secrets: [rotated-away, \"{SECRET}\"] }} }} }}
  standard: {{ webhook: {{ verify: {{ scheme: standard-webhooks, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw }} }} }}
  stripe: {{ webhook: {{ verify: {{ scheme: stripe, secret: whsec_test_secret }} }}, event: {{ type: \"com.stripe.{{body.type}}\", source: https://stripe.com }} }}
  slack: {{ webhook: {{ verify: {{ scheme: slack, secret: \"{SECRET}\" }} }} }}
  lab: {{ git: {{ provider: gitlab, secret: t0ken }} }}
  repo: {{ git: {{ provider: auto, secret: \"{SECRET}\" }} }}
  small: {{ webhook: {{ insecure: true }}, event_bytes: 1KiB }}
  timer: {{ cron: {{ schedule: \"0 0 1 1 *\" }} }}
triggers:
  all: {{ sink: \"{sink}\" }}
"
    )
}

async fn deliver(broker: &Broker, source: &str, with: &[(&str, &str)], body: &str) -> Answer {
    let with = headers(with.iter().copied());
    send(broker.public, Method::POST, &format!("/hooks/{source}"), with, body.to_owned()).await
}

fn mac(key: &[u8], parts: &[&str]) -> ring::hmac::Tag {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    ring::hmac::sign(&key, parts.concat().as_bytes())
}

fn hex(key: &str, parts: &[&str]) -> String {
    mac(key.as_bytes(), parts).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

async fn started() -> (Sink, Broker) {
    let sink = Sink::answering(|_, _| status(204)).await;
    let broker = Broker::start(&yaml(&sink.url)).await;
    (sink, broker)
}

async fn refused(broker: &Broker) -> String {
    let page = broker.ask("/metrics").await.text();
    let line = page.lines().find(|line| line.contains("refused_total{reason=\"unauthorized\"}")).unwrap();
    line.rsplit(' ').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_says_where_deliveries_go() {
    let (_sink, broker) = started().await;
    let expected = format!(
        "deliveries of webhooks: http://{}/hooks/ and then hub, lab, repo, slack, small, standard, stripe\n",
        broker.public
    );
    eventually("the line", || {
        let found = broker.said().contains(&expected).then_some(());
        async move { found }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_stored_once_however_often_it_is_sent() {
    let (_sink, broker) = started().await;
    let body = r#"{ "zen" : "Keep it logically awesome." }"#;
    let signature = format!("sha256={}", hex(SECRET, &[body]));
    let with = [
        ("x-hub-signature-256", &*signature),
        ("x-github-delivery", "d-1"),
        ("content-type", "application/json"),
    ];
    let first = deliver(&broker, "hub", &with, body).await;
    assert_eq!((first.status, first.header("sluice-offset")), (StatusCode::ACCEPTED, Some("0")));
    let again = deliver(&broker, "hub", &with, body).await;
    assert_eq!((again.status, again.header("sluice-offset")), (StatusCode::ACCEPTED, Some("0")));
    assert_eq!(again.header("sluice-duplicate"), Some("true"));
    let source = broker.get("sources/hub").await;
    assert_eq!((&source["accepted"], &source["duplicates"]), (&json!(1), &json!(1)), "{source}");
    let metrics = broker.ask("/metrics").await.text();
    for line in ["accepted_total{via=\"hub\"} 1", "duplicate_total{via=\"hub\"} 1"] {
        assert!(metrics.contains(&format!("\nsluice_events_{line}\n")), "{metrics}");
    }
    let shown = broker.get("events/0").await;
    assert_eq!((&shown["via"], &shown["event"]["source"]), (&json!("hub"), &json!("/hub")));
    assert_eq!((&shown["event"]["type"], &shown["event"]["id"]), (&json!("sluice.webhook"), &json!("d-1")));

    // Also after a crash.
    let broker = broker.kill_and_restart().await;
    let again = deliver(&broker, "hub", &with, body).await;
    assert_eq!((again.status, again.header("sluice-duplicate")), (StatusCode::ACCEPTED, Some("true")));
    broker.trigger_when("all", |trigger| trigger["delivered"] == 1).await;

    // The same delivery with other content is none of the sender's.
    let other = r#"{ "zen" : "Design for failure." }"#;
    let signature = format!("sha256={}", hex(SECRET, &[other]));
    let with = [("x-hub-signature-256", &*signature), ("x-github-delivery", "d-1")];
    assert_eq!(deliver(&broker, "hub", &with, other).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_proven_is_refused_whatever_is_wrong_with_it() {
    let (_sink, broker) = started().await;
    let body = "Hello, World!";
    let digest = hex(SECRET, &[body]);
    let header = "x-hub-signature-256";
    let (upper, right) = (digest.to_ascii_uppercase(), format!("sha256={digest}"));
    let texts = [
        format!("sha1={digest}"),
        digest.clone(),
        format!("sha256={}", &digest[..62]),
        format!("sha256={upper}"),
        "sha256=not hexadecimal".into(),
        "sha256=".into(),
    ];
    let mut attempts: Vec<Vec<(&str, &str)>> = texts.iter().map(|text| vec![(header, &**text)]).collect();
    attempts.push(vec![]);
    attempts.push(vec![("x-hub-signature", &right)]);
    for attempt in &attempts {
        assert_eq!(deliver(&broker, "hub", attempt, body).await.status, 401, "{attempt:?}");
    }
    let mut doubled = headers([(header, &*right)]);
    doubled.append(header, right.parse().unwrap());
    let answer = send(broker.public, Method::POST, "/hooks/hub", doubled, body).await;
    assert_eq!(answer.status, 401);
    assert_eq!(deliver(&broker, "hub", &[(header, &right)], "Hello, World! ").await.status, 401);
    assert_eq!(deliver(&broker, "lab", &[("x-gitlab-token", "t0kem")], "{}").await.status, 401);
    assert_eq!(refused(&broker).await, "11");

    // It tells nobody what to try next, and an operator why.
    let nowhere = deliver(&broker, "nowhere", &[], body).await;
    let (denied, missing) = (deliver(&broker, "hub", &[], body).await.json(), nowhere.json());
    assert_eq!((nowhere.status, &denied["detail"]), (StatusCode::NOT_FOUND, &missing["detail"]));
    assert_eq!(deliver(&broker, "timer", &[], "").await.status, 404);
    let said = broker.said();
    assert!(said.contains("refused a delivery to source `hub`: "), "{said}");
    assert!(!said.contains(&digest) && !said.contains("t0kem") && !said.contains("Secret"), "{said}");
    assert_eq!(deliver(&broker, "hub", &[(header, &right)], body).await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_time_is_near_now() {
    let (_sink, broker) = started().await;
    let key = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let attempt = async |id: &str, time: &str| {
        let tag = mac(&key, &[id, ".", time, ".{}"]);
        let signature = BASE64_STANDARD.encode(tag.as_ref());
        let list = format!("v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= v1,{signature} v1a,AAAA");
        let with = [("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", &*list)];
        deliver(&broker, "standard", &with, "{}").await.status.as_u16()
    };
    let now = now_s();
    assert_eq!(attempt("msg_1", &now.to_string()).await, 202);
    for time in [now - 600, now + 600].map(|time| time.to_string()) {
        assert_eq!(attempt("msg_2", &time).await, 401, "{time}");
    }
    for time in ["soon", "1e9", "-1"] {
        assert_eq!(attempt("msg_2", time).await, 401, "{time}");
    }
    assert_eq!(attempt(&format!("msg_2.{now}"), &now.to_string()).await, 401);
    let shown = broker.get("events/0").await;
    assert_eq!(shown["event"]["id"], "msg_1");

    for list in ["t=,v1=", "v1=00", "t=1;v1=00", ",,,", "t=1,t=2,v1=00"] {
        assert_eq!(
            deliver(&broker, "stripe", &[("stripe-signature", list)], "{}").await.status,
            401,
            "{list}"
        );
    }
    let body = r#"{"id":"evt_1","type":"charge.succeeded"}"#;
    let time = now_s().to_string();
    let list = format!("t={time},v1={},v0=00", hex("whsec_test_secret", &[&time, ".", body]));
    assert_eq!(deliver(&broker, "stripe", &[("stripe-signature", &list)], body).await.status, 202);
    let event = broker.get("events/1").await["event"].clone();
    let named = |name: &str| event[name].as_str().unwrap().to_owned();
    assert_eq!(
        [named("id"), named("type"), named("source")],
        ["evt_1", "com.stripe.charge.succeeded", "https://stripe.com"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn slack_hears_its_challenge() {
    let (_sink, broker) = started().await;
    let body = r#"{"token":"x","challenge":"3eZbrw1aB","type":"url_verification"}"#;
    let time = now_s().to_string();
    let signature = format!("v0={}", hex(SECRET, &["v0:", &time, ":", body]));
    let with = [("x-slack-signature", &*signature), ("x-slack-request-timestamp", &*time)];
    let answer = deliver(&broker, "slack", &with, body).await;
    assert_eq!((answer.status, &*answer.text()), (StatusCode::OK, "3eZbrw1aB"));
    let list = broker.get("events").await;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn git_hosts_are_told_apart_and_mapped() {
    let (_sink, broker) = started().await;
    let ping = r#"{"zen":"x","hook_id":30,"repository":{"url":"https://api.github.com/repos/o/r"}}"#;
    let new = r#"{"action":"born","repository":{"url":"https://api.github.com/repos/o/r"}}"#;
    let form = "payload=%7B%22ref%22%3A%22refs%2Fheads%2F--upload-pack%3Dx%22%7D";
    for (event, body, kind) in [
        ("ping", ping, "application/json"),
        ("star_fleet", new, "application/json"),
        ("push", form, "application/x-www-form-urlencoded"),
    ] {
        let signature = format!("sha256={}", hex(SECRET, &[body]));
        let id = format!("d-{event}");
        let with = [
            ("x-hub-signature-256", &*signature),
            ("x-github-event", event),
            ("x-github-delivery", &id),
            ("content-type", kind),
        ];
        let answer = deliver(&broker, "repo", &with, body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    let gitea = r#"{"ref":"refs/heads/main","repository":{"html_url":"https://git.example.com/o/r"}}"#;
    let signature = hex(SECRET, &[gitea]);
    let with = [
        ("x-gitea-event", "push"),
        ("x-github-event", "push"),
        ("x-gitea-signature", &*signature),
        ("x-gitea-delivery", "g-1"),
    ];
    assert_eq!(deliver(&broker, "repo", &with, gitea).await.status, 202);
    let lab = r#"{"object_kind":"push","checkout_sha":"da15","repository":{"homepage":"http://lab.example.com/o/r"}}"#;
    let with = [("x-gitlab-token", "t0ken"), ("x-gitlab-event", "Push Hook"), ("idempotency-key", "i-1")];
    assert_eq!(deliver(&broker, "lab", &with, lab).await.status, 202);

    let mut found = Vec::new();
    for offset in 0..5 {
        let event = broker.get(&format!("events/{offset}")).await["event"].clone();
        let text = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
        found.push(format!("{} {} {} {}", text("id"), text("type"), text("source"), text("subject")));
    }
    assert_eq!(
        found,
        [
            "d-ping com.github.ping https://api.github.com/repos/o/r 30",
            "d-star_fleet com.github.star_fleet.born https://api.github.com/repos/o/r -",
            "d-push com.github.push /repo refs/heads/--upload-pack=x",
            "g-1 com.gitea.push https://git.example.com/o/r refs/heads/main",
            "i-1 com.gitlab.push http://lab.example.com/o/r da15",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn gitea_and_forgejo_may_deliver_with_get() {
    let (_sink, broker) = started().await;
    let payload = r#"{"ref":"refs/heads/a b+c","repository":{"html_url":"https://git.example.com/o/r"}}"#;
    let query: String = payload.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let get = async |query: &str, with: &[(&str, &str)]| {
        let with = headers(with.iter().copied());
        send(broker.public, Method::GET, &format!("/hooks/repo{query}"), with, String::new()).await
    };
    let query = format!("?from=here&payload={query}");
    let (signature, wrong) = (hex(SECRET, &[payload]), hex("other", &[payload]));
    for (number, sender) in ["gitea", "forgejo"].into_iter().enumerate() {
        let [event, signed] = ["event", "signature"].map(|part| format!("x-{sender}-{part}"));
        let with = |signature| [(&*event, "push"), (&*signed, signature), ("x-gitea-delivery", sender)];
        assert_eq!(get(&query, &with(&wrong)).await.status, 401);
        let taken = get(&query, &with(&signature)).await;
        assert_eq!((taken.status.as_u16(), taken.header("cache-control")), (202, Some("private")));
        let again = get(&query, &with(&signature)).await;
        assert_eq!(again.header("sluice-duplicate"), Some("true"));
        let event = broker.get(&format!("events/{number}")).await["event"].clone();
        assert_eq!(
            (&event["subject"], &event["data"]["ref"]),
            (&json!("refs/heads/a b+c"), &event["subject"])
        );
        assert_eq!((&event["id"], &event["datacontenttype"]), (&json!(sender), &json!("application/json")));
    }
    let long = format!("?payload={}", "x".repeat(8 << 10));
    assert_eq!(get(&long, &[("x-gitea-event", "push")]).await.status, 414);
    // Nobody else delivers so, and what has no payload is no delivery.
    for (query, with) in
        [(&*query, [("x-github-event", "push")]), ("?payloads=1", [("x-gitea-event", "push")])]
    {
        let answer = get(query, &with).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("POST, OPTIONS")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_the_limit_of_its_source() {
    let (_sink, broker) = started().await;
    assert_eq!(deliver(&broker, "small", &[], &"x".repeat(1024)).await.status, 202);
    assert_eq!(deliver(&broker, "small", &[], &"x".repeat(1025)).await.status, 413);
    let metrics = broker.ask("/metrics").await.text();
    assert!(metrics.contains("\nsluice_events_refused_total{reason=\"too_large\"} 1\n"), "{metrics}");
    // The largest that GitHub sends, with a push of as many commits as it lists.
    let commits = vec![json!({ "id": "a".repeat(40), "message": "m".repeat(11_000) }); 2048];
    let body =
        json!({ "ref": "refs/heads/gone", "after": "0".repeat(40), "head_commit": null, "commits": commits })
            .to_string();
    assert!(body.len() > 21 << 20, "{}", body.len());
    let signature = format!("sha256={}", hex(SECRET, &[&body]));
    let with =
        [("x-hub-signature-256", &*signature), ("x-github-event", "push"), ("x-github-delivery", "large")];
    let answer = deliver(&broker, "repo", &with, &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_what_is_proven_and_what_is_there() {
    let (sink, broker) = started().await;
    let deliver_lab = async |token: &str| {
        let with = [("x-gitlab-token", token), ("x-gitlab-event", "Push Hook"), ("idempotency-key", token)];
        deliver(&broker, "lab", &with, "{}").await.status.as_u16()
    };
    assert_eq!(deliver_lab("t0ken").await, 202);
    let rotated = yaml(&sink.url).replace("secret: t0ken", "secrets: [n3w]").replace("  small: ", "  tiny: ");
    assert_eq!(broker.reload(&rotated).await.status, 200);
    assert_eq!((deliver_lab("t0ken").await, deliver_lab("n3w").await), (401, 202));
    assert_eq!(deliver(&broker, "small", &[], "{}").await.status, 404);
    assert_eq!(deliver(&broker, "tiny", &[], "{}").await.status, 202);
    // A secret that cannot be one changes nothing.
    let wrong =
        rotated.replace("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%%").replace("n3w", "newer");
    let refused = broker.reload(&wrong).await;
    assert!(!refused.status.is_success());
    assert!(refused.text().contains("a secret of this scheme is `whsec_`"), "{}", refused.text());
    assert_eq!(deliver_lab("n3w").await, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_event_is_put_aside_and_comes_back_under_a_better_configuration() {
    let (sink, broker) = started().await;
    let body = r#"{"id":"evt_9"}"#;
    let time = now_s().to_string();
    let list = format!("t={time},v1={}", hex("whsec_test_secret", &[&time, ".", body]));
    let answer = deliver(&broker, "stripe", &[("stripe-signature", &list)], body).await;
    assert_eq!((answer.status, answer.header("sluice-offset")), (StatusCode::ACCEPTED, None));
    let listed = broker.dead_letters(1).await.remove(0);
    let aside = broker.get(&format!("dead-letters/{}", listed["id"].as_str().unwrap())).await;
    assert_eq!(
        (&aside["via"], &aside["trigger"], &aside["reason"]),
        (&json!("stripe"), &Value::Null, &json!("quarantine"))
    );
    assert!(aside["detail"].as_str().unwrap().contains("`{body.type}` is absent"), "{aside}");
    let better = yaml(&sink.url).replace("{body.type}", "{body.type|unknown}");
    assert_eq!(broker.reload(&better).await.status, 200);
    broker.do_call("dead-letters/redrive", &json!({ "all": true })).await;
    broker.dead_letters(0).await;
    let event = broker.get("events/0").await["event"].clone();
    assert_eq!((&event["type"], &event["id"]), (&json!("com.stripe.unknown"), &json!("evt_9")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_aside_outlives_a_crash_and_leaves_one_by_one() {
    let (sink, broker) = started().await;
    for number in 1..=3 {
        let body = format!(r#"{{ "id" : "evt_{number}" }}"#);
        let time = now_s().to_string();
        let list = format!("t={time},v1={}", hex("whsec_test_secret", &[&time, ".", &body]));
        let with = [("stripe-signature", &*list), ("content-type", "application/json")];
        assert_eq!(deliver(&broker, "stripe", &with, &body).await.status, 202);
    }
    let broken = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s")];
    assert_eq!(deliver(&broker, "small", &broken, "kept").await.status, 202);
    broker.get_when("sources/stripe", |source| source["put_aside"] == 3).await;

    let broker = broker.kill_and_restart().await;
    assert_eq!(broker.dead_letters(4).await.len(), 4);
    let listed = |via: &str| {
        let told = broker.cli(&format!("dlq list --via {via} --json")).json();
        let ids = told.as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    let (ids, other) = (listed("stripe"), listed("small"));
    assert_eq!((ids.len(), other.len()), (3, 1), "{ids:?} {other:?}");
    let shown = broker.cli(&format!("dlq show {} --json", ids[1])).json();
    let body = r#"{ "id" : "evt_2" }"#;
    let record = &shown["record"];
    assert_eq!(
        (&record["body"], &record["size"]),
        (&json!(BASE64_STANDARD.encode(body)), &json!(body.len()))
    );
    assert!(record["headers"].as_array().unwrap().contains(&json!(["content-type", "application/json"])));
    assert!(record["position"] == "evt_2" && shown["event"].is_null(), "{shown}");
    let shown = broker.cli(&format!("dlq show {}", other[0]));
    assert!(shown.out.contains("attribute `type` is required") && shown.out.contains("small"), "{shown:?}");

    // Nothing is better yet: it stays, and says why.
    let told = broker.cli(&format!("dlq redrive {}", ids[1]));
    assert!(told.code == 1 && told.err.contains("`{body.type}` is absent"), "{told:?}");
    let better = yaml(&sink.url).replace("{body.type}", "{body.type|unknown}");
    assert_eq!(broker.reload(&better).await.status, 200);
    let told = broker.cli(&format!("dlq redrive {}", ids[1]));
    assert_eq!(told.code, 0, "{told:?}");
    broker.trigger_when("all", |trigger| trigger["delivered"] == 1).await;
    let broker = broker.kill_and_restart().await;
    let event = broker.get("events/0").await["event"].clone();
    assert_eq!((&event["id"], &event["type"]), (&json!("evt_2"), &json!("com.stripe.unknown")));
    assert_eq!(broker.cli(&format!("dlq purge {} --yes", ids[0])).code, 0);
    assert_eq!(broker.dead_letters(2).await.len(), 2);
    assert_eq!(broker.cli("dlq redrive --via stripe").code, 0);
    broker.trigger_when("all", |trigger| trigger["delivered"] == 2).await;
    assert_eq!(broker.dead_letters(1).await[0]["id"], *other[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_shows_its_size_and_makes_no_event() {
    let sink = Sink::accepting().await;
    let source = "webhook: { insecure: true }, oversize: truncate, event: { type: \"{body.type}\" }";
    let yaml = |source: &str| {
        let limits = "limits: { put_aside_bytes: 1KiB }\n";
        format!(
            "{limits}sources: {{ hook: {{ {source} }} }}\ntriggers: {{ all: {{ sink: \"{}\" }} }}\n",
            sink.url
        )
    };
    let broker = Broker::start(&yaml(source)).await;
    assert_eq!(deliver(&broker, "hook", &[], &"x".repeat(5000)).await.status, 202);
    let broker = broker.kill_and_restart().await;
    let id = broker.dead_letters(1).await[0]["id"].as_str().unwrap().to_owned();
    let shown = broker.cli(&format!("dlq show {id} --json")).json();
    assert_eq!(shown["record"]["size"], 5000);
    assert_eq!(shown["record"]["body"], BASE64_STANDARD.encode("x".repeat(1024)));
    assert_eq!(broker.reload(&yaml("webhook: { insecure: true }")).await.status, 200);
    let told = broker.cli(&format!("dlq redrive {id}"));
    assert!(told.code == 1 && told.err.contains("the first 1024 of its 5000 bytes"), "{told:?}");
    assert_eq!(broker.dead_letters(1).await.len(), 1);
    assert_eq!(broker.cli("dlq purge --all --yes").code, 0);
    broker.dead_letters(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_source_is_not_there_for_a_while() {
    let (_sink, broker) = started().await;
    for source in ["small", "lab"] {
        let paused = broker.cli(&format!("sources pause {source}"));
        assert_eq!(paused.code, 0, "{paused:?}");
        let answer = deliver(&broker, source, &[("x-gitlab-token", "t0ken")], "{}").await;
        assert_eq!(answer.status, 503);
        assert!(answer.header("retry-after").is_some());
    }
    let broker = broker.stop_and_restart().await;
    assert_eq!(deliver(&broker, "small", &[], "{}").await.status, 503);
    // Others go on, and nobody waits for a source that is to be away.
    assert_eq!(broker.ask("/readyz").await.json()["status"], "ready");
    assert_eq!(broker.cli("sources resume small").code, 0);
    broker.get_when("sources/small", |source| source["state"] == "running").await;
    assert_eq!(deliver(&broker, "small", &[], "{}").await.status, 202);
    let source = broker.get_when("sources/small", |source| source["accepted"] == 1).await;
    assert_eq!(source["kind"], "webhook");
    assert_eq!(deliver(&broker, "lab", &[("x-gitlab-token", "t0ken")], "{}").await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_section_of_the_readme_is_true() {
    let section = crate::documents::section("## Webhooks");
    let block = |fence: &str| section.split(fence).nth(1).unwrap().split("```").next().unwrap().to_owned();
    let mut yaml = block("```yaml\n");
    for name in ["STRIPE_SECRET", "STRIPE_OLD_SECRET", "BILLING_SECRET", "BUILDS_TOKEN"] {
        yaml = yaml.replace(&format!("${{{name}}}"), "s3cret");
    }
    let broker = Broker::start(&yaml).await;
    let curl = block("```sh\n").replace("127.0.0.1:8080", &broker.public.to_string());
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &curl]).env("BUILDS_TOKEN", "s3cret");
    let told = run(shell);
    assert!(told.out.contains("202 Accepted"), "{told:?}");
    let event = broker.get("events/0").await["event"].clone();
    assert_eq!((&event["type"], &event["id"]), (&json!("com.example.build.failed"), &json!("build-17")));
    let answer = send(broker.public, Method::OPTIONS, "/hooks/builds", HeaderMap::new(), "").await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (200, Some("POST, OPTIONS")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_that_leaves_some_says_so_with_its_exit_code() {
    let yaml = |id: &str| {
        format!("sources: {{ hook: {{ webhook: {{ insecure: true }}, event: {{ id: \"{id}\" }} }} }}")
    };
    let broker = Broker::start(&yaml("{body.id}")).await;
    for body in ["{\"a\":1}", "{\"a\":2}"] {
        assert_eq!(deliver(&broker, "hook", &[], body).await.status, 202);
    }
    assert_eq!(broker.reload(&yaml("same")).await.status, 200);
    let told = broker.cli_words(&["dlq", "redrive", "--via", "hook", "--json"]);
    assert_eq!(told.code, 1, "{told:?}");
    assert_eq!(told.json()["redriven"], 1);
    assert_eq!(told.json()["failed"][0]["id"], "2@hook");
    assert!(told.err.contains("1 of the dead letters stay"), "{told:?}");
}
