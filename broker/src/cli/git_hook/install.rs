//! Writing the hook.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{COMMITS, Telling, repository};
use crate::cli::Error;
use crate::cli::output::print_bytes;
use crate::cli::publish::endpoint;

const HOOK: &str = "post-receive";
const KEPT: &str = "post-receive.kept";
/// What a hook of ours is known by.
const MARK: &str = "# Written by `sluice git-hook install`";

pub async fn install(repository: &Path, telling: &Telling) -> Result<(), Error> {
    // An address that cannot be right is found now, not at the first push.
    endpoint(&telling.url)?;
    let binary = std::env::current_exe()
        .map_err(|error| Error::failed_because("cannot find the path of this program", error))?;
    let hooks = repository::hooks_dir(repository).await?;
    let hook = hooks.join(HOOK);
    let failed = |error| Error::failed_because(format!("cannot write {}", hook.display()), error);
    fs::create_dir_all(&hooks).map_err(failed)?;
    let script = script(binary.as_os_str(), telling);
    let found = match fs::read(&hook) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let did = match &found {
        Some(found) if *found == script => "is up to date",
        Some(found) if is_ours(found) => "was renewed",
        None => "was written",
        Some(_) => {
            keep(&hooks)?;
            "was written; the one that was there runs after it, as post-receive.kept"
        }
    };
    write(&hooks, &script).map_err(failed)?;
    let line = format!("{} {did}; pushes are told to {}\n", hook.display(), telling.url);
    print_bytes(line.as_bytes())
}

fn is_ours(script: &[u8]) -> bool {
    script.split(|byte| *byte == b'\n').nth(1).is_some_and(|line| line.starts_with(MARK.as_bytes()))
}

/// Gives the hook of somebody else another name.
fn keep(hooks: &Path) -> Result<(), Error> {
    let kept = hooks.join(KEPT);
    if fs::symlink_metadata(&kept).is_ok() {
        let what = format!(
            "{} exists already, and {} is none of Sluice's: make one of the two",
            kept.display(),
            hooks.join(HOOK).display()
        );
        return Err(Error::failed(what));
    }
    let failed = |error| Error::failed_because(format!("cannot keep the hook as {}", kept.display()), error);
    fs::rename(hooks.join(HOOK), &kept).map_err(failed)
}

/// Takes the place of the hook at once: git never finds half of it.
fn write(hooks: &Path, script: &[u8]) -> io::Result<()> {
    let unnamed = hooks.join(format!("{HOOK}.{}.new", std::process::id()));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o755).open(&unnamed)?;
    file.write_all(script)?;
    file.sync_all()?;
    fs::rename(&unnamed, hooks.join(HOOK))
}

/// The updates go to the broker first: a kept hook may take its time. Its exit code is the hook's.
fn script(binary: &OsStr, telling: &Telling) -> Vec<u8> {
    let mut arguments: Vec<OsString> = vec!["--url".into(), telling.url.clone().into()];
    if let Some(source) = &telling.source {
        arguments.extend(["--source".into(), source.clone().into()]);
    }
    if telling.commits != COMMITS {
        arguments.extend(["--commits".into(), telling.commits.to_string().into()]);
    }
    let arguments: Vec<Vec<u8>> = arguments.into_iter().map(|text| quoted(&text.into_vec())).collect();
    let mut script =
        format!("#!/bin/sh\n{MARK}, which may be run again: it replaces this file.\nsluice=").into_bytes();
    script.extend(quoted(binary.as_bytes()));
    script.extend_from_slice(
        b"
kept=\"${0%/*}/post-receive.kept\"
updates=$(cat)
status=0
if [ -x \"$sluice\" ]; then
    printf '%s\\n' \"$updates\" | \"$sluice\" git-hook post-receive ",
    );
    script.extend(arguments.join(&b' '));
    script.extend_from_slice(
        b" || status=$?
else
    printf 'sluice: there is no %s; nobody is told of this push\\n' \"$sluice\" >&2
fi
if [ -x \"$kept\" ]; then
    printf '%s\\n' \"$updates\" | \"$kept\" \"$@\"
    status=$?
fi
exit \"$status\"
",
    );
    script
}

/// One word to a shell, whatever is in it.
fn quoted(text: &[u8]) -> Vec<u8> {
    let mut word = vec![b'\''];
    for byte in text {
        match byte {
            b'\'' => word.extend_from_slice(b"'\\''"),
            _ => word.push(*byte),
        }
    }
    word.push(b'\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_whatever_is_in_it() {
        for text in ["plain", "with space", "it's", "$(reboot) `id` \"x\" \\ \n ; * --", "'", ""] {
            let script = [b"printf %s ", &quoted(text.as_bytes())[..]].concat();
            let output = std::process::Command::new("sh")
                .arg("-c")
                .arg(OsStr::from_bytes(&script))
                .output()
                .expect("there is a shell");
            assert_eq!(output.stdout, text.as_bytes());
        }
    }

    #[test]
    fn a_hook_of_ours_is_known_by_its_second_line() {
        let telling = Telling { url: "http://b/events".into(), source: None, commits: COMMITS };
        assert!(is_ours(&script(OsStr::new("/usr/bin/sluice"), &telling)));
        assert!(!is_ours(b"#!/bin/sh\necho hello\n"));
        assert!(!is_ours(b""));
    }
}
