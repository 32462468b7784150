//! Stories of deliveries, as an operator would tell them: attempts, waits, ages and pauses. Waits are at their upper bound.

use expect_test::expect;

use super::rig::{Setup, check};
use crate::store::clock;

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
fn a_dead_letter_sink_is_told_no_sooner_than_it_wants() {
    check(
        "t: { sink: http://shop, dead_letter: http://graveyard, delivery: { retry: 0 } }",
        |sink, id, attempt| match (sink, id, attempt) {
            ("shop", ..) => "503",
            (_, "b", 1) => "429 retry-after 9",
            (_, "c", 1) => "503 after 1s",
            _ => "200",
        },
        async |broker| {
            for id in ["a", "b", "c"] {
                broker.publish(id).await;
            }
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 503, dead letter: attempts
            +0s     graveyard gets dead letter a: attempts, attempts 1 -> 200
            +0s     told of a
            +0s     t b try 1 -> 503, dead letter: attempts
            +0s     graveyard gets dead letter b: attempts, attempts 1 -> 429 retry-after 9
            +0s     t c try 1 -> 503, dead letter: attempts
            +9s     graveyard gets dead letter b: attempts, attempts 1 -> 200
            +9s     told of b
            +9s     graveyard gets dead letter c: attempts, attempts 1 -> 503 after 1s
            +11s    graveyard gets dead letter c: attempts, attempts 1 -> 200
            +11s    told of c
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
fn a_sink_that_answers_429_gets_no_request_before_it_wants_one() {
    check(
        "t: { sink: http://shop, delivery: { backoff: constant } }, u: { sink: http://other }",
        |sink, id, attempt| match (sink, id, attempt) {
            ("shop", "a", 1) => "429 retry-after 9",
            ("shop", "b", 1) => "503",
            ("shop", "late", 1) => "503 after 5s",
            _ => "200",
        },
        async |broker| {
            broker.publish("late").await;
            broker.publish("b").await;
            broker.at(0.5).await;
            broker.publish("a").await;
            broker.at(2.0).await;
            broker.publish("c").await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     u late try 1 -> 200
            +0s     t b try 1 -> 503, again in 1s
            +0s     u b try 1 -> 200
            +0s     t late try 1 -> 503, again in 1s
            +0.5s   t a try 1 -> 429, again in 9s
            +0.5s   u a try 1 -> 200
            +2s     u c try 1 -> 200
            +9.5s   t b try 2 -> 200
            +9.5s   t late try 2 -> 200
            +9.5s   t a try 2 -> 200
            +9.5s   t c try 1 -> 200
        "#]],
    );
}

#[test]
fn another_sink_is_not_left_alone_for_what_the_former_one_wanted() {
    check(
        "t: { sink: http://shop, delivery: { order: partitionkey, concurrency: 1 } }",
        |sink, _, attempt| match (sink, attempt) {
            ("shop", 1) => "400",
            ("shop", _) => "429 retry-after 3000",
            _ => "200",
        },
        async |broker| {
            for id in ["a/x", "b/y", "c/x"] {
                broker.publish(id).await;
            }
            broker.at(1.0).await;
            broker.redrive().await;
            broker.publish("d/x").await;
            broker.at(2.0).await;
            broker
                .reload("t: { sink: http://other, delivery: { order: partitionkey, concurrency: 1 } }")
                .await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 400, dead letter: rejected
            +0s     t b try 1 -> 400, dead letter: rejected
            +0s     t c try 1 -> 400, dead letter: rejected
            +1s     t a (redriven) try 1 -> 429, again in 3000s
            +2s     t b (redriven) try 1 -> 200
            +2s     t c (redriven) try 1 -> 200
            +2s     t d try 1 -> 200
        "#]],
    );
}

#[test]
fn what_the_former_sink_says_late_is_nothing_to_the_new_one() {
    check(
        "t: { sink: http://shop }",
        |sink, id, attempt| match (sink, id, attempt) {
            ("shop", "a", 1) => "503",
            ("shop", "b", 1) => "429 retry-after 3000",
            ("shop", "late", 1) => "429 retry-after 3000 after 5s",
            _ => "200",
        },
        async |broker| {
            for id in ["late", "a", "b"] {
                broker.publish(id).await;
            }
            broker.at(0.5).await;
            broker.reload("t: { sink: http://other }").await;
            broker.at(6.0).await;
            broker.publish("c").await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 503, again in 1s
            +0s     t b try 1 -> 429, again in 3000s
            +0s     t late try 1 -> 429, again in 3000s
            +1s     t a try 2 -> 200
            +6s     t c try 1 -> 200
        "#]],
    );
}

#[test]
fn what_becomes_too_old_while_a_sink_is_left_alone_is_a_dead_letter_in_time() {
    check(
        "t: { sink: http://shop, delivery: { max_age: 5s, backoff: constant } }",
        |_, id, attempt| match (id, attempt) {
            ("a", _) => "429 retry-after 30",
            ("b1" | "b2" | "b3", _) => "503",
            _ => "200",
        },
        async |broker| {
            for id in ["b1", "b2", "b3"] {
                broker.publish(id).await;
            }
            broker.at(0.5).await;
            broker.publish("a").await;
            broker.publish("c").await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t b1 try 1 -> 503, again in 1s
            +0s     t b2 try 1 -> 503, again in 1s
            +0s     t b3 try 1 -> 503, again in 1s
            +0.5s   t a try 1 -> 429, again in 5s
            +5s     t b1, dead letter: age
            +5s     t b2, dead letter: age
            +5s     t b3, dead letter: age
            +5.5s   t a, dead letter: age
            +30.5s  t c try 1 -> 200
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
            +0s     t paused: http://shop answered 410 Gone
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
            +0s     t paused: http://shop answered 410 Gone
            +20s    t goes on
            +20s    t b try 1 -> 200
        "#]],
    );
}

#[test]
fn another_sink_at_the_next_start_ends_the_pause_of_one_that_was_gone() {
    check(
        "t: { sink: http://shop }",
        |sink, _, _| if sink == "shop" { "410" } else { "200" },
        async |broker| {
            broker.publish("a").await;
            broker.at(1.0).await;
            broker.publish("b").await;
            broker.kill_and_restart().await;
            broker.at(10.0).await;
            broker.kill_and_restart_with("t: { sink: http://mail }").await;
            broker.at(20.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 410, dead letter: gone
            +0s     t paused: http://shop answered 410 Gone
            +10.01s t goes on
            +10.01s t b try 1 -> 200
        "#]],
    );
}

#[test]
fn a_former_sink_that_is_gone_does_not_pause_the_trigger() {
    check(
        "t: { sink: http://shop }",
        |sink, _, _| if sink == "shop" { "410 after 5s" } else { "200" },
        async |broker| {
            broker.publish("a").await;
            broker.at(1.0).await;
            broker.reload("t: { sink: http://mail }").await;
            broker.at(10.0).await;
            broker.publish("b").await;
            broker.at(20.0).await;
        },
        &expect![[r#"
            +0s     t a try 1 -> 410, dead letter: gone
            +10s    t b try 1 -> 200
        "#]],
    );
}

#[test]
fn what_an_operator_has_paused_stays_so_though_its_sink_was_gone_and_changes() {
    check(
        "t: { sink: http://shop }, u: { sink: http://shop }",
        |sink, id, _| match (sink, id) {
            ("shop", "late") => "410 after 2s",
            _ => "200",
        },
        async |broker| {
            broker.publish("late").await;
            broker.at(1.0).await;
            // Before its sink says so, and the other after.
            broker.pause("u", Some("paused by an operator")).await;
            broker.at(5.0).await;
            broker.pause("t", Some("paused by an operator")).await;
            broker.publish("b").await;
            broker.reload("t: { sink: http://mail }, u: { sink: http://mail }").await;
            broker.at(30.0).await;
            broker.pause("t", None).await;
            broker.pause("u", None).await;
            broker.at(40.0).await;
        },
        &expect![[r#"
            +0s     t late try 1 -> 410, dead letter: gone
            +0s     u late try 1 -> 410, dead letter: gone
            +1s     u paused: paused by an operator
            +2s     t paused: http://shop answered 410 Gone
            +2s     u paused: http://shop answered 410 Gone
            +5s     t paused: paused by an operator
            +30s    t goes on
            +30s    u goes on
            +30s    t b try 1 -> 200
            +30s    u b try 1 -> 200
        "#]],
    );
}

/// Here, two hours pass that no clock on a wall shows: the machine's clock was set back, or was wrong at the start.
#[test]
fn times_of_day_are_the_walls_whatever_the_clock_of_waits_shows() {
    let setup = Setup::new("t: { sink: http://shop, delivery: { retry: 1 } }", |_, _, _| "503");
    setup.play(async |broker| {
        let before = clock::wall_ms();
        broker.at(7200.0).await;
        broker.publish("a").await;
        broker.at(7300.0).await;
        let now = before..=clock::wall_ms();
        let core = broker.dispatch.core();
        let (id, letter) = core.state.dead.first_key_value().expect("a dead letter");
        assert!(now.contains(&letter.at_ms), "{now:?}: {letter:?}");
        let last_error = core.runtimes[&id.trigger].last_error.as_ref().expect("an error");
        assert!(now.contains(&last_error.at_ms), "{now:?}: {last_error:?}");
    });
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
