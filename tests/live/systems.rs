//! The three systems behind one face: how a source is configured, and how others send.

use std::io::Write as _;
use std::process::{Command, Stdio};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use crate::services::Services;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    Kafka,
    Amqp,
    Nats,
}

/// What a foreign sender sends.
#[derive(Clone, Debug)]
pub struct Sent {
    pub headers: Vec<(String, String)>,
    pub content_type: Option<String>,
    pub body: String,
}

impl System {
    /// The name that `tests/services` knows.
    pub fn server(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Amqp => "rabbitmq",
            Self::Nats => "nats",
        }
    }

    /// Where the server listens.
    pub fn address(self, services: &Services) -> String {
        let name = match self {
            Self::Kafka => "SLUICE_KAFKA",
            Self::Amqp => "SLUICE_AMQP",
            Self::Nats => "SLUICE_NATS",
        };
        services.at(name).to_owned()
    }

    /// A source of `place` at an address, with more of its own.
    pub fn yaml(self, address: &str, place: &str) -> String {
        match self {
            Self::Kafka => format!(
                "kafka: {{ brokers: [\"{address}\"], topics: [{place}], group: g-{place}, session_timeout: 6s }}"
            ),
            Self::Amqp => format!(
                "amqp: {{ url: \"amqp://sluice:open-sesame@{address}/%2f\", queue: {place}, heartbeat: 2s }}"
            ),
            Self::Nats => format!(
                "nats: {{ servers: [\"nats://{address}\"], stream: {place}, consumer: sluice, idle_heartbeat: 1s }}"
            ),
        }
    }

    pub fn prefix(self) -> &'static str {
        match self {
            Self::Kafka => "ce_",
            Self::Amqp | Self::Nats => "ce-",
        }
    }

    /// Makes the topic, queue or stream.
    pub async fn create(self, services: &Services, place: &str, partitions: i32) {
        match self {
            Self::Kafka => {
                let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
                    .set("bootstrap.servers", services.at("SLUICE_KAFKA"))
                    .create()
                    .unwrap();
                let topic = NewTopic::new(place, partitions, TopicReplication::Fixed(1));
                let made = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
                made.into_iter().for_each(|topic| drop(topic.unwrap()));
            }
            // The sender does.
            Self::Amqp | Self::Nats => self.send(services, place, &[]),
        }
    }

    /// Sends with a client that is not ours, and returns once the server has it all.
    pub fn send(self, services: &Services, place: &str, sent: &[Sent]) {
        let address = self.address(services);
        let mut command = match self {
            Self::Kafka => {
                let mut java = Command::new("java");
                java.args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp"]);
                java.arg(format!("{}/*", services.at("SLUICE_KAFKA_LIB")));
                java.args([
                    "org.apache.kafka.tools.ConsoleProducer",
                    "--bootstrap-server",
                    &address,
                    "--topic",
                    place,
                ]);
                java.args(["--property", "parse.headers=true", "--producer-property", "acks=all"]);
                java
            }
            Self::Amqp | Self::Nats => {
                let mut python = Command::new("python3");
                python.env("PYTHONPATH", services.at("SLUICE_PYTHON"));
                python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/live/produce.py"));
                match self {
                    Self::Amqp => python.args(["amqp", &format!("amqp://sluice:open-sesame@{address}/%2f")]),
                    Self::Kafka | Self::Nats => python.args(["nats", &format!("nats://{address}")]),
                };
                python.arg(place);
                python
            }
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines: String = sent.iter().map(|sent| self.line(sent)).collect();
        child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "{self:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn line(self, sent: &Sent) -> String {
        if self == Self::Kafka {
            let mut headers: Vec<String> =
                sent.headers.iter().map(|(name, value)| format!("{name}:{value}")).collect();
            headers.extend(sent.content_type.iter().map(|text| format!("content-type:{text}")));
            return format!("{}\t{}\n", headers.join(","), sent.body);
        }
        let headers: serde_json::Map<_, _> =
            sent.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let message =
            serde_json::json!({ "headers": headers, "content_type": sent.content_type, "body": sent.body });
        format!("{message}\n")
    }

    /// An event in binary mode.
    pub fn binary(self, id: usize) -> Sent {
        let named = |name: &str, value: String| (format!("{}{name}", self.prefix()), value);
        let headers = vec![
            named("specversion", "1.0".into()),
            named("id", id.to_string()),
            named("source", "/foreign".into()),
            named("type", "com.example.sent".into()),
            named("subject", "kept".into()),
            named("ownext", "42".into()),
        ];
        Sent { headers, content_type: Some("application/json".into()), body: format!("{{\"n\": {id}}}") }
    }

    /// The same in structured mode.
    pub fn structured(self, id: usize) -> Sent {
        let body = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/foreign","type":"com.example.sent","subject":"kept","ownext":"42","datacontenttype":"application/json","data":{{"n": {id}}}}}"#
        );
        Sent { headers: Vec::new(), content_type: Some("application/cloudevents+json".into()), body }
    }
}
