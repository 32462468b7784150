use serde_json::{Value, json};

use super::*;

/// Received at 2023-11-14T22:13:20Z.
fn attributes(provider: Provider, event: &'static str, payload: &Value) -> String {
    let name = provider.event_headers()[0].to_owned();
    let headers = if event.is_empty() { vec![] } else { vec![(name, event.into())] };
    let record = Record { headers, time_ms: Some(1_700_000_000_000), ..Record::default() };
    let draft = Draft::default()
        .attribute("id", "1")
        .attribute("source", "/repo")
        .attribute("type", "sluice.webhook");
    let event = provider.map(&record, payload.to_string().as_bytes(), draft).build().expect("valid");
    let time = event.text("time").unwrap_or("-");
    let time = if time == "2023-11-14T22:13:20Z" { "now" } else { time };
    format!("{} | {} | {} | {time}", event.ty(), event.source(), event.subject().unwrap_or("-"))
}

#[expect(clippy::needless_pass_by_value, reason = "payloads are written where they are checked")]
fn check(provider: Provider, event: &'static str, payload: Value, expected: &str) {
    assert_eq!(attributes(provider, event, &payload), expected, "{event} {payload}");
}

fn hello() -> Value {
    json!({
        "id": 1296269, "name": "hello", "full_name": "octo/hello", "url": "https://api.github.com/repos/octo/hello",
        "html_url": "https://github.com/octo/hello", "updated_at": "2019-05-15T15:20:41Z",
        "owner": { "login": "octo", "url": "https://api.github.com/users/octo" },
    })
}

#[test]
fn github_push_create_and_delete_are_about_a_ref() {
    let github = |event, payload| attributes(Provider::Github, event, &payload);
    // In a push, the URL is that of the page and the times are numbers.
    let repository =
        json!({ "url": "https://github.com/octo/hello", "created_at": 1557933565, "pushed_at": 1557933657 });
    assert_eq!(
        github(
            "push",
            json!({ "ref": "refs/heads/main", "action": "x", "repository": repository, "head_commit": null })
        ),
        "com.github.push | https://github.com/octo/hello | refs/heads/main | now"
    );
    assert_eq!(
        github("create", json!({ "ref": "v1", "ref_type": "tag", "repository": hello() })),
        "com.github.create.tag | https://api.github.com/repos/octo/hello | v1 | now"
    );
    assert_eq!(
        github("delete", json!({ "ref": "old", "ref_type": "branch", "repository": hello() })),
        "com.github.delete.branch | https://api.github.com/repos/octo/hello | old | now"
    );
}

#[test]
fn github_events_follow_the_adapter_document() {
    let repo = "https://api.github.com/repos/octo/hello";
    for (event, payload, expected) in [
        (
            "issues",
            json!({ "action": "opened", "issue": { "number": 7, "updated_at": "2019-05-15T15:20:18Z" }, "repository": hello() }),
            format!("com.github.issues.opened | {repo} | 7 | 2019-05-15T15:20:18Z"),
        ),
        (
            "issue_comment",
            json!({ "action": "created", "issue": { "url": format!("{repo}/issues/7") }, "comment": { "id": 49, "updated_at": "2019-05-15T15:20:21Z" }, "repository": hello() }),
            format!("com.github.issue_comment.created | {repo}/issues/7 | 49 | 2019-05-15T15:20:21Z"),
        ),
        (
            "pull_request",
            json!({ "action": "closed", "number": 2, "pull_request": { "updated_at": "2019-05-15T15:20:33Z" }, "repository": hello() }),
            format!("com.github.pull_request.closed | {repo} | 2 | 2019-05-15T15:20:33Z"),
        ),
        (
            "pull_request_review",
            json!({ "action": "submitted", "pull_request": { "url": format!("{repo}/pulls/2") }, "review": { "id": 23, "submitted_at": "2019-05-15T15:20:38Z" }, "repository": hello() }),
            format!("com.github.pull_request_review.submitted | {repo}/pulls/2 | 23 | 2019-05-15T15:20:38Z"),
        ),
        (
            "commit_comment",
            json!({ "action": "created", "comment": { "id": 3, "url": format!("{repo}/comments/3"), "commit_id": "6113728f", "updated_at": "2019-05-15T15:20:39Z" } }),
            format!("com.github.commit_comment.created | {repo}/comments/3/6113728f | 3 | 2019-05-15T15:20:39Z"),
        ),
        (
            "check_run",
            json!({ "action": "created", "check_run": { "id": 128, "completed_at": null, "started_at": "2019-05-15T15:21:12Z" }, "repository": hello() }),
            format!("com.github.check_run.created | {repo} | 128 | 2019-05-15T15:21:12Z"),
        ),
        (
            "deployment_status",
            json!({ "deployment": { "url": format!("{repo}/deployments/1") }, "deployment_status": { "state": "success", "url": format!("{repo}/statuses/2"), "updated_at": null }, "repository": hello() }),
            format!("com.github.deployment_status.success | {repo}/deployments/1 | {repo}/statuses/2 | now"),
        ),
        (
            "release",
            json!({ "action": "published", "release": { "id": 17, "published_at": "2019-05-15T15:20:53Z", "created_at": "2019-05-15T15:19:25Z" }, "repository": hello() }),
            format!("com.github.release.published | {repo} | 17 | 2019-05-15T15:20:53Z"),
        ),
        (
            "release",
            json!({ "action": "edited", "release": { "id": 17, "created_at": "2019-05-15T15:19:25Z" }, "repository": hello() }),
            format!("com.github.release.edited | {repo} | 17 | 2019-05-15T15:19:25Z"),
        ),
        (
            "membership",
            json!({ "action": "removed", "scope": "team", "member": { "login": "bob" }, "team": { "url": "https://api.github.com/teams/1" } }),
            "com.github.membership.team.removed | https://api.github.com/teams/1 | bob | now".into(),
        ),
        (
            "installation",
            json!({ "action": "deleted", "installation": { "id": 2, "account": { "url": "https://api.github.com/users/octo" }, "updated_at": 1557933591 } }),
            "com.github.installation.deleted | https://api.github.com/users/octo | 2 | 2019-05-15T15:19:51Z".into(),
        ),
        (
            "repository_dispatch",
            json!({ "action": "on-demand", "repository": hello() }),
            "com.github.repository_dispatch.on-demand | https://api.github.com/users/octo | - | now".into(),
        ),
        (
            "repository",
            json!({ "action": "renamed", "repository": hello() }),
            "com.github.repository.renamed | https://api.github.com/users/octo | hello | 2019-05-15T15:20:41Z".into(),
        ),
        (
            "status",
            json!({ "sha": "6113728f", "state": "success", "updated_at": "2019-05-15T15:20:55+00:00", "repository": hello() }),
            format!("com.github.status | {repo} | 6113728f | 2019-05-15T15:20:55Z"),
        ),
        (
            "security_advisory",
            json!({ "action": "published", "security_advisory": { "ghsa_id": "GHSA-1", "updated_at": "2017-10-24T18:33:03Z" } }),
            "com.github.security_advisory.published | github.com | GHSA-1 | 2017-10-24T18:33:03Z".into(),
        ),
        (
            "marketplace_purchase",
            json!({ "action": "purchased", "effective_date": "2017-10-25T00:00:00+00:00", "sender": { "url": "https://api.github.com/users/bob" }, "marketplace_purchase": { "account": { "login": "octo" } } }),
            "com.github.marketplace_purchase.purchased | https://api.github.com/users | octo | 2017-10-25T00:00:00Z".into(),
        ),
        (
            "star",
            json!({ "action": "deleted", "starred_at": null, "repository": hello() }),
            format!("com.github.star.deleted | {repo} | - | now"),
        ),
        ("fork", json!({ "forkee": { "url": "https://api.github.com/repos/bob/hello", "created_at": "2019-05-15T15:20:42Z" }, "repository": hello() }),
            format!("com.github.fork | {repo} | https://api.github.com/repos/bob/hello | 2019-05-15T15:20:42Z")),
    ] {
        check(Provider::Github, event, payload, &expected);
    }
}

#[test]
fn a_field_that_is_missing_or_odd_never_fails_a_delivery() {
    for (event, payload, expected) in [
        (
            "ping",
            json!({ "zen": "x", "hook_id": 30, "hook": { "updated_at": "2019-05-15T15:20:24Z" }, "organization": { "url": "https://api.github.com/orgs/o" } }),
            "com.github.ping | https://api.github.com/orgs/o | 30 | 2019-05-15T15:20:24Z",
        ),
        (
            "brand_new",
            json!({ "action": "done", "repository": hello() }),
            "com.github.brand_new.done | https://api.github.com/repos/octo/hello | - | now",
        ),
        ("", json!({}), "com.github.unknown | /repo | - | now"),
        ("issues", json!([1, 2]), "com.github.issues | /repo | - | now"),
        (
            "issues",
            json!({ "action": { "a": 1 }, "issue": 7, "repository": "x" }),
            "com.github.issues | /repo | - | now",
        ),
        (
            "issues",
            json!({ "action": "a\nb", "issue": { "number": "\u{1b}[31m", "updated_at": "soon" }, "repository": { "url": "no uri at all" } }),
            "com.github.issues.a\u{fffd}b | /repo | \u{fffd}[31m | now",
        ),
        // A push of two thousand commits, of a ref with an odd name, that deletes it.
        (
            "push",
            json!({ "ref": "refs/heads/--upload-pack=$(reboot);id", "after": "0".repeat(40), "commits": vec![json!({ "id": "a".repeat(40) }); 2048], "head_commit": null }),
            "com.github.push | /repo | refs/heads/--upload-pack=$(reboot);id | now",
        ),
    ] {
        check(Provider::Github, event, payload, expected);
    }
}

#[test]
fn gitlab_events_follow_the_adapter_document() {
    let repository = json!({ "name": "Diaspora", "homepage": "http://example.com/mike/diaspora" });
    let project = json!({ "web_url": "http://example.com/mike/diaspora" });
    let base = "http://example.com/mike/diaspora";
    for (header, payload, expected) in [
        (
            "Push Hook",
            json!({ "object_kind": "push", "checkout_sha": "da1560886d", "ref": "refs/heads/main", "repository": repository }),
            format!("com.gitlab.push | {base} | da1560886d | now"),
        ),
        // A branch that is deleted has no commit to check out.
        (
            "Push Hook",
            json!({ "object_kind": "push", "checkout_sha": null, "after": "0000", "repository": repository }),
            format!("com.gitlab.push | {base} | 0000 | now"),
        ),
        (
            "Tag Push Hook",
            json!({ "object_kind": "tag_push", "ref": "refs/tags/v1.0.0", "repository": repository }),
            format!("com.gitlab.tag_push | {base} | refs/tags/v1.0.0 | now"),
        ),
        (
            "Issue Hook",
            json!({ "object_kind": "issue", "object_attributes": { "id": 301, "iid": 23, "state": "opened", "created_at": "2013-12-03T17:15:43Z" }, "repository": repository }),
            format!("com.gitlab.issue.opened | {base} | 23 | now"),
        ),
        (
            "Note Hook",
            json!({ "object_kind": "note", "object_attributes": { "id": 1243, "noteable_type": "Commit", "created_at": "2015-05-17 18:08:09 UTC", "url": format!("{base}/commit/cfe32c#note_1243") }, "commit": { "url": format!("{base}/commit/cfe32c") } }),
            format!("com.gitlab.note.commit | {base}/commit/cfe32c | 1243 | 2015-05-17T18:08:09Z"),
        ),
        (
            "Note Hook",
            json!({ "object_kind": "note", "object_attributes": { "id": 1244, "noteable_type": "MergeRequest", "created_at": "2015-05-17 18:21:36 UTC", "url": format!("{base}/merge_requests/1#note_1244") }, "merge_request": { "id": 7 } }),
            format!("com.gitlab.note.merge_request | {base}/merge_requests/1 | 1244 | 2015-05-17T18:21:36Z"),
        ),
        (
            "Note Hook",
            json!({ "object_kind": "note", "object_attributes": { "id": 1245, "url": format!("{base}/snippets/53#note_1245") }, "snippet": { "id": 53 } }),
            format!("com.gitlab.note.snippet | {base}/snippets/53 | 1245 | now"),
        ),
        (
            "Merge Request Hook",
            json!({ "object_kind": "merge_request", "object_attributes": { "id": 99, "iid": 1, "action": "open", "created_at": "2013-12-03T17:23:34Z" }, "repository": repository }),
            format!("com.gitlab.merge_request.open | {base} | 1 | 2013-12-03T17:23:34Z"),
        ),
        (
            "Wiki Page Hook",
            json!({ "object_kind": "wiki_page", "project": project, "object_attributes": { "slug": "awesome", "action": "create" } }),
            format!("com.gitlab.wiki_page.create | {base} | awesome | now"),
        ),
        (
            "Pipeline Hook",
            json!({ "object_kind": "pipeline", "project": project, "object_attributes": { "id": 31, "status": "success", "created_at": "2016-08-12 15:23:28 UTC" } }),
            format!("com.gitlab.pipeline.success | {base} | 31 | now"),
        ),
        (
            "Job Hook",
            json!({ "object_kind": "build", "build_id": 1977, "build_status": "created", "repository": repository }),
            format!("com.gitlab.job.created | {base} | 1977 | now"),
        ),
        (
            "System Hook",
            json!({ "event_name": "project_create", "project_id": 74 }),
            "com.gitlab.project_create | /repo | - | now".into(),
        ),
        (
            "Feature Flag Hook",
            json!({ "project": project }),
            format!("com.gitlab.feature_flag | {base} | - | now"),
        ),
        ("", json!(null), "com.gitlab.unknown | /repo | - | now".into()),
    ] {
        check(Provider::Gitlab, header, payload, &expected);
    }
}

#[test]
fn gitea_and_its_kin_have_prefixes_of_their_own() {
    let payload = json!({ "ref": "refs/heads/main", "repository": { "html_url": "https://git.example.com/a/b", "url": "https://git.example.com/api/v1/repos/a/b" } });
    check(
        Provider::Gitea,
        "push",
        payload.clone(),
        "com.gitea.push | https://git.example.com/a/b | refs/heads/main | now",
    );
    check(
        Provider::Forgejo,
        "push",
        payload.clone(),
        "com.forgejo.push | https://git.example.com/a/b | refs/heads/main | now",
    );
    check(
        Provider::Gogs,
        "push",
        payload,
        "com.gogs.push | https://git.example.com/a/b | refs/heads/main | now",
    );
    let request = json!({ "action": "opened", "number": 3, "pull_request": { "updated_at": "2024-01-02T03:04:05Z" }, "repository": { "html_url": "https://git.example.com/a/b" } });
    check(
        Provider::Gitea,
        "pull_request",
        request,
        "com.gitea.pull_request.opened | https://git.example.com/a/b | 3 | 2024-01-02T03:04:05Z",
    );
}

#[test]
fn bitbucket_in_the_cloud_and_in_a_data_centre() {
    let cloud = json!({ "links": { "html": { "href": "https://bitbucket.org/t/r" } } });
    let centre = json!({ "slug": "r", "links": { "self": [{ "href": "https://bb.example.com/projects/P/repos/r/browse" }] } });
    let base = "https://bb.example.com/projects/P/repos/r/browse";
    for (key, payload, expected) in [
        (
            "repo:push",
            json!({ "repository": cloud, "push": { "changes": [{ "new": { "type": "branch", "name": "main" }, "old": null }] } }),
            "com.bitbucket.repo.push | https://bitbucket.org/t/r | main | now".into(),
        ),
        (
            "repo:push",
            json!({ "repository": cloud, "push": { "changes": [{ "new": null, "old": { "name": "gone" } }] } }),
            "com.bitbucket.repo.push | https://bitbucket.org/t/r | gone | now".into(),
        ),
        (
            "repo:push",
            json!({ "repository": cloud, "push": { "changes": [{ "new": { "name": "a" } }, { "new": { "name": "b" } }] } }),
            "com.bitbucket.repo.push | https://bitbucket.org/t/r | - | now".into(),
        ),
        (
            "pullrequest:created",
            json!({ "repository": cloud, "pullrequest": { "id": 1, "updated_on": "2015-06-12T20:18:22.270264+00:00" } }),
            "com.bitbucket.pullrequest.created | https://bitbucket.org/t/r | 1 | 2015-06-12T20:18:22.270264Z"
                .into(),
        ),
        (
            "repo:refs_changed",
            json!({ "date": "2017-09-13T22:18:12+1000", "repository": centre, "changes": [{ "ref": { "id": "refs/heads/master" }, "type": "UPDATE" }] }),
            format!("com.bitbucket.repo.refs_changed | {base} | refs/heads/master | 2017-09-13T12:18:12Z"),
        ),
        (
            "pr:opened",
            json!({ "date": "2017-09-19T09:58:11+1000", "pullRequest": { "id": 11, "toRef": { "repository": centre } } }),
            format!("com.bitbucket.pr.opened | {base} | 11 | 2017-09-18T23:58:11Z"),
        ),
        (
            "diagnostics:ping",
            json!({ "test": true }),
            "com.bitbucket.diagnostics.ping | /repo | - | now".into(),
        ),
    ] {
        check(Provider::Bitbucket, key, payload, &expected);
    }
}

#[test]
fn senders_are_told_apart_most_particular_first() {
    for (headers, expected) in [
        (
            &["x-forgejo-event", "x-gitea-event", "x-gogs-event", "x-github-event"][..],
            Some(Provider::Forgejo),
        ),
        (&["x-gitea-event", "x-gogs-event", "x-github-event"], Some(Provider::Gitea)),
        (&["x-gogs-event", "x-github-event"], Some(Provider::Gogs)),
        (&["x-github-event"], Some(Provider::Github)),
        (&["x-gitlab-event"], Some(Provider::Gitlab)),
        (&["x-event-key"], Some(Provider::Bitbucket)),
        (&["x-other"], None),
    ] {
        assert_eq!(Provider::detect(|name| headers.contains(&name)), expected);
    }
}
