use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::Value;
use sluice_schemas::{DataForm, Event};

use super::Pattern;
use crate::{Facts, Subject};

fn event(data: Option<&[u8]>) -> Event {
    let mut event =
        Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/s");
    event = event.attribute("type", "t");
    if let Some(data) = data {
        event = event.data(data.to_vec(), DataForm::Opaque);
    }
    event.build().expect("valid")
}

fn compiled(pattern: &str) -> Pattern {
    Pattern::compile(&serde_json::from_str(pattern).expect("JSON")).expect("a pattern")
}

fn holds(pattern: &str, data: &str) -> bool {
    compiled(pattern).holds(&Facts::of(&event(Some(data.as_bytes())))).expect("JSON")
}

/// The list of field `a`, values of `a` that match, and values that do not.
fn check(list: &str, matching: &[&str], others: &[&str]) {
    for (values, expected) in [(matching, true), (others, false)] {
        for value in values {
            let held = holds(&format!(r#"{{"a":{list}}}"#), &format!(r#"{{"a":{value}}}"#));
            assert_eq!(held, expected, "{list} {value}");
        }
    }
}

#[test]
fn exact_values() {
    check(r#"["x"]"#, &[r#""x""#, r#"["y","x"]"#, r#"[["x"]]"#], &[r#""X""#, "null", "[]", r#"{"x":"x"}"#]);
    check(r#"["é"]"#, &[r#""\u00e9""#], &[r#""e\u0301""#]);
    check("[300]", &["300", "300.0", "3e2", "3.0E+2"], &[r#""300""#, "300.1", "30"]);
    check("[0]", &["-0", "0.0", "0e9"], &["false", r#""""#]);
    check("[null]", &["null"], &[r#""null""#, "false", "[]"]);
    check("[true, false]", &["true", "false"], &[r#""true""#, "1"]);
    check("[9007199254740993]", &["9007199254740993"], &["9007199254740992", "9007199254740993.0"]);
    check(r#"["10.0.0.1"]"#, &[r#""10.0.0.1""#, r#""::ffff:a00:1""#], &[r#""10.0.0.2""#]);
    check(r#"[{"exactly":"10.0.0.1"}]"#, &[r#""10.0.0.1""#], &[r#""::ffff:a00:1""#]);
}

#[test]
fn prefixes_and_suffixes() {
    check(r#"[{"prefix":"ab"}]"#, &[r#""ab""#, r#""abc""#], &[r#""Ab""#, r#""a""#, "null"]);
    check(r#"[{"prefix":""}]"#, &[r#""""#, r#""x""#], &["1", "null"]);
    check(r#"[{"prefix":{"equals-ignore-case":"ab"}}]"#, &[r#""ABc""#], &[r#""ba""#]);
    check(r#"[{"suffix":".png"}]"#, &[r#""x.png""#], &[r#""x.PNG""#, r#""png""#]);
    check(r#"[{"suffix":{"equals-ignore-case":".png"}}]"#, &[r#""x.PnG""#], &[r#""x.gif""#]);
}

#[test]
fn case_and_wildcards() {
    check(r#"[{"equals-ignore-case":"abc"}]"#, &[r#""ABC""#, r#""aBc""#], &[r#""abcd""#, "1"]);
    check(r#"[{"wildcard":"a*c"}]"#, &[r#""ac""#, r#""abc""#], &[r#""ab""#, "1"]);
    check(r#"[{"wildcard":"a\\*"}]"#, &[r#""a*""#], &[r#""ab""#]);
}

#[test]
fn anything_but_holds_for_any_other_scalar() {
    check(
        r#"[{"anything-but":"x"}]"#,
        &[r#""y""#, "1", "null", "true", r#"["x","y"]"#],
        &[r#""x""#, "[]", "{}"],
    );
    check(r#"[{"anything-but":[1,2]}]"#, &["3", r#""1""#, "null"], &["1.0", "2e0"]);
    check(r#"[{"anything-but":{"prefix":["x","y"]}}]"#, &[r#""zx""#, "1"], &[r#""xz""#, r#""yz""#]);
    check(r#"[{"anything-but":{"suffix":"x"}}]"#, &[r#""xz""#, "null"], &[r#""zx""#]);
    check(r#"[{"anything-but":{"equals-ignore-case":"x"}}]"#, &[r#""y""#], &[r#""X""#]);
    check(r#"[{"anything-but":{"wildcard":["x*","*y"]}}]"#, &[r#""z""#], &[r#""xz""#, r#""zy""#]);
}

#[test]
fn numbers_compare_as_numbers() {
    check(r#"[{"numeric":[">",100]}]"#, &["100.5", "1e3"], &["100", "99", r#""101""#, "null"]);
    check(r#"[{"numeric":[">=",-1,"<",1]}]"#, &["-1.0", "0", "0.99"], &["1", "-1.01"]);
    check(r#"[{"numeric":["=",0.1]}]"#, &["0.1", "1e-1"], &["0.10000001"]);
    check(r#"[{"numeric":["<=",2147483648]}]"#, &["2147483648", "-9e300"], &["2147483649", "1e400"]);
}

#[test]
fn existence_is_of_scalars() {
    check(r#"[{"exists":true}]"#, &["null", "0", r#""""#, "[[1]]"], &["{}", "[]", r#"{"b":1}"#]);
    check(r#"[{"exists":false}]"#, &["{}", "[]", r#"{"b":1}"#], &["null", "[1]"]);
    check(r#"["x",{"exists":false}]"#, &[r#""x""#, "[]"], &[r#""y""#]);
    assert!(holds(r#"{"a":[{"exists":false}]}"#, "{}"));
    assert!(!holds(r#"{"a":[{"exists":false}]}"#, "[]"), "data that is no object matches nothing");
}

#[test]
fn choices_nesting_and_dots() {
    let pattern = r#"{"a":["x"],"$or":[{"b":[1]},{"c":{"d":[2]},"e":[3]}]}"#;
    assert!(holds(pattern, r#"{"a":"x","b":1}"#));
    assert!(holds(pattern, r#"{"a":"x","c.d":2,"e":3}"#));
    assert!(!holds(pattern, r#"{"a":"x","c":{"d":2}}"#));
    assert!(!holds(pattern, r#"{"b":1}"#));
    assert!(holds(r#"{"a.b":[1]}"#, r#"{"a":{"b":1}}"#));
    assert!(holds(r#"{"a":[1]}"#, r#"{"a":1,"a":2}"#), "a repeated key has both values");
}

#[test]
fn fields_hold_in_the_same_element() {
    let pattern = r#"{"items":{"sku":["x"],"count":[{"numeric":[">",1]}]}}"#;
    assert!(holds(pattern, r#"{"items":[{"sku":"y","count":2},{"sku":"x","count":3}]}"#));
    assert!(!holds(pattern, r#"{"items":[{"sku":"x","count":1},{"sku":"y","count":3}]}"#));
    assert!(holds(r#"{"a":{"p":[1]},"b":{"q":[2]}}"#, r#"{"a":[{"p":1}],"b":[{"q":0},{"q":2}]}"#));
    let absent = r#"{"a":{"p":[1],"q":[{"exists":false}]}}"#;
    assert!(holds(absent, r#"{"a":[{"p":1},{"p":2,"q":3}]}"#));
    assert!(!holds(absent, r#"{"a":[{"p":1,"q":2},{"p":2}]}"#));
}

#[test]
fn data_that_is_no_json_errs() {
    let pattern = compiled(r#"{"a":[{"exists":false}]}"#);
    for data in [None, Some(&b"not json"[..]), Some(b""), Some(b"{\"a\":1} x"), Some(b"\xFF")] {
        let event = event(data);
        let facts = Facts::of(&event);
        assert!(pattern.holds(&facts).is_err());
        assert!(pattern.failure(&facts).is_some());
    }
}

/// Arrays whose elements all fit one field, and an element for another field beside them: trying all combinations would take
/// years.
#[test]
fn the_search_is_bounded() {
    let array =
        |field: &str| format!("[{},{{\"z\":1}}]", vec![format!(r#"{{"{field}":1}}"#); 2_000].join(","));
    let arrays: Vec<_> = (0..8).map(|at| format!(r#""k{at}":{}"#, array("p"))).collect();
    let fields: Vec<_> = (0..7).map(|at| format!(r#""k{at}":{{"p":[1]}}"#)).collect();
    let pattern = format!(r#"{{{},"k7":{{"p":[1],"z":[1]}}}}"#, fields.join(","));
    assert!(!holds(&pattern, &format!("{{{}}}", arrays.join(","))));

    // The same key eight times: each field may go into another array, which is too much to try.
    let arrays: Vec<_> = (0..8).map(|at| format!(r#""k":{}"#, array(&format!("p{at}")))).collect();
    let fields: Vec<_> = (0..8).map(|at| format!(r#""p{at}":[1]"#)).collect();
    let pattern = compiled(&format!(r#"{{"k":{{{},"z":[1]}}}}"#, fields.join(",")));
    let event = event(Some(format!("{{{}}}", arrays.join(",")).as_bytes()));
    let outcome = pattern.holds(&Facts::of(&event));
    assert!(outcome.expect_err("too much").to_string().contains("given up"));
}

#[test]
fn refusals_name_the_place() {
    let refusal = |pattern: &str| {
        let error = Pattern::compile(&serde_json::from_str(pattern).expect("JSON")).expect_err(pattern);
        format!("{}: {error}\n", error.path.join("."))
    };
    let all = [
        "[]",
        "{}",
        r#"{"a":{"b":{}}}"#,
        r#"{"a":1}"#,
        r#"{"a":[]}"#,
        r#"{"a":["x",["y"]]}"#,
        r#"{"a":[{"regex":"x"}]}"#,
        r#"{"a":[{"prefix":"x","suffix":"y"}]}"#,
        r#"{"a":[{"prefix":1}]}"#,
        r#"{"a":[{"suffix":{"wildcard":"x"}}]}"#,
        r#"{"a":[{"wildcard":"a**"}]}"#,
        r#"{"a":[{"anything-but":[1,"x"]}]}"#,
        r#"{"a":[{"anything-but":{"prefix":["x",""]}}]}"#,
        r#"{"a":[{"anything-but":{"numeric":["=",1]}}]}"#,
        r#"{"a":[1,{"numeric":[">","5"]}]}"#,
        r#"{"a":[{"numeric":["!=",5]}]}"#,
        r#"{"a":[{"numeric":[">",5,"<",5]}]}"#,
        r#"{"a":[{"numeric":["=",9007199254740993]}]}"#,
        r#"{"a":[{"exists":"yes"}]}"#,
        r#"{"a":[{"cidr":"10.0.0.0/32"}]}"#,
        r#"{"$or":[{"a":[1]}]}"#,
        r#"{"$or":[{"a":[1]},{"prefix":["x"]}]}"#,
        r#"{"$or":[{"a":[1]},{"b":[2]}],"a":[3]}"#,
    ];
    let refused: String = all.into_iter().map(refusal).collect();
    expect![[r#"
        : a pattern is an object of fields, not a list
        : an empty object matches nothing: name a field
        a.b: an empty object matches nothing: name a field
        a: `a` takes a list of values, such as `[1]`, or an object of fields, not a number
        a: an empty list matches nothing: give it a value
        a.1: a list inside a list is no value: one list is enough
        a.0.regex: there is no operator `regex`: known are `prefix`, `suffix`, `equals-ignore-case`, `wildcard`, `anything-but`, `numeric`, `exists`, `cidr`
        a.0: one operator an object: give `prefix` and `suffix` an object each, and either may hold
        a.0.prefix: expected a text, not a number
        a.0.suffix.wildcard: there is no operator `wildcard` here: known is `equals-ignore-case`
        a.0.wildcard: two `*` in a row: one stands for any text already
        a.0.anything-but: the values of `anything-but` are all texts or all numbers
        a.0.anything-but.prefix.1: every text has the empty prefix and suffix, so this excludes all
        a.0.anything-but.numeric: there is no operator `numeric` inside `anything-but`: known are `prefix`, `suffix`, `equals-ignore-case`, `wildcard`
        a.1.numeric.1: expected a number, not a text
        a.0.numeric.0: `numeric` takes a comparison and a number, such as `[">", 5]`, or a range, such as `[">", 0, "<=", 5]`
        a.0.numeric: the range is empty: 5 is not less than 5
        a.0.numeric.1: 9007199254740993 has more digits than a double holds exactly
        a.0.exists: `exists` takes true or false, not a text
        a.0.cidr: `32` is not a number of bits from 0 to 31
        $or: `$or` takes a list of two or more objects; here are 1
        $or.1.prefix: `prefix` is an operator and cannot name a field inside `$or`
        a: `a` has another list already, and event-ruler would take but one of the two
    "#]].assert_eq(&refused);
}

#[test]
fn patterns_have_bounds() {
    let refusal = |pattern: &Value| Pattern::compile(pattern).expect_err("too much").message;
    let deep = (0..100).fold(serde_json::json!([1]), |inner, _| serde_json::json!({ "a": inner }));
    assert_eq!(refusal(&deep), "a pattern is at most 32 levels deep");
    let choice = serde_json::json!([{ "a": { "b": [1] } }, { "c": [1] }]);
    let choices: serde_json::Map<_, _> =
        (0..10).map(|at| (format!("k{at}"), serde_json::json!({ "$or": choice }))).collect();
    assert!(refusal(&Value::Object(choices)).contains("more than 1000 combinations"));
    let fields: serde_json::Map<_, _> =
        (0..257).map(|at| (format!("k{at}"), serde_json::json!([1]))).collect();
    assert_eq!(refusal(&Value::Object(fields)), "a pattern names at most 256 fields");
    let many = serde_json::json!({ "a": vec![1; 20_000] });
    assert_eq!(refusal(&many), "a pattern has at most 20000 keys and values");
    let long = serde_json::json!({ "a": ["x".repeat(1 << 21)] });
    assert_eq!(refusal(&long), "the text of a pattern is at most 1048576 bytes");
}

fn check_failure(pattern: &str, data: &str, expected: &Expect) {
    let event = event(Some(data.as_bytes()));
    let failure = compiled(pattern).failure(&Facts::of(&event)).expect("a failure");
    expected.assert_eq(&format!(
        "{}\n{} | {} | {}",
        failure.message, failure.filter, failure.expected, failure.actual
    ));
}

#[test]
fn failures_name_the_first_field_that_fails() {
    let amount = r#"{"amount":[{"numeric":[">",100]}],"subject":["x"]}"#;
    check_failure(
        amount,
        r#"{"amount":80,"subject":"x"}"#,
        &expect![[r#"
        `data.amount`: 80 is not > 100
        data.amount | > 100 | 80"#]],
    );
    check_failure(
        amount,
        r#"{"amount":800}"#,
        &expect![[r#"
        `data.subject` is absent
        data.subject | "x" | absent"#]],
    );
    check_failure(
        amount,
        "[1]",
        &expect![[r#"
        the data is an array, not an object
        data | an object | an array"#]],
    );
    check_failure(
        amount,
        "{",
        &expect![[r#"
        the data is not JSON: expected a string at byte 1
        data | a JSON object | the data is not JSON: expected a string at byte 1"#]],
    );
    check_failure(
        r#"{"a":[{"exists":false}]}"#,
        r#"{"a":1}"#,
        &expect![[r#"
        `data.a`: 1 is not absent
        data.a | absent | 1"#]],
    );
    check_failure(
        r#"{"state":["closed","merged"]}"#,
        r#"{"state":["open","new"]}"#,
        &expect![[r#"
        `data.state`: none of "open", "new" is "closed" or "merged"
        data.state | "closed" or "merged" | "open", "new""#]],
    );
    let items = r#"{"items":{"count":[2],"sku":["x"]}}"#;
    check_failure(
        items,
        r#"{"items":[{"sku":"x","count":1},{"sku":"y","count":2}]}"#,
        &expect![[r#"
        `data.items.count` and `data.items.sku` hold, but not in the same element of an array
        data.items.sku | all fields in the same element of an array | fields in different elements"#]],
    );
    check_failure(
        r#"{"$or":[{"a":[1],"b":[1]},{"c":[1],"d":[1]}]}"#,
        r#"{"c":1}"#,
        &expect![[r#"
        `data.d` is absent
        data.d | 1 | absent"#]],
    );
}

#[test]
fn terms_are_the_fewest_exact_values_of_each_branch() {
    let terms = |pattern: &str| {
        let terms = compiled(pattern).terms()?.into_iter().map(|term| match term.subject {
            Subject::Data(path) => format!("{path} {}", term.text),
            Subject::Attribute(name) => name,
        });
        Some(terms.collect::<Vec<_>>())
    };
    assert_eq!(terms(r#"{"a":["x","y"],"b":{"c":[1.0]}}"#), Some(vec!["b.c =1e0".into()]));
    assert_eq!(terms(r#"{"$or":[{"a":[null]},{"b":["x"]}]}"#), Some(vec!["a null".into(), "b \"x".into()]));
    assert_eq!(terms(r#"{"$or":[{"a":[1]},{"b":[{"prefix":"x"}]}]}"#), None);
    assert_eq!(terms(r#"{"a":[1,{"exists":false}]}"#), None);
    assert_eq!(compiled(r#"{"$or":[{"a":{"b":[1]}},{"c":[1]},{"c":[2]}]}"#).fields(), ["a.b", "c"]);
}

proptest! {
    #[test]
    fn compiling_never_panics(text in proptest::collection::vec(
        proptest::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"a\"", "\"$or\"", "\"prefix\"", "\"anything-but\"", "\"numeric\"", "\">\"", "\"cidr\"",
            "\"::/8\"", "\"wildcard\"", "\"*\"", "\"exists\"", "1", "-1e9", "true", "null", "\"\"",
        ]),
        0..24,
    )) {
        if let Ok(value) = serde_json::from_str::<Value>(&text.concat()) {
            let _ = Pattern::compile(&value);
        }
    }
}
