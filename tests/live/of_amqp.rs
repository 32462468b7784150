//! What only a source of AMQP does.

use crate::python::amqp;
use crate::rig::{Stored, run};
use crate::stories::{Story, tell};
use crate::systems::System;

/// How many messages wait in a queue.
const COUNT: &str = "print(channel.queue_declare(sys.argv[2], passive=True).method.message_count)";

fn yaml(story: &Story, more: &str) -> String {
    let address = story.system.address(story.services);
    let place = &story.place;
    format!("amqp: {{ url: \"amqp://sluice:open-sesame@{address}/%2f\", queue: {place}{more} }}")
}

impl Story {
    pub fn amqp(&self, lines: &str) -> String {
        amqp(self.services, lines, &[&self.place])
    }
}

#[test]
fn a_queue_is_declared_and_bound() {
    tell(System::Amqp, "a_queue_is_declared_and_bound", async |story| {
        let declare = ", declare: { durable: true, arguments: { x-max-length: 1000, x-queue-mode: lazy }, \
                       bind: [{ exchange: amq.topic, routing_key: \"pay.#\" }, { exchange: amq.direct, routing_key: due }] }";
        let running = run(&story.store, &yaml(&story, declare));
        story.store.until("it is up", Stored::is_up).await;
        story.amqp(
            "for exchange, key in [('amq.topic', 'pay.in'), ('amq.direct', 'due'), ('amq.topic', 'other')]:\n \
             channel.basic_publish(exchange, key, key.encode())",
        );
        story.store.until("two events", |stored| stored.events.len() == 2).await;
        running.stop().await;
        // Declared again, as it is.
        story.amqp("channel.basic_publish('amq.direct', 'due', b'again')");
        let _running = run(&story.store, &yaml(&story, declare));
        story.store.until("a third event", |stored| stored.events.len() == 3).await;
        let stored = story.store.lock();
        let bodies: Vec<_> = stored.events.iter().map(|event| event.data().unwrap().bytes.clone()).collect();
        assert_eq!(bodies, ["pay.in", "due", "again"]);
        assert!(stored.down.is_empty(), "{:?}", stored.down);
    });
}

#[test]
fn a_queue_that_is_another_is_a_reason_and_is_left_alone() {
    tell(System::Amqp, "a_queue_that_is_another_is_a_reason_and_is_left_alone", async |story| {
        story.amqp(
            "channel.queue_declare(sys.argv[2], durable=True)\nchannel.confirm_delivery()\n\
             for number in range(3): channel.basic_publish('', sys.argv[2], b'x')",
        );
        let declare = ", declare: { durable: true, arguments: { x-max-length: 10 } }";
        let running = run(&story.store, &yaml(&story, declare));
        story.store.until("it was down several times", |stored| stored.down.len() >= 3).await;
        running.stop().await;
        for down in &story.store.lock().down {
            assert!(down.contains(&story.place) && down.contains("x-max-length"), "{down}");
        }
        assert!(!story.store.lock().is_up());
        let first = story.amqp(
            "method, _, _ = channel.basic_get(sys.argv[2])\nprint(method.redelivered, method.message_count)",
        );
        assert_eq!(first, "False 2", "nobody was given a message");
        // As it is, it can be read.
        let _running = run(&story.store, &yaml(&story, ""));
        story.store.until("three events", |stored| stored.events.len() == 3).await;
    });
}

#[test]
fn attributes_are_headers_of_either_family_and_of_any_type() {
    tell(System::Amqp, "attributes_are_headers_of_either_family_and_of_any_type", async |story| {
        story.amqp(
            "channel.queue_declare(sys.argv[2], durable=True)\n\
             channel.confirm_delivery()\n\
             def send(family, number, more, content_type='text/plain'):\n \
             named = {'specversion': '1.0', 'id': str(number), 'source': '/foreign', 'type': 't', **more}\n \
             headers = {name if ':' in name else family + name: value for name, value in named.items()}\n \
             channel.basic_publish('', sys.argv[2], b'hi', pika.BasicProperties(content_type=content_type, headers=headers))\n\
             for number, family in enumerate(['ce-', 'cloudEvents:', 'cloudEvents_']):\n \
             send(family, number, {'ownint': 42, 'ownbool': True, 'ownbytes': b'\\x01\\x02', 'ownnone': None})\n\
             send('ce-', 3, {'cloudEvents:subject': 's'})\n\
             send('ce-', 4, {'owntable': {'a': 1}})\n\
             send('ce-', 5, {}, None)\n",
        );
        let running = run(&story.store, &yaml(&story, ""));
        story
            .store
            .until("four events and two aside", |stored| stored.events.len() + stored.aside.len() == 6)
            .await;
        running.stop().await;
        let stored = story.store.lock();
        assert_eq!(stored.ids(), [0, 1, 2, 5]);
        for event in &stored.events[..3] {
            assert_eq!((event.text("ownint"), event.text("ownbool")), (Some("42"), Some("true")));
            assert_eq!((event.text("ownnone"), event.datacontenttype()), (None, Some("text/plain")));
        }
        let reasons: Vec<_> = stored.aside.iter().map(|aside| &*aside.unfit.detail).collect();
        assert_eq!(
            reasons,
            [
                "headers that begin with `ce-` and with `cloudEvents:` are mixed",
                "header `ce-owntable` is a table: no attribute can be one"
            ]
        );
        drop(stored);
        assert_eq!(story.amqp(COUNT), "0", "what is put aside is acknowledged, too");
    });
}

#[test]
fn a_queue_that_goes_away_is_a_reason_until_it_is_back() {
    tell(System::Amqp, "a_queue_that_goes_away_is_a_reason_until_it_is_back", async |story| {
        story.create().await;
        let _running = run(&story.store, &yaml(&story, ""));
        story.send(&[story.system.binary(0)]);
        story.store.until("an event", |stored| stored.events.len() == 1).await;
        story.amqp("channel.queue_delete(sys.argv[2])");
        story.store.until("it is down", |stored| stored.down.len() >= 2).await;
        assert!(story.store.lock().down.iter().all(|down| down.contains(&story.place)));
        story.send(&[story.system.binary(1)]);
        story.store.until("it flows again", |stored| stored.events.len() == 2).await;
    });
}
