//! `${NAME}` and `${file:PATH}`: expanded once, in the values of the finished tree, so that what comes from outside can neither
//! change the structure nor be expanded again.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::diagnostic::{At, Problems, quoted};
use crate::tree::{Node, Scalar, Value};

const SECRET_BYTES_MAX: u64 = 64 << 10;
/// All references of a configuration together.
const EXPANDED_BYTES_MAX: usize = 16 << 20;

/// Looks up an environment variable.
pub(crate) type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

pub(crate) struct Expander<'e> {
    env: Env<'e>,
    /// Per file, what relative paths are relative to.
    folders: Vec<PathBuf>,
    /// A secret is read once however many triggers name it, so that all see the same.
    files: HashMap<PathBuf, Result<Contents, String>>,
    expanded_bytes: usize,
}

struct Contents {
    text: String,
    /// Everyone on the machine may read the file.
    open_to_all: bool,
}

/// A reference that cannot be expanded: how it reads and why.
struct Failure {
    reference: String,
    why: String,
}

impl<'e> Expander<'e> {
    pub fn new(env: Env<'e>, folders: Vec<PathBuf>) -> Self {
        Self { env, folders, files: HashMap::new(), expanded_bytes: 0 }
    }

    /// Expands all values of the tree. Keys stay as they are.
    pub fn expand(&mut self, node: &mut Node, problems: &mut Problems) {
        match &mut node.value {
            Value::Scalar(scalar) => self.expand_scalar(scalar, node.at, problems),
            Value::List(items) => items.iter_mut().for_each(|item| self.expand(item, problems)),
            Value::Map(entries) => {
                entries.iter_mut().for_each(|entry| self.expand(&mut entry.value, problems));
            }
        }
    }

    fn expand_scalar(&mut self, scalar: &mut Scalar, at: At, problems: &mut Problems) {
        if !scalar.text.contains("${") {
            return;
        }
        match self.expanded(&scalar.text, at, problems) {
            Ok((text, references)) => {
                let before = std::mem::replace(&mut scalar.text, text);
                if references > 0 {
                    scalar.reference = Some(before);
                }
            }
            Err(Failure { reference, why }) => {
                problems
                    .error(place_within(at, &reference, problems), format!("{}: {why}", quoted(&reference)));
                // What follows is told that the value is a reference, and does not complain about it as well.
                scalar.reference = Some(std::mem::take(&mut scalar.text));
            }
        }
    }

    fn expanded(&mut self, text: &str, at: At, problems: &mut Problems) -> Result<(String, usize), Failure> {
        let (mut done, mut rest, mut references) = (String::new(), text, 0);
        while let Some(start) = rest.find("${") {
            let (before, from) = rest.split_at(start);
            if let Some(before) = before.strip_suffix('$') {
                done.push_str(before);
                done.push_str("${");
                rest = &from[2..];
                continue;
            }
            done.push_str(before);
            let end = from[2..].find('}').map(|end| end + 2);
            let inner = end.map_or(&from[2..], |end| &from[2..end]);
            let reference = end.map_or(from, |end| &from[..=end]);
            let failure = |why: String| Failure { reference: reference.to_owned(), why };
            let Some(end) = end else {
                return Err(failure("the closing `}` is missing; `$${` stands for a literal `${`".into()));
            };
            let value = self.value_of(inner, reference, at, problems).map_err(failure)?;
            self.expanded_bytes += value.len();
            if self.expanded_bytes > EXPANDED_BYTES_MAX {
                let mebibytes = EXPANDED_BYTES_MAX >> 20;
                return Err(failure(format!("all references together stand for more than {mebibytes} MiB")));
            }
            done.push_str(&value);
            references += 1;
            rest = &from[end + 1..];
        }
        done.push_str(rest);
        Ok((done, references))
    }

    fn value_of(
        &mut self,
        name: &str,
        reference: &str,
        at: At,
        problems: &mut Problems,
    ) -> Result<String, String> {
        if let Some(path) = name.strip_prefix("file:") {
            return self.file_value(path, reference, at, problems);
        }
        if name.contains("${") {
            return Err("a reference cannot stand inside another".into());
        }
        if let Some((before, _)) = name.split_once(":-") {
            return Err(format!("there are no default values: set `{before}`, or write the value itself"));
        }
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts_well || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err("expected ${NAME} or ${file:PATH}; `$${` stands for a literal `${`".into());
        }
        match (self.env)(name) {
            None => Err(format!("the environment variable `{name}` is not set")),
            Some(value) if value.is_empty() => Err(format!("the environment variable `{name}` is empty")),
            Some(value) => Ok(value),
        }
    }

    fn file_value(
        &mut self,
        path: &str,
        reference: &str,
        at: At,
        problems: &mut Problems,
    ) -> Result<String, String> {
        if path.is_empty() {
            return Err("the path is missing".into());
        }
        let path = self.folders[at.file].join(path);
        let contents = self.files.entry(path.clone()).or_insert_with(|| read_secret(&path));
        let contents = contents.as_mut().map_err(|why| why.clone())?;
        // Said once for each file.
        if std::mem::take(&mut contents.open_to_all) {
            let message = format!("every user of this machine can read `{}`: chmod o-r", path.display());
            problems.warning(place_within(at, reference, problems), message);
        }
        Ok(contents.text.clone())
    }
}

fn read_secret(path: &Path) -> Result<Contents, String> {
    let unreadable = |error: std::io::Error| format!("cannot read `{}`: {error}", path.display());
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!("`{}` is larger than {} KiB", path.display(), SECRET_BYTES_MAX >> 10));
    }
    let Ok(mut text) = String::from_utf8(bytes) else {
        return Err(format!("`{}` is not UTF-8", path.display()));
    };
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err(format!("`{}` is empty", path.display()));
    }
    Ok(Contents { text, open_to_all: is_open_to_all(&metadata) })
}

#[cfg(unix)]
fn is_open_to_all(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o004 != 0
}

#[cfg(not(unix))]
fn is_open_to_all(_: &std::fs::Metadata) -> bool {
    false
}

/// Where a reference stands inside its scalar, as far as it is on the scalar's first line.
fn place_within(at: At, reference: &str, problems: &Problems) -> At {
    // Searching a long line a hundred thousand times would take half a minute.
    if problems.is_full() {
        return at;
    }
    let rest = problems.rest_of_line(at);
    match rest.find(reference) {
        Some(offset) => {
            let column = at.column + rest[..offset].chars().count();
            At { column, length: reference.chars().count(), ..at }
        }
        None => at,
    }
}
