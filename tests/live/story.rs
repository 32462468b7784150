//! What the behaviours have in common: a system with places of their own, configurations, running brokers, and what these say.

use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;

use crate::harness::broker::{Addresses, Broker, Setup};
use crate::harness::wire;
use crate::services::{Services, services};
use crate::systems::{Access, System};

pub const COUNT: usize = 300;
const DEADLINE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);

pub struct Story {
    pub system: System,
    pub services: &'static Services,
    /// Where foreign senders send.
    pub inward: String,
    /// Where the sink writes.
    pub outward: String,
    pub dir: tempfile::TempDir,
}

pub fn tell(system: System, story: impl AsyncFnOnce(Story)) {
    let _turn = system.turn();
    let Some(services) = services() else { return };
    let dir = tempfile::tempdir().unwrap();
    let [inward, outward] = ["IN", "OUT"].map(|way| format!("{way}{}", uuid::Uuid::new_v4().simple()));
    let told = Story { system, services, inward, outward, dir };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let since = Instant::now();
    runtime.block_on(story(told));
    println!("{system:?}: {:.1} s", since.elapsed().as_secs_f64());
}

impl Story {
    pub async fn create(&self, partitions: i32) {
        for place in [&self.inward, &self.outward] {
            self.system.create(self.services, place, partitions).await;
        }
    }

    /// Starts a server that was killed.
    pub fn bring_back_server(&self) {
        self.services.start(self.system.server());
        if self.system == System::Amqp {
            // RabbitMQ 3.10 has come back without a queue that it had said was declared. That of the source is declared
            // by its sender each time.
            self.system.send(self.services, &self.outward, &[]);
        }
    }

    pub fn plain(&self) -> Access {
        self.system.plain(self.services)
    }

    /// Half of them in binary, half of them in structured mode.
    pub fn send(&self, numbers: Range<usize>) {
        let sent = numbers.map(|number| match number % 2 {
            0 => self.system.binary(number),
            _ => self.system.structured(number),
        });
        self.system.send(self.services, &self.inward, &sent.collect::<Vec<_>>());
    }

    /// The source `in`, the trigger `out` that takes everything from there, and the source `back` of what the sink wrote.
    pub fn there_and_back(&self, inward: &Access, outward: &Access, mode: &str) -> Yaml {
        Yaml::default()
            .source("in", &self.system.source(inward, &self.inward))
            .source("back", &self.system.source(&self.plain(), &self.outward))
            .trigger("out", "in", &self.system.sink(outward, &self.outward, mode), "")
    }

    /// A broker with a directory of its own.
    pub fn setup(&self, name: &str, yaml: &Yaml) -> Setup {
        let path = self.dir.path().join(format!("{name}.yaml"));
        std::fs::write(&path, yaml.text(&self.dir.path().join(name))).unwrap();
        Setup::new(&path)
    }

    pub async fn start(&self, yaml: &Yaml) -> Running {
        Running::start(&self.setup("broker", yaml)).await
    }
}

/// A configuration in the making.
#[derive(Clone, Default)]
pub struct Yaml {
    /// What these sections say besides.
    pub limits: String,
    pub store: String,
    sources: String,
    triggers: String,
}

impl Yaml {
    pub fn source(mut self, name: &str, source: &str) -> Self {
        self.sources.push_str(&format!("  {name}: {{ {source} }}\n"));
        self
    }

    /// With more of `delivery` than short waits.
    pub fn trigger(mut self, name: &str, from: &str, sink: &str, delivery: &str) -> Self {
        self.triggers.push_str(&format!(
            "  {name}:\n    sources: [{from}]\n    start: earliest\n    sink: {{ {sink} }}\n    delivery: {{ timeout: 10s, \
             backoff_delay: 200ms, backoff_max: 1s{delivery} }}\n"
        ));
        self
    }

    fn text(&self, dir: &Path) -> String {
        let Self { limits, store, sources, triggers } = self;
        let dir = dir.display();
        format!(
            "http: {{ listen: 127.0.0.1:0 }}\nadmin: {{ listen: 127.0.0.1:0 }}\nstore: {{ dir: {dir}{store} }}\nlimits: {{ {limits} }}\n\
             sources:\n{sources}triggers:\n{triggers}"
        )
    }
}

pub fn ask(addresses: Addresses, words: &[&str]) -> Option<Value> {
    let mut command = Command::new(crate::harness::binary());
    command.args(words).args(["--json", "--admin", &format!("http://{}", addresses.admin)]);
    serde_json::from_slice(&command.output().unwrap().stdout).ok()
}

/// A broker that takes events.
pub struct Running {
    pub broker: Broker,
    pub addresses: Addresses,
}

impl Running {
    pub async fn start(setup: &Setup) -> Self {
        let mut broker = Broker::start(setup);
        let addresses = broker.must_be_ready().await;
        Self { broker, addresses }
    }

    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let since = Instant::now();
        let mut tick = tokio::time::interval(POLL);
        while !holds().await {
            let log = self.broker.log();
            assert!(since.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}\n{log}");
            tick.tick().await;
        }
    }

    pub async fn source(&self, name: &str) -> Value {
        wire::get(self.addresses.admin, &format!("/api/v1/sources/{name}")).await
    }

    pub async fn trigger(&self, name: &str) -> Value {
        wire::get(self.addresses.admin, &format!("/api/v1/triggers/{name}")).await
    }

    pub async fn until_source_is(&self, name: &str, state: &str) -> Value {
        self.until(&format!("`{name}` is {state}"), async || self.source(name).await["state"] == state).await;
        self.source(name).await
    }

    /// The entries of a list of the API, all pages of it.
    pub async fn list(&self, of: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = wire::get(self.addresses.admin, &format!("/api/v1/{of}&limit=1000{cursor}")).await;
            all.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    /// The dead letters of a trigger, whole, once there are so many.
    pub async fn dead_letters(&self, trigger: &str, count: usize) -> Vec<Value> {
        let what = format!("{count} dead letters of `{trigger}`");
        self.until(&what, async || self.trigger(trigger).await["dead"] == count).await;
        let mut letters = Vec::new();
        for listed in self.list(&format!("dead-letters?trigger={trigger}")).await {
            let id = listed["id"].as_str().unwrap();
            letters.push(wire::get(self.addresses.admin, &format!("/api/v1/dead-letters/{id}")).await);
        }
        letters
    }

    /// The numbers of the foreign events that came in this way, in the order of the log.
    pub async fn numbers(&self, via: &str) -> Vec<usize> {
        let listed = self.list(&format!("events?via={via}&type=com.example.sent")).await;
        listed.iter().rev().map(|event| event["id"].as_str().unwrap().parse().unwrap()).collect()
    }

    /// Each is in the log once in both ways, whatever was killed or cut meanwhile.
    pub async fn until_all(&self, count: usize) {
        for via in ["in", "back"] {
            self.until(&format!("{count} events by {via}"), async || self.numbers(via).await.len() >= count)
                .await;
            let mut numbers = self.numbers(via).await;
            numbers.sort_unstable();
            assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "by {via}");
        }
    }

    /// Publishes an event over HTTP.
    pub async fn publish(&self, id: &str, data: Bytes) -> StatusCode {
        let request = Request::post("/events")
            .header("host", "broker")
            .header("ce-specversion", "1.0")
            .header("ce-id", id)
            .header("ce-source", "/test")
            .header("ce-type", "com.example.published")
            .header("content-type", "application/octet-stream");
        let mut connection = wire::Connection::open(self.addresses.events).await.unwrap();
        connection.send(request.body(Full::from(data)).unwrap()).await.unwrap().status
    }

    /// `/readyz` says 200, and that these sources and no others are not up.
    pub async fn assert_degraded_by(&self, names: &[&str]) -> Value {
        let ready = wire::get(self.addresses.admin, "/readyz").await;
        assert_eq!(ready["status"], "degraded", "{ready}");
        let not_up: Vec<&str> = ready["sources"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(not_up, names, "{ready}");
        ready["sources"].clone()
    }

    pub async fn stop(self) {
        let log = self.broker.log();
        assert!(self.broker.terminate().await.success(), "{log}");
    }
}
