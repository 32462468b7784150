//! Patterns and events of small vocabularies, so that many match and many nearly do.

use fastrand::Rng;
use serde_json::{Map, Value, json};

const KEYS: [&str; 5] = ["a", "b", "c", "d-e", "é"];
const TEXTS: [&str; 26] = [
    "",
    "a",
    "b",
    "ab",
    "abc",
    "aab",
    "B",
    "Ab",
    "x.y",
    "a*b",
    "\\",
    "q\"z",
    "null",
    "1",
    "straße",
    "STRASSE",
    "é",
    "É",
    "大雨",
    "10.0.0.1",
    "10.0.0.01",
    "10.9.8.7",
    "192.168.1.7",
    "2001:db8::1",
    "2001:DB8:0::0001",
    "::ffff:a00:1",
];
/// As events write them: some in several forms, some that no double holds.
const NUMBERS: [&str; 20] = [
    "0",
    "-0.0",
    "1",
    "1.0",
    "1e0",
    "-1",
    "2",
    "2.5",
    "25e-1",
    "300",
    "3e2",
    "0.1",
    "99.5",
    "100",
    "1e22",
    "9007199254740993",
    "12345678901234567890",
    "123456789012345678901234567890",
    "0.12345678901234567891",
    "1e400",
];
const NETWORKS: [&str; 6] =
    ["10.0.0.0/8", "10.0.0.0/31", "192.168.0.0/16", "2001:db8::/32", "2001:db8::/127", "::ffff:a00:0/112"];
const WILDCARDS: [&str; 12] =
    ["*", "a*", "*b", "a*b", "*a*b*", "**", "a\\**b", "\\\\", "\\x", "*.*", "1*", "*É"];
/// What stands in no list of a pattern.
const WRONG_ENTRIES: &str = r#"[
    {}, [], [1], {"prefix": 1}, {"prefix": {}}, {"prefix": {"suffix": "a"}}, {"prefix": {"equals-ignore-case": 1}},
    {"suffix": null}, {"suffix": {"equals-ignore-case": ["a"]}}, {"prefix": "a", "suffix": "b"}, {"regex": "a"},
    {"Prefix": "a"}, {"equals-ignore-case": ["a"]}, {"equals-ignore-case": 1}, {"wildcard": 1}, {"wildcard": ["a"]},
    {"anything-but": null}, {"anything-but": true}, {"anything-but": []}, {"anything-but": [1, "a"]}, {"anything-but": [null]},
    {"anything-but": {}}, {"anything-but": {"prefix": ""}}, {"anything-but": {"suffix": ["a", ""]}},
    {"anything-but": {"prefix": 1}}, {"anything-but": {"wildcard": ["a", "**"]}},
    {"anything-but": {"equals-ignore-case": [1]}}, {"anything-but": {"numeric": ["=", 1]}},
    {"anything-but": {"prefix": "a", "suffix": "b"}}, {"anything-but": 9007199254740993}, {"anything-but": [[1]]},
    {"exists": "true"}, {"exists": null}, {"exists": true, "prefix": "a"}, {"cidr": 1}, {"cidr": "10.0.0.0"},
    {"cidr": "10.0.0.0/32"}, {"cidr": "a/8"}, {"cidr": "2001:db8::/128"}, {"cidr": "10.0.0.0/-1"}, {"exactly": 1},
    {"exactly": ["a"]}, {"numeric": 1}, {"numeric": []}, {"numeric": [">"]}, {"numeric": ["!=", 1]}, {"numeric": [1, ">"]},
    {"numeric": [">", "1"]}, {"numeric": [">", 1, ">", 2]}, {"numeric": ["<", 1, ">", 0]}, {"numeric": [">", 1, "<", 1]},
    {"numeric": [">=", 2, "<=", 1]}, {"numeric": ["=", 1, "=", 1]}, {"numeric": ["=", 9007199254740993]},
    {"numeric": [">", 1, "<", 2, "<", 3]}, {"numeric": [">", 1, "<"]}, {"numeric": ["=", null]}
]"#;
const WRONG_FIELDS: &str = r#"[
    [], {}, 1, "a", null, true, {"$or": []}, {"$or": [{"a": [1]}]}, {"$or": {"a": [1]}}, {"$or": [1, 2]}, {"$or": [{"a": [1]}, {}]},
    {"$or": [{"a": [1]}, {"b": 1}]}, {"$or": [{"prefix": [1]}, {"b": [1]}]}, {"$or": [{"b": [1]}, {"b": {"cidr": [1]}}]}
]"#;

pub struct Pair {
    pub pattern: Value,
    pub event: Node,
}

/// A value of an event, as it will be written.
pub enum Node {
    Scalar(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

pub fn pair(rng: &mut Rng) -> Pair {
    let event = object(rng, 3);
    let mut leaves = Vec::new();
    event.leaves("", &mut leaves);
    let mut pattern = pattern(rng, &leaves);
    if rng.u8(..100) < 12 {
        spoil(rng, &mut pattern);
    }
    let event = if rng.u8(..100) == 0 { Node::Array(vec![event]) } else { event };
    Pair { pattern, event }
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

fn text(text: &str) -> String {
    Value::from(text).to_string()
}

fn scalar(rng: &mut Rng) -> String {
    match rng.u8(..10) {
        0..=4 => text(pick(rng, &TEXTS)),
        5..=8 => pick(rng, &NUMBERS).to_owned(),
        _ => pick(rng, &["null", "true", "false"]).to_owned(),
    }
}

fn key(rng: &mut Rng) -> String {
    match rng.u8(..20) {
        0 => format!("{}.{}", pick(rng, &KEYS), pick(rng, &KEYS)),
        _ => pick(rng, &KEYS).to_owned(),
    }
}

fn object(rng: &mut Rng, depth: usize) -> Node {
    let mut members: Vec<(String, Node)> = Vec::new();
    for _ in 0..rng.usize(1..5) {
        let key = key(rng);
        // A key now and then stands twice.
        if rng.u8(..20) == 0 || members.iter().all(|(known, _)| *known != key) {
            members.push((key, node(rng, depth - 1)));
        }
    }
    Node::Object(members)
}

fn node(rng: &mut Rng, depth: usize) -> Node {
    if depth == 0 {
        return Node::Scalar(scalar(rng));
    }
    match rng.u8(..10) {
        0..=3 => Node::Scalar(scalar(rng)),
        4..=5 => object(rng, depth),
        6..=8 => Node::Array((0..rng.usize(..4)).map(|_| object(rng, depth)).collect()),
        _ => Node::Array((0..rng.usize(..4)).map(|_| node(rng, depth - 1)).collect()),
    }
}

impl Node {
    /// The text of the data.
    pub fn text(&self) -> String {
        let joined = |all: Vec<String>| all.join(",");
        match self {
            Self::Scalar(text) => text.clone(),
            Self::Array(elements) => format!("[{}]", joined(elements.iter().map(Self::text).collect())),
            Self::Object(members) => {
                let members = members.iter().map(|(key, value)| format!("{}:{}", text(key), value.text()));
                format!("{{{}}}", joined(members.collect()))
            }
        }
    }

    /// Paths and texts of the scalars.
    fn leaves(&self, path: &str, found: &mut Vec<(String, String)>) {
        match self {
            Self::Scalar(text) => found.push((path.to_owned(), text.clone())),
            Self::Array(elements) => elements.iter().for_each(|element| element.leaves(path, found)),
            Self::Object(members) => {
                for (key, value) in members {
                    let dot = if path.is_empty() { "" } else { "." };
                    value.leaves(&format!("{path}{dot}{key}"), found);
                }
            }
        }
    }
}

fn pattern(rng: &mut Rng, leaves: &[(String, String)]) -> Value {
    let mut pattern = Map::new();
    let mut names = Vec::new();
    let count = rng.usize(1..4);
    let has_choices = rng.u8(..100) < 15;
    for _ in 0..count {
        field(rng, leaves, &mut pattern, &mut names);
    }
    if has_choices {
        let choice = |rng: &mut Rng| {
            let (mut choice, mut names) = (Map::new(), names.clone());
            while choice.is_empty() || rng.u8(..3) == 0 {
                field(rng, leaves, &mut choice, &mut names);
            }
            Value::Object(choice)
        };
        let choices: Vec<_> = (0..rng.usize(2..4)).map(|_| choice(rng)).collect();
        pattern.insert("$or".to_owned(), choices.into());
    }
    Value::Object(pattern)
}

/// Adds a field that is new by name; steps become objects or dots.
fn field(
    rng: &mut Rng,
    leaves: &[(String, String)],
    fields: &mut Map<String, Value>,
    names: &mut Vec<String>,
) {
    let (name, held) = if rng.u8(..100) < 85 && !leaves.is_empty() {
        let at = rng.usize(..leaves.len());
        (leaves[at].0.clone(), Some(&leaves[at].1))
    } else {
        ((0..rng.usize(1..4)).map(|_| pick(rng, &KEYS)).collect::<Vec<_>>().join("."), None)
    };
    if names.contains(&name) {
        // Another name is always to be had.
        names.push(format!("{name}.{}", names.len()));
        fields.entry(format!("{name}.{}", names.len() - 1)).or_insert_with(|| json!([{ "exists": false }]));
        return;
    }
    let mut list: Vec<_> = (0..rng.usize(1..3)).map(|_| entry(rng, held)).collect();
    // event-ruler errs where these two meet in a list: see the differences.
    if list.iter().any(|entry| entry.get("wildcard").or(entry["anything-but"].get("wildcard")).is_some()) {
        list.retain(|entry| entry["anything-but"].get("equals-ignore-case").is_none());
    }
    if insert(rng, fields, &name, list.into()) {
        names.push(name);
    }
}

fn insert(rng: &mut Rng, fields: &mut Map<String, Value>, name: &str, list: Value) -> bool {
    if let Some((step, rest)) = name.split_once('.')
        && rng.u8(..10) > 0
        && fields.get(step).is_none_or(Value::is_object)
    {
        let inner = fields.entry(step).or_insert_with(|| json!({}));
        return inner.as_object_mut().is_some_and(|inner| insert(rng, inner, rest, list));
    }
    let is_new = !fields.contains_key(name);
    if is_new {
        fields.insert(name.to_owned(), list);
    }
    is_new
}

/// An entry of a list, more often than not one that the value fulfils.
fn entry(rng: &mut Rng, held: Option<&String>) -> Value {
    let any = scalar(rng);
    let meant = held.filter(|_| rng.u8(..100) < 80).unwrap_or(&any);
    let meant: Value = serde_json::from_str(meant).unwrap_or(Value::Null);
    if rng.u8(..100) < 10 {
        return json!({ "exists": rng.u8(..3) > 0 });
    }
    match meant {
        Value::String(text) => text_entry(rng, &text),
        Value::Number(number) => number_entry(rng, number.into()),
        other if rng.bool() => other,
        _ => json!({ "anything-but": pick(rng, &TEXTS) }),
    }
}

fn text_entry(rng: &mut Rng, held: &str) -> Value {
    let characters: Vec<char> = held.chars().collect();
    let cut = rng.usize(..=characters.len());
    let (start, end): (String, String) =
        (characters[..cut].iter().collect(), characters[cut..].iter().collect());
    let swapped =
        |text: &str| if text.to_lowercase() == text { text.to_uppercase() } else { text.to_lowercase() };
    let other = pick(rng, &TEXTS);
    let escaped = |text: &str| text.replace('\\', r"\\").replace('*', r"\*");
    match rng.u8(..20) {
        0..=4 => json!(held),
        5 => json!({ "exactly": held }),
        6 => json!({ "prefix": start }),
        7 => json!({ "suffix": end }),
        8 => json!({ "prefix": { "equals-ignore-case": swapped(&start) } }),
        9 => json!({ "suffix": { "equals-ignore-case": swapped(&end) } }),
        10 => json!({ "equals-ignore-case": swapped(held) }),
        11 => {
            let end: String = end.chars().skip(1).collect();
            json!({ "wildcard": format!("{}*{}", escaped(&start), escaped(&end)) })
        }
        12 => json!({ "wildcard": pick(rng, &WILDCARDS) }),
        13 => json!({ "anything-but": other }),
        14 => json!({ "anything-but": [other, pick(rng, &TEXTS)] }),
        15 => json!({ "anything-but": { "prefix": [other, "q"] } }),
        16 => json!({ "anything-but": { "suffix": other } }),
        17 => json!({ "anything-but": { "equals-ignore-case": [other, "Q"] } }),
        18 => json!({ "anything-but": { "wildcard": pick(rng, &WILDCARDS) } }),
        _ => json!({ "cidr": pick(rng, &NETWORKS) }),
    }
}

fn number_entry(rng: &mut Rng, held: Value) -> Value {
    let value = held.as_f64().unwrap_or(0.0);
    let near = value + pick(rng, &[-1.0, 0.0, 1.0]);
    match rng.u8(..8) {
        0..=2 => held,
        3 => json!({ "numeric": [pick(rng, &["=", "<", "<=", ">", ">="]), near] }),
        4 => json!({ "numeric": [pick(rng, &[">", ">="]), value - 1.0, pick(rng, &["<", "<="]), near] }),
        5 => json!({ "numeric": ["=", held] }),
        6 => json!({ "anything-but": near }),
        _ => json!({ "anything-but": [near, 2.5] }),
    }
}

/// Makes the pattern one that is probably refused.
fn spoil(rng: &mut Rng, pattern: &mut Value) {
    let wrong = |rng: &mut Rng, all: &str| {
        let all: Vec<Value> = serde_json::from_str(all).expect("JSON");
        all[rng.usize(..all.len())].clone()
    };
    match pattern {
        Value::Object(fields) if !fields.is_empty() && rng.u8(..10) > 0 => {
            let at = rng.usize(..fields.len());
            let value = fields.iter_mut().nth(at).expect("in range").1;
            spoil(rng, value);
        }
        Value::Array(entries) if !entries.is_empty() && rng.u8(..10) > 0 => {
            let at = rng.usize(..entries.len());
            if matches!(&entries[at], Value::Object(entry) if entry.values().all(Value::is_array))
                && rng.bool()
            {
                spoil(rng, &mut entries[at]);
            } else {
                entries[at] = wrong(rng, WRONG_ENTRIES);
            }
        }
        other => *other = wrong(rng, WRONG_FIELDS),
    }
}
