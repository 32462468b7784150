//! Whether a server is who it says, where `tls.ca` names whom to trust.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Trusts what one of these certificates has signed, as webpki does, and also a server that shows one of them itself.
///
/// A certificate of development is its own authority as a rule (`openssl req -x509` makes such), and webpki takes an authority for
/// no server. This gives nothing away: whoever has the key of an authority can sign a certificate for any name with it.
#[derive(Debug)]
pub struct Trust {
    named: Vec<CertificateDer<'static>>,
    webpki: Arc<WebPkiServerVerifier>,
}

impl Trust {
    pub fn in_these(
        named: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in &named {
            roots.add(certificate.clone())?;
        }
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let webpki = webpki.map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { named, webpki })
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // webpki has looked at the times before it says this, and not at the name yet. That the server has the key is verified
            // with its signature, as always.
            Err(error) if is_for_being_an_authority(&error) && self.named.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Whether a certificate was refused for nothing but that it is one of an authority.
fn is_for_being_an_authority(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) = error else { return false };
    matches!(cause.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
    use rustls::ServerConfig;
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use sluice_config as config;
    use tempfile::TempDir;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::delivery::Outcome;
    use crate::sink::{Attempt, Sink};

    /// What a server of NATS says before the handshake.
    const INFO: &str =
        "INFO {\"server_id\":\"s\",\"version\":\"2.11.0\",\"max_payload\":1024,\"tls_required\":true}\r\n";

    /// Of an authority, in force from 2000 to 2030.
    fn authority(name: &str) -> (CertificateParams, KeyPair) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2030, 1, 1));
        (params, KeyPair::generate().unwrap())
    }

    fn provider() -> Arc<CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    fn verified(
        named: &CertificateDer<'static>,
        shown: &CertificateDer<'_>,
        name: &str,
        year: u64,
    ) -> Result<(), String> {
        let trust = Trust::in_these(vec![named.clone()], provider()).unwrap();
        let name = ServerName::try_from(name).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_557_600 + 86_400));
        trust.verify_server_cert(shown, &[], &name, &[], now).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_certificate_of_an_authority_is_trusted_if_it_is_named_itself_and_in_all_else_as_any_other() {
        let (params, key) = authority("localhost");
        let own = params.self_signed(&key).unwrap().der().clone();
        let refused = |named, shown, name, year| verified(named, shown, name, year).unwrap_err();
        assert_eq!(verified(&own, &own, "localhost", 2020), Ok(()));
        assert!(refused(&own, &own, "example.com", 2020).contains("not valid for name"));
        assert!(refused(&own, &own, "localhost", 2040).contains("expired"));
        assert!(refused(&own, &own, "localhost", 1990).contains("not valid yet"));
        // Another of the same name, and even of the same key, is not it.
        let (other, its_key) = authority("localhost");
        let other = other.self_signed(&its_key).unwrap().der().clone();
        assert!(refused(&own, &other, "localhost", 2020).contains("CaUsedAsEndEntity"));
        let again = authority("localhost").0.self_signed(&key).unwrap().der().clone();
        assert_ne!(own, again);
        assert!(refused(&own, &again, "localhost", 2020).contains("CaUsedAsEndEntity"));
        // What it has signed is trusted, but not an authority below it.
        let issuer = Issuer::new(params, key);
        let server = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let server = server.signed_by(&its_key, &issuer).unwrap().der().clone();
        assert_eq!(verified(&own, &server, "localhost", 2020), Ok(()));
        assert!(refused(&other, &server, "localhost", 2020).contains("BadSignature"));
        let below = authority("localhost").0.signed_by(&its_key, &issuer).unwrap().der().clone();
        assert!(refused(&own, &below, "localhost", 2020).contains("CaUsedAsEndEntity"));
    }

    /// A server that shows the certificate of an authority, and does no more than the handshake. `greeting` comes before it.
    async fn server(greeting: &'static str) -> (u16, PathBuf, TempDir) {
        let (params, key) = authority("localhost");
        let shown = params.self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, shown.pem()).unwrap();
        let config =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = config.with_no_client_auth().with_single_cert(vec![shown.der().clone()], key).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((mut stream, _)) = listener.accept().await {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                stream.write_all(greeting.as_bytes()).await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                drop(stream.read(&mut [0; 4096]).await);
                drop(stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await);
            }
        });
        (port, ca, dir)
    }

    /// How a delivery to this sink ends.
    async fn delivered(sink: &str) -> Outcome {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sluice.yaml");
        std::fs::write(&file, format!("triggers: {{ t: {{ sink: {sink} }} }}")).unwrap();
        let loaded = config::load(&[file], &|_| None).unwrap();
        let trigger = &loaded.config.triggers["t"];
        let sink = Sink::open(&trigger.sink, 1).unwrap();
        let event = sluice_schemas::Event::builder().attribute("specversion", "1.0").attribute("id", "1");
        let event = event.attribute("source", "/s").attribute("type", "t").build().unwrap();
        let attempt = Attempt {
            event: &event,
            trace: None,
            timeout: Duration::from_secs(30),
            config: &trigger.delivery,
            limits: &loaded.config.limits,
        };
        sink.deliver(attempt).await.outcome
    }

    #[tokio::test]
    async fn a_sink_whose_own_certificate_is_named_gets_its_events() {
        let (port, ca, _dir) = server("").await;
        let tls = format!("tls: {{ ca: {} }}", ca.display());
        let outcome =
            delivered(&format!("{{ http: {{ url: \"https://localhost:{port}/\", {tls} }} }}")).await;
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }

    #[tokio::test]
    async fn elsewhere_it_is_said_what_is_wrong_with_such_a_certificate_and_what_to_do() {
        let told = async |sink: String, more: &str| match delivered(&sink).await {
            Outcome::Retriable { cause, .. } => {
                for part in
                    ["an authority's own", "basicConstraints=critical,CA:FALSE", "subjectAltName", more]
                {
                    assert!(cause.error.contains(part), "{part}: {}", cause.error);
                }
            }
            outcome => panic!("{outcome:?}"),
        };
        let (port, ca, _dir) = server("").await;
        let (_, other, _other_dir) = server("").await;
        let https = format!("url: \"https://localhost:{port}/\", tls: {{ ca: {} }}", other.display());
        told(format!("{{ http: {{ {https} }} }}"), "or `tls.ca` names this one").await;
        if cfg!(feature = "amqp") {
            let amqps = format!("url: \"amqps://localhost:{port}\", tls: {{ ca: {} }}", ca.display());
            told(format!("{{ amqp: {{ {amqps}, exchange: e, routing_key: k }} }}"), "").await;
        }
        if cfg!(feature = "nats") {
            let (port, ca, _dir) = server(INFO).await;
            let nats = format!("servers: [\"nats://localhost:{port}\"], tls: {{ ca: {} }}", ca.display());
            told(format!("{{ nats: {{ {nats}, subject: s }} }}"), "").await;
        }
    }
}
