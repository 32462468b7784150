//! What a system does not take: outcomes, retries and dead letters as for HTTP.

use serde_json::Value;

use crate::story::{Story, Yaml};
use crate::systems::System;

pub async fn a_place_that_is_missing_is_retried_until_it_is_there(story: Story) {
    let (system, services) = (story.system, story.services);
    let sink = system.sink(&story.plain(), &story.outward, "binary");
    let yaml = Yaml::default()
        .source("back", &system.source(&story.plain(), &story.outward))
        .trigger("patient", "http", &sink, "")
        .trigger("impatient", "http", &sink, ", retry: 1");
    let running = story.start(&yaml).await;
    let words = match system {
        System::Kafka => "UnknownTopic",
        // `mandatory`: without it, what no queue takes is confirmed.
        System::Amqp => "NO_ROUTE",
        System::Nats => "no stream listens to subject",
    };
    for id in ["0", "1", "2"] {
        assert_eq!(running.publish(id, "x".into()).await, 202);
    }
    for letter in running.dead_letters("impatient", 3).await {
        assert_attempts(&letter, "attempts", 2, words);
    }
    let says_why = async || {
        running.trigger("patient").await["last_error"]["error"]
            .as_str()
            .is_some_and(|why| why.contains(words))
    };
    running.until("it says why they wait", says_why).await;
    let patient = running.trigger("patient").await;
    assert_eq!((&patient["pending"], &patient["dead"]), (&3.into(), &0.into()), "{patient}");

    system.create(services, &story.outward, 1).await;
    running.until("they are delivered", async || running.trigger("patient").await["delivered"] == 3).await;
    let came = async || running.list("events?via=back").await.len();
    running.until("they are there", async || came().await == 3).await;
    running.stop().await;
}

pub async fn what_can_never_be_sent_is_a_dead_letter_at_once(story: Story) {
    story.create(1).await;
    let system = story.system;
    let sink = system.sink(&story.plain(), &story.outward, "binary");
    // AMQP knows no size that is too large; a routing key can be too long.
    let too_long = format!("{}{{event.id}}", "k".repeat(255));
    let (sink, data, words) = match system {
        System::Kafka => (sink, 2 << 20, "Message size too large"),
        System::Amqp => (sink.replace(&story.outward, &too_long), 1, "has more than 255 bytes"),
        System::Nats => (sink, 2 << 20, "exceed"),
    };
    let fine = system.sink(&story.plain(), &story.outward, "binary");
    let mut yaml = Yaml::default()
        .source("back", &system.source(&story.plain(), &story.outward))
        .trigger("refused", "http", &sink, "")
        .trigger("fine", "http", &fine, ", retry: 0");
    yaml.limits = "event_bytes: 4MiB".into();
    if system == System::Amqp {
        let missing = sink.replace("exchange: \"\"", "exchange: missing").replace(&too_long, "k");
        yaml = yaml.trigger("nowhere", "http", &missing, ", retry: 1");
    }
    let running = story.start(&yaml).await;
    assert_eq!(running.publish("large", vec![b'x'; data].into()).await, 202);
    assert_attempts(&running.dead_letters("refused", 1).await[0], "rejected", 1, words);
    if system == System::Amqp {
        assert_attempts(&running.dead_letters("nowhere", 1).await[0], "attempts", 2, "missing");
    }
    // The sink is as good as before.
    assert_eq!(running.publish("small", "x".into()).await, 202);
    let came = async || running.list("events?via=back").await.iter().any(|event| event["id"] == "small");
    running.until("the next is there", async || came().await).await;
    running.stop().await;
}

fn assert_attempts(letter: &Value, reason: &str, attempts: usize, words: &str) {
    assert_eq!(
        (&letter["reason"], letter["attempts"].as_array().unwrap().len()),
        (&reason.into(), attempts),
        "{letter}"
    );
    assert!(letter["detail"].as_str().unwrap().contains(words), "{letter}");
    assert!(letter["attempts"][0]["error"].as_str().unwrap().contains(words), "{letter}");
}
