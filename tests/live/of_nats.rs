//! What only a source of NATS does.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sluice_adapters::Report;

use crate::python::nats;
use crate::rig::{Stored, run};
use crate::stories::{Story, tell};
use crate::systems::System;

fn core(story: &Story, more: &str) -> String {
    let address = story.system.address(story.services);
    let subject = story.place.to_lowercase();
    format!(
        "nats: {{ servers: [\"nats://{address}\"], subjects: [\"{subject}.>\"], allow_lossy: true{more} }}"
    )
}

impl Story {
    pub fn nats(&self, lines: &str) -> String {
        nats(self.services, lines, &[&self.place])
    }
}

#[test]
fn a_consumer_that_cannot_be_used_is_a_reason() {
    tell(System::Nats, "a_consumer_that_cannot_be_used_is_a_reason", async |story| {
        story.create().await;
        for (config, reason) in [
            ("durable_name='sluice', deliver_subject='x', ack_policy=AckPolicy.EXPLICIT", "push consumer"),
            ("durable_name='sluice', ack_policy=AckPolicy.NONE", "no explicit acknowledgements"),
            ("durable_name='sluice', ack_policy=AckPolicy.ALL", "no explicit acknowledgements"),
            ("name='sluice', ack_policy=AckPolicy.EXPLICIT, inactive_threshold=60", "not durable"),
        ] {
            story.nats(&format!("await stream.add_consumer(sys.argv[2], ConsumerConfig({config}))"));
            story.store.lock().down.clear();
            let running = run(&story.store, &story.yaml());
            story.store.until("the source is down", |stored| !stored.down.is_empty()).await;
            running.stop().await;
            let down = story.store.lock().down[0].clone();
            assert!(down.contains("consumer `sluice`") && down.contains(&story.place), "{down}");
            assert!(down.contains(reason), "{config}: {down}");
            story.nats("await stream.delete_consumer(sys.argv[2], 'sluice')");
        }
        assert!(!story.store.lock().is_up());
    });
}

#[test]
fn a_consumer_that_exists_is_used_as_it_is() {
    tell(System::Nats, "a_consumer_that_exists_is_used_as_it_is", async |story| {
        story.create().await;
        let subject = story.place.to_lowercase();
        story.nats(&format!(
            "for name in ['b', 'a', 'b']: await stream.publish('{subject}.' + name, name.encode())\n\
             await stream.add_consumer(sys.argv[2], ConsumerConfig(durable_name='sluice', ack_policy=AckPolicy.EXPLICIT, \
             filter_subject='{subject}.b', max_ack_pending=1))"
        ));
        // The file says another filter: that of a consumer which is made.
        let yaml = story.yaml().replace("consumer: sluice", "consumer: sluice, filter_subjects: [\"a.>\"]");
        let running = run(&story.store, &yaml);
        story.store.until("two events", |stored| stored.events.len() == 2).await;
        running.stop().await;
        let ids: Vec<_> = story.store.lock().events.iter().map(|event| event.id().to_owned()).collect();
        assert_eq!(ids, [format!("{}/1", story.place), format!("{}/3", story.place)]);
        let left = story.nats(
            "info = await stream.consumer_info(sys.argv[2], 'sluice')\n\
             print(info.config.filter_subject, info.config.max_ack_pending, info.num_pending, info.num_ack_pending)",
        );
        assert_eq!(left, format!("{subject}.b 1 0 0"));
    });
}

#[test]
fn a_consumer_that_is_made_has_what_the_file_says() {
    tell(System::Nats, "a_consumer_that_is_made_has_what_the_file_says", async |story| {
        story.create().await;
        let subject = story.place.to_lowercase();
        story.nats(&format!(
            "for name in ['a', 'b', 'c.d']: await stream.publish('{subject}.' + name, name.encode())"
        ));
        let filters = format!("filter_subjects: [\"{subject}.b\", \"{subject}.c.>\"], consumer");
        let _running = run(&story.store, &story.yaml().replace("consumer", &filters));
        story.store.until("two events", |stored| stored.events.len() == 2).await;
        let made = story.nats(
            "found = (await stream.consumer_info(sys.argv[2], 'sluice')).config\n\
             print(found.durable_name, found.ack_policy, found.deliver_policy, found.max_deliver)",
        );
        assert_eq!(made, "sluice explicit all -1");
    });
}

#[test]
fn a_consumer_that_goes_away_is_made_again() {
    tell(System::Nats, "a_consumer_that_goes_away_is_made_again", async |story| {
        story.create().await;
        let _running = run(&story.store, &story.yaml());
        story.send(&[story.system.binary(0)]);
        story.store.until("an event", |stored| stored.events.len() == 1).await;
        story.nats("await stream.delete_consumer(sys.argv[2], 'sluice')");
        story.store.until("it is down", |stored| !stored.down.is_empty()).await;
        story.send(&[story.system.binary(1)]);
        story.store.until("it flows again", |stored| stored.events.len() == 2).await;
        story.nats("await stream.delete_stream(sys.argv[2])");
        story
            .store
            .until("the stream is missing", |stored| {
                stored.down.last().is_some_and(|down| down.contains(&format!("stream `{}`", story.place)))
            })
            .await;
        story.send(&[story.system.binary(2)]);
        story.store.until("it flows once more", |stored| stored.events.len() == 3).await;
    });
}

#[test]
fn a_stream_that_forgets_is_warned_of() {
    tell(System::Nats, "a_stream_that_forgets_is_warned_of", async |story| {
        story.nats(
            "await stream.add_stream(name=sys.argv[2], subjects=[sys.argv[2].lower() + '.>'], max_age=60, storage='memory')",
        );
        let _running = run(&story.store, &story.yaml());
        story.store.until("it is up", Stored::is_up).await;
        crate::said::until(&[&story.place, "its storage is memory, its max_age is 60s"]).await;
    });
}

#[test]
fn a_queue_group_shares_the_subjects_of_core_nats() {
    tell(System::Nats, "a_queue_group_shares_the_subjects_of_core_nats", async |story| {
        let yaml = core(&story, ", queue_group: sluice");
        let both = [run(&story.store, &yaml), run(&story.store, &yaml)];
        let two_up = |stored: &Stored| {
            stored.reports.iter().filter(|report| **report == sluice_adapters::Report::Up).count() == 2
        };
        story.store.until("both are up", two_up).await;
        let subject = story.place.to_lowercase();
        story.nats(&format!(
            "for number in range(100): await connection.publish('{subject}.x', b'%d' % number, \
             headers={{'ce-specversion': '1.0', 'ce-id': str(number), 'ce-source': '/foreign', 'ce-type': 't'}})"
        ));
        story.store.until("a hundred events", |stored| stored.events.len() == 100).await;
        for running in both {
            running.stop().await;
        }
        assert_eq!(story.store.lock().duplicates, 0, "each went to one of the two");
        // What nobody listens to is lost.
        story.nats(&format!("await connection.publish('{subject}.x', b'lost')"));
        let _running = run(&story.store, &core(&story, ""));
        story
            .store
            .until("it is up", |stored| {
                stored.reports.iter().filter(|report| **report == sluice_adapters::Report::Up).count() == 3
            })
            .await;
        story.nats(&format!("await connection.publish('{subject}.y.z', b'plain')"));
        story.store.until("one more", |stored| stored.events.len() == 101).await;
        let stored = story.store.lock();
        let last = stored.events.last().unwrap();
        assert_eq!((last.ty(), &last.data().unwrap().bytes[..]), ("sluice.nats.message", &b"plain"[..]));
    });
}

/// Longer than a message may be unacknowledged, with more messages than wait in memory.
#[test]
fn nothing_is_delivered_again_while_the_store_is_full() {
    const COUNT: usize = 4000;
    tell(System::Nats, "nothing_is_delivered_again_while_the_store_is_full", async |story| {
        story.create().await;
        story.nats(
            "await stream.add_consumer(sys.argv[2], ConsumerConfig(durable_name='sluice', ack_policy=AckPolicy.EXPLICIT, \
             ack_wait=5, max_ack_pending=5000))",
        );
        story.store.is_full.store(true, Ordering::Relaxed);
        let _running = run(&story.store, &story.yaml());
        story.send_numbered(0..COUNT);
        let counted = || {
            story.nats(
                "info = await stream.consumer_info(sys.argv[2], 'sluice')\n\
                 print(info.delivered.consumer_seq, info.delivered.stream_seq, info.num_redelivered, info.num_ack_pending)",
            )
        };
        let numbers = |text: &str| text.split(' ').map(|word| word.parse().unwrap()).collect::<Vec<usize>>();
        let since = Instant::now();
        let is_long_ago = |stored: &Stored| stored.refused > 4 && since.elapsed() > Duration::from_secs(12);
        story.store.until("refused for more than twice as long", is_long_ago).await;
        let found = counted();
        let [delivered, reached, again, pending] = numbers(&found)[..] else { panic!("{found}") };
        assert!(pending > 500 && pending < COUNT / 2, "what is held is bounded: {found}");
        assert_eq!((delivered, again), (reached, 0), "each was delivered once: {found}");
        story.store.is_full.store(false, Ordering::Relaxed);
        story.until_all(COUNT).await;
        story
            .store
            .until("all are acknowledged", |stored| {
                stored.reports.contains(&Report::Position(format!("{}/{COUNT}", story.place)))
            })
            .await;
        assert_eq!(counted(), format!("{COUNT} {COUNT} 0 0"));
        let stored = story.store.lock();
        assert_eq!((stored.duplicates, stored.ids()), (0, (0..COUNT).collect()), "in order");
        assert!(stored.down.is_empty(), "{:?}", stored.down);
    });
}

#[test]
fn a_message_larger_than_one_pull_and_a_consumer_with_limits_are_no_obstacle() {
    tell(
        System::Nats,
        "a_message_larger_than_one_pull_and_a_consumer_with_limits_are_no_obstacle",
        async |story| {
            story.create().await;
            // The client in Python knows nothing of these limits.
            story.nats(
                "import json\n\
                 config = dict(durable_name='sluice', ack_policy='explicit', max_batch=3, max_expires=2000000000, max_bytes=1000)\n\
                 request = json.dumps(dict(stream_name=sys.argv[2], config=config)).encode()\n\
                 made = await connection.request('$JS.API.CONSUMER.DURABLE.CREATE.' + sys.argv[2] + '.sluice', request)\n\
                 assert b'error' not in made.data, made.data\n\
                 for size in [10, 5000, 20, 30, 40, 50]: await stream.publish(sys.argv[2].lower() + '.x', b'x' * size)",
            );
            let _running = run(&story.store, &story.yaml());
            story.store.until("six events", |stored| stored.events.len() == 6).await;
            story.nats("await stream.publish(sys.argv[2].lower() + '.x', b'late')");
            story.store.until("one more", |stored| stored.events.len() == 7).await;
            let stored = story.store.lock();
            let sizes: Vec<_> = stored.events.iter().map(|event| event.data().unwrap().bytes.len()).collect();
            assert_eq!((sizes, stored.duplicates), (vec![10, 5000, 20, 30, 40, 50, 4], 0));
            assert!(stored.down.is_empty(), "{:?}", stored.down);
        },
    );
}

/// The server says nothing when a request's bytes are used up to the last.
#[test]
fn a_request_whose_bytes_are_just_enough_is_over() {
    tell(System::Nats, "a_request_whose_bytes_are_just_enough_is_over", async |story| {
        story.create().await;
        // What the server counts is measured with a consumer whose name is as long.
        story.nats(
            "import json\n\
             for number in range(6): await stream.publish(sys.argv[2].lower() + '.x', b'%d' % number)\n\
             await stream.add_consumer(sys.argv[2], ConsumerConfig(durable_name='probes', ack_policy=AckPolicy.EXPLICIT))\n\
             probe = await stream.pull_subscribe_bind('probes', sys.argv[2])\n\
             [message] = await probe.fetch(1)\n\
             size = len(message.subject) + len(message.reply) + len(message.data)\n\
             config = dict(durable_name='sluice', ack_policy='explicit', max_bytes=2 * size)\n\
             request = json.dumps(dict(stream_name=sys.argv[2], config=config)).encode()\n\
             made = await connection.request('$JS.API.CONSUMER.DURABLE.CREATE.' + sys.argv[2] + '.sluice', request)\n\
             assert b'error' not in made.data, made.data",
        );
        let _running = run(&story.store, &story.yaml());
        story.store.until("six events", |stored| stored.events.len() == 6).await;
        let stored = story.store.lock();
        assert_eq!((stored.duplicates, &stored.down[..]), (0, &[][..]));
    });
}
