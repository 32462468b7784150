//! `sluice test`: what a configuration is expected to do, tried without a broker.

use std::path::Path;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::broker::{Told, run, sluice};
use crate::documents::blocks;

const TRIGGERS: &str = r#"
triggers:
  big-orders:
    filters:
      - prefix: { type: com.example.order. }
      - data: { amount: [ { numeric: [ ">", 100 ] } ] }
    sink: { http: { url: "http://localhost:9000/big?key=k", headers: { x-team: sales, authorization: "Bearer ${SECRET}" } } }
    delivery: { retry: 2, timeout: 10s }
  everything: { sink: http://localhost:9000/all, delivery: { max_age: 5s } }
  short:
    filters: [ { exact: { type: com.example.long } } ]
    transform: { jq: '.type = "short" | .data |= {n}' }
    sink: { http: { url: "http://localhost:9000/short", mode: structured } }
  replies: { sources: [reply], sink: "stdout:" }
"#;

#[test]
fn the_samples_of_the_readme_pass_their_own_tests() {
    let samples: Vec<String> = blocks("yml").into_iter().filter(|text| text.contains("\ntests:")).collect();
    assert_eq!(samples.len(), 2);
    for sample in &samples {
        let told = Folder::new(&[("shop.yaml", sample)]).test(&["shop.yaml"]);
        assert_eq!(told.code, 0, "{}{}", told.out, told.err);
        let shown = blocks("text").into_iter().filter(|text| text.contains("sluice test"));
        let shown: Vec<String> = shown.map(|text| text.split_once('\n').unwrap().1.to_owned()).collect();
        assert!(sample.contains("# transform.yaml") || shown == [told.out], "{shown:?}");
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    /// The triggers above, with tests in the same file.
    fn with_tests(tests: &str) -> Self {
        let triggers = TRIGGERS.replace("\"stdout:\"", "{ stdout: {} }");
        Self::new(&[("sluice.yaml", &format!("{triggers}\ntests:\n{tests}\n"))])
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn test(&self, words: &[&str]) -> Told {
        let mut command = sluice();
        command.arg("test").args(words).current_dir(self.path()).env("SECRET", "canary");
        run(command)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "`expect!` reads better at the call")]
fn check(tests: &str, code: i32, expected: Expect) {
    let told = Folder::with_tests(tests).test(&["sluice.yaml"]);
    expected.assert_eq(&format!("{}{}", told.out, told.err));
    assert_eq!(told.code, code);
}

#[test]
fn triggers_that_match_are_expected_exactly_or_in_part() {
    check(
        r#"
  - name: a big order
    event: { type: com.example.order.paid, data: { amount: 120 } }
    expect: [big-orders, everything]
  - name: a small one
    event: { type: com.example.order.paid, data: { amount: 80 } }
    expect: [everything]
    because: { big-orders: "80" }
  - name: in part
    event: { type: com.example.order.paid, data: { amount: 120 } }
    expect: { include: [big-orders], exclude: [short] }
  - { name: a reply, event: { type: x }, via: reply, expect: [everything, replies] }"#,
        0,
        expect![[r#"
            ok      a big order
            ok      a small one
            ok      in part
            ok      a reply
            4 passed, 0 failed
        "#]],
    );
}

#[test]
fn what_is_not_as_expected_is_shown_with_the_reason_and_the_place() {
    check(
        r#"
  - name: a small order
    event: { type: com.example.order.paid, data: { amount: 80 } }
    expect: [big-orders]
  - name: a wrong reason
    event: { type: com.example.order.paid, data: { amount: 80 } }
    because: { big-orders: "is absent", everything: x }"#,
        1,
        expect![[r#"
            FAILED  a small order (sluice.yaml:18:5)
                    expect.big-orders
                      - a match
                      + none: `data.amount`: 80 is not > 100 (sluice.yaml:6:17)
                    expect.everything
                      - no match
                      + a match; those that match: everything
            FAILED  a wrong reason (sluice.yaml:21:5)
                    because.big-orders
                      - no match, because … is absent …
                      + `data.amount`: 80 is not > 100
                    because.everything
                      - no match, because … x …
                      + a match
            0 passed, 2 failed
            sluice: 2 of 2 tests failed
        "#]],
    );
}

#[test]
fn a_request_is_the_one_that_a_delivery_sends() {
    check(
        r#"
  - name: binary
    event: { type: com.example.order.paid, subject: "ä", data: { amount: 120 } }
    requests:
      big-orders:
        method: POST
        url: "http://localhost:9000/big?key=k"
        headers: { ce-type: com.example.order.paid, ce-subject: "%C3%A4", ce-id: test, x-team: sales, authorization: Bearer canary, ce-time: null, content-type: application/json }
        body: '{"amount":120}'
  - name: structured and transformed
    event: { type: com.example.long, id: "7", source: /s, data: { n: 5, more: true } }
    requests:
      short:
        headers: { content-type: application/cloudevents+json; charset=utf-8 }
        body: { specversion: "1.0", id: "7", source: /s, type: short, data: { n: 5 } }
  - name: wrong
    event: { type: com.example.order.paid, data: { amount: 120 } }
    requests:
      big-orders: { method: PUT, url: http://localhost/, headers: { authorization: other, ce-id: null, x-none: a }, body: { amount: 1 } }
      short: { method: POST }"#,
        1,
        expect![[r#"
            ok      binary
            ok      structured and transformed
            FAILED  wrong (sluice.yaml:32:5)
                    requests.big-orders.method
                      - PUT
                      + POST
                    requests.big-orders.url
                      - http://localhost/
                      + http://localhost:9000/big?[hidden]
                    requests.big-orders.headers.authorization
                      - other
                      + [hidden]
                    requests.big-orders.headers.ce-id
                      - absent
                      + test
                    requests.big-orders.headers.x-none
                      - a
                      + absent
                    requests.big-orders.body
                      - {"amount":1}
                      + {"amount":120}
                    requests.short
                      - a request
                      + none: the trigger does not match: `type` is `com.example.order.paid`, not `com.example.long`
            2 passed, 1 failed
            sluice: 1 of 3 tests failed
        "#]],
    );
}

#[test]
fn a_delivery_is_played_on_virtual_time_with_the_rules_of_the_dispatcher() {
    check(
        r#"
  - name: it recovers
    event: &order { type: com.example.order.paid, data: { amount: 120 } }
    deliveries: { big-orders: { answers: [503, 503, 200], attempts: [0s, 1s, 3s], ends: delivered } }
  - name: it does not
    event: *order
    deliveries: { big-orders: { answers: [503], attempts: [0s, 1s, 3s], ends: attempts } }
  - name: timeouts take their time
    event: *order
    deliveries: { big-orders: { answers: [timeout, 429, 200], attempts: [0s, 11s, 13s], ends: delivered } }
  - name: refused at once
    event: *order
    deliveries: { big-orders: { answers: [422], attempts: [0s], ends: rejected } }
  - name: gone
    event: *order
    deliveries: { big-orders: { answers: [503, 410], ends: gone }, everything: { answers: [301], ends: dead } }
  - name: too old
    event: *order
    deliveries: { everything: { answers: [503], attempts: [0s, 1s, 3s], ends: age } }
  - name: a transform that fails
    event: { type: com.example.long, data: text, datacontenttype: text/plain }
    deliveries: { short: { answers: [200], attempts: [], ends: transform } }
  - name: wrong
    event: *order
    deliveries: { big-orders: { answers: [503, 200], attempts: [0s, 2s], ends: dead }, short: { answers: [200], ends: delivered } }"#,
        1,
        expect![[r#"
            ok      it recovers
            ok      it does not
            ok      timeouts take their time
            ok      refused at once
            ok      gone
            ok      too old
            ok      a transform that fails
            FAILED  wrong (sluice.yaml:39:5)
                    deliveries.big-orders.attempts
                      - [0s, 2s]
                      + [0s, 1s]
                    deliveries.big-orders.ends
                      - dead
                      + delivered
                    deliveries.short
                      - a delivery
                      + none: the trigger does not match: `type` is `com.example.order.paid`, not `com.example.long`
            7 passed, 1 failed
            sluice: 1 of 8 tests failed
        "#]],
    );
}

#[test]
fn a_record_becomes_what_its_source_makes_of_it() {
    let sources = r#"
sources:
  shop:
    webhook: { insecure: true }
    event: { type: "com.shop.{body.action|unknown}", source: https://shop.example, id: "{body.id}", subject: "{headers.x-customer}" }
triggers:
  orders: { sources: [shop], filters: [ { prefix: { type: com.shop.order } } ], sink: http://localhost/ }
tests:
  - name: an order
    via: shop
    record: { headers: { X-Customer: c-1, content-type: application/json }, body: { action: order, id: 7 } }
    becomes: { type: com.shop.order, id: "7", subject: c-1, time: null, data: { action: order, id: 7 } }
    expect: [orders]
  - name: something else
    via: shop
    record: { body: no json }
    becomes: { type: com.shop.unknown }
  - name: wrong
    via: shop
    record: { body: '{"action":"x","id":8}' }
    becomes: { type: com.shop.y, subject: c-1, id: null }
    expect: [orders]
    because: { orders: com.shop }
"#;
    let told = Folder::new(&[("sluice.yaml", sources)]).test(&["sluice.yaml"]);
    expect![[r#"
        ok      an order
        FAILED  something else (sluice.yaml:14:5)
                record
                  - an event
                  + none: `id`: `{body.id}` is absent, and has no default
        FAILED  wrong (sluice.yaml:18:5)
                becomes.id
                  - absent
                  + "8"
                becomes.subject
                  - "c-1"
                  + absent
                becomes.type
                  - "com.shop.y"
                  + "com.shop.x"
                expect.orders
                  - a match
                  + none: `type` is `com.shop.x`, which does not begin with `com.shop.order` (sluice.yaml:7:53)
        1 passed, 2 failed
        sluice.yaml:4:14: warning: `webhook` of source `shop`: whoever reaches its URL can send events (`insecure: true`)
            4 |     webhook: { insecure: true }
              |              ^
        sluice: 2 of 3 tests failed
    "#]].assert_eq(&format!("{}{}", told.out, told.err));
    assert_eq!(told.code, 1);
}

#[test]
fn a_record_is_named_by_its_headers_and_a_tick_by_when_it_is_due() {
    let sources = r#"
sources:
  repo: { git: { provider: github, insecure: true } }
  hook: { webhook: { verify: { scheme: shopify, secret: "${SECRET}" } } }
  nightly: { cron: { schedule: "30 2 * * *", timezone: Europe/Berlin }, event: { data: { due: "{scheduled}" } } }
  once: { cron: { at: "2021-01-01T00:00:00Z" } }
tests:
  - name: a push
    via: repo
    record: { headers: { X-GitHub-Event: push, X-GitHub-Delivery: d-1 }, body: { ref: refs/heads/main } }
    becomes: { type: com.github.push, id: d-1, subject: refs/heads/main, source: /repo }
  - name: an order
    via: hook
    record: { headers: { X-Shopify-Webhook-Id: w-1 }, body: { id: 1 } }
    becomes: { type: sluice.webhook, id: w-1 }
  - name: a tick
    via: nightly
    record: {}
    becomes: { type: sluice.cron, id: "nightly/2026-01-01T01:30:00Z", time: "2026-01-01T01:30:00Z", data: { due: "2026-01-01T01:30:00Z" } }
  - name: the only tick
    via: once
    record: {}
    becomes: { time: "2021-01-01T00:00:00Z" }
"#;
    let told = Folder::new(&[("sluice.yaml", sources)]).test(&["sluice.yaml"]);
    assert_eq!(told.code, 0, "{}{}", told.out, told.err);
    assert!(told.out.ends_with("4 passed, 0 failed\n"), "{}", told.out);
}

#[test]
fn tests_stand_in_files_of_their_own_too_and_events_in_files() {
    let tests = r#"tests: [ { name: from a file, event: event.json, expect: [t] } ]"#;
    let files = [
        ("sluice.yaml", "triggers: { t: { sink: http://localhost/ } }"),
        ("orders_test.yaml", tests),
        ("event.json", r#"{"type": "a"}"#),
    ];
    let folder = Folder::new(&files);
    for words in [&["sluice.yaml"][..], &["."], &[], &["sluice.yaml", "orders_test.yaml"]] {
        let told = folder.test(words);
        assert_eq!((told.code, &*told.out), (0, "ok      from a file\n1 passed, 0 failed\n"), "{told:?}");
    }
    let mut check = sluice();
    check.arg("check").arg(".").current_dir(folder.path());
    assert_eq!(run(check).code, 0, "tests are no part of what runs");
}

#[test]
fn a_broker_does_not_need_the_files_of_its_tests() {
    let folder = Folder::with_tests("  - { name: a, event: nowhere.json, expect: [] }");
    let mut check = sluice();
    check.args(["check", "sluice.yaml"]).current_dir(folder.path()).env("SECRET", "canary");
    assert_eq!(run(check).code, 0);
    assert_eq!(folder.test(&["sluice.yaml"]).code, 78);
}

#[test]
fn json_has_one_entry_for_each_test() {
    let folder = Folder::with_tests(
        "  - { name: a, event: { type: x }, expect: [] }\n  - { name: b, event: { type: x }, expect: [everything] }",
    );
    let told = folder.test(&["sluice.yaml", "--json"]);
    assert_eq!(told.code, 1);
    let reports: Value = told.json();
    assert_eq!((&reports[0]["name"], &reports[0]["passed"]), (&json!("a"), &json!(false)));
    assert_eq!(reports[0]["failures"][0]["what"], "expect.everything");
    assert_eq!(reports[1], json!({ "name": "b", "at": reports[1]["at"], "passed": true, "failures": [] }));
}

#[test]
fn a_test_that_cannot_be_read_is_an_error_of_the_configuration() {
    check(
        r#"
  - { name: a, event: { type: x }, expect: [everythin] }
  - { name: b, event: { id: x }, expect: [] }
  - { name: c, event: { type: x } }
  - { name: d, expect: [] }
  - { name: e, event: { type: x }, via: http, expects: [] }
  - { name: f, event: nowhere.json, expect: [] }
  - { name: g, event: { type: x }, deliveries: { everything: { answers: [timeout, 99, soon], ends: broken } } }
  - { name: h, event: { type: x }, because: { everythign: x }, requests: { big-order: {} } }
  - { name: i, record: { body: x }, becomes: { type: x } }
  - { name: j, event: { type: x }, deliveries: { everything: { answers: [] } } }"#,
        78,
        expect![[r#"
            sluice.yaml:18:45: `expect`: no such trigger (did you mean `everything`?), found `everythin`
               18 |   - { name: a, event: { type: x }, expect: [everythin] }
                  |                                             ^^^^^^^^^
            sluice.yaml:19:23: `event` is no CloudEvent: attribute `type` is required
               19 |   - { name: b, event: { id: x }, expect: [] }
                  |                       ^
            sluice.yaml:20:5: test `c` expects nothing: add `expect`, for one
               20 |   - { name: c, event: { type: x } }
                  |     ^
            sluice.yaml:21:5: a test needs an `event`, or a `record` with `via`
               21 |   - { name: d, expect: [] }
                  |     ^
            sluice.yaml:22:5: test `e` expects nothing: add `expect`, for one
               22 |   - { name: e, event: { type: x }, via: http, expects: [] }
                  |     ^
            sluice.yaml:22:47: unknown key `expects` in a test: did you mean `expect`?
               22 |   - { name: e, event: { type: x }, via: http, expects: [] }
                  |                                               ^^^^^^^
            sluice.yaml:23:23: `event`: `nowhere.json`: cannot read the file: No such file or directory (os error 2)
               23 |   - { name: f, event: nowhere.json, expect: [] }
                  |                       ^^^^^^^^^^^^
            sluice.yaml:24:83: `answers`: expected a whole number from 200 to 599, found `99`
               24 | : g, event: { type: x }, deliveries: { everything: { answers: [timeout, 99, soon], ends: broken } } }
                  |                                                                         ^^
            sluice.yaml:24:87: `answers`: expected a status such as 503, or timeout, found `soon`
               24 |  event: { type: x }, deliveries: { everything: { answers: [timeout, 99, soon], ends: broken } } }
                  |                                                                         ^^^^
            sluice.yaml:24:100: `ends`: expected delivered, dead, attempts, age, rejected, gone, reply or transform, found `broken`
               24 | e: x }, deliveries: { everything: { answers: [timeout, 99, soon], ends: broken } } }
                  |                                                                         ^^^^^^
            sluice.yaml:25:47: `because`: no such trigger (did you mean `everything`?), found `everythign`
               25 |   - { name: h, event: { type: x }, because: { everythign: x }, requests: { big-order: {} } }
                  |                                               ^^^^^^^^^^
            sluice.yaml:25:76: `requests`: no such trigger (did you mean `big-orders`?), found `big-order`
               25 |  { name: h, event: { type: x }, because: { everythign: x }, requests: { big-order: {} } }
                  |                                                                         ^^^^^^^^^
            sluice.yaml:26:16: a `record` needs `via`, the source that receives it
               26 |   - { name: i, record: { body: x }, becomes: { type: x } }
                  |                ^^^^^^
            sluice.yaml:27:73: `answers` is empty: expected such as [503, timeout, 200]
               27 |   - { name: j, event: { type: x }, deliveries: { everything: { answers: [] } } }
                  |                                                                         ^
        "#]],
    );
}

#[test]
fn a_test_file_holds_tests_only_and_no_tests_at_all_is_a_failure() {
    let files = [("a_test.yaml", "tests: [{ name: a, event: { type: a }, expect: [t] }]")];
    for words in [&["a_test.yaml"][..], &["."], &[]] {
        let told = Folder::new(&files).test(words);
        assert_eq!((told.code, told.out.as_str()), (78, ""), "{told:?}");
        assert!(
            told.err.contains("a_test.yaml: tests of triggers that are in no file named: name the"),
            "{told:?}"
        );
        assert!(!told.err.contains("no such trigger"), "{told:?}");
    }
    let files = [("sluice.yaml", "triggers: {}"), ("a_test.yaml", "triggers: {}\ntests: []")];
    let told = Folder::new(&files).test(&["."]);
    assert_eq!(told.code, 78);
    assert!(told.err.contains("a_test.yaml:1:1: unknown key `triggers` in a test file"), "{told:?}");
    let told = Folder::new(&[("sluice.yaml", "triggers: {}")]).test(&["."]);
    assert_eq!(told.code, 1);
    assert!(told.err.contains("there are no tests"), "{told:?}");
}
