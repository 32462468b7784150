//! Sources: how they are, and what can be done to them.

use axum::extract::{Path, State};
use bytes::Bytes;
use serde_json::{Value, json};

use super::Admin;
use super::answer::{self, Answer};
use crate::edge::Problem;
use crate::sources::ChangeError;

pub async fn list(State(admin): State<Admin>) -> Answer {
    answer::list(&admin.sources.list(), None)
}

pub async fn show(State(admin): State<Admin>, Path(name): Path<String>) -> Answer {
    let shown = admin.sources.show(&name).ok_or_else(|| answer::not_found("source", &name))?;
    answer::json(&shown)
}

pub async fn pause(State(admin): State<Admin>, Path(name): Path<String>, body: Bytes) -> Answer {
    answer::no_arguments(&body)?;
    let mut shown = admin.sources.pause(&name).await.map_err(|error| problem(&error, &name))?;
    if admin.sources.is_pushed_to(&name) {
        let warning = "deliveries are answered with 503 and Retry-After now; a sender that does not send them again loses them";
        shown["warning"] = json!(warning);
    }
    answer::json(&shown)
}

pub async fn resume(State(admin): State<Admin>, Path(name): Path<String>, body: Bytes) -> Answer {
    answer::no_arguments(&body)?;
    let shown: Value = admin.sources.resume(&name).await.map_err(|error| problem(&error, &name))?;
    answer::json(&shown)
}

fn problem(error: &ChangeError, name: &str) -> Problem {
    match error {
        ChangeError::Unknown(_) => answer::not_found("source", name),
        ChangeError::Refused(refusal) => answer::unavailable(refusal),
    }
}
