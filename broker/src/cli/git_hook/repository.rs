//! Asking git about a repository, within bounds of time and size.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sluice_adapters::git::push::{Commit, Detail, RefUpdate};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::{Instant, timeout, timeout_at};

use crate::cli::Error;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// For all that is asked about the refs of one push; those it does not reach are told without commits.
const DETAIL_TIMEOUT: Duration = Duration::from_secs(5);
/// Refs of one push whose commits are listed.
const REFS_DETAILED_MAX: usize = 64;
/// Names of refs in one command line; the system has a bound, too.
const PATTERNS_BYTES_MAX: usize = 256 << 10;
/// What one list of commits may have, messages included.
const COMMITS_BYTES_MAX: usize = 4 << 20;
/// Of a commit in the list: id, name, address, time, message.
const COMMIT_FIELDS: usize = 5;

/// A git command that reads no configuration of users or of the system, asks nobody and fetches nothing.
fn git() -> Command {
    let mut command = Command::new("git");
    command.env_clear();
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.env("LC_ALL", "C").env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0");
    command.env("GIT_ALLOW_PROTOCOL", "none").env("GIT_NO_LAZY_FETCH", "1");
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command
}

/// The hooks directory of a repository: `core.hooksPath`, if that is set, also by the user or the system.
pub async fn hooks_dir(repository: &Path) -> Result<PathBuf, Error> {
    let mut command = Command::new("git");
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR"] {
        command.env_remove(name);
    }
    command.arg("-C").arg(repository);
    command.args(["rev-parse", "--path-format=absolute", "--git-path", "hooks"]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let what = || format!("cannot ask git about {}", repository.display());
    let output = match timeout(ANSWER_TIMEOUT, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(Error::failed_because(what(), error)),
        Err(elapsed) => return Err(Error::failed_because(what(), elapsed)),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("fatal: ").to_owned();
        return Err(Error::failed(format!("{} is no git repository: {said}", repository.display())));
    }
    let path = output.stdout.strip_suffix(b"\n").unwrap_or(&output.stdout);
    Ok(PathBuf::from(OsStr::from_bytes(path)))
}

/// The repository that a hook runs in.
pub struct Repository {
    pub git_dir: PathBuf,
}

impl Repository {
    /// Git says where it is by `GIT_DIR`; hooks run in that directory.
    pub fn of_hook() -> Result<Self, Error> {
        let named = std::env::var_os("GIT_DIR").unwrap_or_else(|| ".".into());
        let git_dir = std::fs::canonicalize(&named).map_err(|error| {
            Error::failed_because(format!("cannot find the repository {}", named.display()), error)
        })?;
        if !git_dir.join("objects").is_dir() {
            let what = format!("{} is no git directory; this is run by a hook of git", git_dir.display());
            return Err(Error::failed(what));
        }
        Ok(Self { git_dir })
    }

    /// `file:///srv/git/shop.git`; of a repository with a work tree, its path.
    pub fn source(&self) -> String {
        let path = match self.git_dir.file_name() {
            Some(name) if name == ".git" => self.git_dir.parent().unwrap_or(&self.git_dir),
            Some(_) | None => &self.git_dir,
        };
        let mut source = String::from("file://");
        for byte in path.as_os_str().as_bytes() {
            match byte {
                b'/' | b'-' | b'.' | b'_' | b'~' => source.push(char::from(*byte)),
                _ if byte.is_ascii_alphanumeric() => source.push(char::from(*byte)),
                _ => source.push_str(&format!("%{byte:02X}")),
            }
        }
        source
    }

    /// What git knows of each update, as far as the time for it goes.
    pub async fn details(&self, updates: &[RefUpdate], commits_max: usize) -> Vec<Detail> {
        let deadline = Instant::now() + DETAIL_TIMEOUT;
        let mut details = Vec::with_capacity(updates.len());
        for (index, update) in updates.iter().enumerate() {
            let unknown = Detail { has_more: update.new.is_some(), ..Detail::default() };
            if index >= REFS_DETAILED_MAX {
                details.push(unknown);
                continue;
            }
            let asked = timeout_at(deadline, self.detail(update, updates, commits_max)).await;
            details.push(asked.unwrap_or(unknown));
        }
        details
    }

    async fn detail(&self, update: &RefUpdate, all: &[RefUpdate], commits_max: usize) -> Detail {
        let Some(new) = &update.new else { return Detail::default() };
        let is_forced = match &update.old {
            Some(old) => self.is_ancestor(old, new).await.map(|is_ancestor| !is_ancestor),
            None => Some(false),
        };
        let listed = self.commits(update, new, all, commits_max + 1).await;
        let Some(mut commits) = listed else { return Detail { is_forced, commits: vec![], has_more: true } };
        let has_more = commits.len() > commits_max;
        commits.truncate(commits_max);
        Detail { is_forced, commits, has_more }
    }

    async fn is_ancestor(&self, old: &str, new: &str) -> Option<bool> {
        let mut command = self.git();
        command.args(["merge-base", "--is-ancestor", old, new]).stdout(Stdio::null());
        match command.status().await.ok()?.code() {
            Some(0) => Some(true),
            Some(1) => Some(false),
            Some(_) | None => None,
        }
    }

    /// Commits that the update brought: of a new ref, those that no ref outside this push had.
    async fn commits(
        &self,
        update: &RefUpdate,
        new: &str,
        all: &[RefUpdate],
        max: usize,
    ) -> Option<Vec<Commit>> {
        let mut command = self.git();
        command.args(["log", "-z", "--no-show-signature", "--encoding=UTF-8", "--no-color", "--no-mailmap"]);
        command.args(["--format=%H%x00%an%x00%ae%x00%aI%x00%B", &format!("--max-count={max}"), new]);
        match &update.old {
            Some(old) => drop(command.arg(format!("^{old}"))),
            None => {
                command.arg("--not");
                let exclude = |update: &RefUpdate| [b"--exclude=", &update.name[..]].concat();
                let patterns: Vec<Vec<u8>> = all.iter().map(exclude).collect();
                if patterns.iter().map(Vec::len).sum::<usize>() > PATTERNS_BYTES_MAX {
                    return None;
                }
                command.args(patterns.iter().map(|pattern| OsStr::from_bytes(pattern)));
                command.arg("--glob=refs/*");
            }
        }
        let mut child = command.arg("--").stdout(Stdio::piped()).spawn().ok()?;
        let mut output = Vec::new();
        let stdout = child.stdout.take()?;
        stdout.take(COMMITS_BYTES_MAX as u64).read_to_end(&mut output).await.ok()?;
        let is_whole = output.len() < COMMITS_BYTES_MAX;
        if is_whole && !child.wait().await.ok()?.success() {
            return None;
        }
        Some(commits(&output))
    }

    fn git(&self) -> Command {
        let mut command = git();
        command.env("GIT_DIR", &self.git_dir).current_dir(&self.git_dir);
        command
    }
}

/// Reads the fields of commits; a last one that is cut off is left out.
fn commits(output: &[u8]) -> Vec<Commit> {
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let fields: Vec<&[u8]> = output.split(|byte| *byte == 0).collect();
    // Each commit ends with a zero byte, so that an empty field follows the last.
    let (whole, _) = fields[..fields.len() - 1].as_chunks::<COMMIT_FIELDS>();
    whole
        .iter()
        .map(|[id, name, email, time, message]| Commit {
            id: text(id),
            author_name: text(name),
            author_email: text(email),
            time: text(time),
            message: text(message).trim_end().to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_read_as_far_as_they_are_whole() {
        let output = b"a1\0Ann\0ann@x\x002026-01-01T00:00:00Z\0one\n\ntwo\n\0b2\0B\xff\0\0\0\0c3\0cut";
        let found = commits(output);
        assert_eq!(found.len(), 2);
        assert_eq!((&*found[0].id, &*found[0].message), ("a1", "one\n\ntwo"));
        assert_eq!((&*found[1].author_name, &*found[1].message), ("B\u{fffd}", ""));
        assert_eq!(commits(b""), []);
    }

    #[test]
    fn the_source_is_a_url_whatever_the_path() {
        let source = |path: &str| Repository { git_dir: path.into() }.source();
        assert_eq!(source("/srv/git/shop.git"), "file:///srv/git/shop.git");
        assert_eq!(source("/home/a b/ü/.git"), "file:///home/a%20b/%C3%BC");
    }
}
