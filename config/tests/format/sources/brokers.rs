//! Sources that are other brokers: Kafka, AMQP, NATS.

use expect_test::expect;

use super::{check_source, shows_source};
use crate::check;

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
