//! TLS by the test's own authority and logins, for sources and sinks; and wrong ones beside them.

use crate::story::Story;
use crate::systems::{Authority, System};

const COUNT: usize = 20;

pub async fn tls_and_logins_open_what_they_are_for_and_nothing_else_suffers(story: Story) {
    story.create(1).await;
    let (system, services) = (story.system, story.services);
    let ours = || Authority::of_the_test(services);
    let right = system.secured(services, "open-sesame", ours());
    let wrong = system.secured(services, "wrong-password", ours());
    let unknown = system.secured(services, "open-sesame", Authority::OfTheMachine);
    let [through_wrong, through_unknown] =
        [&wrong, &unknown].map(|access| system.sink(access, &story.outward, "binary"));
    // Nobody is let in as far as these.
    let elsewhere = ["WRONG", "UNKNOWN"].map(|name| format!("{}{name}", story.inward));
    let yaml = story
        .there_and_back(&right, &right, "binary")
        .source("wrong", &system.source(&wrong, &elsewhere[0]))
        .source("unknown", &system.source(&unknown, &elsewhere[1]))
        .trigger("refused", "http", &through_wrong, ", retry: 0")
        .trigger("distrusting", "http", &through_unknown, ", retry: 0");
    let running = story.start(&yaml).await;
    story.send(0..COUNT);
    running.until_all(COUNT).await;

    let (login, certificate): (&[&str], &[&str]) = match system {
        System::Kafka => (&["authentication"], &["certificate"]),
        System::Amqp => (&["access_refused", "access-refused", "refused"], &["certificate", "issuer"]),
        System::Nats => (&["authorization"], &["certificate", "tls"]),
    };
    let reasons = [("wrong", login), ("unknown", certificate)];
    for (name, words) in reasons {
        let source = running.until_source_is(name, "down").await;
        assert_says(source["error"].as_str().unwrap(), words);
    }
    let not_up = running.assert_degraded_by(&["unknown", "wrong"]).await;
    for (name, words) in reasons {
        assert_says(not_up[name].as_str().unwrap(), words);
    }

    assert_eq!(running.publish("one", "x".into()).await, 202);
    for (name, words) in [("refused", login), ("distrusting", certificate)] {
        let letters = running.dead_letters(name, 1).await;
        assert_eq!(letters[0]["reason"], "attempts", "{letters:?}");
        assert_says(letters[0]["detail"].as_str().unwrap(), words);
    }
    assert!(!running.broker.log().contains("wrong-password"), "{}", running.broker.log());
    running.stop().await;
}

fn assert_says(text: &str, words: &[&str]) {
    let lower = text.to_lowercase();
    assert!(words.iter().any(|word| lower.contains(word)), "{text} says none of {words:?}");
    assert!(!lower.contains("wrong-password"), "{text}");
}
