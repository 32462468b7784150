//! Sinks: kinds, URLs, TLS.

mod headers;
mod systems;

use expect_test::expect;

use crate::{check, check_trigger, shows};

#[test]
fn a_file_is_no_sink() {
    check(
        r#"triggers:
  t:
    sink: file:///etc/passwd"#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: expected a URL that begins with http:// or https://, found `file:///etc/passwd`
                3 |     sink: file:///etc/passwd
                  |           ^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn gopher_is_no_sink() {
    check(
        r#"triggers:
  t:
    sink: gopher://localhost/"#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: expected a URL that begins with http:// or https://, found `gopher://localhost/`
                3 |     sink: gopher://localhost/
                  |           ^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn a_url_has_a_scheme() {
    check(
        r#"triggers:
  t:
    sink: localhost:9000"#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: expected a URL that begins with http:// or https://, found `localhost:9000`
                3 |     sink: localhost:9000
                  |           ^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn a_url_has_a_host() {
    check(
        r#"triggers:
  t:
    sink: http:///path"#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: the URL has no host, found `http:///path`
                3 |     sink: http:///path
                  |           ^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn a_password_is_refused_and_not_shown() {
    check(
        r#"triggers:
  t:
    sink: http://user:pass@localhost/"#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: a URL cannot hold a user name or password: send an `authorization` header
        "#]],
    );
}

#[test]
fn a_fragment_is_refused() {
    check(
        r#"triggers:
  t:
    sink: "http://localhost/#frag""#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: a fragment (`#`) is never sent: remove it, found `http://localhost/#frag`
                3 |     sink: "http://localhost/#frag"
                  |           ^^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn a_port_has_a_range() {
    check(
        r#"triggers:
  t:
    sink: http://localhost:65536/"#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: expected a port from 1 to 65535, found `http://localhost:65536/`
                3 |     sink: http://localhost:65536/
                  |           ^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn a_port_is_not_empty() {
    check(
        r#"triggers:
  t:
    sink: http://localhost:/"#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: expected a port from 1 to 65535, found `http://localhost:/`
                3 |     sink: http://localhost:/
                  |           ^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn metadata_is_refused() {
    check(
        r#"triggers:
  t:
    sink: http://169.254.169.254/latest"#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: link-local and metadata addresses are refused unless `allow_link_local: true`, found `http://169.254.169.254/latest`
                3 |     sink: http://169.254.169.254/latest
                  |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn metadata_inside_ipv6_is_refused() {
    check(
        r#"triggers:
  t:
    sink: "http://[::ffff:169.254.169.254]/""#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: link-local and metadata addresses are refused unless `allow_link_local: true`, found `http://[::ffff:169.254.169.254]/`
                3 |     sink: "http://[::ffff:169.254.169.254]/"
                  |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn metadata_through_nat64_is_refused() {
    check(
        r#"triggers:
  t:
    sink: "http://[64:ff9b::a9fe:a9fe]/""#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: link-local and metadata addresses are refused unless `allow_link_local: true`, found `http://[64:ff9b::a9fe:a9fe]/`
                3 |     sink: "http://[64:ff9b::a9fe:a9fe]/"
                  |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn link_local_ipv6_is_refused() {
    check(
        r#"triggers:
  t:
    sink: "http://[fe80::1]/""#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: link-local and metadata addresses are refused unless `allow_link_local: true`, found `http://[fe80::1]/`
                3 |     sink: "http://[fe80::1]/"
                  |           ^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn metadata_as_one_number_is_refused() {
    check(
        r#"triggers:
  t:
    sink: http://2852039166/"#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: not a valid IPv4 address, found `http://2852039166/`
                3 |     sink: http://2852039166/
                  |           ^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn metadata_in_hexadecimal_is_refused() {
    check(
        r#"triggers:
  t:
    sink: http://0xa9.0xfe.0xa9.0xfe/"#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: not a valid IPv4 address, found `http://0xa9.0xfe.0xa9.0xfe/`
                3 |     sink: http://0xa9.0xfe.0xa9.0xfe/
                  |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn link_local_can_be_allowed() {
    check(
        r#"triggers:
  t:
    sink: { http: { url: http://169.254.169.254/, allow_link_local: true } }"#,
        expect![[r#"
            ok
        "#]],
    );
}

#[test]
fn allow_link_local_is_a_boolean() {
    check(
        r#"triggers:
  t:
    sink: { http: { url: http://169.254.169.254/, allow_link_local: yes } }"#,
        expect![[r#"
            sluice.yaml:3:26: `url`: link-local and metadata addresses are refused unless `allow_link_local: true`, found `http://169.254.169.254/`
                3 |     sink: { http: { url: http://169.254.169.254/, allow_link_local: yes } }
                  |                          ^^^^^^^^^^^^^^^^^^^^^^^
            sluice.yaml:3:69: `allow_link_local`: expected true or false, found `yes`
                3 |     sink: { http: { url: http://169.254.169.254/, allow_link_local: yes } }
                  |                                                                     ^^^
        "#]],
    );
}

#[test]
fn loopback_and_private_networks_are_fine() {
    check(
        r#"triggers:
  t:
    sink: "http://[::1]:9000/a?b=c""#,
        expect![[r#"
            ok
        "#]],
    );
}

#[test]
fn a_template_is_refused() {
    check(
        r#"triggers:
  t:
    sink: "http://localhost/{data.id}""#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: a URL is fixed, it cannot hold a template, found `http://localhost/{data.id}`
                3 |     sink: "http://localhost/{data.id}"
                  |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn a_space_is_refused() {
    check(
        r#"triggers:
  t:
    sink: "http://localhost/a b""#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: a URL cannot hold ' ', found `http://localhost/a b`
                3 |     sink: "http://localhost/a b"
                  |           ^^^^^^^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn a_url_needs_its_http() {
    check(
        r#"triggers:
  t:
    sink: { url: http://localhost/ }"#,
        expect![[r#"
            sluice.yaml:3:13: `sink`: put `http:` above `url`, or write the URL alone
                3 |     sink: { url: http://localhost/ }
                  |             ^^^
        "#]],
    );
}

#[test]
fn a_sink_has_a_url() {
    check(
        r#"triggers:
  t:
    sink: { http: { mode: binary } }"#,
        expect![[r#"
            sluice.yaml:3:13: `sink.http` has no `url`
                3 |     sink: { http: { mode: binary } }
                  |             ^^^^
        "#]],
    );
}

#[test]
fn a_sink_is_one_kind() {
    check(
        r#"triggers:
  t:
    sink: { http: { url: http://localhost/ }, stdout: {} }"#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: expected exactly one of http, stdout, kafka, amqp or nats
                3 |     sink: { http: { url: http://localhost/ }, stdout: {} }
                  |           ^
        "#]],
    );
}

#[test]
fn kafka_is_not_there_yet() {
    check(
        r#"triggers:
  t:
    sink: { kafka: {} }"#,
        expect![[r#"
            sluice.yaml:3:20: `sink.kafka` has no `brokers`
                3 |     sink: { kafka: {} }
                  |                    ^
            sluice.yaml:3:20: `sink.kafka` has no `topic`
                3 |     sink: { kafka: {} }
                  |                    ^
        "#]],
    );
}

#[test]
fn an_unknown_kind() {
    check(
        r#"triggers:
  t:
    sink: { htpp: {} }"#,
        expect![[r#"
            sluice.yaml:3:13: `sink`: unknown kind of sink `htpp`: did you mean `http`?
                3 |     sink: { htpp: {} }
                  |             ^^^^
        "#]],
    );
}

#[test]
fn stdout_takes_nothing() {
    check(
        r#"triggers:
  t:
    sink: { stdout: { colour: true } }"#,
        expect![[r#"
            sluice.yaml:3:23: unknown key `colour` in `sink.stdout`: it has no keys
                3 |     sink: { stdout: { colour: true } }
                  |                       ^^^^^^
        "#]],
    );
}

#[test]
fn stdout() {
    check(
        r#"triggers:
  t:
    sink: { stdout: {} }"#,
        expect![[r#"
            ok
        "#]],
    );
}

#[test]
fn a_list_is_no_sink() {
    check(
        r#"triggers:
  t:
    sink: [ http://localhost/ ]"#,
        expect![[r#"
            sluice.yaml:3:11: `sink`: expected one URL, `http: { url: ... }` or `stdout: {}`, found a list
                3 |     sink: [ http://localhost/ ]
                  |           ^
        "#]],
    );
}

#[test]
fn mode_is_one_of_two() {
    check(
        r#"triggers:
  t:
    sink:
      http:
        url: http://localhost/
        mode: xml"#,
        expect![[r#"
            sluice.yaml:6:15: `mode`: expected binary or structured, found `xml`
                6 |         mode: xml
                  |               ^^^
        "#]],
    );
}

#[test]
fn tls_needs_https() {
    check(
        r#"triggers:
  t:
    sink:
      http:
        url: http://localhost/
        tls: { ca: ca.pem }"#,
        expect![[r#"
            sluice.yaml:6:9: `tls` has no effect with an http URL: write https
                6 |         tls: { ca: ca.pem }
                  |         ^^^
            sluice.yaml:6:20: `ca`: cannot read `ca.pem`: No such file or directory (os error 2)
                6 |         tls: { ca: ca.pem }
                  |                    ^^^^^^
        "#]],
    );
}

#[test]
fn tls_names_readable_files_in_pairs() {
    check(
        r#"triggers:
  t:
    sink: { http: { url: https://localhost/, tls: { cert: no/such/cert.pem } } }"#,
        expect![[r#"
            sluice.yaml:3:53: `tls`: `cert` and `key` belong together
                3 |     sink: { http: { url: https://localhost/, tls: { cert: no/such/cert.pem } } }
                  |                                                     ^^^^
            sluice.yaml:3:59: `cert`: cannot read `no/such/cert.pem`: No such file or directory (os error 2)
                3 |     sink: { http: { url: https://localhost/, tls: { cert: no/such/cert.pem } } }
                  |                                                           ^^^^^^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn a_dead_letter_takes_any_sink() {
    check_trigger(
        r#"dead_letter: { stdout: {} }"#,
        expect![[r#"
        ok
    "#]],
    );
}

#[test]
fn a_dead_letter_is_checked_like_a_sink() {
    check_trigger(
        r#"dead_letter: ftp://localhost/"#,
        expect![[r#"
        sluice.yaml:4:18: `dead_letter`: expected a URL that begins with http:// or https://, found `ftp://localhost/`
            4 |     dead_letter: ftp://localhost/
              |                  ^^^^^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn secrets_are_hidden() {
    shows(
        r#"triggers: { t: { sink: { http: { url: "https://h/?token=${TOKEN}", headers: { Authorization: "Bearer ${TOKEN}" } } } } }"#,
        "/triggers/t/sink",
        expect![[
            r#"{"http":{"allow_link_local":false,"headers":{"authorization":"[hidden]"},"mode":"binary","tls":{},"url":"https://h/?[hidden]"}}"#
        ]],
    );
}
