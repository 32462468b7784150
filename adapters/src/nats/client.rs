//! How a client reaches its servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use sluice_config as config;
use sluice_schemas::http as binding;
use tokio::sync::watch;

use crate::explained_tls;

const CONNECT_MAX: Duration = Duration::from_secs(5);
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// What waits in the client for subjects of core NATS; what comes beyond it is lost. A request for messages of a consumer asks for
/// less.
const WAITING_MAX: usize = 4096;
const DROPPED_SAID: u64 = 10_000;
const PING: Duration = Duration::from_secs(5);

/// A connection that is not made again: the text becomes some when it is lost, and says why.
pub struct Connection {
    pub client: Client,
    pub lost: watch::Receiver<Option<String>>,
}

impl Connection {
    /// Returns when the connection is lost, with the reason.
    pub async fn is_lost(&mut self) -> String {
        let lost = self.lost.wait_for(Option::is_some).await;
        lost.ok().and_then(|why| why.clone()).unwrap_or_else(|| "the connection is lost".into())
    }
}

pub async fn connect(client: &config::NatsClient) -> Result<Connection, String> {
    let servers = servers(client)?;
    let (tell, lost) = watch::channel(None);
    let (dropped, servers_shown) = (Arc::new(AtomicU64::new(0)), shown(client));
    let mut options = ConnectOptions::new()
        .name("sluice")
        .connection_timeout(CONNECT_MAX)
        .request_timeout(Some(REQUEST_MAX))
        .subscription_capacity(WAITING_MAX)
        .ping_interval(PING)
        .max_reconnects(1)
        .event_callback(move |event| {
            let (tell, dropped, servers) = (tell.clone(), Arc::clone(&dropped), servers_shown.clone());
            async move {
                match event {
                    Event::Disconnected | Event::Closed => lose(&tell, "the connection is lost".into()),
                    Event::ServerError(error) => lose(&tell, error.to_string()),
                    Event::ClientError(error) => lose(&tell, error.to_string()),
                    // Only subjects of core NATS get there: nobody else leaves messages lying.
                    Event::SlowConsumer(_) => note_dropped(&dropped, &servers),
                    Event::Connected | Event::LameDuckMode | Event::Draining => {}
                }
            }
        });
    options = with_credentials(options, &servers);
    if let Some(tls) = &client.tls {
        options = options.require_tls(true);
        if let Some(ca) = &tls.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
    }
    if let Some(path) = &client.credentials {
        let read = options.credentials_file(path).await;
        options = read.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let client = options.connect(servers).await.map_err(|error| explained_tls(error.to_string()))?;
    Ok(Connection { client, lost })
}

/// The client takes no credentials from URLs: those of the first that has some go to every server. A name alone is a token.
fn with_credentials(options: ConnectOptions, servers: &[ServerAddr]) -> ConnectOptions {
    let decode =
        |text: &str| binding::decode_value(text.as_bytes()).unwrap_or_else(|_| text.into()).into_string();
    let found =
        servers.iter().find_map(|server| Some((decode(server.username()?), server.password().map(decode))));
    match found {
        Some((name, Some(password))) => options.user_and_password(name, password),
        Some((token, None)) => options.token(token),
        None => options,
    }
}

/// Each dropped message is an event: the first is worth a line, and then every so many.
fn note_dropped(dropped: &AtomicU64, servers: &str) {
    let count = dropped.fetch_add(1, Ordering::Relaxed) + 1;
    if count % DROPPED_SAID == 1 {
        tracing::warn!(
            servers,
            dropped = count,
            "messages of core NATS come faster than they are stored, and are lost"
        );
    }
}

/// The first reason stays: what follows it is its consequence.
fn lose(tell: &watch::Sender<Option<String>>, why: String) {
    tell.send_if_modified(|known| {
        let is_first = known.is_none();
        if is_first {
            *known = Some(why);
        }
        is_first
    });
}

fn servers(client: &config::NatsClient) -> Result<Vec<ServerAddr>, String> {
    let parse =
        |server: &config::Secret| server.expose().parse().map_err(|_| "a server's URL is not one".to_owned());
    client.servers.iter().map(parse).collect()
}

/// The servers for people: without what may be secret.
pub fn shown(client: &config::NatsClient) -> String {
    let shown = servers(client).unwrap_or_default();
    let shown: Vec<_> = shown.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect();
    shown.join(",")
}
