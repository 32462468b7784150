//! YAML as a tree in which every node knows its place.
//!
//! Built from the events of granit-parser (the parser beneath serde-saphyr) instead of through serde: the conversion can then point at exactly the scalar that is wrong, go on
//! after an error, and tell `no` in quotes from `no`. Everything is bounded before it is built: file size by the caller, depth,
//! nodes, and what aliases may add.

use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::diagnostic::{At, Problems, quoted};

const DEPTH_MAX: usize = 100;
const NODES_MAX: usize = 500_000;
/// What anchors hold and aliases copy, all together.
const COPIED_NODES_MAX: usize = 200_000;
const COPIED_TEXT_BYTES_MAX: usize = 4 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub at: At,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    /// As it is meant: without quotes, and with references expanded after `expand`.
    pub text: String,
    /// Quoted, a block scalar or tagged `!!str`: surely text.
    pub quoted: bool,
    /// How the text reads in the file where `${}` was expanded in it. Messages show this, never the expansion.
    pub reference: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub key_at: At,
    pub value: Node,
}

impl Node {
    /// Whether this is nothing at all, `~` or `null`.
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(scalar) => {
                !scalar.quoted
                    && scalar.reference.is_none()
                    && matches!(scalar.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            Value::List(_) | Value::Map(_) => false,
        }
    }

    /// A member of a mapping.
    pub fn member(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            Value::Scalar(_) | Value::List(_) => None,
        }
    }

    /// What this is, for messages.
    pub fn kind(&self) -> String {
        match &self.value {
            Value::Scalar(_) if self.is_null() => "nothing".into(),
            Value::Scalar(scalar) => scalar.shown(),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }
}

impl Scalar {
    /// The value for a message; what came from outside the file is not shown.
    pub fn shown(&self) -> String {
        match &self.reference {
            Some(reference) => format!("what {} stands for", quoted(reference)),
            None => quoted(&self.text),
        }
    }
}

/// Reads the one document of a file. `None`: it is empty, or cannot be read and the problem is reported.
pub(crate) fn read(file: usize, problems: &mut Problems) -> Option<Node> {
    let text = problems.sources[file].text.clone();
    if let Some((before, _)) = text.split_once('\0') {
        let line = before.lines().count().max(1);
        let column = before.lines().last().map_or(0, |last| last.chars().count()) + 1;
        problems.error(At { file, line, column, length: 1 }, "a NUL character: this is not a text file");
        return None;
    }
    let mut builder = Builder::new(file);
    match builder.build(&text, problems) {
        Ok(()) => builder.root,
        Err(Stop { at, message }) => {
            problems.error(at, message);
            None
        }
    }
}

/// What ends the reading of a file, because nothing after it can be trusted.
struct Stop {
    at: At,
    message: String,
}

fn stop(at: At, message: impl Into<String>) -> Result<(), Stop> {
    Err(Stop { at, message: message.into() })
}

/// A collection whose end has not come yet.
struct Open {
    at: At,
    anchor: usize,
    /// How many nodes there were before it.
    nodes_before: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map(OpenMap),
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<Entry>,
    places: HashMap<String, At>,
    merged: Vec<Node>,
    /// A key whose value comes next.
    key: Option<(String, At)>,
    /// The key is a plain `<<`.
    merging: bool,
}

struct Anchored {
    node: Node,
    nodes: usize,
    text_bytes: usize,
    height: usize,
}

struct Builder {
    file: usize,
    root: Option<Node>,
    documents: usize,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Anchored>>,
    nodes: usize,
    copied_nodes: usize,
    copied_text_bytes: usize,
}

impl Builder {
    fn new(file: usize) -> Self {
        Self {
            file,
            root: None,
            documents: 0,
            open: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            copied_nodes: 0,
            copied_text_bytes: 0,
        }
    }

    fn build(&mut self, text: &str, problems: &mut Problems) -> Result<(), Stop> {
        let options = granit_parser::options! {
            emit_comments: false,
            flow_nesting_limit: DEPTH_MAX,
            block_nesting_limit: DEPTH_MAX,
        };
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    let mark = error.marker();
                    let (line, column) = (mark.line().max(1), mark.col() + 1);
                    let at = At { file: self.file, line, column, length: 1 };
                    return stop(at, syntax_error(&error.info(), text, line));
                }
            };
            self.take(event, span, problems)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event<'_>, span: Span, problems: &mut Problems) -> Result<(), Stop> {
        let at = self.at(span);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return stop(at, "a second document: a file holds one, put this in a file of its own");
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tagged = refuse_tag(tag.as_deref(), self.tag_at(span))?;
                let quoted = style != ScalarStyle::Plain || tagged;
                if let Some(Content::Map(map)) = self.open.last_mut().map(|open| &mut open.content)
                    && map.key.is_none()
                {
                    map.start_entry(text.into_owned(), quoted, at, problems);
                    return Ok(());
                }
                let scalar = Scalar { text: text.into_owned(), quoted, reference: None };
                let nodes_before = self.nodes;
                self.finish(Node { at, value: Value::Scalar(scalar) }, anchor, nodes_before, problems)
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), self.tag_at(span))?;
                self.open_collection(at, anchor, Content::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), self.tag_at(span))?;
                self.open_collection(at, anchor, Content::Map(OpenMap::default()))
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { at, anchor, nodes_before, content }) = self.open.pop() else { return Ok(()) };
                let value = match content {
                    Content::List(items) => Value::List(items),
                    Content::Map(map) => Value::Map(map.finish()),
                };
                self.finish(Node { at, value }, anchor, nodes_before, problems)
            }
            Event::Alias(anchor) => {
                self.refuse_key(at)?;
                let node = self.copy(anchor, at)?;
                let nodes_before = self.nodes;
                self.finish(node, 0, nodes_before, problems)
            }
            // Starts and ends of the stream and of documents; comments and anchors are not asked for.
            _ => Ok(()),
        }
    }

    fn open_collection(&mut self, at: At, anchor: usize, content: Content) -> Result<(), Stop> {
        self.refuse_key(at)?;
        if self.open.len() >= DEPTH_MAX {
            return stop(at, format!("nested more than {DEPTH_MAX} levels deep"));
        }
        self.open.push(Open { at, anchor, nodes_before: self.nodes, content });
        Ok(())
    }

    fn refuse_key(&self, at: At) -> Result<(), Stop> {
        match self.open.last().map(|open| &open.content) {
            Some(Content::Map(map)) if map.key.is_none() => stop(
                at,
                "a key must be plain text; a value that begins with `{`, `[` or `*` must be in quotes",
            ),
            _ => Ok(()),
        }
    }

    /// Puts a complete node where it belongs.
    fn finish(
        &mut self,
        mut node: Node,
        anchor: usize,
        nodes_before: usize,
        problems: &mut Problems,
    ) -> Result<(), Stop> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return stop(node.at, format!("more than {NODES_MAX} values in one file"));
        }
        if anchor != 0 {
            self.keep(&node, anchor, self.nodes - nodes_before)?;
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map(map)) => {
                if let Some((_, key_at)) = &map.key
                    && node.is_null()
                {
                    // An absent value has no place of its own.
                    node.at = *key_at;
                }
                map.end_entry(node, problems);
            }
            None => self.root = Some(node),
        }
        Ok(())
    }

    /// Keeps a copy of a node for its aliases.
    fn keep(&mut self, node: &Node, anchor: usize, nodes: usize) -> Result<(), Stop> {
        // Checked before it is measured, which takes time.
        self.charge(nodes, 0, node.at)?;
        let (nodes, text_bytes, height) = measure(node);
        self.charge(0, text_bytes, node.at)?;
        let node = node.clone();
        self.anchors.insert(anchor, Rc::new(Anchored { node, nodes, text_bytes, height }));
        Ok(())
    }

    /// What an alias stands for, if the budget allows another copy.
    fn copy(&mut self, anchor: usize, at: At) -> Result<Node, Stop> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            let message = "this alias stands inside what it names".into();
            return Err(Stop { at, message });
        };
        if self.open.len() + anchored.height > DEPTH_MAX {
            let message = format!("nested more than {DEPTH_MAX} levels deep through this alias");
            return Err(Stop { at, message });
        }
        let anchored = Rc::clone(anchored);
        self.charge(anchored.nodes, anchored.text_bytes, at)?;
        self.nodes += anchored.nodes;
        Ok(anchored.node.clone())
    }

    /// Takes a copy out of the budget of anchors and aliases.
    fn charge(&mut self, nodes: usize, text_bytes: usize, at: At) -> Result<(), Stop> {
        self.copied_nodes += nodes;
        self.copied_text_bytes += text_bytes;
        if self.copied_nodes <= COPIED_NODES_MAX && self.copied_text_bytes <= COPIED_TEXT_BYTES_MAX {
            return Ok(());
        }
        let mebibytes = COPIED_TEXT_BYTES_MAX >> 20;
        let message = format!(
            "anchors and aliases add too much: at most {COPIED_NODES_MAX} values and {mebibytes} MiB of text in one file"
        );
        Err(Stop { at, message })
    }

    fn tag_at(&self, span: Span) -> At {
        self.at(span.tag_span().unwrap_or(span))
    }

    fn at(&self, span: Span) -> At {
        let (start, end) = (span.start, span.end);
        let length = match start.line() == end.line() {
            true => end.col().saturating_sub(start.col()).max(1),
            false => usize::MAX,
        };
        At { file: self.file, line: start.line().max(1), column: start.col() + 1, length }
    }
}

impl OpenMap {
    fn start_entry(&mut self, key: String, quoted_key: bool, at: At, problems: &mut Problems) {
        self.merging = key == "<<" && !quoted_key;
        if let Some(first) = self.places.get(&key) {
            let message = format!(
                "{} appears twice in this mapping, first on line {}: remove one of them",
                quoted(&key),
                first.line
            );
            problems.error(at, message);
        }
        self.key = Some((key, at));
    }

    fn end_entry(&mut self, value: Node, problems: &mut Problems) {
        let Some((key, key_at)) = self.key.take() else { return };
        if self.merging {
            match &value.value {
                Value::Map(_) => self.merged.push(value),
                Value::List(items) if items.iter().all(|item| matches!(item.value, Value::Map(_))) => {
                    self.merged.extend(items.iter().cloned());
                }
                Value::List(_) | Value::Scalar(_) => {
                    problems.error(value.at, "`<<` merges mappings, such as `<<: *name`");
                }
            }
            return;
        }
        if self.places.contains_key(&key) {
            return;
        }
        self.places.insert(key.clone(), key_at);
        self.entries.push(Entry { key, key_at, value });
    }

    /// Keys of the mapping itself win over merged ones, earlier merged ones over later.
    fn finish(mut self) -> Vec<Entry> {
        for node in std::mem::take(&mut self.merged) {
            let Value::Map(entries) = node.value else { continue };
            for entry in entries {
                if !self.places.contains_key(&entry.key) {
                    self.places.insert(entry.key.clone(), entry.key_at);
                    self.entries.push(entry);
                }
            }
        }
        self.entries
    }
}

/// Tags could make text of what looks like a number and more; only that first use is taken. Says whether it is.
fn refuse_tag(tag: Option<&Tag>, at: At) -> Result<bool, Stop> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema_tag("str") => Ok(true),
        Some(tag) => {
            let (handle, suffix) = tag.original_parts();
            let name = quoted(&format!("{handle}{suffix}"));
            Err(Stop {
                at,
                message: format!("the tag {name} has no meaning here: remove it, or quote the text"),
            })
        }
    }
}

/// Nodes, bytes of text, and levels.
fn measure(node: &Node) -> (usize, usize, usize) {
    let sum = |(nodes, bytes, height): (usize, usize, usize), node: &Node| {
        let (n, b, h) = measure(node);
        (nodes + n, bytes + b, height.max(h))
    };
    let (nodes, bytes, height) = match &node.value {
        Value::Scalar(scalar) => (0, scalar.text.len(), 0),
        Value::List(items) => items.iter().fold((0, 0, 0), sum),
        Value::Map(entries) => {
            let keys = entries.iter().map(|entry| entry.key.len()).sum();
            entries.iter().map(|entry| &entry.value).fold((0, keys, 0), sum)
        }
    };
    (nodes + 1, bytes, height + 1)
}

/// The parser's message, in the words of this format where those help more.
fn syntax_error(info: &str, text: &str, line: usize) -> String {
    if info.contains("recursion limit") {
        return format!("nested more than {DEPTH_MAX} levels deep");
    }
    if info.contains("tabs") {
        return "a tab cannot indent: use spaces".into();
    }
    if info.contains("unknown anchor") {
        return "this alias names no anchor above it; text that begins with `*` must be in quotes".into();
    }
    if info.contains("anchor or alias") {
        return format!("{info}; text that begins with `*` or `&` must be in quotes");
    }
    if let Some(found) = info.strip_prefix("unexpected character: `").and_then(|rest| rest.chars().next())
        && "@`%".contains(found)
    {
        return format!("text that begins with `{found}` must be in quotes");
    }
    format!("{info}{}", brace_hint(text, line))
}

/// A template or a reference outside quotes is the usual cause of a syntax error near a `{`.
fn brace_hint(text: &str, line: usize) -> &'static str {
    let near = text.lines().skip(line.saturating_sub(2)).take(2);
    let holds_path = |line: &str| {
        line.split('{').skip(1).any(|rest| {
            let Some((path, _)) = rest.split_once('}') else { return false };
            !path.is_empty() && path.chars().all(|c| c.is_ascii_alphanumeric() || "._-|[]:/".contains(c))
        })
    };
    if near.into_iter().any(holds_path) { "; text that holds `{` must be in quotes" } else { "" }
}
