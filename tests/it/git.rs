//! Plain git: pushes to a repository become events.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, Told, run, sluice};

const ZEROS: &str = "0000000000000000000000000000000000000000";

/// A clone that somebody works in, and the bare repository it pushes to.
struct Repositories {
    dir: tempfile::TempDir,
}

/// Git without the configuration of whoever runs the tests.
fn git(dir: &Path, words: &[&str]) -> Told {
    let mut command = Command::new("git");
    command.current_dir(dir).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE");
    for person in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{person}_NAME"), "Ada")
            .env(format!("GIT_{person}_EMAIL"), "ada@example.com");
    }
    command.args(words);
    run(command)
}

impl Repositories {
    fn new() -> Self {
        let repositories = Self { dir: tempfile::tempdir().unwrap() };
        let root = repositories.dir.path();
        assert_eq!(git(root, &["init", "-q", "--bare", "-b", "main", "it's bare.git"]).code, 0);
        assert_eq!(git(root, &["init", "-q", "-b", "main", "work"]).code, 0);
        repositories.git(&["remote", "add", "origin", "../it's bare.git"]);
        repositories
    }

    fn bare(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("it's bare.git")
    }

    fn git(&self, words: &[&str]) -> Told {
        let told = git(&self.dir.path().join("work"), words);
        assert_eq!(told.code, 0, "{words:?}: {told:?}");
        told
    }

    fn commit(&self, message: &str) -> String {
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.head()
    }

    fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"]).out.trim().to_owned()
    }

    /// What the hook said to whoever pushed.
    fn push(&self, words: &[&str]) -> String {
        self.git(&[&["push", "-q", "origin"], words].concat()).err
    }

    fn install(&self, url: &str) -> Told {
        let mut command = sluice();
        command.args(["git-hook", "install"]).arg(self.bare()).args(["--url", url]);
        run(command)
    }

    fn source(&self) -> String {
        format!("file://{}", self.bare().display()).replace('\'', "%27").replace(' ', "%20")
    }
}

fn url(broker: &Broker) -> String {
    format!("http://{}/events", broker.public)
}

/// The events of the broker in the order they came, as `type subject`, and each with its data.
async fn told(broker: &Broker) -> Vec<Value> {
    let list = broker.get("events?limit=100").await;
    let mut events = Vec::new();
    for item in list["items"].as_array().unwrap().iter().rev() {
        let offset = item["offset"].as_str().unwrap();
        events.push(broker.get(&format!("events/{offset}")).await["event"].clone());
    }
    events
}

fn names(events: &[Value]) -> Vec<String> {
    let text = |event: &Value, name: &str| event[name].as_str().unwrap().to_owned();
    events.iter().map(|event| format!("{} {}", text(event, "type"), text(event, "subject"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_ref_of_a_push_becomes_an_event() {
    let broker = Broker::start("triggers: {}").await;
    let repositories = Repositories::new();
    assert_eq!(repositories.install(&url(&broker)).code, 0);

    let first = repositories.commit("first\n\nwith a body\n$(touch pwned) `id` --upload-pack=x");
    let said = repositories.push(&["main"]);
    assert!(said.contains(&format!("sluice: 1 event told to the broker at {}", broker.public)), "{said}");
    let second = repositories.commit("second");
    repositories.git(&["tag", "-a", "-m", "a tag", "v1"]);
    let said = repositories.push(&["main", "v1"]);
    assert!(said.contains("sluice: 2 events told"), "{said}");
    repositories.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "rewritten"]);
    let third = repositories.head();
    repositories.push(&["--force", "main"]);
    repositories.push(&["--delete", "v1"]);

    let events = told(&broker).await;
    assert_eq!(
        names(&events),
        [
            "sluice.git.created refs/heads/main",
            "sluice.git.updated refs/heads/main",
            "sluice.git.created refs/tags/v1",
            "sluice.git.forced refs/heads/main",
            "sluice.git.deleted refs/tags/v1",
        ]
    );
    let source = repositories.source();
    assert!(events.iter().all(|event| event["source"] == *source), "{events:#?}");
    let data: Vec<&Value> = events.iter().map(|event| &event["data"]).collect();
    assert_eq!(
        (&data[0]["old"], &data[0]["new"], &data[0]["kind"]),
        (&json!(null), &json!(first), &json!("branch"))
    );
    let commit = &data[0]["commits"][0];
    assert_eq!(commit["message"], "first\n\nwith a body\n$(touch pwned) `id` --upload-pack=x");
    assert_eq!(commit["author"], json!({ "name": "Ada", "email": "ada@example.com" }));
    assert_eq!((&data[1]["old"], &data[1]["forced"]), (&json!(first), &json!(false)));
    assert_eq!(data[1]["commits"].as_array().unwrap().len(), 1);
    assert_eq!((&data[2]["kind"], &data[2]["name"]), (&json!("tag"), &json!("v1")));
    assert_eq!((&data[3]["old"], &data[3]["new"]), (&json!(second), &json!(third)));
    assert_eq!(data[3]["commits"][0]["message"], "rewritten");
    assert_eq!((&data[4]["new"], &data[4]["commits"]), (&json!(null), &json!([])));
    assert!(!repositories.bare().join("pwned").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_while_the_broker_is_away_is_told_first_when_it_is_back() {
    let repositories = Repositories::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(repositories.install(&format!("http://{nobody}/events")).code, 0);
    repositories.commit("first");
    let said = repositories.push(&["main"]);
    assert!(said.contains("the rest waits in"), "{said}");
    repositories.git(&["branch", "other"]);
    repositories.push(&["other"]);

    let broker = Broker::start("triggers: {}").await;
    let installed = repositories.install(&url(&broker));
    assert!(installed.out.contains("was renewed"), "{installed:?}");
    repositories.commit("second");
    let said = repositories.push(&["main"]);
    assert!(said.contains("sluice: 3 events told"), "{said}");
    let events = told(&broker).await;
    assert_eq!(
        names(&events),
        [
            "sluice.git.created refs/heads/main",
            "sluice.git.created refs/heads/other",
            "sluice.git.updated refs/heads/main",
        ]
    );
    let left: Vec<_> = fs::read_dir(repositories.bare().join("sluice")).unwrap().collect();
    assert_eq!(left.len(), 2, "the lock and the turns: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_holds_up_a_push_for_seconds_only() {
    let repositories = Repositories::new();
    // Connections are taken by the system, and nobody reads them.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(repositories.install(&format!("http://{}/events", mute.local_addr().unwrap())).code, 0);
    repositories.commit("first");
    let started = Instant::now();
    let said = repositories.push(&["main"]);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(said.contains("no answer within 5 s") && said.contains("the rest waits in"), "{said}");
    assert_eq!(repositories.git(&["ls-remote", "origin", "refs/heads/main"]).out.lines().count(), 1);

    // One that refuses the address keeps nothing either, and whoever puts the address right finds all of it.
    let broker = Broker::start("triggers: {}").await;
    assert_eq!(repositories.install(&format!("http://{}/wrong", broker.public)).code, 0);
    repositories.commit("second");
    let said = repositories.push(&["main"]);
    assert!(said.contains("it answered 404 Not Found"), "{said}");
    assert_eq!(repositories.install(&url(&broker)).code, 0);
    repositories.commit("third");
    let said = repositories.push(&["main"]);
    assert!(said.contains("sluice: 3 events told"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_is_killed_has_written_down_what_it_did_not_tell() {
    let repositories = Repositories::new();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let head = repositories.commit("first");
    repositories.push(&["main"]);
    // As git calls it.
    let url = format!("http://{}/events", mute.local_addr().unwrap());
    let mut hook = sluice();
    hook.args(["git-hook", "post-receive", "--url", &url]).current_dir(repositories.bare());
    let mut hook = hook.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let line = format!("{ZEROS} {head} refs/heads/main\n");
    hook.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
    let (_connection, _) = mute.accept().unwrap();
    hook.kill().unwrap();
    hook.wait().unwrap();

    let broker = Broker::start("triggers: {}").await;
    assert_eq!(repositories.install(&self::url(&broker)).code, 0);
    repositories.git(&["branch", "other"]);
    let said = repositories.push(&["other"]);
    assert!(said.contains("sluice: 2 events told"), "{said}");
    let events = told(&broker).await;
    assert_eq!(names(&events), ["sluice.git.created refs/heads/main", "sluice.git.created refs/heads/other"]);
}

/// A file stands where the spool's directory would be: root may write everywhere else.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_spool_the_broker_is_told_at_once_or_the_hook_fails() {
    let broker = Broker::start("triggers: {}").await;
    let repositories = Repositories::new();
    assert_eq!(repositories.install(&url(&broker)).code, 0);
    fs::write(repositories.bare().join("sluice"), "").unwrap();
    repositories.commit("first");
    let said = repositories.push(&["main"]);
    assert!(said.contains("the spool cannot be used") && said.contains("1 event told"), "{said}");
    assert_eq!(names(&told(&broker).await), ["sluice.git.created refs/heads/main"]);
    // With nobody there it is not told at all, and says so.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(repositories.install(&format!("http://{nobody}/events")).code, 0);
    repositories.git(&["branch", "other"]);
    let said = repositories.push(&["other"]);
    assert!(
        said.contains("nobody is told of this push") && said.contains("the spool cannot be used"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_is_data_whatever_its_name() {
    let broker = Broker::start("triggers: {}").await;
    let repositories = Repositories::new();
    assert_eq!(repositories.install(&url(&broker)).code, 0);
    let head = repositories.commit("first");
    let long = format!("refs/heads/{}", "x".repeat(240));
    let odd = [
        "refs/heads/--upload-pack=touch-pwned",
        "refs/heads/-oProxyCommand=id",
        "refs/heads/$(touch${IFS}pwned)",
        "refs/heads/;id",
        "refs/heads/'\"`id`",
        "refs/heads/größe",
        &long,
    ];
    for name in odd {
        repositories.push(&[&format!("{head}:{name}")]);
    }
    let events = told(&broker).await;
    let expected: Vec<String> = odd.iter().map(|name| format!("sluice.git.created {name}")).collect();
    assert_eq!(names(&events), expected);
    // Only the first has a commit that no other ref had.
    assert_eq!(events[0]["data"]["commits"][0]["id"], head);
    assert_eq!(events[1]["data"]["commits"], json!([]));
    assert!(!repositories.bare().join("pwned").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_update_told_twice_is_a_duplicate_and_a_ref_that_goes_back_is_not() {
    let broker = Broker::start("triggers: {}").await;
    let repositories = Repositories::new();
    assert_eq!(repositories.install(&url(&broker)).code, 0);
    let first = repositories.commit("first");
    repositories.push(&["main"]);
    let second = repositories.commit("second");
    repositories.push(&["main"]);
    let again = || {
        let lines = repositories.dir.path().join("lines");
        fs::write(&lines, format!("{first} {second} refs/heads/main\nnonsense\n")).unwrap();
        let mut command = sluice();
        command.args(["git-hook", "post-receive", "--url", &url(&broker)]);
        command.current_dir(repositories.bare()).env("GIT_DIR", ".").stdin(fs::File::open(lines).unwrap());
        run(command)
    };
    let told_again = again();
    assert_eq!(told_again.code, 0, "{told_again:?}");
    assert!(told_again.err.contains("1 event told"), "{told_again:?}");
    assert!(told_again.err.contains("1 lines were not understood"), "{told_again:?}");
    assert_eq!(told_again.err.lines().count(), 1);
    assert_eq!(told(&broker).await.len(), 2);
    repositories.push(&["--force", &format!("{first}:main")]);
    repositories.push(&["main"]);
    assert_eq!(
        names(&told(&broker).await)[1..],
        [
            "sluice.git.updated refs/heads/main",
            "sluice.git.forced refs/heads/main",
            "sluice.git.updated refs/heads/main",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_push_is_told_whole_with_as_many_commits_as_were_asked_for() {
    let broker = Broker::start("triggers: {}").await;
    let repositories = Repositories::new();
    assert_eq!(repositories.install(&url(&broker)).code, 0);
    for count in 0..30 {
        repositories.commit(&format!("commit {count}"));
    }
    let refs: Vec<String> = (0..200).map(|count| format!("HEAD:refs/heads/b{count:03}")).collect();
    let said = repositories.push(&refs.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(said.contains("sluice: 200 events told"), "{said}");
    let list = broker.get("events?limit=500").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 200);
    let data = broker.get("events/0").await["event"]["data"].clone();
    assert_eq!((data["commits"].as_array().unwrap().len(), &data["more_commits"]), (20, &json!(true)));
    assert_eq!(data["commits"][0]["message"], "commit 29");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_was_there_runs_too_and_installing_again_changes_nothing() {
    let broker = Broker::start("triggers: {}").await;
    let repositories = Repositories::new();
    // core.hooksPath wins over the repository's own directory.
    let hooks = repositories.dir.path().canonicalize().unwrap().join("team hooks");
    fs::create_dir(&hooks).unwrap();
    git(&repositories.bare(), &["config", "core.hooksPath", hooks.to_str().unwrap()]);
    let hook = hooks.join("post-receive");
    fs::write(&hook, "#!/bin/sh\nread old new ref\necho \"deployed $ref\" >&2\nexit 3\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();

    let installed = repositories.install(&url(&broker));
    assert_eq!(installed.code, 0, "{installed:?}");
    assert!(installed.out.contains("runs after it, as post-receive.kept"), "{installed:?}");
    let script = fs::read(&hook).unwrap();
    assert_eq!(fs::metadata(&hook).unwrap().permissions().mode() & 0o111, 0o111);
    let again = repositories.install(&url(&broker));
    assert!(again.out.contains("is up to date"), "{again:?}");
    assert_eq!(fs::read(&hook).unwrap(), script);
    assert!(!repositories.bare().join("hooks/post-receive").exists());

    repositories.commit("first");
    let said = repositories.push(&["main"]);
    assert!(said.contains("sluice: 1 event told") && said.contains("deployed refs/heads/main"), "{said}");
    assert_eq!(told(&broker).await.len(), 1);

    // Somebody put a hook of his own in the place of ours: nothing of him is lost either.
    fs::write(&hook, "#!/bin/sh\n").unwrap();
    let refused = repositories.install(&url(&broker));
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("make one of the two"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_with_a_work_tree_is_told_of_by_its_path() {
    let broker = Broker::start("triggers: {}").await;
    let repositories = Repositories::new();
    let served = repositories.dir.path().canonicalize().unwrap().join("served");
    assert_eq!(git(repositories.dir.path(), &["init", "-q", "-b", "live", "served"]).code, 0);
    let mut command = sluice();
    command.args(["git-hook", "install"]).arg(&served).args(["--url", &url(&broker)]);
    assert_eq!(run(command).code, 0);
    repositories.commit("first");
    repositories.git(&["push", "-q", "../served", "main"]);
    let events = told(&broker).await;
    assert_eq!(names(&events), ["sluice.git.created refs/heads/main"]);
    assert_eq!(events[0]["source"], format!("file://{}", served.display()));
}

#[test]
fn mistakes_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let install = |words: &[&str]| {
        let mut command = sluice();
        command.args(["git-hook", "install"]).args(words).current_dir(dir.path());
        run(command)
    };
    let nowhere = install(&["."]);
    assert_eq!(nowhere.code, 1);
    assert!(nowhere.err.contains("is no git repository"), "{nowhere:?}");
    let address = install(&[".", "--url", "ftp://x/"]);
    assert!(address.err.contains("only http is spoken here"), "{address:?}");
    let commits = install(&[".", "--commits", "1000"]);
    assert_eq!(commits.code, 2);
    let source = install(&[".", "--source", "no uri"]);
    assert_eq!(source.code, 2);
    assert!(source.err.contains("attribute `source` must be a URI-reference"), "{source:?}");

    let lines = dir.path().join("lines");
    fs::write(&lines, format!("{ZEROS} {} refs/heads/main\n", "1".repeat(40))).unwrap();
    let mut command = sluice();
    command.args(["git-hook", "post-receive"]).current_dir(dir.path()).stdin(fs::File::open(lines).unwrap());
    let outside = run(command);
    assert_eq!(outside.code, 1);
    assert!(outside.err.contains("is no git directory"), "{outside:?}");
}

/// The section of the README: its command, what it shows of a push, and of an event.
#[tokio::test(flavor = "multi_thread")]
async fn the_git_section_of_the_readme_is_true() {
    let broker = Broker::start("triggers: {}").await;
    let repositories = Repositories::new();
    let (address, bare) = (broker.public.to_string(), repositories.bare());
    let sample = crate::documents::section("## Git");
    let blocks = |fence: &str| -> Vec<String> {
        sample.split(fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
    };
    // The path is there as it is and as a URL.
    let here = |text: &str| {
        text.replace("127.0.0.1:8080", &address)
            .replace("file:///srv/git/shop.git", &repositories.source())
            .replace("/srv/git/shop.git", &format!("\"{}\"", bare.display()))
            .replace("sluice git-hook", &format!("{} git-hook", env!("CARGO_BIN_EXE_sluice")))
    };
    let mut shell = Command::new("sh");
    shell.args(["-c", &here(&blocks("```sh\n")[0])]);
    let installed = run(shell);
    assert_eq!(installed.code, 0, "{installed:?}");
    let shown = blocks("```text\n");
    repositories.commit("first");
    let said = repositories.push(&["main"]);
    let line = here(shown[0].lines().nth(1).unwrap());
    assert!(said.split_whitespace().collect::<Vec<_>>().join(" ").contains(&line), "{said}\n{line}");
    let event = told(&broker).await.remove(0);
    compare(&event, &serde_json::from_str(&here(&blocks("```json\n")[0])).unwrap());
}

/// `...` in a sample stands for any text.
fn compare(found: &Value, sample: &Value) {
    match (found, sample) {
        (Value::String(_), Value::String(any)) if any == "..." => {}
        (Value::Object(found), Value::Object(sample)) => {
            assert_eq!(found.keys().collect::<BTreeSet<_>>(), sample.keys().collect::<BTreeSet<_>>());
            sample.iter().for_each(|(name, sample)| compare(&found[name], sample));
        }
        (Value::Array(found), Value::Array(sample)) if found.len() == sample.len() => {
            found.iter().zip(sample).for_each(|(found, sample)| compare(found, sample));
        }
        (found, sample) => assert_eq!(found, sample),
    }
}
