//! GitLab (CloudEvents adapter document for GitLab).

use super::{Mapped, or_unknown};
use crate::look::Look;

const PREFIX: &str = "com.gitlab";
const SOURCES: [&str; 4] =
    ["repository.homepage", "project.web_url", "project.homepage", "object_attributes.url"];

pub(super) fn map(header: Option<&str>, look: &Look<'_>) -> Mapped {
    let named = look.first(&["object_kind", "event_name", "event_type"]);
    let kind = named.or_else(|| header.map(from_header));
    let kind = kind.as_deref();
    let with = |detail: Option<String>| {
        let ty = or_unknown(PREFIX, kind);
        detail.map_or(ty.clone(), |detail| format!("{ty}.{detail}"))
    };
    let text = |path| look.text(path);
    let (ty, source, subject) = match kind {
        Some("push") => (with(None), None, look.first(&["checkout_sha", "after"])),
        Some("tag_push") => (with(None), None, text("ref")),
        Some("issue" | "work_item" | "confidential_issue") => {
            (with(text("object_attributes.state")), None, text("object_attributes.iid"))
        }
        Some("note" | "confidential_note") => note(look),
        Some("merge_request") => {
            (with(text("object_attributes.action")), None, text("object_attributes.iid"))
        }
        Some("wiki_page") => {
            let detail = text("object_attributes.action");
            (with(detail), text("project.web_url"), text("object_attributes.slug"))
        }
        Some("pipeline") => {
            let detail = text("object_attributes.status");
            (with(detail), text("project.web_url"), text("object_attributes.id"))
        }
        // What the document calls `job` is `build` on the wire.
        Some("job" | "build") => {
            let status = look.first(&["job_status", "build_status"]);
            let ty = status.map_or("com.gitlab.job".into(), |status| format!("com.gitlab.job.{status}"));
            (ty, None, look.first(&["job_id", "build_id"]))
        }
        Some(_) | None => {
            let detail = look.first(&["action", "object_attributes.action"]);
            (with(detail), None, look.first(&["object_attributes.iid", "object_attributes.id", "ref"]))
        }
    };
    let time = match kind {
        Some("note" | "confidential_note" | "merge_request") => text("object_attributes.created_at"),
        Some(_) | None => None,
    };
    Mapped { ty, source: source.or_else(|| look.first(&SOURCES)), subject, time }
}

/// A comment: on a commit, a merge request, an issue or a snippet.
fn note(look: &Look<'_>) -> (String, Option<String>, Option<String>) {
    let about = match look.text("object_attributes.noteable_type").as_deref() {
        Some("Commit") => Some("commit"),
        Some("MergeRequest") => Some("merge_request"),
        Some("Issue") => Some("issue"),
        Some("Snippet") => Some("snippet"),
        Some(_) | None => {
            ["commit", "merge_request", "issue", "snippet"].into_iter().find(|name| look.has(name))
        }
    };
    let url = look.text("object_attributes.url");
    let page = url.map(|url| url.split_once("#note_").map_or(url.clone(), |(page, _)| page.to_owned()));
    let source = if about == Some("commit") { look.text("commit.url").or(page) } else { page };
    let ty = about.map_or("com.gitlab.note".into(), |about| format!("com.gitlab.note.{about}"));
    (ty, source, look.text("object_attributes.id"))
}

/// `Push Hook` names what `object_kind` would call `push`.
fn from_header(header: &str) -> String {
    header.trim_end_matches(" Hook").to_ascii_lowercase().replace(' ', "_")
}
