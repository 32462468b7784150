//! Answers of the API: JSON, or a problem that names what was asked for.

use std::collections::HashMap;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::edge::Problem;

/// Why a call is refused.
pub type Refused = Box<Problem>;

pub type Answer = Result<Response, Problem>;

pub fn json(value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).map_err(|error| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the answer cannot be written as JSON: {error}"),
        )
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// A page of a list.
pub fn list(items: &[serde_json::Value], next: Option<&str>) -> Answer {
    json(&serde_json::json!({ "items": items, "next": next }))
}

/// The body of a writing call.
pub fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // A type with named members would be read from a list of their values, too.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the body is a JSON object, `{}` at least"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is not what this call takes: {error}"))
    })
}

/// The body of a writing call that takes nothing: `{}`.
pub fn no_arguments(bytes: &[u8]) -> Result<(), Problem> {
    if bytes.is_empty() {
        return Ok(());
    }
    let members: serde_json::Map<String, serde_json::Value> = body(bytes)?;
    match members.keys().next() {
        Some(name) => Err(bad(name, format!("this call takes no `{name}`: its body is `{{}}`"))),
        None => Ok(()),
    }
}

/// How many rows are wanted: at least one, and no more than there are on a page.
pub fn limit(query: &HashMap<String, String>, usual: usize, max: usize) -> Result<usize, Problem> {
    let Some(text) = query.get("limit") else { return Ok(usual) };
    let limit = text.parse::<usize>().ok().filter(|limit| *limit > 0);
    let wrong = || bad("limit", format!("`limit` is a whole number from 1, not `{text}`"));
    limit.map(|limit| limit.min(max)).ok_or_else(wrong)
}

pub fn not_found(what: &str, name: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no {what} `{name}`"))
}

pub fn conflict(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::CONFLICT, detail)
}

pub fn bad(field: &str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail).field(field)
}

pub fn unavailable(cause: &impl ToString) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, cause.to_string()).retry_after_seconds(1)
}
