//! The client commands, run as a user runs them, against an admin API that answers by a script.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod expressions;
mod programs;
mod publishing;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use expect_test::{Expect, expect};

/// Answers one request after the other and keeps what it was asked.
struct Fake {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn start(answers: &[(u16, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        let mut answers: Vec<_> =
            answers.iter().rev().map(|(status, body)| (*status, (*body).to_owned())).collect();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                while let Some(request) = read(&mut stream) {
                    kept.lock().unwrap().push(request);
                    let (status, body) = answers.pop().unwrap_or((500, "the script is at its end".into()));
                    answer(stream.get_mut(), status, &body);
                }
            }
        });
        Self { address, asked }
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| lines.iter().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    let mut request = lines[0].trim_end_matches(" HTTP/1.1").to_owned();
    for line in lines.iter().filter(|line| line.starts_with("ce-") && !line.starts_with("ce-id")) {
        request.push_str(&format!(" {line}"));
    }
    if !body.is_empty() {
        request.push_str(&format!(
            " {} {}",
            header("content-type").unwrap_or("-"),
            String::from_utf8(body).unwrap()
        ));
    }
    Some(request)
}

/// A body that begins with `Sluice-` is headers of an answer without one.
fn answer(stream: &mut TcpStream, status: u16, body: &str) {
    let (headers, body) =
        if body.starts_with("Sluice-") { (body.to_owned(), "") } else { (String::new(), body) };
    write!(stream, "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
}

fn sluice(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(words).stdin(Stdio::null()).env_remove("SLUICE_ADMIN").env_remove("SLUICE_URL");
    command
}

fn told(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    let err: String =
        String::from_utf8_lossy(&output.stderr).lines().map(|line| format!("! {line}\n")).collect();
    format!("{out}{err}exit {}\n", output.status.code().unwrap())
}

/// What the command asked (`> `), printed, said on standard error (`! `) and exited with.
fn check(words: &str, answers: &[(u16, &str)], expected: &Expect) {
    let fake = Fake::start(answers);
    let output =
        sluice(&words.split(' ').collect::<Vec<_>>()).env("SLUICE_ADMIN", &fake.address).output().unwrap();
    let asked: String = fake.asked.lock().unwrap().iter().map(|request| format!("> {request}\n")).collect();
    expected.assert_eq(&format!("{asked}{}", told(&output)));
}

fn check_publish(words: &[&str], input: &str, answers: &[(u16, &str)], expected: &Expect) {
    let fake = Fake::start(answers);
    let mut command = sluice(words);
    command.env("SLUICE_URL", format!("http://{}/events", fake.address));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let asked: String = fake.asked.lock().unwrap().iter().map(|request| format!("> {request}\n")).collect();
    expected.assert_eq(&format!("{asked}{}", told(&output)));
}

/// A command that asks no broker.
fn check_alone(words: &[&str], input: &str, expected: &Expect) {
    check_publish(words, input, &[], expected);
}

const TRIGGER: &str = r#"{"name":"t","sink":"http://s/","paused":false,"pending":4,"dead":1,"retrying":0}"#;

#[test]
fn triggers_are_listed_as_a_table() {
    check(
        "triggers",
        &[(200, &format!(r#"{{"items":[{TRIGGER}],"next":null}}"#))],
        &expect![[r#"
        > GET /api/v1/triggers?limit=500
        NAME  STATE   PENDING  RETRYING  DEAD  LAST ERROR  SINK
        t     active  4        0         1     -           http://s/
        exit 0
    "#]],
    );
}

#[test]
fn json_is_what_the_api_wrote() {
    check(
        "triggers list --json",
        &[(200, &format!(r#"{{"items":[{TRIGGER}],"next":null}}"#))],
        &expect![[r#"
            > GET /api/v1/triggers?limit=500
            [
            {"name":"t","sink":"http://s/","paused":false,"pending":4,"dead":1,"retrying":0}
            ]
            exit 0
        "#]],
    );
    check(
        "triggers show t --json",
        &[(200, TRIGGER)],
        &expect![[r#"
        > GET /api/v1/triggers/t
        {"name":"t","sink":"http://s/","paused":false,"pending":4,"dead":1,"retrying":0}
        exit 0
    "#]],
    );
    check(
        "dlq list --json",
        &[(200, r#"{"items":[],"next":null}"#)],
        &expect![[r#"
        > GET /api/v1/dead-letters?limit=500
        []
        exit 0
    "#]],
    );
}

#[test]
fn a_shown_trigger_reads_as_lines() {
    check(
        "triggers show t",
        &[(200, TRIGGER)],
        &expect![[r#"
        > GET /api/v1/triggers/t
        name: t
        sink: http://s/
        paused: false
        dead: 1
        pending: 4
        retrying: 0
        exit 0
    "#]],
    );
}

#[test]
fn an_unknown_trigger_exits_1_with_the_detail() {
    let problem = r#"{"title":"Not Found","detail":"no trigger `nobody`"}"#;
    check(
        "triggers show nobody",
        &[(404, problem)],
        &expect![[r#"
        > GET /api/v1/triggers/nobody
        ! sluice: no trigger `nobody`
        exit 1
    "#]],
    );
    check(
        "triggers pause nobody",
        &[(404, problem)],
        &expect![[r#"
        > POST /api/v1/triggers/nobody/pause application/json {}
        ! sluice: no trigger `nobody`
        exit 1
    "#]],
    );
}

#[test]
fn a_trigger_is_paused_by_name() {
    check(
        "triggers pause a/b",
        &[(200, "{}")],
        &expect![[r#"
        > POST /api/v1/triggers/a%2Fb/pause application/json {}
        trigger `a/b`: paused
        exit 0
    "#]],
    );
}

#[test]
fn discard_does_not_ask_without_a_terminal() {
    check(
        "triggers discard t",
        &[(200, r#"{"discarded":3}"#)],
        &expect![[r#"
        > POST /api/v1/triggers/t/discard application/json {}
        trigger `t`: pending deliveries are moved to the dead letters
        discarded: 3
        exit 0
    "#]],
    );
}

#[test]
fn lists_follow_the_cursor_up_to_the_limit() {
    let event = |offset: u64| {
        format!(r#"{{"offset":"{offset}","id":"e{offset}","source":"/s","type":"a\u001b[2J"}}"#)
    };
    let pages = [
        format!(r#"{{"items":[{},{}],"next":"c 1"}}"#, event(9), event(8)),
        format!(r#"{{"items":[{}],"next":"c2"}}"#, event(7)),
    ];
    let answers = [(200, pages[0].as_str()), (200, pages[1].as_str())];
    check(
        "events list --limit 3 --type a --since 2026-01-31T12:00:00Z",
        &answers,
        &expect![[r#"
        > GET /api/v1/events?type=a&since=2026-01-31T12%3A00%3A00Z&limit=3
        > GET /api/v1/events?type=a&since=2026-01-31T12%3A00%3A00Z&limit=1&cursor=c%201
        OFFSET  RECEIVED  VIA  TYPE        SOURCE  ID
        9       -         -    a\u{1b}[2J  /s      e9
        8       -         -    a\u{1b}[2J  /s      e8
        7       -         -    a\u{1b}[2J  /s      e7
        ! there are more than these 3; see --limit
        exit 0
    "#]],
    );
}

#[test]
fn an_event_is_shown_by_offset_and_by_source_and_id() {
    let event = r#"{"offset":"7","event":{"id":"x","data":{"n":1.0}},"deliveries":[]}"#;
    check(
        "events show 7",
        &[(200, event)],
        &expect![[r#"
        > GET /api/v1/events/7
        offset: 7
        deliveries: none
        event:
          id: x
          data:
            n: 1.0
        exit 0
    "#]],
    );
    check(
        "events show /s?a x --json",
        &[(200, event)],
        &expect![[r#"
        > GET /api/v1/events/by-id?source=%2Fs%3Fa&id=x
        {"offset":"7","event":{"id":"x","data":{"n":1.0}},"deliveries":[]}
        exit 0
    "#]],
    );
    check(
        "events show --raw 7",
        &[(200, event)],
        &expect![[r#"
        > GET /api/v1/events/7
        {"id":"x","data":{"n":1.0}}
        exit 0
    "#]],
    );
}

#[test]
fn a_selection_of_dead_letters_is_ids_or_filters_or_all() {
    check(
        "dlq redrive a b --to other",
        &[(200, r#"{"redriven":2}"#)],
        &expect![[r#"
        > POST /api/v1/dead-letters/redrive application/json {"ids":["a","b"],"to":"other"}
        redriven: 2
        exit 0
    "#]],
    );
    check(
        "dlq redrive --trigger t --since 2026-01-31T12:00:00Z --dry-run",
        &[(200, "{}")],
        &expect![[r#"
        > POST /api/v1/dead-letters/redrive application/json {"dry_run":true,"since":"2026-01-31T12:00:00Z","trigger":"t"}
        exit 0
    "#]],
    );
    check(
        "dlq purge --all",
        &[(200, r#"{"purged":5}"#)],
        &expect![[r#"
        > POST /api/v1/dead-letters/purge application/json {"all":true}
        purged: 5
        exit 0
    "#]],
    );
}

#[test]
fn a_redrive_whose_target_is_gone_exits_1() {
    check(
        "dlq redrive a",
        &[(409, r#"{"detail":"dead letter `a`: trigger `t` is gone"}"#)],
        &expect![[r#"
        > POST /api/v1/dead-letters/redrive application/json {"ids":["a"]}
        ! sluice: dead letter `a`: trigger `t` is gone
        exit 1
    "#]],
    );
}

#[test]
fn a_wrong_configuration_on_reload_exits_78() {
    let problem =
        r#"{"detail":"the configuration is wrong","errors":["sluice.yaml:3:5: unknown key `fliters`"]}"#;
    check(
        "reload",
        &[(422, problem)],
        &expect![[r#"
        > POST /api/v1/config/reload application/json {}
        ! the configuration is wrong
        ! sluice.yaml:3:5: unknown key `fliters`
        exit 78
    "#]],
    );
    check(
        "reload",
        &[(200, r#"{"added":["a"],"changed":[],"removed":[]}"#)],
        &expect![[r#"
        > POST /api/v1/config/reload application/json {}
        added: a
        changed: none
        removed: none
        exit 0
    "#]],
    );
}

#[test]
fn unreachable_names_the_address() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = sluice(&["dlq", "list", "--admin", &free]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains(&free), "{}", told(&output));
}

#[test]
fn the_option_wins_over_the_variable() {
    let fake = Fake::start(&[(200, r#"{"items":[],"next":null}"#)]);
    for words in
        [["triggers", "--admin", &fake.address, "list"], ["triggers", "list", "--admin", &fake.address]]
    {
        let output = sluice(&words).env("SLUICE_ADMIN", "http://127.0.0.1:1").output().unwrap();
        assert!(!told(&output).contains("127.0.0.1:1\n"), "{}", told(&output));
    }
    assert_eq!(fake.asked.lock().unwrap().len(), 2);
}

#[test]
fn a_closed_output_is_no_failure() {
    let items: String = (0..20_000).map(|n| format!(r#"{{"name":"trigger-{n}"}},"#)).collect();
    let fake =
        Fake::start(&[(200, &format!(r#"{{"items":[{}],"next":null}}"#, items.trim_end_matches(',')))]);
    let mut child = sluice(&["triggers", "--admin", &fake.address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(told(&output), "exit 0\n");
}
