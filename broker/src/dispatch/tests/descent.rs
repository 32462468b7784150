//! Stories of deliveries, as an operator would tell them: replies, dead letters, triggers that go and come back. Waits are at their upper bound.

use std::time::Duration;

use expect_test::expect;

use super::rig::{Setup, check, event};

#[test]
fn replies_know_their_descent_and_end_at_the_limit_of_hops() {
    let setup = Setup {
        limits: "hops: 3",
        ..Setup::new(
            "ping: { sink: http://ping, filters: [{ exact: { type: ball } }] }, log: { sink: http://log }",
            |sink, _, _| if sink == "ping" { "200 reply +1 ball" } else { "200" },
        )
    };
    let text = setup.play(async |broker| {
        broker.publish_event(event("0", "ball", None)).await;
        broker.at(60.0).await;
    });
    expect![[r#"
        +0s     log 0 try 1 -> 200
        +0s     reply 1 to 0, 1 from the first
        +0s     ping 0 try 1 -> 200
        +0s     log 1 try 1 -> 200
        +0s     reply 2 to 1, 2 from the first
        +0s     ping 1 try 1 -> 200
        +0s     log 2 try 1 -> 200
        +0s     reply 3 to 2, 3 from the first
        +0s     ping 2 try 1 -> 200
        +0s     log 3 try 1 -> 200
        +0s     ping 3 try 1 -> 200, dead letter: loop
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_reply_that_is_sent_twice_is_stored_once() {
    check(
        "t: { sink: http://shop, filters: [{ exact: { type: order } }] }, log: { sink: http://log }",
        |sink, _, _| if sink == "shop" { "200 reply receipt paid" } else { "200" },
        async |broker| {
            broker.publish_event(event("a", "order", None)).await;
            broker.publish_event(event("b", "order", None)).await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     log a try 1 -> 200
            +0s     reply receipt to a, 1 from the first
            +0s     t a try 1 -> 200
            +0s     log b try 1 -> 200
            +0s     log receipt try 1 -> 200
            +0s     reply receipt to b, 1 from the first
            +0s     t b try 1 -> 200
        "#]],
    );
}

#[test]
fn a_dead_letter_sink_that_is_away_makes_its_own_wait_in_order_and_no_others() {
    check(
        "t: { sink: http://shop, dead_letter: http://graveyard }, u: { sink: http://shop, dead_letter: http://files }",
        |sink, _, attempt| match sink {
            "shop" => "400",
            "graveyard" if attempt < 3 => "503",
            _ => "200",
        },
        async |broker| {
            broker.publish("a").await;
            broker.publish("b").await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 400, dead letter: rejected
            +0s     u a try 1 -> 400, dead letter: rejected
            +0s     graveyard gets dead letter a: rejected, attempts 1 -> 503
            +0s     files gets dead letter a: rejected, attempts 1 -> 200
            +0s     told of a
            +0s     t b try 1 -> 400, dead letter: rejected
            +0s     u b try 1 -> 400, dead letter: rejected
            +0s     files gets dead letter b: rejected, attempts 1 -> 200
            +0s     told of b
            +1s     graveyard gets dead letter a: rejected, attempts 1 -> 503
            +3s     graveyard gets dead letter a: rejected, attempts 1 -> 200
            +3s     told of a
            +3s     graveyard gets dead letter b: rejected, attempts 1 -> 503
            +4s     graveyard gets dead letter b: rejected, attempts 1 -> 503
            +6s     graveyard gets dead letter b: rejected, attempts 1 -> 200
            +6s     told of b
        "#]],
    );
}

#[test]
fn a_dead_letter_sink_is_told_after_a_restart_what_it_was_not_told_before() {
    check(
        "t: { sink: http://shop, dead_letter: http://graveyard, delivery: { backoff_delay: 10s } }",
        |sink, _, attempt| match sink {
            "shop" => "400",
            _ if attempt < 2 => "503",
            _ => "200",
        },
        async |broker| {
            broker.publish("a").await;
            broker.at(5.0).await;
            broker.kill_and_restart().await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 400, dead letter: rejected
            +0s     graveyard gets dead letter a: rejected, attempts 1 -> 503
            +5.01s  graveyard gets dead letter a: rejected, attempts 1 -> 200
            +5.01s  told of a
        "#]],
    );
}

#[test]
fn a_removed_trigger_is_frozen_and_goes_on_at_its_place() {
    let both = "t: { sink: http://shop, delivery: { concurrency: 1 } }, u: { sink: http://mail }";
    check(
        both,
        |sink, id, attempt| match (sink, id, attempt) {
            ("shop", "a", 1) => "503 after 2s",
            ("shop", ..) => "200 after 2s",
            _ => "200",
        },
        async |broker| {
            broker.publish("a").await;
            broker.publish("b").await;
            broker.at(1.0).await;
            broker.reload("u: { sink: http://mail }").await;
            broker.publish("c").await;
            broker.at(100.0).await;
            broker.reload(both).await;
            broker.publish("d").await;
            broker.at(200.0).await;
        },
        &expect![[r#"
            +0s     u a try 1 -> 200
            +0s     u b try 1 -> 200
            +0s     t a try 1 -> 503, again in 1s
            +1s     u c try 1 -> 200
            +100s   u d try 1 -> 200
            +100s   t a try 2 -> 200
            +102s   t b try 1 -> 200
            +104s   t d try 1 -> 200
        "#]],
    );
}

#[test]
fn redrives_of_a_trigger_whose_order_changes_are_not_forgotten() {
    check(
        "t: { sink: http://shop, delivery: { concurrency: 1 } }",
        |_, id, attempt| match (id, attempt) {
            ("slow", _) => "200 after 5s",
            (_, 1) => "400",
            _ => "200",
        },
        async |broker| {
            broker.publish("a").await;
            broker.settle().await;
            broker.publish("slow").await;
            broker.settle().await;
            broker.redrive().await;
            broker.reload("t: { sink: http://shop, delivery: { concurrency: 1, order: subject } }").await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 400, dead letter: rejected
            +0.01s  t slow try 1 -> 200
            +5.01s  t a (redriven) try 1 -> 200
        "#]],
    );
}

const BURIED: &str =
    "t: { sink: http://shop, dead_letter: http://graveyard, delivery: { backoff_delay: 10s } }";

#[test]
fn a_stop_waits_for_the_dead_letter_that_is_being_told() {
    check(
        BURIED,
        |sink, _, _| if sink == "shop" { "400" } else { "200 after 5s" },
        async |broker| {
            broker.publish("a").await;
            broker.at(1.0).await;
            assert_eq!(broker.dispatch.drain(Duration::from_secs(20)).await, 0);
            broker.kill_and_restart().await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 400, dead letter: rejected
            +0s     graveyard gets dead letter a: rejected, attempts 1 -> 200 after 5s
            +5s     told of a
        "#]],
    );
}

#[test]
fn a_panic_while_one_sink_is_told_repeats_nothing_of_others() {
    check(
        "t: { sink: http://shop, dead_letter: http://graveyard }, u: { sink: http://shop, dead_letter: http://files }",
        |sink, _, attempt| match sink {
            "shop" => "400",
            "graveyard" if attempt == 1 => panic!("as it is told to"),
            "graveyard" => "200",
            _ => "200 after 5s",
        },
        async |broker| {
            broker.publish("a").await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 400, dead letter: rejected
            +0s     u a try 1 -> 400, dead letter: rejected
            +0s     files gets dead letter a: rejected, attempts 1 -> 200 after 5s
            +1s     graveyard gets dead letter a: rejected, attempts 1 -> 200
            +1s     told of a
            +5s     told of a
        "#]],
    );
}

#[test]
fn a_dead_letter_that_cannot_be_read_holds_up_no_other() {
    check(
        BURIED,
        |sink, _, attempt| match sink {
            "shop" => "400",
            _ if attempt < 2 => "503",
            _ => "200",
        },
        async |broker| {
            broker.publish("broken").await;
            broker.publish("b").await;
            broker.at(5.0).await;
            broker.kill_and_restart().await;
            broker.damage("broken");
            broker.at(20.0).await;
            let error = broker.last_error("t").expect("it is said");
            assert!(error.contains("dead-letter sink of offset 0: the frame of offset 0"), "{error}");
            broker.publish("c").await;
            broker.at(100.0).await;
            broker.repair("broken");
            broker.at(1000.0).await;
        },
        &expect![[r#"
            +0s     t broken try 1 -> 400, dead letter: rejected
            +0s     graveyard gets dead letter broken: rejected, attempts 1 -> 503
            +0s     t b try 1 -> 400, dead letter: rejected
            +5.01s  graveyard gets dead letter b: rejected, attempts 1 -> 503
            +15.01s graveyard gets dead letter b: rejected, attempts 1 -> 200
            +15.01s told of b
            +20s    t c try 1 -> 400, dead letter: rejected
            +20s    graveyard gets dead letter c: rejected, attempts 1 -> 503
            +30s    graveyard gets dead letter c: rejected, attempts 1 -> 200
            +30s    told of c
            +305.01s graveyard gets dead letter broken: rejected, attempts 1 -> 200
            +305.01s told of broken
        "#]],
    );
}

#[test]
fn a_dead_letter_sink_that_rests_is_not_looked_at_before_its_time() {
    let triggers =
        "t: { sink: http://shop, dead_letter: http://graveyard, delivery: { backoff_delay: 10s } }";
    let answers = |sink: &str, _: &str, _| if sink == "shop" { "400" } else { "503" };
    Setup::new(triggers, answers).play(async |broker| {
        broker.publish("a").await;
        for restarts in 0..2 {
            broker.at(f64::from(restarts) * 100.0 + 1.0).await;
            assert_eq!(broker.dispatch.core().state.owed.len(), 1);
            assert!(broker.dispatch.core().to_tell.is_empty(), "{restarts} restarts");
            broker.kill_and_restart().await;
            assert_eq!(broker.dispatch.core().to_tell.len(), 1, "what the state says is found again");
        }
    });
}

#[test]
fn when_there_is_not_room_for_all_dead_letter_sinks_each_has_its_turn() {
    use std::fmt::Write as _;
    let mut triggers = String::new();
    for n in 0..16 {
        write!(triggers, "t{n:02}: {{ sink: http://shop, dead_letter: http://slow }}, ").unwrap();
    }
    triggers += "u: { sink: http://shop, dead_letter: http://last }";
    let answers = |sink: &str, _: &str, _| if sink == "shop" { "400" } else { "200 after 1s" };
    let text = Setup::new(&triggers, answers).play(async |broker| {
        for n in 0..64 {
            broker.publish(&n.to_string()).await;
        }
        broker.at(60.0).await;
    });
    let second = text.lines().filter(|line| line.starts_with("+1s ") && line.contains("last gets")).count();
    assert!(second >= 8, "{second} of 256 in the second round");
    let told = text.lines().filter(|line| line.contains("told of")).count();
    assert_eq!(told, 64 * 17, "{text}");
}
