//! Sources: each kind, its defaults, and what is refused.

use expect_test::{Expect, expect};
use sluice_config::{changes, check_text};

use crate::{check, environment, read, report, shows};

/// The body of a source `s`.
fn source(body: &str) -> String {
    format!("sources:\n  s:\n    {}\n", body.replace('\n', "\n    "))
}

fn check_source(body: &str, expected: Expect) {
    check(&source(body), expected);
}

fn shows_source(body: &str, expected: Expect) {
    shows(&source(body), "/sources/s", expected);
}

#[test]
fn kafka_has_defaults() {
    shows_source(
        r#"kafka: { brokers: ["localhost:9092"], topics: [orders], group: sluice }"#,
        expect![[
            r#"{"event_bytes":"1MiB","kafka":{"brokers":["localhost:9092"],"group":"sluice","key":"partitionkey","session_timeout":"10s","start":"earliest","tls":false,"topics":["orders"]},"oversize":"stop"}"#
        ]],
    );
}

#[test]
fn kafka_with_everything() {
    shows_source(
        r#"kafka:
  brokers: [a:1, "[::1]:9092"]
  pattern: "^orders-(eu|us)"
  group: g
  start: latest
  key: ignore
  instance: one
  session_timeout: 30s
  tls: true
  sasl: { mechanism: SCRAM-SHA-512, username: u, password: "${TOKEN}" }
  properties: { fetch.min.bytes: 10, ssl.key.password: "${TOKEN}" }
event: { type: "order.{body.action|unknown}", source: "/{topic}", subject: "{key}" }
event_bytes: 2MiB
oversize: truncate"#,
        expect![[
            r#"{"event":{"source":"/{topic}","subject":"{key}","type":"order.{body.action|unknown}"},"event_bytes":"2MiB","kafka":{"brokers":["a:1","[::1]:9092"],"group":"g","instance":"one","key":"ignore","pattern":"orders-(eu|us)","properties":{"fetch.min.bytes":"[hidden]","ssl.key.password":"[hidden]"},"sasl":{"mechanism":"SCRAM-SHA-512","password":"[hidden]","username":"u"},"session_timeout":"30s","start":"latest","tls":true},"oversize":"truncate"}"#
        ]],
    );
}

#[test]
fn kafka_lacks_things() {
    check_source(
        "kafka: { }",
        expect![[r#"
        sluice.yaml:3:12: `kafka` of source `s` has no `brokers`
            3 |     kafka: { }
              |            ^
        sluice.yaml:3:12: `kafka` of source `s` has no `topics`: list them, or write a `pattern`
            3 |     kafka: { }
              |            ^
        sluice.yaml:3:12: `kafka` of source `s` has no `group`: the offsets are kept under its name
            3 |     kafka: { }
              |            ^
    "#]],
    );
}

#[test]
fn kafka_with_topics_and_a_pattern() {
    check_source(
        r#"kafka: { brokers: [a], topics: [a], pattern: b, group: g }"#,
        expect![[r#"
        sluice.yaml:3:41: `topics` and `pattern` exclude each other
            3 |     kafka: { brokers: [a], topics: [a], pattern: b, group: g }
              |                                         ^^^^^^^
    "#]],
    );
}

#[test]
fn a_regular_expression_among_the_topics() {
    check_source(
        r#"kafka: { brokers: [a], topics: [ok, "orders-("], group: g }"#,
        expect![[r#"
        sluice.yaml:3:41: `topics`: a topic is of a-z, A-Z, 0-9, `.`, `_` and `-`, not '(' (character 8); a regular expression is written `pattern: ...`, found `orders-(`
            3 |     kafka: { brokers: [a], topics: [ok, "orders-("], group: g }
              |                                         ^^^^^^^^^^
    "#]],
    );
}

#[test]
fn a_pattern_that_is_none() {
    check_source(
        r#"kafka: { brokers: [a], pattern: "orders-(", group: g }"#,
        expect![[r#"
        sluice.yaml:3:45: `pattern`: not a regular expression: unclosed group (character 8)
            3 |     kafka: { brokers: [a], pattern: "orders-(", group: g }
              |                                             ^
    "#]],
    );
}

#[test]
fn a_broker_that_is_a_url() {
    check_source(
        r#"kafka: { brokers: ["kafka://a:9092", "a:0", ""], topics: [t], group: g }"#,
        expect![[r#"
            sluice.yaml:3:24: `brokers`: expected HOST:PORT such as localhost:9092, found `kafka://a:9092`
                3 |     kafka: { brokers: ["kafka://a:9092", "a:0", ""], topics: [t], group: g }
                  |                        ^^^^^^^^^^^^^^^^
            sluice.yaml:3:42: `brokers`: expected HOST:PORT such as localhost:9092, found `a:0`
                3 |     kafka: { brokers: ["kafka://a:9092", "a:0", ""], topics: [t], group: g }
                  |                                          ^^^^^
            sluice.yaml:3:49: `brokers` is empty
                3 |     kafka: { brokers: ["kafka://a:9092", "a:0", ""], topics: [t], group: g }
                  |                                                 ^^
        "#]],
    );
}

#[test]
fn properties_that_sluice_sets_itself() {
    check_source(
        r#"kafka:
  brokers: [a]
  topics: [t]
  group: g
  properties: { enable.auto.commit: false, group.id: x, enable.auto.offset.store: true, bootstrap.servers: b, Fetch: 1 }"#,
        expect![[r#"
            sluice.yaml:7:21: property `enable.auto.commit` is set by Sluice: offsets are committed once their events are on disk
                7 |       properties: { enable.auto.commit: false, group.id: x, enable.auto.offset.store: true, bootstrap.servers:
                  |                     ^^^^^^^^^^^^^^^^^^
            sluice.yaml:7:48: property `group.id` is set by Sluice: write `group`
                7 |       properties: { enable.auto.commit: false, group.id: x, enable.auto.offset.store: true, bootstrap.servers:
                  |                                                ^^^^^^^^
            sluice.yaml:7:61: property `enable.auto.offset.store` is set by Sluice: offsets are committed once their events are on disk
                7 |       properties: { enable.auto.commit: false, group.id: x, enable.auto.offset.store: true, bootstrap.servers:
                  |                                                             ^^^^^^^^^^^^^^^^^^^^^^^^
            sluice.yaml:7:93: property `bootstrap.servers` is set by Sluice: write `brokers`
                7 | enable.auto.commit: false, group.id: x, enable.auto.offset.store: true, bootstrap.servers: b, Fetch: 1 }
                  |                                                                         ^^^^^^^^^^^^^^^^^
            sluice.yaml:7:115: `Fetch` is no property of librdkafka
                7 | lse, group.id: x, enable.auto.offset.store: true, bootstrap.servers: b, Fetch: 1 }
                  |                                                                         ^^^^^
        "#]],
    );
}

#[test]
fn one_group_in_two_sources() {
    check(
        r#"sources:
  one: { kafka: { brokers: [a, b], topics: [t], group: g } }
  two: { kafka: { brokers: [b], topics: [u], group: g } }
  three: { kafka: { brokers: [c], topics: [u], group: g } }
"#,
        expect![[r#"
            sluice.yaml:3:3: source `two`: group `g` is that of the source at sluice.yaml:2:3 already, and each would miss what the other gets
                3 |   two: { kafka: { brokers: [b], topics: [u], group: g } }
                  |   ^^^
        "#]],
    );
}

#[test]
fn an_unknown_sasl_mechanism() {
    check_source(
        r#"kafka:
  brokers: [a]
  topics: [t]
  group: g
  sasl: { mechanism: GSSAPI, username: u }"#,
        expect![[r#"
            sluice.yaml:7:13: `sasl` has no `password`
                7 |       sasl: { mechanism: GSSAPI, username: u }
                  |             ^
            sluice.yaml:7:26: `mechanism`: expected PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, found `GSSAPI`
                7 |       sasl: { mechanism: GSSAPI, username: u }
                  |                          ^^^^^^
        "#]],
    );
}

#[test]
fn amqp_has_defaults_and_hides_the_password() {
    shows_source(
        r#"amqp: { url: "${AMQP}", queue: payments }"#,
        expect![[
            r#"{"amqp":{"heartbeat":"10s","prefetch":256,"queue":"payments","tls":{},"url":"amqp://sluice:[hidden]@rabbit/shop"},"event_bytes":"1MiB","oversize":"stop"}"#
        ]],
    );
}

#[test]
fn amqp_with_a_declaration() {
    shows_source(
        r#"amqp:
  url: amqp://localhost
  queue: q
  declare:
    arguments: { x-queue-type: quorum, x-max-length: 1000 }
    bind: [{ exchange: orders, routing_key: "eu.*" }, { exchange: all }]
  prefetch: 10
  heartbeat: 30s"#,
        expect![[
            r#"{"amqp":{"declare":{"arguments":{"x-max-length":1000,"x-queue-type":"quorum"},"bind":[{"exchange":"orders","routing_key":"eu.*"},{"exchange":"all","routing_key":""}],"durable":true},"heartbeat":"30s","prefetch":10,"queue":"q","tls":{},"url":"amqp://localhost"},"event_bytes":"1MiB","oversize":"stop"}"#
        ]],
    );
}

#[test]
fn amqp_refuses() {
    check_source(
        r#"amqp: { url: http://localhost, queue: "", prefetch: 0, heartbeat: 1500ms, declare: { bind: [{}] } }"#,
        expect![[r#"
            sluice.yaml:3:18: `url`: expected a URL such as amqp://localhost, found `http://localhost`
                3 |     amqp: { url: http://localhost, queue: "", prefetch: 0, heartbeat: 1500ms, declare: { bind: [{}] } }
                  |                  ^^^^^^^^^^^^^^^^
            sluice.yaml:3:43: `queue` is empty
                3 |     amqp: { url: http://localhost, queue: "", prefetch: 0, heartbeat: 1500ms, declare: { bind: [{}] } }
                  |                                           ^^
            sluice.yaml:3:57: `prefetch`: expected a whole number from 1 to 65535, found `0`
                3 |     amqp: { url: http://localhost, queue: "", prefetch: 0, heartbeat: 1500ms, declare: { bind: [{}] } }
                  |                                                         ^
            sluice.yaml:3:71: `heartbeat`: expected whole seconds, found `1500ms`
                3 |     amqp: { url: http://localhost, queue: "", prefetch: 0, heartbeat: 1500ms, declare: { bind: [{}] } }
                  |                                                                       ^^^^^^
            sluice.yaml:3:97: `bind` has no `exchange`
                3 | localhost, queue: "", prefetch: 0, heartbeat: 1500ms, declare: { bind: [{}] } }
                  |                                                                         ^
        "#]],
    );
}

#[test]
fn a_password_in_a_url_is_not_shown_in_an_error_beside_it() {
    check_source(
        r#"amqp: { url: "amqp://u:hunter2@h", queu: x }"#,
        expect![[r#"
        sluice.yaml:3:11: `amqp` of source `s` has no `queue`
        sluice.yaml:3:40: unknown key `queu` in `amqp` of source `s`: did you mean `queue`?
    "#]],
    );
}

#[test]
fn nats_of_jetstream_has_defaults() {
    shows_source(
        r#"nats: { servers: ["nats://localhost"], stream: SENSORS, consumer: sluice }"#,
        expect![[
            r#"{"event_bytes":"1MiB","nats":{"consumer":"sluice","filter_subjects":[],"idle_heartbeat":"5s","servers":["nats://localhost"],"stream":"SENSORS","tls":false},"oversize":"stop"}"#
        ]],
    );
}

#[test]
fn core_nats_says_that_it_loses() {
    let core =
        |lossy: &str| format!(r#"nats: {{ servers: ["nats://h"], subjects: [a.>], queue_group: g{lossy} }}"#);
    check_source(
        &core(""),
        expect![[r#"
        sluice.yaml:3:11: `nats` of source `s`: core NATS forgets what nobody listens to, so events are lost while the broker is down: use a JetStream `stream`, or say `allow_lossy: true`
            3 |     nats: { servers: ["nats://h"], subjects: [a.>], queue_group: g }
              |           ^
    "#]],
    );
    shows_source(
        &core(", allow_lossy: true"),
        expect![[
            r#"{"event_bytes":"1MiB","nats":{"allow_lossy":true,"queue_group":"g","servers":["nats://h"],"subjects":["a.>"],"tls":false},"oversize":"stop"}"#
        ]],
    );
}

#[test]
fn nats_is_one_of_two() {
    check_source(
        r#"nats: { servers: ["nats://h"], stream: S, subjects: [a] }"#,
        expect![[r#"
        sluice.yaml:3:47: `stream` is of JetStream and `subjects` of core NATS: a source is one of the two
            3 |     nats: { servers: ["nats://h"], stream: S, subjects: [a] }
              |                                               ^^^^^^^^
    "#]],
    );
    check_source(
        r#"nats: { servers: ["nats://h"] }"#,
        expect![[r#"
        sluice.yaml:3:11: `nats` of source `s` says not what to receive: `stream` and `consumer` of JetStream, or `subjects` of core NATS
            3 |     nats: { servers: ["nats://h"] }
              |           ^
    "#]],
    );
}

#[test]
fn nats_refuses() {
    check_source(
        r#"nats: { servers: ["http://h"], stream: a.b, filter_subjects: ["a..b", "a.>.b", "a*"], idle_heartbeat: 1h }"#,
        expect![[r#"
            sluice.yaml:3:11: `nats` of source `s` has no `consumer`
                3 |     nats: { servers: ["http://h"], stream: a.b, filter_subjects: ["a..b", "a.>.b", "a*"], idle_heartbeat: 1h }
                  |           ^
            sluice.yaml:3:23: `servers`: expected a URL such as nats://localhost, found `http://h`
                3 |     nats: { servers: ["http://h"], stream: a.b, filter_subjects: ["a..b", "a.>.b", "a*"], idle_heartbeat: 1h }
                  |                       ^^^^^^^^^^
            sluice.yaml:3:44: `stream`: expected a name without spaces, `.`, `*`, `>`, `/` and `\`, found `a.b`
                3 |     nats: { servers: ["http://h"], stream: a.b, filter_subjects: ["a..b", "a.>.b", "a*"], idle_heartbeat: 1h }
                  |                                            ^^^
            sluice.yaml:3:67: `filter_subjects`: expected a subject such as sensors.*.temperature, found `a..b`
                3 |     nats: { servers: ["http://h"], stream: a.b, filter_subjects: ["a..b", "a.>.b", "a*"], idle_heartbeat: 1h }
                  |                                                                   ^^^^^^
            sluice.yaml:3:75: `filter_subjects`: `>` stands at the end of a subject, found `a.>.b`
                3 |   nats: { servers: ["http://h"], stream: a.b, filter_subjects: ["a..b", "a.>.b", "a*"], idle_heartbeat: 1h }
                  |                                                                         ^^^^^^^
            sluice.yaml:3:84: `filter_subjects`: `*` and `>` stand for whole parts of a subject, found `a*`
                3 |  servers: ["http://h"], stream: a.b, filter_subjects: ["a..b", "a.>.b", "a*"], idle_heartbeat: 1h }
                  |                                                                         ^^^^
            sluice.yaml:3:107: `idle_heartbeat`: expected a duration from 500ms to 30s, found `1h`
                3 |  stream: a.b, filter_subjects: ["a..b", "a.>.b", "a*"], idle_heartbeat: 1h }
                  |                                                                         ^^
        "#]],
    );
}

#[test]
fn a_token_in_a_url_warns() {
    check_source(
        r#"nats: { servers: ["nats://hunter2@h"], stream: S, consumer: c }"#,
        expect![[r#"
        sluice.yaml:3:23: warning: `servers` holds a secret in plain text: write "${NAME}" or "${file:PATH}" instead
    "#]],
    );
}

#[test]
fn webhooks_have_a_larger_limit_and_hide_secrets() {
    shows_source(
        r#"webhook: { verify: { scheme: stripe, secret: "${TOKEN}" } }
event: { type: "com.stripe.{body.type}", source: https://stripe.com, id: "{body.id}" }"#,
        expect![[
            r#"{"event":{"id":"{body.id}","source":"https://stripe.com","type":"com.stripe.{body.type}"},"event_bytes":"25MiB","oversize":"stop","webhook":{"verify":{"scheme":"stripe","secrets":["[hidden]"],"tolerance":"5m"}}}"#
        ]],
    );
}

#[test]
fn webhooks_of_every_form() {
    for verify in [
        r#"{ scheme: standard-webhooks, secrets: ["${KEY}", "whpk_${KEY32}"], tolerance: 1m }"#,
        r#"{ scheme: hmac, header: X-Sig, signed: "{timestamp}.{body}", timestamp_header: X-Time, prefix: v1=, secret: "${TOKEN}" }"#,
        r#"{ scheme: token, query: token, secret: "${TOKEN}" }"#,
        r#"{ scheme: basic, username: u, secret: "${TOKEN}" }"#,
    ] {
        check_source(&format!("webhook: {{ verify: {verify} }}"), expect!["ok\n"]);
    }
}

#[test]
fn secrets_that_can_be_guessed_warn() {
    let check = |verify: &str, expected| check_source(&format!("webhook: {{ verify: {verify} }}"), expected);
    check(
        r#"{ scheme: github, secrets: ["${TOKEN}", "${SHORT}"] }"#,
        expect![[r#"
            sluice.yaml:3:64: warning: a secret has 23 bytes, expected 24 or more
        "#]],
    );
    check(
        r#"{ scheme: svix, secret: "whsec_${PORT}${PORT}==" }"#,
        expect![[r#"
            sluice.yaml:3:48: warning: a secret has 6 bytes, expected 24 or more
        "#]],
    );
    check(
        r#"{ scheme: standard-webhooks, secret: "${LONG}" }"#,
        expect![[r#"
            sluice.yaml:3:61: warning: a key has 66 bytes, expected 24 to 64 (Standard Webhooks)
        "#]],
    );
    for secret in ["whsec_%%%", "whsec_", "AAAAA", "whpk_AAAA"] {
        let secret = format!(r#"{{ scheme: svix, secret: "{secret}" }}"#);
        let report = report(read(&source(&format!("webhook: {{ verify: {secret} }}"))));
        assert!(report.starts_with("sluice.yaml:3:48: a secret of this scheme is `wh"), "{report}");
        assert!(!report.contains("AAAA") && !report.contains('%'), "{report}");
    }
    check(r#"{ scheme: svix, secret: "whpk_${KEY32}" }"#, expect!["ok\n"]);
    // To Stripe, the whole text is the key.
    check(r#"{ scheme: stripe, secret: "whsec_${TOKEN}" }"#, expect!["ok\n"]);
    check(r#"{ scheme: gitlab, secrets: ["${TOKEN}", "${KEY}"] }"#, expect!["ok\n"]);
    check_source(
        r#"git: { provider: gitea, secret: "${SHORT}" }"#,
        expect![[r#"
            sluice.yaml:3:37: warning: a secret has 23 bytes, expected 24 or more
        "#]],
    );
    check_source(
        r#"git: { secret: "whsec_${PORT}" }"#,
        expect![[r#"
            sluice.yaml:3:20: warning: a secret has 3 bytes, expected 24 or more
        "#]],
    );
}

#[test]
fn a_webhook_without_verification_is_written_out() {
    check_source(
        "webhook: {}",
        expect![[r#"
        sluice.yaml:3:14: `webhook` of source `s` has no `verify`: without it whoever reaches its URL can send events; if that is meant, say `insecure: true`
            3 |     webhook: {}
              |              ^
    "#]],
    );
    check_source(
        "webhook: { insecure: true }",
        expect![[r#"
        sluice.yaml:3:14: warning: `webhook` of source `s`: whoever reaches its URL can send events (`insecure: true`)
            3 |     webhook: { insecure: true }
              |              ^
    "#]],
    );
}

#[test]
fn webhooks_refuse() {
    check_source(
        r#"webhook: { verify: { scheme: stripe } }"#,
        expect![[r#"
        sluice.yaml:3:24: `verify` has no `secret`
            3 |     webhook: { verify: { scheme: stripe } }
              |                        ^
    "#]],
    );
    check_source(
        r#"webhook: { verify: { scheme: stripe, secret: "" } }"#,
        expect![[r#"
        sluice.yaml:3:50: `secret` is empty
    "#]],
    );
    check_source(
        r#"webhook: { verify: { scheme: github, secret: hunter2 } }"#,
        expect![[r#"
            sluice.yaml:3:50: warning: `secret` holds a secret in plain text: write "${NAME}" or "${file:PATH}" instead
            sluice.yaml:3:50: warning: a secret has 7 bytes, expected 24 or more
        "#]],
    );
    check_source(
        r#"webhook: { verify: { scheme: standard_webhooks, secret: "${TOKEN}" } }"#,
        expect![[r#"
        sluice.yaml:3:34: `scheme`: expected github, gitlab, stripe, slack, shopify, standard-webhooks, svix, hmac, token or basic (did you mean standard-webhooks?), found `standard_webhooks`
            3 |     webhook: { verify: { scheme: standard_webhooks, secret: "${TOKEN}" } }
              |                                  ^^^^^^^^^^^^^^^^^
    "#]],
    );
    check_source(
        r#"webhook: { verify: { scheme: stripe, header: x, secret: "${TOKEN}" } }"#,
        expect![[r#"
        sluice.yaml:3:42: `header` has no meaning with `scheme: stripe`
            3 |     webhook: { verify: { scheme: stripe, header: x, secret: "${TOKEN}" } }
              |                                          ^^^^^^
    "#]],
    );
    check_source(
        r#"webhook: { verify: { scheme: hmac, header: x, signed: "{timestamp}", secret: "${TOKEN}" } }"#,
        expect![[r#"
            sluice.yaml:3:59: `signed`: `{body}` is missing, so that any body would pass
                3 |     webhook: { verify: { scheme: hmac, header: x, signed: "{timestamp}", secret: "${TOKEN}" } }
                  |                                                           ^^^^^^^^^^^^^
        "#]],
    );
    check_source(
        r#"webhook: { verify: { scheme: hmac, header: x, timestamp_header: t, secret: "${TOKEN}" } }"#,
        expect![[r#"
            sluice.yaml:3:24: `signed`: `{timestamp}` is missing, so that `timestamp_header` would not be signed
                3 |     webhook: { verify: { scheme: hmac, header: x, timestamp_header: t, secret: "${TOKEN}" } }
                  |                        ^
        "#]],
    );
    check_source(
        r#"webhook: { verify: { scheme: token, secret: "${TOKEN}" } }"#,
        expect![[r#"
        sluice.yaml:3:24: `verify` has no `header` and no `query`: where the token stands
            3 |     webhook: { verify: { scheme: token, secret: "${TOKEN}" } }
              |                        ^
    "#]],
    );
}

#[test]
fn git_has_defaults() {
    shows_source(
        r#"git: { secret: "${TOKEN}" }"#,
        expect![[
            r#"{"event_bytes":"25MiB","git":{"provider":"auto","secrets":["[hidden]"]},"oversize":"stop"}"#
        ]],
    );
    check_source(
        "git: { provider: githup }",
        expect![[r#"
        sluice.yaml:3:10: `git` of source `s` has no `secret`: without it whoever reaches its URL can send events; if that is meant, say `insecure: true`
            3 |     git: { provider: githup }
              |          ^
        sluice.yaml:3:22: `provider`: expected auto, github, gitlab, gitea, forgejo, gogs or bitbucket, found `githup`
            3 |     git: { provider: githup }
              |                      ^^^^^^
    "#]],
    );
    check_source(
        "git: { insecure: true }",
        expect![[r#"
        sluice.yaml:3:10: warning: `git` of source `s`: whoever reaches its URL can send events (`insecure: true`)
            3 |     git: { insecure: true }
              |          ^
    "#]],
    );
}

#[test]
fn cron_has_defaults() {
    shows_source(
        r#"cron: { schedule: "30 2 * * *" }"#,
        expect![[
            r#"{"cron":{"catch_up":"latest","catch_up_max":1000,"schedule":"30 2 * * *","timezone":"UTC"},"event_bytes":"1MiB","oversize":"stop"}"#
        ]],
    );
    shows_source(
        r#"cron: { at: "2026-01-31T12:00:00", timezone: Europe/Berlin }
event: { type: t, data: { at: "{scheduled}", n: 3 } }"#,
        expect![[
            r#"{"cron":{"at":"2026-01-31T11:00:00Z","catch_up":"latest","catch_up_max":1000,"timezone":"Europe/Berlin"},"event":{"data":{"at":"{scheduled}","n":3},"type":"t"},"event_bytes":"1MiB","oversize":"stop"}"#
        ]],
    );
}

#[test]
fn cron_refuses() {
    check_source(
        r#"cron: { schedule: "0 0 ? * 1" }"#,
        expect![[r#"
        sluice.yaml:3:28: `schedule`: day of month: `?` is of another dialect: write `*`
            3 |     cron: { schedule: "0 0 ? * 1" }
              |                            ^^^^^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "0 0 1 1 * * 2027" }"#,
        expect![[r#"
        sluice.yaml:3:36: `schedule`: seven fields: there is no year field; a run that comes once is written `at:`
            3 |     cron: { schedule: "0 0 1 1 * * 2027" }
              |                                    ^^^^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "0 24 * * *" }"#,
        expect![[r#"
        sluice.yaml:3:26: `schedule`: hours: expected 0 to 23, found `24`
            3 |     cron: { schedule: "0 24 * * *" }
              |                          ^^^^^^^^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "0 0 30 2 *" }"#,
        expect![[r#"
        sluice.yaml:3:24: `schedule`: this is never due: no such day is in any of these months
            3 |     cron: { schedule: "0 0 30 2 *" }
              |                        ^^^^^^^^^^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "" }"#,
        expect![[r#"
        sluice.yaml:3:23: `schedule`: the schedule is empty: expected five fields or six
            3 |     cron: { schedule: "" }
              |                       ^^
    "#]],
    );
    check_source(
        r#"cron: {}"#,
        expect![[r#"
        sluice.yaml:3:11: `cron` of source `s` has no `schedule`, and no `at`
            3 |     cron: {}
              |           ^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "@daily", at: 2026-01-31T12:00:00Z }"#,
        expect![[r#"
        sluice.yaml:3:33: `schedule` and `at` exclude each other
            3 |     cron: { schedule: "@daily", at: 2026-01-31T12:00:00Z }
              |                                 ^^
    "#]],
    );
    check_source(
        r#"cron: { at: tomorrow }"#,
        expect![[r#"
        sluice.yaml:3:17: `at`: expected a time such as 2026-01-31T12:00:00Z, or 2026-01-31T12:00:00 in `timezone`, found `tomorrow`
            3 |     cron: { at: tomorrow }
              |                 ^^^^^^^^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "@daily", catch_up: last, catch_up_max: 0 }"#,
        expect![[r#"
        sluice.yaml:3:43: `catch_up`: expected skip, latest or all, found `last`
            3 |     cron: { schedule: "@daily", catch_up: last, catch_up_max: 0 }
              |                                           ^^^^
        sluice.yaml:3:63: `catch_up_max`: expected a whole number from 1 to 1000000, found `0`
            3 |     cron: { schedule: "@daily", catch_up: last, catch_up_max: 0 }
              |                                                               ^
    "#]],
    );
}

#[test]
fn cron_zones() {
    check_source(
        r#"cron: { schedule: "@daily", timezone: Mars/Base }"#,
        expect![[r#"
        sluice.yaml:3:43: `timezone`: expected a time zone of the IANA database, such as Europe/Berlin or UTC, found `Mars/Base`
            3 |     cron: { schedule: "@daily", timezone: Mars/Base }
              |                                           ^^^^^^^^^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "@daily", timezone: +02:00 }"#,
        expect![[r#"
        sluice.yaml:3:43: `timezone`: expected a time zone of the IANA database, such as Europe/Berlin or UTC, found `+02:00`
            3 |     cron: { schedule: "@daily", timezone: +02:00 }
              |                                           ^^^^^^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "@daily", timezone: "" }"#,
        expect![[r#"
        sluice.yaml:3:43: `timezone` is empty
            3 |     cron: { schedule: "@daily", timezone: "" }
              |                                           ^^
    "#]],
    );
}

#[test]
fn templates_know_what_their_kind_has() {
    check_source(
        r#"cron: { schedule: "@daily" }
event: { type: "{body.x}" }"#,
        expect![[r#"
            sluice.yaml:4:22: `type`: there is no `body` here: expected `scheduled`
                4 |     event: { type: "{body.x}" }
                  |                      ^^^^^^^
        "#]],
    );
    check_source(
        r#"webhook: { insecure: true }
event: { Type: x }"#,
        expect![[r#"
            sluice.yaml:4:14: `Type` of `event`: not the name of an attribute, which is 1 to 64 of a-z and 0-9
                4 |     event: { Type: x }
                  |              ^^^^
        "#]],
    );
}

#[test]
fn a_source_is_of_one_kind() {
    check_source(
        "event: { type: x }",
        expect![[r#"
        sluice.yaml:2:3: source `s`: expected exactly one of kafka, amqp, nats, webhook, git or cron, found none
            2 |   s:
              |   ^
    "#]],
    );
    check_source(
        r#"cron: { schedule: "@daily" }
git: { insecure: true }"#,
        expect![[r#"
            sluice.yaml:3:5: source `s`: expected exactly one of kafka, amqp, nats, webhook, git or cron, found more
                3 |     cron: { schedule: "@daily" }
                  |     ^^^^
        "#]],
    );
    check_source(
        "kafak: { }",
        expect![[r#"
        sluice.yaml:2:3: source `s`: expected exactly one of kafka, amqp, nats, webhook, git or cron, found none
            2 |   s:
              |   ^
        sluice.yaml:3:5: unknown key `kafak` in source `s`: did you mean `kafka`?
            3 |     kafak: { }
              |     ^^^^^
    "#]],
    );
}

#[test]
fn names_of_sources() {
    check(
        r#"sources:
  http: { cron: { schedule: "@daily" } }
  reply: { cron: { schedule: "@daily" } }
  Nightly: { cron: { schedule: "@daily" } }
"#,
        expect![[r#"
            sluice.yaml:2:3: a source cannot be called `http`: that is what triggers call events that are published over HTTP
                2 |   http: { cron: { schedule: "@daily" } }
                  |   ^^^^
            sluice.yaml:3:3: a source cannot be called `reply`: that is what triggers call the replies of sinks
                3 |   reply: { cron: { schedule: "@daily" } }
                  |   ^^^^^
            sluice.yaml:4:3: `Nightly` is not a source name: 1 to 63 of a-z, 0-9 and -
                4 |   Nightly: { cron: { schedule: "@daily" } }
                  |   ^^^^^^^
        "#]],
    );
    check(
        "sources: [a]\n",
        expect![[r#"
        sluice.yaml:1:10: `sources`: expected names with sources, found a list
            1 | sources: [a]
              |          ^
    "#]],
    );
}

#[test]
fn triggers_name_sources_that_exist() {
    let yaml = |names: &str| {
        format!(
            "sources:\n  nightly: {{ cron: {{ schedule: \"@daily\" }} }}\ntriggers:\n  t: {{ sources: [{names}], sink: {{ stdout: {{}} }} }}\n"
        )
    };
    check(&yaml("nightly, http, reply"), expect!["ok\n"]);
    check(
        &yaml("nigthly"),
        expect![[r#"
        sluice.yaml:4:18: `sources`: no such source: did you mean nightly?, found `nigthly`
            4 |   t: { sources: [nigthly], sink: { stdout: {} } }
              |                  ^^^^^^^
    "#]],
    );
    check(
        &yaml("kafka"),
        expect![[r#"
        sluice.yaml:4:18: `sources`: no such source: expected http, reply or nightly, found `kafka`
            4 |   t: { sources: [kafka], sink: { stdout: {} } }
              |                  ^^^^^
    "#]],
    );
}

#[test]
fn sinks_of_other_systems() {
    let shows_sink = |sink: &str, expected: Expect| {
        shows(&format!("triggers:\n  t:\n    sink: {sink}\n"), "/triggers/t/sink", expected);
    };
    shows_sink(
        r#"{ kafka: { brokers: [a], topic: "orders-{event.type}", key: "{data.id}", mode: structured } }"#,
        expect![[
            r#"{"kafka":{"brokers":["a"],"key":"{data.id}","mode":"structured","tls":false,"topic":"orders-{event.type}"}}"#
        ]],
    );
    shows_sink(
        r#"{ amqp: { url: "${AMQP}", exchange: "", routing_key: q } }"#,
        expect![[
            r#"{"amqp":{"exchange":"","mode":"binary","persistent":true,"routing_key":"q","tls":{},"url":"amqp://sluice:[hidden]@rabbit/shop"}}"#
        ]],
    );
    shows_sink(
        r#"{ nats: { servers: ["tls://h"], subject: "a.{event.subject|none}", tls: true } }"#,
        expect![[
            r#"{"nats":{"mode":"binary","servers":["tls://h"],"subject":"a.{event.subject|none}","tls":true}}"#
        ]],
    );
}

#[test]
fn sinks_of_other_systems_refuse() {
    let check_sink = |sink: &str, expected: Expect| {
        check(&format!("triggers:\n  t:\n    sink: {sink}\n"), expected);
    };
    check_sink(
        r#"{ kafka: { brokers: [a], topic: "{body.x}", properties: { acks: 1 } } }"#,
        expect![[r#"
        sluice.yaml:3:45: `topic`: there is no `body` here: expected `event` or `data`
            3 |     sink: { kafka: { brokers: [a], topic: "{body.x}", properties: { acks: 1 } } }
              |                                             ^^^^^^^
        sluice.yaml:3:69: property `acks` is set by Sluice: a delivery is settled once every replica has it
            3 |     sink: { kafka: { brokers: [a], topic: "{body.x}", properties: { acks: 1 } } }
              |                                                                     ^^^^
    "#]],
    );
    check_sink(
        r#"{ kafka: { brokers: [a], group: g } }"#,
        expect![[r#"
        sluice.yaml:3:20: `sink.kafka` has no `topic`
            3 |     sink: { kafka: { brokers: [a], group: g } }
              |                    ^
        sluice.yaml:3:36: unknown key `group` in `sink.kafka`: known keys are brokers, topic, key, mode, tls, sasl, properties
            3 |     sink: { kafka: { brokers: [a], group: g } }
              |                                    ^^^^^
    "#]],
    );
    check_sink(
        r#"{ amqp: { url: "amqp://h" } }"#,
        expect![[r#"
        sluice.yaml:3:19: `sink.amqp` has no `exchange`; "" is the default exchange
            3 |     sink: { amqp: { url: "amqp://h" } }
              |                   ^
        sluice.yaml:3:19: `sink.amqp` has no `routing_key`
            3 |     sink: { amqp: { url: "amqp://h" } }
              |                   ^
    "#]],
    );
    check_sink(
        r#"{ nats: { subject: "a" } }"#,
        expect![[r#"
        sluice.yaml:3:19: `sink.nats` has no `servers`
            3 |     sink: { nats: { subject: "a" } }
              |                   ^
    "#]],
    );
    check_sink(
        r#"{ nats: { servers: ["nats://h"], subject: "a b" } }"#,
        expect![[r#"
            sluice.yaml:3:53: `subject`: expected a subject to publish to, such as orders.created, found `a b`
                3 |     sink: { nats: { servers: ["nats://h"], subject: "a b" } }
                  |                                                     ^^^^^
        "#]],
    );
    check_sink(
        r#"{ nats: { servers: ["nats://h"], subject: "a..b" } }"#,
        expect![[r#"
            sluice.yaml:3:53: `subject`: expected a subject to publish to, such as orders.created, found `a..b`
                3 |     sink: { nats: { servers: ["nats://h"], subject: "a..b" } }
                  |                                                     ^^^^^^
        "#]],
    );
    check_sink(
        r#"{ nats: { servers: ["nats://h"], subject: "a.>" } }"#,
        expect![[r#"
            sluice.yaml:3:53: `subject`: expected a subject to publish to, such as orders.created, found `a.>`
                3 |     sink: { nats: { servers: ["nats://h"], subject: "a.>" } }
                  |                                                     ^^^^^
        "#]],
    );
}

#[test]
fn a_reload_tells_which_sources_differ() {
    let config = |yaml: &str| check_text("a.yaml", yaml, &environment).unwrap().config;
    let old = config(
        r#"sources: { a: { cron: { schedule: "@daily" } }, b: { cron: { schedule: "@daily" } }, c: { cron: { schedule: "@daily" } } }"#,
    );
    let new = config(
        r#"sources: { a: { cron: { schedule: "@daily" } }, b: { cron: { schedule: "@hourly" } }, d: { cron: { schedule: "@daily" } } }"#,
    );
    let changes = changes(&old, &new);
    assert_eq!(changes.sources_added, ["d"]);
    assert_eq!(changes.sources_changed, ["b"]);
    assert_eq!(changes.sources_removed, ["c"]);
}

#[test]
fn words_of_other_systems_are_understood_in_errors() {
    for (source, expected) in [
        (
            "github: { secret: a }",
            "unknown key `github` in source `s`: did you mean `git: { provider: github, secret: ... }`?",
        ),
        (
            "webhook: { scheme: github }",
            "unknown key `scheme` in `webhook` of source `s`: did you mean `verify: { scheme: ..., secret: ... }`?",
        ),
        (
            "cron: { schedule: '@daily', tz: UTC }",
            "unknown key `tz` in `cron` of source `s`: did you mean `timezone`?",
        ),
        (
            "kafka: { bootstrap_servers: x }",
            "unknown key `bootstrap_servers` in `kafka` of source `s`: did you mean `brokers`?",
        ),
    ] {
        let found = crate::report(crate::read(&format!("sources: {{ s: {{ {source} }} }}")));
        assert!(found.contains(expected), "{found}");
    }
}
