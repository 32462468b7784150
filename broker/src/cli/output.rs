//! What goes to standard output: tables, descriptions, JSON. Text of events is shown with control characters escaped.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

use serde_json::Value;
use serde_json::value::RawValue;

use super::Error;
use super::admin::{Answer, Items};

/// What a command prints: for a person, or for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    Json,
}

/// How a line or cell stands out on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Heading,
    Warning,
}

/// Whether escape sequences may be written. They may when a terminal reads them and NO_COLOR is unset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    On,
    Off,
}

impl Colours {
    pub fn of_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if std::io::stdout().is_terminal() && !refused { Self::On } else { Self::Off }
    }

    fn paint(self, text: &str, tone: Tone) -> String {
        match (self, tone) {
            (Self::Off, _) | (Self::On, Tone::Plain) => text.to_owned(),
            (Self::On, Tone::Heading) => format!("\x1b[1m{text}\x1b[0m"),
            (Self::On, Tone::Warning) => format!("\x1b[33m{text}\x1b[0m"),
        }
    }
}

/// Rows under headings, aligned by columns.
#[derive(Debug)]
pub struct Table {
    headings: &'static [&'static str],
    rows: Vec<Vec<(String, Tone)>>,
}

impl Table {
    pub fn new(headings: &'static [&'static str]) -> Self {
        Self { headings, rows: Vec::new() }
    }

    /// Adds a row; its texts are escaped here.
    pub fn row(&mut self, cells: impl IntoIterator<Item = (String, Tone)>) {
        self.rows.push(cells.into_iter().map(|(text, tone)| (escaped(&text), tone)).collect());
    }

    pub fn render(&self, colours: Colours) -> String {
        let headings: Vec<_> = self.headings.iter().map(|text| ((*text).to_owned(), Tone::Heading)).collect();
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|(text, _)| text);
                cells.map(|text| text.chars().count()).max().unwrap_or(0).max(self.headings[column].len())
            })
            .collect();
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for (column, (cell, tone)) in row.iter().enumerate() {
                line.push_str(&colours.paint(cell, *tone));
                if column + 1 < row.len() {
                    let gap = widths[column].saturating_sub(cell.chars().count()) + 2;
                    line.extend(std::iter::repeat_n(' ', gap));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The text with everything escaped that could move the cursor, hide text or reorder it.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            _ if misleads(character) => safe.extend(character.escape_unicode()),
            _ => safe.push(character),
        }
    }
    safe
}

/// Control characters, and the directional and invisible ones that make text read as what it is not.
fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(character, '\u{feff}' | '\u{61c}')
}

/// As [`escaped`], but line breaks and tabs stay.
pub fn escaped_lines(text: &str) -> String {
    text.split('\n')
        .map(|line| line.split('\t').map(escaped).collect::<Vec<_>>().join("\t"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// One cell of a table: what stands at a path such as `event.id`, `-` when nothing does.
pub fn cell(item: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(item, |value, name| value.get(name));
    found.map_or_else(|| "-".to_owned(), inline)
}

/// A document as indented `name: value` lines: the fields named first in that order, then the others.
pub fn describe(document: &Value, first: &[&str]) -> String {
    let mut text = String::new();
    describe_into(&mut text, document, first, 0);
    text
}

fn describe_into(text: &mut String, value: &Value, first: &[&str], depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            let named = first.iter().filter_map(|name| fields.get_key_value(*name));
            let others = fields.iter().filter(|(name, _)| !first.contains(&name.as_str()));
            for (name, value) in named.chain(others) {
                let name = escaped(name);
                match value {
                    Value::Object(fields) if !fields.is_empty() => {
                        let _ = writeln!(text, "{indent}{name}:");
                        describe_into(text, value, first, depth + 1);
                    }
                    Value::Array(items) if items.iter().any(Value::is_object) => {
                        let _ = writeln!(text, "{indent}{name}:");
                        describe_into(text, value, first, depth + 1);
                    }
                    Value::Array(items) => {
                        let items: Vec<_> = items.iter().map(|item| escaped(&inline(item))).collect();
                        let listed = if items.is_empty() { "none".into() } else { items.join(", ") };
                        let _ = writeln!(text, "{indent}{name}: {listed}");
                    }
                    _ => {
                        let _ = writeln!(text, "{indent}{name}: {}", escaped(&inline(value)));
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut entry = String::new();
                describe_into(&mut entry, item, first, depth + 1);
                // The first line of an entry begins with a dash where its indentation ended.
                let rest = entry.strip_prefix(&"  ".repeat(depth + 1)).unwrap_or(&entry);
                let _ = write!(text, "{indent}- {rest}");
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let _ = writeln!(text, "{indent}{}", escaped(&inline(value)));
        }
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Prints what the broker answered: its JSON, or a description of it with some fields first.
pub fn print_answer(answer: &Answer, form: Form, first: &[&str]) -> Result<(), Error> {
    if form == Form::Json {
        return print_json(if answer.text.trim().is_empty() { "{}" } else { &answer.text });
    }
    let document = answer.document()?;
    if document.is_null() { Ok(()) } else { print(&describe(&document, first)) }
}

/// Prints a JSON document as it is, except that characters a terminal might obey become escapes of the same value.
/// Those below U+0020 are escapes already; the others can only stand in strings.
pub fn print_json(text: &str) -> Result<(), Error> {
    let mut safe = String::with_capacity(text.len() + 1);
    for character in text.trim_end().chars() {
        if misleads(character) && !character.is_ascii_whitespace() {
            safe.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            safe.push(character);
        }
    }
    safe.push('\n');
    print(&safe)
}

/// Prints the items of a list: a JSON array, or what `table` makes of them.
pub fn print_list(
    list: &Items,
    form: Form,
    nothing: &str,
    table: impl FnOnce(&[Value]) -> Table,
) -> Result<(), Error> {
    if form == Form::Json {
        return print_json(&json_array(&list.items));
    }
    let items = list.items.iter().map(|item| serde_json::from_str(item.get()));
    let items: Vec<Value> = items
        .collect::<Result<_, _>>()
        .map_err(|error| Error::failed_because("cannot read the broker's answer", error))?;
    if items.is_empty() {
        eprintln!("{nothing}");
        return Ok(());
    }
    print(&table(&items).render(Colours::of_stdout()))?;
    if list.more {
        eprintln!("there are more than these {}; see --limit", items.len());
    }
    Ok(())
}

fn json_array(items: &[Box<RawValue>]) -> String {
    let mut text = String::from("[");
    for (index, item) in items.iter().enumerate() {
        text.push_str(if index == 0 { "\n" } else { ",\n" });
        text.push_str(item.get());
    }
    text.push_str(if items.is_empty() { "]\n" } else { "\n]\n" });
    text
}

pub fn print(text: &str) -> Result<(), Error> {
    print_bytes(text.as_bytes())
}

pub fn print_line(text: &str) -> Result<(), Error> {
    print(&format!("{text}\n"))
}

pub fn print_bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Asks on the terminal and returns whether the answer was yes. Without a terminal nobody can be asked: yes.
pub fn confirmed(question: &str) -> Result<bool, Error> {
    if !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    eprint!("{} [y/N] ", escaped(question));
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Error::failed_because("cannot read the answer", error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// A line on a terminal that says how far something long is.
pub struct Progress {
    what: &'static str,
    shown: Option<u64>,
    is_terminal: bool,
}

impl Progress {
    pub fn new(what: &'static str) -> Self {
        Self { what, shown: None, is_terminal: std::io::IsTerminal::is_terminal(&std::io::stderr()) }
    }

    pub fn show(&mut self, percent: u64) {
        if self.is_terminal && self.shown != Some(percent) {
            self.shown = Some(percent);
            eprint!("\r{} {percent} %", self.what);
        }
    }

    pub fn finish(&self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::{Colours, Table, Tone, describe, escaped};

    fn check(colours: Colours, rows: &[[&str; 2]], expected: &Expect) {
        let mut table = Table::new(&["ID", "TYPE"]);
        for row in rows {
            table.row(row.map(|text| (text.to_owned(), Tone::Plain)));
        }
        expected.assert_eq(&table.render(colours));
    }

    #[test]
    fn columns_are_aligned_and_control_characters_escaped() {
        check(
            Colours::Off,
            &[["1", "a.b"], ["long-id", "x\u{1b}[2Jy\nz"], ["é", "\u{202e}txt"]],
            &expect![[r#"
                ID       TYPE
                1        a.b
                long-id  x\u{1b}[2Jy\nz
                é        \u{202e}txt
            "#]],
        );
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(&["ID", "TYPE"]);
        table.row([("1".into(), Tone::Warning), ("a".into(), Tone::Plain)]);
        assert_eq!(table.render(Colours::On), "\x1b[1mID\x1b[0m  \x1b[1mTYPE\x1b[0m\n\x1b[33m1\x1b[0m   a\n");
    }

    #[test]
    fn a_document_reads_as_indented_lines() {
        let document = json!({
            "b": null, "name": "x", "list": ["p", "q"], "empty": [],
            "attempts": [{"status": 503, "at": "now"}, {"status": null, "at": "then\u{7}"}],
            "inner": {"deep": {"deeper": true}},
        });
        expect![[r#"
            name: x
            attempts:
              - status: 503
                at: now
              - status: -
                at: then\u{7}
            b: -
            empty: none
            inner:
              deep:
                deeper: true
            list: p, q
        "#]]
        .assert_eq(&describe(&document, &["name", "status"]));
    }

    #[test]
    fn line_breaks_are_escaped_in_a_cell() {
        assert_eq!(escaped("a\r\nb\tc"), "a\\r\\nb\\tc");
    }
}
