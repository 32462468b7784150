//! Filters as the log keeps them: the inverse of [`Filter::to_json`].

use std::sync::Arc;

use serde_json::Value;

use crate::{Filter, cel, cesql, pattern};

/// Configurations nest no deeper; what does was not written by this program.
const DEPTH_MAX: usize = 64;

impl Filter {
    /// Compiles a filter from its JSON form. The error says which part of it is none.
    pub fn from_json(filter: &Value) -> Result<Self, String> {
        read(filter, DEPTH_MAX)
    }
}

fn read(filter: &Value, depth: usize) -> Result<Filter, String> {
    let left = depth.checked_sub(1).ok_or("filters are nested too deeply")?;
    let mut members = filter.as_object().into_iter().flatten();
    let (Some((dialect, value)), None) = (members.next(), members.next()) else {
        return Err(format!("expected one dialect, found {filter}"));
    };
    let text = || value.as_str().ok_or_else(|| format!("`{dialect}` is no text: {value}"));
    Ok(match dialect.as_str() {
        "exact" => Filter::Exact(pairs(dialect, value)?),
        "prefix" => Filter::Prefix(pairs(dialect, value)?),
        "suffix" => Filter::Suffix(pairs(dialect, value)?),
        "all" => Filter::All(list(dialect, value, left)?),
        "any" => Filter::Any(list(dialect, value, left)?),
        "not" => Filter::Not(Box::new(read(value, left)?)),
        "cesql" | "sql" => {
            let compiled = cesql::Expression::compile(text()?);
            Filter::Cesql(Arc::new(compiled.map_err(|error| format!("`{dialect}`: {error}"))?))
        }
        "data" => {
            let compiled = pattern::Pattern::compile(value);
            Filter::Data(Arc::new(compiled.map_err(|error| format!("`data`: {error}"))?))
        }
        "cel" => {
            let compiled = cel::Program::compile(text()?);
            Filter::Cel(Arc::new(compiled.map_err(|error| format!("`cel`: {error}"))?))
        }
        _ => return Err(format!("unknown dialect `{dialect}`")),
    })
}

fn pairs(dialect: &str, value: &Value) -> Result<Vec<(String, String)>, String> {
    let wrong = || format!("`{dialect}` is no mapping of attributes to text: {value}");
    let members = value.as_object().ok_or_else(wrong)?;
    members
        .iter()
        .map(|(name, text)| Ok((name.clone(), text.as_str().ok_or_else(wrong)?.to_owned())))
        .collect()
}

fn list(dialect: &str, value: &Value, depth: usize) -> Result<Vec<Filter>, String> {
    let items = value.as_array().ok_or_else(|| format!("`{dialect}` is no list: {value}"))?;
    items.iter().map(|item| read(item, depth)).collect()
}
