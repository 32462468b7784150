//! What a `post-receive` hook of plain git is told, as events: one for each ref.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sluice_language::Draft;
use sluice_schemas::{Event, Invalid};

use super::instant;

/// What a message and a name of an author may have, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
const NAME_BYTES_MAX: usize = 256;

/// A line `OLD SP NEW SP REF` of a hook's standard input (githooks, `post-receive`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefUpdate {
    /// `None` for a ref that was created: an id of zeros.
    pub old: Option<String>,
    /// `None` for a ref that was deleted.
    pub new: Option<String>,
    /// Git has no encoding for it.
    pub name: Vec<u8>,
}

/// What is known besides of an update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Whether the old commit is no ancestor of the new one; `None` when it could not be found out.
    pub is_forced: Option<bool>,
    /// The newest first.
    pub commits: Vec<Commit>,
    /// There are more commits, or it was not found out which.
    pub has_more: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub id: String,
    pub author_name: String,
    pub author_email: String,
    /// RFC 3339.
    pub time: String,
    pub message: String,
}

impl RefUpdate {
    /// `None` for what is no such line.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(3, |byte| *byte == b' ');
        let (old, new, name) = (fields.next()?, fields.next()?, fields.next()?);
        let is_name = !name.is_empty() && !name.iter().any(u8::is_ascii_control);
        is_name.then_some(Self { old: object_id(old)?, new: object_id(new)?, name: name.to_vec() })
    }

    /// The same update at its `occurrence`-th turn has the same id wherever it is computed.
    fn id(&self, source: &str, occurrence: u64) -> String {
        let zeros = String::new();
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let occurrence = occurrence.to_string();
        let (old, new) = (self.old.as_ref().unwrap_or(&zeros), self.new.as_ref().unwrap_or(&zeros));
        for part in [source.as_bytes(), old.as_bytes(), new.as_bytes(), occurrence.as_bytes(), &self.name] {
            // With lengths, no two lists of parts are the same bytes.
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        context.finish().as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing into a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// `Some(None)` for zeros, `None` for what is no id in SHA-1 or SHA-256.
fn object_id(text: &[u8]) -> Option<Option<String>> {
    let is_hex =
        matches!(text.len(), 40 | 64) && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let text = std::str::from_utf8(text).ok().filter(|_| is_hex)?;
    Some((!text.bytes().all(|byte| byte == b'0')).then(|| text.to_owned()))
}

/// The event of an update. Its id follows from the repository, the ref and both ids, so that the broker knows it when it is
/// sent again; `occurrence` tells apart the turns of a ref that goes back and forth.
pub fn event(
    source: &str,
    update: &RefUpdate,
    occurrence: u64,
    detail: &Detail,
    now_ms: i64,
) -> Result<Event, Invalid> {
    let change = match (&update.old, &update.new, detail.is_forced) {
        (_, None, _) => "deleted",
        (None, Some(_), _) => "created",
        (Some(_), Some(_), Some(true)) => "forced",
        (Some(_), Some(_), _) => "updated",
    };
    let name = String::from_utf8_lossy(&update.name);
    let subject: String = name.chars().map(visible).collect();
    let draft = Draft::default()
        .attribute("id", &update.id(source, occurrence))
        .attribute("source", source)
        .attribute("type", &format!("sluice.git.{change}"))
        .attribute("subject", &subject)
        .maybe("time", instant::of_millisecond(now_ms).as_deref())
        .attribute("datacontenttype", "application/json");
    draft.data(data(update, &name, detail).to_string()).build()
}

fn data(update: &RefUpdate, name: &str, detail: &Detail) -> Value {
    let (kind, short) = match (name.strip_prefix("refs/heads/"), name.strip_prefix("refs/tags/")) {
        (Some(short), _) => ("branch", short),
        (None, Some(short)) => ("tag", short),
        (None, None) => ("other", name),
    };
    let mut data = json!({
        "ref": name, "kind": kind, "name": short, "old": update.old, "new": update.new,
        "forced": if update.old.is_some() && update.new.is_some() { json!(detail.is_forced) } else { json!(false) },
        "commits": detail.commits.iter().map(commit).collect::<Vec<_>>(),
        "more_commits": detail.has_more,
    });
    if let (Err(_), Some(members)) = (std::str::from_utf8(&update.name), data.as_object_mut()) {
        use base64::Engine as _;
        let exact = base64::prelude::BASE64_STANDARD.encode(&update.name);
        members.insert("ref_base64".into(), exact.into());
    }
    data
}

fn commit(commit: &Commit) -> Value {
    json!({
        "id": commit.id, "time": commit.time, "message": cut(&commit.message, MESSAGE_BYTES_MAX),
        "author": { "name": cut(&commit.author_name, NAME_BYTES_MAX), "email": cut(&commit.author_email, NAME_BYTES_MAX) },
    })
}

/// As much as fits, with a sign that something is missing.
fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

fn visible(c: char) -> char {
    let is_noncharacter = matches!(c, '\u{FDD0}'..='\u{FDEF}') || (c as u32) & 0xFFFE == 0xFFFE;
    if c.is_control() || is_noncharacter { char::REPLACEMENT_CHARACTER } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "1111111111111111111111111111111111111111";
    const NEW: &str = "2222222222222222222222222222222222222222";
    const ZEROS: &str = "0000000000000000000000000000000000000000";

    fn update(old: &str, new: &str, name: &str) -> RefUpdate {
        RefUpdate::parse(format!("{old} {new} {name}").as_bytes()).expect("a line of git")
    }

    fn shown(update: &RefUpdate, detail: &Detail) -> String {
        let event = event("file:///srv/r.git", update, 0, detail, 1_700_000_000_000).expect("valid");
        let data = event.data().expect("data").bytes.clone();
        let data: Value = serde_json::from_slice(&data).expect("JSON");
        format!("{} {} forced={}", event.ty(), event.subject().unwrap_or("-"), data["forced"])
    }

    #[test]
    fn lines_are_read_and_anything_else_is_not() {
        let long = "a".repeat(64);
        assert_eq!(
            RefUpdate::parse(format!("{ZEROS} {long} refs/heads/a b").as_bytes()),
            Some(RefUpdate { old: None, new: Some(long), name: b"refs/heads/a b".to_vec() })
        );
        for line in [
            "",
            "refs/heads/main",
            &format!("{OLD} {NEW}"),
            &format!("{OLD} {NEW} "),
            &format!("{OLD}  {NEW} refs/heads/main"),
            &format!("{} {NEW} refs/heads/main", &OLD[1..]),
            &format!("--output=/tmp/x {NEW} refs/heads/main"),
            &format!("{OLD} {} refs/heads/main", "Z".repeat(40)),
            &format!("{OLD} {NEW} refs/heads/a\u{1b}[31m"),
        ] {
            assert_eq!(RefUpdate::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn the_type_says_what_happened() {
        let with = |is_forced| Detail { is_forced, ..Detail::default() };
        let main = "refs/heads/main";
        for (update, detail, expected) in [
            (update(ZEROS, NEW, main), with(None), "sluice.git.created refs/heads/main forced=false"),
            (update(OLD, NEW, main), with(Some(false)), "sluice.git.updated refs/heads/main forced=false"),
            (update(OLD, NEW, main), with(Some(true)), "sluice.git.forced refs/heads/main forced=true"),
            (update(OLD, NEW, main), with(None), "sluice.git.updated refs/heads/main forced=null"),
            (update(OLD, ZEROS, main), with(None), "sluice.git.deleted refs/heads/main forced=false"),
        ] {
            assert_eq!(shown(&update, &detail), expected);
        }
    }

    #[test]
    fn an_id_follows_from_repository_ref_and_ids() {
        let id = |source, update: &RefUpdate, occurrence| {
            let detail = Detail::default();
            event(source, update, occurrence, &detail, 0).expect("valid").id().to_owned()
        };
        let base = update(OLD, NEW, "refs/heads/main");
        let first = id("/a", &base, 0);
        assert_eq!(first, id("/a", &base, 0));
        for (source, other, occurrence) in [
            ("/b", base.clone(), 0),
            ("/a", base.clone(), 1),
            ("/a", update(NEW, OLD, "refs/heads/main"), 0),
            ("/a", update(OLD, NEW, "refs/heads/mai"), 0),
            ("/a", update(ZEROS, NEW, "refs/heads/main"), 0),
        ] {
            assert_ne!(first, id(source, &other, occurrence));
        }
    }

    #[test]
    fn a_ref_and_a_message_are_data_whatever_is_in_them() {
        let odd = update(ZEROS, NEW, "refs/tags/--upload-pack=$(reboot);id 'x'");
        let detail = Detail {
            commits: vec![Commit {
                id: NEW.into(),
                author_name: "é".repeat(200),
                author_email: "a@b".into(),
                time: "2026-01-01T00:00:00Z".into(),
                message: format!("one\n\ntwo \u{1b}[31m{}", "x".repeat(MESSAGE_BYTES_MAX)),
            }],
            ..Detail::default()
        };
        let event = event("/r", &odd, 0, &detail, 0).expect("valid");
        let data: Value = serde_json::from_slice(&event.data().expect("data").bytes).expect("JSON");
        assert_eq!(data["ref"], "refs/tags/--upload-pack=$(reboot);id 'x'");
        assert_eq!((&data["kind"], &data["name"]), (&json!("tag"), &json!("--upload-pack=$(reboot);id 'x'")));
        let commit = &data["commits"][0];
        assert!(commit["message"].as_str().expect("text").starts_with("one\n\ntwo \u{1b}[31mxxx"));
        assert_eq!(commit["message"].as_str().map(str::len), Some(MESSAGE_BYTES_MAX + '…'.len_utf8()));
        assert_eq!(commit["author"]["name"], format!("{}…", "é".repeat(128)));
    }

    #[test]
    fn a_ref_that_is_no_utf_8_is_there_in_base64_too() {
        let line = [ZEROS.as_bytes(), b" ", NEW.as_bytes(), b" refs/heads/\xff"].concat();
        let update = RefUpdate::parse(&line).expect("a line of git");
        let event = event("/r", &update, 0, &Detail::default(), 0).expect("valid");
        assert_eq!(event.subject(), Some("refs/heads/\u{fffd}"));
        let data: Value = serde_json::from_slice(&event.data().expect("data").bytes).expect("JSON");
        assert_eq!(data["ref_base64"], "cmVmcy9oZWFkcy//");
    }
}
