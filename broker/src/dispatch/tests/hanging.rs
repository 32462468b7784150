//! A sink that hangs: bounded memory, no effect on the others, and books that balance.

use std::sync::{Arc, Weak};

use sluice_schemas::{DataForm, Event};

use super::rig::{Setup, event};
use crate::store::Slot;

const EVENTS: u64 = 4000;
const EVENT_BYTES: usize = 16 << 10;
/// What the log keeps of the newest events, and each trigger of what it has in flight.
const ALIVE_MAX: usize = (12 << 20) / EVENT_BYTES + 32 + 64;

fn large(n: u64) -> Event {
    let event = event(&n.to_string(), "com.example.tested", Some(&(n % 50).to_string()));
    let attributes = event.attributes().map(|(name, value)| (name.into(), value.clone())).collect();
    let data =
        Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/s");
    let data = data.attribute("type", "t").data(vec![b'.'; EVENT_BYTES], DataForm::Opaque).build().unwrap();
    Event::from_stored(attributes, data.data().cloned())
}

#[test]
fn a_sink_that_hangs_holds_little_memory_and_nobody_else_up() {
    let setup = Setup {
        outstanding: 2000,
        ..Setup::new(
            "hung: { sink: http://hung, delivery: { timeout: 30s } }, \
             ordered: { sink: http://hung, delivery: { timeout: 30s, order: partitionkey } }, \
             well: { sink: http://well }, also: { sink: http://well, delivery: { concurrency: 1 } }",
            |sink, _, attempt| if sink == "hung" && attempt < 3 { "hang" } else { "200" },
        )
    };
    setup.play(async |broker| {
        let mut published: Vec<Weak<Event>> = Vec::new();
        for n in 0..EVENTS {
            let event = Arc::new(large(n));
            let offset = broker.publish_event(Event::clone(&event)).await;
            drop(event);
            let stored = broker.dispatch.log().reader().recent(offset).expect("it was stored a moment ago");
            published.push(Arc::downgrade(&stored.event));
        }
        broker.settle().await;

        // No time has passed, or next to none: those that are well have everything, the hanging ones what they may hold.
        assert_eq!((broker.books("well").delivered, broker.books("also").delivered), (EVENTS, EVENTS));
        for name in ["hung", "ordered"] {
            let books = broker.books(name);
            assert_eq!((books.matched, books.delivered, books.pending()), (EVENTS, 0, EVENTS), "{name}");
            let core = broker.dispatch.core();
            let id = core.state.set.triggers.iter().find(|entry| entry.name == name).unwrap().id;
            let (state, runtime) = (&core.state.triggers[&id], &core.runtimes[&id]);
            assert_eq!(runtime.in_flight.len(), 32, "{name}");
            assert!(state.outstanding.len() <= 2000 / 4, "{name}: {}", state.outstanding.len());
        }
        assert!(size_of::<Slot>() <= 24);
        let alive = published.iter().filter(|event| event.strong_count() > 0).count();
        assert!(alive <= ALIVE_MAX, "{alive} of {EVENTS} events are in memory");

        // The sink answers each event's third attempt: everything is delivered, once.
        broker.at(200_000.0).await;
        for name in ["hung", "ordered", "well", "also"] {
            let books = broker.books(name);
            assert_eq!(
                (books.seen(), books.delivered, books.pending()),
                (EVENTS, EVENTS, 0),
                "{name}: {books:?}"
            );
        }
        let before = ["hung", "ordered", "well", "also"].map(|name| broker.books(name));
        broker.kill_and_restart().await;
        assert_eq!(before, ["hung", "ordered", "well", "also"].map(|name| broker.books(name)));
    });
}
