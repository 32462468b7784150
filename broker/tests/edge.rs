//! The public listener over real sockets: raw bytes in, answers out (one test for each group of bad inputs).

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use sluice_adapters::{Intake, Published, Publisher, Receipt, Refusal, Request};
use sluice_broker::edge::{Edge, EdgeLimits, Stopped};
use sluice_broker::ingress::{self, Counters, Gate, GateState, Ingress, Reason};
use sluice_config::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longer than anything here takes: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

const LIMITS: Limits = Limits {
    event_bytes: 1 << 20,
    batch_bytes: 8 << 20,
    in_flight_bytes: 64 << 20,
    connections: 64,
    hops: 16,
    put_aside_bytes: 1 << 20,
};

const EVENT: &str = "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: t\r\n";

/// A broker without a store: one that gives out offsets, and refuses ids that say how.
struct Broker {
    addr: std::net::SocketAddr,
    gate: Gate,
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<Stopped>,
}

/// Answers at once, as the event's id says.
#[derive(Default)]
struct Store {
    offset: AtomicU64,
}

impl Intake for Store {
    fn submit(&self, request: Request) {
        let id = request.entries[0].event.id().to_owned();
        let answer = match &*id {
            "conflict" => Err(Refusal::Conflict { index: 0, offset: 7 }),
            "full" => Err(Refusal::Full { reason: "95 % of 10 GiB are owed".into() }),
            "unavailable" => Err(Refusal::Unavailable { reason: "it is being repaired".into() }),
            "again" => Ok(Published { receipts: vec![Receipt { offset: 3, duplicate: true }] }),
            _ => {
                let next =
                    || Receipt { offset: self.offset.fetch_add(1, Ordering::Relaxed) + 1, duplicate: false };
                Ok(Published { receipts: std::iter::repeat_with(next).take(request.entries.len()).collect() })
            }
        };
        let _ = request.answer.send(answer);
    }
}

async fn broker() -> Broker {
    broker_with(EdgeLimits::default()).await
}

async fn broker_with(limits: EdgeLimits) -> Broker {
    let gate = Gate::default();
    gate.set(GateState::Ready);
    let counters = Arc::new(Counters::default());
    let router = ingress::router(Ingress {
        publisher: Publisher::new("http", Arc::new(Store::default())),
        hooks: sluice_adapters::hook::Hooks::default(),
        limits: LIMITS,
        webhook_origins: vec!["events.example.com".into()],
        gate: gate.clone(),
        metrics: Arc::clone(&counters),
    })
    .merge(Router::new().route("/panic", get(panics)));
    let edge = Edge::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let addr = edge.local_addr();
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(edge.serve(router, limits, stopped));
    Broker { addr, gate, counters, stop, serving }
}

async fn panics() {
    panic!("on purpose");
}

impl Broker {
    /// Sends bytes and ends the sending side; the raw answers.
    async fn exchange(&self, raw: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        // The broker may close before all of it is sent.
        let _ = stream.write_all(raw).await;
        let _ = stream.shutdown().await;
        read_to_end(&mut stream).await
    }

    /// Sends bytes and waits, without ending the sending side, until the broker closes.
    async fn until_closed(&self, raw: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let _ = stream.write_all(raw).await;
        read_to_end(&mut stream).await
    }

    #[track_caller]
    fn check(&self, raw: impl AsRef<[u8]>, expected: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let raw = raw.as_ref();
            let answered = summary(&self.exchange(raw).await);
            let shown = String::from_utf8_lossy(&raw[..raw.len().min(200)]).into_owned();
            assert_eq!(answered, expected, "at {caller} for {shown:?}");
        }
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an end in time").unwrap();
    String::from_utf8(bytes).unwrap()
}

/// `202 400 Host close`: the status of each answer, the field of a problem, and whether it says that it closes.
fn summary(mut answers: &str) -> String {
    let mut words = Vec::new();
    while let Some((head, rest)) = answers.split_once("\r\n\r\n") {
        let header = |name: &str| {
            head.lines().find_map(|line| {
                line.split_once(": ")
                    .filter(|(known, _)| known.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value)
            })
        };
        words.push(head.split(' ').nth(1).unwrap().to_owned());
        let length = header("content-length").map_or(0, |length| length.parse().unwrap());
        if header("content-type") == Some("application/problem+json") {
            let problem: serde_json::Value = serde_json::from_str(&rest[..length]).unwrap();
            words.extend(problem["field"].as_str().map(str::to_owned));
            assert!(length <= 1024, "{length} bytes");
        }
        words.extend(header("sluice-offset").map(|offset| format!("@{offset}")));
        words.extend(header("sluice-duplicate").map(|_| "duplicate".to_owned()));
        words.extend(header("retry-after").map(|_| "later".to_owned()));
        words.extend(header("allow").map(str::to_owned));
        words.extend(header("connection").map(str::to_owned));
        answers = &rest[length..];
    }
    words.join(" ")
}

fn post(headers: &str, body: &str) -> String {
    format!("POST /events HTTP/1.1\r\nhost: x\r\n{EVENT}{headers}\r\n{body}")
}

#[tokio::test]
async fn events_are_answered_with_their_offsets() {
    let broker = broker().await;
    broker.check(post("", ""), "202 @1").await;
    broker.check(post("content-length: 2\r\n", "{}"), "202 @2").await;
    broker
        .check(post("transfer-encoding: Chunked\r\n", "1;a=b\r\n{\r\n1\r\n}\r\n0\r\nt: 1\r\n\r\n"), "202 @3")
        .await;
    broker.check(post("connection: upgrade\r\nupgrade: foo/2\r\n", ""), "202 @4").await;
    broker.check(post("expect: nonsense\r\ntraceparent: nonsense\r\n", ""), "202 @5").await;
    broker.check(post("connection: close\r\n", ""), "202 @6 close").await;
    broker.check("POST /events HTTP/1.0\r\n".to_owned() + EVENT + "\r\n", "202 @7").await;
    broker.check(post("", "").repeat(3), "202 @8 202 @9 202 @10").await;
    broker.check(post("", "").replace("ce-id: 1", "ce-id: again"), "202 @3 duplicate").await;
    assert_eq!((broker.counters.accepted(), broker.counters.duplicates()), (10, 1));
}

fn typed(content_type: &str, body: &str) -> String {
    let length = body.len();
    let head = "POST /events HTTP/1.1\r\nhost: x\r\n";
    format!("{head}content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn structured(body: &str) -> String {
    typed("application/cloudevents+json; charset=UTF-8", body)
}

fn batch(events: &[&str]) -> String {
    typed("application/cloudevents-batch+json", &format!("[{}]", events.join(", ")))
}

const JSON_EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;

#[tokio::test]
async fn binary_events_are_judged_by_attribute() {
    let broker = broker().await;
    for attribute in ["specversion", "id", "source", "type"] {
        let line = EVENT.split_inclusive("\r\n").find(|line| line.contains(attribute)).unwrap();
        broker.check(post("", "").replace(line, ""), &format!("400 {attribute}")).await;
        broker
            .check(post("", "").replace(line, &format!("ce-{attribute}:\r\n")), &format!("400 {attribute}"))
            .await;
    }
    broker.check(post("", "").replace(EVENT, ""), "400").await;
    for version in ["0.3", "2.0", "abc", "19.0"] {
        let raw = post("content-length: 1\r\n", "\0")
            .replace("specversion: 1.0", &format!("specversion: {version}"));
        broker.check(raw, "400 specversion").await;
    }
    for (header, field) in [
        ("ce-source: http://[", "source"),
        ("ce-id: 2", "id"),
        ("ce-time: yesterday", "time"),
        ("ce-time: 2026-02-30T00:00:00Z", "time"),
        ("ce-my_ext: x", "my_ext"),
        ("ce-my-ext: x", "my-ext"),
        ("ce-data: x", "data"),
        ("ce-ext: %00", "ext"),
        ("ce-ext: %0d%0aX: y", "ext"),
        ("ce-ext: %C0%A0", "ext"),
    ] {
        broker.check(post(&format!("{header}\r\n"), ""), &format!("400 {field}")).await;
    }
    for header in [
        "ce-ext: 100%",
        "ce-ext: %zz",
        "ce-ext: \u{e9}",
        r#"ce-ext: "a\"b""#,
        "CE-Ext: x",
        "ce-knativeerrordest: x",
    ] {
        let answered = summary(&broker.exchange(post(&format!("{header}\r\n"), "").as_bytes()).await);
        assert!(answered.starts_with("202 @"), "{header}: {answered}");
    }
}

#[tokio::test]
async fn structured_events_are_judged_by_place_or_attribute() {
    let broker = broker().await;
    broker.check(structured(JSON_EVENT), "202 @1").await;
    broker.check(structured(&format!("\u{feff}{JSON_EVENT}")), "202 @2").await;
    for body in
        ["", "null", "[]", "\"x\"", "42", &JSON_EVENT[..30], &format!("{JSON_EVENT}x"), "{\"id\": NaN}"]
    {
        broker.check(structured(body), "400").await;
    }
    let with = |member: &str| JSON_EVENT.replacen('{', &format!("{{{member},"), 1);
    for (member, field) in [
        (r#""id":"2""#, "id"),
        (r#""MyExt":"x""#, "MyExt"),
        (r#""ext":{}"#, "ext"),
        (r#""ext":9223372036854775808"#, "ext"),
        (r#""ext":"\u0001""#, "ext"),
        (r#""data":1,"data_base64":"AA==""#, "data"),
        (r#""data_base64":"A""#, "data_base64"),
    ] {
        broker.check(structured(&with(member)), &format!("400 {field}")).await;
    }
    broker.check(structured(&JSON_EVENT.replace("\"t\"", "\"t\u{1b}[31m\"")), "400").await;
    broker.check(structured(&with(r#""data":1e400"#)), "202 @3").await;
    let media_types = [
        "application/cloudevents+xml",
        "application/cloudevents+jsonx",
        "application/cloudevents+json; charset=utf-16",
    ];
    for content_type in media_types {
        broker.check(typed(content_type, JSON_EVENT), "415").await;
    }
}

#[tokio::test]
async fn a_batch_is_stored_whole_or_not_at_all() {
    let broker = broker().await;
    broker.check(batch(&[]), "202").await;
    broker.check(batch(&[JSON_EVENT; 3]), "202 @1,2,3").await;
    let invalid = JSON_EVENT.replace("source", "sauce");
    let raw = batch(&[JSON_EVENT, JSON_EVENT, &invalid, JSON_EVENT, JSON_EVENT]);
    broker.check(&raw, "400 source").await;
    assert!(broker.exchange(raw.as_bytes()).await.contains("event 2 of the batch"));
    broker.check(batch(&[JSON_EVENT, "42"]), "400").await;
    broker.check(batch(&[JSON_EVENT]), "202 @4").await;
    let large = JSON_EVENT.replace("/s", &"s".repeat(1 << 20));
    broker.check(batch(&[JSON_EVENT, &large]), "413").await;
    let raw = typed("application/cloudevents-batch+json", &" ".repeat((8 << 20) + 1));
    broker.check(raw, "413 close").await;
    assert_eq!(broker.counters.accepted(), 4);
}

#[tokio::test]
async fn framing_that_two_parsers_could_read_differently_is_refused() {
    let broker = broker().await;
    let hidden = "0\r\n\r\nPOST /events HTTP/1.1\r\nhost: x\r\n\r\n";
    let both = "400 Transfer-Encoding close";
    broker.check(post("transfer-encoding: chunked\r\ncontent-length: 4\r\n", hidden), both).await;
    broker.check(post("content-length: 4\r\ntransfer-encoding: chunked\r\n", hidden), both).await;
    broker.check(post("Content-LENGTH:4\r\nTRANSFER-encoding:\tchunked \r\n", hidden), both).await;
    for coding in ["gzip", "chunked, identity", "gzip, chunked", "chunked, chunked", "xchunked", ""] {
        broker.check(post(&format!("transfer-encoding: {coding}\r\n"), hidden), both).await;
    }
    broker.check(post(&"transfer-encoding: chunked\r\n".repeat(2), hidden), both).await;
    broker.check(post("transfer-encoding: chunked\r\n", "0\r\n\r\n").replace("1.1", "1.0"), both).await;
    for length in ["-1", "+5", "5, 6", "5, 5", "", "0x5", "5 5", "99999999999999999999"] {
        let raw = post(&format!("content-length: {length}\r\n"), "12345");
        broker.check(raw, "400 Content-Length close").await;
    }
    broker
        .check(post("content-length: 5\r\ncontent-length: 6\r\n", "123456"), "400 Content-Length close")
        .await;
    broker.check(post("content-length: 5\r\ncontent-length: 5\r\n", "12345"), "202 @1").await;
}

#[tokio::test]
async fn malformed_chunks_are_refused() {
    let broker = broker().await;
    let long_extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(1 << 20));
    for body in [
        "FFFFFFFFFFFFFFFFF\r\nx",
        "0x5\r\n12345\r\n0\r\n\r\n",
        &long_extension,
        "1\nx\n0\n\n",
        "-1\r\nx",
        "2\r\nxyz\r\n0\r\n\r\n",
        "\r\n",
    ] {
        broker.check(post("transfer-encoding: chunked\r\n", body), "400 close").await;
    }
    assert_eq!(broker.counters.refused(Reason::Malformed), 7);
}

#[tokio::test]
async fn malformed_heads_are_refused() {
    let broker = broker().await;
    broker.check(post("", "").replace("\r\n", "\n"), "400 close").await;
    broker.check(post("a: b\n", ""), "400 close").await;
    broker.check(post("", "").replace("\r\n\r\n", "\r\n\n"), "400 close").await;
    broker.check(post("a: b\r\n c\r\n", ""), "400 close").await;
    broker.check(post("a : b\r\n", ""), "400 close").await;
    broker.check(post(": b\r\n", ""), "400 close").await;
    broker.check(post("a\r\n", ""), "400 close").await;
    broker.check(post("a: \0\r\n", ""), "400 close").await;
    broker.check(post("a: b\rc\r\n", ""), "400 close").await;
    broker.check(post("", "").replace("host: x\r\n", ""), "400 Host close").await;
    broker.check(post("Host: y\r\n", ""), "400 Host close").await;
    broker.check(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400 close").await;
    broker.check("hello\r\n\r\n", "400 close").await;
    broker.check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 close").await;
}

#[tokio::test]
async fn a_refusal_comes_behind_the_answers_to_what_was_sent_before() {
    let broker = broker().await;
    let raw = post("content-length: 3\r\n", "a\n\n")
        + "\r\n"
        + &post("", "")
        + &post("a : b\r\n", "")
        + &post("", "");
    broker.check(raw, "202 @1 202 @2 400 close").await;
}

#[tokio::test]
async fn heads_have_limits() {
    let broker = broker().await;
    let headers = |lines: usize| (0..lines - 5).map(|n| format!("h{n}: v\r\n")).collect::<String>();
    broker.check(post(&headers(256), ""), "202 @1").await;
    broker.check(post(&headers(257), ""), "431 close").await;
    let filler = |bytes: usize| format!("h: {}\r\n", "v".repeat(bytes));
    broker.check(post(&filler(60 << 10), ""), "202 @2").await;
    broker.check(post(&filler(68 << 10), ""), "431 close").await;
    broker.check(post(&filler(1 << 20), ""), "431 close").await;
    let target =
        |bytes: usize| post("", "").replacen("/events", &format!("/events?{}", "q".repeat(bytes)), 1);
    broker.check(target(8000), "202 @3").await;
    broker.check(target(8200), "414 close").await;
    broker.check(target(64 << 10), "414 close").await;
}

#[tokio::test]
async fn other_methods_and_paths_are_refused() {
    let broker = broker().await;
    let request = |method: &str, path: &str| {
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nx-secret: s\r\ncontent-length: 2\r\n\r\n{{}}")
    };
    for method in ["GET", "PUT", "PATCH", "DELETE", "TRACE", "HELLO"] {
        broker.check(request(method, "/events"), "405 POST, OPTIONS").await;
    }
    assert!(!broker.exchange(request("TRACE", "/events").as_bytes()).await.contains("secret"));
    for path in [
        "/",
        "/events/",
        "//events",
        "/events/a",
        "/../events",
        "/%2e%2e/events",
        "/%65vents",
        "/Events",
        "*",
    ] {
        broker.check(request("POST", path), "404").await;
    }
    broker.check(request("GET", "/hooks/nobody"), "404 close").await;
    broker.check(request("POST", "/hooks/nobody"), "404 close").await;
    for path in ["/metrics", "/readyz", "/hooks", "/api/v1/triggers"] {
        broker.check(request("GET", path), "404").await;
    }
    broker.check(request("POST", "http://x/events"), "400").await;
}

#[tokio::test]
async fn encoded_bodies_are_refused() {
    let broker = broker().await;
    for coding in ["gzip", "br", "gzip, gzip", "nonsense"] {
        broker
            .check(
                post(&format!("content-encoding: {coding}\r\ncontent-length: 2\r\n"), "{}"),
                "415 Content-Encoding",
            )
            .await;
    }
    broker.check(post("content-encoding: identity\r\n", ""), "202 @1").await;
    assert_eq!(broker.counters.refused(Reason::MediaType), 4);
}

#[tokio::test]
async fn too_large_bodies_are_refused_without_reading_on() {
    let broker = broker().await;
    let large = (1 << 20) + 1;
    // Nothing of the body is sent, so this answer did not wait for it; nor did it ask for it with a 100.
    for expect in ["", "expect: 100-continue\r\n"] {
        let raw = post(&format!("{expect}content-length: {large}\r\n"), "");
        assert_eq!(summary(&broker.until_closed(raw.as_bytes()).await), "413 close");
    }
    broker.check(post(&format!("content-length: {large}\r\n"), &"x".repeat(large)), "413 close").await;
    broker.check(post("content-length: 1048576\r\n", &"x".repeat(1 << 20)), "202 @1").await;
    // An endless body: the broker closes although more could come.
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(1 << 16));
    let raw = post("transfer-encoding: chunked\r\n", &chunk.repeat(17));
    let mut stream = TcpStream::connect(broker.addr).await.unwrap();
    stream.write_all(raw.as_bytes()).await.unwrap();
    assert_eq!(summary(&read_to_end(&mut stream).await), "413 close");
    assert_eq!(broker.counters.refused(Reason::TooLarge), 4);
}

#[tokio::test]
async fn a_small_body_is_asked_for_with_100() {
    let raw = post("expect: 100-continue\r\ncontent-length: 2\r\n", "");
    let broker = broker().await;
    let mut stream = TcpStream::connect(broker.addr).await.unwrap();
    stream.write_all(raw.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{}").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(summary(&read_to_end(&mut stream).await), "202 @1");
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_refused() {
    broker().await.check(post("content-length: 10\r\n", "12345"), "400 close").await;
}

#[tokio::test]
async fn refusals_of_the_store_have_their_status() {
    let broker = broker().await;
    let with_id = |id: &str| post("", "").replace("ce-id: 1", &format!("ce-id: {id}"));
    broker.check(with_id("conflict"), "422 id").await;
    broker.check(with_id("full"), "503 later").await;
    broker.check(with_id("unavailable"), "503 later").await;
    let counted =
        [Reason::Conflict, Reason::Full, Reason::Busy].map(|reason| broker.counters.refused(reason));
    assert_eq!(counted, [1, 1, 1]);
}

#[tokio::test]
async fn a_closed_gate_refuses_before_the_body_is_asked_for() {
    let broker = broker().await;
    for state in [
        GateState::Starting,
        GateState::Full("disk".into()),
        GateState::Draining,
        GateState::Failed("sync".into()),
    ] {
        broker.gate.set(state);
        let raw = post("expect: 100-continue\r\ncontent-length: 2\r\n", "");
        assert_eq!(summary(&broker.until_closed(raw.as_bytes()).await), "503 later");
    }
    broker.check("OPTIONS /events HTTP/1.1\r\nhost: x\r\n\r\n", "200 POST, OPTIONS").await;
}

#[tokio::test]
async fn the_handshake_consents_to_listed_origins_only() {
    let broker = broker().await;
    let ask = async |headers: &str| {
        let raw = format!("OPTIONS /events HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        let answer = broker.exchange(raw.as_bytes()).await;
        assert_eq!(summary(&answer), "200 POST, OPTIONS");
        let consent = answer.lines().filter(|line| line.starts_with("webhook-"));
        consent.collect::<Vec<_>>().join("; ")
    };
    let consent = "webhook-allowed-origin: EVENTS.example.com; webhook-allowed-rate: *";
    assert_eq!(
        ask("WebHook-Request-Origin: EVENTS.example.com\r\nWebHook-Request-Rate: 120\r\n").await,
        consent
    );
    for origin in [
        "evil.test",
        "events.example.com.evil.test",
        "a.events.example.com",
        "",
        "*",
        "https://events.example.com/",
        "events.example.com, evil.test",
    ] {
        assert_eq!(
            ask(&format!("WebHook-Request-Origin: {origin}\r\nWebHook-Request-Rate: 120\r\n")).await,
            ""
        );
    }
    assert_eq!(ask("").await, "");
    assert_eq!(ask(&"WebHook-Request-Origin: events.example.com\r\n".repeat(2)).await, "");
}

#[tokio::test]
async fn a_panic_ends_one_request_and_nothing_else() {
    let broker = broker().await;
    broker.check("GET /panic HTTP/1.1\r\nhost: x\r\n\r\n", "500 close").await;
    broker.check(post("", ""), "202 @1").await;
}

#[tokio::test]
async fn thousands_of_pipelined_requests_are_served_in_order() {
    let broker = broker().await;
    let mut stream = TcpStream::connect(broker.addr).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let raw = post("content-length: 4\r\n", "\r\n\r\n").repeat(10_000);
    let send = async {
        writing.write_all(raw.as_bytes()).await.unwrap();
        writing.shutdown().await.unwrap();
    };
    let mut answers = String::new();
    let (_, received) = tokio::join!(send, reading.read_to_string(&mut answers));
    received.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 202").count(), 10_000);
    assert!(answers.contains("sluice-offset: 10000\r\n"));
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let broker = broker_with(EdgeLimits { connections: 1, ..EdgeLimits::default() }).await;
    let mut first = TcpStream::connect(broker.addr).await.unwrap();
    first.write_all(post("", "").as_bytes()).await.unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();
    broker.check(post("", ""), "503 later close").await;
    first.shutdown().await.unwrap();
    read_to_end(&mut first).await;
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let broker = broker().await;
    let error = Edge::bind(broker.addr).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {}", broker.addr));
}

#[tokio::test]
async fn a_stop_closes_idle_connections_and_the_socket() {
    let broker = broker().await;
    let mut idle = TcpStream::connect(broker.addr).await.unwrap();
    idle.write_all(post("", "").as_bytes()).await.unwrap();
    let mut byte = [0];
    idle.read_exact(&mut byte).await.unwrap();
    broker.stop.send(true).unwrap();
    read_to_end(&mut idle).await;
    assert_eq!(broker.serving.await.unwrap(), Stopped { cut: 0 });
    assert!(TcpStream::connect(broker.addr).await.is_err());
}

#[tokio::test]
async fn what_still_runs_at_the_drain_deadline_is_cut() {
    let limits = EdgeLimits { drain_deadline: Duration::from_millis(1), ..EdgeLimits::default() };
    let broker = broker_with(limits).await;
    let mut stream = TcpStream::connect(broker.addr).await.unwrap();
    stream.write_all(post("expect: 100-continue\r\ncontent-length: 2\r\n", "").as_bytes()).await.unwrap();
    // The request runs: its body was asked for.
    stream.read_u8().await.unwrap();
    broker.stop.send(true).unwrap();
    assert_eq!(broker.serving.await.unwrap(), Stopped { cut: 1 });
}
