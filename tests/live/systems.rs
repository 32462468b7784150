//! The three systems behind one face: how sources and sinks are configured, and how others send.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use crate::proxy::Proxy;
use crate::services::Services;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    Kafka,
    Amqp,
    Nats,
}

/// How a client comes to a server.
#[derive(Clone, Debug)]
pub struct Access {
    pub address: String,
    pub password: Option<&'static str>,
    pub tls: Option<Authority>,
}

/// By whom a server's certificate is to be.
#[derive(Clone, Debug)]
pub enum Authority {
    /// That of `tests/services`, in this file.
    OfTheTest(String),
    /// Those of the machine, which do not know the servers.
    OfTheMachine,
}

impl Authority {
    pub fn of_the_test(services: &Services) -> Self {
        Self::OfTheTest(services.at("SLUICE_SERVICES_CA").to_owned())
    }
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

    /// Tests that kill a server are not to meet tests that need it.
    pub fn turn(self) -> MutexGuard<'static, ()> {
        static TURNS: [Mutex<()>; 3] = [const { Mutex::new(()) }; 3];
        TURNS[self as usize].lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Without TLS and without a password, where the system lets one in so.
    pub fn plain(self, services: &Services) -> Access {
        self.plain_at(self.address(services))
    }

    pub fn plain_at(self, address: String) -> Access {
        let password = (self == Self::Amqp).then_some("open-sesame");
        Access { address, password, tls: None }
    }

    /// By TLS and with a password.
    pub fn secured(self, services: &Services, password: &'static str, authority: Authority) -> Access {
        let by_name = |address: &str| address.replace("127.0.0.1", "localhost");
        let address = match self {
            Self::Kafka => services.at("SLUICE_KAFKA_SASL").to_owned(),
            Self::Amqp => by_name(services.at("SLUICE_AMQP_TLS")),
            Self::Nats => by_name(services.at("SLUICE_NATS")),
        };
        Access { address, password: Some(password), tls: Some(authority) }
    }

    /// A wire to the server, which only one story at a time may have.
    pub async fn behind_proxy(self, services: &Services) -> Proxy {
        match self {
            // The server names this address to its clients.
            Self::Kafka => {
                Proxy::start(services.at("SLUICE_KAFKA_PROXY"), services.at("SLUICE_KAFKA_BEHIND")).await
            }
            Self::Amqp | Self::Nats => Proxy::start("127.0.0.1:0", &self.address(services)).await,
        }
    }

    /// A source of `place`. What is noticed only after a while is noticed soon.
    pub fn source(self, access: &Access, place: &str) -> String {
        let reach = self.reach(access);
        match self {
            Self::Kafka => format!(
                "kafka: {{ {reach}, topics: [{place}], group: g-{place}, session_timeout: 6s, properties: {{ \
                 max.poll.interval.ms: \"8000\" }} }}"
            ),
            Self::Amqp => format!("amqp: {{ {reach}, queue: {place}, heartbeat: 2s }}"),
            Self::Nats => {
                format!("nats: {{ {reach}, stream: {place}, consumer: sluice, idle_heartbeat: 1s }}")
            }
        }
    }

    /// A sink that writes to `place`.
    pub fn sink(self, access: &Access, place: &str, mode: &str) -> String {
        let reach = self.reach(access);
        match self {
            Self::Kafka => format!(
                "kafka: {{ {reach}, topic: {place}, mode: {mode}, properties: {{ \
                 topic.metadata.propagation.max.ms: \"1000\" }} }}"
            ),
            Self::Amqp => {
                format!("amqp: {{ {reach}, exchange: \"\", routing_key: \"{place}\", mode: {mode} }}")
            }
            Self::Nats => {
                format!("nats: {{ {reach}, subject: {}.x, mode: {mode} }}", place.to_lowercase())
            }
        }
    }

    /// What sources and sinks have in common.
    fn reach(self, access: &Access) -> String {
        let Access { address, password, tls } = access;
        let mut reach = match (self, password) {
            (Self::Kafka, None) => format!("brokers: [\"{address}\"]"),
            (Self::Kafka, Some(password)) => format!(
                "brokers: [\"{address}\"], sasl: {{ mechanism: {}, username: sluice, password: {password} }}",
                "SCRAM-SHA-256"
            ),
            (Self::Amqp, password) => {
                let scheme = if tls.is_some() { "amqps" } else { "amqp" };
                let login = password.map_or_else(String::new, |password| format!("sluice:{password}@"));
                format!("url: \"{scheme}://{login}{address}/%2f\"")
            }
            (Self::Nats, None) => format!("servers: [\"nats://{address}\"]"),
            (Self::Nats, Some(password)) => format!("servers: [\"nats://sluice:{password}@{address}\"]"),
        };
        match (self, tls) {
            (_, Some(Authority::OfTheTest(ca))) => reach.push_str(&format!(", tls: {{ ca: {ca} }}")),
            (Self::Kafka | Self::Nats, Some(Authority::OfTheMachine)) => reach.push_str(", tls: true"),
            (Self::Amqp, Some(Authority::OfTheMachine)) | (_, None) => {}
        }
        reach
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

    /// Has what is not acknowledged delivered again soon, for a place whose sources do not exist yet.
    pub fn redeliver_soon(self, services: &Services, place: &str) {
        // Kafka does so by the session timeout, AMQP when the connection ends.
        if self == Self::Nats {
            let url = format!("nats://{}", self.address(services));
            let status = python(services).args(["consumer", &url, place]).status();
            assert!(status.expect("python starts").success());
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
                let in_turn = "partitioner.class=org.apache.kafka.clients.producer.RoundRobinPartitioner";
                java.args(["--producer-property", in_turn]);
                java
            }
            Self::Amqp | Self::Nats => {
                let mut python = python(services);
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

/// Clients that are not ours.
fn python(services: &Services) -> Command {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", services.at("SLUICE_PYTHON"));
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/live/produce.py"));
    python
}
