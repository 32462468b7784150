//! Dead letters that are redriven, while something else happens to their trigger.

use std::pin::pin;
use std::task::{Context, Waker};

use super::rig::{Rig, Setup};
use crate::delivery::Reason;
use crate::store::DeliveryId;

fn dead(broker: &Rig) -> Vec<DeliveryId> {
    broker.dispatch.core().state.dead.keys().copied().collect()
}

/// Has everything redriven, and something else happen before that is on disk.
async fn redriven_when(broker: &mut Rig, meanwhile: impl AsyncFnOnce(&mut Rig)) -> u64 {
    let (dispatch, letters) = (broker.dispatch.clone(), dead(broker));
    let mut redrive = pin!(dispatch.redrive(&letters, None));
    assert!(redrive.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    meanwhile(broker).await;
    redrive.await.unwrap()
}

fn refusing_once() -> Setup<'static> {
    Setup::new("t: { sink: http://shop }", |_, _, attempt| if attempt == 1 { "400" } else { "200" })
}

#[test]
fn a_reload_while_dead_letters_are_redriven_does_not_send_them_twice() {
    let text = refusing_once().play(async |broker| {
        for id in ["a", "b"] {
            broker.publish(id).await;
        }
        broker.settle().await;
        let reload = async |broker: &mut Rig| {
            broker.reload("t: { sink: http://shop, delivery: { order: partitionkey } }").await;
        };
        assert_eq!(redriven_when(broker, reload).await, 2);
        broker.at(1.0).await;
        broker.kill_and_restart().await;
        broker.at(60.0).await;
        let books = broker.books("t");
        assert_eq!((books.delivered, books.dead, books.pending()), (2, 0, 0), "{books:?}");
    });
    assert_eq!(text.matches("-> 200").count(), 2, "{text}");
}

#[test]
fn what_is_discarded_while_it_is_redriven_stays_dead_after_a_restart() {
    let text = refusing_once().play(async |broker| {
        broker.publish("a").await;
        broker.settle().await;
        let id = broker.id_of("t");
        broker.pause("t", Some("paused by an operator")).await;
        let discard = async |broker: &mut Rig| {
            assert_eq!(broker.dispatch.discard(id, Reason::Discarded).await, Ok(1));
        };
        assert_eq!(redriven_when(broker, discard).await, 1);
        broker.kill_and_restart().await;
        assert_eq!(dead(broker).len(), 1);
        broker.pause("t", None).await;
        broker.at(60.0).await;
    });
    assert!(!text.contains("-> 200"), "{text}");
}

#[test]
fn who_redrives_what_another_has_redriven_is_told_so() {
    refusing_once().play(async |broker| {
        for id in ["a", "b"] {
            broker.publish(id).await;
        }
        broker.settle().await;
        let letters = dead(broker);
        assert_eq!(broker.dispatch.redrive(&letters[..1], None).await, Ok(1));
        assert_eq!(broker.dispatch.redrive(&letters, None).await, Ok(1));
    });
}
