//! CEL (the Common Expression Language) on `event.<attribute>` and `event.data`.
//!
//! Attributes are strings, whatever format the event came in; data is the JSON value. The `cel` crate parses and evaluates. It has no limit of
//! cost, so what could cost much is refused when an expression is compiled or paid for when it is evaluated: length, nesting, the
//! rounds of macros, what they copy, and patterns of `matches`, which must be literals. Not there: timestamps and durations.

mod check;
mod cost;
mod paths;
mod terms;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{Expr, IdedExpr, operators};
use cel::{Context, Env, ExecutionError, Value};
use regex::Regex;

use self::check::{Checked, Refused, check};
use self::paths::Paths;
use crate::{Errs, Facts, Failure, SyntaxError, Term};

const TEXT_BYTES_MAX: usize = 4 << 10;
/// Brackets within brackets: the parser recurses on them.
const BRACKETS_MAX: usize = 48;
/// The parser's frames are large, and trees are as deep as a text is long.
const STACK_BYTES: usize = 16 << 20;
/// Errors of the crate may show whole values.
const ERROR_CHARS_MAX: usize = 200;

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled CEL expression.
#[derive(Clone, Debug)]
pub struct Program {
    text: Box<str>,
    expression: Arc<IdedExpr>,
    paths: Arc<Paths>,
    regexes: Arc<[Regex]>,
    ranges: Arc<[Vec<String>]>,
    has_loops: bool,
    terms: Option<Vec<Term>>,
    /// Whether the outermost operator is `&&`.
    is_conjunction: bool,
}

impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Program {}

impl Program {
    pub fn compile(text: &str) -> Result<Self, SyntaxError> {
        if text.len() > TEXT_BYTES_MAX {
            let message = format!("longer than {} KiB", TEXT_BYTES_MAX >> 10);
            return Err(SyntaxError { at: 0, message });
        }
        refuse_nesting(text)?;
        let source: Box<str> = text.into();
        // On a thread of its own, whose stack is large, whose panic is an error, and on which trees that are refused are dropped.
        let compiling = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || parse(source));
        let refused = |message: &str| SyntaxError { at: 0, message: message.into() };
        let compiling = compiling.map_err(|_| refused("no thread to compile on"))?;
        compiling.join().map_err(|_| refused("the parser failed on this expression"))?
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the expression is true; what is no boolean errs.
    pub fn holds(&self, facts: &Facts<'_>) -> Result<bool, Errs> {
        let event = self.paths.convert(facts)?;
        cost::begin(&event, &self.ranges, facts);
        // The crate is large and this is what anybody can publish: a panic in it is an error of this evaluation.
        let evaluated = catch_unwind(AssertUnwindSafe(|| self.evaluate(event)));
        let evaluated = evaluated.map_err(|_| Errs("the evaluation failed".into()))?;
        if cost::is_spent() {
            return Err(Errs("the evaluation costs too much for this event".into()));
        }
        match evaluated {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(Errs(format!("the result is of type {}, not true or false", other.type_of()))),
            Err(ExecutionError::NoSuchKey(key)) => Err(Errs(self.absent(&key, facts))),
            Err(error) => Err(Errs(error.to_string().chars().take(ERROR_CHARS_MAX).collect())),
        }
    }

    fn evaluate(&self, event: Value) -> Result<Value, ExecutionError> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        let declared = |error: cel::DeclarationError| ExecutionError::function_error("declare", error);
        if self.has_loops {
            context.add_function(check::OPEN, || !cost::is_spent()).map_err(declared)?;
            context.add_function(check::PAY, cost::pay).map_err(declared)?;
            context.add_function(check::RANGE, cost::range).map_err(declared)?;
        }
        if !self.regexes.is_empty() {
            let regexes = Arc::clone(&self.regexes);
            let matches = move |text: Arc<String>, at: i64| -> bool {
                usize::try_from(at)
                    .ok()
                    .and_then(|at| regexes.get(at))
                    .is_some_and(|regex| regex.is_match(&text))
            };
            context.add_function(check::MATCHES, matches).map_err(declared)?;
        }
        context.add_variable_from_value("event", event);
        Value::resolve(&self.expression, &context)
    }

    /// Which of the fields an expression names is not there.
    fn absent(&self, key: &str, facts: &Facts<'_>) -> String {
        let missing = self.paths.values(facts).find(|(_, value)| value.is_none()).map(|(path, _)| path);
        match missing.as_deref().map(|path| path.strip_prefix("event.").unwrap_or(path)) {
            Some(name) if !name.starts_with("data.") && name != "data" => {
                format!("attribute `{name}` is absent; guard it with `has(event.{name})`")
            }
            Some(path) => format!("`{path}` is absent; guard it with `has(event.{path})`"),
            None => format!("there is no field `{key}`"),
        }
    }

    /// Why the expression does not hold: of several joined by `&&`, the first that does not.
    pub fn failure(&self, facts: &Facts<'_>) -> Option<Failure> {
        let whole = self.holds(facts);
        if whole == Ok(true) {
            return None;
        }
        let mut failed = (self.clone(), whole);
        if self.is_conjunction {
            let parts = conjuncts(&self.text).into_iter().filter_map(|part| Self::compile(part).ok());
            let parts: Vec<_> = parts.map(|part| (part.holds(facts), part)).collect();
            // `false && error` is false.
            let wanted =
                |result: &Result<bool, Errs>| result.is_err() == failed.1.is_err() && *result != Ok(true);
            if let Some((result, part)) = parts.into_iter().find(|(result, _)| wanted(result)) {
                failed = (part, result);
            }
        }
        let (part, result) = failed;
        let values: Vec<_> = part
            .paths
            .values(facts)
            .map(|(path, value)| {
                let value = value.unwrap_or_else(|| "absent".into());
                (path, value.chars().take(ERROR_CHARS_MAX).collect::<String>())
            })
            .collect();
        let actual: Vec<_> = values.iter().map(|(path, value)| format!("{path} = {value}")).collect();
        let actual = if actual.is_empty() { "false".to_owned() } else { actual.join(", ") };
        let message = match &result {
            Err(Errs(error)) => error.clone(),
            Ok(_) => {
                let shown: Vec<_> =
                    values.iter().map(|(path, value)| format!("`{path}` is {value}")).collect();
                let colon = if shown.is_empty() { "" } else { ": " };
                format!("`{}` is false{colon}{}", part.text, shown.join(", "))
            }
        };
        Some(Failure { filter: "cel".into(), expected: part.text.to_string(), actual, message })
    }

    /// See [`Filter::terms`](crate::Filter::terms).
    pub fn terms(&self) -> Option<Vec<Term>> {
        self.terms.clone()
    }

    /// Attributes and fields of the data that the expression names, such as `subject` or `data.amount`.
    pub fn fields(&self) -> Vec<String> {
        self.paths.fields()
    }
}

fn parse(text: Box<str>) -> Result<Program, SyntaxError> {
    let program = ENVIRONMENT.compile(&text).map_err(|errors| {
        let first = errors.errors.into_iter().next();
        first.map_or_else(|| SyntaxError { at: 0, message: "not CEL".into() }, |error| place(&text, &error))
    })?;
    let mut expression = program.expression().clone();
    let Checked { paths, regexes, ranges, has_loops, .. } =
        check(&mut expression).map_err(|Refused { node, message }| {
            // Offsets count characters.
            let start = program.source_info().offset_for(node).map_or(0, |(start, _)| start as usize);
            let at = text.char_indices().nth(start).map_or(0, |(byte, _)| byte);
            SyntaxError { at, message }
        })?;
    let outermost = program.expression();
    let is_conjunction =
        matches!(&outermost.expr, Expr::Call(call) if call.func_name == operators::LOGICAL_AND);
    Ok(Program {
        terms: terms::terms(outermost),
        is_conjunction,
        expression: Arc::new(expression),
        paths: Arc::new(paths),
        regexes: regexes.into(),
        ranges: ranges.into(),
        has_loops,
        text,
    })
}

fn place(source: &str, error: &cel::ParseError) -> SyntaxError {
    let (line, column) = error.pos;
    let line_start = source
        .split_inclusive('\n')
        .take(usize::try_from(line - 1).unwrap_or(0))
        .map(str::len)
        .sum::<usize>();
    let rest = &source[line_start.min(source.len())..];
    let column = usize::try_from(column - 1).unwrap_or(0);
    let within = rest.char_indices().nth(column).map_or(rest.len(), |(byte, _)| byte);
    SyntaxError { at: line_start + within, message: in_short(&error.msg) }
}

/// The parser's message without its list of everything that could stand there.
fn in_short(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.strip_prefix("Syntax error: ").unwrap_or(line);
    let line = line.split(" expecting {").next().unwrap_or(line);
    if line.contains("'<EOF>'") {
        return "the expression ends too early".into();
    }
    let hint = if line.contains("token recognition error at: '=") { "; to compare, write `==`" } else { "" };
    format!("{line}{hint}")
}

/// Characters outside strings and comments, with their places.
fn code(text: &str) -> impl Iterator<Item = (usize, u8)> {
    let (mut quote, mut is_raw, mut escaped, mut comment) = (None, false, false, false);
    let mut before = b' ';
    text.bytes().enumerate().filter(move |(_, byte)| {
        let byte = *byte;
        let last = std::mem::replace(&mut before, byte);
        if comment {
            comment = byte != b'\n';
            return false;
        }
        match quote {
            None if byte == b'"' || byte == b'\'' => {
                is_raw = matches!(last, b'r' | b'R');
                quote = Some(byte);
                false
            }
            None if byte == b'/' && last == b'/' => {
                comment = true;
                false
            }
            None => true,
            Some(end) => {
                if escaped {
                    escaped = false;
                } else if byte == b'\\' && !is_raw {
                    escaped = true;
                } else if byte == end {
                    quote = None;
                }
                false
            }
        }
    })
}

fn refuse_nesting(text: &str) -> Result<(), SyntaxError> {
    let (mut open, mut signs) = (0usize, 0usize);
    for (at, byte) in code(text) {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        signs = match byte {
            b'!' | b'-' => signs + 1,
            byte if byte.is_ascii_whitespace() => signs,
            _ => 0,
        };
        if open > BRACKETS_MAX || signs > BRACKETS_MAX {
            return Err(SyntaxError { at, message: format!("nested more than {BRACKETS_MAX} levels deep") });
        }
    }
    Ok(())
}

/// The parts of an expression between the `&&` outside all brackets.
fn conjuncts(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut open) = (Vec::new(), 0, 0usize);
    let mut ampersand = None;
    for (at, byte) in code(text) {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            b'&' if open == 0 && ampersand == Some(at.wrapping_sub(1)) => {
                parts.push(text[start..at - 1].trim());
                start = at + 1;
                ampersand = None;
            }
            b'&' => ampersand = Some(at),
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

#[cfg(test)]
mod tests;
