use http::HeaderValue;
use sluice_config::{Hmac, HmacAlgorithm, HmacEncoding, Scheme};

use super::*;

/// A delivery that is right, and the scheme it is of.
struct Case {
    scheme: Scheme,
    secrets: Vec<&'static str>,
    headers: Vec<(&'static str, &'static str)>,
    body: &'static str,
    now_s: i64,
}

impl Case {
    fn verdict(&self) -> String {
        let verify = Verify {
            scheme: self.scheme.clone(),
            secrets: self.secrets.iter().map(|text| Secret::new((*text).into())).collect(),
            tolerance: Duration::from_secs(300),
        };
        let verifier = match Verifier::of_webhook(Some(&verify)) {
            Ok(verifier) => verifier,
            Err(wrong) => return format!("wrong secret: {wrong}"),
        };
        verdict(&verifier, &self.headers, None, self.body, self.now_s)
    }

    fn check(&self, expected: &str) {
        assert_eq!(self.verdict(), expected, "{:?} {:?} {}", self.scheme, self.headers, self.body);
    }

    /// The same with another value of a header; `None` takes it away.
    fn with(&self, name: &str, value: impl Into<Option<&'static str>>) -> Self {
        let value = value.into();
        let mut headers = self.headers.clone();
        headers.retain(|(known, _)| *known != name);
        let name = self.headers.iter().find(|(known, _)| *known == name).expect("the case has it").0;
        headers.extend(value.map(|value| (name, value)));
        self.clone_with(headers)
    }

    fn clone_with(&self, headers: Vec<(&'static str, &'static str)>) -> Self {
        Self {
            scheme: self.scheme.clone(),
            secrets: self.secrets.clone(),
            headers,
            body: self.body,
            now_s: self.now_s,
        }
    }
}

fn header_map(headers: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(
            HeaderName::try_from(*name).expect("a name"),
            HeaderValue::try_from(*value).expect("a value"),
        );
    }
    map
}

fn verdict(
    verifier: &Verifier,
    headers: &[(&str, &str)],
    query: Option<&str>,
    body: &str,
    now_s: i64,
) -> String {
    let headers = header_map(headers);
    let verified =
        verifier.claim(&headers, query, now_s).and_then(|claim| claim.check(&headers, body.as_bytes()));
    match verified {
        Ok(Verified { time_s: None, .. }) => "verified".into(),
        Ok(Verified { time_s: Some(time_s), id: None }) => format!("verified, signed at {time_s}"),
        Ok(Verified { time_s: Some(time_s), id: Some(id) }) => {
            format!("verified, signed at {time_s} as {id}")
        }
        Err(denied) => denied.to_string(),
    }
}

/// GitHub's documentation, "Validating webhook deliveries", test values.
fn github() -> Case {
    Case {
        scheme: Scheme::Github,
        secrets: vec!["It's a Secret to Everybody"],
        headers: vec![(
            "X-Hub-Signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        )],
        body: "Hello, World!",
        now_s: 0,
    }
}

/// Slack's documentation, "Verifying requests from Slack".
fn slack() -> Case {
    Case {
        scheme: Scheme::Slack,
        secrets: vec!["8f742231b10e8888abcd99yyyzzz85a5"],
        headers: vec![
            ("X-Slack-Request-Timestamp", "1531420618"),
            ("X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
        ],
        body: "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V\
               &channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=\
               &response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
               &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
        now_s: 1_531_420_618,
    }
}

/// The specification of Standard Webhooks, and Svix' documentation, "Verifying webhooks manually".
fn standard() -> Case {
    Case {
        scheme: Scheme::StandardWebhooks,
        secrets: vec!["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        headers: vec![
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ],
        body: r#"{"test": 2432232314}"#,
        now_s: 1_614_265_330,
    }
}

/// Computed: Stripe publishes no vector with its secret.
fn stripe() -> Case {
    Case {
        scheme: Scheme::Stripe,
        secrets: vec!["whsec_test_secret"],
        headers: vec![(
            "Stripe-Signature",
            "t=1492774577,v1=799c4ba7bb339f3c8601adfd112f0e477c930a268be1243d341abb8286501c2f,v0=6ffbb59b",
        )],
        body: r#"{"id":"evt_1"}"#,
        now_s: 1_492_774_577,
    }
}

/// Computed.
fn shopify() -> Case {
    Case {
        scheme: Scheme::Shopify,
        secrets: vec!["hush"],
        headers: vec![("X-Shopify-Hmac-Sha256", "VnKUjZsLuN5iZWjn5EntcBVCF9kMN43LglzCE1/GSeY=")],
        body: r#"{"id":1}"#,
        now_s: 0,
    }
}

/// Test case 2 of RFC 2202 (HMAC-SHA-1) and RFC 4231 (SHA-256, SHA-512).
fn generic(algorithm: HmacAlgorithm, encoding: HmacEncoding, prefix: &str, value: &'static str) -> Case {
    let hmac = Hmac {
        algorithm,
        header: "x-signature".into(),
        encoding,
        prefix: prefix.into(),
        signed: "{body}".into(),
        timestamp_header: None,
    };
    Case {
        scheme: Scheme::Hmac(hmac),
        secrets: vec!["Jefe"],
        headers: vec![("x-signature", value)],
        body: "what do ya want for nothing?",
        now_s: 0,
    }
}

#[test]
fn published_vectors_hold() {
    github().check("verified");
    slack().check("verified, signed at 1531420618");
    standard().check("verified, signed at 1614265330 as msg_p5jXN8AQM9LWM0D4loKWxJek");
    let svix = standard().clone_with(vec![
        ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("svix-timestamp", "1614265330"),
        ("svix-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ]);
    svix.check("verified, signed at 1614265330 as msg_p5jXN8AQM9LWM0D4loKWxJek");
    Case { scheme: Scheme::Svix, ..svix }
        .check("verified, signed at 1614265330 as msg_p5jXN8AQM9LWM0D4loKWxJek");
    Case { scheme: Scheme::Svix, ..standard() }
        .check("verified, signed at 1614265330 as msg_p5jXN8AQM9LWM0D4loKWxJek");
    generic(HmacAlgorithm::Sha1, HmacEncoding::Hex, "sha1=", "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")
        .check("verified");
    generic(HmacAlgorithm::Sha256, HmacEncoding::Base64, "", "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=")
        .check("verified");
    generic(
        HmacAlgorithm::Sha512,
        HmacEncoding::Hex,
        "",
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
    )
    .check("verified");
}

#[test]
fn computed_vectors_hold() {
    stripe().check("verified, signed at 1492774577");
    shopify().check("verified");
    let public = Case {
        secrets: vec!["whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="],
        ..standard().with("webhook-id", "msg_1")
    };
    public.with("webhook-signature", PUBLIC_SIGNATURE).check("verified, signed at 1614265330 as msg_1");
    public.check("no signature is that of a secret");
}

const PUBLIC_SIGNATURE: &str =
    "v1a,iEefdFFutrjzfRpIHPVkD0OJda55sSkFuOPJiISmxfftsHYsf52TIpu/r3R/h+HNGfFH6O/nzOZUh3JiNSj2Cw==";

#[test]
fn every_byte_of_the_body_counts() {
    for case in [github(), slack(), standard(), stripe(), shopify()] {
        let changed: &'static str = Box::leak(format!("{} ", case.body).into_boxed_str());
        Case { body: changed, ..case }.check("no signature is that of a secret");
    }
    // Re-serialised JSON says the same and is not the same.
    Case { body: r#"{"test":2432232314}"#, ..standard() }.check("no signature is that of a secret");
}

#[test]
fn another_secret_is_refused_and_one_of_several_is_enough() {
    for case in [github(), slack(), stripe(), shopify()] {
        Case { secrets: vec!["other"], ..case.clone_with(case.headers.clone()) }
            .check("no signature is that of a secret");
        let expected = case.verdict();
        let both = vec!["other", case.secrets[0]];
        Case { secrets: both, ..case }.check(&expected);
    }
}

#[test]
fn a_header_that_is_missing_empty_or_doubled_is_refused() {
    for case in [github(), slack(), standard(), stripe(), shopify()] {
        for (name, value) in case.headers.clone() {
            let place = name.to_ascii_lowercase();
            case.with(name, None).check(&format!("`{place}` is missing or empty"));
            case.with(name, "").check(&format!("`{place}` is missing or empty"));
            let mut doubled = case.headers.clone();
            doubled.push((name, value));
            case.clone_with(doubled).check(&format!("`{place}` occurs more than once"));
        }
    }
}

#[test]
fn digests_are_read_strictly() {
    let wrong = "`x-hub-signature-256` is not the prefix and a digest of the right length";
    let digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    for value in [
        "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        "sha256=",
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e1",
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e1700",
        "sha256=zz7107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        "sha256=757107EA0EB2509FC211221CCE984B8A37570B6D7586C22C46F4379C8B043E17",
        "SHA256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
        " , ",
    ] {
        github().with("X-Hub-Signature-256", value).check(wrong);
    }
    let many: &'static str = Box::leak(vec![format!("sha256={digest}"); 17].join(",").into_boxed_str());
    github().with("X-Hub-Signature-256", many).check(wrong);
    // The old header alone proves nothing.
    github()
        .clone_with(vec![("X-Hub-Signature", "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")])
        .check("`x-hub-signature-256` is missing or empty");
    for value in [
        "VnKUjZsLuN5iZWjn5EntcBVCF9kMN43LglzCE1/GSeY",
        "VnKUjZsL",
        "VnKUjZsLuN5iZWjn5EntcBVCF9kMN43LglzCE1/GSeZ=",
    ] {
        shopify()
            .with("X-Shopify-Hmac-Sha256", value)
            .check("`x-shopify-hmac-sha256` is not the prefix and a digest of the right length");
    }
}

#[test]
fn one_of_several_signatures_is_enough() {
    let other = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(other.len(), 47);
    for (value, expected) in [
        (
            "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1a,AAAA",
            "verified, signed at 1614265330 as msg_p5jXN8AQM9LWM0D4loKWxJek",
        ),
        (
            "v1,a  v1a,% v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= b",
            "verified, signed at 1614265330 as msg_p5jXN8AQM9LWM0D4loKWxJek",
        ),
        (
            "v2,abc v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            "verified, signed at 1614265330 as msg_p5jXN8AQM9LWM0D4loKWxJek",
        ),
        ("v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "no signature is that of a secret"),
        ("v1a,AAAA", "no signature is that of a secret"),
        ("v2,abc", "`webhook-signature` is not `v1,<digest>`, several with spaces between them"),
        (
            "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            "`webhook-signature` is not `v1,<digest>`, several with spaces between them",
        ),
        ("v1,g0hM9SsE", "`webhook-signature` is not `v1,<digest>`, several with spaces between them"),
    ] {
        standard().with("webhook-signature", value).check(expected);
    }
    let outpost = "v0=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3842,5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    generic(HmacAlgorithm::Sha256, HmacEncoding::Hex, "v0=", outpost).check("verified");
}

#[test]
fn lists_of_pairs_are_read_strictly() {
    let wrong = "`stripe-signature` is not `t=<unix time>,v1=<digest>`";
    const DIGEST: &str = "v1=799c4ba7bb339f3c8601adfd112f0e477c930a268be1243d341abb8286501c2f";
    for value in [
        DIGEST.to_owned(),
        "t=1492774577".to_owned(),
        "t=1492774577,v0=799c4ba7bb339f3c8601adfd112f0e477c930a268be1243d341abb8286501c2f".to_owned(),
        format!("t=1492774577,t=1492774577,{DIGEST}"),
        format!("t=1492774577,{DIGEST},"),
        format!("t=1492774577;{DIGEST}"),
        format!("t=1492774577, {DIGEST}"),
        "t=1492774577,v1=xyz".to_owned(),
        ",,,=,=".to_owned(),
    ] {
        stripe().with("Stripe-Signature", Some(&*Box::leak(value.into_boxed_str()))).check(wrong);
    }
    let rotated = "t=1492774577,v1=0000000000000000000000000000000000000000000000000000000000000000,v1=799c4ba7bb339f3c8601adfd112f0e477c930a268be1243d341abb8286501c2f";
    stripe().with("Stripe-Signature", rotated).check("verified, signed at 1492774577");
}

#[test]
fn a_signed_time_is_near_now_in_both_directions() {
    let base = standard().now_s;
    for (now_s, expected) in [
        (base + 300, "verified, signed at 1614265330 as msg_p5jXN8AQM9LWM0D4loKWxJek"),
        (base - 300, "verified, signed at 1614265330 as msg_p5jXN8AQM9LWM0D4loKWxJek"),
        (base + 301, "it was signed 301 s ago, more than the tolerance of 300 s"),
        (base + 600, "it was signed 600 s ago, more than the tolerance of 300 s"),
        (base - 600, "it was signed for 600 s from now, more than the tolerance of 300 s"),
    ] {
        Case { now_s, ..standard() }.check(expected);
    }
    for value in
        ["soon", "1e9", "-1614265330", "+1614265330", "1614265330.0", "99999999999999999999", " 1614265330"]
    {
        standard().with("webhook-timestamp", value).check("`timestamp` is not a time in whole seconds");
    }
    // The time is signed: a fresh one does not make an old delivery new.
    let fresh = Case { now_s: base + 600, ..standard().with("webhook-timestamp", "1614265930") };
    fresh.check("no signature is that of a secret");
}

#[test]
fn an_id_with_a_dot_is_refused() {
    standard()
        .with("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330")
        .check("`webhook-id` is not an id without dots");
}

#[test]
fn a_signed_delivery_of_gitlab_does_not_fall_back_to_the_token() {
    let case = Case { scheme: Scheme::Gitlab, secrets: vec!["token"], ..standard() };
    let with_token = |headers: &[(&'static str, &'static str)]| {
        let mut headers = headers.to_vec();
        headers.push(("X-Gitlab-Token", "token"));
        headers
    };
    case.clone_with(with_token(&[])).check("verified");
    case.clone_with(vec![("X-Gitlab-Token", "tokem")]).check("`x-gitlab-token` holds none of the secrets");
    case.clone_with(vec![("X-Gitlab-Token", "token2")]).check("`x-gitlab-token` holds none of the secrets");
    case.clone_with(vec![]).check("`x-gitlab-token` is missing or empty");
    case.clone_with(with_token(&case.headers)).check("no signature is that of a secret");
    let signing = Case { secrets: vec!["token", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], ..case };
    signing.check("verified, signed at 1614265330 as msg_p5jXN8AQM9LWM0D4loKWxJek");
    signing.clone_with(with_token(&[])).check("verified");
    let only_signed = Case { secrets: vec!["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], ..signing };
    only_signed.clone_with(with_token(&[])).check("`x-gitlab-token` holds none of the secrets");
}

#[test]
fn tokens_and_passwords_are_compared_whole() {
    let case = |scheme, headers| Case { scheme, secrets: vec!["old", "s3cret"], headers, body: "", now_s: 0 };
    let header = || Scheme::Token(TokenPlace::Header("x-token".into()));
    case(header(), vec![("x-token", "s3cret")]).check("verified");
    case(header(), vec![("x-token", "old")]).check("verified");
    case(header(), vec![("x-token", "s3cre")]).check("`x-token` holds none of the secrets");
    case(header(), vec![("x-token", "Bearer s3cret")]).check("`x-token` holds none of the secrets");
    let bearer = || Scheme::Token(TokenPlace::Header("authorization".into()));
    case(bearer(), vec![("authorization", "bearer s3cret")]).check("verified");
    case(bearer(), vec![("authorization", "s3cret")]).check("verified");
    // RFC 7617, section 2.
    let basic = Case {
        secrets: vec!["open sesame"],
        ..case(
            Scheme::Basic { username: "Aladdin".into() },
            vec![("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")],
        )
    };
    basic.check("verified");
    Case { secrets: vec!["open"], ..basic.with("authorization", "basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==") }
        .check("`authorization` holds none of the secrets");
    basic.with("authorization", "Basic QWxhZGQ=").check("`authorization` holds none of the secrets");
    basic
        .with("authorization", "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        .check("`authorization` is not `Basic` and a user name with a password in base64");
}

#[test]
fn a_token_may_be_in_the_query() {
    let verify = Verify {
        scheme: Scheme::Token(TokenPlace::Query("token".into())),
        secrets: vec![Secret::new("a b".into())],
        tolerance: Duration::ZERO,
    };
    let verifier = Verifier::of_webhook(Some(&verify)).expect("compiles");
    for (query, expected) in [
        (Some("x=1&token=a+b"), "verified"),
        (Some("token=a%20b"), "verified"),
        (Some("token=a"), "`?token` holds none of the secrets"),
        (Some("token="), "`?token` is missing or empty"),
        (Some("token=a+b&token=a+b"), "`?token` occurs more than once"),
        (None, "`?token` is missing or empty"),
    ] {
        assert_eq!(verdict(&verifier, &[], query, "", 0), expected, "{query:?}");
    }
}

#[test]
fn gitea_signs_the_payload_also_of_a_form() {
    // Computed: the digest of `{"ref":"refs/heads/main"}` with the key `gitea`.
    let signature = "3db961664836f4213d5398d72ad212c1a7c67a297ca6309c598c93c26444be48";
    let verifier = |sender| Verifier::of_git(sender, &[Secret::new("gitea".into())]).expect("compiles");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let json = r#"{"ref":"refs/heads/main"}"#;
    let encoded = "payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D";
    for (sender, name) in [
        (GitSignature::Gitea, "X-Gitea-Signature"),
        (GitSignature::Forgejo, "X-Forgejo-Signature"),
        (GitSignature::Gogs, "X-Gogs-Signature"),
    ] {
        let verifier = verifier(sender);
        assert_eq!(verdict(&verifier, &[(name, signature)], None, json, 0), "verified");
        assert_eq!(verdict(&verifier, &[(name, signature), form], None, encoded, 0), "verified");
        assert_eq!(
            verdict(&verifier, &[(name, signature), form], None, "payload=%7B%7D", 0),
            "no signature is that of a secret"
        );
        // Without a secret the header is there and empty.
        let empty = verdict(&verifier, &[(name, "")], None, json, 0);
        assert_eq!(empty, format!("`{}` is missing or empty", name.to_ascii_lowercase()));
    }
    let bitbucket = format!("sha256={signature}");
    let found =
        verdict(&verifier(GitSignature::Bitbucket), &[("X-Hub-Signature", &bitbucket)], None, json, 0);
    assert_eq!(found, "verified");
}

#[test]
fn what_cannot_be_a_secret_is_said_without_showing_it() {
    let hmac = |signed: &str, timestamp: Option<&str>| {
        Scheme::Hmac(Hmac {
            algorithm: HmacAlgorithm::Sha256,
            header: "x-signature".into(),
            encoding: HmacEncoding::Hex,
            prefix: String::new(),
            signed: signed.into(),
            timestamp_header: timestamp.map(str::to_owned),
        })
    };
    for (scheme, secret, expected) in [
        (Scheme::Github, "", "a secret is empty"),
        (
            Scheme::StandardWebhooks,
            "whsec_%%%",
            "a secret of this scheme is `whsec_` and a key in base64; one is not",
        ),
        (
            Scheme::StandardWebhooks,
            "whsec_",
            "a secret of this scheme is `whsec_` and a key in base64; one is not",
        ),
        (Scheme::StandardWebhooks, "whpk_AAAA", "what follows `whpk_` in a secret is not 32 bytes in base64"),
        (hmac("{time}", None), "s", "`signed` knows `{body}` and `{timestamp}`, found `{time}`"),
        (hmac("{timestamp}", Some("x-time")), "s", "`signed` has no `{body}`: anybody could change it"),
        (
            hmac("{timestamp}.{body}", None),
            "s",
            "`signed` has `{timestamp}`, but there is no `timestamp_header`",
        ),
        (
            hmac("{body}", Some("x-time")),
            "s",
            "`timestamp_header` without `{timestamp}` in `signed` proves nothing",
        ),
    ] {
        Case { scheme, secrets: vec![secret], headers: vec![], body: "", now_s: 0 }
            .check(&format!("wrong secret: {expected}"));
    }
}

#[test]
fn what_is_said_of_a_denial_shows_no_secret_and_no_signature() {
    let verify = Verify {
        scheme: Scheme::Github,
        secrets: vec![Secret::new("hush-hush".into())],
        tolerance: Duration::ZERO,
    };
    let verifier = Verifier::of_webhook(Some(&verify)).expect("compiles");
    assert!(!format!("{verifier:?}").contains("hush"));
}

/// Every scheme once, with what its header is called.
fn schemes() -> Vec<Scheme> {
    let token = |place| Scheme::Token(place);
    vec![
        Scheme::Github,
        Scheme::Gitlab,
        Scheme::Stripe,
        Scheme::Slack,
        Scheme::Shopify,
        Scheme::StandardWebhooks,
        Scheme::Svix,
        generic(HmacAlgorithm::Sha512, HmacEncoding::Base64, "p=", "").scheme,
        token(TokenPlace::Header("authorization".into())),
        token(TokenPlace::Query("token".into())),
        Scheme::Basic { username: "user".into() },
    ]
}

const HEADERS: [&str; 14] = [
    "x-hub-signature-256",
    "x-gitlab-token",
    "stripe-signature",
    "x-slack-signature",
    "x-slack-request-timestamp",
    "x-shopify-hmac-sha256",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "svix-id",
    "svix-timestamp",
    "svix-signature",
    "x-signature",
    "authorization",
];

proptest::proptest! {
    #[test]
    fn whoever_guesses_is_refused(
        values in proptest::collection::vec(
            (0..HEADERS.len(), "(sha256=|t=|v1,|v1=|v0=|p=|Basic |Bearer )?[ -~]{0,80}"),
            0..8,
        ),
        query in "[ -~]{0,60}",
        body: Vec<u8>,
        now_s in 0..2_000_000_000_i64,
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(HEADERS[name], HeaderValue::try_from(value).expect("visible"));
        }
        for scheme in schemes() {
            let verify = Verify {
                scheme,
                secrets: vec![Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into())],
                tolerance: Duration::from_secs(300),
            };
            let verifier = Verifier::of_webhook(Some(&verify)).expect("compiles");
            let claim = verifier.claim(&headers, Some(&query), now_s);
            assert!(claim.and_then(|claim| claim.check(&headers, &body)).is_err(), "{:?}", verify.scheme);
        }
    }
}
