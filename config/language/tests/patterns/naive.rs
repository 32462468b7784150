//! Patterns by definition: all scalars of an event, each with the elements it is in, and all combinations of them.

use std::net::IpAddr;

use serde_json::Value;

use super::generate::Node;

struct Leaf {
    path: String,
    scalar: Value,
    /// The text of a number that no double holds.
    long: Option<String>,
    /// Arrays, each with the element gone through.
    elements: Vec<(usize, usize)>,
}

pub fn matches(pattern: &Value, event: &Node) -> bool {
    let Node::Object(_) = event else { return false };
    let mut leaves = Vec::new();
    flatten(event, "", &[], &mut 0, &mut leaves);
    branches(pattern, "").into_iter().any(|mut fields| {
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        combine(&fields, &[], &leaves)
    })
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn flatten(node: &Node, path: &str, elements: &[(usize, usize)], arrays: &mut usize, leaves: &mut Vec<Leaf>) {
    match node {
        Node::Scalar(text) => {
            let value: Result<Value, _> = serde_json::from_str(text);
            let is_long = text.len() > 15 && text.starts_with(|first: char| first.is_ascii_digit());
            let long = (is_long || value.is_err()).then(|| text.clone());
            let scalar = value.unwrap_or_else(|_| Value::from(0));
            leaves.push(Leaf { path: path.to_owned(), scalar, long, elements: elements.to_vec() });
        }
        Node::Array(nodes) => {
            *arrays += 1;
            let array = *arrays;
            for (at, node) in nodes.iter().enumerate() {
                let mut elements = elements.to_vec();
                if !matches!(node, Node::Scalar(_)) {
                    elements.push((array, at));
                }
                flatten(node, path, &elements, arrays, leaves);
            }
        }
        Node::Object(members) => {
            members.iter().for_each(|(key, node)| flatten(node, &below(path, key), elements, arrays, leaves));
        }
    }
}

type Fields<'p> = Vec<(String, &'p [Value])>;

fn branches<'p>(fields: &'p Value, path: &str) -> Vec<Fields<'p>> {
    let mut all: Vec<Fields<'p>> = vec![Vec::new()];
    for (key, value) in fields.as_object().expect("compiled") {
        let choices: Vec<Fields<'p>> = match value {
            Value::Array(choices) if key == "$or" => {
                choices.iter().flat_map(|choice| branches(choice, path)).collect()
            }
            Value::Array(list) => vec![vec![(below(path, key), list)]],
            inner => branches(inner, &below(path, key)),
        };
        let with = |before: &Fields<'p>| -> Vec<Fields<'p>> {
            choices.iter().map(|choice| [&before[..], &choice[..]].concat()).collect()
        };
        all = all.iter().flat_map(with).collect();
    }
    all
}

fn combine(fields: &[(String, &[Value])], chosen: &[(usize, usize)], leaves: &[Leaf]) -> bool {
    let Some(((path, list), rest)) = fields.split_first() else { return true };
    let agrees =
        |(array, at): &(usize, usize)| chosen.iter().all(|other| other.0 != *array || other.1 == *at);
    let mut places =
        leaves.iter().filter(|leaf| leaf.path == *path && leaf.elements.iter().all(agrees)).peekable();
    if places.peek().is_none() {
        let may_be_absent = list.iter().any(|entry| entry["exists"] == Value::Bool(false));
        return may_be_absent && combine(rest, chosen, leaves);
    }
    places.any(|leaf| {
        list.iter().any(|entry| holds(entry, leaf))
            && combine(rest, &[chosen, &leaf.elements].concat(), leaves)
    })
}

fn holds(entry: &Value, leaf: &Leaf) -> bool {
    let Value::Object(operator) = entry else { return equals(entry, leaf) || is_same_address(entry, leaf) };
    let (name, operand) = operator.iter().next().expect("compiled");
    let text = leaf.scalar.as_str();
    let any = |operand: &Value, holds: &dyn Fn(&Value) -> bool| match operand {
        Value::Array(all) => all.iter().any(holds),
        one => holds(one),
    };
    match (name.as_str(), operand) {
        ("exists", exists) => *exists == Value::Bool(true),
        ("exactly", wanted) => leaf.scalar == *wanted,
        ("numeric", terms) => terms.as_array().expect("compiled").chunks(2).all(|term| compares(term, leaf)),
        ("cidr", block) => text.and_then(address).is_some_and(|address| is_within(&address, inner(block))),
        ("anything-but", Value::Object(operator)) => {
            let (name, operand) = operator.iter().next().expect("compiled");
            !any(operand, &|operand| text.is_some_and(|text| is_text(name, operand, text)))
        }
        ("anything-but", operand) => !any(operand, &|operand| equals(operand, leaf)),
        (name, operand) => text.is_some_and(|text| is_text(name, operand, text)),
    }
}

fn equals(wanted: &Value, leaf: &Leaf) -> bool {
    match (&leaf.long, wanted) {
        (Some(long), Value::Number(wanted)) => wanted.to_string() == *long,
        (Some(_), _) => false,
        (None, Value::Number(wanted)) => leaf.scalar.is_number() && wanted.as_f64() == leaf.scalar.as_f64(),
        (None, wanted) => leaf.scalar == *wanted,
    }
}

fn compares(term: &[Value], leaf: &Leaf) -> bool {
    let (Some(value), None, Some(bound)) = (leaf.scalar.as_f64(), &leaf.long, term[1].as_f64()) else {
        return false;
    };
    match inner(&term[0]) {
        "=" => value == bound,
        "<" => value < bound,
        "<=" => value <= bound,
        ">" => value > bound,
        _ => value >= bound,
    }
}

fn is_text(name: &str, operand: &Value, text: &str) -> bool {
    let caseless = |is_start, is_end| {
        let wanted = operand.get("equals-ignore-case").unwrap_or(operand);
        let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        starts
            .take(if is_end { usize::MAX } else { 1 })
            .any(|at| is_caseless(inner(wanted), &text[at..], is_start))
    };
    match (name, operand) {
        ("prefix", Value::String(start)) => text.starts_with(start),
        ("suffix", Value::String(end)) => text.ends_with(end),
        ("prefix", _) => caseless(true, false),
        ("suffix", _) => caseless(false, true),
        ("equals-ignore-case", _) => caseless(false, false),
        ("wildcard", wildcard) => {
            let wildcard: Vec<char> = inner(wildcard).chars().collect();
            is_like(&wildcard, &text.chars().collect::<Vec<_>>())
        }
        other => panic!("{other:?}"),
    }
}

/// Tries each letter in lower and in upper case.
fn is_caseless(wanted: &str, text: &str, is_start: bool) -> bool {
    let Some(first) = wanted.chars().next() else { return is_start || text.is_empty() };
    let rest = &wanted[first.len_utf8()..];
    let letters = [first.to_lowercase().to_string(), first.to_uppercase().to_string()];
    letters
        .iter()
        .any(|letter| text.strip_prefix(&**letter).is_some_and(|text| is_caseless(rest, text, is_start)))
}

fn is_like(wildcard: &[char], text: &[char]) -> bool {
    match wildcard {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|skipped| is_like(rest, &text[skipped..])),
        ['\\', literal, rest @ ..] | [literal, rest @ ..] => {
            text.first() == Some(literal) && is_like(rest, &text[1..])
        }
    }
}

fn is_same_address(wanted: &Value, leaf: &Leaf) -> bool {
    let both = wanted.as_str().and_then(address).zip(leaf.scalar.as_str().and_then(address));
    both.is_some_and(|(wanted, address)| wanted == address)
}

/// The bits of an address, as digits.
fn address(text: &str) -> Option<String> {
    let part = |part: &str| part.parse().map_or(part.to_owned(), |octet: u8| octet.to_string());
    let is_mixed = text.contains(':') && text.contains('.');
    let plain = text.split('.').map(part).collect::<Vec<_>>().join(".");
    match plain.parse().ok().filter(|_| !is_mixed)? {
        IpAddr::V4(address) => Some(format!("{:032b}", address.to_bits())),
        IpAddr::V6(address) => Some(match address.to_ipv4_mapped() {
            Some(address) => format!("{:032b}", address.to_bits()),
            None => format!("{:0128b}", address.to_bits()),
        }),
    }
}

fn is_within(address: &str, block: &str) -> bool {
    let (net, bits) = block.split_once('/').expect("compiled");
    let net = self::address(net).expect("compiled");
    let bits: usize = bits.parse().expect("compiled");
    // The bits of a mapped address count from where the IPv4 address begins.
    net.len() == address.len() && net[..bits] == address[..bits]
}

fn inner(text: &Value) -> &str {
    text.as_str().expect("compiled")
}
