//! From paths to a configuration in force.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::diagnostic::{At, Diagnostic, Errors, Problems, Source, quoted};
use crate::expand::{Env, Expander};
use crate::keys::Keys;
use crate::model::{Config, Trigger};
use crate::sections::{
    check_ports, read_admin, read_dead_letters, read_duplicates, read_http, read_limits,
    read_shutdown_timeout, read_store, warn_of_larger_segments,
};
use crate::show::hash;
use crate::source::read_sources;
use crate::test_case::{Known, Purpose, Test, read_tests};
use crate::tree::{Entry, Node, Value};
use crate::trigger::{Defaults, read_trigger};

pub(crate) const TOP_KEYS: &[&str] = &[
    "http",
    "admin",
    "store",
    "limits",
    "duplicates",
    "dead_letters",
    "shutdown_timeout",
    "defaults",
    "sources",
    "triggers",
    "tests",
];
/// A file `*_test.yaml` has nothing else, so that what `run` leaves out cannot matter to it.
const TEST_FILE_KEYS: &[&str] = &["tests"];

const TESTS_ALONE: &str = "tests of triggers that are in no file named: name the configuration too, or the directory \
    of both, as in `sluice test sluice.yaml`, which takes the `*_test.yaml` beside it";

/// Larger files are refused unread.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// So many files may make up one configuration.
const FILES_MAX: usize = 10_000;

/// A configuration and what came up while it was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Diagnostic>,
    /// Warnings that hold from an instant on, in milliseconds since 1970.
    pub warnings_later: Vec<(i64, Diagnostic)>,
    /// Of the content in normal form, without comments, order and secrets: 16 hexadecimal digits.
    pub hash: String,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
    /// Those whose event is in a file only by `load_with_tests`.
    pub tests: Vec<Test>,
}

/// Reads files and directories as one configuration. A directory stands for its `*.yaml` and `*.yml`, in order of their names,
/// not below and without `*_test.yaml`. `env` looks up environment variables.
pub fn load(paths: &[PathBuf], env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Errors> {
    read_all(paths, Purpose::Run, env)
}

/// Like `load`, with the files `*_test.yaml` of the directories, and of those that the files are in.
pub fn load_with_tests(paths: &[PathBuf], env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Errors> {
    read_all(paths, Purpose::Test, env)
}

fn read_all(paths: &[PathBuf], purpose: Purpose, env: Env<'_>) -> Result<Loaded, Errors> {
    let mut problems = Problems::default();
    let mut files = Vec::new();
    for path in paths {
        find_files(path, &mut files, &mut problems);
    }
    if purpose == Purpose::Test {
        for path in paths {
            find_test_files(path, &mut files);
        }
    }
    if paths.is_empty() {
        problems.file_error("configuration", "no file is named");
    }
    let mut seen = HashSet::new();
    files.retain(|file| std::fs::canonicalize(file).map_or(true, |file| seen.insert(file)));
    files.retain(|file| match read_file(file) {
        Ok(text) => {
            problems.sources.push(Source { name: file.display().to_string(), text });
            true
        }
        Err(Unusable { position, why }) => {
            problems.file_error_at(file.display().to_string(), position, why);
            false
        }
    });
    if purpose == Purpose::Test
        && let Some(file) = files.first().filter(|_| files.iter().all(|file| is_test_file(file)))
    {
        problems.file_error(file.display().to_string(), TESTS_ALONE);
        return Err(problems.into_errors());
    }
    assemble(files, purpose, env, problems)
}

/// Reads one text as if it were the file `name`.
pub fn check_text(name: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Errors> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
    let mut problems = Problems::default();
    problems.sources.push(Source { name: name.to_owned(), text });
    assemble(vec![PathBuf::from(name)], Purpose::Run, env, problems)
}

fn find_files(path: &Path, files: &mut Vec<PathBuf>, problems: &mut Problems) {
    if !path.is_dir() {
        files.push(path.to_owned());
        return;
    }
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            problems.file_error(path.display().to_string(), format!("cannot read the directory: {error}"));
            return;
        }
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| is_configuration(path) && (path.is_file() || is_dangling(path)))
        .collect();
    if found.is_empty() {
        problems.file_error(path.display().to_string(), "the directory has no *.yaml or *.yml file");
    }
    if found.len() > FILES_MAX {
        problems.file_error(path.display().to_string(), format!("more than {FILES_MAX} files"));
        return;
    }
    found.sort();
    files.append(&mut found);
}

/// A link to a file that has gone is read, and so an error: the triggers in it would go missing silently.
fn is_dangling(path: &Path) -> bool {
    path.is_symlink() && !path.exists()
}

fn is_configuration(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let stem = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml"));
    stem.is_some_and(|stem| !stem.ends_with("_test") && !name.starts_with('.'))
}

/// Files with tests in a directory, or beside a file.
fn find_test_files(path: &Path, files: &mut Vec<PathBuf>) {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    // A directory that cannot be read is reported where its configuration is looked for.
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let found = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut found: Vec<PathBuf> =
        found.filter(|path| is_test_file(path) && path.is_file()).take(FILES_MAX).collect();
    found.sort();
    files.append(&mut found);
}

fn is_test_file(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let stem = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml"));
    stem.is_some_and(|stem| stem.ends_with("_test") && !name.starts_with('.'))
}

/// Why a file cannot be read, and where in it as far as that is known: line and column.
struct Unusable {
    position: Option<(usize, usize)>,
    why: String,
}

impl From<String> for Unusable {
    fn from(why: String) -> Self {
        Self { position: None, why }
    }
}

fn read_file(path: &Path) -> Result<String, Unusable> {
    let unreadable = |error: std::io::Error| format!("cannot read the file: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let too_large =
        || format!("larger than {} MiB: split it into several files of one directory", FILE_BYTES_MAX >> 20);
    if file.metadata().map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(too_large().into());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large().into());
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let why = format!("not UTF-8 text: the byte at position {valid} is wrong");
            Err(Unusable { position: Some(end_of(&error.as_bytes()[..valid])), why })
        }
    }
}

/// The line and the column that follow this text.
fn end_of(text: &[u8]) -> (usize, usize) {
    let line = text.iter().filter(|byte| **byte == b'\n').count() + 1;
    let last = text.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    (line, String::from_utf8_lossy(last).chars().count() + 1)
}

fn assemble(
    files: Vec<PathBuf>,
    purpose: Purpose,
    env: Env<'_>,
    mut problems: Problems,
) -> Result<Loaded, Errors> {
    let folders: Vec<PathBuf> =
        files.iter().map(|file| file.parent().map(Path::to_owned).unwrap_or_default()).collect();
    let mut expander = Expander::new(env, folders.clone());
    let mut roots = Vec::new();
    let mut documents = 0;
    for file in 0..files.len() {
        let before = problems.has_errors();
        let root = crate::tree::read(file, &mut problems);
        // An editor or a script that has begun to write it must not take away what it holds.
        if root.is_none() && problems.sources[file].text.trim_ascii().is_empty() {
            let name = problems.sources[file].name.clone();
            problems.file_error(name, "the file is empty");
        }
        documents += usize::from(root.is_some() || problems.has_errors() != before);
        roots.extend(root);
    }
    if documents == 0 && !problems.has_errors() {
        let name = files.first().map_or("configuration".into(), |file| file.display().to_string());
        problems.file_error(name, "the file is empty");
    }
    for root in &mut roots {
        if let Value::Map(entries) = &mut root.value {
            for entry in entries.iter_mut().filter(|entry| !entry.key.starts_with("x-")) {
                expander.expand(&mut entry.value, &mut problems);
            }
        }
    }
    let merged = Merged::of(&roots, &files, &mut problems);
    let config = merged.read(&folders, &mut problems);
    let tests = merged.read_tests(&folders, purpose, &mut problems);
    if problems.has_errors() {
        return Err(problems.into_errors());
    }
    let hash = hash(&config);
    let (warnings, warnings_later) = problems.into_warnings();
    Ok(Loaded { config, warnings, warnings_later, hash, files, tests })
}

/// All files put together.
#[derive(Default)]
struct Merged<'n> {
    sections: HashMap<&'n str, &'n Entry>,
    sources: Vec<&'n Entry>,
    triggers: Vec<&'n Entry>,
    tests: Vec<&'n Node>,
}

impl<'n> Merged<'n> {
    fn of(roots: &'n [Node], files: &[PathBuf], problems: &mut Problems) -> Self {
        let mut merged = Self::default();
        let (mut sources, mut triggers) = (HashMap::new(), HashMap::new());
        for root in roots {
            let is_test_file = files.get(root.at.file).is_some_and(|file| is_test_file(file));
            let (what, known) =
                if is_test_file { ("a test file", TEST_FILE_KEYS) } else { ("the file", TOP_KEYS) };
            if Keys::of(root, what, known, problems).is_none() {
                continue;
            }
            let Value::Map(entries) = &root.value else { continue };
            for entry in entries.iter().filter(|entry| known.contains(&entry.key.as_str())) {
                match entry.key.as_str() {
                    "tests" => merged.tests.push(&entry.value),
                    "sources" => {
                        add_named(entry, "source", &mut merged.sources, &mut sources, problems);
                    }
                    "triggers" => {
                        add_named(entry, "trigger", &mut merged.triggers, &mut triggers, problems);
                    }
                    key => merged.add_section(key, entry, problems),
                }
            }
        }
        merged
    }

    fn add_section(&mut self, key: &'n str, entry: &'n Entry, problems: &mut Problems) {
        match self.sections.get(key) {
            Some(first) => {
                let first = problems.named(first.key_at);
                problems.error(entry.key_at, format!("`{key}` is already defined at {first}"));
            }
            None => {
                self.sections.insert(key, entry);
            }
        }
    }

    fn read(&self, folders: &[PathBuf], problems: &mut Problems) -> Config {
        let section = |key: &str| self.sections.get(key).map(|entry| &entry.value);
        let folder = folders.first().cloned().unwrap_or_default();
        let http = read_http(section("http"), problems);
        let admin = read_admin(section("admin"), problems);
        let listeners = self.sections.get("admin").or_else(|| self.sections.get("http"));
        check_ports(&http, &admin, listeners.map(|entry| entry.key_at), problems);
        let defaults =
            section("defaults").map(|node| Defaults::read(node, folders, problems)).unwrap_or_default();
        let limits = read_limits(section("limits"), problems);
        let config = Config {
            http,
            admin,
            store: read_store(section("store"), folders, &folder, problems),
            limits,
            duplicates: read_duplicates(section("duplicates"), problems),
            dead_letters_age: read_dead_letters(section("dead_letters"), problems),
            shutdown_timeout: read_shutdown_timeout(section("shutdown_timeout"), problems),
            sources: read_sources(&self.sources, &limits, folders, problems),
            triggers: self.read_triggers(&defaults, folders, problems),
        };
        warn_of_larger_segments(section("store"), &config, problems);
        config
    }

    fn read_tests(&self, folders: &[PathBuf], purpose: Purpose, problems: &mut Problems) -> Vec<Test> {
        let names = |entries: &[&'n Entry]| entries.iter().map(|entry| entry.key.as_str()).collect();
        let known =
            Known { triggers: names(&self.triggers), sources: names(&self.sources), folders, purpose };
        self.tests.iter().flat_map(|node| read_tests(node, &known, problems)).collect()
    }

    fn read_triggers(
        &self,
        defaults: &Defaults,
        folders: &[PathBuf],
        problems: &mut Problems,
    ) -> BTreeMap<String, Trigger> {
        // Also those that are wrong: what they are called is known.
        let sources: Vec<&str> = self.sources.iter().map(|entry| entry.key.as_str()).collect();
        let read = |entry: &&Entry| {
            let trigger = read_trigger(entry, defaults, &sources, folders, problems)?;
            Some((entry.key.clone(), trigger))
        };
        self.triggers.iter().filter_map(read).collect()
    }
}

/// Adds what one file has of `sources` or `triggers`.
fn add_named<'n>(
    section: &'n Entry,
    kind: &str,
    entries: &mut Vec<&'n Entry>,
    names: &mut HashMap<&'n str, At>,
    problems: &mut Problems,
) {
    let node = &section.value;
    let Value::Map(named) = &node.value else {
        if !node.is_null() {
            let key = &section.key;
            let message = format!("`{key}`: expected names with {key}, found {}", node.kind());
            problems.error(node.at, message);
        }
        return;
    };
    for entry in named {
        match names.get(entry.key.as_str()) {
            Some(first) => {
                let first = problems.named(*first);
                let message = format!("{kind} {} is already defined at {first}", quoted(&entry.key));
                problems.error(entry.key_at, message);
            }
            None => {
                names.insert(&entry.key, entry.key_at);
                entries.push(entry);
            }
        }
    }
}
