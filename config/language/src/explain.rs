//! Why an event does not pass: the first predicate that failed, by its place in the list of filters.

use crate::{Errs, Facts, Failure, Filter};

/// A value in a message is cut after this many characters.
const SHOWN_CHARS_MAX: usize = 120;
/// Of the alternatives of an `any` that failed, so many are named.
const ALTERNATIVES_MAX: usize = 3;

/// The first of several filters, all of which must hold, that does not. Its place is a path such as `filters[2].data.amount`.
pub fn failure(filters: &[Filter], facts: &Facts<'_>) -> Option<Failure> {
    filters.iter().enumerate().find_map(|(n, filter)| filter.failure(&format!("filters[{n}]"), facts))
}

impl Filter {
    /// The first predicate in this filter that fails. `path` names the filter itself.
    pub fn failure(&self, path: &str, facts: &Facts<'_>) -> Option<Failure> {
        match self {
            Self::Exact(pairs) => attributes(pairs, &EXACT, path, facts),
            Self::Prefix(pairs) => attributes(pairs, &PREFIX, path, facts),
            Self::Suffix(pairs) => attributes(pairs, &SUFFIX, path, facts),
            Self::All(filters) => {
                let mut parts = filters.iter().enumerate();
                parts.find_map(|(n, filter)| filter.failure(&format!("{path}.all[{n}]"), facts))
            }
            Self::Any(filters) => any(filters, path, facts),
            Self::Not(inner) => not(inner, path, facts),
            Self::Cesql(expression) => leaf(
                path,
                expression.key().name(),
                expression.holds(facts),
                || expression.failure(facts),
                self,
            ),
            Self::Data(pattern) => leaf(path, "data", pattern.holds(facts), || pattern.failure(facts), self),
            Self::Cel(program) => leaf(path, "cel", program.holds(facts), || program.failure(facts), self),
        }
    }

    /// What the filter names: attributes such as `subject`, and fields of the data such as `data.amount`.
    pub fn fields(&self) -> Vec<String> {
        let mut fields = match self {
            Self::Exact(pairs) | Self::Prefix(pairs) | Self::Suffix(pairs) => {
                pairs.iter().map(|(name, _)| name.clone()).collect()
            }
            Self::All(filters) | Self::Any(filters) => filters.iter().flat_map(Self::fields).collect(),
            Self::Not(inner) => inner.fields(),
            Self::Cesql(expression) => expression.attributes().into_iter().map(str::to_owned).collect(),
            Self::Data(pattern) => {
                pattern.fields().into_iter().map(|field| format!("data.{field}")).collect()
            }
            Self::Cel(program) => program.fields(),
        };
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    /// The filter in one line, for a message.
    pub fn shown(&self) -> String {
        let attributes = |dialect: &str, pairs: &[(String, String)]| {
            let pairs: Vec<_> = pairs.iter().map(|(name, text)| format!("{name}: {}", cut(text))).collect();
            format!("{dialect} {{ {} }}", pairs.join(", "))
        };
        match self {
            Self::Exact(pairs) => attributes("exact", pairs),
            Self::Prefix(pairs) => attributes("prefix", pairs),
            Self::Suffix(pairs) => attributes("suffix", pairs),
            Self::All(filters) => format!("all of {} filters", filters.len()),
            Self::Any(filters) => format!("any of {} filters", filters.len()),
            Self::Not(inner) => format!("not {}", inner.shown()),
            Self::Cesql(expression) => cut(expression.text()),
            Self::Data(pattern) => cut(&pattern.source().to_string()),
            Self::Cel(program) => cut(program.text()),
        }
    }
}

/// How a dialect that compares attributes speaks of what it wants.
struct Comparison {
    dialect: &'static str,
    holds: fn(&str, &str) -> bool,
    expected: fn(&str) -> String,
    /// Between the actual value and the wanted one.
    verdict: &'static str,
}

const EXACT: Comparison = Comparison {
    dialect: "exact",
    holds: |text, wanted| text == wanted,
    expected: |wanted| format!("`{wanted}`"),
    verdict: "not",
};
const PREFIX: Comparison = Comparison {
    dialect: "prefix",
    holds: |text, wanted| text.starts_with(wanted),
    expected: |wanted| format!("begins with `{wanted}`"),
    verdict: "which does not begin with",
};
const SUFFIX: Comparison = Comparison {
    dialect: "suffix",
    holds: |text, wanted| text.ends_with(wanted),
    expected: |wanted| format!("ends with `{wanted}`"),
    verdict: "which does not end with",
};

fn attributes(
    pairs: &[(String, String)],
    comparison: &Comparison,
    path: &str,
    facts: &Facts<'_>,
) -> Option<Failure> {
    let actual = |name: &str| facts.event.text(name);
    let (name, wanted) = pairs
        .iter()
        .find(|(name, wanted)| actual(name).is_none_or(|text| !(comparison.holds)(text, wanted)))?;
    let (actual, message) = match actual(name) {
        None => ("absent".to_owned(), format!("attribute `{name}` is absent")),
        Some(text) => {
            let (text, verdict) = (cut(text), comparison.verdict);
            let message = format!("`{name}` is `{text}`, {verdict} `{}`", cut(wanted));
            (format!("`{text}`"), message)
        }
    };
    Some(Failure {
        filter: format!("{path}.{}.{name}", comparison.dialect),
        expected: (comparison.expected)(&cut(wanted)),
        actual,
        message,
    })
}

fn any(filters: &[Filter], path: &str, facts: &Facts<'_>) -> Option<Failure> {
    let mut failures = Vec::new();
    for (n, filter) in filters.iter().enumerate() {
        let path = format!("{path}.any[{n}]");
        if filter.holds(facts).is_err() {
            return filter.failure(&path, facts);
        }
        // One alternative that holds is enough.
        failures.push(filter.failure(&path, facts)?);
    }
    let mut messages: Vec<_> = failures.iter().map(|failure| failure.message.as_str()).collect();
    messages.dedup();
    let named: Vec<_> = messages.iter().take(ALTERNATIVES_MAX).copied().collect();
    let more = match messages.len().saturating_sub(ALTERNATIVES_MAX) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let alternatives = format!("{}{more}", named.join("; "));
    Some(Failure {
        filter: format!("{path}.any"),
        expected: format!("any of {} filters", filters.len()),
        actual: "none holds".into(),
        message: format!("none of {} alternatives holds: {alternatives}", filters.len()),
    })
}

fn not(inner: &Filter, path: &str, facts: &Facts<'_>) -> Option<Failure> {
    match inner.holds(facts) {
        Ok(false) => None,
        Err(_) => inner.failure(&format!("{path}.not"), facts),
        Ok(true) => Some(Failure {
            filter: format!("{path}.not"),
            expected: format!("not {}", inner.shown()),
            actual: what_holds(inner, facts),
            message: format!("{}, which `not` excludes", what_holds(inner, facts)),
        }),
    }
}

/// What made a filter hold, shortly.
fn what_holds(filter: &Filter, facts: &Facts<'_>) -> String {
    match filter {
        Filter::Exact(pairs) | Filter::Prefix(pairs) | Filter::Suffix(pairs) => {
            let shown = |(name, _): &(String, String)| {
                format!("`{name}` is `{}`", cut(facts.event.text(name).unwrap_or_default()))
            };
            pairs.iter().map(shown).collect::<Vec<_>>().join(" and ")
        }
        Filter::Any(filters) => {
            let holding = filters.iter().find(|filter| filter.holds(facts).unwrap_or(false));
            holding.map_or_else(|| format!("{} holds", filter.shown()), |filter| what_holds(filter, facts))
        }
        _ => format!("{} holds", filter.shown()),
    }
}

/// A predicate of a dialect that explains itself. What it says of its place is relative to the dialect's key.
fn leaf(
    path: &str,
    dialect: &str,
    holds: Result<bool, Errs>,
    explain: impl FnOnce() -> Option<Failure>,
    filter: &Filter,
) -> Option<Failure> {
    let error = match holds {
        Ok(true) => return None,
        Ok(false) => None,
        Err(Errs(error)) => Some(error),
    };
    let unexplained = || Failure {
        filter: dialect.to_owned(),
        expected: filter.shown(),
        actual: error.clone().unwrap_or_else(|| "false".into()),
        message: error.clone().unwrap_or_else(|| format!("{} is false", filter.shown())),
    };
    let mut failure = explain().unwrap_or_else(unexplained);
    if failure.filter.is_empty() {
        failure.filter = dialect.to_owned();
    }
    failure.filter = format!("{path}.{}", failure.filter);
    if error.is_some() {
        failure.message = format!("{}: an error, so the trigger does not match", failure.message);
    }
    Some(failure)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
