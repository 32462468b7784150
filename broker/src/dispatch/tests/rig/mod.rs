//! A broker without threads of its own and without time: the clock moves when nobody has anything left to do, and
//! whatever waits for the disk is written before it does.

mod sinks;
mod timeline;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluice_adapters::Entry;
use sluice_config::{Config, Limits};
use sluice_schemas::{DataForm, Event};
use tokio::task::JoinHandle;

use self::sinks::{Answers, script};
use self::timeline::Timeline;
use super::super::reload::prepare_with;
use super::super::{Dispatch, Prepared, pause};
use crate::intake;
use crate::sink::Sink;
use crate::sink::scripted::{Script, ScriptedSink};
use crate::store::tests::disk::SimDisk;
use crate::store::tests::rig::{self as store_rig, check_books};
use crate::store::{Append, Books, NewEvent, Offset, Options, Record, TriggerId, clock, open_stepwise};

/// Large enough that the reserve for outcomes is never the reason of a wait.
const SEGMENT_BYTES: u64 = 6 << 20;

/// Longer than anything takes on a busy machine.
const EVENTUALLY_MAX: Duration = Duration::from_secs(20);

/// Writes what waits for the disk, on a thread of its own, when it is asked to.
struct Pump {
    ask: SyncSender<u64>,
    done: Receiver<()>,
}

type Tail = tokio::sync::mpsc::Receiver<Vec<Arc<Record>>>;
type PumpSlot = Arc<Mutex<Option<Pump>>>;

/// What a dispatcher is made with.
#[derive(Clone, Copy)]
struct Memory {
    limits: Limits,
    outstanding: usize,
    jitter: fn() -> f64,
}

pub struct Rig {
    pub dispatch: Dispatch,
    pub disk: SimDisk,
    start_ms: u64,
    timeline: Timeline,
    script: Script,
    options: Options,
    memory: Memory,
    config: Config,
    pump: PumpSlot,
    tasks: Vec<JoinHandle<()>>,
}

/// How a broker is set up.
pub struct Setup<'t> {
    /// The `triggers:` of a configuration. A sink is `http://NAME`.
    pub triggers: &'t str,
    pub answers: Answers,
    /// The `limits:` of a configuration.
    pub limits: &'t str,
    /// Events that a former run stored and did not route.
    pub stored: &'t [&'t str],
    /// Deliveries held in memory, all triggers together.
    pub outstanding: usize,
    pub jitter: fn() -> f64,
}

/// Waits at their upper bound, which is what no jitter comes to.
pub fn no_jitter() -> f64 {
    1.0
}

impl<'t> Setup<'t> {
    pub fn new(
        triggers: &'t str,
        answers: impl Fn(&str, &str, usize) -> &'static str + Send + Sync + 'static,
    ) -> Self {
        let answers = Box::new(answers);
        Self { triggers, answers, limits: "", stored: &[], outstanding: 100_000, jitter: no_jitter }
    }

    /// Lets a story happen and returns its timeline. The books must balance at the end.
    pub fn play(self, story: impl AsyncFnOnce(&mut Rig)) -> String {
        let pump = PumpSlot::default();
        let parked = Arc::clone(&pump);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).on_thread_park(move || {
            if let Some(pump) = &*parked.lock().unwrap() {
                pump.ask.send(clock::steady_ms()).unwrap();
                pump.done.recv().expect("the disk takes what is written");
            }
        });
        runtime.build().unwrap().block_on(async {
            let mut rig = Rig::start(self, pump).await;
            story(&mut rig).await;
            rig.finish().await
        })
    }
}

/// Plays a story and compares its timeline.
pub fn check(
    triggers: &str,
    answers: impl Fn(&str, &str, usize) -> &'static str + Send + Sync + 'static,
    story: impl AsyncFnOnce(&mut Rig),
    expected: &expect_test::Expect,
) {
    expected.assert_eq(&Setup::new(triggers, answers).play(story));
}

impl Rig {
    async fn start(setup: Setup<'_>, pump: PumpSlot) -> Self {
        let outstanding = setup.outstanding;
        let options = Options { segment_bytes: SEGMENT_BYTES, outstanding, ..store_rig::options() };
        let timeline = Timeline::default();
        let script = script(setup.answers, &timeline);
        let mut disk = SimDisk::new();
        if !setup.stored.is_empty() {
            // The writer blocks, which a runtime's thread must not.
            let store = || {
                let (opened, mut writer) = open_stepwise(Arc::new(disk.clone()), &options).unwrap();
                let events = setup.stored.iter().map(|name| new_event(named(name))).collect();
                opened.log.submit(Append { events, records: Vec::new(), answer: None });
                writer.step(&mut |_| {}).unwrap();
            };
            std::thread::scope(|scope| scope.spawn(store).join().unwrap());
            disk = disk.kill();
        }
        let memory = Memory {
            limits: read("", setup.limits).limits,
            outstanding: setup.outstanding,
            jitter: setup.jitter,
        };
        let (tail, dispatch) = open(&disk, &options, memory, &timeline, &pump);
        // Times of deliveries are kept in hundredths of a second: from here on they are exact.
        let base_ms = dispatch.core().state.base_ms;
        let tens = clock::steady_ms().saturating_sub(base_ms) / 10 + 1;
        tokio::time::sleep(clock::until(base_ms + tens * 10)).await;
        let config = read(setup.triggers, "");
        let mut rig = Self {
            dispatch,
            disk,
            start_ms: clock::steady_ms(),
            timeline,
            script,
            options,
            memory,
            config,
            pump,
            tasks: Vec::new(),
        };
        rig.begin(tail).await;
        rig
    }

    async fn begin(&mut self, tail: Tail) {
        self.dispatch.adopt(self.prepared()).await.unwrap();
        self.tasks = vec![
            tokio::spawn(self.dispatch.clone().route(tail)),
            tokio::spawn(self.dispatch.clone().tick()),
            tokio::spawn(self.dispatch.clone().tell()),
        ];
    }

    fn prepared(&self) -> Prepared {
        self.prepare_config(&self.config)
    }

    pub fn prepare(&self, triggers: &str) -> Prepared {
        self.prepare_config(&read(triggers, ""))
    }

    fn prepare_config(&self, config: &Config) -> Prepared {
        let open = |sink: &sluice_config::Sink, _| {
            let sluice_config::Sink::Http(http) = sink else { panic!("a sink is http://NAME") };
            Ok(Sink::Scripted(ScriptedSink::new(&http.url, &self.script)))
        };
        prepare_with(&config.triggers, &open).unwrap_or_else(|_| panic!("sinks open"))
    }

    /// Puts other triggers in force.
    pub async fn reload(&mut self, triggers: &str) {
        self.config = read(triggers, "");
        self.dispatch.adopt(self.prepared()).await.unwrap();
    }

    /// As [`Self::kill_and_restart`], with another configuration.
    pub async fn kill_and_restart_with(&mut self, triggers: &str) {
        self.config = read(triggers, "");
        self.kill_and_restart().await;
    }

    /// Ends the process without a word, and starts another one. Nothing may be under way.
    pub async fn kill_and_restart(&mut self) {
        // Outcomes reach the disk within 50 ms.
        self.settle().await;
        self.tasks.drain(..).for_each(|task| task.abort());
        self.disk = self.disk.kill();
        let (tail, dispatch) = open(&self.disk, &self.options, self.memory, &self.timeline, &self.pump);
        self.dispatch = dispatch;
        self.begin(tail).await;
    }

    /// As [`Self::kill_and_restart`], as an operator does it who has accepted the loss of what is damaged.
    pub async fn kill_and_restart_without_the_damaged(&mut self) {
        self.options.skip_damage = true;
        self.kill_and_restart().await;
        self.options.skip_damage = false;
    }

    /// Publishes an event: its id and, behind a slash, its `partitionkey`.
    pub async fn publish(&self, name: &str) -> Offset {
        self.publish_event(named(name)).await
    }

    pub async fn publish_event(&self, event: Event) -> Offset {
        let stored = self.dispatch.log().append(vec![new_event(event)], Vec::new());
        Offset(stored.await.unwrap()[0].offset)
    }

    pub fn id_of(&self, name: &str) -> TriggerId {
        let core = self.dispatch.core();
        core.state.set.triggers.iter().find(|entry| entry.name == name).unwrap().id
    }

    pub async fn pause(&self, name: &str, reason: Option<&str>) {
        let id = self.id_of(name);
        let written = self.dispatch.core().record_durably(pause(id, reason));
        written.await.unwrap();
        self.dispatch.nudge(id);
    }

    /// Redrives all dead letters.
    pub async fn redrive(&self) {
        let all: Vec<_> = self.dispatch.core().state.dead.keys().copied().collect();
        self.dispatch.redrive(&all, None).await.unwrap();
    }

    /// Lets time pass until so long after the start.
    pub async fn at(&self, seconds: f64) {
        let until = self.start_ms + (seconds * 1e3) as u64;
        tokio::time::sleep(clock::until(until)).await;
    }

    /// Waits for something that happens while a read of the disk holds the clock.
    pub async fn eventually(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < EVENTUALLY_MAX, "{what}");
            #[expect(clippy::disallowed_methods, reason = "lets the other threads of the test work")]
            let others = tokio::task::spawn_blocking(std::thread::yield_now);
            others.await.unwrap();
        }
    }

    /// Flips a bit of the first record that has this text, which is the event's of that name, in each segment.
    pub fn damage(&self, text: &str) {
        let segments = self.disk.names().into_iter().filter(|path| path.extension() == Some("seg".as_ref()));
        let mut is_there = false;
        for path in segments {
            let mut content = self.disk.content(&path);
            let found =
                content.windows(text.len()).position(|part| part.eq_ignore_ascii_case(text.as_bytes()));
            if let Some(at) = found {
                content[at] ^= 0x20;
                self.disk.set_content(&path, content);
                is_there = true;
            }
        }
        assert!(is_there, "`{text}` is not in the log");
    }

    /// Undoes [`Self::damage`].
    pub fn repair(&self, text: &str) {
        self.damage(text);
    }

    pub fn last_error(&self, name: &str) -> Option<String> {
        let id = self.id_of(name);
        let core = self.dispatch.core();
        core.runtimes[&id].last_error.as_ref().map(|last| last.error.clone())
    }

    pub fn books(&self, name: &str) -> Books {
        let id = self.id_of(name);
        let core = self.dispatch.core();
        core.state.books(&core.state.triggers[&id])
    }

    /// Events before this are settled as far as a trigger goes.
    pub fn floor(&self, name: &str) -> Offset {
        let id = self.id_of(name);
        let core = self.dispatch.core();
        core.state.triggers[&id].floor(core.state.routed_to())
    }

    /// Lets everything happen that needs no time.
    pub async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    /// The timeline, after a look at the books.
    async fn finish(mut self) -> String {
        self.settle().await;
        check_books(&self.dispatch.core().state);
        let text = self.text();
        self.tasks.drain(..).for_each(|task| task.abort());
        // The writer's thread ends with it.
        self.pump.lock().unwrap().take();
        text
    }
}

fn named(name: &str) -> Event {
    let (id, key) = name.split_once('/').map_or((name, None), |(id, key)| (id, Some(key)));
    event(id, "com.example.tested", key)
}

pub fn new_event(event: Event) -> NewEvent {
    intake::new_event(Entry { event: Arc::new(event), trace: None }, &"http".into())
}

pub fn event(id: &str, ty: &str, key: Option<&str>) -> Event {
    let event = Event::builder()
        .attribute("specversion", "1.0")
        .attribute("id", id)
        .attribute("source", "/tests")
        .attribute("type", ty);
    let event = key.into_iter().fold(event, |event, key| event.attribute("partitionkey", key));
    event.data(id.to_owned(), DataForm::Opaque).build().unwrap()
}

fn read(triggers: &str, limits: &str) -> Config {
    let text = format!("limits: {{ {limits} }}\ntriggers: {{ {triggers} }}");
    let loaded = sluice_config::check_text("test.yaml", &text, &|_| None);
    loaded.unwrap_or_else(|errors| panic!("{errors}")).config
}

fn open(
    disk: &SimDisk,
    options: &Options,
    memory: Memory,
    timeline: &Timeline,
    pump: &PumpSlot,
) -> (Tail, Dispatch) {
    let (opened, mut writer) = open_stepwise(Arc::new(disk.clone()), options).unwrap();
    let (ask, asked) = sync_channel::<u64>(1);
    let (tell, done) = sync_channel(1);
    let timeline = timeline.clone();
    std::thread::spawn(move || {
        while let Ok(now_ms) = asked.recv() {
            writer.step(&mut |append| timeline.look(now_ms, append)).unwrap();
            if tell.send(()).is_err() {
                return;
            }
        }
    });
    *pump.lock().unwrap() = Some(Pump { ask, done });
    let Memory { limits, outstanding, jitter } = memory;
    let dispatch = Dispatch::with_jitter(opened.log, opened.state, limits, outstanding, jitter);
    (opened.tail, dispatch)
}
