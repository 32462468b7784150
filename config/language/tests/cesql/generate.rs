//! Expressions and events to compare implementations on.

use fastrand::Rng;
use serde_json::{Value as Json, json};

const DEPTH: u32 = 4;

const ATTRIBUTES: [&str; 11] =
    ["id", "source", "type", "subject", "number", "zero", "flag", "word", "digits", "truth", "missing"];

const TEXTS: [&str; 16] = [
    "''",
    "'abc'",
    "\"abc\"",
    "'5'",
    "'05'",
    "'-7'",
    "'TRUE'",
    "'false'",
    "'com.example.a'",
    "'a b '",
    "' '",
    "'it\\'s'",
    "'12345678901'",
    "'a_b_c'",
    "'Abc'",
    "'+3'",
];

const PATTERNS: [&str; 14] = [
    "''",
    "'%'",
    "'_'",
    "'a%'",
    "'%c'",
    "'%b%'",
    "'a_c'",
    "'com.%.a'",
    "'%a%a%'",
    "'___'",
    "'5'",
    "'%\\_%'",
    "'a\\%b%'",
    "'_%_'",
];

const INTEGERS: [&str; 12] =
    ["0", "1", "2", "3", "-1", "-7", "5", "10", "46341", "2147483647", "-2147483648", "+4"];

const FUNCTIONS: [(&str, &str); 13] = [
    ("LENGTH", "s"),
    ("LOWER", "s"),
    ("UPPER", "s"),
    ("TRIM", "s"),
    ("ABS", "i"),
    ("INT", "a"),
    ("BOOL", "a"),
    ("STRING", "a"),
    ("LEFT", "si"),
    ("RIGHT", "si"),
    ("SUBSTRING", "si"),
    ("SUBSTRING", "sin"),
    ("CONCAT_WS", "sss"),
];

pub fn event(rng: &mut Rng) -> Json {
    let mut event = json!({ "specversion": "1.0", "id": "1", "source": "/shop", "type": "com.example.a" });
    let mut maybe = |name: &str, values: &[Json]| {
        if rng.u8(..4) > 0 {
            event[name] = values[rng.usize(..values.len())].clone();
        }
    };
    maybe("subject", &[json!("abc"), json!("it's"), json!("a_b_c")]);
    maybe("number", &[json!(5), json!(-7), json!(2_147_483_647)]);
    maybe("zero", &[json!(0)]);
    maybe("flag", &[json!(true), json!(false)]);
    maybe("word", &[json!("abc"), json!("Abc"), json!(" a b ")]);
    maybe("digits", &[json!("5"), json!("05"), json!("-7"), json!("99999999999")]);
    maybe("truth", &[json!("true"), json!("FALSE")]);
    event
}

pub fn expression(rng: &mut Rng) -> String {
    let whole = any(rng, DEPTH);
    if rng.u8(..12) == 0 { spoiled(rng, &whole) } else { whole }
}

/// Without one of its words, or with one twice: mostly no expression any more.
fn spoiled(rng: &mut Rng, whole: &str) -> String {
    let mut words: Vec<_> = whole.split_inclusive([' ', '(']).collect();
    let at = rng.usize(..words.len());
    // A text twice would have a doubled quote, which is listed as a difference.
    if rng.bool() || words[at].ends_with(['\'', '"']) {
        words.remove(at);
    } else {
        words.insert(at, words[at]);
    }
    words.concat()
}

fn any(rng: &mut Rng, depth: u32) -> String {
    match rng.u8(..10) {
        0..=4 => boolean(rng, depth),
        5..=7 => integer(rng, depth),
        _ => text(rng, depth),
    }
}

fn pick<'t>(rng: &mut Rng, from: &[&'t str]) -> &'t str {
    from[rng.usize(..from.len())]
}

/// Of any type now and then, so that casts are met.
fn operand(rng: &mut Rng, depth: u32, wanted: fn(&mut Rng, u32) -> String) -> String {
    if rng.u8(..8) == 0 { any(rng, depth) } else { wanted(rng, depth) }
}

fn boolean(rng: &mut Rng, depth: u32) -> String {
    if depth == 0 {
        return match rng.u8(..4) {
            0 => format!("EXISTS {}", pick(rng, &ATTRIBUTES)),
            1 => pick(rng, &["flag", "truth"]).into(),
            _ => pick(rng, &["TRUE", "false"]).into(),
        };
    }
    let depth = depth - 1;
    match rng.u8(..12) {
        0 => boolean(rng, 0),
        1 => format!("NOT {}", bracketed(operand(rng, depth, boolean))),
        2..=4 => {
            let operator = pick(rng, &["AND", "OR", "XOR", "and"]);
            let (left, right) = (operand(rng, depth, boolean), operand(rng, depth, boolean));
            format!("{} {operator} {}", bracketed(left), bracketed(right))
        }
        5..=7 => {
            let operator = pick(rng, &["=", "!=", "<>"]);
            let kind = [boolean, integer, text][rng.usize(..3)];
            let (left, right) = (operand(rng, depth, kind), operand(rng, depth, kind));
            format!("{} {operator} {}", bracketed(left), bracketed(right))
        }
        8 => {
            let operator = pick(rng, &["<", "<=", ">", ">="]);
            let (left, right) = (operand(rng, depth, integer), operand(rng, depth, integer));
            format!("{} {operator} {}", bracketed(left), bracketed(right))
        }
        9 | 10 => {
            let not = pick(rng, &["", "NOT "]);
            format!("{} {not}LIKE {}", bracketed(operand(rng, depth, text)), pick(rng, &PATTERNS))
        }
        _ => {
            let not = pick(rng, &["", "NOT "]);
            let kind = [boolean, integer, text][rng.usize(..3)];
            let set: Vec<_> = (0..rng.usize(1..4)).map(|_| operand(rng, depth, kind)).collect();
            format!("{} {not}IN ({})", bracketed(operand(rng, depth, kind)), set.join(", "))
        }
    }
}

fn integer(rng: &mut Rng, depth: u32) -> String {
    if depth == 0 {
        return match rng.u8(..5) {
            0 => pick(rng, &["number", "zero", "digits"]).into(),
            _ => pick(rng, &INTEGERS).into(),
        };
    }
    let depth = depth - 1;
    match rng.u8(..8) {
        0 | 1 => integer(rng, 0),
        2 => format!("-{}", bracketed(operand(rng, depth, integer))),
        3 => call(rng, depth, &["LENGTH", "ABS", "INT"]),
        _ => {
            let operator = pick(rng, &["+", "-", "*", "/", "%"]);
            let (left, right) = (operand(rng, depth, integer), operand(rng, depth, integer));
            format!("{} {operator} {}", bracketed(left), bracketed(right))
        }
    }
}

fn text(rng: &mut Rng, depth: u32) -> String {
    if depth == 0 {
        return match rng.u8(..3) {
            0 => pick(rng, &ATTRIBUTES).into(),
            _ => pick(rng, &TEXTS).into(),
        };
    }
    match rng.u8(..4) {
        0 => text(rng, 0),
        1 => {
            let parts: Vec<_> = (0..rng.usize(..4)).map(|_| operand(rng, depth - 1, text)).collect();
            format!("CONCAT({})", parts.join(", "))
        }
        _ => call(
            rng,
            depth - 1,
            &["LOWER", "UPPER", "TRIM", "STRING", "LEFT", "RIGHT", "SUBSTRING", "CONCAT_WS", "BOOL"],
        ),
    }
}

fn call(rng: &mut Rng, depth: u32, names: &[&str]) -> String {
    let name = pick(rng, names);
    let known: Vec<_> = FUNCTIONS.iter().filter(|(known, _)| *known == name).collect();
    let (_, parameters) = known[rng.usize(..known.len())];
    let arguments: Vec<_> = parameters
        .chars()
        .map(|parameter| match parameter {
            's' => operand(rng, depth, text),
            'i' => operand(rng, depth, integer),
            // Position and length together overflow in Java, which is listed as a difference.
            'n' => pick(rng, &["0", "1", "2", "'3'", "-1", "zero"]).into(),
            _ => any(rng, depth),
        })
        .collect();
    // Now and then one too few.
    let count = if rng.u8(..40) == 0 { arguments.len() - 1 } else { arguments.len() };
    format!("{name}({})", arguments[..count].join(", "))
}

fn bracketed(operand: String) -> String {
    let is_one = operand.chars().all(|c| c.is_ascii_alphanumeric());
    if is_one { operand } else { format!("({operand})") }
}
