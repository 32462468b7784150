//! What each system must do, told once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_adapters::Report;

use crate::proxy::{Proxy, Wire};
use crate::rig::{Store, run};
use crate::services::{Services, services};
use crate::systems::{Access, Authority, Sent, System};

const COUNT: usize = 200;

macro_rules! stories {
    ($($story:ident)*) => {
        mod kafka { $(#[test] fn $story() { super::tell(super::System::Kafka, stringify!($story), super::$story); })* }
        mod amqp { $(#[test] fn $story() { super::tell(super::System::Amqp, stringify!($story), super::$story); })* }
        mod nats { $(#[test] fn $story() { super::tell(super::System::Nats, stringify!($story), super::$story); })* }
    };
}

stories! {
    foreign_events_arrive_in_order_with_all_they_carry
    what_is_no_event_is_wrapped_and_what_claims_to_be_one_is_put_aside
    nothing_is_lost_when_the_source_is_killed
    nothing_is_lost_when_the_server_is_killed
    nothing_is_lost_when_the_wire_is_cut
    a_silent_wire_is_noticed
    a_full_store_is_waited_for
    two_sources_share_the_work
    a_server_that_is_away_is_a_reason
    a_place_that_is_missing_is_a_reason
}

/// A place of its own for each story; one story at a time, because some kill servers.
pub struct Story {
    pub system: System,
    pub services: &'static Services,
    pub place: String,
    pub store: Arc<Store>,
}

pub fn tell<F: Future<Output = ()>>(system: System, name: &str, story: impl FnOnce(Story) -> F) {
    crate::said::listen();
    let _turn = system.turn();
    let Some(services) = services() else { return };
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let words: String = name.split('_').filter_map(|word| word.chars().next()).collect();
    let place = format!("{words}{}", NUMBER.fetch_add(1, Ordering::Relaxed)).to_uppercase();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(story(Story { system, services, place, store: Arc::default() }));
    runtime.shutdown_timeout(Duration::from_secs(5));
}

impl Story {
    pub fn yaml(&self) -> String {
        self.system.source(&self.system.plain(self.services), &self.place)
    }

    /// As it is for a client behind a wire.
    async fn behind_proxy(&self) -> (Proxy, String) {
        let proxy = self.system.behind_proxy(self.services).await;
        let access = self.system.plain_at(proxy.address.to_string());
        let yaml = self.system.source(&access, &self.place);
        (proxy, yaml)
    }

    pub fn send(&self, sent: &[Sent]) {
        self.system.send(self.services, &self.place, sent);
    }

    pub fn send_numbered(&self, numbers: std::ops::Range<usize>) {
        self.send(&numbers.map(|number| self.system.binary(number)).collect::<Vec<_>>());
    }

    pub async fn create(&self) {
        self.system.create(self.services, &self.place, 1).await;
    }

    /// Each once in the store, and nothing else. Order is asked for where nothing was sent twice.
    pub async fn until_all(&self, count: usize) {
        self.store.until(&format!("{count} events"), |stored| stored.events.len() >= count).await;
        let mut ids = self.store.lock().ids();
        ids.sort_unstable();
        assert_eq!(ids, (0..count).collect::<Vec<_>>());
    }
}

async fn foreign_events_arrive_in_order_with_all_they_carry(story: Story) {
    story.create().await;
    let running = run(&story.store, &story.yaml());
    let both = (0..COUNT).map(|number| match number % 2 {
        0 => story.system.binary(number),
        _ => story.system.structured(number),
    });
    story.send(&both.collect::<Vec<_>>());
    story.until_all(COUNT).await;
    assert_eq!(story.store.lock().ids(), (0..COUNT).collect::<Vec<_>>(), "in order");
    for (number, event) in story.store.lock().events.iter().enumerate() {
        assert_eq!((event.source(), event.ty()), ("/foreign", "com.example.sent"));
        assert_eq!((event.subject(), event.text("ownext")), (Some("kept"), Some("42")));
        assert_eq!(event.datacontenttype(), Some("application/json"));
        let data = event.data().expect("there").bytes.clone();
        assert_eq!(data, format!("{{\"n\": {number}}}").as_bytes());
    }
    running.stop().await;
    // What is acknowledged does not come again.
    let _running = run(&story.store, &story.yaml());
    story.send_numbered(COUNT..COUNT + 1);
    story.until_all(COUNT + 1).await;
    assert_eq!(story.store.lock().duplicates, 0);
}

async fn what_is_no_event_is_wrapped_and_what_claims_to_be_one_is_put_aside(story: Story) {
    story.create().await;
    let plain = |body: &str| Sent {
        headers: vec![("other".into(), "1".into())],
        content_type: Some("text/plain".into()),
        body: body.into(),
    };
    let broken = Sent { headers: story.system.binary(1).headers.split_off(1), ..plain("broken") };
    story.send(&[plain("one"), broken, plain("two")]);
    let yaml = format!("{}\nevent: {{ type: \"com.example.{{headers.other}}\" }}", story.yaml());
    let _running = run(&story.store, &yaml);
    story
        .store
        .until("two events and one aside", |stored| stored.events.len() == 2 && stored.aside.len() == 1)
        .await;
    let stored = story.store.lock();
    for (event, body) in stored.events.iter().zip(["one", "two"]) {
        assert_eq!(
            (event.source(), event.ty(), event.datacontenttype()),
            ("/live", "com.example.1", Some("text/plain"))
        );
        assert_eq!(event.data().expect("there").bytes, body.as_bytes());
    }
    let aside = &stored.aside[0];
    assert_eq!(aside.unfit.detail, "attribute `specversion` is required");
    assert_eq!(aside.record.body.as_deref(), Some(&b"broken"[..]));
}

async fn nothing_is_lost_when_the_source_is_killed(story: Story) {
    story.create().await;
    let running = run(&story.store, &story.yaml());
    story.send_numbered(0..COUNT);
    story.store.until("some events", |stored| !stored.events.is_empty()).await;
    drop(running);
    story.send_numbered(COUNT..2 * COUNT);
    let _running = run(&story.store, &story.yaml());
    story.until_all(2 * COUNT).await;
    assert!(story.store.lock().duplicates <= COUNT, "what was acknowledged does not come again");
}

async fn nothing_is_lost_when_the_server_is_killed(story: Story) {
    story.create().await;
    let _running = run(&story.store, &story.yaml());
    story.send_numbered(0..COUNT);
    story.until_all(COUNT).await;
    story.services.kill(story.system.server());
    story.store.until("the source is down", |stored| !stored.down.is_empty()).await;
    story.services.start(story.system.server());
    story.send_numbered(COUNT..2 * COUNT);
    story.until_all(2 * COUNT).await;
}

async fn nothing_is_lost_when_the_wire_is_cut(story: Story) {
    story.create().await;
    let (proxy, yaml) = story.behind_proxy().await;
    let _running = run(&story.store, &yaml);
    story.send_numbered(0..COUNT);
    story.store.until("some events", |stored| !stored.events.is_empty()).await;
    proxy.set(Wire::Cut);
    story.send_numbered(COUNT..2 * COUNT);
    proxy.set(Wire::Flows);
    story.until_all(2 * COUNT).await;
}

async fn a_silent_wire_is_noticed(story: Story) {
    story.create().await;
    let (proxy, yaml) = story.behind_proxy().await;
    let _running = run(&story.store, &yaml);
    story.send_numbered(0..COUNT);
    story.until_all(COUNT).await;
    proxy.set(Wire::Silent);
    let since = Instant::now();
    story.send_numbered(COUNT..2 * COUNT);
    if story.system != System::Kafka {
        // librdkafka makes a connection of its own again, and says nothing.
        story.store.until("the source is down", |stored| !stored.down.is_empty()).await;
    }
    // Connections that were silent stay so; new ones flow.
    proxy.set(Wire::Flows);
    story.until_all(2 * COUNT).await;
    assert!(since.elapsed() < Duration::from_secs(45), "took {:?}", since.elapsed());
}

async fn a_full_store_is_waited_for(story: Story) {
    story.create().await;
    story.store.is_full.store(true, Ordering::Relaxed);
    let _running = run(&story.store, &story.yaml());
    // More than waits in memory, so that the source has to stop taking.
    story.send_numbered(0..8 * COUNT);
    let full_since = Instant::now();
    let ten_seconds =
        |stored: &crate::rig::Stored| stored.refused > 4 && full_since.elapsed() > Duration::from_secs(10);
    story.store.until("refused for ten seconds", ten_seconds).await;
    {
        let stored = story.store.lock();
        assert!(stored.events.is_empty());
        assert!(stored.down.is_empty(), "a full store is no reason to be down: {:?}", stored.down);
        assert!(stored.reports.iter().any(|report| matches!(report, Report::Stalled(_))));
        assert!(
            !stored.reports.iter().any(|report| matches!(report, Report::Position(_))),
            "nothing is acknowledged"
        );
    }
    story.store.is_full.store(false, Ordering::Relaxed);
    story.until_all(8 * COUNT).await;
    let stored = story.store.lock();
    assert_eq!(stored.ids(), (0..8 * COUNT).collect::<Vec<_>>(), "in order");
    assert_eq!(stored.duplicates, 0);
}

async fn two_sources_share_the_work(story: Story) {
    story.system.create(story.services, &story.place, 4).await;
    let one = run(&story.store, &story.yaml());
    story.store.until("one is up", crate::rig::Stored::is_up).await;
    let _other = run(&story.store, &story.yaml());
    story.send_numbered(0..COUNT);
    story.until_all(COUNT).await;
    // The other goes on alone.
    one.stop().await;
    story.send_numbered(COUNT..2 * COUNT);
    story.until_all(2 * COUNT).await;
    assert!(story.store.lock().duplicates <= COUNT);
}

async fn a_server_that_is_away_is_a_reason(story: Story) {
    // Bound and dropped: nobody listens there.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let _running =
        run(&story.store, &story.system.source(&story.system.plain_at(address.clone()), &story.place));
    story.store.until("the source is down", |stored| !stored.down.is_empty()).await;
    let stored = story.store.lock();
    assert!(stored.down[0].contains(&address) && stored.down[0].contains("refused"), "{:?}", stored.down);
    assert!(!stored.is_up());
}

async fn a_place_that_is_missing_is_a_reason(story: Story) {
    let _running = run(&story.store, &story.yaml());
    story.store.until("the source is down", |stored| !stored.down.is_empty()).await;
    let stored = story.store.lock();
    assert!(stored.down[0].contains(&story.place), "{:?}", stored.down);
}

mod access {
    //! TLS with an authority of the test's own, SASL, user and password; and what happens when they are wrong.

    use super::*;

    fn check(
        system: System,
        name: &'static str,
        yaml: impl FnOnce(&Services, &str) -> String,
        refused: &'static [&'static str],
    ) {
        tell(system, name, async move |story| {
            story.create().await;
            let _running = run(&story.store, &yaml(story.services, &story.place));
            if refused.is_empty() {
                story.send_numbered(0..3);
                return story.until_all(3).await;
            }
            story.store.until("the source is down", |stored| !stored.down.is_empty()).await;
            let down = story.store.lock().down[0].to_lowercase();
            assert!(refused.iter().any(|word| down.contains(word)), "{down}");
            assert!(!down.contains("wrong-password"), "{down}");
        });
    }

    fn secured(system: System, services: &Services, place: &str, password: &'static str) -> String {
        system.source(&system.secured(services, password, Authority::of_the_test(services)), place)
    }

    fn with_unknown_authority(system: System, services: &Services, place: &str) -> String {
        system.source(&system.secured(services, "open-sesame", Authority::OfTheMachine), place)
    }

    #[test]
    fn kafka_by_tls() {
        let yaml = |services: &Services, place: &str| {
            let address = services.at("SLUICE_KAFKA_TLS").to_owned();
            let tls = Some(Authority::of_the_test(services));
            System::Kafka.source(&Access { address, password: None, tls }, place)
        };
        check(System::Kafka, "kafka_by_tls", yaml, &[]);
    }

    #[test]
    fn kafka_by_plain() {
        let yaml = |services: &Services, place: &str| {
            secured(System::Kafka, services, place, "open-sesame").replace("SCRAM-SHA-256", "PLAIN")
        };
        check(System::Kafka, "kafka_by_plain_sasl", yaml, &[]);
    }

    macro_rules! logins {
        ($($system:ident $by:ident $refused:ident $unknown:ident: $words:expr, $of_certificates:expr;)*) => { $(
            #[test]
            fn $by() {
                let yaml = |services: &Services, place: &str| secured(System::$system, services, place, "open-sesame");
                check(System::$system, stringify!($by), yaml, &[]);
            }

            #[test]
            fn $refused() {
                let yaml = |services: &Services, place: &str| secured(System::$system, services, place, "wrong-password");
                check(System::$system, stringify!($refused), yaml, &$words);
            }

            #[test]
            fn $unknown() {
                let yaml = |services: &Services, place: &str| with_unknown_authority(System::$system, services, place);
                check(System::$system, stringify!($unknown), yaml, &$of_certificates);
            }
        )* };
    }

    logins! {
        Kafka kafka_by_scram kafka_refuses_a_wrong_password kafka_with_an_authority_that_is_not_known:
            ["authentication"], ["certificate"];
        Amqp amqp_by_tls amqp_refuses_a_wrong_password amqp_with_an_authority_that_is_not_known:
            ["access_refused", "access-refused", "refused"], ["certificate", "issuer"];
        Nats nats_by_tls nats_refuses_a_wrong_password nats_with_an_authority_that_is_not_known:
            ["authorization"], ["certificate", "tls"];
    }
}
