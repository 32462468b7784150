//! A wire between a client and a server that can be cut, or go silent with both ends still open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Flows,
    /// Every connection is closed, and new ones are, too.
    Cut,
    /// Nothing passes, and nobody is told.
    Silent,
}

pub struct Proxy {
    pub address: SocketAddr,
    wire: watch::Sender<Wire>,
    connections: Arc<AtomicUsize>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    pub async fn start(listen: &str, server: &str) -> Self {
        let listener = TcpListener::bind(listen).await.expect("the port is free");
        let address = listener.local_addr().expect("bound");
        let (wire, state) = watch::channel(Wire::Flows);
        let server = server.to_owned();
        let connections = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (state, server) = (state.clone(), server.clone());
                tokio::spawn(async move {
                    let Ok(upstream) = TcpStream::connect(&server).await else { return };
                    let (client_in, client_out) = client.into_split();
                    let (server_in, server_out) = upstream.into_split();
                    tokio::join!(
                        pass(client_in, server_out, state.clone()),
                        pass(server_in, client_out, state)
                    );
                });
            }
        });
        Self { address, wire, connections, accepting }
    }

    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }

    /// How often somebody connected so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// A connection that was silent once stays so: what was swallowed is missing.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut wire: watch::Receiver<Wire>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let now = *wire.borrow_and_update();
        match now {
            Wire::Cut => return,
            Wire::Silent => {
                drop(wire.wait_for(|wire| *wire == Wire::Cut).await);
                return;
            }
            Wire::Flows => {}
        }
        tokio::select! {
            changed = wire.changed() => if changed.is_err() { return },
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => if to.write_all(&buffer[..count]).await.is_err() { return },
            },
        }
    }
}
