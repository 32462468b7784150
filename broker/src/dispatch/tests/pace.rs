//! Stories of deliveries, as an operator would tell them: rate, concurrency, order, and restarts in the middle of them. Waits are at their upper bound.

use expect_test::expect;

use super::rig::check;

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
fn a_new_order_waits_for_what_is_under_way_without_it() {
    let (unordered, ordered) = (
        "t: { sink: http://shop, delivery: { concurrency: 3 } }",
        "t: { sink: http://shop, delivery: { concurrency: 3, order: partitionkey } }",
    );
    check(
        unordered,
        |_, id, attempt| match (id, attempt) {
            ("x1", 1) => "503 after 10s",
            _ => "200 after 10s",
        },
        async |broker| {
            for id in ["x1/x", "x2/x"] {
                broker.publish(id).await;
            }
            broker.at(5.0).await;
            broker.reload(ordered).await;
            for id in ["x3/x", "y1/y", "z1/z"] {
                broker.publish(id).await;
            }
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t x1 try 1 -> 503, again in 1s
            +0s     t x2 try 1 -> 200
            +10s    t y1 try 1 -> 200
            +10s    t z1 try 1 -> 200
            +11s    t x1 try 2 -> 200
            +21s    t x3 try 1 -> 200
        "#]],
    );
}

#[test]
fn retries_that_begin_under_an_order_wait_for_their_turn() {
    check(
        "t: { sink: http://shop, delivery: { backoff: constant, backoff_delay: 10s } }",
        |_, id, attempt| match (id, attempt) {
            (_, 1) => "503",
            _ => "200 after 5s",
        },
        async |broker| {
            for id in ["x1/x", "x2/x", "y1/y"] {
                broker.publish(id).await;
            }
            broker.at(1.0).await;
            let ordered = "t: { sink: http://shop, delivery: \
                           { backoff: constant, backoff_delay: 10s, order: partitionkey } }";
            broker.reload(ordered).await;
            broker.at(60.0).await;
        },
        &expect![[r#"
            +0s     t x1 try 1 -> 503, again in 10s
            +0s     t x2 try 1 -> 503, again in 10s
            +0s     t y1 try 1 -> 503, again in 10s
            +10s    t x1 try 2 -> 200
            +10s    t y1 try 2 -> 200
            +15s    t x2 try 2 -> 200
        "#]],
    );
}

#[test]
fn a_released_retry_still_waits_for_its_time() {
    check(
        "t: { sink: http://shop, delivery: { backoff: constant, backoff_delay: 30s } }",
        |_, id, attempt| match (id, attempt) {
            ("x1", 1) => "503",
            ("x2", 1) => "503 retry-after 100",
            _ => "200",
        },
        async |broker| {
            for id in ["x1/x", "x2/x", "x3/x"] {
                broker.publish(id).await;
            }
            broker.at(1.0).await;
            let ordered = "t: { sink: http://shop, delivery: \
                           { backoff: constant, backoff_delay: 30s, order: partitionkey } }";
            broker.reload(ordered).await;
            broker.publish("x4/x").await;
            broker.at(200.0).await;
        },
        &expect![[r#"
            +0s     t x1 try 1 -> 503, again in 30s
            +0s     t x2 try 1 -> 503, again in 100s
            +0s     t x3 try 1 -> 200
            +30s    t x1 try 2 -> 200
            +100s   t x2 try 2 -> 200
            +100s   t x4 try 1 -> 200
        "#]],
    );
}
