//! Stories of deliveries, as an operator would tell them. Waits are at their upper bound.

use expect_test::expect;

use super::rig::{Setup, check, event};

#[test]
fn a_failing_sink_is_tried_until_it_accepts() {
    check(
        "t: { sink: http://shop }",
        |_, _, attempt| ["503", "404", "429", "204"][attempt.min(4) - 1],
        async |broker| {
            broker.publish("a").await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 503, again in 1s
            +1s     t a try 2 -> 404, again in 2s
            +3s     t a try 3 -> 429, again in 4s
            +7s     t a try 4 -> 204
        "#]],
    );
}

#[test]
fn backoffs_grow_as_they_are_called_and_stop_at_the_cap() {
    for (delivery, expected) in [
        (
            "backoff: constant, backoff_delay: 2s",
            expect![[r#"
            +0s     t a try 1 -> 500, again in 2s
            +2s     t a try 2 -> 500, again in 2s
            +4s     t a try 3 -> 500, again in 2s
            +6s     t a try 4 -> 500, again in 2s
            +8s     t a try 5 -> 200
        "#]],
        ),
        (
            "backoff: linear, backoff_delay: 2s, backoff_max: 5s",
            expect![[r#"
            +0s     t a try 1 -> 500, again in 2s
            +2s     t a try 2 -> 500, again in 4s
            +6s     t a try 3 -> 500, again in 5s
            +11s    t a try 4 -> 500, again in 5s
            +16s    t a try 5 -> 200
        "#]],
        ),
        (
            "backoff: exponential, backoff_delay: 2s, backoff_max: 5s",
            expect![[r#"
            +0s     t a try 1 -> 500, again in 2s
            +2s     t a try 2 -> 500, again in 4s
            +6s     t a try 3 -> 500, again in 5s
            +11s    t a try 4 -> 500, again in 5s
            +16s    t a try 5 -> 200
        "#]],
        ),
    ] {
        check(
            &format!("t: {{ sink: http://shop, delivery: {{ {delivery} }} }}"),
            |_, _, attempt| if attempt < 5 { "500" } else { "200" },
            async |broker| {
                broker.publish("a").await;
                broker.at(60.0).await;
            },
            &expected,
        );
    }
}

#[test]
fn attempts_end_at_their_number_and_the_dead_letter_sink_is_told_until_it_listens() {
    check(
        "t: { sink: http://shop, dead_letter: http://graveyard, delivery: { retry: 2 } }",
        |sink, _, attempt| match sink {
            "shop" => "503",
            _ if attempt < 3 => "500",
            _ => "200",
        },
        async |broker| {
            broker.publish("a").await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 503, again in 1s
            +1s     t a try 2 -> 503, again in 2s
            +3s     t a try 3 -> 503, dead letter: attempts
            +3s     graveyard gets dead letter a: attempts, attempts 3 -> 500
            +4s     graveyard gets dead letter a: attempts, attempts 3 -> 500
            +6s     graveyard gets dead letter a: attempts, attempts 3 -> 200
            +6s     told of a
        "#]],
    );
}

#[test]
fn no_retry_is_one_attempt() {
    check(
        "t: { sink: http://shop, delivery: { retry: 0 } }",
        |_, _, _| "503",
        async |broker| {
            broker.publish("a").await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 503, dead letter: attempts
        "#]],
    );
}

#[test]
fn what_a_sink_refuses_is_not_tried_again_unless_retry_on_names_it() {
    check(
        "t: { sink: http://shop }, u: { sink: http://shop, delivery: { retry_on: [401], retry: 1 } }",
        |_, _, _| "401",
        async |broker| {
            broker.publish("a").await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 401, dead letter: rejected
            +0s     u a try 1 -> 401, again in 1s
            +1s     u a try 2 -> 401, dead letter: attempts
        "#]],
    );
}

#[test]
fn retry_after_is_a_floor_under_the_backoff_and_no_more_than_an_hour() {
    check(
        "t: { sink: http://shop }",
        |_, _, attempt| match attempt {
            1 => "429 retry-after 9",
            2 => "503 retry-after 1",
            3 => "503 retry-after 86400",
            _ => "200",
        },
        async |broker| {
            broker.publish("a").await;
            broker.at(4000.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 429, again in 9s
            +9s     t a try 2 -> 503, again in 2s
            +11s    t a try 3 -> 503, again in 3600s
            +3611s  t a try 4 -> 200
        "#]],
    );
}

#[test]
fn a_sink_that_hangs_is_given_its_time_and_no_more() {
    check(
        "t: { sink: http://shop, delivery: { timeout: 5s } }",
        |_, _, attempt| match attempt {
            1 => "hang",
            2 => "200 after 6s",
            _ => "200 after 4s",
        },
        async |broker| {
            broker.publish("a").await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> timed out after 5s, again in 1s
            +6s     t a try 2 -> timed out after 5s, again in 2s
            +13s    t a try 3 -> 200
        "#]],
    );
}

#[test]
fn max_age_cuts_the_last_wait_short_and_ends_the_delivery() {
    check(
        "t: { sink: http://shop, delivery: { max_age: 5s } }",
        |_, _, _| "503",
        async |broker| {
            broker.publish("a").await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 503, again in 1s
            +1s     t a try 2 -> 503, again in 2s
            +3s     t a try 3 -> 503, again in 2s
            +5s     t a, dead letter: age
        "#]],
    );
}

#[test]
fn max_age_stands_still_in_a_pause_and_begins_anew_with_a_redrive() {
    check(
        "t: { sink: http://shop, delivery: { max_age: 5s } }",
        |_, _, _| "503",
        async |broker| {
            broker.publish("a").await;
            broker.at(2.0).await;
            broker.pause("t", Some("paused by an operator")).await;
            broker.at(102.0).await;
            broker.pause("t", None).await;
            broker.at(200.0).await;
            broker.redrive().await;
            broker.at(300.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 503, again in 1s
            +1s     t a try 2 -> 503, again in 2s
            +2s     t paused: paused by an operator
            +102s   t goes on
            +102s   t a try 3 -> 503, again in 3s
            +105s   t a, dead letter: age
            +200s   t a (redriven) try 1 -> 503, again in 1s
            +201s   t a (redriven) try 2 -> 503, again in 2s
            +203s   t a (redriven) try 3 -> 503, again in 2s
            +205s   t a (redriven), dead letter: age
        "#]],
    );
}

#[test]
fn a_pause_holds_one_trigger_and_no_other() {
    check(
        "t: { sink: http://shop }, u: { sink: http://mail }",
        |_, id, attempt| if id == "a" && attempt == 1 { "503" } else { "200" },
        async |broker| {
            broker.publish("a").await;
            broker.at(0.5).await;
            broker.pause("t", Some("paused by an operator")).await;
            broker.at(2.0).await;
            broker.publish("b").await;
            broker.at(10.0).await;
            broker.pause("t", None).await;
            broker.at(20.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 503, again in 1s
            +0s     u a try 1 -> 503, again in 1s
            +0.5s   t paused: paused by an operator
            +1s     u a try 2 -> 200
            +2s     u b try 1 -> 200
            +10s    t goes on
            +10s    t a try 2 -> 200
            +10s    t b try 1 -> 200
        "#]],
    );
}

#[test]
fn a_gone_sink_pauses_its_trigger_until_someone_resumes_it() {
    check(
        "t: { sink: http://shop, dead_letter: http://graveyard, delivery: { concurrency: 1 } }",
        |sink, id, _| if (sink, id) == ("shop", "a") { "410" } else { "200" },
        async |broker| {
            for id in ["a", "b", "c"] {
                broker.publish(id).await;
            }
            broker.at(3600.0).await;
            broker.pause("t", None).await;
            broker.at(3700.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 410, dead letter: gone
            +0s     t paused: the sink answered 410 Gone
            +0s     graveyard gets dead letter a: gone, attempts 1 -> 200
            +0s     told of a
            +3600s  t goes on
            +3600s  t b try 1 -> 200
            +3600s  t c try 1 -> 200
        "#]],
    );
}

#[test]
fn a_gone_sinks_trigger_goes_on_when_its_sink_changes() {
    check(
        "t: { sink: http://shop }",
        |sink, _, _| if sink == "shop" { "410" } else { "200" },
        async |broker| {
            broker.publish("a").await;
            broker.at(10.0).await;
            broker.publish("b").await;
            broker.at(20.0).await;
            broker.reload("t: { sink: http://mail }").await;
            broker.at(30.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 410, dead letter: gone
            +0s     t paused: the sink answered 410 Gone
            +20s    t goes on
            +20s    t b try 1 -> 200
        "#]],
    );
}

#[test]
fn a_rate_is_a_bucket_of_one_second_and_counts_retries() {
    check(
        "t: { sink: http://shop, delivery: { rate: 2/s, backoff: constant, backoff_delay: 100ms } }",
        |_, id, attempt| if id == "a" && attempt == 1 { "503" } else { "200" },
        async |broker| {
            for id in ["a", "b", "c", "d", "e"] {
                broker.publish(id).await;
            }
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 503, again in 0.1s
            +0s     t b try 1 -> 200
            +0.5s   t c try 1 -> 200
            +1s     t a try 2 -> 200
            +1.5s   t d try 1 -> 200
            +2s     t e try 1 -> 200
        "#]],
    );
}

#[test]
fn concurrency_bounds_what_is_under_way() {
    check(
        "t: { sink: http://shop, delivery: { concurrency: 2 } }",
        |_, _, _| "200 after 10s",
        async |broker| {
            for id in ["a", "b", "c", "d", "e"] {
                broker.publish(id).await;
            }
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 200
            +0s     t b try 1 -> 200
            +10s    t c try 1 -> 200
            +10s    t d try 1 -> 200
            +20s    t e try 1 -> 200
        "#]],
    );
}

#[test]
fn one_at_a_time_is_log_order_retries_aside() {
    check(
        "t: { sink: http://shop, delivery: { concurrency: 1 } }",
        |_, id, attempt| if id == "a" && attempt < 3 { "503 after 1s" } else { "200 after 1s" },
        async |broker| {
            for id in ["a", "b", "c", "d", "e"] {
                broker.publish(id).await;
            }
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 503, again in 1s
            +1s     t b try 1 -> 200
            +2s     t a try 2 -> 503, again in 2s
            +3s     t c try 1 -> 200
            +4s     t d try 1 -> 200
            +5s     t a try 3 -> 200
            +6s     t e try 1 -> 200
        "#]],
    );
}

#[test]
fn order_holds_the_later_events_of_a_key_until_the_earlier_one_is_settled() {
    check(
        "t: { sink: http://shop, delivery: { order: partitionkey, retry: 2 } }",
        |_, id, attempt| match (id, attempt) {
            ("x1", 1 | 2) | ("y1", _) => "503",
            _ => "200",
        },
        async |broker| {
            for id in ["x1/x", "y1/y", "x2/x", "y2/y", "z1/z", "x3/x", "free"] {
                broker.publish(id).await;
            }
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t x1 try 1 -> 503, again in 1s
            +0s     t y1 try 1 -> 503, again in 1s
            +0s     t z1 try 1 -> 200
            +0s     t free try 1 -> 200
            +1s     t x1 try 2 -> 503, again in 2s
            +1s     t y1 try 2 -> 503, again in 2s
            +3s     t x1 try 3 -> 200
            +3s     t x2 try 1 -> 200
            +3s     t x3 try 1 -> 200
            +3s     t y1 try 3 -> 503, dead letter: attempts
            +3s     t y2 try 1 -> 200
        "#]],
    );
}

#[test]
fn order_holds_across_a_restart() {
    check(
        "t: { sink: http://shop, delivery: { order: partitionkey } }",
        |_, id, attempt| if id == "x1" && attempt < 4 { "503" } else { "200" },
        async |broker| {
            for id in ["x1/x", "x2/x", "y1/y"] {
                broker.publish(id).await;
            }
            broker.at(0.5).await;
            broker.kill_and_restart().await;
            broker.at(1.5).await;
            broker.kill_and_restart().await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t x1 try 1 -> 503, again in 1s
            +0s     t y1 try 1 -> 200
            +1s     t x1 try 2 -> 503, again in 2s
            +3s     t x1 try 3 -> 503, again in 4s
            +7s     t x1 try 4 -> 200
            +7s     t x2 try 1 -> 200
        "#]],
    );
}

#[test]
fn waits_and_numbers_of_attempts_survive_a_restart() {
    check(
        "t: { sink: http://shop, delivery: { retry: 3, backoff_delay: 10s } }",
        |_, _, _| "503",
        async |broker| {
            broker.publish("a").await;
            broker.at(15.0).await;
            broker.kill_and_restart().await;
            broker.at(200.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 503, again in 10s
            +10s    t a try 2 -> 503, again in 20s
            +30s    t a try 3 -> 503, again in 40s
            +70s    t a try 4 -> 503, dead letter: attempts
        "#]],
    );
}

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

/// Outside of tests the wait is a share of the backoff, anything from none of it to all of it.
#[test]
fn production_waits_with_full_jitter() {
    fastrand::seed(7);
    let setup = Setup {
        jitter: fastrand::f64,
        ..Setup::new(
            "t: { sink: http://shop, delivery: { backoff: constant, backoff_delay: 100s, concurrency: 500 } }",
            |_, _, attempt| if attempt == 1 { "503" } else { "200" },
        )
    };
    let text = setup.play(async |broker| {
        for n in 0..400 {
            broker.publish(&n.to_string()).await;
        }
        broker.at(200.0).await;
    });
    let waits = text.lines().filter_map(|line| line.split_once("again in ")?.1.strip_suffix('s'));
    let mut waits: Vec<f64> = waits.map(|wait| wait.parse().unwrap()).collect();
    waits.sort_by(f64::total_cmp);
    assert_eq!(waits.len(), 400);
    let mean = waits.iter().sum::<f64>() / 400.0;
    assert!((45.0..55.0).contains(&mean), "{mean}");
    assert!(waits[0] < 2.0 && waits[399] > 98.0 && waits[399] <= 100.0, "{} to {}", waits[0], waits[399]);
}
