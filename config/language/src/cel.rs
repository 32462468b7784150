//! CEL (the Common Expression Language) on `event.<attribute>` and `event.data`.
//!
//! Attributes are strings, whatever format the event came in; data is the JSON value. The `cel` crate parses and evaluates. It has no limit of
//! cost, so what could cost much is refused when an expression is compiled or paid for when it is evaluated: length, nesting, the
//! rounds of macros, what they copy, and patterns of `matches`, which must be literals. Not there: timestamps and durations.

mod check;
mod cost;
mod failure;
mod paths;
mod syntax;
mod terms;
mod token;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{Expr, IdedExpr, operators};
use cel::{Context, Env, ExecutionError, Value};
use regex::Regex;

use self::check::{Checked, Refused, check};
use self::paths::Paths;
use self::token::{Sort, tokens};
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
    /// Where each node begins in the text, in bytes, by its id.
    starts: Arc<[(u64, u32)]>,
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
            Err(error) => Err(Errs(failure::words(&error, None))),
        }
    }

    fn evaluate(&self, event: Value) -> Result<Value, ExecutionError> {
        Value::resolve(&self.expression, &self.context(event)?)
    }

    /// What the names in an expression stand for.
    fn context(&self, event: Value) -> Result<Context<'static, 'static>, ExecutionError> {
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
        Ok(context)
    }

    /// Why the expression does not hold: of several joined by `&&`, the first that does not.
    pub fn failure(&self, facts: &Facts<'_>) -> Option<Failure> {
        failure::failure(self, facts)
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
    let program = ENVIRONMENT.compile(&text).map_err(|errors| syntax::error(&text, &errors.errors))?;
    let mut expression = program.expression().clone();
    // Offsets count characters.
    let bytes: Vec<usize> = text.char_indices().map(|(byte, _)| byte).collect();
    let start = |node: u64| {
        let (start, _) = program.source_info().offset_for(node)?;
        Some(name_start(&text, *bytes.get(start as usize)?))
    };
    let Checked { paths, regexes, ranges, has_loops, ids, .. } = check(&mut expression)
        .map_err(|Refused { node, message }| SyntaxError { at: start(node).unwrap_or(0), message })?;
    let mut starts: Vec<_> = ids.iter().filter_map(|id| Some((*id, start(*id)? as u32))).collect();
    starts.sort_unstable();
    starts.dedup();
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
        starts: starts.into(),
        text,
    })
}

/// A call is where its bracket is to the parser, and where its name is to whoever wrote it.
fn name_start(text: &str, at: usize) -> usize {
    let before = text[..at].trim_end();
    let name = before.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let is_call = text[at..].starts_with('(') && name.len() < before.len();
    if is_call { name.len() } else { at }
}

fn refuse_nesting(text: &str) -> Result<(), SyntaxError> {
    let (mut open, mut signs) = (0usize, 0usize);
    for token in tokens(text) {
        match token.sort {
            Sort::Sign("(" | "[" | "{") => open += 1,
            Sort::Sign(")" | "]" | "}") => open = open.saturating_sub(1),
            _ => {}
        }
        signs = if matches!(token.sort, Sort::Sign("!" | "-")) { signs + 1 } else { 0 };
        if open > BRACKETS_MAX || signs > BRACKETS_MAX {
            let message = format!("nested more than {BRACKETS_MAX} levels deep");
            return Err(SyntaxError { at: token.start, message });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
