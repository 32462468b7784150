//! Filters that cannot be evaluated, and values that only look alike: cases 101 to 106 of the list of bad inputs.

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::explain::{event, verdicts};
use crate::sink::Sink;

/// Names of triggers with a filter that holds for an event only when nothing in it errs, and what is said of the error.
const ERRING: [(&str, &str, &str); 11] = [
    ("division", "sql: 1 / sequence = 1", "division by zero: 1 / 0"),
    ("cast", "sql: INT(word) = 1", "`abc` is not a 32-bit integer"),
    ("function", "sql: \"LEFT(word, step) = '1'\"", "LEFT: the length -1 is negative"),
    ("absent", "sql: \"NOT (subject = 'y')\"", "attribute `subject` is absent"),
    ("overflow", "sql: big * 2 > 0", "2147483647 * 2 is no 32-bit integer"),
    ("beyond", "sql: far > 0", "`2147483648` is not a 32-bit integer"),
    ("celdivision", "cel: 1 / event.data.n == 1", "division by zero: 1 / 0, at column 3"),
    ("celcast", "cel: int(event.word) == 1", "`int`: string parse error"),
    ("celindex", "cel: \"event.data.list[0] == 1\"", "the list has no element 0"),
    ("celtype", "cel: event.data.m > 0", "`>` does not take string and int"),
    (
        "celoverflow",
        "cel: int(event.big) * 9223372036854775807 > 0",
        "2147483647 * 9223372036854775807 is no 64-bit integer",
    ),
];

fn metric(page: &str, trigger: &str) -> String {
    let name = format!("sluice_trigger_filter_errors_total{{trigger=\"{trigger}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(name.as_str()));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).to_owned()
}

/// Cases 101 and 102, and the same in CEL: an error of an evaluation is no match, also under `not`, and is counted and told.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_an_expression_is_no_match_counted_and_told() {
    let sink = Sink::accepting().await;
    let trigger = |name: &str, filters: &str| {
        format!("  {name}: {{ filters: [ {filters} ], sink: \"{}\" }}\n", sink.url)
    };
    let triggers: String = ERRING
        .iter()
        .flat_map(|(name, filter, _)| {
            [trigger(name, filter), trigger(&format!("not-{name}"), &format!("not: {{ {filter} }}"))]
        })
        .collect();
    let broker = Broker::start(&format!("triggers:\n{triggers}")).await;
    let bad =
        [("sequence", "0"), ("word", "abc"), ("step", "-1"), ("big", "2147483647"), ("far", "2147483648")];
    let good =
        [("sequence", "1"), ("word", "1"), ("step", "1"), ("big", "1"), ("far", "1"), ("subject", "x")];
    let mut offset = String::new();
    for (id, attributes, data) in [
        ("1", bad.as_slice(), "{\"n\": 0, \"m\": \"a\", \"list\": []}"),
        ("2", bad.as_slice(), "{\"n\": 0, \"m\": \"a\", \"list\": []}"),
        ("3", good.as_slice(), "{\"n\": 1, \"m\": 1, \"list\": [1]}"),
    ] {
        let answer = broker.publish(&[&[("id", id)], attributes].concat(), data).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        if id == "2" {
            offset = answer.header("sluice-offset").unwrap().to_owned();
        }
    }
    for (name, ..) in ERRING {
        broker.trigger_when(name, |trigger| trigger["seen"] == 3 && trigger["delivered"] == 1).await;
        broker.trigger_when(&format!("not-{name}"), |trigger| trigger["seen"] == 3).await;
    }
    assert_eq!(sink.ids(), vec!["3"; ERRING.len()]);
    let page = broker.ask("/metrics").await.text();
    let told = broker.do_call("explain", &json!({ "offset": offset })).await;
    let verdict = |name: &str| {
        let triggers = told["triggers"].as_array().unwrap();
        let verdict = triggers.iter().find(|verdict| verdict["trigger"] == name).unwrap();
        assert_eq!(verdict["matched"], false, "{verdict}");
        verdict["failed"]["message"].as_str().unwrap().to_owned()
    };
    for (name, _, expected) in ERRING {
        for name in [name.to_owned(), format!("not-{name}")] {
            assert_eq!(metric(&page, &name), "2", "{name}");
            let message = verdict(&name);
            assert!(message.contains(expected), "{name}: {message}");
            assert!(message.ends_with(": an error, so the trigger does not match"), "{name}: {message}");
        }
    }
}

/// Case 103: who publishes text fills neither the log nor the sinks of those who look into data.
#[tokio::test(flavor = "multi_thread")]
async fn data_that_is_no_json_is_no_match_and_no_storm_of_errors() {
    const EVENTS: usize = 40;
    let (sink, all) = (Sink::accepting().await, Sink::accepting().await);
    let looking = [
        ("pattern", "data: { n: [ { numeric: [ '>', 0 ] } ] }"),
        ("not-pattern", "not: { data: { n: [ 1 ] } }"),
        ("any", "any: [ data: { n: [ { exists: false } ] }, exact: { type: com.example.test } ]"),
        ("cel", "cel: event.data.n != 1"),
    ];
    let triggers: String = looking
        .iter()
        .map(|(name, filter)| format!("  {name}: {{ filters: [ {filter} ], sink: \"{}\" }}\n", sink.url))
        .collect();
    let broker = Broker::start(&format!("triggers:\n{triggers}  all: {{ sink: \"{}\" }}\n", all.url)).await;
    for n in 0..EVENTS {
        let answer = broker.publish(&[("id", &n.to_string())], "n = 1").await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    broker.trigger_when("all", |trigger| trigger["delivered"] == EVENTS).await;
    for (name, _) in looking {
        broker.trigger_when(name, |trigger| trigger["seen"] == EVENTS).await;
    }
    assert_eq!(sink.ids(), Vec::<String>::new());
    let (page, said) = (broker.ask("/metrics").await.text(), broker.said());
    for (name, _) in looking {
        assert_eq!(metric(&page, name), EVENTS.to_string(), "{name}");
        assert_eq!(said.matches(&format!("trigger=\"{name}\"")).count(), 1, "{said}");
    }
    assert_eq!(metric(&page, "all"), "0");
}

/// Which of these filters match the event, as a letter for each: `m` matches, `-` does not, `e` errs.
fn letters(filters: &[&str], attributes: &Value) -> String {
    let trigger =
        |(n, filter)| format!("  t{n:02}: {{ filters: [ {filter} ], sink: \"http://localhost/\" }}\n");
    let triggers: String = filters.iter().enumerate().map(trigger).collect();
    let letter = |told: &String| match told {
        told if told.ends_with(": matches") => 'm',
        told if told.ends_with(": an error, so the trigger does not match") => 'e',
        _ => '-',
    };
    verdicts(&triggers, &event("1", attributes)).iter().map(letter).collect()
}

/// Case 105: attributes and data compare byte by byte; nothing is folded or normalised.
#[test]
fn what_looks_alike_is_not_equal() {
    // `é` in one character, an `e` with an accent, upper case, a Cyrillic letter, a space that takes no room, full width.
    let texts =
        ["caf\u{e9}", "cafe\u{301}", "CAF\u{c9}", "c\u{430}f\u{e9}", "ca\u{200b}f\u{e9}", "\u{ff43}af\u{e9}"];
    for (n, wanted) in texts.iter().enumerate() {
        let filters = [
            format!("exact: {{ region: \"{wanted}\" }}"),
            format!("prefix: {{ region: \"{wanted}\" }}"),
            format!("suffix: {{ region: \"{wanted}\" }}"),
            format!("sql: \"region = '{wanted}'\""),
            format!("sql: \"region LIKE '{wanted}'\""),
            format!("sql: \"region IN ('{wanted}')\""),
            format!("cel: \"event.region == '{wanted}'\""),
            format!("cel: \"event.data.region == '{wanted}'\""),
            format!("data: {{ region: [ \"{wanted}\" ] }}"),
            format!("data: {{ region: [ {{ prefix: \"{wanted}\" }} ] }}"),
        ];
        let filters = filters.each_ref().map(String::as_str);
        for (m, found) in texts.iter().enumerate() {
            let attributes = json!({ "region": found, "data": { "region": found } });
            let expected = if n == m { "mmmmmmmmmm" } else { "----------" };
            assert_eq!(letters(&filters, &attributes), expected, "{wanted:?} and {found:?}");
        }
    }
}

/// Case 106: what is empty is there, and what is absent or null is not.
#[test]
fn absent_and_empty_are_distinct() {
    let of_attributes = [
        "sql: EXISTS region",
        "sql: \"EXISTS region AND region = ''\"",
        "sql: \"region = ''\"",
        "cel: has(event.region)",
        "cel: \"event.region == ''\"",
        "exact: { region: eu }",
        "not: { exact: { region: eu } }",
        "prefix: { region: e }",
    ];
    for (attributes, expected) in [
        (json!({ "region": "" }), "mmmmm-m-"),
        (json!({ "region": null }), "--e-e-m-"),
        (json!({}), "--e-e-m-"),
        (json!({ "region": "eu" }), "m--m-m-m"),
    ] {
        assert_eq!(letters(&of_attributes, &attributes), expected, "{attributes}");
    }
    let of_data = [
        "data: { a: [ \"\" ] }",
        "data: { a: [ null ] }",
        "data: { a: [ { exists: true } ] }",
        "data: { a: [ { exists: false } ] }",
        "cel: has(event.data.a)",
        "cel: \"event.data.a == ''\"",
        "cel: event.data.a == null",
    ];
    for (data, expected) in
        [(json!({ "a": "" }), "m-m-mm-"), (json!({ "a": null }), "-mm-m-m"), (json!({ "b": 1 }), "---m-ee")]
    {
        assert_eq!(letters(&of_data, &json!({ "data": data })), expected, "{data}");
    }
}
