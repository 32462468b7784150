//! A broker without threads of its own and without time: the clock moves when nobody has anything left to do, and
//! whatever waits for the disk is written before it does.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sluice_adapters::Entry;
use sluice_config::{Config, Limits};
use sluice_schemas::{DataForm, Event};
use tokio::task::JoinHandle;

use super::super::reload::prepare_with;
use super::super::{Dispatch, Prepared};
use crate::delivery::Answered;
use crate::intake;
use crate::sink::Sink;
use crate::sink::scripted::{Play, Script, ScriptedSink};
use crate::store::tests::disk::SimDisk;
use crate::store::tests::rig::{self as store_rig, check_books};
use crate::store::{
    Append, Attempted, Books, DeliveryId, LogRecord, NewEvent, Next, Offset, Options, Record, Redrive,
    TriggerId, clock, open_stepwise,
};

/// Large enough that the reserve for outcomes is never the reason of a wait.
const SEGMENT_BYTES: u64 = 6 << 20;

/// Longer than anything takes on a busy machine.
const EVENTUALLY_MAX: Duration = Duration::from_secs(20);

/// What a sink answers: the sink's host, the event's id and the number of the request for it, from 1, to one of `200`,
/// `503 retry-after 9`, `200 after 5s`, `hang`, `200 reply ID TYPE` (`+1`: the number after the event's id).
pub type Answers = Box<dyn Fn(&str, &str, usize) -> &'static str + Send + Sync>;

/// Something that is to be on the timeline.
enum Line {
    Outcome(Attempted),
    Text(String),
    Named(TriggerId, String),
    Reply { id: String, parent: Offset, hops: u32 },
    Told(Offset),
}

#[derive(Clone, Default)]
pub struct Timeline(Arc<Mutex<Vec<(u64, Line)>>>);

impl Timeline {
    fn lines(&self) -> MutexGuard<'_, Vec<(u64, Line)>> {
        self.0.lock().unwrap()
    }

    fn add(&self, at_ms: u64, line: Line) {
        self.lines().push((at_ms, line));
    }

    /// Notes what is on its way to the disk.
    fn look(&self, now_ms: u64, append: &Append) {
        for event in &append.events {
            if let Some(parent) = event.parent {
                let id = event.event.id().to_owned();
                self.add(now_ms, Line::Reply { id, parent, hops: event.hops });
            }
        }
        for record in &append.records {
            match record {
                LogRecord::Outcomes(attempts) => {
                    attempts.iter().for_each(|made| self.add(made.at_ms, Line::Outcome(made.clone())));
                }
                LogRecord::Pause(pause) => {
                    let what = pause.reason.as_ref().map_or("goes on".into(), |why| format!("paused: {why}"));
                    self.add(now_ms, Line::Named(pause.trigger, what));
                }
                LogRecord::Told(ids) => ids.iter().for_each(|id| self.add(now_ms, Line::Told(id.offset))),
                _ => {}
            }
        }
    }
}

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
        let record = self.dispatch.core().pause(id, reason);
        self.dispatch.log().append(Vec::new(), vec![record]).await.unwrap();
        self.dispatch.nudge(id);
    }

    /// Redrives all dead letters.
    pub async fn redrive(&self) {
        let (record, moved) = {
            let mut core = self.dispatch.core();
            let from: Vec<_> = core.state.dead.keys().copied().collect();
            let next = core.state.redrives + 1;
            let to = |(n, id): (usize, &DeliveryId)| DeliveryId { redrive: next + n as u32, ..*id };
            let to: Vec<_> = from.iter().enumerate().map(to).collect();
            let moved = from.into_iter().zip(to.iter().copied()).collect();
            let record = LogRecord::Redrive(Redrive { at_ms: clock::wall_ms(), moved });
            core.apply(&record);
            (record, to)
        };
        self.dispatch.log().append(Vec::new(), vec![record]).await.unwrap();
        for id in moved {
            self.dispatch.core().runtimes.get_mut(&id.trigger).unwrap().redrive(id);
            self.dispatch.nudge(id.trigger);
        }
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

    pub fn books(&self, name: &str) -> Books {
        let id = self.id_of(name);
        let core = self.dispatch.core();
        core.state.books(&core.state.triggers[&id])
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

    pub fn text(&self) -> String {
        let mut lines: Vec<_> = self.timeline.lines().drain(..).collect();
        lines.sort_by_key(|(at, _)| *at);
        let mut text = String::new();
        for (at, line) in lines {
            let at = format!("+{}", seconds(at.saturating_sub(self.start_ms)));
            let _ = writeln!(text, "{at:<7} {}", self.describe(&line));
        }
        text
    }

    fn describe(&self, line: &Line) -> String {
        match line {
            Line::Text(text) => text.clone(),
            Line::Named(trigger, text) => format!("{} {text}", self.name_of(*trigger)),
            Line::Reply { id, parent, hops } => {
                format!("reply {id} to {}, {hops} from the first", self.event_id(*parent))
            }
            Line::Told(offset) => format!("told of {}", self.event_id(*offset)),
            Line::Outcome(made) => self.describe_outcome(made),
        }
    }

    fn describe_outcome(&self, made: &Attempted) -> String {
        let mut text = format!("{} {}", self.name_of(made.id.trigger), self.event_id(made.id.offset));
        if made.id.redrive > 0 {
            text += " (redriven)";
        }
        if made.attempt > 0 {
            let answer = match (made.status, &made.error) {
                (Some(status), _) => status.to_string(),
                (None, Some(error)) => error.to_string(),
                (None, None) => "no answer".into(),
            };
            let _ = write!(text, " try {} -> {answer}", made.attempt);
        }
        match made.next {
            Next::Delivered => {}
            Next::RetryAt { due_ms } => {
                let wait = due_ms - made.at_ms - u64::from(made.duration_ms);
                let _ = write!(text, ", again in {}", seconds(wait));
            }
            Next::Dead(reason) => {
                let _ = write!(text, ", dead letter: {}", reason.as_str());
            }
        }
        text
    }

    fn name_of(&self, trigger: TriggerId) -> String {
        let core = self.dispatch.core();
        let entry = core.state.set.triggers.iter().find(|entry| entry.id == trigger);
        entry.map_or_else(|| format!("{trigger:?}"), |entry| entry.name.clone())
    }

    fn event_id(&self, offset: Offset) -> String {
        let record = self.dispatch.log().reader().read(offset);
        record.map_or_else(|error| error.to_string(), |record| record.event.id().to_owned())
    }
}

fn named(name: &str) -> Event {
    let (id, key) = name.split_once('/').map_or((name, None), |(id, key)| (id, Some(key)));
    event(id, "com.example.tested", key)
}

fn new_event(event: Event) -> NewEvent {
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

/// Counts the requests for each event, and says what dead-letter sinks get.
fn script(answers: Answers, timeline: &Timeline) -> Script {
    let counts: Mutex<HashMap<(String, String), usize>> = Mutex::default();
    let timeline = timeline.clone();
    Arc::new(move |url, event| {
        let sink = url.trim_start_matches("http://").trim_end_matches('/');
        let attempt = {
            let mut counts = counts.lock().unwrap();
            let count = counts.entry((sink.to_owned(), event.id().to_owned())).or_default();
            *count += 1;
            *count
        };
        let answer = answers(sink, event.id(), attempt);
        if let (Some(reason), Some(attempts)) = (event.text("sluicereason"), event.text("sluiceattempts")) {
            let text =
                format!("{sink} gets dead letter {}: {reason}, attempts {attempts} -> {answer}", event.id());
            timeline.add(clock::steady_ms(), Line::Text(text));
        }
        play(answer, event.id())
    })
}

fn play(answer: &str, id: &str) -> Play {
    let (mut after, mut headers, mut body) = (Duration::ZERO, HeaderMap::new(), Bytes::new());
    let mut words = answer.split_whitespace();
    let first = words.next().unwrap();
    if first == "hang" {
        return Play { after, answered: None };
    }
    let status = StatusCode::from_bytes(first.as_bytes()).unwrap();
    while let Some(word) = words.next() {
        let next = words.next().unwrap();
        match word {
            "after" => after = next.trim_end_matches('s').parse().map(Duration::from_secs).unwrap(),
            "retry-after" => drop(headers.insert(header::RETRY_AFTER, next.parse().unwrap())),
            "reply" => {
                let id = match next {
                    "+1" => (id.parse::<u32>().unwrap() + 1).to_string(),
                    _ => next.to_owned(),
                };
                let reply = event(&id, words.next().unwrap(), None);
                let (content_type, structured) = sluice_schemas::http::encode_structured(&reply);
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
                body = structured;
            }
            _ => panic!("`{answer}` is no answer: `{word}`"),
        }
    }
    Play { after, answered: Some(Answered { status, headers, body, is_cut: false }) }
}

/// `90s`, `1.25s`.
fn seconds(ms: u64) -> String {
    format!("{}s", (ms / 10) as f64 / 100.0)
}
