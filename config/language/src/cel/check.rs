//! What an expression may be: checked, and changed so that its cost is counted, before it is ever evaluated.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, operators};
use regex::{Regex, RegexBuilder};

use super::paths::Paths;

pub const NODES_MAX: usize = 1000;
const DEPTH_MAX: usize = 48;
/// Macros within macros.
const LOOPS_MAX: usize = 3;
const REGEX_BYTES_MAX: usize = 256;
const REGEX_SIZE_MAX: usize = 256 << 10;

/// Functions that the rewriting puts in; no expression can be written that names them.
pub const OPEN: &str = "@open";
pub const PAY: &str = "@pay";
pub const RANGE: &str = "@range";
pub const MATCHES: &str = "@matches";

/// Names of types, and what the standard library of CEL defines that the crate has without its optional parts.
const TYPES: &[&str] = &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"];
const FUNCTIONS: &[&str] = &[
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "int",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
];
const OPTIONAL: &str = "optional fields are not supported: guard the field with `has(...)`";
const MACROS: &[&str] = &["has", "all", "exists", "exists_one", "map", "filter"];

/// What is wrong with an expression, and the node that is.
pub struct Refused {
    pub node: u64,
    pub message: String,
}

/// What an expression looks at.
#[derive(Debug, Default)]
pub struct Checked {
    pub paths: Paths,
    pub regexes: Vec<Regex>,
    /// Parts of the data that macros range over, whose size is known before anything is evaluated.
    pub ranges: Vec<Vec<String>>,
    pub has_loops: bool,
    /// The ids of all nodes, and of the `event` that each chain of fields begins with.
    pub ids: Vec<u64>,
    nodes: usize,
}

/// Checks an expression and rewrites it: ranges of macros are weighed, patterns of `matches` are compiled.
pub fn check(expression: &mut IdedExpr) -> Result<Checked, Refused> {
    let mut checker = Checker::default();
    checker.visit(expression, 0)?;
    Ok(checker.checked)
}

#[derive(Default)]
struct Checker {
    checked: Checked,
    /// Variables of the macros around.
    variables: Vec<String>,
    loops: usize,
}

fn refuse<T>(node: u64, message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { node, message: message.into() })
}

impl Checker {
    /// Whether `event` is the variable of a macro around.
    fn is_shadowed(&self) -> bool {
        self.variables.iter().any(|name| name == "event")
    }

    fn visit(&mut self, expression: &mut IdedExpr, depth: usize) -> Result<(), Refused> {
        let id = expression.id;
        self.checked.nodes += 1;
        self.checked.ids.push(id);
        if depth > DEPTH_MAX {
            return refuse(id, format!("nested more than {DEPTH_MAX} levels deep"));
        }
        if self.checked.nodes > NODES_MAX {
            return refuse(id, format!("more than {NODES_MAX} operators and values"));
        }
        let depth = depth + 1;
        if !self.is_shadowed() && self.checked.paths.take(expression) {
            self.checked.ids.push(innermost(expression).id);
            return Ok(());
        }
        match &mut expression.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) if self.variables.contains(name) || TYPES.contains(&name.as_str()) => Ok(()),
            Expr::Ident(name) => refuse(id, format!("unknown name `{name}`: did you mean `event.{name}`?")),
            Expr::Select(select) => self.visit(&mut select.operand, depth),
            Expr::List(list) if !list.optional_indices.is_empty() => refuse(id, OPTIONAL),
            Expr::List(list) => list.elements.iter_mut().try_for_each(|element| self.visit(element, depth)),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) if entry.optional => refuse(id, OPTIONAL),
                EntryExpr::MapEntry(entry) => {
                    self.visit(&mut entry.key, depth)?;
                    self.visit(&mut entry.value, depth)
                }
                EntryExpr::StructField(field) => self.visit(&mut field.value, depth),
            }),
            Expr::Call(call) => self.call(call, id, depth),
            Expr::Comprehension(comprehension) => {
                if self.loops == LOOPS_MAX {
                    return refuse(id, format!("more than {LOOPS_MAX} macros within one another"));
                }
                self.checked.has_loops = true;
                let path =
                    Some(&comprehension.iter_range).filter(|_| !self.is_shadowed()).and_then(Paths::of_data);
                self.visit(&mut comprehension.iter_range, depth)?;
                let nodes_before = self.checked.nodes;
                self.loops += 1;
                let outer = self.variables.len();
                self.variables.push(comprehension.iter_var.clone());
                self.variables.extend(comprehension.iter_var2.clone());
                self.variables.push(comprehension.accu_var.clone());
                self.visit(&mut comprehension.accu_init, depth)?;
                self.visit(&mut comprehension.loop_cond, depth)?;
                self.visit(&mut comprehension.loop_step, depth)?;
                self.visit(&mut comprehension.result, depth)?;
                self.variables.truncate(outer);
                self.loops -= 1;
                let own = [&comprehension.iter_var, &comprehension.accu_var];
                let copies = copies_from_outside(&comprehension.loop_step, &own);
                let nodes = self.checked.nodes - nodes_before;
                let cost = [number(nodes), number(usize::from(copies))];
                match path {
                    Some(path) => {
                        self.checked.ranges.push(path);
                        weigh_path(&mut comprehension.iter_range, self.checked.ranges.len() - 1, cost);
                    }
                    None => weigh(&mut comprehension.iter_range, cost),
                }
                Ok(())
            }
            Expr::Struct(_) => refuse(id, "messages cannot be made here"),
            Expr::Unspecified => refuse(id, "an expression is missing here"),
        }
    }

    fn call(&mut self, call: &mut CallExpr, id: u64, depth: usize) -> Result<(), Refused> {
        let name = call.func_name.as_str();
        if matches!(name, operators::OPT_SELECT | operators::OPT_INDEX) {
            return refuse(id, OPTIONAL);
        }
        if name == "matches" {
            self.matches(call, id)?;
        } else if !is_operator(name) && !FUNCTIONS.contains(&name) {
            let hint = if MACROS.contains(&name) { ": it takes other arguments" } else { "" };
            return refuse(id, format!("unknown function `{name}`{hint}"));
        }
        if let Some(target) = &mut call.target {
            self.visit(target, depth)?;
        }
        call.args.iter_mut().try_for_each(|argument| self.visit(argument, depth))
    }

    /// Compiles the pattern now, within bounds: one that comes with the event could cost anything.
    fn matches(&mut self, call: &mut CallExpr, id: u64) -> Result<(), Refused> {
        let (text, pattern) = match (call.target.take(), std::mem::take(&mut call.args).as_mut_slice()) {
            (Some(target), [pattern]) => (*target, std::mem::take(pattern)),
            (None, [text, pattern]) => (std::mem::take(text), std::mem::take(pattern)),
            _ => return refuse(id, "`matches` takes a text and a pattern"),
        };
        let Expr::Literal(LiteralValue::String(literal)) = &pattern.expr else {
            return refuse(id, "the pattern of `matches` must be a literal");
        };
        let literal = literal.inner();
        if literal.len() > REGEX_BYTES_MAX {
            return refuse(pattern.id, format!("a pattern of more than {REGEX_BYTES_MAX} bytes"));
        }
        let compiled =
            RegexBuilder::new(literal).size_limit(REGEX_SIZE_MAX).dfa_size_limit(REGEX_SIZE_MAX).build();
        match compiled {
            Ok(regex) => self.checked.regexes.push(regex),
            Err(error) => {
                let error = error.to_string();
                let last = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
                return refuse(pattern.id, format!("not a regular expression: {last}"));
            }
        }
        let at = self.checked.regexes.len() - 1;
        call.func_name = MATCHES.to_owned();
        call.args = vec![text, number(at)];
        Ok(())
    }
}

/// What a chain of fields begins with.
pub fn innermost(mut expression: &IdedExpr) -> &IdedExpr {
    while let Expr::Select(select) = &expression.expr {
        expression = &select.operand;
    }
    expression
}

fn is_operator(name: &str) -> bool {
    name.starts_with(['_', '!', '-', '@'])
}

fn number(number: usize) -> IdedExpr {
    let literal = LiteralValue::Int(i64::try_from(number).unwrap_or(i64::MAX).into());
    IdedExpr { id: 0, expr: Expr::Literal(literal) }
}

/// `range` becomes `@open() ? @range(range, nodes, copies) : []`: it pays for the loop before it begins, and when all is spent, loops
/// that are yet to come have no rounds.
fn weigh(range: &mut IdedExpr, [nodes, copies]: [IdedExpr; 2]) {
    let inner = std::mem::take(range);
    let id = inner.id;
    *range = either(id, call(id, OPEN, Vec::new()), call(id, RANGE, vec![inner, nodes, copies]));
}

/// A part of the data becomes `@pay(n, nodes, copies) ? event.data.part : []`, which does not copy it.
fn weigh_path(range: &mut IdedExpr, at: usize, [nodes, copies]: [IdedExpr; 2]) {
    let inner = std::mem::take(range);
    let id = inner.id;
    *range = either(id, call(id, PAY, vec![number(at), nodes, copies]), inner);
}

fn call(id: u64, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    IdedExpr { id, expr: Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }) }
}

fn either(id: u64, condition: IdedExpr, range: IdedExpr) -> IdedExpr {
    let nothing = IdedExpr { id, expr: Expr::List(ListExpr::default()) };
    call(id, operators::CONDITIONAL, vec![condition, range, nothing])
}

/// Whether each round puts something into the result that is no part of the range: it is copied as often as there are rounds.
fn copies_from_outside(step: &IdedExpr, own: &[&String]) -> bool {
    match &step.expr {
        Expr::Call(call) if call.func_name == operators::ADD => {
            call.args.iter().any(|argument| match &argument.expr {
                Expr::List(ListExpr { elements, .. }) => {
                    elements.iter().any(|element| names_other(element, own))
                }
                _ => false,
            })
        }
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => {
            call.args.iter().any(|argument| copies_from_outside(argument, own))
        }
        _ => false,
    }
}

fn names_other(expression: &IdedExpr, own: &[&String]) -> bool {
    let entry = |entry: &EntryExpr| match entry {
        EntryExpr::MapEntry(entry) => names_other(&entry.key, own) || names_other(&entry.value, own),
        EntryExpr::StructField(field) => names_other(&field.value, own),
    };
    match &expression.expr {
        Expr::Ident(name) => !own.contains(&name),
        Expr::Select(select) => names_other(&select.operand, own),
        Expr::List(list) => list.elements.iter().any(|element| names_other(element, own)),
        Expr::Map(map) => map.entries.iter().any(|part| entry(&part.expr)),
        Expr::Call(call) => {
            call.target.iter().any(|target| names_other(target, own))
                || call.args.iter().any(|argument| names_other(argument, own))
        }
        Expr::Comprehension(_) | Expr::Struct(_) => true,
        Expr::Literal(_) | Expr::Unspecified => false,
    }
}
