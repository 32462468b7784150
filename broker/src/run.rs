//! `sluice run`: puts the parts together, and takes them apart again in the order of the flow.

mod configuration;
mod greeting;
pub mod log;
mod reload;
mod upkeep;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use sluice_adapters::Publisher;
use sluice_adapters::hook::Hooks;
use sluice_config::{Config, Loaded};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{Level, error, info, warn};

use crate::admin::{self, Admin, Reload};
use crate::cli::{Error, LogFormat};
use crate::dispatch::{self, Dispatch};
use crate::edge::{Edge, EdgeLimits, Stopped};
use crate::ingress::{self, Gate, GateState, Ingress};
use crate::intake::Intake;
use crate::sources::{self, Sources};
use crate::store::{self, RealDisk, clock};

use self::configuration::{hosts, options, shown, sink_error};
use self::greeting::greet;

pub use self::configuration::{check, load};

/// Threads that read from the disk what is not in memory any more.
const BLOCKING_THREADS: usize = 16;
/// How long a start waits for sources to be up or down before it says how many are not up.
const SETTLE_DEADLINE: Duration = Duration::from_millis(500);
const RELOADS_WAITING: usize = 8;

/// Runs the broker until a signal or a failing disk ends it.
pub fn run(paths: Vec<PathBuf>, log: LogFormat) -> Result<(), Error> {
    log::start(log);
    // A huge page stays resident for a few bytes that are in use: with them a busy broker holds half as much again.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "memory comes in huge pages");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().max_blocking_threads(BLOCKING_THREADS).build();
    let runtime = runtime.map_err(|cause| Error::failed_because("cannot start", cause))?;
    let ended = runtime.block_on(async {
        let signals =
            Signals::new().map_err(|cause| Error::failed_because("cannot listen for signals", cause))?;
        let loaded = load(&paths)?;
        serve(paths, loaded, signals).await
    });
    // Reads of the log that nobody waits for any more must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

/// The parts of a running broker that a reload touches.
struct Running {
    paths: Vec<PathBuf>,
    config: Config,
    shown: Arc<Mutex<Value>>,
    dispatch: Dispatch,
    sources: Sources,
    reload_success: Arc<AtomicBool>,
    gate: Gate,
}

/// The listeners at work.
struct Listening {
    /// Of publishers, and of operators.
    addresses: (SocketAddr, SocketAddr),
    public: JoinHandle<Stopped>,
    operators: JoinHandle<Stopped>,
    /// Told `true`, a listener ends.
    stop_public: watch::Sender<bool>,
    stop_operators: watch::Sender<bool>,
    reload_requests: mpsc::Receiver<Reload>,
}

async fn serve(paths: Vec<PathBuf>, loaded: Loaded, mut signals: Signals) -> Result<(), Error> {
    let config = loaded.config;
    let prepared = dispatch::prepare(&config.triggers).map_err(|error| sink_error(&error))?;
    let prepared_sources =
        sources::prepare(&config.sources).map_err(|error| Error::Configuration(error.to_string()))?;
    let public = Edge::bind(config.http.listen).await.map_err(|cause| bind_error(&cause))?;
    let operators = Edge::bind(config.admin.listen).await.map_err(|cause| bind_error(&cause))?;
    let options = options(&config);
    let opened = tokio::select! {
        opened = open_store(options) => opened?,
        // What was being recovered is recovered again at the next start.
        () = stop_signal(&mut signals.terminate, &mut signals.interrupt) => {
            info!("stopped before the store was open");
            return Ok(());
        }
    };
    report_recovery(&opened.recovery);
    let dispatch = Dispatch::new(opened.log.clone(), opened.state, config.limits, config.store.outstanding);
    dispatch
        .adopt(prepared)
        .await
        .map_err(|refusal| Error::failed_because("cannot write the trigger set", refusal))?;
    let mut tasks = begin_work(&dispatch, opened.tail, &config);

    let hooks = Hooks::default();
    let sources = Sources::new(dispatch.clone(), hooks.clone(), config.limits.put_aside_bytes);
    let mut running = Running {
        paths,
        shown: Arc::new(Mutex::new(shown(&config, &loaded.hash))),
        config,
        dispatch,
        sources,
        reload_success: Arc::new(AtomicBool::new(true)),
        gate: Gate::default(),
    };
    let mut listening = running.listen(public, operators, hooks);
    running.sources.adopt(prepared_sources).await;
    running.gate.set(GateState::Ready);
    running.dispatch.log().index().start();
    tasks.spawn(upkeep::watch_room(running.dispatch.clone(), running.gate.clone()));
    running.sources.settled(SETTLE_DEADLINE).await;
    let not_up = running.sources.not_up().len();
    let grace = running.config.store.removed_grace;
    for (trigger, pending) in running.frozen().into_iter().filter(|(_, pending)| *pending > 0) {
        warn!(%trigger, pending, "a trigger is not in the configuration any more: what is pending there becomes dead letters {grace:?} after it was removed");
    }
    greet(&running.config, listening.addresses, loaded.files.len(), not_up);

    let mut ended = opened.ended;
    let reloads = &mut listening.reload_requests;
    if let Some(error) = running.until_stopped(&mut signals, reloads, &mut ended, &mut tasks).await {
        running.gate.set(GateState::Failed(error.to_string()));
        return Err(error);
    }
    running.stop(&mut signals, listening, ended).await
}

#[expect(clippy::disallowed_methods, reason = "there is nothing else to do yet but to heed signals")]
async fn open_store(options: store::Options) -> Result<store::Opened, Error> {
    let opening = tokio::task::spawn_blocking(move || store::open(Arc::new(RealDisk), &options));
    let opened = opening.await.map_err(|panic| Error::failed_because("cannot open the store", panic))?;
    opened.map_err(|error| Error::failed_because("cannot open the store", error))
}

/// The tasks that the broker cannot do without.
fn begin_work(
    dispatch: &Dispatch,
    tail: mpsc::Receiver<Vec<Arc<store::Record>>>,
    config: &Config,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(dispatch.clone().route(tail));
    tasks.spawn(dispatch.clone().tick());
    tasks.spawn(dispatch.clone().tell());
    tasks.spawn(upkeep::keep_promises(dispatch.clone(), config.store.removed_grace));
    if let Some(age) = config.dead_letters_age {
        tasks.spawn(upkeep::expire_dead_letters(dispatch.clone(), age));
    }
    tasks
}

fn bind_error(error: &crate::edge::BindError) -> Error {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Error::failed(format!("{error}{cause}"))
}

fn report_recovery(recovery: &store::Recovery) {
    if recovery.torn_bytes > 0 {
        warn!(
            bytes = recovery.torn_bytes,
            "the last crash tore the end of the log; the torn bytes are in set-aside"
        );
    }
    if recovery.gaps > 0 {
        error!(
            gaps = recovery.gaps,
            "the log was damaged; the lost offsets are recorded as gaps (store.on_damage: skip)"
        );
    }
    if recovery.took > Duration::from_secs(1) {
        info!(duration_ms = recovery.took.as_millis() as u64, frames = recovery.frames, "recovered the log");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

async fn stop_signal(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

impl Running {
    fn listen(&self, public: Edge, operators: Edge, hooks: Hooks) -> Listening {
        let config = &self.config;
        let counters = Arc::new(ingress::Counters::default());
        let (reloads, reload_requests) = mpsc::channel(RELOADS_WAITING);
        let (stop_public, public_stopped) = watch::channel(false);
        let (stop_operators, operators_stopped) = watch::channel(false);
        let limits = EdgeLimits {
            connections: config.limits.connections,
            drain_deadline: config.shutdown_timeout,
            ..EdgeLimits::default()
        };
        let ingress = ingress::router(Ingress {
            publisher: Publisher::new("http", Arc::new(Intake::new(self.dispatch.clone()))),
            hooks,
            limits: config.limits,
            webhook_origins: config.http.webhook_origins.clone(),
            gate: self.gate.clone(),
            metrics: Arc::clone(&counters),
        });
        let admin = admin::router(Admin {
            dispatch: self.dispatch.clone(),
            gate: self.gate.clone(),
            counters,
            refused_heads: public.refused(),
            config: Arc::clone(&self.shown),
            reloads,
            reload_success: Arc::clone(&self.reload_success),
            hosts: Arc::new(hosts(config, operators.local_addr())),
            started_at_ms: clock::wall_ms(),
            sources: self.sources.clone(),
        });
        Listening {
            addresses: (public.local_addr(), operators.local_addr()),
            public: tokio::spawn(public.serve(ingress, limits, public_stopped)),
            operators: tokio::spawn(operators.serve(admin, limits, operators_stopped)),
            stop_public,
            stop_operators,
            reload_requests,
        }
    }

    /// Stops in the order of the flow.
    async fn stop(
        &self,
        signals: &mut Signals,
        listening: Listening,
        ended: oneshot::Receiver<std::io::Result<()>>,
    ) -> Result<(), Error> {
        let timeout = self.config.shutdown_timeout;
        self.gate.set(GateState::Draining);
        info!("stopping: no further events are taken, deliveries under way have {timeout:?}");
        let drained = async {
            self.sources.stop(timeout).await;
            listening.stop_public.send_replace(true);
            let (left, _) = tokio::join!(self.dispatch.drain(timeout), listening.public);
            left
        };
        let left = tokio::select! {
            left = drained => left,
            () = stop_signal(&mut signals.terminate, &mut signals.interrupt) => {
                warn!("told to stop again: not waiting any longer");
                listening.stop_public.send_replace(true);
                self.dispatch.drain(Duration::ZERO).await
            }
        };
        if left > 0 {
            warn!(left, "deliveries did not end in time and will be made again at the next start");
        }
        listening.stop_operators.send_replace(true);
        drop(listening.operators.await);
        self.dispatch.log().stop();
        match ended.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::StoreWrite(format!("the store could not be closed: {error}"))),
            Err(_) => Err(Error::StoreWrite("the store's writer ended in a panic".into())),
        }
    }

    /// Serves reloads until a signal (`None`) or the end of the writer.
    async fn until_stopped(
        &mut self,
        signals: &mut Signals,
        reloads: &mut mpsc::Receiver<Reload>,
        ended: &mut oneshot::Receiver<std::io::Result<()>>,
        tasks: &mut JoinSet<()>,
    ) -> Option<Error> {
        loop {
            tokio::select! {
                () = stop_signal(&mut signals.terminate, &mut signals.interrupt) => return None,
                _ = signals.hangup.recv() => {
                    if let Err(errors) = self.reload().await {
                        log::say(Level::ERROR, &errors);
                    }
                }
                Some(Reload { answer }) = reloads.recv() => {
                    // Whoever asked may have gone away; the reload holds all the same.
                    drop(answer.send(self.reload().await));
                }
                result = &mut *ended => return Some(match result {
                    Ok(Err(error)) => Error::StoreWrite(format!("the store cannot be written any more: {error}")),
                    Ok(Ok(())) | Err(_) => Error::StoreWrite("the store's writer ended unexpectedly".into()),
                }),
                // Without routing or retries the broker would take events and say nothing.
                Some(Err(panic)) = tasks.join_next() => {
                    return Some(Error::failed_because("a task that the broker cannot do without ended", panic));
                }
            }
        }
    }
}
