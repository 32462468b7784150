//! The binary, started and talked to as a user does.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Instant;

use ::http::{HeaderMap, Method};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::http::{Answer, headers, send};
use crate::{PATIENCE, eventually};

/// Addresses the system picks, a store beside the file, waits that suit a test.
const HEAD: [&str; 4] = [
    "http: { listen: 127.0.0.1:0 }",
    "admin: { listen: 127.0.0.1:0 }",
    "store: { dir: ./data }",
    "defaults: { delivery: { backoff: constant, backoff_delay: 20ms } }",
];

/// The text behind those lines of `HEAD` whose key it does not have itself.
fn complete(yaml: &str) -> String {
    let key = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    let own: Vec<String> = yaml.lines().filter(|line| !line.starts_with(' ')).map(key).collect();
    let head: Vec<_> = HEAD.iter().copied().filter(|line| !own.contains(&key(line))).collect();
    format!("{}\n{yaml}\n", head.join("\n"))
}

/// A broker that ends with the test.
pub struct Broker {
    child: Child,
    dir: tempfile::TempDir,
    pub public: SocketAddr,
    pub operators: SocketAddr,
    said: Arc<Mutex<String>>,
    printed: Arc<Mutex<String>>,
}

/// What a command printed, said on standard error, and its exit code.
#[derive(Debug)]
pub struct Told {
    pub out: String,
    pub err: String,
    pub code: i32,
}

impl Told {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub fn sluice() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.stdin(Stdio::null()).env_remove("SLUICE_ADMIN").env_remove("SLUICE_URL").env_remove("SLUICE_LOG");
    command
}

pub fn run(mut command: Command) -> Told {
    let output = command.output().unwrap();
    Told {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap(),
    }
}

impl Broker {
    /// Runs with triggers and whatever else the text says, in a directory of its own.
    pub async fn start(yaml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sluice.yaml"), complete(yaml)).unwrap();
        Self::start_in(dir).await
    }

    /// As [`Broker::start`], with environment variables.
    pub async fn start_with(yaml: &str, variables: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sluice.yaml"), complete(yaml)).unwrap();
        let mut command = sluice();
        command.envs(variables.iter().copied());
        Self::start_as(command, dir).await
    }

    /// As [`Broker::start`], with words in front of `run`.
    pub async fn start_told(words: &[&str], yaml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sluice.yaml"), complete(yaml)).unwrap();
        let mut command = sluice();
        command.args(words);
        Self::start_as(command, dir).await
    }

    async fn start_in(dir: tempfile::TempDir) -> Self {
        Self::start_as(sluice(), dir).await
    }

    async fn start_as(mut command: Command, dir: tempfile::TempDir) -> Self {
        command.arg("run").arg(dir.path().join("sluice.yaml"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = keep(child.stderr.take().unwrap());
        let printed = keep(child.stdout.take().unwrap());
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut broker = Self { child, dir, public: unknown, operators: unknown, said, printed };
        (broker.public, broker.operators) = eventually("the broker to be up", || {
            let ended = broker.child.try_wait().unwrap();
            let said = broker.said();
            assert!(ended.is_none(), "the broker ended: {said}");
            async move {
                let address = |after: &str| {
                    let text = said.split_once(after)?.1.split_once('/')?.0;
                    text.parse::<SocketAddr>().ok()
                };
                Some((address("takes events at http://")?, address("and the API: http://")?))
            }
        })
        .await;
        broker
    }

    /// Ends as a power cut of the process would, and comes back.
    pub async fn kill_and_restart(self) -> Self {
        let dir = self.kill();
        Self::start_in(dir).await
    }

    fn kill(mut self) -> tempfile::TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    /// Comes back after [`Broker::stop`].
    pub async fn start_again(mut self) -> Self {
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Self::start_in(dir).await
    }

    /// Ends as an operator ends it, and comes back.
    pub async fn stop_and_restart(mut self) -> Self {
        assert!(self.stop().await.success(), "{}", self.said());
        self.start_again().await
    }

    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        eventually("the broker to stop", || {
            let ended = self.child.try_wait().unwrap();
            async move { ended }
        })
        .await
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("sluice.yaml")
    }

    /// Writes another configuration, without loading it.
    pub fn rewrite(&self, yaml: &str) {
        std::fs::write(self.file(), complete(yaml)).unwrap();
    }

    /// What it said on standard error.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// What it printed on standard output.
    pub fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// As long as this is held, nobody reads the broker's standard output.
    pub fn unread(&self) -> MutexGuard<'_, String> {
        self.printed.lock().unwrap()
    }

    pub async fn post(&self, with: HeaderMap, body: impl Into<bytes::Bytes>) -> Answer {
        send(self.public, Method::POST, "/events", with, body).await
    }

    /// Publishes in binary mode; the attributes come besides `specversion`, and `source` and `type` have defaults.
    pub async fn publish(&self, attributes: &[(&str, &str)], data: &str) -> Answer {
        let given = attributes.iter().map(|(name, value)| (format!("ce-{name}"), (*value).to_owned()));
        let mut all = headers([
            ("ce-specversion", "1.0"),
            ("ce-source", "/test"),
            ("ce-type", "com.example.test"),
            ("content-type", "application/json"),
        ]);
        for (name, value) in given {
            all.insert(name.parse::<::http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        self.post(all, data.to_owned()).await
    }

    /// Publishes events with these ids, which must be accepted; returns their offsets.
    pub async fn publish_ids(&self, ids: &[&str]) -> Vec<String> {
        let mut offsets = Vec::new();
        for id in ids {
            let answer = self.publish(&[("id", id)], "{}").await;
            assert_eq!(answer.status, 202, "{}", answer.text());
            offsets.push(answer.header("sluice-offset").unwrap().to_owned());
        }
        offsets
    }

    pub async fn ask(&self, path: &str) -> Answer {
        send(self.operators, Method::GET, path, HeaderMap::new(), "").await
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.ask(&format!("/api/v1/{path}")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub async fn call(&self, path: &str, body: &Value) -> Answer {
        let with = headers([("content-type", "application/json")]);
        send(self.operators, Method::POST, &format!("/api/v1/{path}"), with, body.to_string()).await
    }

    /// A writing call that must succeed.
    pub async fn do_call(&self, path: &str, body: &Value) -> Value {
        let answer = self.call(path, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// A trigger, once it is as wanted.
    pub async fn trigger_when(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.get_when(&format!("triggers/{name}"), wanted).await
    }

    pub async fn get_when(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        eventually(&format!("{path} to be as wanted"), || async {
            let found = self.get(path).await;
            if wanted(&found) {
                return Some(found);
            }
            assert!(started.elapsed() < PATIENCE, "{path} is still {found:#}");
            None
        })
        .await
    }

    /// All dead letters, once they are so many.
    pub async fn dead_letters(&self, count: usize) -> Vec<Value> {
        let found =
            self.get_when("dead-letters", |list| list["items"].as_array().unwrap().len() == count).await;
        found["items"].as_array().unwrap().clone()
    }

    pub async fn reload(&self, yaml: &str) -> Answer {
        self.rewrite(yaml);
        self.call("config/reload", &json!({})).await
    }

    /// A command as an operator types it, words apart by a space.
    pub fn cli(&self, words: &str) -> Told {
        self.cli_words(&words.split(' ').collect::<Vec<_>>())
    }

    pub fn cli_words(&self, words: &[&str]) -> Told {
        let mut command = sluice();
        command
            .args(words)
            .current_dir(self.path())
            .env("SLUICE_ADMIN", format!("http://{}", self.operators))
            .env("SLUICE_URL", format!("http://{}/events", self.public));
        run(command)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            eprintln!("the broker said:\n{}", self.said());
        }
    }
}

/// Collects what a child writes.
pub fn keep(stream: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&text);
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            kept.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    text
}

/// Kills a child that the test started itself.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// How a child that was told to end has ended.
pub async fn finished(mut child: Running) -> ExitStatus {
    eventually("a command to end", || {
        let ended = child.0.try_wait().unwrap();
        async move { ended }
    })
    .await
}
