//! Reading a template text.

use super::{Path, Piece, Root, Step, TEXT_BYTES_MAX};
use crate::SyntaxError;

/// These mean something in a path, so a name that has one is written `["name"]`.
const SPECIAL: [char; 7] = ['.', '[', ']', '{', '}', '|', '"'];

/// Splits a text into literals and paths; neighbouring literals are one.
pub(super) fn pieces(text: &str, roots: &[Root]) -> Result<Vec<Piece>, SyntaxError> {
    if text.len() > TEXT_BYTES_MAX {
        return wrong(0, format!("a template of more than {} KiB", TEXT_BYTES_MAX >> 10));
    }
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(brace) = text[at..].find(['{', '}']).map(|offset| at + offset) {
        literal.push_str(&text[at..brace]);
        let rest = &text[brace..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            literal.push_str(&rest[..1]);
            at = brace + 2;
        } else if rest.starts_with('}') {
            literal.push('}');
            at = brace + 1;
        } else {
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            }
            let mut reader = Reader { text, start: brace, at: brace + 1, roots };
            pieces.push(Piece::Path(reader.path()?));
            at = reader.at;
        }
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    Ok(pieces)
}

fn wrong<T>(at: usize, message: impl Into<String>) -> Result<T, SyntaxError> {
    Err(SyntaxError { at, message: message.into() })
}

/// Reads one path, from behind its `{` to behind its `}`.
struct Reader<'t> {
    text: &'t str,
    start: usize,
    at: usize,
    roots: &'t [Root],
}

impl<'t> Reader<'t> {
    fn path(&mut self) -> Result<Path, SyntaxError> {
        let root = self.root()?;
        let mut steps = Vec::new();
        let (end, default) = loop {
            let at = self.at;
            match self.next() {
                Some('}') => break (at, None),
                Some('|') => break (at, Some(self.default()?)),
                Some('.') => steps.push((at, Step::Name(self.name()?.into()))),
                Some('[') => steps.push((at, self.bracket()?)),
                Some(other) => {
                    return wrong(at, format!("expected `.`, `[`, `|` or `}}` in a path, found `{other}`"));
                }
                None => return self.open(),
            }
        };
        let source = self.text[self.start + 1..end].into();
        Ok(Path { source, root, steps: fit(root, steps)?, default })
    }

    fn root(&mut self) -> Result<Root, SyntaxError> {
        let at = self.at;
        let name = self.until(&SPECIAL);
        let known = || one_of(self.roots);
        if name.is_empty() {
            if self.rest().is_empty() {
                return self.open();
            }
            let message = format!(
                "expected a path after `{{`, which begins with {}; for a brace write `{{{{`",
                known()
            );
            return wrong(at, message);
        }
        if let Some(root) = self.roots.iter().find(|root| root.as_str() == name) {
            return Ok(*root);
        }
        if Root::ALL.iter().any(|root| root.as_str() == name) {
            return wrong(at, format!("there is no `{name}` here: expected {}", known()));
        }
        if Root::ALL.iter().any(|root| root.as_str() == name.trim()) {
            return wrong(at, "white space in a path: expected the name at once after `{`");
        }
        let message =
            format!("unknown `{}`: a path begins with {}; for a brace write `{{{{`", shorten(name), known());
        wrong(at, message)
    }

    /// A name behind a dot.
    fn name(&mut self) -> Result<&'t str, SyntaxError> {
        let at = self.at;
        let name = self.until(&SPECIAL);
        if self.rest().is_empty() {
            return self.open();
        }
        if name.is_empty() {
            return wrong(at, "expected a name after `.`");
        }
        if name.trim() != name {
            return wrong(at, format!("white space around a name: if it belongs to it, write [\"{name}\"]"));
        }
        Ok(name)
    }

    /// `3]` or `"name"]`.
    fn bracket(&mut self) -> Result<Step, SyntaxError> {
        let at = self.at;
        let expected = "expected a place such as [0], or a name in double quotes, and `]`";
        let step = if self.rest().starts_with('"') {
            self.at += 1;
            let name = self.until(&['"']);
            if self.next() != Some('"') {
                return wrong(at, "a name that does not end: expected `\"]`");
            }
            Step::Name(name.into())
        } else {
            let digits = self.until(&SPECIAL);
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let Some(place) = digits.parse().ok().filter(|_| is_number) else { return wrong(at, expected) };
            Step::Place(place)
        };
        if self.next() == Some(']') { Ok(step) } else { wrong(at, expected) }
    }

    /// What stands behind `|`, and the closing brace.
    fn default(&mut self) -> Result<Box<str>, SyntaxError> {
        let default = self.until(&['{', '}']);
        let at = self.at;
        match self.next() {
            Some('}') => Ok(default.into()),
            Some(_) => wrong(at, "a default is plain text: expected `}`, found `{`"),
            None => self.open(),
        }
    }

    fn open<T>(&self) -> Result<T, SyntaxError> {
        wrong(self.start, "`{` without `}`: expected a path such as `{body.name}`; for a brace write `{{`")
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest().chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn until(&mut self, ends: &[char]) -> &'t str {
        let rest = self.rest();
        let taken = &rest[..rest.find(ends).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }
}

/// Checks that a path suits its root. The name of a header may have dots.
fn fit(root: Root, steps: Vec<(usize, Step)>) -> Result<Vec<Step>, SyntaxError> {
    match (root, steps.first()) {
        (Root::Key | Root::Topic | Root::Subject | Root::Scheduled, Some((at, _))) => {
            wrong(*at, format!("`{}` is text: expected `}}` or `|` after it", root.as_str()))
        }
        (Root::Headers, Some(_)) => header_name(&steps).map(|name| vec![Step::Name(name.into())]),
        (Root::Event, Some(_)) => attribute_name(steps).map(|name| vec![Step::Name(name)]),
        _ => Ok(steps.into_iter().map(|(_, step)| step).collect()),
    }
}

fn header_name(steps: &[(usize, Step)]) -> Result<String, SyntaxError> {
    let mut names = Vec::new();
    for (at, step) in steps {
        match step {
            Step::Name(name) => names.push(&**name),
            Step::Place(_) => return wrong(*at, "a header is text: expected `}` or `|` after its name"),
        }
    }
    Ok(names.join("."))
}

fn attribute_name(mut steps: Vec<(usize, Step)>) -> Result<Box<str>, SyntaxError> {
    if let Some((at, _)) = steps.get(1) {
        return match &steps[0].1 {
            Step::Name(name) if **name == *"data" => {
                wrong(steps[0].0, "the data is no attribute: write `{data}` without `event.`")
            }
            _ => wrong(*at, "an attribute is text: expected `}` or `|` after its name"),
        };
    }
    match steps.swap_remove(0) {
        (at, Step::Name(name)) if *name == *"data" => {
            wrong(at, "the data is no attribute: write `{data}` without `event.`")
        }
        (_, Step::Name(name))
            if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) =>
        {
            Ok(name)
        }
        (at, _) => wrong(at, "expected the name of an attribute, which is a-z and 0-9 only"),
    }
}

fn one_of(roots: &[Root]) -> String {
    let names: Vec<&str> = roots.iter().map(|root| root.as_str()).collect();
    match &names[..] {
        [] => "nothing: there are no paths here".into(),
        [name] => format!("`{name}`"),
        [names @ .., last] => format!("`{}` or `{last}`", names.join("`, `")),
    }
}

fn shorten(text: &str) -> String {
    const CHARACTERS_MAX: usize = 40;
    let mut short: String =
        text.chars().take(CHARACTERS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(CHARACTERS_MAX).is_some() {
        short.push('…');
    }
    short
}
