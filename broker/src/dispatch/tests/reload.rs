//! Triggers are put in force at one moment: what is told of them, what is matched with them and what the log has agree.

use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use sluice_adapters::Refusal;

use super::rig::Setup;

const BOTH: &str = "u: { sink: http://mail }, t: { sink: http://shop, start: earliest }";

#[test]
fn events_go_to_a_new_trigger_from_the_moment_it_is_listed() {
    Setup::new("u: { sink: http://mail }", |_, _, _| "200").play(async |broker| {
        broker.publish("before").await;
        broker.settle().await;
        {
            let dispatch = broker.dispatch.clone();
            let mut reload = pin!(dispatch.adopt(broker.prepare(BOTH)));
            // The set waits for the disk, and whoever reloads for the set.
            assert!(matches!(reload.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
            let listed = broker.dispatch.each_trigger(|_, entry, _| Some(entry.name.clone())).await;
            assert_eq!(listed, ["u", "t"]);
            broker.publish("meanwhile").await;
            broker.settle().await;
            reload.await.unwrap();
        }
        broker.publish("after").await;
        broker.at(10.0).await;
        let books = broker.books("t");
        assert_eq!((books.delivered, books.unmatched), (3, 0), "{books:?}");
    });
}

#[test]
fn triggers_that_no_segment_can_hold_are_refused_each_time_and_change_nothing() {
    Setup::new("u: { sink: http://mail }", |_, _, _| "200").play(async |broker| {
        let large = "x".repeat(7 << 20);
        let triggers = format!(
            "t: {{ sink: http://shop, filters: [exact: {{ type: {large} }}] }}, u: {{ sink: http://mail }}"
        );
        for _ in 0..2 {
            let refused = broker.dispatch.adopt(broker.prepare(&triggers)).await;
            assert!(matches!(refused, Err(Refusal::TooLarge { .. })), "{refused:?}");
            assert_eq!(broker.dispatch.core().state.set.triggers.len(), 1);
        }
        broker.publish("a").await;
        broker.at(1.0).await;
        assert_eq!(broker.books("u").delivered, 1);
    });
}

#[test]
fn what_was_planned_from_triggers_that_are_not_in_force_any_more_is_planned_anew() {
    Setup::new("u: { sink: http://mail }", |_, _, _| "200").play(async |broker| {
        let prepared = broker.prepare(BOTH);
        let plan = broker.dispatch.plan(&prepared).unwrap();
        broker
            .dispatch
            .adopt(broker.prepare("u: { sink: http://mail }, v: { sink: http://shop }"))
            .await
            .unwrap();
        assert!(broker.dispatch.put_in_force(plan, &BTreeMap::new()).is_none());
        let listed = broker.dispatch.each_trigger(|_, entry, _| Some(entry.name.clone())).await;
        assert_eq!(listed, ["u", "v"]);
        broker.dispatch.adopt(prepared).await.unwrap();
        broker.publish("a").await;
        broker.at(1.0).await;
        assert_eq!((broker.books("u").delivered, broker.books("t").delivered), (1, 1));
    });
}
