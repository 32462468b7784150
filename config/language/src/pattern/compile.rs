//! From a pattern's JSON to branches: each is a list of fields that must all hold, and one branch is enough.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::PatternError;
use super::address::Network;
use super::condition::{Alternatives, Bound, Condition, Literal, Range};
use super::search::{Branch, Field};
use super::text::{Caseless, Wildcard};
use crate::json;

/// Levels of objects and `$or` lists in a pattern.
const DEPTH_MAX: usize = 32;
/// Branches that the `$or` lists of a pattern multiply to; EventBridge has the same limit.
const BRANCHES_MAX: usize = 1_000;
/// Fields of a branch; event-ruler has the same limit.
const FIELDS_MAX: usize = 256;
/// Keys and values of a pattern.
const ENTRIES_MAX: usize = 20_000;
/// Bytes of all keys and texts of a pattern.
const TEXT_BYTES_MAX: usize = 1 << 20;

const OR: &str = "$or";

/// Names that event-ruler keeps for operators, so that it takes no field of that name inside `$or`.
const RESERVED: [&str; 22] = [
    "exactly",
    "equals-ignore-case",
    "prefix",
    "suffix",
    "anything-but",
    "exists",
    "wildcard",
    "numeric",
    "cidr",
    "=",
    "<",
    "<=",
    ">",
    ">=",
    "regex",
    "not-wildcard",
    "not-equals-ignore-case",
    "date-after",
    "date-on-or-after",
    "date-before",
    "date-on-or-before",
    "in-date-range",
];
const RESERVED_ADDRESSES: [&str; 2] = ["ip-address-in-range", "ip-address-not-in-range"];

const OPERATORS: &str =
    "`prefix`, `suffix`, `equals-ignore-case`, `wildcard`, `anything-but`, `numeric`, `exists`, `cidr`";

/// The fields of a branch so far, by name.
type Draft = Vec<(String, Arc<Alternatives>)>;

type Compiled<T> = Result<T, PatternError>;

pub(super) fn branches(pattern: &Value) -> Compiled<Box<[Branch]>> {
    let mut compiler = Compiler::default();
    compiler.measure(pattern, 0)?;
    let Value::Object(fields) = pattern else {
        return compiler.refuse(format!("a pattern is an object of fields, not {}", kind(pattern)));
    };
    let drafts = compiler.object(vec![Draft::new()], fields, Place::Plain)?;
    Ok(drafts.into_iter().map(branch).collect())
}

/// Fields go in event-ruler's order, which is that of Java's strings: what `exists: false` looks at depends on it.
fn branch(mut draft: Draft) -> Branch {
    draft.sort_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
    Branch::of(draft.into_iter().map(|(name, alternatives)| Field::of(name, alternatives)).collect())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Plain,
    InsideOr,
}

#[derive(Default)]
struct Compiler {
    /// Keys and positions from the root to the value that is compiled.
    path: Vec<String>,
    /// The names of the objects around it.
    names: Vec<String>,
    entries: usize,
    text_bytes: usize,
}

impl Compiler {
    /// Bounds the whole pattern before anything is made of it.
    fn measure(&mut self, value: &Value, depth: usize) -> Compiled<()> {
        // Below the last field there are a list, an operator and its operands.
        const BELOW_FIELDS: usize = 4;
        self.entries += 1;
        self.text_bytes += value.as_str().map_or(0, str::len);
        if self.entries > ENTRIES_MAX {
            return self.refuse(format!("a pattern has at most {ENTRIES_MAX} keys and values"));
        }
        if self.text_bytes > TEXT_BYTES_MAX {
            return self.refuse(format!("the text of a pattern is at most {TEXT_BYTES_MAX} bytes"));
        }
        if depth > DEPTH_MAX + BELOW_FIELDS {
            return self.refuse(format!("a pattern is at most {DEPTH_MAX} levels deep"));
        }
        match value {
            Value::Object(members) => members.iter().try_for_each(|(key, value)| {
                self.text_bytes += key.len();
                self.within(key, |compiler| compiler.measure(value, depth + 1))
            }),
            Value::Array(elements) => elements.iter().enumerate().try_for_each(|(at, element)| {
                self.within(&at, |compiler| compiler.measure(element, depth + 1))
            }),
            _ => Ok(()),
        }
    }

    fn object(
        &mut self,
        mut drafts: Vec<Draft>,
        fields: &Map<String, Value>,
        place: Place,
    ) -> Compiled<Vec<Draft>> {
        if fields.is_empty() {
            return self.refuse("an empty object matches nothing: name a field".into());
        }
        if self.path.len() > DEPTH_MAX {
            return self.refuse(format!("a pattern is at most {DEPTH_MAX} levels deep"));
        }
        for (key, value) in fields {
            drafts = self.within(key, |compiler| compiler.field(drafts, key, value, place))?;
        }
        Ok(drafts)
    }

    fn field(
        &mut self,
        mut drafts: Vec<Draft>,
        key: &str,
        value: &Value,
        place: Place,
    ) -> Compiled<Vec<Draft>> {
        if key == OR {
            return self.or(&drafts, value);
        }
        if place == Place::InsideOr && (RESERVED.contains(&key) || RESERVED_ADDRESSES.contains(&key)) {
            return self.refuse(format!("`{key}` is an operator and cannot name a field inside `$or`"));
        }
        match value {
            Value::Object(fields) => {
                self.names.push(key.to_owned());
                let drafts = self.object(drafts, fields, place);
                self.names.pop();
                drafts
            }
            Value::Array(entries) => {
                let alternatives = Arc::new(self.alternatives(entries)?);
                let name = self.name(key);
                for draft in &mut drafts {
                    if draft.iter().any(|(known, _)| *known == name) {
                        return self.refuse(format!(
                            "`{name}` has another list already, and event-ruler would take but one of the two"
                        ));
                    }
                    draft.push((name.clone(), Arc::clone(&alternatives)));
                    if draft.len() > FIELDS_MAX {
                        return self.refuse(format!("a pattern names at most {FIELDS_MAX} fields"));
                    }
                }
                Ok(drafts)
            }
            other => self.refuse(format!(
                "`{key}` takes a list of values, such as `[{other}]`, or an object of fields, not {}",
                kind(other)
            )),
        }
    }

    /// The names joined, as event-ruler joins them: steps before it that are empty leave no dot.
    fn name(&self, key: &str) -> String {
        let around = self.names.join(".");
        if around.is_empty() { key.to_owned() } else { format!("{around}.{key}") }
    }

    fn or(&mut self, drafts: &[Draft], value: &Value) -> Compiled<Vec<Draft>> {
        const SHAPE: &str = "`$or` takes a list of two or more objects";
        let Value::Array(choices) = value else {
            return self.refuse(format!("{SHAPE}, not {}", kind(value)));
        };
        if choices.len() < 2 {
            return self.refuse(format!("{SHAPE}; here are {}", choices.len()));
        }
        let mut all = Vec::new();
        for (at, choice) in choices.iter().enumerate() {
            let made = self.within(&at, |compiler| {
                let Value::Object(fields) = choice else {
                    return compiler.refuse(format!("{SHAPE}, not of {}", kind(choice)));
                };
                compiler.object(drafts.to_vec(), fields, Place::InsideOr)
            })?;
            all.extend(made);
            if all.len() > BRANCHES_MAX {
                return self
                    .refuse(format!("the `$or` lists multiply to more than {BRANCHES_MAX} combinations"));
            }
        }
        Ok(all)
    }

    fn alternatives(&mut self, entries: &[Value]) -> Compiled<Alternatives> {
        if entries.is_empty() {
            return self.refuse("an empty list matches nothing: give it a value".into());
        }
        let entries = entries.iter().enumerate();
        let conditions = entries.map(|(at, entry)| self.within(&at, |compiler| compiler.entry(entry)));
        Ok(Alternatives::of(conditions.collect::<Result<_, _>>()?))
    }

    fn entry(&mut self, entry: &Value) -> Compiled<Condition> {
        Ok(match entry {
            Value::Null => Condition::Literal(Literal::Null),
            Value::Bool(true) => Condition::Literal(Literal::True),
            Value::Bool(false) => Condition::Literal(Literal::False),
            Value::Number(number) => {
                let text = number.to_string();
                json::number_value(&text)
                    .map_or_else(|| Condition::LongNumber(text.as_str().into()), Condition::Number)
            }
            // event-ruler compares addresses as addresses, also where no `cidr` asks for it.
            Value::String(text) => match Network::host(text) {
                Some(host) => Condition::Within(host, Value::from(&**text).to_string().into()),
                None => Condition::Text(text.as_str().into()),
            },
            Value::Object(operator) => return self.operator(operator),
            Value::Array(_) => {
                return self.refuse("a list inside a list is no value: one list is enough".into());
            }
        })
    }

    fn operator(&mut self, members: &Map<String, Value>) -> Compiled<Condition> {
        let (name, operand) = self.only_member(members, OPERATORS)?;
        self.within(name, |compiler| match name.as_str() {
            "exactly" => Ok(Condition::Text(compiler.text(operand)?.into())),
            "prefix" => {
                compiler.affix(operand, |text| Condition::Prefix(text.into()), Condition::CaselessPrefix)
            }
            "suffix" => {
                compiler.affix(operand, |text| Condition::Suffix(text.into()), Condition::CaselessSuffix)
            }
            "equals-ignore-case" => Ok(Condition::Caseless(Caseless::of(compiler.text(operand)?))),
            "wildcard" => compiler.wildcard(operand),
            "anything-but" => compiler.anything_but(operand),
            "numeric" => compiler.numeric(operand),
            "exists" => match operand {
                Value::Bool(true) => Ok(Condition::Present),
                Value::Bool(false) => Ok(Condition::Absent),
                other => compiler.refuse(format!("`exists` takes true or false, not {}", kind(other))),
            },
            "cidr" => {
                let text = compiler.text(operand)?;
                match Network::parse(text) {
                    Ok(network) => Ok(Condition::Within(network, text.into())),
                    Err(message) => compiler.refuse(message),
                }
            }
            unknown => compiler.refuse(format!("there is no operator `{unknown}`: known are {OPERATORS}")),
        })
    }

    /// A text, or `{"equals-ignore-case": TEXT}`.
    fn affix(
        &mut self,
        operand: &Value,
        exact: fn(&str) -> Condition,
        caseless: fn(Caseless) -> Condition,
    ) -> Compiled<Condition> {
        const INSIDE: &str = "`equals-ignore-case`";
        let Value::Object(members) = operand else { return Ok(exact(self.text(operand)?)) };
        let (name, operand) = self.only_member(members, INSIDE)?;
        self.within(name, |compiler| {
            if name != "equals-ignore-case" {
                return compiler.refuse(format!("there is no operator `{name}` here: known is {INSIDE}"));
            }
            Ok(caseless(Caseless::of(compiler.text(operand)?)))
        })
    }

    fn wildcard(&mut self, operand: &Value) -> Compiled<Condition> {
        let parsed = Wildcard::parse(self.text(operand)?);
        parsed.map(Condition::Wildcard).or_else(|message| self.refuse(message))
    }

    fn anything_but(&mut self, operand: &Value) -> Compiled<Condition> {
        const INSIDE: &str = "`prefix`, `suffix`, `equals-ignore-case`, `wildcard`";
        let excluded = match operand {
            Value::Object(members) => {
                let (name, operand) = self.only_member(members, INSIDE)?;
                self.within(name, |compiler| {
                    let make: fn(&mut Self, &Value) -> Compiled<Condition> = match name.as_str() {
                        "prefix" => |compiler, text| Ok(Condition::Prefix(compiler.affix_text(text)?.into())),
                        "suffix" => |compiler, text| Ok(Condition::Suffix(compiler.affix_text(text)?.into())),
                        "equals-ignore-case" => {
                            |compiler, text| Ok(Condition::Caseless(Caseless::of(compiler.text(text)?)))
                        }
                        "wildcard" => Self::wildcard,
                        unknown => {
                            return compiler.refuse(format!(
                                "there is no operator `{unknown}` inside `anything-but`: known are {INSIDE}"
                            ));
                        }
                    };
                    compiler.one_or_more(operand, make)
                })?
            }
            Value::Array(values)
                if values.iter().any(Value::is_number) && values.iter().any(Value::is_string) =>
            {
                return self.refuse("the values of `anything-but` are all texts or all numbers".into());
            }
            _ => self.one_or_more(operand, Self::excluded)?,
        };
        Ok(Condition::AnythingBut(excluded))
    }

    fn one_or_more(
        &mut self,
        operand: &Value,
        make: fn(&mut Self, &Value) -> Compiled<Condition>,
    ) -> Compiled<Vec<Condition>> {
        let Value::Array(values) = operand else { return Ok(vec![make(self, operand)?]) };
        if values.is_empty() {
            return self.refuse("an empty list excludes nothing: give it a value".into());
        }
        let values = values.iter().enumerate();
        values.map(|(at, value)| self.within(&at, |compiler| make(compiler, value))).collect()
    }

    fn excluded(&mut self, value: &Value) -> Compiled<Condition> {
        match value {
            Value::String(text) => Ok(Condition::Text(text.as_str().into())),
            Value::Number(_) => Ok(Condition::Number(self.number(value)?)),
            other => self.refuse(format!("`anything-but` takes texts or numbers, not {}", kind(other))),
        }
    }

    fn affix_text<'v>(&mut self, operand: &'v Value) -> Compiled<&'v str> {
        match self.text(operand)? {
            "" => self.refuse("every text has the empty prefix and suffix, so this excludes all".into()),
            text => Ok(text),
        }
    }

    fn numeric(&mut self, operand: &Value) -> Compiled<Condition> {
        const SHAPES: &str = "`numeric` takes a comparison and a number, such as `[\">\", 5]`, or a range, such as `[\">\", 0, \"<=\", 5]`";
        let Value::Array(terms) = operand else {
            return self.refuse(format!("{SHAPES}, not {}", kind(operand)));
        };
        let signs: Vec<_> = terms.iter().step_by(2).map(Value::as_str).collect();
        if let Some(at) = signs.iter().position(|sign| !matches!(sign, Some("=" | "<" | "<=" | ">" | ">="))) {
            return self.within(&(at * 2), |compiler| compiler.refuse(SHAPES.into()));
        }
        let mut numbers = Vec::new();
        for (at, number) in terms.iter().enumerate().skip(1).step_by(2) {
            numbers.push(self.within(&at, |compiler| compiler.number(number))?);
        }
        let bound = |value, sign: &str| Some(Bound { value, is_inclusive: sign.ends_with('=') });
        match (&signs[..], &numbers[..]) {
            ([Some("=")], [value]) => Ok(Condition::Number(*value)),
            ([Some(sign @ (">" | ">="))], [low]) => {
                Ok(Condition::Range(Range { low: bound(*low, sign), high: None }))
            }
            ([Some(sign @ ("<" | "<="))], [high]) => {
                Ok(Condition::Range(Range { low: None, high: bound(*high, sign) }))
            }
            ([Some(above @ (">" | ">=")), Some(below @ ("<" | "<="))], [low, high]) => {
                if low >= high {
                    return self.refuse(format!("the range is empty: {low} is not less than {high}"));
                }
                Ok(Condition::Range(Range { low: bound(*low, above), high: bound(*high, below) }))
            }
            _ => self.refuse(SHAPES.into()),
        }
    }

    fn number(&self, value: &Value) -> Compiled<f64> {
        let Value::Number(number) = value else {
            return self.refuse(format!("expected a number, not {}", kind(value)));
        };
        let text = number.to_string();
        let value = json::number_value(&text);
        value.map_or_else(|| self.refuse(format!("{text} has more digits than a double holds exactly")), Ok)
    }

    fn text<'v>(&self, operand: &'v Value) -> Compiled<&'v str> {
        operand.as_str().map_or_else(|| self.refuse(format!("expected a text, not {}", kind(operand))), Ok)
    }

    fn only_member<'v>(
        &self,
        members: &'v Map<String, Value>,
        known: &str,
    ) -> Compiled<(&'v String, &'v Value)> {
        let mut members = members.iter();
        match (members.next(), members.next()) {
            (Some(member), None) => Ok(member),
            (Some((one, _)), Some((other, _))) => self.refuse(format!(
                "one operator an object: give `{one}` and `{other}` an object each, and either may hold"
            )),
            (None, _) => self.refuse(format!("an empty object is no condition: known are {known}")),
        }
    }

    fn within<T>(
        &mut self,
        step: &(impl ToString + ?Sized),
        compile: impl FnOnce(&mut Self) -> Compiled<T>,
    ) -> Compiled<T> {
        self.path.push(step.to_string());
        let compiled = compile(self)?;
        self.path.pop();
        Ok(compiled)
    }

    fn refuse<T>(&self, message: String) -> Compiled<T> {
        Err(PatternError { path: self.path.clone(), message })
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
