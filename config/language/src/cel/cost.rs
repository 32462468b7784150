//! What an evaluation may cost. The crate has no limit of its own, so the loops pay: the range of every macro is weighed before
//! the loop begins, by its size and by what each round does, and what cannot be paid ends the evaluation with an error.

use std::cell::Cell;

use cel::{ExecutionError, Value};

/// A unit is about one step of one round, or one byte of text.
pub const COST_MAX: i64 = 2_000_000;

thread_local! {
    static LEFT: Cell<i64> = const { Cell::new(0) };
    static EVENT_SIZE: Cell<i64> = const { Cell::new(0) };
}

/// Begins an evaluation on this thread.
pub fn begin(event: &Value) {
    LEFT.set(COST_MAX);
    EVENT_SIZE.set(size(event, i64::MAX));
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
    let left = LEFT.get();
    if left >= 0 {
        let rounds = i64::try_from(rounds).unwrap_or(i64::MAX);
        let round = nodes.saturating_add(copies.saturating_mul(EVENT_SIZE.get()));
        let cost = rounds.saturating_mul(round).saturating_add(size(&range, left));
        LEFT.set(if cost > left { -1 } else { left - cost });
    }
    if is_spent() {
        return Err(ExecutionError::function_error("range", "too much to evaluate"));
    }
    Ok(range)
}

/// Values and bytes of text; counting ends above `limit`.
fn size(value: &Value, limit: i64) -> i64 {
    let length = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
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
