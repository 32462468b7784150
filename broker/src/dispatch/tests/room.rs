//! What becomes of replies on a full disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use expect_test::expect;
use sluice_adapters::Refusal;
use sluice_schemas::{DataForm, Event};

use super::rig::{Rig, Setup, new_event};
use crate::delivery::Reason;
use crate::store::{LogRecord, Mark, NewEvent};

/// More than is left of a segment that has no room for another one.
const LARGE: usize = 1 << 20;

fn large() -> Event {
    let event = Event::builder().attribute("specversion", "1.0").attribute("id", "large");
    let event = event.attribute("source", "/tests").attribute("type", "com.example.large");
    event.data(vec![b'.'; LARGE], DataForm::Opaque).build().unwrap()
}

/// Until the disk has room for outcomes only, and these have begun to use it.
async fn fill_up(broker: &Rig) {
    broker.disk.set_capacity(Some(0));
    let log = broker.dispatch.log();
    loop {
        match log.append(vec![NewEvent { unique: false, ..new_event(large()) }], vec![]).await {
            Ok(_) => {}
            Err(Refusal::Full { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    let mark = LogRecord::Mark(Mark { source: "s".into(), text: ".".repeat(LARGE + (LARGE >> 4)) });
    log.append(vec![], vec![mark]).await.unwrap();
}

#[test]
fn a_trigger_whose_sink_replies_waits_for_room_and_no_attempt_is_counted() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let setup = Setup::new(
        "t: { sink: http://shop, sources: [http], filters: [{ exact: { type: com.example.tested } }], \
         delivery: { retry: 1 } }",
        move |_, id, attempt| {
            counted.fetch_add(1, Ordering::Relaxed);
            match (id, attempt) {
                ("a", 1) => "503",
                ("a", _) => "200 reply r com.example.reply",
                _ => "200",
            }
        },
    );
    let text = setup.play(async |broker| {
        broker.publish("a").await;
        broker.publish("b").await;
        broker.settle().await;
        fill_up(broker).await;
        broker.at(30.0).await;
        assert_eq!(requests.load(Ordering::Relaxed), 2 + 3, "one in ten seconds");
        let said = broker.last_error("t").unwrap();
        assert!(said.starts_with("the reply was not stored: the store is full"), "{said}");
        broker.disk.set_capacity(None);
        broker.at(60.0).await;
        assert_eq!(broker.books("t").delivered, 2);
    });
    // What the store is asked to take, and takes at last.
    expect![[r#"
        +0s     t a try 1 -> 503, again in 1s
        +0s     t b try 1 -> 200
        +1s     reply r to a, 1 from the first
        +1s     t a try 2 -> 200
        +11s    reply r to a, 1 from the first
        +11s    t a try 2 -> 200
        +21s    reply r to a, 1 from the first
        +21s    t a try 2 -> 200
        +31s    reply r to a, 1 from the first
        +31s    t a try 2 -> 200
    "#]]
    .assert_eq(&text);
}

#[test]
fn what_finds_no_room_for_its_reply_when_it_is_discarded_is_a_dead_letter() {
    let setup = Setup::new(
        "t: { sink: http://shop, filters: [{ exact: { type: com.example.tested } }] }",
        |_, _, _| "200 reply r com.example.reply after 5s",
    );
    let text = setup.play(async |broker| {
        broker.publish("a").await;
        broker.settle().await;
        fill_up(broker).await;
        broker.at(1.0).await;
        assert_eq!(broker.dispatch.discard(broker.id_of("t"), Reason::Discarded).await, Ok(0));
        broker.at(60.0).await;
        assert_eq!(broker.books("t").dead, 1);
    });
    assert!(text.contains("t a try 1 -> 200, dead letter: discarded"), "{text}");
}
