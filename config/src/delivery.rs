//! `delivery`: how a trigger attempts, waits and gives up.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::diagnostic::{At, Problems, quoted};
use crate::filter::is_attribute_name;
use crate::keys::{Keys, choice, duration, list, text, whole, whole_number, wrong, wrong_unquoted};
use crate::model::{Backoff, Delivery, Order, Rate, Reply, Retry};
use crate::tree::{Node, Value};
use crate::units::{duration_text, parse_rate};

pub(crate) const DELIVERY_KEYS: &[&str] = &[
    "retry",
    "backoff",
    "backoff_delay",
    "backoff_max",
    "max_age",
    "timeout",
    "concurrency",
    "rate",
    "order",
    "reply",
    "retry_on",
];
pub(crate) const BACKOFFS: &[(&str, Backoff)] =
    &[("exponential", Backoff::Exponential), ("linear", Backoff::Linear), ("constant", Backoff::Constant)];
pub(crate) const REPLIES: &[(&str, Reply)] =
    &[("lenient", Reply::Lenient), ("strict", Reply::Strict), ("ignore", Reply::Ignore)];

/// The store counts the attempts of a delivery in sixteen bits.
pub(crate) const RETRY_MAX: u64 = u16::MAX as u64;
pub(crate) const CONCURRENCY: RangeInclusive<u64> = 1..=10_000;
pub(crate) const RETRY_ON: RangeInclusive<u64> = 300..=599;
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);
const BACKOFF: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(7 * 86_400);
const MAX_AGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(365 * 86_400);

/// A field that is given, and where.
#[derive(Clone, Copy)]
struct Given<T> {
    value: T,
    at: At,
}

/// The fields of one `delivery` that are given.
#[derive(Clone, Default)]
pub(crate) struct DeliveryFields {
    retry: Option<Retry>,
    backoff: Option<Backoff>,
    backoff_delay: Option<Given<Duration>>,
    backoff_max: Option<Given<Duration>>,
    max_age: Option<Duration>,
    timeout: Option<Duration>,
    concurrency: Option<usize>,
    rate: Option<Rate>,
    order: Option<Order>,
    reply: Option<Reply>,
    retry_on: Option<Vec<u16>>,
}

impl DeliveryFields {
    pub fn read(node: &Node, what: &str, problems: &mut Problems) -> Self {
        let Some(keys) = Keys::of(node, what, DELIVERY_KEYS, problems) else { return Self::default() };
        let given = |name: &str, range, problems: &mut Problems| {
            let node = keys.get(name)?;
            duration(name, node, range, problems).map(|value| Given { value, at: node.at })
        };
        let fields = Self {
            retry: keys.get("retry").and_then(|node| read_retry(node, problems)),
            backoff: keys.get("backoff").and_then(|node| choice("backoff", node, BACKOFFS, problems)),
            backoff_delay: given("backoff_delay", BACKOFF, problems),
            backoff_max: given("backoff_max", BACKOFF, problems),
            max_age: given("max_age", MAX_AGE, problems).map(|given| given.value),
            timeout: given("timeout", TIMEOUT, problems).map(|given| given.value),
            concurrency: keys
                .get("concurrency")
                .and_then(|node| whole("concurrency", node, CONCURRENCY, problems))
                .map(|number| number as usize),
            rate: keys.get("rate").and_then(|node| read_rate(node, problems)),
            order: keys.get("order").and_then(|node| read_order(node, problems)),
            reply: keys.get("reply").and_then(|node| choice("reply", node, REPLIES, problems)),
            retry_on: keys.get("retry_on").and_then(|node| read_retry_on(node, problems)),
        };
        // Found here too when no trigger uses these defaults.
        fields.check_backoff(problems);
        fields
    }

    /// These fields where given, else those of `defaults`, else what is built in.
    pub fn over(self, defaults: &Self, problems: &mut Problems) -> Delivery {
        let merged = Self {
            retry: self.retry.or(defaults.retry),
            backoff: self.backoff.or(defaults.backoff),
            backoff_delay: self.backoff_delay.or(defaults.backoff_delay),
            backoff_max: self.backoff_max.or(defaults.backoff_max),
            max_age: self.max_age.or(defaults.max_age),
            timeout: self.timeout.or(defaults.timeout),
            concurrency: self.concurrency.or(defaults.concurrency),
            rate: self.rate.or(defaults.rate),
            order: self.order.or_else(|| defaults.order.clone()),
            reply: self.reply.or(defaults.reply),
            retry_on: self.retry_on.or_else(|| defaults.retry_on.clone()),
        };
        merged.check_backoff(problems);
        let built_in = built_in();
        let value = |given: Option<Given<Duration>>| given.map(|given| given.value);
        Delivery {
            retry: merged.retry.unwrap_or(built_in.retry),
            backoff: merged.backoff.unwrap_or(built_in.backoff),
            backoff_delay: value(merged.backoff_delay).unwrap_or(built_in.backoff_delay),
            backoff_max: value(merged.backoff_max).unwrap_or(built_in.backoff_max),
            max_age: merged.max_age.unwrap_or(built_in.max_age),
            timeout: merged.timeout.unwrap_or(built_in.timeout),
            concurrency: merged.concurrency.unwrap_or(built_in.concurrency),
            rate: merged.rate.or(built_in.rate),
            order: merged.order.unwrap_or(built_in.order),
            reply: merged.reply.unwrap_or(built_in.reply),
            retry_on: merged.retry_on.unwrap_or(built_in.retry_on),
        }
    }

    fn check_backoff(&self, problems: &mut Problems) {
        let built_in = built_in();
        let delay = self.backoff_delay.map_or(built_in.backoff_delay, |given| given.value);
        let max = self.backoff_max.map_or(built_in.backoff_max, |given| given.value);
        let Some(at) = self.backoff_delay.or(self.backoff_max).map(|given| given.at) else { return };
        if delay > max {
            let (delay, max) = (duration_text(delay), duration_text(max));
            problems.error(at, format!("`backoff_delay` ({delay}) is above `backoff_max` ({max})"));
        }
    }
}

/// What holds where neither a trigger nor `defaults` says anything.
pub(crate) fn built_in() -> Delivery {
    Delivery {
        retry: Retry::Unlimited,
        backoff: Backoff::Exponential,
        backoff_delay: Duration::from_secs(1),
        backoff_max: Duration::from_secs(600),
        max_age: Duration::from_secs(86_400),
        timeout: Duration::from_secs(30),
        concurrency: 32,
        rate: None,
        order: Order::None,
        reply: Reply::Lenient,
        retry_on: Vec::new(),
    }
}

fn read_retry(node: &Node, problems: &mut Problems) -> Option<Retry> {
    if let Value::Scalar(scalar) = &node.value {
        if scalar.text == "unlimited" {
            return Some(Retry::Unlimited);
        }
        let bare = !scalar.quoted || scalar.reference.is_some();
        let number = whole_number(&scalar.text).filter(|number| bare && *number <= RETRY_MAX);
        if let Some(number) = number.and_then(|number| u32::try_from(number).ok()) {
            return Some(Retry::AtMost(number));
        }
    }
    let why = format!("expected unlimited or a whole number from 0 to {RETRY_MAX}");
    wrong_unquoted("retry", node, &why, problems);
    None
}

fn read_rate(node: &Node, problems: &mut Problems) -> Option<Rate> {
    match parse_rate(text("rate", node, problems)?) {
        Ok(per_second) => Some(Rate { per_second }),
        Err(why) => {
            wrong("rate", node, &why, problems);
            None
        }
    }
}

fn read_order(node: &Node, problems: &mut Problems) -> Option<Order> {
    let text = text("order", node, problems)?;
    if text == "none" {
        return Some(Order::None);
    }
    if is_attribute_name(text) && text != "data" {
        return Some(Order::Attribute(text.to_owned()));
    }
    let path = text.strip_prefix("{data.").and_then(|path| path.strip_suffix('}'));
    let path: Option<Vec<String>> = path.map(|path| path.split('.').map(str::to_owned).collect());
    let braces = |name: &String| name.is_empty() || name.contains(['{', '}', '[', ']', '|']);
    match path {
        Some(path) if !path.iter().any(braces) => Some(Order::Data(path)),
        Some(_) | None => {
            let why = "expected none, an attribute such as partitionkey, or \"{data.path}\"";
            wrong("order", node, why, problems);
            None
        }
    }
}

fn read_retry_on(node: &Node, problems: &mut Problems) -> Option<Vec<u16>> {
    let mut statuses = Vec::new();
    for item in list("retry_on", node, problems)? {
        let Some(status) = whole("retry_on", item, RETRY_ON, problems) else { continue };
        let status = status as u16;
        if statuses.contains(&status) {
            problems.error(item.at, format!("`retry_on`: {} is listed twice", quoted(&status.to_string())));
            continue;
        }
        statuses.push(status);
    }
    Some(statuses)
}
