//! Connections to sinks: resolved, checked, and secured.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sluice_config as config;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::resolve::Resolver;
use super::trust::Trust;

/// How long an address has to answer before the next one is tried beside it.
const NEXT_ADDRESS_DELAY: Duration = Duration::from_millis(250);

/// Why a sink cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("`{0}` is no URL this broker can deliver to")]
    Url(String),
    #[error("cannot read {}", path.display())]
    File { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("{} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("`tls.cert` and `tls.key` go together")]
    HalfAnIdentity,
    #[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
    #[error(transparent)]
    Adapter(#[from] sluice_adapters::Unopened),
    #[error("this program was built without `{0}`")]
    BuiltWithout(&'static str),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot resolve {host}: {source}")]
    Resolve { host: String, source: Arc<io::Error> },
    #[error("{host} leads to {address}, a link-local or metadata address, which is not allowed")]
    Forbidden { host: String, address: IpAddr },
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error("cannot connect to {address}: {}", cause(.source))]
    Refused { address: SocketAddr, source: io::Error },
    #[error("tls: {}", cause_of_tls(.0))]
    Tls(io::Error),
}

fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        _ => error.to_string(),
    }
}

fn cause_of_tls(error: &io::Error) -> String {
    let said = error.to_string();
    let explained = sluice_adapters::explained_tls(said.clone());
    if explained == said { said } else { format!("{explained}, or `tls.ca` names this one") }
}

/// Where a sink is and how it is reached.
pub struct Target {
    resolver: Resolver,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    allow_link_local: bool,
}

impl Target {
    pub fn plain(host: &str, port: u16, sink: &config::HttpSink) -> Self {
        let resolver = Resolver::new(without_brackets(host), port);
        Self { resolver, tls: None, allow_link_local: sink.allow_link_local }
    }

    pub fn over_tls(host: &str, port: u16, sink: &config::HttpSink) -> Result<Self, OpenError> {
        let name = ServerName::try_from(without_brackets(host).to_owned());
        let name = name.map_err(|_| OpenError::Url(sink.url.clone()))?;
        let connector = TlsConnector::from(Arc::new(tls_config(&sink.tls)?));
        Ok(Self { tls: Some((connector, name)), ..Self::plain(host, port, sink) })
    }

    /// Resolves the host and connects to the first address that answers; forbidden ones are never tried.
    pub async fn connect(&self) -> Result<Stream, ConnectError> {
        let host = || self.resolver.host().to_owned();
        let resolve = |source| ConnectError::Resolve { host: host(), source };
        let addresses = self.resolver.resolve().await.map_err(resolve)?;
        let is_forbidden =
            |address: &SocketAddr| !self.allow_link_local && config::is_link_local(address.ip());
        let (forbidden, allowed): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(is_forbidden);
        if let ([], Some(first)) = (&*allowed, forbidden.first()) {
            return Err(ConnectError::Forbidden { host: host(), address: first.ip() });
        }
        match first_to_answer(allowed, TcpStream::connect).await {
            Some(Ok(stream)) => self.secure(stream).await,
            Some(Err((address, source))) => Err(ConnectError::Refused { address, source }),
            None => Err(ConnectError::NoAddress { host: host() }),
        }
    }

    async fn secure(&self, stream: TcpStream) -> Result<Stream, ConnectError> {
        stream.set_nodelay(true).map_err(ConnectError::Tls)?;
        let Some((connector, name)) = &self.tls else { return Ok(Stream::Plain(stream)) };
        let stream = connector.connect(name.clone(), stream).await.map_err(ConnectError::Tls)?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Connects to addresses in their order, to the next one when one has failed or has not answered for a while, so that one
/// which swallows everything does not hide the others (RFC 8305, section 5). `None` without an address, else the first
/// connection or the last failure.
async fn first_to_answer<S, C>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> C,
) -> Option<Result<S, (SocketAddr, io::Error)>>
where
    S: Send + 'static,
    C: Future<Output = io::Result<S>> + Send + 'static,
{
    let mut addresses = addresses.into_iter();
    let mut connecting = JoinSet::new();
    let mut failed = None;
    loop {
        if let Some(address) = addresses.next() {
            let connect = connect(address);
            connecting.spawn(async move { connect.await.map_err(|error| (address, error)) });
        }
        let ended = match addresses.len() {
            0 => connecting.join_next().await,
            _ => match timeout(NEXT_ADDRESS_DELAY, connecting.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            },
        };
        match ended {
            Some(Ok(Ok(stream))) => return Some(Ok(stream)),
            Some(Ok(Err(failure))) => failed = Some(Err(failure)),
            // A task of these neither panics nor is aborted before its set is dropped.
            Some(Err(_)) => {}
            None => return failed,
        }
    }
}

fn tls_config(tls: &config::Tls) -> Result<ClientConfig, OpenError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions()?;
    let builder = match &tls.ca {
        Some(ca) => {
            let trust = Trust::in_these(certificates(ca)?, provider)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(trust))
        }
        None => builder.with_root_certificates(of_the_machine()),
    };
    let mut config = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let read = |source| OpenError::File { path: key.clone(), source };
            builder.with_client_auth_cert(
                certificates(cert)?,
                PrivateKeyDer::from_pem_file(key).map_err(read)?,
            )?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(OpenError::HalfAnIdentity),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A machine without certificates fails at the first delivery, with that reason.
fn of_the_machine() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let read = |source| OpenError::File { path: path.to_path_buf(), source };
    let all: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(read)?.collect::<Result<_, _>>().map_err(read)?;
    if all.is_empty() { Err(OpenError::NoCertificate(path.to_path_buf())) } else { Ok(all) }
}

/// A connection to a sink.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self, Self::Plain(stream) if stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    /// Connects to addresses that do as told, on a stopped clock: which one answers, and which were tried when.
    async fn connect(doing: &'static [&'static str]) -> String {
        let started = Instant::now();
        let tried = Arc::new(Mutex::new(String::new()));
        let addresses = (0..doing.len()).map(|n| SocketAddr::from(([127, 0, 0, 1], n as u16))).collect();
        let found = first_to_answer(addresses, |address| {
            let n = usize::from(address.port());
            *tried.lock().unwrap() += &format!("{n} at {} ms, ", started.elapsed().as_millis());
            async move {
                match doing[n] {
                    "answers" => Ok(n),
                    "refuses" => Err(io::ErrorKind::ConnectionRefused.into()),
                    "answers late" => {
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        Ok(n)
                    }
                    _ => pending().await,
                }
            }
        });
        let found = timeout(Duration::from_secs(30), found).await;
        let found = found.map(|found| found.map(|found| found.map_err(|(address, _)| address.port())));
        format!("{}{found:?}", tried.lock().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_swallows_everything_does_not_hide_the_next() {
        for (doing, expected) in [
            (&["answers", "answers"][..], "0 at 0 ms, Ok(Some(Ok(0)))"),
            (&["refuses", "answers"], "0 at 0 ms, 1 at 0 ms, Ok(Some(Ok(1)))"),
            (&["swallows", "answers"], "0 at 0 ms, 1 at 250 ms, Ok(Some(Ok(1)))"),
            (&["swallows", "refuses", "answers"], "0 at 0 ms, 1 at 250 ms, 2 at 250 ms, Ok(Some(Ok(2)))"),
            (&["answers late", "swallows"], "0 at 0 ms, 1 at 250 ms, Ok(Some(Ok(0)))"),
            (&["refuses", "refuses"], "0 at 0 ms, 1 at 0 ms, Ok(Some(Err(1)))"),
            (&["refuses", "swallows"], "0 at 0 ms, 1 at 0 ms, Err(Elapsed(()))"),
            (&[], "Ok(None)"),
        ] {
            assert_eq!(connect(doing).await, expected, "{doing:?}");
        }
    }
}
