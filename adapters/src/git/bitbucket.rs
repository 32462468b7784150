//! Bitbucket, in the cloud and in a data centre. There is no adapter document: `repo:push` becomes `com.bitbucket.repo.push`.

use super::Mapped;
use crate::look::Look;

const SOURCES: [&str; 6] = [
    "repository.links.html.href",
    "repository.links.self.0.href",
    "pullRequest.toRef.repository.links.self.0.href",
    "repository.links.self.href",
    "project.links.html.href",
    "actor.links.html.href",
];
const REQUEST_SUBJECTS: [&str; 2] = ["pullrequest.id", "pullRequest.id"];
/// What one push changed: the name of a branch or tag that is there now, was there, or as a whole ref (data centre).
const CHANGE_SUBJECTS: [&str; 3] = ["push.changes.0.new.name", "push.changes.0.old.name", "changes.0.ref.id"];
const TIMES: [&str; 7] = [
    "comment.updated_on",
    "pullrequest.updated_on",
    "issue.updated_on",
    "commit_status.updated_on",
    "date",
    "push.changes.0.new.target.date",
    "comment.created_on",
];

pub(super) fn map(key: Option<&str>, look: &Look<'_>) -> Mapped {
    let key = key.unwrap_or("unknown");
    let several = look.has("push.changes.1") || look.has("changes.1");
    let subject = match key.split(':').next() {
        Some("pullrequest" | "pr") => look.first(&REQUEST_SUBJECTS),
        Some("issue") => look.text("issue.id"),
        // A push may change several refs; then no one of them is its subject.
        Some("repo") if !several => look.first(&CHANGE_SUBJECTS),
        Some(_) | None => None,
    };
    let time = match key {
        "repo:push" => None,
        _ => look.first(&TIMES),
    };
    Mapped {
        ty: format!("com.bitbucket.{}", key.replace(':', ".")),
        source: look.first(&SOURCES),
        subject,
        time,
    }
}
