//! `sluice sink`: a function for development that prints what it is sent.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::value::RawValue;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use super::Error;
use super::output::{escaped, escaped_lines, print_line};
use super::time::duration;

/// More than any limit a broker is likely to be run with.
const BODY_BYTES_MAX: usize = 64 << 20;
const COUNTERS_EVERY: Duration = Duration::from_secs(1);
/// How long to wait when the system has no file handle left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Run a sink for development: prints each request and answers 200.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice sink
  sluice sink --listen 127.0.0.1:9001 --fail-first 2     see retries
  sluice sink --status 422                               see dead letters
  sluice sink --delay 700ms --quiet                      a slow one; prints counters only")]
pub struct Args {
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "ADDR")]
    listen: SocketAddr,
    /// The status to answer with
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,
    /// Wait so long before each answer
    #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = duration)]
    delay: Duration,
    /// Answer the first N requests with 503
    #[arg(long, default_value_t = 0, value_name = "N")]
    fail_first: u64,
    /// Print counters only, once a second when they changed
    #[arg(long)]
    quiet: bool,
}

#[derive(Debug)]
struct Sink {
    args: Args,
    received: AtomicU64,
}

pub async fn sink(args: Args) -> Result<(), Error> {
    let cannot = |error| Error::failed_because(format!("cannot listen on {}", args.listen), error);
    let listener = TcpListener::bind(args.listen).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    print_line(&format!("listening on http://{address}, answering {}", args.describe()))?;

    let cannot_signal = |error| Error::failed_because("cannot wait for signals", error);
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot_signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot_signal)?;
    let sink = Arc::new(Sink { args, received: AtomicU64::new(0) });
    let mut counters = tokio::time::interval(COUNTERS_EVERY);
    let mut printed = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(serve(Arc::clone(&sink), stream))),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            _ = counters.tick(), if sink.args.quiet => sink.print_counters(&mut printed)?,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    if sink.args.quiet { sink.print_counters(&mut printed) } else { Ok(()) }
}

async fn serve(sink: Arc<Sink>, stream: TcpStream) {
    // An answer in two packets would otherwise wait for the broker's delayed acknowledgement.
    drop(stream.set_nodelay(true));
    let service = service_fn(move |request| {
        let sink = Arc::clone(&sink);
        async move { Ok::<_, Infallible>(sink.answer(request).await) }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        eprintln!("a connection broke: {error}");
    }
}

impl Args {
    fn describe(&self) -> String {
        let mut text = self.status.to_string();
        if !self.delay.is_zero() {
            text.push_str(&format!(" after {:?}", self.delay));
        }
        if self.fail_first > 0 {
            text.push_str(&format!("; 503 to the first {}", self.fail_first));
        }
        text
    }
}

impl Sink {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        let number = self.received.fetch_add(1, Ordering::Relaxed) + 1;
        let status = match &body {
            Err(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Ok(_) if number <= self.args.fail_first => StatusCode::SERVICE_UNAVAILABLE,
            Ok(_) => StatusCode::from_u16(self.args.status).unwrap_or(StatusCode::OK),
        };
        if !self.args.quiet {
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let text = format!("#{number} -> {}\n{}\n", status.as_u16(), describe(&parts, &body));
            // Printed as one piece; with nobody reading it, the sink goes on answering.
            drop(std::io::stdout().lock().write_all(text.as_bytes()));
        }
        if !self.args.delay.is_zero() {
            tokio::time::sleep(self.args.delay).await;
        }
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        response
    }

    fn print_counters(&self, printed: &mut u64) -> Result<(), Error> {
        let received = self.received.load(Ordering::Relaxed);
        if received == *printed {
            return Ok(());
        }
        let more = received - *printed;
        *printed = received;
        let failed = received.min(self.args.fail_first);
        print_line(&format!("received {received} (+{more}), of them answered 503: {failed}"))
    }
}

/// The request as a person reads it: attributes one per line, then the data.
fn describe(parts: &Parts, body: &[u8]) -> String {
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let media_type =
        parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut text = format!("{} {}\n", parts.method, escaped(target));
    let media_type_lower = media_type.to_ascii_lowercase();
    if media_type_lower.starts_with("application/cloudevents") {
        let batch = media_type_lower.starts_with("application/cloudevents-batch");
        let events = if batch {
            serde_json::from_slice(body)
        } else {
            serde_json::from_slice(body).map(|event| vec![event])
        };
        match events {
            Ok(events) => events.iter().for_each(|event| describe_event(&mut text, event)),
            Err(_) => describe_data(&mut text, media_type, body),
        }
        return text;
    }
    for (name, value) in &parts.headers {
        if let Some(name) = name.as_str().strip_prefix("ce-") {
            text.push_str(&format!("  {name}: {}\n", escaped(&String::from_utf8_lossy(value.as_bytes()))));
        }
    }
    describe_data(&mut text, media_type, body);
    text
}

/// An event in the JSON format; members are kept as text, so that data is shown as it came.
type JsonEvent = BTreeMap<String, Box<RawValue>>;

fn describe_event(text: &mut String, event: &JsonEvent) {
    for (name, value) in event.iter().filter(|(name, _)| *name != "data" && *name != "data_base64") {
        text.push_str(&format!("  {}: {}\n", escaped(name), escaped(&unquoted(value))));
    }
    let media_type =
        event.get("datacontenttype").map_or_else(|| "application/json".into(), |value| unquoted(value));
    match (event.get("data"), event.get("data_base64")) {
        (Some(data), _) if media_type.contains("json") => {
            describe_data(text, &media_type, data.get().as_bytes());
        }
        (Some(data), _) => describe_data(text, &media_type, unquoted(data).as_bytes()),
        (None, Some(data)) => {
            text.push_str(&format!(
                "  data ({}, base64): {}\n",
                escaped(&media_type),
                escaped(&unquoted(data))
            ));
        }
        (None, None) => {}
    }
}

/// A JSON string without its quotes; the text of any other value.
fn unquoted(value: &RawValue) -> String {
    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

fn describe_data(text: &mut String, media_type: &str, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let media_type = if media_type.is_empty() { "no media type" } else { media_type };
    text.push_str(&format!("  data ({}, {} bytes):\n", escaped(media_type), data.len()));
    match std::str::from_utf8(data) {
        Ok(data) => text.push_str(&escaped_lines(data)),
        Err(_) => text.push_str("  not text"),
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use http::Request;

    use super::describe;

    fn check(headers: &[(&str, &str)], body: &str, expected: &Expect) {
        let request = headers
            .iter()
            .fold(Request::post("/any?x=1"), |request, (name, value)| request.header(*name, *value));
        let (parts, ()) = request.body(()).unwrap().into_parts();
        expected.assert_eq(&describe(&parts, body.as_bytes()));
    }

    #[test]
    fn binary_mode_reads_as_attributes_and_data() {
        check(
            &[("ce-id", "1"), ("ce-type", "a.b"), ("host", "x"), ("content-type", "application/json")],
            r#"{"n":  1.0}"#,
            &expect![[r#"
                POST /any?x=1
                  id: 1
                  type: a.b
                  data (application/json, 11 bytes):
                {"n":  1.0}
            "#]],
        );
    }

    #[test]
    fn structured_mode_reads_alike() {
        check(
            &[("content-type", "application/cloudevents+json; charset=utf-8")],
            r#"{"id": "1", "type": "a\u001bb", "n": 3, "data": {"x":  [1.0]}}"#,
            &expect![[r#"
                POST /any?x=1
                  id: 1
                  n: 3
                  type: a\u{1b}b
                  data (application/json, 13 bytes):
                {"x":  [1.0]}
            "#]],
        );
    }

    #[test]
    fn control_characters_of_the_data_do_not_reach_the_terminal() {
        check(
            &[("content-type", "text/plain")],
            "one\n\u{1b}[31mred",
            &expect![[r#"
                POST /any?x=1
                  data (text/plain, 12 bytes):
                one
                \u{1b}[31mred
            "#]],
        );
    }
}
