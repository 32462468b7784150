use std::sync::Mutex as StdMutex;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use sluice_config::{GitProvider, Hmac, HmacAlgorithm, HmacEncoding, Secret, Verify};
use sluice_schemas::json::encode;
use tokio::sync::watch;

use super::*;
use crate::{Context, Health, Publisher, Report, Source as _, Stop};

fn source(kind: SourceKind, event: Value) -> Source {
    let Value::Object(event) = event else { panic!("an object") };
    Source { kind, event: event.into_iter().collect(), event_bytes: 4096, oversize: Oversize::Stop }
}

fn webhook(scheme: Option<Scheme>, event: Value) -> Hook {
    let verify = scheme.map(|scheme| Verify {
        scheme,
        secrets: vec![Secret::new("whsec_c2VjcmV0".into())],
        tolerance: Duration::from_secs(300),
    });
    let kind = SourceKind::Webhook(WebhookSource { verify });
    Hook::compile("shop", &source(kind, event)).expect("compiles").expect("a hook")
}

fn git(provider: GitProvider, secrets: &[&str]) -> Hook {
    let secrets = secrets.iter().map(|secret| Secret::new((*secret).into())).collect();
    let kind = SourceKind::Git(GitSource { provider, secrets });
    Hook::compile("repo", &source(kind, json!({}))).expect("compiles").expect("a hook")
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

fn record(hook: &Hook, pairs: &[(&'static str, &'static str)], body: &'static str) -> Record {
    hook.record(&headers(pairs), Bytes::from_static(body.as_bytes()), Verified::default(), 1_700_000_000_000)
}

fn check(hook: &Hook, pairs: &[(&'static str, &'static str)], body: &'static str, expected: &str) {
    let found = match hook.to_events(&record(hook, pairs, body)) {
        Ok(events) => {
            let events = events.iter().map(|event| String::from_utf8(encode(event)).expect("text"));
            events.collect::<Vec<_>>().join("\n")
        }
        Err(unfit) => format!("unfit: {unfit}"),
    };
    assert_eq!(found, expected);
}

const JSON_BODY: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");

#[test]
fn what_is_no_cloudevent_becomes_one_with_the_bytes_as_they_came() {
    let hook = webhook(None, json!({}));
    check(
        &hook,
        &[JSON_BODY],
        r#"{ "a" : 1 }"#,
        r#"{"specversion":"1.0","id":"c94841c938b16d8b21ccfcd43131ec607e39782e486250bcd72341c7a3af0e44","source":"/shop","type":"sluice.webhook","datacontenttype":"application/json","authtype":"unauthenticated","data":{ "a" : 1 }}"#,
    );
    // FIPS 180-2, appendix B.1.
    assert_eq!(
        record(&hook, &[], "abc").position,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    let event = |pairs: &[_], body| hook.to_events(&record(&hook, pairs, body)).expect("fits").remove(0);
    assert_eq!(event(&[("content-type", "no media type")], "x").datacontenttype(), None);
    assert_eq!(event(&[], "").data(), None);
    // What looks like an envelope and does not claim to be one is data.
    let looks = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
    assert_eq!(event(&[JSON_BODY], looks).ty(), "sluice.webhook");
}

#[test]
fn a_cloudevent_passes_as_it_is_whatever_event_says() {
    let hook = webhook(Some(Scheme::Stripe), json!({ "type": "other", "source": "/other" }));
    check(
        &hook,
        &[
            ("content-type", "text/plain"),
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/sender"),
            ("ce-type", "com.example.x"),
        ],
        "hello",
        r#"{"specversion":"1.0","id":"1","source":"/sender","type":"com.example.x","datacontenttype":"text/plain","data":"hello"}"#,
    );
    let structured = r#"{"specversion":"1.0","id":"2","source":"/sender","type":"t","data":{"a":1}}"#;
    check(&hook, &[("content-type", "application/cloudevents+json")], structured, structured);
    check(
        &hook,
        &[("content-type", "application/cloudevents-batch+json")],
        r#"[{"specversion":"1.0","id":"2","source":"/s","type":"t"},{"specversion":"1.0","id":"3","source":"/s","type":"t"}]"#,
        "{\"specversion\":\"1.0\",\"id\":\"2\",\"source\":\"/s\",\"type\":\"t\"}\n{\"specversion\":\"1.0\",\"id\":\"3\",\"source\":\"/s\",\"type\":\"t\"}",
    );
    check(
        &hook,
        &[("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/sender")],
        "hello",
        "unfit: attribute `type` is required",
    );
}

#[test]
fn each_scheme_has_its_delivery_id() {
    let standard = [("webhook-id", "msg_1"), ("svix-id", "msg_2")];
    let gitlab = [("idempotency-key", "i1"), ("x-gitlab-event-uuid", "u1")];
    let hmac = Hmac {
        algorithm: HmacAlgorithm::Sha256,
        header: "x-signature".into(),
        encoding: HmacEncoding::Hex,
        prefix: String::new(),
        signed: "{body}".into(),
        timestamp_header: None,
    };
    let body = r#"{"id":"evt_1","event_id":"Ev08MFMKH6"}"#;
    let digest = delivery_id::of_body(&Record { body: Some(body.into()), ..Record::default() });
    for (scheme, pairs, expected) in [
        (Scheme::StandardWebhooks, &standard[..], "msg_1"),
        (Scheme::Svix, &standard[..], "msg_2"),
        (Scheme::Svix, &standard[..1], "msg_1"),
        (
            Scheme::Github,
            &[("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")],
            "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        ),
        (Scheme::Shopify, &[("x-shopify-webhook-id", "w1")], "w1"),
        (Scheme::Gitlab, &gitlab[..], "i1"),
        (Scheme::Gitlab, &gitlab[1..], "u1"),
        (Scheme::Stripe, &[], "evt_1"),
        (Scheme::Slack, &[], "Ev08MFMKH6"),
        (Scheme::Github, &[], &*digest),
        (Scheme::Token(TokenPlace::Query("t".into())), &standard[..], &*digest),
        (Scheme::Hmac(hmac), &standard[..], &*digest),
    ] {
        let shown = format!("{scheme:?}");
        let hook = webhook(Some(scheme), json!({}));
        assert_eq!(record(&hook, pairs, body).position, expected, "{shown}");
    }
}

#[test]
fn an_id_that_no_event_may_have_names_nothing() {
    let hook = webhook(Some(Scheme::Stripe), json!({}));
    let body = r#"{"id":"a\u0007"}"#;
    let record = record(&hook, &[], body);
    assert_eq!(record.position, delivery_id::of_body(&record));
    let mut headers = headers(&[("x-github-event", "push")]);
    headers.insert("x-github-delivery", HeaderValue::from_bytes("a\u{85}".as_bytes()).expect("a value"));
    let record = git(GitProvider::Github, &[]).record(&headers, Bytes::new(), Verified::default(), 0);
    assert_eq!(record.position, delivery_id::of_body(&record));
}

#[test]
fn templates_look_into_forms_too() {
    let event = json!({ "type": "com.slack.{body.type|command}", "source": "https://slack.com", "subject": "{body.user.id|}" });
    let hook = webhook(Some(Scheme::Slack), event);
    let event = |body| hook.to_events(&record(&hook, &[FORM], body)).expect("fits").remove(0);
    let action =
        event("payload=%7B%22type%22%3A%22block_actions%22%2C%22user%22%3A%7B%22id%22%3A%22U1%22%7D%7D");
    assert_eq!((action.ty(), action.subject()), ("com.slack.block_actions", Some("U1")));
    assert_eq!(action.datacontenttype(), Some("application/json"));
    assert_eq!(&action.data().expect("data").bytes[..], br#"{"type":"block_actions","user":{"id":"U1"}}"#);
    let command = event("command=%2Fweather&text=94070&text=95");
    assert_eq!(command.ty(), "com.slack.command");
    let data = &command.data().expect("data").bytes[..];
    assert_eq!(data, br#"{"command":"/weather","text":["94070","95"]}"#);
}

#[test]
fn what_an_id_needs_and_is_absent_makes_the_delivery_unfit() {
    let hook = webhook(Some(Scheme::Stripe), json!({ "id": "{body.id}", "type": "com.stripe.{body.type}" }));
    check(
        &hook,
        &[JSON_BODY],
        r#"{"id":"evt_1"}"#,
        "unfit: `type`: `{body.type}` is absent, and has no default",
    );
}

#[test]
fn only_events_of_a_source_that_takes_anybody_are_marked() {
    let kept = |hook: &Hook| {
        let event = hook.to_events(&record(hook, &[], "{}")).expect("fits").remove(0);
        event.text("authtype").map(str::to_owned)
    };
    assert_eq!(kept(&webhook(None, json!({}))).as_deref(), Some("unauthenticated"));
    assert_eq!(kept(&git(GitProvider::Auto, &[])).as_deref(), Some("unauthenticated"));
    assert_eq!(kept(&webhook(None, json!({ "authtype": null }))), None);
    assert_eq!(kept(&webhook(Some(Scheme::Stripe), json!({}))), None);
    assert_eq!(kept(&git(GitProvider::Auto, &["s"])), None);
}

#[test]
fn a_signed_time_is_the_time_of_the_event() {
    let hook = webhook(Some(Scheme::Stripe), json!({}));
    let record =
        hook.record(&HeaderMap::new(), Bytes::new(), Verified { time_s: Some(1_492_774_577), id: None }, 0);
    let event = hook.to_events(&record).expect("fits").remove(0);
    assert_eq!(event.text("time"), Some("2017-04-21T11:36:17Z"));
}

#[test]
fn a_signed_id_is_the_id_whatever_other_headers_say() {
    let forged = headers(&[
        ("webhook-id", "forged"),
        ("idempotency-key", "forged"),
        ("x-gitlab-event-uuid", "forged"),
    ]);
    for hook in [
        webhook(Some(Scheme::StandardWebhooks), json!({})),
        webhook(Some(Scheme::Gitlab), json!({})),
        git(GitProvider::Gitlab, &["s"]),
    ] {
        let verified = Verified { time_s: Some(0), id: Some("signed".into()) };
        assert_eq!(hook.record(&forged, Bytes::new(), verified, 0).position, "signed");
        assert_eq!(hook.record(&forged, Bytes::new(), Verified::default(), 0).position, "forged");
    }
}

#[test]
fn the_challenge_of_slack_is_answered_and_nobody_elses() {
    let body = r#"{"token":"x","challenge":"3eZbrw1aB","type":"url_verification"}"#;
    let slack = webhook(Some(Scheme::Slack), json!({}));
    assert_eq!(slack.challenge(&record(&slack, &[JSON_BODY], body)).as_deref(), Some("3eZbrw1aB"));
    let event = r#"{"challenge":"3eZbrw1aB","type":"event_callback"}"#;
    assert_eq!(slack.challenge(&record(&slack, &[JSON_BODY], event)), None);
    let github = webhook(Some(Scheme::Github), json!({}));
    assert_eq!(github.challenge(&record(&github, &[JSON_BODY], body)), None);
}

#[test]
fn no_record_keeps_a_secret() {
    let place = TokenPlace::Header("x-my-token".into());
    let hook = webhook(Some(Scheme::Token(place)), json!({ "subject": "{headers.x-my-token|none}" }));
    let pairs = [
        ("x-my-token", "s3cret"),
        ("authorization", "Bearer s3cret"),
        ("cookie", "s3cret"),
        ("x-gitlab-token", "s3cret"),
        ("x-kept", "yes"),
    ];
    let record = record(&hook, &pairs, "{}");
    assert!(!format!("{record:?}").contains("s3cret"));
    assert_eq!(record.header("x-kept"), Some("yes"));
    assert_eq!(hook.to_events(&record).expect("fits")[0].subject(), Some("none"));
}

#[test]
fn a_form_of_a_git_host_holds_its_payload() {
    let hook = git(GitProvider::Auto, &[]);
    let pairs = [FORM, ("x-github-event", "push"), ("x-github-delivery", "d1")];
    let body = "payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D&payload=%7B%22ref%22%3A%22other%22%7D";
    check(
        &hook,
        &pairs,
        body,
        r#"{"specversion":"1.0","id":"d1","source":"/repo","type":"com.github.push","datacontenttype":"application/json","authtype":"unauthenticated","subject":"refs/heads/main","time":"2023-11-14T22:13:20Z","data":{"ref":"refs/heads/main"}}"#,
    );
}

#[test]
fn a_git_source_verifies_as_the_host_signs() {
    let auto = git(GitProvider::Auto, &["gitea"]);
    let body = br#"{"ref":"refs/heads/main"}"#;
    let verdict = |hook: &Hook, pairs: &[(&'static str, &'static str)]| {
        let headers = headers(pairs);
        let verified = hook.claim(&headers, None, 0).and_then(|claim| claim.check(&headers, body));
        verified.map_or_else(|denied| denied.to_string(), |_| "verified".into())
    };
    let signature = SIGNATURE;
    let (gitea, forgejo) = (("x-gitea-event", "push"), ("x-forgejo-event", "push"));
    let github = ("x-github-event", "push");
    for (pairs, expected) in [
        (&[gitea, github, ("x-gitea-signature", signature)][..], "verified"),
        (&[forgejo, gitea, github, ("x-forgejo-signature", signature)], "verified"),
        (&[forgejo, gitea, ("x-gitea-signature", signature)], "`x-forgejo-signature` is missing or empty"),
        (&[gitea, ("x-gitea-signature", "")], "`x-gitea-signature` is missing or empty"),
        (&[github], "`x-hub-signature-256` is missing or empty"),
        (&[("x-gitlab-event", "Push Hook"), ("x-gitlab-token", "gitea")], "verified"),
        (
            &[("x-gitlab-event", "Push Hook"), ("x-gitlab-token", "gitee")],
            "`x-gitlab-token` holds none of the secrets",
        ),
        (&[("x-event-key", "repo:push")], "`x-hub-signature` is missing or empty"),
        (&[], "`a header of a known provider` is missing or empty"),
    ] {
        assert_eq!(verdict(&auto, pairs), expected, "{pairs:?}");
    }
    // Whoever is configured for one host does not take the signature of another.
    let only = git(GitProvider::Github, &["gitea"]);
    assert_eq!(
        verdict(&only, &[gitea, ("x-gitea-signature", signature)]),
        "`x-hub-signature-256` is missing or empty"
    );
    assert_eq!(verdict(&git(GitProvider::Auto, &[]), &[]), "verified");
}

/// Computed: HMAC-SHA256 of `{"ref":"refs/heads/main"}` with the key `gitea`.
const SIGNATURE: &str = "3db961664836f4213d5398d72ad212c1a7c67a297ca6309c598c93c26444be48";

/// An intake that nothing reaches here.
struct Untouched;

impl crate::Intake for Untouched {
    fn submit(&self, request: crate::Request) {
        panic!("{} was published to", request.via);
    }
}

#[tokio::test]
async fn a_hook_is_open_while_its_source_runs() {
    let hooks = Hooks::default();
    let state = |name: &str| match hooks.find(name) {
        Found::Nothing => "nothing",
        Found::Closed => "closed",
        Found::Open(_) => "open",
    };
    assert_eq!(state("shop"), "nothing");
    let source = HookSource::new(webhook(None, json!({})), &hooks);
    assert_eq!(state("shop"), "closed");
    let (stop, stopped) = watch::channel(false);
    let reports = std::sync::Arc::new(StdMutex::new(Vec::new()));
    let told = std::sync::Arc::clone(&reports);
    let context = Context {
        name: "shop".into(),
        publisher: Publisher::new("shop", std::sync::Arc::new(Untouched)),
        health: Health::new(move |report| told.lock().unwrap().push(report)),
        stop: Stop::new(stopped),
        mark: None,
        put_aside_bytes: 1 << 20,
        oversize: Oversize::Stop,
    };
    let mut run = source.run(context);
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(run.as_mut().poll(cx))).await.is_pending());
    assert_eq!(state("shop"), "open");
    assert_eq!(*reports.lock().unwrap(), [Report::Up]);
    stop.send_replace(true);
    run.await.expect("stops");
    assert_eq!(state("shop"), "closed");
    // A reload puts the new source in place before the old one goes.
    let next = HookSource::new(webhook(None, json!({})), &hooks);
    drop(source);
    assert_eq!(state("shop"), "closed");
    drop(next);
    assert_eq!(state("shop"), "nothing");
}

proptest::proptest! {
    /// Whatever a delivery holds, it is an event or is put aside with a reason.
    #[test]
    fn no_delivery_is_too_odd(
        names in proptest::collection::vec(0..ODD_HEADERS.len(), 0..6),
        values in proptest::collection::vec(".{0,40}", 6),
        body in "(\\{\"(action|ref|repository|object_kind|push)\":(\"|\\{|\\[|1|null)?.{0,60}|payload=[ -~]{0,60}|\\PC{0,80})",
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in names.iter().zip(values) {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.append(ODD_HEADERS[*name], value);
            }
        }
        let all = [GitProvider::Auto, GitProvider::Gitlab, GitProvider::Bitbucket, GitProvider::Forgejo];
        for hook in all.map(|provider| git(provider, &[])).iter().chain([&webhook(Some(Scheme::Stripe), json!({}))]) {
            let record = hook.record(&headers, body.clone().into(), Verified { time_s: Some(i64::MAX), id: None }, i64::MAX);
            let claims = claims_to_be_event(&headers);
            match hook.to_events(&record) {
                Ok(events) => assert!(events.iter().all(|event| !event.ty().is_empty())),
                // Only what says that it is a CloudEvent can fail here.
                Err(unfit) => assert!(claims, "{unfit}"),
            }
        }
    }
}

const ODD_HEADERS: [&str; 10] = [
    "content-type",
    "ce-specversion",
    "x-github-event",
    "x-github-delivery",
    "x-gitlab-event",
    "idempotency-key",
    "x-event-key",
    "x-request-uuid",
    "x-gitea-event",
    "x-forgejo-delivery",
];
