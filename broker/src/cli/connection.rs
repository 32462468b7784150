//! One HTTP/1.1 connection to the broker, opened when it is needed and again when the broker closed it.

use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A reload waits for what it changes; nothing else comes near this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A batch is answered with an offset for each of its events, in one header.
const HEAD_BYTES_MAX: usize = 16 << 20;

/// Where a broker listens: `http://HOST:PORT/PATH`, the scheme may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    path: String,
}

impl Endpoint {
    /// Reads an address; the port is 80 when there is none, as in any URL.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::failed(format!("`{text}` is no address of a broker: {why}"));
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = with_scheme.parse().map_err(|_| wrong("expected http://HOST:PORT"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("only http is spoken here"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it has no host"))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err(wrong("a broker asks for no user and password"));
        }
        if authority != host && uri.port_u16().is_none_or(|port| port == 0) {
            return Err(wrong("the port is a number from 1 to 65535"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self { host: host.to_owned(), port: uri.port_u16().unwrap_or(80), path: path.to_owned() })
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub async fn connect(&self) -> Result<TcpStream, Error> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let unreachable = format!("cannot reach the broker at {}", self.address());
        let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect((host, self.port))).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Error::failed_because(unreachable, error)),
            Err(elapsed) => return Err(Error::failed_because(unreachable, elapsed)),
        };
        // Without this the last packet of a request may wait for the acknowledgement of the one before it.
        stream.set_nodelay(true).map_err(|error| Error::failed_because(unreachable, error))?;
        Ok(stream)
    }
}

/// Requests to one endpoint, one at a time.
#[derive(Debug)]
pub struct Connection {
    endpoint: Endpoint,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, sender: None }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends the request and reads the whole answer. The target is a path; the `Host` header is added.
    ///
    /// A request is sent again only when nothing of it was sent: the broker had closed an idle connection.
    pub async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Error> {
        let lost = format!("the connection to the broker at {} broke", self.endpoint.address());
        let host = HeaderValue::try_from(self.endpoint.address())
            .map_err(|error| Error::failed_because("cannot name the host", error))?;
        request.headers_mut().insert(HOST, host);
        loop {
            let (mut sender, reused) = match self.sender.take() {
                Some(sender) if !sender.is_closed() => (sender, true),
                Some(_) | None => (self.open().await?, false),
            };
            match timeout(ANSWER_TIMEOUT, exchange(&mut sender, request)).await {
                Ok(Ok(response)) => {
                    self.sender = Some(sender);
                    return Ok(response);
                }
                Ok(Err(Exchange::NotSent(unsent, _))) if reused => request = *unsent,
                Ok(Err(Exchange::NotSent(_, error))) => return Err(Error::failed_because(lost, error)),
                Ok(Err(Exchange::Broken(error))) => return Err(Error::failed_because(lost, error)),
                Err(elapsed) => return Err(Error::failed_because(lost, elapsed)),
            }
        }
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let stream = self.endpoint.connect().await?;
        let mut client = http1::Builder::new();
        let handshake = client.max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|error| {
            Error::failed_because(format!("cannot speak to the broker at {}", self.endpoint.address()), error)
        })?;
        // Its errors reach the sender as well.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

enum Exchange {
    NotSent(Box<Request<Full<Bytes>>>, hyper::Error),
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, Exchange> {
    if let Err(error) = sender.ready().await {
        return Err(Exchange::NotSent(Box::new(request), error));
    }
    let response = match sender.try_send_request(request).await {
        Ok(response) => response,
        Err(mut refused) => {
            return Err(match refused.take_message() {
                Some(unsent) => Exchange::NotSent(Box::new(unsent), refused.into_error()),
                None => Exchange::Broken(refused.into_error().into()),
            });
        }
    };
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(Exchange::Broken)?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}

/// Percent-encodes everything but RFC 3986's unreserved characters, for one segment of a path or one query value.
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, percent_encoded};

    fn check(text: &str, expected: &str) {
        let found = match Endpoint::parse(text) {
            Ok(endpoint) => format!("{} {}", endpoint.address(), endpoint.path()),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn an_address_needs_no_scheme() {
        check("http://127.0.0.1:8081", "127.0.0.1:8081 /");
        check("127.0.0.1:8081", "127.0.0.1:8081 /");
        check("http://[::1]:8081/x?y=1", "[::1]:8081 /x?y=1");
        check("broker/events", "broker:80 /events");
        check("https://broker", "`https://broker` is no address of a broker: only http is spoken here");
        let wrong = |address: &str, why: &str| format!("`{address}` is no address of a broker: {why}");
        for port in ["99999", "0", "-1", "21x81", ""] {
            let address = format!("http://broker:{port}");
            check(&address, &wrong(&address, "the port is a number from 1 to 65535"));
        }
        let address = "http://user:password@broker:1";
        check(address, &wrong(address, "a broker asks for no user and password"));
        check("http:// b", "`http:// b` is no address of a broker: expected http://HOST:PORT");
    }

    #[test]
    fn names_cannot_break_out_of_a_path() {
        assert_eq!(percent_encoded("a/b?c=d&é"), "a%2Fb%3Fc%3Dd%26%C3%A9");
    }
}
