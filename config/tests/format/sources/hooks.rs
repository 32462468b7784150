//! Webhooks and git.

use expect_test::expect;

use super::{check_source, shows_source, source};
use crate::{read, report};

#[test]
fn webhooks_have_a_larger_limit_and_hide_secrets() {
    shows_source(
        r#"webhook: { verify: { scheme: stripe, secret: "${TOKEN}" } }
event: { type: "com.stripe.{body.type}", source: https://stripe.com, id: "{body.id}" }"#,
        expect![[
            r#"{"event":{"id":"{body.id}","source":"https://stripe.com","type":"com.stripe.{body.type}"},"event_bytes":"25MiB","oversize":"stop","webhook":{"verify":{"scheme":"stripe","secrets":["[hidden]"],"tolerance":"5m"}}}"#
        ]],
    );
}

#[test]
fn webhooks_of_every_form() {
    for verify in [
        r#"{ scheme: standard-webhooks, secrets: ["${KEY}", "whpk_${KEY32}"], tolerance: 1m }"#,
        r#"{ scheme: hmac, header: X-Sig, signed: "{timestamp}.{body}", timestamp_header: X-Time, prefix: v1=, secret: "${TOKEN}" }"#,
        r#"{ scheme: token, query: token, secret: "${TOKEN}" }"#,
        r#"{ scheme: basic, username: u, secret: "${TOKEN}" }"#,
    ] {
        check_source(&format!("webhook: {{ verify: {verify} }}"), expect!["ok\n"]);
    }
}

#[test]
fn secrets_that_can_be_guessed_warn() {
    let check = |verify: &str, expected| check_source(&format!("webhook: {{ verify: {verify} }}"), expected);
    check(
        r#"{ scheme: github, secrets: ["${TOKEN}", "${SHORT}"] }"#,
        expect![[r#"
            sluice.yaml:3:64: warning: a secret has 23 bytes, expected 24 or more
        "#]],
    );
    check(
        r#"{ scheme: svix, secret: "whsec_${PORT}${PORT}==" }"#,
        expect![[r#"
            sluice.yaml:3:48: warning: a secret has 6 bytes, expected 24 or more
        "#]],
    );
    check(
        r#"{ scheme: standard-webhooks, secret: "${LONG}" }"#,
        expect![[r#"
            sluice.yaml:3:61: warning: a key has 66 bytes, expected 24 to 64 (Standard Webhooks)
        "#]],
    );
    for secret in ["whsec_%%%", "whsec_", "AAAAA", "whpk_AAAA"] {
        let secret = format!(r#"{{ scheme: svix, secret: "{secret}" }}"#);
        let report = report(read(&source(&format!("webhook: {{ verify: {secret} }}"))));
        assert!(report.starts_with("sluice.yaml:3:48: a secret of this scheme is `wh"), "{report}");
        assert!(!report.contains("AAAA") && !report.contains('%'), "{report}");
    }
    check(r#"{ scheme: svix, secret: "whpk_${KEY32}" }"#, expect!["ok\n"]);
    // To Stripe, the whole text is the key.
    check(r#"{ scheme: stripe, secret: "whsec_${TOKEN}" }"#, expect!["ok\n"]);
    check(r#"{ scheme: gitlab, secrets: ["${TOKEN}", "${KEY}"] }"#, expect!["ok\n"]);
    check_source(
        r#"git: { provider: gitea, secret: "${SHORT}" }"#,
        expect![[r#"
            sluice.yaml:3:37: warning: a secret has 23 bytes, expected 24 or more
        "#]],
    );
    check_source(
        r#"git: { secret: "whsec_${PORT}" }"#,
        expect![[r#"
            sluice.yaml:3:20: warning: a secret has 3 bytes, expected 24 or more
        "#]],
    );
}

#[test]
fn a_webhook_without_verification_is_written_out() {
    check_source(
        "webhook: {}",
        expect![[r#"
        sluice.yaml:3:14: `webhook` of source `s` has no `verify`: without it whoever reaches its URL can send events; if that is meant, say `insecure: true`
            3 |     webhook: {}
              |              ^
    "#]],
    );
    check_source(
        "webhook: { insecure: true }",
        expect![[r#"
        sluice.yaml:3:14: warning: `webhook` of source `s`: whoever reaches its URL can send events (`insecure: true`)
            3 |     webhook: { insecure: true }
              |              ^
    "#]],
    );
}

#[test]
fn webhooks_refuse() {
    check_source(
        r#"webhook: { verify: { scheme: stripe } }"#,
        expect![[r#"
        sluice.yaml:3:24: `verify` has no `secret`
            3 |     webhook: { verify: { scheme: stripe } }
              |                        ^
    "#]],
    );
    check_source(
        r#"webhook: { verify: { scheme: stripe, secret: "" } }"#,
        expect![[r#"
        sluice.yaml:3:50: `secret` is empty
    "#]],
    );
    check_source(
        r#"webhook: { verify: { scheme: github, secret: hunter2 } }"#,
        expect![[r#"
            sluice.yaml:3:50: warning: `secret` holds a secret in plain text: write "${NAME}" or "${file:PATH}" instead
            sluice.yaml:3:50: warning: a secret has 7 bytes, expected 24 or more
        "#]],
    );
    check_source(
        r#"webhook: { verify: { scheme: standard_webhooks, secret: "${TOKEN}" } }"#,
        expect![[r#"
        sluice.yaml:3:34: `scheme`: expected github, gitlab, stripe, slack, shopify, standard-webhooks, svix, hmac, token or basic (did you mean standard-webhooks?), found `standard_webhooks`
            3 |     webhook: { verify: { scheme: standard_webhooks, secret: "${TOKEN}" } }
              |                                  ^^^^^^^^^^^^^^^^^
    "#]],
    );
    check_source(
        r#"webhook: { verify: { scheme: stripe, header: x, secret: "${TOKEN}" } }"#,
        expect![[r#"
        sluice.yaml:3:42: `header` has no meaning with `scheme: stripe`
            3 |     webhook: { verify: { scheme: stripe, header: x, secret: "${TOKEN}" } }
              |                                          ^^^^^^
    "#]],
    );
    check_source(
        r#"webhook: { verify: { scheme: hmac, header: x, signed: "{timestamp}", secret: "${TOKEN}" } }"#,
        expect![[r#"
            sluice.yaml:3:59: `signed`: `{body}` is missing, so that any body would pass
                3 |     webhook: { verify: { scheme: hmac, header: x, signed: "{timestamp}", secret: "${TOKEN}" } }
                  |                                                           ^^^^^^^^^^^^^
        "#]],
    );
    check_source(
        r#"webhook: { verify: { scheme: hmac, header: x, timestamp_header: t, secret: "${TOKEN}" } }"#,
        expect![[r#"
            sluice.yaml:3:24: `signed`: `{timestamp}` is missing, so that `timestamp_header` would not be signed
                3 |     webhook: { verify: { scheme: hmac, header: x, timestamp_header: t, secret: "${TOKEN}" } }
                  |                        ^
        "#]],
    );
    check_source(
        r#"webhook: { verify: { scheme: token, secret: "${TOKEN}" } }"#,
        expect![[r#"
        sluice.yaml:3:24: `verify` has no `header` and no `query`: where the token stands
            3 |     webhook: { verify: { scheme: token, secret: "${TOKEN}" } }
              |                        ^
    "#]],
    );
}

#[test]
fn git_has_defaults() {
    shows_source(
        r#"git: { secret: "${TOKEN}" }"#,
        expect![[
            r#"{"event_bytes":"25MiB","git":{"provider":"auto","secrets":["[hidden]"]},"oversize":"stop"}"#
        ]],
    );
    check_source(
        "git: { provider: githup }",
        expect![[r#"
        sluice.yaml:3:10: `git` of source `s` has no `secret`: without it whoever reaches its URL can send events; if that is meant, say `insecure: true`
            3 |     git: { provider: githup }
              |          ^
        sluice.yaml:3:22: `provider`: expected auto, github, gitlab, gitea, forgejo, gogs or bitbucket, found `githup`
            3 |     git: { provider: githup }
              |                      ^^^^^^
    "#]],
    );
    check_source(
        "git: { insecure: true }",
        expect![[r#"
        sluice.yaml:3:10: warning: `git` of source `s`: whoever reaches its URL can send events (`insecure: true`)
            3 |     git: { insecure: true }
              |          ^
    "#]],
    );
}
