//! What is damaged is said, is waited for by those who need it and by nobody else, and is never taken for something else.

use super::super::core::Core;
use super::super::history::{self, Piece};
use super::rig::{Rig, Setup, event};
use crate::store::{Gap, Offset, clock};

/// A trigger `t` that is behind with most of 200 events, each in a frame of its own, after a restart; and `u`, which is not.
async fn behind(broker: &mut Rig) {
    broker.pause("t", Some("paused by an operator")).await;
    for n in 100..300 {
        broker.publish(&format!("event-{n}")).await;
    }
    broker.settle().await;
    broker.kill_and_restart().await;
}

fn small(triggers: &str) -> Setup<'_> {
    // Each trigger holds 64 deliveries, and the rest is on the log.
    Setup { outstanding: 64, ..Setup::new(triggers, |_, _, _| "200") }
}

const BOTH: &str = "t: { sink: http://shop }, u: { sink: http://mail }";

#[test]
fn matches_that_cannot_be_read_are_waited_for() {
    small(BOTH).play(async |broker| {
        behind(broker).await;
        // Its frame says what was matched before it, too.
        broker.damage("event-250");
        broker.pause("t", None).await;
        broker.at(60.0).await;
        assert_eq!(broker.books("t").delivered, 149);
        let error = broker.last_error("t").expect("it is said");
        assert!(error.contains("cannot read what the trigger matched"), "{error}");
        assert!(error.contains("offset 149 in 000000000001.seg"), "{error}");
        broker.publish("new").await;
        broker.at(61.0).await;
        assert_eq!(broker.books("u").delivered, 201);
        assert_eq!((broker.books("t").pending(), broker.floor("t")), (52, Offset(149)));

        broker.repair("event-250");
        broker.at(200.0).await;
        assert_eq!(broker.books("t").delivered, 201);
    });
}

#[test]
fn what_a_gap_took_is_lost_to_a_trigger_that_was_behind_with_it() {
    small(BOTH).play(async |broker| {
        behind(broker).await;
        broker.damage("event-250");
        broker.kill_and_restart_without_the_damaged().await;
        broker.pause("t", None).await;
        broker.at(60.0).await;
        let books = broker.books("t");
        assert_eq!((books.delivered, books.lost, books.pending()), (199, 1, 0), "{books:?}");
    });
}

#[test]
fn what_was_routed_again_is_not_passed_over_when_it_stands_behind_what_cannot_be_read() {
    small(BOTH).play(async |broker| {
        behind(broker).await;
        // The match of the event before it is lost with it, and recorded anew at the end of the log.
        broker.damage("event-250");
        broker.kill_and_restart_without_the_damaged().await;
        broker.settle().await;
        broker.damage("event-280");
        broker.pause("t", None).await;
        broker.at(60.0).await;
        let error = broker.last_error("t").expect("it is said");
        assert!(error.contains("cannot read what the trigger matched"), "{error}");
        broker.repair("event-280");
        broker.at(200.0).await;
        let books = broker.books("t");
        assert_eq!((books.delivered, books.lost, books.pending()), (199, 1, 0), "{books:?}");
    });
}

#[test]
fn what_is_still_to_be_routed_below_does_not_make_lost_what_a_trigger_is_behind_with() {
    small(BOTH).play(async |broker| {
        behind(broker).await;
        broker.settle().await;
        {
            // As after a gap that took what one event matched: that is routed again, and has to wait for something.
            let core = &mut *broker.dispatch.core();
            let at = Offset(10);
            core.state.gaps.push(Gap { at_ms: 0, from: at, to: at, segment: 99, start: 0, end: 1 });
            core.state.unrouted.insert(0, (at, at.next()));
        }
        broker.pause("t", None).await;
        broker.at(60.0).await;
        let books = broker.books("t");
        assert_eq!((books.delivered, books.lost, books.pending()), (200, 0, 0), "{books:?}");
        broker.dispatch.core().state.unrouted.clear();
    });
}

#[test]
fn a_retry_by_hand_looks_at_once_at_what_could_not_be_read() {
    Setup::new("t: { sink: http://shop }", |_, _, _| "200").play(async |broker| {
        broker.pause("t", Some("paused by an operator")).await;
        broker.publish("broken").await;
        broker.settle().await;
        broker.kill_and_restart().await;
        broker.damage("broken");
        broker.pause("t", None).await;
        broker.at(1.0).await;
        let error = broker.last_error("t").expect("it is said");
        assert!(error.contains("offset 0 in 000000000001.seg"), "{error}");
        broker.repair("broken");
        let id = broker.id_of("t");
        {
            let Core { state, runtimes, .. } = &mut *broker.dispatch.core();
            runtimes.get_mut(&id).unwrap().retry_all_now(&state.triggers[&id]);
        }
        broker.dispatch.nudge(id);
        broker.at(1.5).await;
        assert_eq!(broker.books("t").delivered, 1);
    });
}

#[test]
fn a_past_that_cannot_be_read_is_waited_for_and_holds_up_no_other() {
    Setup::new("u: { sink: http://mail }", |_, _, _| "200").play(async |broker| {
        for id in ["past-1", "past-2"] {
            broker.publish(id).await;
            broker.settle().await;
        }
        // Events are received at the wall's time, which does not stand still.
        let between = clock::wall_ms() + 1;
        while clock::wall_ms() <= between {}
        broker.publish("past-3").await;
        broker.settle().await;
        broker.kill_and_restart().await;
        broker.damage("past-1");
        broker
            .reload(&format!(
                "u: {{ sink: http://mail }}, t: {{ sink: http://shop, start: earliest }}, \
                 v: {{ sink: http://files, start: \"{}\" }}",
                clock::rfc3339(between)
            ))
            .await;
        broker.publish("live").await;
        broker.at(60.0).await;
        assert_eq!(broker.books("v").delivered, 2);
        let books = broker.books("t");
        assert_eq!((books.delivered, books.unmatched), (1, 0), "{books:?}");
        let error = broker.last_error("t").expect("it is said");
        assert!(error.contains("the past of the trigger waits for offset 0"), "{error}");
        assert_eq!(broker.floor("t"), Offset(0));

        broker.repair("past-1");
        broker.at(200.0).await;
        assert_eq!(broker.books("t").delivered, 4);
    });
}

#[test]
fn what_a_former_run_left_is_waited_for_while_events_are_taken() {
    let setup = Setup {
        stored: &["one", "broken", "three"],
        ..Setup::new("t: { sink: http://shop, start: earliest }", |_, _, _| "200")
    };
    setup.play(async |broker| {
        broker.damage("broken");
        for n in 0..20 {
            broker.publish(&format!("live-{n}")).await;
            broker.settle().await;
        }
        broker.at(5.0).await;
        // They are not left to the writer, who would wait when they are many, and with it who publishes, or stops.
        assert_eq!(broker.dispatch.core().state.next_offset, Offset(23));
        let waits = broker.dispatch.core().routing_waits.clone().expect("it is said");
        assert!(waits.contains("until offset 1 can be read"), "{waits}");
        assert!(waits.contains("--accept-loss"), "{waits}");
        broker.repair("broken");
        broker.at(200.0).await;
        assert_eq!(broker.dispatch.core().routing_waits, None);
        assert_eq!(broker.books("t").delivered, 23);
    });
}

#[test]
fn a_trigger_that_begins_at_a_time_is_not_begun_elsewhere_when_that_cannot_be_found() {
    Setup::new("u: { sink: http://mail }", |_, _, _| "200").play(async |broker| {
        for id in ["a", "b"] {
            broker.publish(id).await;
        }
        broker.settle().await;
        broker.kill_and_restart().await;
        let triggers = "u: { sink: http://mail }, t: { sink: http://shop, start: \"2020-01-01T00:00:00Z\" }";
        broker.disk.fail_reads(true);
        let refused = broker.dispatch.adopt(broker.prepare(triggers)).await.unwrap_err().to_string();
        assert!(refused.contains("cannot find where trigger `t` begins"), "{refused}");
        broker.disk.fail_reads(false);
        broker.reload(triggers).await;
        broker.at(60.0).await;
        assert_eq!(broker.books("t").delivered, 2);
    });
}

#[test]
fn a_piece_of_the_log_is_bounded_in_bytes() {
    Setup::new("", |_, _, _| "200").play(async |broker| {
        for n in 0..20 {
            broker.publish_event(large(n)).await;
        }
        broker.settle().await;
        broker.kill_and_restart().await;
        let reader = std::sync::Arc::clone(broker.dispatch.log().reader());
        let read = move || {
            let (mut from, mut sizes) = (Offset(0), Vec::new());
            while from < Offset(20) {
                let Piece { records, end } = history::piece(&reader, from, Offset(20), &[]).unwrap();
                sizes.push(records.len());
                assert_eq!((records[0].offset, end.0 - from.0), (from, records.len() as u64));
                from = end;
            }
            sizes
        };
        assert_eq!(history::blocking(read).await.unwrap(), [4, 4, 4, 4, 4]);
    });
}

fn large(n: u64) -> sluice_schemas::Event {
    let small = event(&n.to_string(), "com.example.tested", None);
    let attributes = small.attributes().map(|(name, value)| (name.into(), value.clone())).collect();
    let data = vec![b'.'; 1 << 20];
    let data = sluice_schemas::Data { bytes: data.into(), form: sluice_schemas::DataForm::Opaque };
    sluice_schemas::Event::from_stored(attributes, Some(data))
}
