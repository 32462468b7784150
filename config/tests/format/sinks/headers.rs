//! Headers of sinks, and secrets in them.

use expect_test::expect;

use crate::check;

#[test]
fn a_header_cannot_hold_a_line_break() {
    check(
        r#"triggers:
  t:
    sink:
      http:
        url: http://localhost/
        headers: { x-a: "a\r\nX: y" }"#,
        expect![[r#"
            sluice.yaml:6:25: header `x-a`: the value holds a line break or another control character
        "#]],
    );
}

#[test]
fn a_header_name_is_a_token() {
    check(
        r#"triggers:
  t:
    sink:
      http:
        url: http://localhost/
        headers: { "x a": b }"#,
        expect![[r#"
            sluice.yaml:6:20: `x a` is not a valid header name
                6 |         headers: { "x a": b }
                  |                    ^^^^^
        "#]],
    );
}

#[test]
fn a_header_appears_once() {
    check(
        r#"triggers:
  t:
    sink:
      http:
        url: http://localhost/
        headers: { X-A: a, x-a: b }"#,
        expect![[r#"
            sluice.yaml:6:28: header `x-a` appears twice, in upper and lower case
                6 |         headers: { X-A: a, x-a: b }
                  |                            ^^^
        "#]],
    );
}

#[test]
fn some_headers_belong_to_the_broker() {
    check(
        r#"triggers:
  t:
    sink:
      http:
        url: http://localhost/
        headers: { Content-Length: 5, ce-id: x }"#,
        expect![[r#"
            sluice.yaml:6:20: header `content-length` is written by the broker itself
                6 |         headers: { Content-Length: 5, ce-id: x }
                  |                    ^^^^^^^^^^^^^^
            sluice.yaml:6:39: header `ce-id` is written by the broker itself
                6 |         headers: { Content-Length: 5, ce-id: x }
                  |                                       ^^^^^
        "#]],
    );
}

#[test]
fn an_inline_secret_warns_and_is_not_shown() {
    check(
        r#"triggers:
  t:
    sink:
      http:
        url: http://localhost/
        headers: { Authorization: Bearer hunter2 }"#,
        expect![[r#"
            sluice.yaml:6:35: warning: header `authorization` holds a secret in plain text: write "${NAME}" or "${file:PATH}" instead
        "#]],
    );
}

#[test]
fn a_line_with_a_secret_is_not_shown() {
    check(
        r#"triggers:
  t: { sink: { http: { url: 5, headers: { "Authorization": Bearer hunter2 } } } }"#,
        expect![[r#"
            sluice.yaml:2:29: `url`: expected a URL that begins with http:// or https://, found `5`
        "#]],
    );
}

#[test]
fn a_secret_in_a_syntax_error_is_not_shown() {
    check(
        r#"triggers:
  t: { sink: { http: { headers: { authorization: "Bearer hunter2 } } } }"#,
        expect![[r#"
            sluice.yaml:2:50: unclosed quote
        "#]],
    );
}

#[test]
fn a_secret_from_outside_does_not_warn() {
    check(
        r#"triggers:
  t:
    sink:
      http:
        url: http://localhost/
        headers: { Authorization: "Bearer ${TOKEN}" }"#,
        expect![[r#"
            ok
        "#]],
    );
}

#[test]
fn an_empty_secret_is_an_error() {
    check(
        r#"triggers:
  t:
    sink:
      http:
        url: http://localhost/
        headers: { x-api-key: "" }"#,
        expect![[r#"
            sluice.yaml:6:31: header `x-api-key` is empty
        "#]],
    );
}

#[test]
fn a_header_without_a_value() {
    check(
        r#"triggers:
  t:
    sink:
      http:
        url: http://localhost/
        headers: { x-a: }"#,
        expect![[r#"
            sluice.yaml:6:20: header `x-a` has no value
                6 |         headers: { x-a: }
                  |                    ^^^
        "#]],
    );
}
