//! Connections to sinks: resolved, checked, and secured.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sluice_config as config;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::resolve::Resolver;
use super::trust::Trust;

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
    pub fn new(host: &str, port: u16, sink: &config::HttpSink, is_https: bool) -> Result<Self, OpenError> {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match is_https {
            false => None,
            true => {
                let name =
                    ServerName::try_from(host.clone()).map_err(|_| OpenError::Url(sink.url.clone()))?;
                Some((TlsConnector::from(Arc::new(tls_config(&sink.tls)?)), name))
            }
        };
        Ok(Self { resolver: Resolver::new(&host, port), tls, allow_link_local: sink.allow_link_local })
    }

    /// Resolves the host and connects to the first address that answers; forbidden ones are never tried.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        let host = || self.resolver.host().to_owned();
        let resolve = |source| ConnectError::Resolve { host: host(), source };
        let addresses = self.resolver.resolve().await.map_err(resolve)?;
        let mut failed = ConnectError::NoAddress { host: host() };
        for &address in &*addresses {
            if !self.allow_link_local && config::is_link_local(address.ip()) {
                failed = ConnectError::Forbidden { host: host(), address: address.ip() };
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return self.secure(stream).await,
                Err(source) => failed = ConnectError::Refused { address, source },
            }
        }
        Err(failed)
    }

    async fn secure(&self, stream: TcpStream) -> Result<Connection, ConnectError> {
        stream.set_nodelay(true).map_err(ConnectError::Tls)?;
        let stream = match &self.tls {
            None => Stream::Plain(stream),
            Some((connector, name)) => Stream::Tls(Box::new(
                connector.connect(name.clone(), stream).await.map_err(ConnectError::Tls)?,
            )),
        };
        Ok(Connection { stream, received: Arc::new(AtomicU64::new(0)) })
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

/// A stream that knows how much came in, so that a connection the other side had closed can be told from an answer
/// that was cut off.
pub struct Connection {
    stream: Stream,
    pub received: Arc<AtomicU64>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        self.received.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(&self.stream, Stream::Plain(stream) if stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
