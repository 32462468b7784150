//! What one field must be.

use std::cmp::Ordering;

use serde_json::Value;

use super::address::Network;
use super::text::{Caseless, Wildcard};
use crate::json::Json;

/// The list of a field: one of its entries must hold. Exact values are sorted, so that long lists cost little.
#[derive(Clone, Debug, Default)]
pub(super) struct Alternatives {
    texts: Vec<Box<str>>,
    numbers: Vec<f64>,
    /// Numbers that no double holds: they match as they are written.
    long_numbers: Vec<Box<str>>,
    literals: Vec<Literal>,
    others: Vec<Condition>,
    /// `{"exists": false}`.
    pub may_be_absent: bool,
    /// The entries in words, in the order they were written.
    described: Vec<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    Null,
    True,
    False,
}

#[derive(Clone, Debug)]
pub(super) enum Condition {
    Text(Box<str>),
    Number(f64),
    LongNumber(Box<str>),
    Literal(Literal),
    Present,
    Absent,
    Prefix(Box<str>),
    Suffix(Box<str>),
    Caseless(Caseless),
    CaselessPrefix(Caseless),
    CaselessSuffix(Caseless),
    Wildcard(Wildcard),
    Range(Range),
    /// An address block, as it was written.
    Within(Network, Box<str>),
    /// Any scalar that fulfils none of these.
    AnythingBut(Vec<Condition>),
}

#[derive(Clone, Debug)]
pub(super) struct Range {
    pub low: Option<Bound>,
    pub high: Option<Bound>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub value: f64,
    pub is_inclusive: bool,
}

impl Alternatives {
    pub fn of(conditions: Vec<Condition>) -> Self {
        let mut all = Self::default();
        for condition in conditions {
            all.described.push(condition.describe().into());
            match condition {
                Condition::Text(text) => all.texts.push(text),
                Condition::Number(number) => all.numbers.push(number),
                Condition::LongNumber(text) => all.long_numbers.push(text),
                Condition::Literal(literal) => all.literals.push(literal),
                Condition::Absent => all.may_be_absent = true,
                other => all.others.push(other),
            }
        }
        all.texts.sort_unstable();
        all.numbers.sort_unstable_by(f64::total_cmp);
        all.long_numbers.sort_unstable();
        all
    }

    pub fn hold(&self, scalar: &Json<'_>) -> bool {
        let is_exact = match scalar {
            Json::Text(text) => self.texts.binary_search_by(|wanted| (**wanted).cmp(text.as_ref())).is_ok(),
            Json::Number(number) => match number.value {
                Some(value) => self.numbers.binary_search_by(|wanted| wanted.total_cmp(&value)).is_ok(),
                None => self.long_numbers.binary_search_by(|wanted| (**wanted).cmp(number.text)).is_ok(),
            },
            Json::Null => self.literals.contains(&Literal::Null),
            Json::Bool(true) => self.literals.contains(&Literal::True),
            Json::Bool(false) => self.literals.contains(&Literal::False),
            Json::Array(_) | Json::Object(_) => return false,
        };
        is_exact || self.others.iter().any(|condition| condition.holds(scalar))
    }

    /// The texts that [`Json::write_key`] gives for the scalars that match, if these can be listed.
    pub fn keys(&self) -> Option<Vec<String>> {
        if !self.others.is_empty() || self.may_be_absent {
            return None;
        }
        let texts = self.texts.iter().map(|text| format!("\"{text}"));
        let numbers = self.numbers.iter().map(|number| format!("={number:e}"));
        let long_numbers = self.long_numbers.iter().map(ToString::to_string);
        let literals = self.literals.iter().map(|literal| literal.describe().to_owned());
        Some(texts.chain(numbers).chain(long_numbers).chain(literals).collect())
    }

    /// "closed" or "merged".
    pub fn describe(&self) -> String {
        const SHOWN_MAX: usize = 8;
        let mut shown = self.described.iter().take(SHOWN_MAX).map(ToString::to_string).collect::<Vec<_>>();
        if self.described.len() > SHOWN_MAX {
            shown.push(format!("one of {} more", self.described.len() - SHOWN_MAX));
        }
        shown.join(" or ")
    }
}

impl Literal {
    pub fn describe(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::True => "true",
            Self::False => "false",
        }
    }
}

impl Condition {
    fn holds(&self, scalar: &Json<'_>) -> bool {
        let text = match scalar {
            Json::Text(text) => Some(text.as_ref()),
            _ => None,
        };
        let text_is = |holds: &dyn Fn(&str) -> bool| text.is_some_and(holds);
        let value = match scalar {
            Json::Number(number) => number.value,
            _ => None,
        };
        match self {
            Self::Text(wanted) => text_is(&|text| *text == **wanted),
            Self::Number(wanted) => value == Some(*wanted),
            Self::LongNumber(wanted) => {
                matches!(scalar, Json::Number(number) if *number.text == **wanted)
            }
            Self::Literal(Literal::Null) => matches!(scalar, Json::Null),
            Self::Literal(Literal::True) => matches!(scalar, Json::Bool(true)),
            Self::Literal(Literal::False) => matches!(scalar, Json::Bool(false)),
            Self::Present => scalar.is_scalar(),
            Self::Absent => false,
            Self::Prefix(start) => text_is(&|text| text.starts_with(&**start)),
            Self::Suffix(end) => text_is(&|text| text.ends_with(&**end)),
            Self::Caseless(wanted) => text_is(&|text| wanted.equals(text)),
            Self::CaselessPrefix(start) => text_is(&|text| start.starts(text)),
            Self::CaselessSuffix(end) => text_is(&|text| end.ends(text)),
            Self::Wildcard(wildcard) => text_is(&|text| wildcard.matches(text)),
            Self::Range(range) => value.is_some_and(|value| range.contains(value)),
            Self::Within(network, _) => text_is(&|text| network.contains(text)),
            Self::AnythingBut(excluded) => !excluded.iter().any(|condition| condition.holds(scalar)),
        }
    }

    /// The condition in words that go after "is not".
    fn describe(&self) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        match self {
            Self::Text(text) => quoted(text),
            Self::Number(number) => number_text(*number),
            Self::LongNumber(text) => text.to_string(),
            Self::Literal(literal) => literal.describe().to_owned(),
            Self::Present => "present".to_owned(),
            Self::Absent => "absent".to_owned(),
            Self::Prefix(start) => format!("a text with the prefix {}", quoted(start)),
            Self::Suffix(end) => format!("a text with the suffix {}", quoted(end)),
            Self::Caseless(wanted) => format!("{} in any case", quoted(wanted.written())),
            Self::CaselessPrefix(start) => {
                format!("a text with the prefix {} in any case", quoted(start.written()))
            }
            Self::CaselessSuffix(end) => {
                format!("a text with the suffix {} in any case", quoted(end.written()))
            }
            Self::Wildcard(wildcard) => format!("a text like {}", quoted(wildcard.written())),
            Self::Range(range) => range.describe(),
            Self::Within(_, written) => format!("an address in {written}"),
            Self::AnythingBut(excluded) => {
                let excluded: Vec<_> = excluded.iter().map(Self::describe).collect();
                format!("anything but {}", excluded.join(" or "))
            }
        }
    }
}

impl Range {
    fn contains(&self, value: f64) -> bool {
        let fits = |bound: Option<Bound>, side| {
            bound.is_none_or(|bound| match value.total_cmp(&bound.value) {
                Ordering::Equal => bound.is_inclusive,
                other => other == side,
            })
        };
        fits(self.low, Ordering::Greater) && fits(self.high, Ordering::Less)
    }

    fn describe(&self) -> String {
        let bound = |sign, bound: Option<Bound>| {
            bound.map(|bound| {
                format!("{sign}{} {}", if bound.is_inclusive { "=" } else { "" }, number_text(bound.value))
            })
        };
        [bound(">", self.low), bound("<", self.high)].into_iter().flatten().collect::<Vec<_>>().join(" and ")
    }
}

fn number_text(number: f64) -> String {
    const PLAIN: std::ops::Range<f64> = 1e-7..1e17;
    if number == 0.0 || PLAIN.contains(&number.abs()) { number.to_string() } else { format!("{number:e}") }
}
