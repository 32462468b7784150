use std::sync::Mutex;

use jiff::ToSpan;
use serde_json::json;
use sluice_config::{Source as Configured, SourceKind, check_text};
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;
use crate::{Health, Intake, Published, Publisher, Receipt, Refusal, Request, Stop};

/// A store that remembers what it was asked to keep.
#[derive(Default)]
struct Kept {
    /// Ids of events and positions of records put aside, each with its mark.
    lines: Mutex<Vec<String>>,
    refuse: Mutex<Vec<Refusal>>,
    /// Ticks that were said to be left out.
    skipped: Mutex<u64>,
}

impl Intake for Kept {
    fn submit(&self, request: Request) {
        let refusal = self.refuse.lock().unwrap().pop();
        if let Some(refusal) = refusal {
            drop(request.answer.send(Err(refusal)));
            return;
        }
        let mark = request.mark.unwrap_or_default();
        let mark = mark.split(' ').next().unwrap_or_default();
        let mut lines = self.lines.lock().unwrap();
        for entry in &request.entries {
            lines.push(format!("{} mark {mark}", entry.event.id()));
        }
        for aside in &request.aside {
            lines.push(format!("aside {} {} mark {mark}", aside.record.position, aside.unfit.is_conflict));
        }
        if request.entries.is_empty() && request.aside.is_empty() {
            lines.push(format!("mark {mark}"));
        }
        let receipts = request.entries.iter().map(|_| Receipt { offset: 0, duplicate: false }).collect();
        drop(request.answer.send(Ok(Published { receipts })));
    }
}

fn configured(yaml: &str) -> Configured {
    let yaml = format!("sources: {{ t: {yaml} }}\n");
    let loaded = check_text("t.yaml", &yaml, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    loaded.config.sources["t"].clone()
}

/// A timer on a wall clock that begins at `start` and goes with tokio's, plus what `jumps` says.
struct Rig {
    kept: Arc<Kept>,
    source: CronSource,
    jump: Arc<Mutex<SignedDuration>>,
    stop: watch::Sender<bool>,
    context: Context,
}

fn rig(yaml: &str, start: &str, mark: Option<&str>) -> Rig {
    let configured = configured(yaml);
    let SourceKind::Cron(cron) = &configured.kind else { panic!("no timer") };
    let start: Timestamp = start.parse().unwrap();
    let begun = Instant::now();
    let jump = Arc::new(Mutex::new(SignedDuration::ZERO));
    let jumped = Arc::clone(&jump);
    let clock = move || {
        let passed = SignedDuration::try_from(begun.elapsed()).unwrap();
        start + passed + *jumped.lock().unwrap()
    };
    let source = CronSource::with_clock("t", cron, &configured, Arc::new(clock)).unwrap();
    let kept = Arc::new(Kept::default());
    let (stop, stopped) = watch::channel(false);
    let told = Arc::clone(&kept);
    let context = Context {
        name: "t".into(),
        publisher: Publisher::new("t", Arc::<Kept>::clone(&kept)),
        health: Health::new(move |report| {
            if let Report::Skipped { ticks } = report {
                *told.skipped.lock().unwrap() += ticks;
            }
        }),
        stop: Stop::new(stopped),
        mark: mark.map(|at| source.ticks.mark(at.parse().unwrap())),
        put_aside_bytes: 1000,
        oversize: config::Oversize::Stop,
    };
    Rig { kept, source, jump, stop, context }
}

impl Rig {
    /// Lets so much time pass, and says what was kept.
    async fn run(&self, seconds: u64) -> Vec<String> {
        let run = self.source.run(self.context.clone());
        let ended = tokio::time::timeout(Duration::from_secs(seconds), run).await;
        assert!(
            ended.is_err(),
            "the timer ended by itself: {:?}",
            ended.map(|ended| ended.map_err(|down| down.reason))
        );
        std::mem::take(&mut *self.kept.lines.lock().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn ticks_come_when_they_are_due_each_with_its_mark() {
    let rig = rig(r#"{ cron: { schedule: "*/30 * * * * *" } }"#, "2026-11-21T10:00:10Z", None);
    assert_eq!(
        rig.run(60).await,
        [
            "mark 2026-11-21T10:00:10Z",
            "t/2026-11-21T10:00:30Z mark 2026-11-21T10:00:30Z",
            "t/2026-11-21T10:01:00Z mark 2026-11-21T10:01:00Z",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_is_marked_does_not_come_again() {
    let rig =
        rig(r#"{ cron: { schedule: "0 * * * *" } }"#, "2026-11-21T10:00:00.4Z", Some("2026-11-21T10:00:00Z"));
    assert_eq!(rig.run(600).await, [""; 0]);
}

fn missed(catch_up: &str) -> Rig {
    let yaml = format!(r#"{{ cron: {{ schedule: "0 * * * *", catch_up: {catch_up} }} }}"#);
    rig(&yaml, "2026-11-21T10:30:00Z", Some("2026-11-21T06:00:00Z"))
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_is_made_up_for_as_the_file_says() {
    assert_eq!(missed("skip").run(60).await, [""; 0]);
    assert_eq!(missed("latest").run(60).await, ["t/2026-11-21T10:00:00Z mark 2026-11-21T10:00:00Z"]);
    let all = missed("all").run(60).await;
    assert_eq!(all.len(), 4);
    assert_eq!(all[0], "t/2026-11-21T07:00:00Z mark 2026-11-21T07:00:00Z");
    assert_eq!(missed("all, catch_up_max: 2").run(60).await.len(), 2);
}

/// Each second, and down for ten.
async fn missed_seconds(catch_up: &str) -> Vec<String> {
    let yaml = format!(r#"{{ cron: {{ schedule: "* * * * * *", catch_up: {catch_up} }} }}"#);
    let kept = rig(&yaml, "2026-11-21T10:00:10.5Z", Some("2026-11-21T10:00:00Z")).run(1).await;
    kept.iter().map(|line| line["t/2026-11-21T10:00:".len()..][..2].to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_for_a_moment_only_is_missed_too_but_for_the_last() {
    assert_eq!(missed_seconds("skip").await, ["10", "11"]);
    assert_eq!(missed_seconds("latest").await, ["10", "11"]);
    assert_eq!(missed_seconds("all, catch_up_max: 3").await, ["08", "09", "10", "11"]);
    assert_eq!(missed_seconds("all").await.len(), 11);
}

#[tokio::test(start_paused = true)]
async fn who_slept_through_several_ticks_catches_up_and_who_was_held_up_loses_none() {
    let asleep = rig(r#"{ cron: { schedule: "* * * * * *" } }"#, "2026-11-21T10:00:00.5Z", None);
    let jump = Arc::clone(&asleep.jump);
    tokio::spawn(async move {
        sleep(Duration::from_millis(1800)).await;
        *jump.lock().unwrap() = SignedDuration::from_secs(10);
    });
    let kept = asleep.run(3).await;
    assert_eq!(kept.len(), 1 + 2 + 1, "{kept:?}");
    assert_eq!(kept[3], "t/2026-11-21T10:00:13Z mark 2026-11-21T10:00:13Z");

    let held_up = rig(r#"{ cron: { schedule: "* * * * * *" } }"#, "2026-11-21T10:00:00.5Z", None);
    *held_up.kept.refuse.lock().unwrap() = vec![Refusal::Full { reason: "no room".into() }; 3];
    let kept = held_up.run(10).await;
    assert_eq!(kept[1], "t/2026-11-21T10:00:01Z mark 2026-11-21T10:00:01Z");
    assert!(kept.len() > 9, "{kept:?}");
}

#[tokio::test(start_paused = true)]
async fn months_of_seconds_are_bounded() {
    let rig = rig(
        r#"{ cron: { schedule: "* * * * * *", catch_up: all, catch_up_max: 5 } }"#,
        "2026-11-21T10:00:00Z",
        Some("2026-11-01T00:00:00Z"),
    );
    let kept = rig.run(1).await;
    assert_eq!(kept[0], "t/2026-11-21T09:59:56Z mark 2026-11-21T09:59:56Z");
    assert!(kept.len() <= 6, "{kept:?}");
}

#[tokio::test(start_paused = true)]
async fn another_schedule_begins_anew() {
    let mut rig = rig(r#"{ cron: { schedule: "0 * * * *" } }"#, "2026-11-21T10:30:00Z", None);
    rig.context.mark = Some("2026-11-01T00:00:00Z 30 * * * * UTC".into());
    assert_eq!(rig.run(60).await, ["mark 2026-11-21T10:30:00Z"]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_repeats_nothing() {
    let rig = rig(r#"{ cron: { schedule: "* * * * *" } }"#, "2026-11-21T10:00:10Z", None);
    assert_eq!(rig.run(60).await.len(), 2);
    *rig.jump.lock().unwrap() = -SignedDuration::from_mins(5);
    let again = Rig {
        context: Context {
            mark: Some(rig.source.ticks.mark("2026-11-21T10:01:00Z".parse().unwrap())),
            ..rig.context.clone()
        },
        ..rig
    };
    // Four minutes of silence, and then the next tick.
    let kept = again.run(6 * 60).await;
    assert_eq!(kept, ["t/2026-11-21T10:02:00Z mark 2026-11-21T10:02:00Z",]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ahead_while_it_runs_is_caught_up_with() {
    let rig =
        rig(r#"{ cron: { schedule: "0 * * * *" } }"#, "2026-11-21T10:30:00Z", Some("2026-11-21T10:00:00Z"));
    let jump = Arc::clone(&rig.jump);
    tokio::spawn(async move {
        sleep(Duration::from_secs(60)).await;
        *jump.lock().unwrap() = SignedDuration::from_hours(6);
    });
    assert_eq!(rig.run(120).await, ["t/2026-11-21T16:00:00Z mark 2026-11-21T16:00:00Z"]);
}

#[tokio::test(start_paused = true)]
async fn a_mark_of_a_clock_that_was_years_ahead_is_not_waited_for() {
    let rig =
        rig(r#"{ cron: { schedule: "* * * * *" } }"#, "2026-11-21T10:00:10Z", Some("2100-01-01T00:00:00Z"));
    let kept = rig.run(60).await;
    assert_eq!(kept, ["mark 2026-11-21T10:00:10Z", "t/2026-11-21T10:01:00Z mark 2026-11-21T10:01:00Z"]);
}

#[tokio::test(start_paused = true)]
async fn once_is_once() {
    let yaml = r#"{ cron: { at: "2026-11-21T10:01:00Z" } }"#;
    let rig = rig(yaml, "2026-11-21T10:00:30Z", None);
    assert_eq!(
        rig.run(3600).await,
        ["mark 2026-11-21T10:00:30Z", "t/2026-11-21T10:01:00Z mark 2026-11-21T10:01:00Z"]
    );
    let again = self::rig(yaml, "2026-11-21T12:00:30Z", Some("2026-11-21T10:01:00Z"));
    assert_eq!(again.run(3600).await, [""; 0]);
    let down = self::rig(yaml, "2026-11-21T12:00:30Z", Some("2026-11-21T10:00:30Z"));
    assert_eq!(down.run(3600).await, ["t/2026-11-21T10:01:00Z mark 2026-11-21T10:01:00Z"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_store_is_waited_for_and_loses_no_tick() {
    let rig =
        rig(r#"{ cron: { schedule: "* * * * *" } }"#, "2026-11-21T10:00:50Z", Some("2026-11-21T10:00:00Z"));
    *rig.kept.refuse.lock().unwrap() = vec![Refusal::Full { reason: "no room".into() }; 5];
    assert_eq!(rig.run(60).await, ["t/2026-11-21T10:01:00Z mark 2026-11-21T10:01:00Z"]);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_put_aside_with_its_mark() {
    let rig =
        rig(r#"{ cron: { schedule: "* * * * *" } }"#, "2026-11-21T10:00:50Z", Some("2026-11-21T10:00:00Z"));
    *rig.kept.refuse.lock().unwrap() = vec![Refusal::Conflict { index: 0, offset: 7 }];
    assert_eq!(rig.run(30).await, ["aside 2026-11-21T10:01:00Z true mark 2026-11-21T10:01:00Z"]);
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_it_is_told_to() {
    let Rig { source, stop, context, .. } =
        rig(r#"{ cron: { schedule: "@yearly" } }"#, "2026-11-21T10:00:00Z", None);
    let told = tokio::spawn(async move {
        sleep(Duration::from_secs(5)).await;
        stop.send_replace(true);
        stop
    });
    tokio::time::timeout(Duration::from_secs(6), source.run(context)).await.expect("ends").expect("is well");
    drop(told.await);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_out_is_counted() {
    let all = missed("all, catch_up_max: 3");
    assert_eq!((all.run(60).await.len(), *all.kept.skipped.lock().unwrap()), (3, 1));
    let latest = missed("latest");
    assert_eq!((latest.run(60).await.len(), *latest.kept.skipped.lock().unwrap()), (1, 3));
    let skip = missed("skip");
    assert_eq!((skip.run(60).await.len(), *skip.kept.skipped.lock().unwrap()), (0, 4));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_timers_in_one_second_each_tick_once() {
    let one = rig(r#"{ cron: { schedule: "0 * * * *" } }"#, "2026-11-21T10:59:59Z", None);
    let yaml = configured(r#"{ cron: { schedule: "0 * * * *" } }"#);
    let SourceKind::Cron(cron) = &yaml.kind else { panic!("no timer") };
    let begun = Instant::now();
    let start: Timestamp = "2026-11-21T10:59:59Z".parse().unwrap();
    for number in 0..10_000 {
        let clock = move || start + SignedDuration::try_from(begun.elapsed()).unwrap();
        let source = CronSource::with_clock(&number.to_string(), cron, &yaml, Arc::new(clock)).unwrap();
        let context = one.context.clone();
        tokio::spawn(async move { source.run(context).await });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let lines = one.kept.lines.lock().unwrap();
    let ticks = lines.iter().filter(|line| line.ends_with("/2026-11-21T11:00:00Z mark 2026-11-21T11:00:00Z"));
    assert_eq!(ticks.count(), 10_000);
}

#[test]
fn what_the_file_says_becomes_the_event() {
    let yaml = r#"{ cron: { schedule: "30 2 * * *", timezone: Europe/Berlin }, event: { type: com.example.nightly, subject: "{scheduled}", data: { job: report } } }"#;
    let configured = configured(yaml);
    let SourceKind::Cron(cron) = &configured.kind else { panic!("no timer") };
    let source = CronSource::compile("nightly", cron, &configured).unwrap();
    let tick: Timestamp = "2026-11-21T01:30:00Z".parse().unwrap();
    assert_eq!(source.ticks.next(tick - 1.second()), Some(tick));
    let record = Record { position: tick.to_string(), ..Record::default() };
    let event = source.to_event(&record).unwrap();
    let event: serde_json::Value = serde_json::from_slice(&sluice_schemas::json::encode(&event)).unwrap();
    assert_eq!(
        event,
        json!({
            "specversion": "1.0", "id": "nightly/2026-11-21T01:30:00Z", "source": "/nightly", "type": "com.example.nightly",
            "time": "2026-11-21T01:30:00Z", "subject": "2026-11-21T01:30:00Z", "datacontenttype": "application/json",
            "data": { "job": "report" },
        })
    );
}
