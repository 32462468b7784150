//! Deliveries over HTTP (CloudEvents HTTP binding, section 3; Knative data plane).

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use sluice_adapters::TraceContext;
use sluice_config::{self as config, Mode};
use sluice_schemas::{Event, http as binding};

use super::client::{Client, SendError};
use super::connect::{OpenError, Target};
use super::{Answer, Attempt};
use crate::delivery::{self, Answered, Failure, Outcome};
use crate::store::clock;

/// Above this an event goes out in structured mode: many servers take no more.
const BINARY_HEADER_BYTES_MAX: usize = 8 << 10;
/// Likewise: some take a hundred headers, and these are not all that a request has.
const BINARY_ATTRIBUTES_MAX: usize = 80;
/// Read of an answer that is no reply, so that the connection can be used again.
const IGNORED_BYTES_MAX: usize = 64 << 10;
/// Kept of it.
const KEPT_BYTES: usize = 1024;

pub struct HttpSink {
    url: String,
    path: Uri,
    mode: Mode,
    /// Sent with every delivery.
    headers: HeaderMap,
    client: Client,
}

impl HttpSink {
    pub fn open(sink: &config::HttpSink, concurrency: usize) -> Result<Self, OpenError> {
        let invalid = || OpenError::Url(sink.shown_url());
        let uri: Uri = sink.url.parse().map_err(|_| invalid())?;
        let is_https = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or_else(invalid)?;
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let authority = uri.authority().ok_or_else(invalid)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).parse().map_err(|_| invalid())?;
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(authority.as_str()).map_err(|_| invalid())?);
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("sluice/", env!("CARGO_PKG_VERSION"))),
        );
        headers.insert(HeaderName::from_static("prefer"), HeaderValue::from_static("reply"));
        for (name, value) in &sink.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| invalid())?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        let target = match is_https {
            true => Target::over_tls(host, port, sink)?,
            false => Target::plain(host, port, sink),
        };
        let client = Client::new(target, concurrency);
        Ok(Self { url: sink.shown_url(), path, mode: sink.mode, headers, client })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn deliver(&self, attempt: Attempt<'_>) -> Answer {
        match tokio::time::timeout(attempt.timeout, self.exchange(&attempt)).await {
            Ok(answer) => answer,
            Err(_) => failed(None, format!("timed out after {:?}", attempt.timeout)),
        }
    }

    async fn exchange(&self, attempt: &Attempt<'_>) -> Answer {
        let request = match self.request(attempt.event, attempt.trace) {
            Ok(request) => request,
            Err(error) => return failed(None, error),
        };
        let exchange = match self.client.send(request.map(Full::new)).await {
            Ok(exchange) => exchange,
            Err(error @ (SendError::Connect(_) | SendError::Http(_))) => {
                return failed(None, error.to_string());
            }
        };
        let (response, connection) = exchange.split();
        let (head, body) = response.into_parts();
        let keep = kept_bytes(&head, attempt);
        let (body, is_cut) = match read(body, keep).await {
            Ok(Read::Whole(body, is_cut)) => {
                self.client.reuse(connection);
                (body, is_cut)
            }
            Ok(Read::Cut(body)) => (body, true),
            Err(error) => {
                return failed(Some(head.status.as_u16()), format!("the answer was cut off: {error}"));
            }
        };
        let status = Some(head.status.as_u16());
        let answered = Answered { status: head.status, headers: head.headers, body, is_cut };
        Answer {
            status,
            outcome: delivery::classify(&answered, attempt.config, attempt.limits, clock::wall_ms()),
        }
    }

    /// The request that delivers an event; its URI is the path.
    pub fn request(&self, event: &Event, trace: Option<&TraceContext>) -> Result<Request<Bytes>, String> {
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 12);
        headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        let body = self.encode(event, &mut headers)?;
        if let Some(trace) = trace {
            continue_trace(trace, &mut headers);
        }
        // Of an empty body the client says nothing, and some front ends answer a POST without a length with 411.
        if body.is_empty() {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn encode(&self, event: &Event, headers: &mut HeaderMap) -> Result<Bytes, String> {
        let fits = || {
            binding::binary_header_bytes(event) <= BINARY_HEADER_BYTES_MAX
                && event.attributes().count() <= BINARY_ATTRIBUTES_MAX
        };
        if self.mode == Mode::Binary && fits() {
            return binding::encode_binary(event, headers).map_err(|error| error.to_string());
        }
        let (content_type, body) = binding::encode_structured(event);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(body)
    }
}

/// How much of an answer is wanted: all of a reply, the beginning of anything else.
fn kept_bytes(head: &http::response::Parts, attempt: &Attempt<'_>) -> usize {
    let may_reply = head.status == StatusCode::OK && attempt.config.reply != config::Reply::Ignore;
    if may_reply && binding::claims_to_be_event(&head.headers) {
        return attempt.limits.batch_bytes.max(attempt.limits.event_bytes);
    }
    KEPT_BYTES
}

enum Read {
    /// To its end; the flag says that more came than was kept.
    Whole(Bytes, bool),
    /// So much came that the rest is not waited for.
    Cut(Bytes),
}

async fn read(mut body: Incoming, keep: usize) -> Result<Read, hyper::Error> {
    let mut kept = BytesMut::new();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        total += data.len();
        kept.extend_from_slice(&data[..data.len().min(keep - kept.len())]);
        if total > keep.max(IGNORED_BYTES_MAX) {
            return Ok(Read::Cut(kept.freeze()));
        }
    }
    Ok(Read::Whole(kept.freeze(), total > keep))
}

fn failed(status: Option<u16>, error: String) -> Answer {
    let cause = Failure { status, error, body: Bytes::new() };
    Answer { status, outcome: Outcome::Retriable { cause, retry_after: None } }
}

/// The same trace, a span of our own (W3C Trace Context, section 4.3).
fn continue_trace(trace: &TraceContext, headers: &mut HeaderMap) {
    let mut parts = trace.parent.splitn(4, '-');
    if let (Some(version), Some(id), Some(_), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    {
        let mut parent = String::with_capacity(55);
        // Writing into a String cannot fail.
        let _ = write!(parent, "{version}-{id}-{:016x}-{flags}", fastrand::u64(1..));
        if let Ok(value) = HeaderValue::try_from(parent) {
            headers.insert(HeaderName::from_static("traceparent"), value);
        }
    }
    if let Some(value) = trace.state.as_deref().and_then(|state| HeaderValue::from_str(state).ok()) {
        headers.insert(HeaderName::from_static("tracestate"), value);
    }
}
