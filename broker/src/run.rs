//! `sluice run`: puts the parts together, and takes them apart again in the order of the flow.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use sluice_adapters::Publisher;
use sluice_adapters::hook::Hooks;
use sluice_config::{self as config, Config, Loaded};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{Metadata, error, info, warn};
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::admin::{self, Admin, Reload};
use crate::cli::{Error, LogFormat};
use crate::delivery::Reason;
use crate::dispatch::{self, Dispatch};
use crate::edge::{Edge, EdgeLimits};
use crate::ingress::{self, Gate, GateState, Ingress};
use crate::intake::Intake;
use crate::sources::{self, Sources};
use crate::store::{self, LogRecord, Options, Purge, RealDisk, Upkeep, WindowSize, clock};

const GATE_INTERVAL: Duration = Duration::from_millis(50);
const FLOOR_INTERVAL: Duration = Duration::from_secs(1);
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);
const EXPIRED_AT_ONCE: usize = 5000;
const GRACE_INTERVAL: Duration = Duration::from_secs(5);
/// Threads that read from the disk what is not in memory any more.
const BLOCKING_THREADS: usize = 16;
/// How long a start waits for sources to be up or down before it says how many are not up.
const SETTLE_DEADLINE: Duration = Duration::from_millis(500);
/// Names of hooks in the line that says where they are.
const HOOKS_SHOWN: usize = 8;
const RELOADS_WAITING: usize = 8;
/// What a segment must have room for besides the largest batch.
const SEGMENT_OVERHEAD: u64 = 1 << 20;

/// Loads a configuration and prints what it warns of.
pub fn load(paths: &[PathBuf]) -> Result<Loaded, Error> {
    let env = |name: &str| std::env::var(name).ok();
    let loaded = config::load(paths, &env).map_err(|errors| Error::Configuration(errors.to_string()))?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    Ok(loaded)
}

/// `sluice check`.
pub fn check(paths: &[PathBuf]) -> Result<(), Error> {
    let loaded = load(paths)?;
    let now_ms = i64::try_from(clock::wall_ms()).unwrap_or(i64::MAX);
    for (_, warning) in loaded.warnings_later.iter().filter(|(from_ms, _)| *from_ms <= now_ms) {
        eprintln!("{warning}");
    }
    dispatch::prepare(&loaded.config.triggers).map_err(|error| sink_error(&error))?;
    sources::prepare(&loaded.config.sources).map_err(|error| Error::Configuration(error.to_string()))?;
    let (triggers, files) =
        (counted(loaded.config.triggers.len(), "trigger"), counted(loaded.files.len(), "file"));
    println!("ok: {triggers} in {files}, hash {}", loaded.hash);
    Ok(())
}

/// `1 file`, `2 files`.
fn counted(count: usize, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        _ => format!("{count} {thing}s"),
    }
}

fn sink_error(error: &dispatch::WrongSink) -> Error {
    let mut text = error.to_string();
    // The text has the error of the sink; what caused that comes behind it.
    let mut cause = std::error::Error::source(error).and_then(std::error::Error::source);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    Error::Configuration(text)
}

/// Runs the broker until a signal or a failing disk ends it.
pub fn run(paths: Vec<PathBuf>, log: LogFormat) -> Result<(), Error> {
    start_log(log);
    // A huge page stays resident for a few bytes that are in use: with them a busy broker holds half as much again.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "memory comes in huge pages");
    }
    let loaded = load(&paths)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().max_blocking_threads(BLOCKING_THREADS).build();
    let runtime = runtime.map_err(|cause| Error::failed_because("cannot start", cause))?;
    let ended = runtime.block_on(serve(paths, loaded));
    // Reads of the log that nobody waits for any more must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

fn start_log(format: LogFormat) {
    let wanted = std::env::var("SLUICE_LOG").unwrap_or_default();
    let wanted = if wanted.trim().is_empty() { "info" } else { wanted.as_str() };
    let filter = tracing_subscriber::EnvFilter::try_new(wanted).unwrap_or_else(|error| {
        eprintln!("warning: SLUICE_LOG is `{wanted}`, which is no filter such as `info` or `debug`: {error}");
        tracing_subscriber::EnvFilter::new("info")
    });
    // Clients of other systems log what they connect to at `debug`, passwords included.
    let is_safe = |metadata: &Metadata<'_>| {
        metadata.target().starts_with("sluice") || *metadata.level() <= tracing::Level::WARN
    };
    let filter = filter.and(filter_fn(is_safe).with_max_level_hint(tracing::Level::TRACE));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Json => tracing_subscriber::registry().with(layer.json().with_filter(filter)).try_init(),
        LogFormat::Text => {
            let layer = layer.with_target(false).with_ansi(is_terminal());
            tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()
        }
    };
    // A second call in one process keeps the first log.
    drop(started);
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none()
}

/// The parts of a running broker that a reload touches.
struct Running {
    paths: Vec<PathBuf>,
    config: Config,
    shown: Arc<Mutex<Value>>,
    dispatch: Dispatch,
    sources: Sources,
    reload_success: Arc<AtomicBool>,
}

async fn serve(paths: Vec<PathBuf>, loaded: Loaded) -> Result<(), Error> {
    let config = loaded.config;
    let prepared = dispatch::prepare(&config.triggers).map_err(|error| sink_error(&error))?;
    let prepared_sources =
        sources::prepare(&config.sources).map_err(|error| Error::Configuration(error.to_string()))?;
    let public = Edge::bind(config.http.listen).await.map_err(|cause| bind_error(&cause))?;
    let operators = Edge::bind(config.admin.listen).await.map_err(|cause| bind_error(&cause))?;
    let mut signals =
        Signals::new().map_err(|cause| Error::failed_because("cannot listen for signals", cause))?;

    let options = options(&config);
    let opened = tokio::task::block_in_place(|| store::open(Arc::new(RealDisk), &options));
    let opened = opened.map_err(|error| Error::failed_because("cannot open the store", error))?;
    report_recovery(&opened.recovery);
    let dispatch = Dispatch::new(opened.log.clone(), opened.state, config.limits, config.store.outstanding);
    dispatch
        .adopt(prepared)
        .await
        .map_err(|refusal| Error::failed_because("cannot write the trigger set", refusal))?;
    let mut tasks = JoinSet::new();
    tasks.spawn(dispatch.clone().route(opened.tail));
    tasks.spawn(dispatch.clone().tick());
    tasks.spawn(dispatch.clone().tell());
    tasks.spawn(keep_promises(dispatch.clone(), config.store.removed_grace));
    if let Some(age) = config.dead_letters_age {
        tasks.spawn(expire_dead_letters(dispatch.clone(), age));
    }

    let hooks = Hooks::default();
    let sources = Sources::new(dispatch.clone(), hooks.clone(), config.limits.put_aside_bytes);
    let gate = Gate::default();
    let counters = Arc::new(ingress::Counters::default());
    let shown = Arc::new(Mutex::new(shown(&config, &loaded.hash)));
    let reload_success = Arc::new(AtomicBool::new(true));
    let (reloads, reload_requests) = mpsc::channel(RELOADS_WAITING);
    let (stop_public, stopped) = watch::channel(false);
    let (stop_operators, operators_stopped) = watch::channel(false);
    let limits = EdgeLimits {
        connections: config.limits.connections,
        drain_deadline: config.shutdown_timeout,
        ..EdgeLimits::default()
    };
    let ingress = ingress::router(Ingress {
        publisher: Publisher::new("http", Arc::new(Intake::new(dispatch.clone()))),
        hooks: hooks.clone(),
        limits: config.limits,
        webhook_origins: config.http.webhook_origins.clone(),
        gate: gate.clone(),
        metrics: Arc::clone(&counters),
    });
    let admin = admin::router(Admin {
        dispatch: dispatch.clone(),
        gate: gate.clone(),
        counters,
        config: Arc::clone(&shown),
        reloads,
        reload_success: Arc::clone(&reload_success),
        hosts: Arc::new(hosts(&config, operators.local_addr())),
        started_at_ms: clock::wall_ms(),
        sources: sources.clone(),
    });
    let addresses = (public.local_addr(), operators.local_addr());
    let public = tokio::spawn(public.serve(ingress, limits, stopped));
    let operators = tokio::spawn(operators.serve(admin, limits, operators_stopped));
    sources.adopt(prepared_sources).await;
    gate.set(GateState::Ready);
    dispatch.log().index().start();
    tasks.spawn(watch_room(dispatch.clone(), gate.clone()));
    sources.settled(SETTLE_DEADLINE).await;
    greet(&config, addresses, loaded.files.len(), sources.not_up().len());

    let timeout = config.shutdown_timeout;
    let mut running = Running {
        paths,
        config,
        shown,
        dispatch: dispatch.clone(),
        sources: sources.clone(),
        reload_success,
    };
    let mut ended = opened.ended;
    let failure = running.until_stopped(&mut signals, reload_requests, &mut ended, &mut tasks).await;
    if let Some(error) = failure {
        gate.set(GateState::Failed(error.to_string()));
        return Err(error);
    }
    gate.set(GateState::Draining);
    info!("stopping: no further events are taken, deliveries under way have {timeout:?}");
    let drained = async {
        sources.stop(timeout).await;
        stop_public.send_replace(true);
        let (left, _) = tokio::join!(dispatch.drain(timeout), public);
        left
    };
    let left = tokio::select! {
        left = drained => left,
        () = stop_signal(&mut signals.terminate, &mut signals.interrupt) => {
            warn!("told to stop again: not waiting any longer");
            stop_public.send_replace(true);
            dispatch.drain(Duration::ZERO).await
        }
    };
    if left > 0 {
        warn!(left, "deliveries did not end in time and will be made again at the next start");
    }
    stop_operators.send_replace(true);
    drop(operators.await);
    dispatch.log().stop();
    match ended.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Error::StoreWrite(format!("the store could not be closed: {error}"))),
        Err(_) => Err(Error::StoreWrite("the store's writer ended in a panic".into())),
    }
}

fn bind_error(error: &crate::edge::BindError) -> Error {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Error::failed(format!("{error}{cause}"))
}

fn options(config: &Config) -> Options {
    let store = &config.store;
    Options {
        dir: std::path::absolute(&store.dir).unwrap_or_else(|_| store.dir.clone()),
        segment_bytes: store.segment_bytes.max(largest_append(config) * 2 + SEGMENT_OVERHEAD),
        retention_bytes: store.retention_bytes,
        retention_age_ms: store.retention_age.as_millis() as u64,
        stop_percent: store.watermark.stop_percent,
        resume_percent: store.watermark.resume_percent,
        free_bytes: store.watermark.free_bytes,
        outstanding: store.outstanding,
        skip_damage: store.on_damage == config::OnDamage::Skip,
        window: config.duplicates.map(|duplicates| WindowSize {
            window_ms: duplicates.window.as_millis() as u64,
            entries: duplicates.entries,
        }),
        upkeep: Upkeep::default(),
    }
}

/// What may be stored together at the most: a source may take larger events than `/events` takes batches.
fn largest_append(config: &Config) -> u64 {
    let limits = config.limits;
    let events = config.sources.values().map(|source| source.event_bytes);
    let aside = if config.sources.is_empty() { 0 } else { limits.put_aside_bytes };
    events.chain([limits.event_bytes, limits.batch_bytes, aside]).max().unwrap_or(0) as u64
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

/// Values of `Host` that name the operators' listener.
fn hosts(config: &Config, address: std::net::SocketAddr) -> Vec<String> {
    let mut hosts: Vec<String> = config.admin.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
    let port = format!(":{}", address.port());
    let own = address.to_string();
    // Whoever leaves the port out is no web page of somebody else's: its name would be another one.
    for name in [own.trim_end_matches(&port), "localhost", "127.0.0.1", "[::1]"] {
        hosts.extend([name.to_owned(), format!("{name}{port}")]);
    }
    hosts
}

fn shown(config: &Config, hash: &str) -> Value {
    let mut shown = config::to_json(config);
    if let Some(members) = shown.as_object_mut() {
        members.insert("hash".into(), Value::String(hash.to_owned()));
    }
    shown
}

fn greet(
    config: &Config,
    (public, operators): (std::net::SocketAddr, std::net::SocketAddr),
    files: usize,
    sources_not_up: usize,
) {
    let (triggers, files) = (counted(config.triggers.len(), "trigger"), counted(files, "file"));
    eprintln!("sluice {} takes events at http://{public}/events", env!("CARGO_PKG_VERSION"));
    eprintln!("health, metrics and the API: http://{operators}/readyz, /metrics, /api/v1/openapi.json");
    eprintln!("{triggers} from {files}; events are kept in {}", config.store.dir.display());
    eprintln!(
        "try: curl -i http://{public}/events -H 'ce-specversion: 1.0' -H 'ce-id: 1' -H 'ce-source: /me' \
         -H 'ce-type: com.example.hello' -H 'content-type: application/json' -d '{{\"hello\":\"world\"}}'"
    );
    if let Some(hooks) = hooks_shown(config) {
        eprintln!("deliveries of webhooks: http://{public}/hooks/ and then {hooks}");
    }
    eprintln!(
        "next: sluice triggers --admin http://{operators}; {} not up",
        counted(sources_not_up, "source")
    );
}

/// Nothing else says it to who configures the sender of a webhook.
fn hooks_shown(config: &Config) -> Option<String> {
    let is_hook = |kind: &config::SourceKind| {
        matches!(kind, config::SourceKind::Webhook(_) | config::SourceKind::Git(_))
    };
    let names = config.sources.iter().filter(|(_, source)| is_hook(&source.kind)).map(|(name, _)| &**name);
    let names: Vec<&str> = names.collect();
    match names.as_slice() {
        [] => None,
        few if few.len() <= HOOKS_SHOWN => Some(few.join(", ")),
        many => Some(format!("{} or {} more", many[..HOOKS_SHOWN].join(", "), many.len() - HOOKS_SHOWN)),
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
    /// Serves reloads until a signal (`None`) or the end of the writer.
    async fn until_stopped(
        &mut self,
        signals: &mut Signals,
        mut reloads: mpsc::Receiver<Reload>,
        ended: &mut oneshot::Receiver<std::io::Result<()>>,
        tasks: &mut JoinSet<()>,
    ) -> Option<Error> {
        loop {
            tokio::select! {
                () = stop_signal(&mut signals.terminate, &mut signals.interrupt) => return None,
                _ = signals.hangup.recv() => match self.reload().await {
                    Ok(changes) => info!(%changes, "reloaded the configuration"),
                    Err(errors) => eprintln!("{errors}"),
                },
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

    /// Reads the configuration again and puts it in force, or changes nothing and says why.
    async fn reload(&mut self) -> Result<Value, String> {
        let reloaded = self.try_reload().await;
        self.reload_success.store(reloaded.is_ok(), Ordering::Relaxed);
        if reloaded.is_err() {
            warn!("the configuration is wrong and was not reloaded; the old one keeps running");
        }
        reloaded
    }

    async fn try_reload(&mut self) -> Result<Value, String> {
        let env = |name: &str| std::env::var(name).ok();
        let loaded = config::load(&self.paths, &env).map_err(|errors| errors.to_string())?;
        let changes = config::changes(&self.config, &loaded.config);
        if !changes.refused.is_empty() {
            let keys = changes.refused.join("`, `");
            return Err(format!("`{keys}` cannot be changed while the broker runs; restart it"));
        }
        let prepared =
            dispatch::prepare(&loaded.config.triggers).map_err(|error| sink_error(&error).to_string())?;
        let sources = sources::prepare(&loaded.config.sources).map_err(|error| error.to_string())?;
        self.dispatch
            .adopt(prepared)
            .await
            .map_err(|refusal| format!("the trigger set was not written: {refusal}"))?;
        self.sources.adopt(sources).await;
        let mut config = loaded.config;
        let needs_restart = keep_what_needs_a_restart(&self.config, &mut config);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown(&config, &loaded.hash);
        self.config = config;
        let pending: Vec<Value> = changes.removed.iter().map(|name| self.frozen(name)).collect();
        Ok(json!({
            "hash": loaded.hash,
            "added": changes.added,
            "changed": changes.changed,
            "removed": changes.removed,
            "sources": {
                "added": changes.sources_added,
                "changed": changes.sources_changed,
                "removed": changes.sources_removed,
            },
            "frozen": pending,
            "needs_restart": needs_restart,
        }))
    }

    /// How much a removed trigger still owes.
    fn frozen(&self, name: &str) -> Value {
        let core = self.dispatch.core();
        let entry = core.state.set.triggers.iter().find(|entry| entry.name == name);
        let state = entry.and_then(|entry| core.state.triggers.get(&entry.id));
        let pending = state.map_or(0, |state| core.state.books(state).pending());
        json!({ "trigger": name, "pending": pending })
    }
}

/// Puts back what is read once, when the process starts, so that what is shown is what is in force; names what was
/// wanted otherwise.
fn keep_what_needs_a_restart(running: &Config, wanted: &mut Config) -> Vec<&'static str> {
    fn keep<T: Clone + PartialEq>(running: &T, wanted: &mut T) -> bool {
        let differs = running != wanted;
        wanted.clone_from(running);
        differs
    }
    let sections = [
        ("limits", keep(&running.limits, &mut wanted.limits)),
        ("duplicates", keep(&running.duplicates, &mut wanted.duplicates)),
        ("dead_letters", keep(&running.dead_letters_age, &mut wanted.dead_letters_age)),
        ("shutdown_timeout", keep(&running.shutdown_timeout, &mut wanted.shutdown_timeout)),
    ];
    sections.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

/// Closes the gate while the store is full and opens it again; tells the store what is still needed of it.
async fn watch_room(dispatch: Dispatch, gate: Gate) {
    let mut floor_told = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(GATE_INTERVAL).await;
        if floor_told.elapsed() >= FLOOR_INTERVAL {
            floor_told = tokio::time::Instant::now();
            let floor = dispatch.core().state.floor();
            dispatch.log().note_floor(floor);
        }
        gate.set(dispatch.log().full().map_or(GateState::Ready, GateState::Full));
    }
}

/// Moves the backlog of triggers that stay removed to the dead letters, and forgets those that owe nothing.
async fn keep_promises(dispatch: Dispatch, grace: Duration) {
    loop {
        tokio::time::sleep(GRACE_INTERVAL.min(grace.max(GATE_INTERVAL))).await;
        let now = clock::wall_ms();
        let expired: Vec<_> = {
            let core = dispatch.core();
            let is_expired = |at: Option<u64>| at.is_some_and(|at| at + grace.as_millis() as u64 <= now);
            let entries = core.state.set.triggers.iter().filter(|entry| is_expired(entry.removed_at_ms));
            entries.map(|entry| (entry.id, entry.name.clone())).collect()
        };
        for (id, name) in expired {
            match dispatch.discard(id, Reason::TriggerRemoved).await {
                Ok(0) => {}
                Ok(moved) => {
                    warn!(trigger = %name, moved, "moved the backlog of a removed trigger to the dead letters");
                }
                Err(refusal) => {
                    warn!(trigger = %name, %refusal, "cannot move the backlog of a removed trigger yet");
                }
            }
            let mut core = dispatch.core();
            let owes_nothing =
                core.state.triggers.get(&id).is_none_or(|state| core.state.books(state).pending() == 0);
            if core.is_removed(id) && owes_nothing && !core.state.dead.keys().any(|dead| dead.trigger == id) {
                core.frozen.remove(&id);
                core.record(LogRecord::Dropped(id));
            }
        }
    }
}

/// Purges dead letters that are older than the configuration keeps them.
async fn expire_dead_letters(dispatch: Dispatch, age: Duration) {
    loop {
        tokio::time::sleep(EXPIRY_INTERVAL.min(age.max(GATE_INTERVAL))).await;
        let now = clock::wall_ms();
        let record = {
            let mut core = dispatch.core();
            let is_expired = |at_ms: u64| at_ms + age.as_millis() as u64 <= now;
            let dead = core.state.dead.iter().filter(|(_, letter)| is_expired(letter.at_ms));
            let ids: Vec<_> = dead.map(|(id, _)| *id).take(EXPIRED_AT_ONCE).collect();
            if ids.is_empty() {
                continue;
            }
            let record = LogRecord::Purge(Purge { at_ms: now, ids });
            core.apply(&record);
            record
        };
        let LogRecord::Purge(Purge { ids, .. }) = &record else { continue };
        info!(count = ids.len(), "purged dead letters older than dead_letters.age");
        if let Err(refusal) = dispatch.log().append(Vec::new(), vec![record.clone()]).await {
            warn!(%refusal, "dead letters that were purged by age may be listed again after a restart");
        }
    }
}
