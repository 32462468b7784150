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
        "cesql" => sql(dialect, text()?, cesql::Key::Cesql)?,
        "sql" => sql(dialect, text()?, cesql::Key::Sql)?,
        "data" => {
            let compiled = pattern::Pattern::compile(value);
            Filter::Data(Arc::new(compiled.map_err(|error| format!("`data`: {error}"))?))
        }
        "cel" => {
            let text = text()?;
            let compiled = cel::Program::compile(text);
            Filter::Cel(Arc::new(compiled.map_err(|error| format!("`cel`: {}", error.placed(text)))?))
        }
        _ => return Err(format!("unknown dialect `{dialect}`")),
    })
}

fn sql(dialect: &str, text: &str, key: cesql::Key) -> Result<Filter, String> {
    let compiled = cesql::Expression::compile(text);
    let expression = compiled.map_err(|error| format!("`{dialect}`: {}", error.placed(text)))?;
    Ok(Filter::Cesql(Arc::new(expression.under(key))))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn filter() -> impl Strategy<Value = Value> {
        let attributes = proptest::collection::btree_map("[a-z0-9]{1,8}", ".{1,12}", 1..4);
        let dialect = proptest::sample::select(vec!["exact", "prefix", "suffix"]);
        let attributes = (dialect, attributes).prop_map(|(dialect, pairs)| json!({ dialect: pairs }));
        let others = vec![
            json!({ "sql": "type = 'a'" }),
            json!({ "cesql": "type = 'a'" }),
            json!({ "cel": "event.type == 'a' && size(event.data.items) > 1" }),
            json!({ "data": { "a": [1, 1.5, "1", null, true, { "numeric": [">", 100] }], "b": { "c": [{ "exists": false }] } } }),
            json!({ "data": { "$or": [{ "a": ["x"] }, { "b": [{ "anything-but": { "prefix": "y" } }] }] } }),
        ];
        let leaf = prop_oneof![2 => attributes, 1 => proptest::sample::select(others)];
        leaf.prop_recursive(4, 16, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 1..3).prop_map(|all| json!({ "all": all })),
                proptest::collection::vec(inner.clone(), 1..3).prop_map(|any| json!({ "any": any })),
                inner.prop_map(|filter| json!({ "not": filter })),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_filter_is_read_as_it_was_written(written in filter()) {
            let read = Filter::from_json(&written).expect("a filter");
            prop_assert_eq!(&read.to_json(), &written);
            prop_assert_eq!(Filter::from_json(&read.to_json()), Ok(read));
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_with_the_part_that_is_none() {
        let refused = |filter: &Value| Filter::from_json(filter).expect_err("no filter");
        assert_eq!(refused(&json!({})), "expected one dialect, found {}");
        assert_eq!(refused(&json!({ "regex": "a" })), "unknown dialect `regex`");
        assert_eq!(
            refused(&json!({ "not": { "exact": { "a": 1 } } })),
            "`exact` is no mapping of attributes to text: {\"a\":1}"
        );
        assert_eq!(
            refused(&json!({ "cel": "a" })),
            "`cel`: column 1 of the expression: unknown name `a`: did you mean `event.a`?"
        );
        let deep = (0..100).fold(json!({ "cel": "true" }), |inner, _| json!({ "not": inner }));
        assert_eq!(refused(&deep), "filters are nested too deeply");
    }
}
