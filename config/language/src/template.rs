//! `{path|default}` in strings.
//!
//! ```text
//! {body.order.id}         a path: a root, then names after dots and places in lists
//! {body.items[0].sku}
//! {body["a.b"]}           a name with characters that mean something in a path
//! {body.action|unknown}   a default for what is absent, or null
//! {{ and }}               braces; a lone } is itself
//! ```
//!
//! A string that is one whole path stands for what the path finds, a number or an object as well; in a longer string that is
//! written as text, as JSON where it is none, a number with the digits it came with. Lists and mappings are rendered member by member, and what is absent is left
//! out of them. Rendering is bounded in size ([`RENDERED_BYTES_MAX`]).

mod parse;
mod scope;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::SyntaxError;

pub use scope::{Document, Root, Scope};

use scope::Found;

/// A template text may have so many bytes.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// What one template renders, as JSON text.
pub const RENDERED_BYTES_MAX: usize = 32 << 20;

/// A compiled template: JSON whose strings may hold paths.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    node: Node,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Fixed(Value),
    Text(Text),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// A string with at least one path.
#[derive(Clone, Debug, PartialEq)]
struct Text {
    source: Box<str>,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Literal(Box<str>),
    Path(Path),
}

#[derive(Clone, Debug, PartialEq)]
struct Path {
    /// As it is written, without braces and default.
    source: Box<str>,
    root: Root,
    steps: Vec<Step>,
    default: Option<Box<str>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Name(Box<str>),
    Place(usize),
}

/// A string within a template that is wrong, and where in the template it stands (`items[0].name`, empty for the whole).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Misplaced {
    pub place: String,
    pub error: SyntaxError,
}

/// Why a template stands for nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    #[error("`{{{path}}}` is absent, and has no default")]
    Absent { path: String },
    #[error("what is rendered has more than {} MiB", RENDERED_BYTES_MAX >> 20)]
    TooLarge,
}

impl Template {
    /// Compiles JSON whose strings may hold paths from these roots.
    pub fn compile(json: &Value, roots: &[Root]) -> Result<Self, Misplaced> {
        Node::compile(json, roots, &mut String::new()).map(|node| Self { node })
    }

    /// Compiles one string.
    pub fn compile_text(text: &str, roots: &[Root]) -> Result<Self, SyntaxError> {
        Ok(Self { node: Node::of_text(text, roots)? })
    }

    /// What the template stands for. What is absent is left out of lists and mappings; an absent whole is an error.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Value, RenderError> {
        self.node.render(scope, &mut Budget(RENDERED_BYTES_MAX))
    }

    /// What the template stands for, as text: JSON where it is no string. Null counts as absent.
    pub fn render_text(&self, scope: &Scope<'_>) -> Result<String, RenderError> {
        if let Node::Text(text) = &self.node {
            return text.render_text(scope, &mut Budget(RENDERED_BYTES_MAX));
        }
        match self.render(scope)? {
            Value::Null => Err(RenderError::Absent { path: "null".into() }),
            Value::String(text) => Ok(text),
            json @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Ok(json.to_string())
            }
        }
    }

    /// The template as it was written.
    pub fn to_json(&self) -> Value {
        self.node.to_json()
    }
}

impl Node {
    fn compile(json: &Value, roots: &[Root], place: &mut String) -> Result<Self, Misplaced> {
        let before = place.len();
        let mut inner = |json: &Value, step: String| {
            place.push_str(&step);
            let node = Self::compile(json, roots, place)?;
            place.truncate(before);
            Ok(node)
        };
        match json {
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(Self::Fixed(json.clone())),
            Value::String(text) => {
                Self::of_text(text, roots).map_err(|error| Misplaced { place: place.clone(), error })
            }
            Value::Array(items) => {
                let nodes = items.iter().enumerate().map(|(n, item)| inner(item, format!("[{n}]")));
                nodes.collect::<Result<_, _>>().map(Self::List)
            }
            Value::Object(members) => {
                let dot = if before == 0 { "" } else { "." };
                let nodes = members
                    .iter()
                    .map(|(name, member)| Ok((name.clone(), inner(member, format!("{dot}{name}"))?)));
                nodes.collect::<Result<_, _>>().map(Self::Map)
            }
        }
    }

    fn of_text(text: &str, roots: &[Root]) -> Result<Self, SyntaxError> {
        let pieces = parse::pieces(text, roots)?;
        Ok(match <[Piece; 1]>::try_from(pieces) {
            // Without paths there is one literal at most: what is written, less the doubled braces.
            Ok([Piece::Literal(literal)]) if *literal == *text => Self::Fixed(Value::String(literal.into())),
            Ok([piece]) => Self::Text(Text { source: text.into(), pieces: vec![piece] }),
            Err(pieces) if pieces.is_empty() => Self::Fixed(Value::String(String::new())),
            Err(pieces) => Self::Text(Text { source: text.into(), pieces }),
        })
    }

    fn render(&self, scope: &Scope<'_>, budget: &mut Budget) -> Result<Value, RenderError> {
        match self {
            Self::Fixed(value) => {
                budget.take(json_bytes(value))?;
                Ok(value.clone())
            }
            Self::Text(text) => text.render(scope, budget),
            Self::List(nodes) => {
                let mut items = Vec::with_capacity(nodes.len());
                for node in nodes {
                    if let Some(item) = or_left_out(node.render(scope, budget))? {
                        items.push(item);
                    }
                }
                Ok(Value::Array(items))
            }
            Self::Map(nodes) => {
                let mut members = serde_json::Map::new();
                for (name, node) in nodes {
                    budget.take(name.len())?;
                    if let Some(member) = or_left_out(node.render(scope, budget))? {
                        members.insert(name.clone(), member);
                    }
                }
                Ok(Value::Object(members))
            }
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Fixed(value) => value.clone(),
            Self::Text(text) => Value::String(text.source.to_string()),
            Self::List(nodes) => nodes.iter().map(Self::to_json).collect(),
            Self::Map(nodes) => {
                Value::Object(nodes.iter().map(|(name, node)| (name.clone(), node.to_json())).collect())
            }
        }
    }
}

fn or_left_out(rendered: Result<Value, RenderError>) -> Result<Option<Value>, RenderError> {
    match rendered {
        Ok(value) => Ok(Some(value)),
        Err(RenderError::Absent { .. }) => Ok(None),
        Err(error @ RenderError::TooLarge) => Err(error),
    }
}

impl Text {
    fn render(&self, scope: &Scope<'_>, budget: &mut Budget) -> Result<Value, RenderError> {
        let [Piece::Path(path)] = &self.pieces[..] else {
            return self.render_text(scope, budget).map(Value::String);
        };
        match (scope.find(path), &path.default) {
            (Some(found), Some(default)) if found.is_null() => text_value(default, budget),
            (Some(found), _) => {
                match &found {
                    Found::Json(json) | Found::Fraction(json, _) => budget.take(json_bytes(json))?,
                    Found::Made(json) => budget.take(json_bytes(json))?,
                    Found::Text(text) => budget.take(text.len())?,
                }
                Ok(found.into_json())
            }
            (None, Some(default)) => text_value(default, budget),
            (None, None) => Err(RenderError::Absent { path: path.source.to_string() }),
        }
    }

    fn render_text(&self, scope: &Scope<'_>, budget: &mut Budget) -> Result<String, RenderError> {
        let mut rendered = String::new();
        let mut add = |text: &str| {
            budget.take(text.len())?;
            rendered.push_str(text);
            Ok(())
        };
        for piece in &self.pieces {
            let path = match piece {
                Piece::Literal(text) => {
                    add(text)?;
                    continue;
                }
                Piece::Path(path) => path,
            };
            match (scope.find(path).filter(|found| !found.is_null()), &path.default) {
                (Some(Found::Text(text)), _) => add(text)?,
                (Some(Found::Json(Value::String(text))), _) => add(text)?,
                (Some(Found::Fraction(_, Some(written))), _) => add(written)?,
                (Some(Found::Json(json) | Found::Fraction(json, None)), _) => add(&json.to_string())?,
                (Some(Found::Made(json)), _) => add(&json.to_string())?,
                (None, Some(default)) => add(default)?,
                (None, None) => return Err(RenderError::Absent { path: path.source.to_string() }),
            }
        }
        Ok(rendered)
    }
}

fn text_value(text: &str, budget: &mut Budget) -> Result<Value, RenderError> {
    budget.take(text.len())?;
    Ok(Value::String(text.to_owned()))
}

/// How many bytes may still be rendered.
struct Budget(usize);

impl Budget {
    fn take(&mut self, bytes: usize) -> Result<(), RenderError> {
        self.0 = self.0.checked_sub(bytes.saturating_add(2)).ok_or(RenderError::TooLarge)?;
        Ok(())
    }
}

/// About the length of the JSON text, without making it.
fn json_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 4,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| 1 + json_bytes(item)).sum::<usize>(),
        Value::Object(members) => {
            2 + members.iter().map(|(name, member)| name.len() + 4 + json_bytes(member)).sum::<usize>()
        }
    }
}
