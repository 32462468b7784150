//! `sluice sink` and `sluice bench`.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Stdio};
use std::thread;

use expect_test::expect;
use serde_json::{Value, json};

use crate::{answer, sluice};

/// A program of ours that runs until the test is over, and the address that it printed first.
struct Running {
    child: Child,
    address: String,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn start(words: &[&str]) -> Self {
        let mut child = sluice(words).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.split(['/', ',', ' ']).find(|word| word.starts_with("127.")).unwrap().to_owned();
        Self { child, address, output }
    }

    fn printed_until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            assert!(self.output.read_line(&mut text).unwrap() > 0, "{text}");
        }
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn status_of(address: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(stream, "POST /x HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n{body}").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn a_sink_prints_what_it_is_sent_and_answers_as_told() {
    let mut sink =
        Running::start(&["sink", "--listen", "127.0.0.1:0", "--fail-first", "1", "--status", "418"]);
    let binary = "ce-id: 1\r\nce-type: a.b\r\ncontent-type: application/json\r\n";
    assert_eq!(status_of(&sink.address, binary, "{\"n\":  1}"), "503");
    let structured = "content-type: application/cloudevents+json\r\n";
    assert_eq!(status_of(&sink.address, structured, "{\"id\": \"2\", \"data\": [1,  2]}"), "418");
    expect![[r##"
        #1 -> 503
        POST /x
          id: 1
          type: a.b
          data (application/json, 9 bytes):
        {"n":  1}

        #2 -> 418
        POST /x
          id: 2
          data (application/json, 7 bytes):
        [1,  2]
    "##]]
    .assert_eq(&sink.printed_until("[1,  2]\n"));
}

#[test]
fn bench_counts_what_is_accepted_and_refused() {
    let sink = Running::start(&["sink", "--listen", "127.0.0.1:0", "--fail-first", "3", "--quiet"]);
    let words = [
        "bench",
        "--url",
        &sink.address,
        "--publishers",
        "2",
        "--rate",
        "200",
        "--duration",
        "100ms",
        "--json",
    ];
    let output = sluice(&words).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["events"], &report["refused"], &report["failed"]),
        (&json!(17), &json!(3), &json!(0))
    );
    assert_eq!(report["refused_by_status"], json!({"503": 3}));
    assert!(report["ack"]["p99_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(report["lost"], Value::Null);
}

/// Takes events and passes them on, except the fourth; the sixth twice.
fn careless_broker(sink: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        for number in 0.. {
            let mut id = String::new();
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).unwrap() == 0 {
                    return;
                }
                if line.starts_with("ce-id") {
                    id = line;
                } else if line == "\r\n" {
                    break;
                }
            }
            let copies = match number {
                3 => 0,
                5 => 2,
                _ => 1,
            };
            (0..copies).for_each(|_| assert_eq!(status_of(&sink, &id, ""), "204"));
            answer(stream.get_mut(), 202, "");
        }
    });
    address
}

#[test]
fn bench_brings_a_broker_of_its_own_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let words =
        ["bench", "--own-broker", "--publishers", "2", "--rate", "100", "--duration", "100ms", "--json"];
    let output = sluice(&words).env("TMPDIR", temporary.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["events"], &report["lost"], &report["duplicated"]),
        (&json!(10), &json!(0), &json!(0))
    );
    assert_eq!(report["end_to_end"]["deliveries"], json!(10));
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "{said}");
}

#[test]
fn bench_counts_lost_and_duplicated_deliveries() {
    let sink = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let broker = careless_broker(sink.clone());
    let words = ["bench", "--url", &broker, "--sink", &sink, "--size", "0", "--publishers", "1", "--json"];
    let schedule = ["--rate", "100", "--duration", "100ms", "--drain", "200ms"];
    let output = sluice(&[words.as_slice(), &schedule].concat()).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["events"], &report["lost"], &report["duplicated"]),
        (&json!(10), &json!(1), &json!(1))
    );
    assert_eq!(report["end_to_end"]["deliveries"], json!(9));
}
