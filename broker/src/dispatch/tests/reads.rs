//! What reads the disk, or takes long, does so while everything else goes on; what cannot be read is not passed over.

use std::future::Future;
use std::hash::RandomState;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use expect_test::expect;

use super::super::history::{self, Piece};
use super::super::order::{Key, LookUp};
use super::rig::{Rig, Setup};
use crate::delivery::Reason;
use crate::store::tests::{disk::SimDisk, rig};
use crate::store::{Gap, LogRecord, Offset, Options, Routed, TriggerId};

/// A clock that stands still for as long as a read is held: whatever happens meanwhile did not wait for it.
async fn delivered_meanwhile(broker: &Rig, trigger: &str, id: &str) {
    let before = broker.books(trigger).delivered;
    broker.disk.read_held().await;
    broker.publish(id).await;
    broker.eventually("others go on", |broker| broker.books(trigger).delivered == before + 1).await;
    assert!(broker.disk.held_reads() > 0);
}

#[test]
fn keys_of_an_ordered_trigger_are_read_while_others_go_on() {
    let setup = Setup::new(
        "t: { sink: http://shop, filters: [{ not: { exact: { id: b } } }], delivery: { order: partitionkey } }, \
         u: { sink: http://mail }",
        |_, id, attempt| if id == "x1" && attempt == 1 { "503" } else { "200" },
    );
    let text = setup.play(async |broker| {
        broker.pause("t", Some("paused by an operator")).await;
        for id in ["x1/x", "x2/x", "y1/y", "free"] {
            broker.publish(id).await;
        }
        broker.at(1.0).await;
        broker.kill_and_restart().await;
        broker.disk.hold_reads();
        broker.pause("t", None).await;
        delivered_meanwhile(broker, "u", "b").await;
        broker.disk.let_reads_go();
        broker.at(60.0).await;
    });
    let mut lines: Vec<_> =
        text.lines().filter(|line| line.contains(" t ") && line.contains("try")).collect();
    // What goes at the same time is read by several threads.
    lines.sort_unstable();
    expect![[r#"
        +1.01s  t free try 1 -> 200
        +1.01s  t x1 try 1 -> 503, again in 1s
        +1.01s  t y1 try 1 -> 200
        +2.01s  t x1 try 2 -> 200
        +2.01s  t x2 try 1 -> 200
    "#]]
    .assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn a_key_that_could_not_be_read_at_first_is_waited_for() {
    let setup = Setup::new("t: { sink: http://shop, delivery: { order: partitionkey } }", |_, id, _| {
        if id == "x1" { "200 after 5s" } else { "200" }
    });
    let text = setup.play(async |broker| {
        broker.pause("t", Some("paused by an operator")).await;
        let x1 = broker.publish("x1/x").await;
        let x2 = broker.publish("x2/x").await;
        broker.at(1.0).await;
        broker.kill_and_restart().await;
        cannot_be_read(broker, "t", &[x1, x2]);
        broker.pause("t", None).await;
        broker.at(60.0).await;
    });
    let lines: Vec<_> = text.lines().filter(|line| line.contains("try")).collect();
    expect![[r#"
        +1.01s  t x1 try 1 -> 200
        +6.01s  t x2 try 1 -> 200
    "#]]
    .assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn others_wait_for_a_key_to_be_read_and_not_for_the_answer_of_who_has_none() {
    let setup = Setup::new("t: { sink: http://shop, delivery: { order: partitionkey } }", |_, id, _| {
        if id == "a" { "200 after 5s" } else { "200" }
    });
    let text = setup.play(async |broker| {
        broker.pause("t", Some("paused by an operator")).await;
        let mut offsets = Vec::new();
        for id in ["a", "b/x", "c/y"] {
            offsets.push(broker.publish(id).await);
        }
        broker.at(1.0).await;
        broker.kill_and_restart().await;
        cannot_be_read(broker, "t", &offsets);
        broker.pause("t", None).await;
        broker.at(60.0).await;
    });
    let mut lines: Vec<_> = text.lines().filter(|line| line.contains("try")).collect();
    lines.sort_unstable();
    expect![[r#"
        +1.01s  t a try 1 -> 200
        +1.01s  t b try 1 -> 200
        +1.01s  t c try 1 -> 200
    "#]]
    .assert_eq(&(lines.join("\n") + "\n"));
}

/// Has the trigger know no more of some events than that their keys cannot be read.
fn cannot_be_read(broker: &Rig, trigger: &str, offsets: &[Offset]) {
    let id = broker.id_of(trigger);
    let mut core = broker.dispatch.core();
    let runtime = core.runtimes.get_mut(&id).unwrap();
    let trigger = Arc::clone(&runtime.active);
    let look_up = LookUp { trigger, hasher: RandomState::new(), offsets: Vec::new() };
    let keys = offsets.iter().map(|offset| (*offset, Key::Unreadable)).collect();
    runtime.looked_up(&look_up, keys);
}

#[test]
fn the_place_of_a_trigger_that_begins_at_a_time_is_read_while_others_go_on() {
    let setup = Setup::new("u: { sink: http://mail }", |_, _, _| "200");
    setup.play(async |broker| {
        for id in ["a", "b", "c"] {
            broker.publish(id).await;
        }
        broker.at(1.0).await;
        broker.kill_and_restart().await;
        broker.disk.hold_reads();
        let dispatch = broker.dispatch.clone();
        let prepared = broker
            .prepare("u: { sink: http://mail }, t: { sink: http://shop, start: \"2020-01-01T00:00:00Z\" }");
        let reload = tokio::spawn(async move { dispatch.adopt(prepared).await });
        delivered_meanwhile(broker, "u", "d").await;
        broker.disk.let_reads_go();
        reload.await.unwrap().unwrap();
        broker.at(60.0).await;
        assert_eq!(broker.books("t").delivered, 4);
    });
}

#[test]
fn matches_that_no_segment_can_hold_together_are_recorded_in_pieces() {
    Setup::new("t: { sink: http://shop }", |_, _, _| "200").play(async |broker| {
        // Seven megabytes of them.
        let ids: Vec<_> = (0..35_000).map(|n| TriggerId(u32::MAX - n)).collect();
        let matches: Vec<_> = (0..40).map(|n| (Offset(n), ids.clone())).collect();
        {
            let mut core = broker.dispatch.core();
            let (table, none) = (Arc::clone(&core.table), Piece { records: Vec::new(), end: Offset(40) });
            core.route_leftovers(Offset(0), &none, matches, &table).expect("the table is in force");
        }
        broker.dispatch.log().flush().await.unwrap();
        let mut found = Vec::new();
        let visit = &mut |record, _| {
            if let LogRecord::Routed(routed) = record {
                found.push((routed.from.0, routed.to.0));
                assert!(routed.matches.iter().map(|(at, _)| at.0).eq(routed.from.0..=routed.to.0));
            }
            true
        };
        broker.dispatch.log().reader().walk(Offset(0), visit).unwrap();
        assert_eq!(found.first().map(|first| first.0), Some(0), "they are on the log");
        assert_eq!(found.last().map(|last| last.1), Some(39));
        assert!(found.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{found:?}");
    });
}

#[test]
fn a_look_at_many_triggers_lets_others_in_between() {
    let triggers: Vec<_> = (0..600).map(|n| format!("t{n}: {{ sink: \"http://shop\" }}")).collect();
    let setup = Setup::new(&triggers.join(", "), |_, _, _| "200").play(async |broker| {
        let dispatch = broker.dispatch.clone();
        let mut look = pin!(dispatch.each_trigger(|core, _, state| Some(core.state.books(state).matched)));
        let poll = |look: std::pin::Pin<&mut dyn Future<Output = Vec<u64>>>| {
            look.poll(&mut Context::from_waker(Waker::noop()))
        };
        assert!(poll(look.as_mut()).is_pending(), "600 triggers are not looked at in one go");
        broker.publish("a").await;
        broker.settle().await;
        assert_eq!(broker.books("t599").delivered, 1);
        let seen = loop {
            if let Poll::Ready(seen) = poll(look.as_mut()) {
                break seen;
            }
        };
        assert_eq!((seen.len(), seen[0], seen[599]), (600, 0, 1));
    });
    assert_eq!(setup.lines().count(), 600);
}

/// A trigger that fell behind and was restarted, at the moment when it reads its matches from the log.
async fn catching_up(broker: &mut Rig) {
    broker.pause("t", Some("paused by an operator")).await;
    for n in 0..200 {
        broker.publish(&n.to_string()).await;
    }
    broker.at(1.0).await;
    broker.kill_and_restart().await;
    broker.pause("t", None).await;
    broker.at(1.5).await;
    broker.disk.hold_reads();
    // The first answers come, there is room for more, and time stands still.
    broker.disk.read_held().await;
    let is_catching_up = |broker: &Rig| {
        let id = broker.id_of("t");
        broker.dispatch.core().runtimes[&id].is_catching_up
    };
    broker.eventually("it reads what it is behind with", is_catching_up).await;
}

fn small(triggers: &str) -> Setup<'_> {
    // Each trigger holds 64 deliveries, and the rest is on the log.
    Setup { outstanding: 64, ..Setup::new(triggers, |_, _, _| "200 after 1s") }
}

#[test]
fn a_trigger_that_is_removed_while_it_catches_up_goes_on_when_it_returns() {
    let both = "t: { sink: http://shop }, u: { sink: http://mail, filters: [{ exact: { type: none } }] }";
    small(both).play(async |broker| {
        catching_up(broker).await;
        broker.reload("u: { sink: http://mail }").await;
        broker.disk.let_reads_go();
        broker.at(10.0).await;
        assert!(broker.books("t").delivered < 200);
        broker.reload(both).await;
        broker.at(60.0).await;
        assert_eq!(broker.books("t").delivered, 200);
    });
}

#[test]
fn what_is_discarded_while_a_trigger_catches_up_is_settled_once() {
    small("t: { sink: http://shop }").play(async |broker| {
        catching_up(broker).await;
        let (dispatch, id) = (broker.dispatch.clone(), broker.id_of("t"));
        let discard = tokio::spawn(async move { dispatch.discard(id, Reason::Discarded).await });
        // 32 events, and the matches twice.
        broker.eventually("both read", |broker| broker.disk.held_reads() == 34).await;
        broker.disk.let_reads_go();
        discard.await.unwrap().unwrap();
        broker.at(60.0).await;
        let books = broker.books("t");
        assert_eq!((books.matched, books.delivered + books.dead), (200, 200), "{books:?}");
        let core = broker.dispatch.core();
        let counted = &core.runtimes[&id].active.counters.dead[Reason::Discarded as usize];
        assert_eq!(counted.load(Ordering::Relaxed), books.dead);
    });
}

#[test]
fn the_past_of_a_new_trigger_does_not_hide_what_another_is_behind_with() {
    small("t: { sink: http://shop }").play(async |broker| {
        broker.pause("t", Some("paused by an operator")).await;
        for n in 0..200 {
            broker.publish(&n.to_string()).await;
        }
        broker.at(1.0).await;
        // What was matched is on the log only, and then the past of `u` is what is in memory.
        broker.kill_and_restart().await;
        broker.reload("t: { sink: http://shop }, u: { sink: http://mail, start: earliest }").await;
        broker.at(60.0).await;
        broker.publish("new").await;
        broker.pause("t", None).await;
        broker.at(120.0).await;
        assert_eq!((broker.books("t").delivered, broker.books("u").delivered), (201, 201));
    });
}

#[test]
fn events_that_cannot_be_read_are_not_routed_as_if_nobody_wanted_them() {
    let setup = Setup {
        stored: &["a", "b", "c"],
        ..Setup::new(
            "t: { sink: http://shop, start: earliest, delivery: { concurrency: 1 } }",
            |_, _, _| "200",
        )
    };
    let text = setup.play(async |broker| {
        broker.disk.fail_reads(true);
        broker.at(5.0).await;
        assert_eq!(broker.books("t").seen(), 0);
        broker.disk.fail_reads(false);
        broker.at(60.0).await;
        assert_eq!(broker.books("t").delivered, 3);
    });
    assert_eq!(text.matches("try 1 -> 200").count(), 3, "{text}");
}

#[test]
fn matches_are_read_some_at_a_time_and_none_is_passed_over() {
    const ALL: u64 = 20_000;
    let disk = SimDisk::new();
    let options = Options { segment_bytes: 1 << 20, window: None, ..rig::options() };
    let mut run = rig::Run::open(&disk, &options).unwrap();
    for from in (0..ALL).step_by(500) {
        let events: Vec<_> = (from..from + 500).map(|n| rig::event(&n.to_string(), 8)).collect();
        run.append(&events, vec![]).unwrap();
        let matches = (from..from + 500).map(|offset| (Offset(offset), vec![TriggerId(1)])).collect();
        let (from, to) = (Offset(from), Offset(from + 499));
        run.append(&[], vec![LogRecord::Routed(Routed { epoch: 1, from, to, matches, only: None })]).unwrap();
    }
    let lost = Gap { at_ms: 0, from: Offset(ALL), to: Offset(ALL), segment: 1, start: 0, end: 0 };
    for gaps in [&[][..], &[lost]] {
        let (mut found, mut from) = (Vec::new(), Offset(0));
        while from < Offset(ALL) {
            let reader = run.log.reader();
            let (offsets, next) = history::matches(reader, TriggerId(1), from, gaps, 3000).unwrap();
            assert!(offsets.len() <= 3500 && next > from, "{} matches, then from {next}", offsets.len());
            found.extend(offsets);
            from = next;
        }
        let found: Vec<u64> = found.into_iter().map(|offset| offset.0).collect();
        assert!(found == (0..ALL).collect::<Vec<_>>(), "{} of {ALL}, {} gaps", found.len(), gaps.len());
    }
    run.stop().unwrap();
}
