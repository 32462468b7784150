//! Names of hosts to addresses, as the machine resolves them.
//!
//! Its resolver blocks, for half a minute where no name server answers, and nothing interrupts it: an attempt that timed
//! out leaves its look-up behind. So look-ups have threads of their own and never those that read the log, and a sink
//! has one look-up at a time: whoever needs the addresses meanwhile waits for the same answer.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

type LookUp = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;
type Found = Result<Arc<[SocketAddr]>, Arc<io::Error>>;

/// Finds the addresses of one host, anew for each connection: how long they hold is known to the machine's resolver only.
pub struct Resolver {
    host: Arc<str>,
    port: u16,
    look_up: Arc<LookUp>,
    /// The latest look-up; `None` in it until it is answered.
    latest: Mutex<Option<watch::Receiver<Option<Found>>>>,
}

impl Resolver {
    pub fn new(host: &str, port: u16) -> Self {
        Self::with(host, port, |host, port| (host, port).to_socket_addrs().map(Iterator::collect))
    }

    fn with(
        host: &str,
        port: u16,
        look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self { host: host.into(), port, look_up: Arc::new(look_up), latest: Mutex::default() }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub async fn resolve(&self) -> Found {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(Arc::new([SocketAddr::new(address, self.port)]));
        }
        let mut look_up = self.begin_or_join()?;
        let found = look_up.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        found.unwrap_or_else(|| Err(Arc::new(io::Error::other("the look-up was interrupted"))))
    }

    fn begin_or_join(&self) -> Result<watch::Receiver<Option<Found>>, io::Error> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look_up) = latest.as_ref().filter(|look_up| is_under_way(look_up)) {
            return Ok(look_up.clone());
        }
        let (answer, look_up) = watch::channel(None);
        let (host, port, blocking) = (Arc::clone(&self.host), self.port, Arc::clone(&self.look_up));
        std::thread::Builder::new().name("resolve".into()).spawn(move || {
            answer.send_replace(Some(blocking(&host, port).map(Arc::from).map_err(Arc::new)));
        })?;
        *latest = Some(look_up.clone());
        Ok(look_up)
    }
}

fn is_under_way(look_up: &watch::Receiver<Option<Found>>) -> bool {
    look_up.borrow().is_none() && look_up.has_changed().is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);

    /// Longer than anything here takes on a busy machine; nothing waits for it unless it fails.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Look-ups that hang until they are let go, and how many have begun.
    fn hanging() -> (Resolver, Arc<AtomicUsize>, mpsc::SyncSender<()>) {
        let (let_go, go) = mpsc::sync_channel(8);
        let (begun, go) = (Arc::new(AtomicUsize::new(0)), Mutex::new(go));
        let counted = Arc::clone(&begun);
        let resolver = Resolver::with("sink.example", 80, move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            go.lock().unwrap().recv().map_err(io::Error::other)?;
            Ok(vec![ADDRESS])
        });
        (resolver, begun, let_go)
    }

    #[test]
    fn a_look_up_that_hangs_is_the_only_one_and_holds_up_nothing_else() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let (resolver, begun, let_go) = hanging();
            for _ in 0..32 {
                timeout(Duration::ZERO, resolver.resolve()).await.unwrap_err();
            }
            #[expect(clippy::disallowed_methods, reason = "stands for a read of the log")]
            let read = tokio::task::spawn_blocking(|| "read");
            assert_eq!(read.await.unwrap(), "read");
            let mut joined = std::pin::pin!(resolver.resolve());
            timeout(Duration::ZERO, joined.as_mut()).await.unwrap_err();
            let_go.send(()).unwrap();
            let found = timeout(PATIENCE, joined).await.expect("an answer");
            assert_eq!(*found.unwrap(), [ADDRESS]);
            assert_eq!(begun.load(Ordering::SeqCst), 1);
        });
    }

    #[tokio::test]
    async fn an_answer_is_for_those_who_waited_for_it() {
        let (resolver, begun, let_go) = hanging();
        let_go.send(()).unwrap();
        resolver.resolve().await.unwrap();
        drop(let_go);
        assert!(resolver.resolve().await.is_err());
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_look_up_that_ends_without_an_answer_is_made_again() {
        let is_second = std::sync::atomic::AtomicBool::new(false);
        let resolver = Resolver::with("sink.example", 80, move |_, _| {
            assert!(is_second.swap(true, Ordering::SeqCst), "the first one comes to nothing");
            Ok(vec![ADDRESS])
        });
        assert!(resolver.resolve().await.is_err());
        assert_eq!(*resolver.resolve().await.unwrap(), [ADDRESS]);
    }

    #[tokio::test]
    async fn an_address_is_not_looked_up() {
        let resolver = Resolver::with("::1", 80, |_, _| unreachable!("it is an address"));
        assert_eq!(resolver.resolve().await.unwrap()[0].to_string(), "[::1]:80");
    }
}
