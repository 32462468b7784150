//! `sluice publish`.

use expect_test::expect;

use crate::check_publish;

#[test]
fn flags_make_an_event_in_binary_mode() {
    let words = [
        "publish",
        "--type",
        "a.b",
        "--source",
        "/s",
        "--subject",
        "é",
        "--data",
        "{\"n\": 1}",
        "--ext",
        "k=v",
    ];
    check_publish(
        &words,
        "",
        &[(202, "Sluice-Offset: 17\r\n")],
        &expect![[r#"
        > POST /events ce-specversion: 1.0 ce-type: a.b ce-source: /s ce-subject: %C3%A9 ce-k: v application/json {"n": 1}
        17
        exit 0
    "#]],
    );
}

#[test]
fn one_event_a_line_is_published_in_order() {
    let input = "{\"id\": \"1\"}\n{\"id\": \"2\"}\n";
    let answers = [(202, "Sluice-Offset: 1\r\n"), (202, "Sluice-Offset: 1\r\nSluice-Duplicate: true\r\n")];
    check_publish(
        &["publish", "-"],
        input,
        &answers,
        &expect![[r#"
        > POST /events application/cloudevents+json; charset=utf-8 {"id": "1"}
        > POST /events application/cloudevents+json; charset=utf-8 {"id": "2"}
        1
        1
        ! standard input, event 2 is a duplicate and was not stored again
        exit 0
    "#]],
    );
}

#[test]
fn an_array_is_one_batch() {
    check_publish(
        &["publish", "-"],
        "[{\"id\": \"1\"},\n{\"n\":1.0}]",
        &[(202, "Sluice-Offset: 1,2\r\n")],
        &expect![[r#"
            > POST /events application/cloudevents-batch+json; charset=utf-8 [{"id": "1"},
            {"n":1.0}]
            1
            2
            exit 0
        "#]],
    );
}

#[test]
fn one_event_may_span_lines() {
    check_publish(
        &["publish", "-"],
        "{\n \"id\": \"1\"\n}\n",
        &[(202, "Sluice-Offset: 1\r\n")],
        &expect![[r#"
            > POST /events application/cloudevents+json; charset=utf-8 {
             "id": "1"
            }
            1
            exit 0
        "#]],
    );
}

#[test]
fn a_refused_event_exits_1_with_the_problem() {
    let problem = r#"{"title":"invalid event","detail":"attribute `type` is required"}"#;
    check_publish(
        &["publish", "-"],
        "{\"id\":\"1\"} {\"id\":\"2\"}",
        &[(202, "Sluice-Offset: 1\r\n"), (400, problem)],
        &expect![[r#"
            > POST /events application/cloudevents+json; charset=utf-8 {"id":"1"}
            > POST /events application/cloudevents+json; charset=utf-8 {"id":"2"}
            1
            ! sluice: standard input, event 2 was refused: attribute `type` is required
            exit 1
        "#]],
    );
    check_publish(
        &["publish", "-"],
        "{\"id\":\"1\"} nonsense",
        &[(202, "Sluice-Offset: 1\r\n")],
        &expect![[r#"
            > POST /events application/cloudevents+json; charset=utf-8 {"id":"1"}
            1
            ! sluice: standard input is no JSON from event 2: expected ident at line 1 column 13
            exit 1
        "#]],
    );
    check_publish(
        &["publish", "-"],
        " \n",
        &[],
        &expect![[r#"
        ! sluice: standard input holds no event
        exit 1
    "#]],
    );
}
