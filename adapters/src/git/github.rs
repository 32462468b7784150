//! GitHub (CloudEvents adapter document for GitHub), and the hosts whose payloads follow it.

use super::{Mapped, or_unknown};
use crate::look::Look;

/// Where an event has its attributes. Several paths are tried in turn; what has no row has its repository as source.
struct Row {
    event: &'static str,
    source: Source,
    subject: &'static [&'static str],
    time: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum Source {
    Repository,
    Owner,
    /// A path of its own.
    At(&'static str),
    /// The comment's URL and the commit it is about.
    CommitComment,
    /// The sender's URL without the name.
    Marketplace,
    Fixed(&'static str),
}

use Source::{At, CommitComment, Fixed, Marketplace, Owner, Repository};

const fn row(
    event: &'static str,
    source: Source,
    subject: &'static [&'static str],
    time: &'static [&'static str],
) -> Row {
    Row { event, source, subject, time }
}

const REVIEWED: Source = At("pull_request.url");
const DEPLOYED: Source = At("deployment.url");
const INSTALLED: Source = At("installation.account.url");
const ALERT_TIME: &[&str] = &["alert.updated_at", "alert.created_at"];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("branch_protection_rule", Repository, &["rule.id"], &["rule.updated_at"]),
    row("check_run", Repository, &["check_run.id"], &["check_run.completed_at", "check_run.started_at"]),
    row("check_suite", Repository, &["check_suite.id"], &["check_suite.updated_at"]),
    row("code_scanning_alert", Repository, &["alert.number"], &[]),
    row("commit_comment", CommitComment, &["comment.id"], &["comment.updated_at"]),
    row("content_reference", Repository, &["content_reference.id"], &[]),
    row("create", Repository, &["ref"], &[]),
    row("custom_property", At("organization.url"), &["definition.property_name"], &[]),
    row("delete", Repository, &["ref"], &[]),
    row("dependabot_alert", Repository, &["alert.id", "alert.number"], &[]),
    row("deploy_key", Repository, &["key.id"], &["key.deleted_at", "key.created_at"]),
    row("deployment", Repository, &["deployment.id"], &["deployment.updated_at"]),
    row("deployment_protection_rule", DEPLOYED, &["deployment.id"], &[]),
    row("deployment_review", DEPLOYED, &["workflow_run.id"], &[]),
    row("deployment_status", DEPLOYED, &["deployment_status.url"], &["deployment_status.updated_at"]),
    row("discussion", Repository, &["discussion.id"], &[]),
    row("discussion_comment", Repository, &["discussion.id"], &["comment.updated_at"]),
    row("fork", Repository, &["forkee.url"], &["forkee.created_at"]),
    row("github_app_authorization", At("sender.url"), &[], &[]),
    row("installation", INSTALLED, &["installation.id"], &["installation.updated_at"]),
    row("installation_repositories", INSTALLED, &["installation.id"], &["installation.updated_at"]),
    row("installation_target", At("account.url"), &["installation.id"], &[]),
    row("issue_comment", At("issue.url"), &["comment.id"], &["comment.updated_at"]),
    row("issues", Repository, &["issue.number"], &["issue.updated_at"]),
    row("label", Repository, &["label.name"], &[]),
    row("marketplace_purchase", Marketplace, &["marketplace_purchase.account.login"], &["effective_date"]),
    row("member", Repository, &["member.login"], &[]),
    row("membership", At("team.url"), &["member.login"], &[]),
    row("merge_group", Repository, &["merge_group.head_ref"], &[]),
    row("meta", Repository, &["hook_id"], &["hook.updated_at"]),
    row("milestone", Repository, &["milestone.number"], &["milestone.updated_at"]),
    row("org_block", At("organization.url"), &["blocked_user.login"], &[]),
    row("organization", At("organization.url"), &["membership.user.login"], &[]),
    row("package", Repository, &["package.id"], &["package.updated_at", "package.created_at"]),
    row("page_build", Repository, &["build.url"], &["pusher.updated_at"]),
    row("ping", Repository, &["hook_id"], &["hook.updated_at"]),
    row("project", Repository, &["project.id"], &["project.updated_at"]),
    row("project_card", Repository, &["project_card.id"], &["project_card.updated_at"]),
    row("project_column", Repository, &["project_column.id"], &["project_column.updated_at"]),
    row("projects_v2", Repository, &["projects_v2.id"], &["projects_v2.updated_at"]),
    row("projects_v2_item", Repository, &["projects_v2_item.id"], &["projects_v2_item.updated_at"]),
    row("projects_v2_status_update", Repository, &["projects_v2_status_update.id"], &["projects_v2_status_update.updated_at"]),
    row("public", Owner, &["repository.name"], &["repository.updated_at"]),
    row("pull_request", Repository, &["number", "pull_request.number"], &["pull_request.updated_at"]),
    row("pull_request_review", REVIEWED, &["review.id"], &["review.submitted_at"]),
    row("pull_request_review_comment", REVIEWED, &["comment.id"], &["pull_request.updated_at"]),
    row("pull_request_review_thread", REVIEWED, &["pull_request.id"], &[]),
    row("push", Repository, &["ref"], &[]),
    row("registry_package", Repository, &["registry_package.html_url"], &["registry_package.updated_at"]),
    row("release", Repository, &["release.id"], &[]),
    row("repository", Owner, &["repository.name"], &["repository.updated_at"]),
    row("repository_advisory", Repository, &["repository_advisory.ghsa_id"], &["repository_advisory.updated_at"]),
    row("repository_dispatch", Owner, &[], &[]),
    row("repository_import", Owner, &["repository.name"], &["repository.updated_at"]),
    row("repository_ruleset", Owner, &["repository.name"], &["repository.updated_at"]),
    row("repository_vulnerability_alert", Repository, &["alert.id"], &[]),
    row("secret_scanning_alert", Repository, &["alert.number"], ALERT_TIME),
    row("secret_scanning_alert_location", Repository, &["alert.number"], ALERT_TIME),
    row("security_advisory", Fixed("github.com"), &["security_advisory.ghsa_id"], &["security_advisory.updated_at"]),
    row("sponsorship", Repository, &["sponsorship.sponsor.login"], &[]),
    row("star", Repository, &[], &["starred_at"]),
    row("status", Repository, &["sha"], &["updated_at"]),
    row("team", Repository, &["team.id"], &["updated_at"]),
    row("team_add", Repository, &["team.id"], &[]),
    row("workflow_job", Repository, &["workflow_job.id"], &["workflow_job.completed_at", "workflow_job.started_at"]),
    row("workflow_run", Repository, &["workflow_run.id"], &["workflow_run.updated_at"]),
];

/// Events that are one type, whatever action their payload may name.
const WITHOUT_ACTION: [&str; 10] = [
    "deployment",
    "fork",
    "github_app_authorization",
    "gollum",
    "page_build",
    "public",
    "push",
    "repository_import",
    "security_and_analysis",
    "workflow_dispatch",
];

/// What a repository, an organisation or whoever else an event may be about has as its URL.
const FALLBACKS: [&str; 5] =
    ["repository.url", "organization.url", "enterprise.url", "installation.account.url", "sender.url"];

pub(super) fn map(prefix: &str, event: Option<&str>, look: &Look<'_>) -> Mapped {
    let row = event.and_then(|event| ROWS.iter().find(|row| row.event == event));
    let source = match row.map_or(Repository, |row| row.source) {
        Repository => None,
        Owner => look.text("repository.owner.url"),
        At(path) => look.text(path),
        Fixed(source) => Some(source.to_owned()),
        CommitComment => comment_source(look),
        Marketplace => {
            let url = look.text("sender.url");
            url.and_then(|url| url.rsplit_once('/').map(|(start, _)| start.to_owned()))
        }
    };
    let release_time = || look.text("action").and_then(|action| look.text(&format!("release.{action}_at")));
    Mapped {
        ty: ty(prefix, event, look),
        source: source.or_else(|| look.first(&FALLBACKS)),
        subject: row.and_then(|row| look.first(row.subject)),
        time: match event {
            Some("release") => {
                release_time().or_else(|| look.first(&["release.published_at", "release.created_at"]))
            }
            Some(_) | None => row.and_then(|row| look.first(row.time)),
        },
    }
}

/// For hosts without a document: GitHub's rows where their payloads have the same members, and the page of the repository as
/// the source of everything.
pub(super) fn map_like(prefix: &str, event: Option<&str>, look: &Look<'_>) -> Mapped {
    let mapped = map(prefix, event, look);
    let page = look.first(&["repository.html_url", "repository.url", "organization.url"]);
    Mapped { source: page.or(mapped.source), ..mapped }
}

fn ty(prefix: &str, event: Option<&str>, look: &Look<'_>) -> String {
    let ty = or_unknown(prefix, event);
    let text = |path| look.text(path);
    let detail = match event {
        Some("create" | "delete") => text("ref_type"),
        Some("deployment_status") => text("deployment_status.state").or_else(|| text("action")),
        Some("membership") => match (text("scope"), text("action")) {
            (Some(scope), Some(action)) => Some(format!("{scope}.{action}")),
            (scope, action) => scope.or(action),
        },
        Some(event) if WITHOUT_ACTION.contains(&event) => None,
        Some(_) | None => text("action"),
    };
    detail.map_or(ty.clone(), |detail| format!("{ty}.{detail}"))
}

fn comment_source(look: &Look<'_>) -> Option<String> {
    let url = look.text("comment.url")?;
    Some(look.text("comment.commit_id").map_or(url.clone(), |commit| format!("{url}/{commit}")))
}
