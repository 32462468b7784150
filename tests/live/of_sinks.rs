//! Where sinks write, and what other clients find there.

use std::process::{Command, Stdio};

use sluice_adapters::amqp::AmqpSink;
use sluice_adapters::kafka::KafkaSink;
use sluice_adapters::nats::NatsSink;
use sluice_config as config;
use sluice_schemas::{DataForm, Event};

use crate::stories::tell;
use crate::systems::System;

fn sink(yaml: &str) -> config::Sink {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sink.yaml");
    std::fs::write(&path, format!("triggers:\n  t: {{ sink: {{ {yaml} }} }}\n")).unwrap();
    let loaded = config::load(&[path], &|_| None).unwrap_or_else(|errors| panic!("{errors}\n{yaml}"));
    loaded.config.triggers["t"].sink.clone()
}

/// An event with more attributes, and data unless it is empty.
fn event(id: &str, more: &[(&str, &str)], data: &'static str) -> Event {
    let mut event = Event::builder().attribute("specversion", "1.0").attribute("id", id);
    for (name, value) in [("source", "/s"), ("type", "t.x")].iter().chain(more) {
        event = event.attribute(name, value);
    }
    if !data.is_empty() {
        event = event.data(data, DataForm::Opaque);
    }
    event.build().unwrap()
}

#[test]
fn kafka_has_topic_and_key_of_the_event() {
    tell(System::Kafka, "kafka_has_topic_and_key_of_the_event", async |story| {
        let topic = format!("{}-t.x", story.place);
        System::Kafka.create(story.services, &topic, 1).await;
        let (address, place) = (story.system.address(story.services), &story.place);
        let opened = |more: &str| {
            let yaml =
                format!("kafka: {{ brokers: [\"{address}\"], topic: \"{place}-{{event.type}}\"{more} }}");
            let config::Sink::Kafka(sink) = sink(&yaml) else { panic!("no sink of Kafka") };
            KafkaSink::open(&sink).unwrap()
        };
        let (plain, templated) = (opened(""), opened(", key: \"{event.subject}\""));
        plain.send(&event("1", &[("partitionkey", "pk")], "one")).await.unwrap();
        plain.send(&event("2", &[], "two")).await.unwrap();
        templated.send(&event("3", &[("partitionkey", "pk"), ("subject", "s")], "three")).await.unwrap();
        templated.send(&event("4", &[], "")).await.unwrap();
        let mut java = Command::new("java");
        java.args([
            "-Xmx128m",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            &format!("{}/*", story.services.at("SLUICE_KAFKA_LIB")),
        ]);
        java.args(["org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", &address]);
        java.args(["--topic", &topic, "--from-beginning", "--max-messages", "4", "--timeout-ms", "60000"]);
        java.args(["--property", "print.key=true", "--property", "null.literal=NOTHING"]);
        let output = java.stderr(Stdio::null()).output().unwrap();
        let found = String::from_utf8(output.stdout).unwrap();
        assert_eq!(found, "pk\tone\nNOTHING\ttwo\ns\tthree\nNOTHING\tNOTHING\n");
    });
}

#[test]
fn amqp_has_the_routing_key_of_the_event_and_typed_headers() {
    tell(System::Amqp, "amqp_has_the_routing_key_of_the_event_and_typed_headers", async |story| {
        story.amqp(
            "channel.queue_declare(sys.argv[2], durable=True)\n\
             channel.queue_bind(sys.argv[2], 'amq.topic', sys.argv[2] + '.*.x')",
        );
        let (address, place) = (story.system.address(story.services), &story.place);
        let yaml = |more: &str| {
            format!(
                "amqp: {{ url: \"amqp://sluice:open-sesame@{address}/%2f\", exchange: amq.topic, \
                 routing_key: \"{place}.{{event.type}}\"{more} }}"
            )
        };
        for more in ["", ", persistent: false"] {
            let config::Sink::Amqp(sink) = sink(&yaml(more)) else { panic!("no sink of AMQP") };
            let sink = AmqpSink::open(&sink).unwrap();
            sink.send(&event("7", &[("datacontenttype", "text/plain")], "hi")).await.unwrap();
        }
        let found = story.amqp(
            "for _ in range(2):\n \
             method, properties, body = channel.basic_get(sys.argv[2], auto_ack=True)\n \
             print(method.routing_key, properties.delivery_mode, properties.content_type, properties.message_id, \
             properties.headers['ce-id'], properties.headers['ce-type'], 'ce-datacontenttype' in properties.headers, body)",
        );
        let line = |mode: &str| format!("{place}.t.x {mode} text/plain 7 7 t.x False b'hi'");
        assert_eq!(found, format!("{}\n{}", line("2"), line("1")));
    });
}

#[test]
fn nats_has_the_subject_of_the_event_and_keeps_it_once() {
    tell(System::Nats, "nats_has_the_subject_of_the_event_and_keeps_it_once", async |story| {
        story.create().await;
        let (address, place) = (story.system.address(story.services), story.place.to_lowercase());
        let yaml = format!(
            "nats: {{ servers: [\"nats://{address}\"], subject: \"{place}.{{event.subject|none}}\" }}"
        );
        let config::Sink::Nats(sink) = sink(&yaml) else { panic!("no sink of NATS") };
        let sink = NatsSink::open(&sink).unwrap();
        let first = event("1", &[("subject", "here"), ("datacontenttype", "text/plain")], "one");
        for event in [&first, &first, &event("2", &[], "two")] {
            sink.send(event).await.unwrap();
        }
        let found = story.nats(
            "print((await stream.stream_info(sys.argv[2])).state.messages)\n\
             for number in [1, 2]:\n \
             message = await stream.get_msg(sys.argv[2], number)\n \
             print(message.subject, message.headers.get('ce-id'), message.headers.get('ce-datacontenttype'), message.data)",
        );
        assert_eq!(found, format!("2\n{place}.here 1 text/plain b'one'\n{place}.none 2 None b'two'"));
    });
}
