//! Sinks of other systems.

use expect_test::{Expect, expect};

use crate::{check, shows};

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
