//! How a client reaches its server.

use std::time::Duration;

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::types::ShortString;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use sluice_config as config;

use crate::explained_tls;

const CONNECT_MAX: Duration = Duration::from_secs(10);

pub async fn connect(
    url: &config::Secret,
    heartbeat: Duration,
    tls: &config::Tls,
) -> Result<Connection, String> {
    let mut uri: AMQPUri = url.expose().parse().map_err(|_| "the URL is not one of AMQP".to_owned())?;
    uri.query.heartbeat = Some(u16::try_from(heartbeat.as_secs().max(1)).unwrap_or(u16::MAX));
    let properties = ConnectionProperties::default().with_connection_name("sluice".into());
    let tls = read(tls).await?;
    let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
    let connecting = Connection::connect_uri_with_config(uri, properties, tls, runtime);
    match tokio::time::timeout(CONNECT_MAX, connecting).await {
        Ok(connected) => connected.map_err(|error| explained_tls(error.to_string())),
        Err(_) => Err(format!("no answer within {CONNECT_MAX:?}")),
    }
}

async fn read(tls: &config::Tls) -> Result<OwnedTLSConfig, String> {
    let file = async |path: &std::path::Path| {
        tokio::fs::read(path).await.map_err(|error| format!("{}: {error}", path.display()))
    };
    let mut read = OwnedTLSConfig::default();
    if let Some(ca) = &tls.ca {
        let pem = file(ca).await?;
        read.cert_chain = Some(String::from_utf8(pem).map_err(|_| format!("{}: is not PEM", ca.display()))?);
    }
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        read.identity = Some(OwnedIdentity::PKCS8 { pem: file(cert).await?, key: file(key).await? });
    }
    Ok(read)
}

/// The server for people: without what may be secret.
pub fn shown(url: &config::Secret) -> String {
    match url.expose().parse::<AMQPUri>() {
        Ok(uri) => format!("{}:{}", uri.authority.host, uri.authority.port),
        Err(_) => "the server".into(),
    }
}

/// A name for the protocol, which has room for 255 bytes.
pub fn short(what: &str, text: &str) -> Result<ShortString, String> {
    ShortString::try_new(text).map_err(|_| format!("{what} `{text}` has more than 255 bytes"))
}
