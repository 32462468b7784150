//! What an evaluation may cost. The crate has no limit of its own, so the loops pay: the range of every macro is weighed before
//! the loop begins, by its size and by what each round does, and what cannot be paid ends the evaluation with an error.

use std::cell::{Cell, RefCell};

use cel::{ExecutionError, Value};
use serde_json::Value as Json;

use crate::Facts;

/// A unit is about one step of one round, or one byte of text.
pub const COST_MAX: i64 = 2_000_000;

thread_local! {
    static LEFT: Cell<i64> = const { Cell::new(0) };
    static EVENT_SIZE: Cell<i64> = const { Cell::new(0) };
    /// Rounds and sizes of the parts of the data that are ranged over.
    static RANGES: RefCell<Vec<(i64, i64)>> = const { RefCell::new(Vec::new()) };
}

/// Begins an evaluation on this thread, of an expression that ranges over these parts of the data.
pub fn begin(event: &Value, ranges: &[Vec<String>], facts: &Facts<'_>) {
    LEFT.set(COST_MAX);
    EVENT_SIZE.set(size(event, i64::MAX));
    let part = |path: &Vec<String>| {
        let data = facts.data().ok()?;
        let found = path.iter().try_fold(data, |value, name| value.get(name))?;
        let rounds = match found {
            Json::Array(items) => items.len(),
            Json::Object(members) => members.len(),
            _ => 0,
        };
        Some((length(rounds), json_size(found)))
    };
    RANGES.with_borrow_mut(|known| {
        known.clear();
        known.extend(ranges.iter().map(|path| part(path).unwrap_or_default()));
    });
}

/// Whether the evaluation that was begun last has cost too much.
pub fn is_spent() -> bool {
    LEFT.get() < 0
}

/// Pays for a loop over a range: `nodes` are evaluated in each round, and `copies` says that each copies a part of the event.
pub fn range(range: Value, nodes: i64, copies: i64) -> Result<Value, ExecutionError> {
    let rounds = match &range {
        Value::List(items) => items.len(),
        Value::Map(map) => map.map.len(),
        _ => 0,
    };
    if spend(length(rounds), size(&range, LEFT.get()), nodes, copies) {
        return Ok(range);
    }
    Err(ExecutionError::function_error("range", "too much to evaluate"))
}

/// The same for a range that is a part of the data, by its number.
pub fn pay(at: i64, nodes: i64, copies: i64) -> bool {
    let known = RANGES.with_borrow(|known| usize::try_from(at).ok().and_then(|at| known.get(at).copied()));
    known.is_some_and(|(rounds, size)| spend(rounds, size, nodes, copies))
}

fn spend(rounds: i64, size: i64, nodes: i64, copies: i64) -> bool {
    let left = LEFT.get();
    if left >= 0 {
        let round = nodes.saturating_add(copies.saturating_mul(EVENT_SIZE.get()));
        let cost = rounds.saturating_mul(round).saturating_add(size);
        LEFT.set(if cost > left { -1 } else { left - cost });
    }
    !is_spent()
}

fn length(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn json_size(value: &Json) -> i64 {
    let below = match value {
        Json::String(text) => length(text.len()),
        Json::Array(items) => items.iter().map(json_size).fold(0, i64::saturating_add),
        Json::Object(members) => members.values().map(json_size).fold(0, i64::saturating_add),
        _ => 0,
    };
    below.saturating_add(1)
}

/// Values and bytes of text; counting ends above `limit`.
fn size(value: &Value, limit: i64) -> i64 {
    let mut total: i64 = 1;
    match value {
        Value::String(text) => total = total.saturating_add(length(text.len())),
        Value::Bytes(bytes) => total = total.saturating_add(length(bytes.len())),
        Value::List(items) => {
            for item in items.iter() {
                total = total.saturating_add(size(item, limit.saturating_sub(total)));
                if total > limit {
                    break;
                }
            }
        }
        Value::Map(map) => {
            for item in map.map.values() {
                total = total.saturating_add(size(item, limit.saturating_sub(total)));
                if total > limit {
                    break;
                }
            }
        }
        _ => {}
    }
    total
}
