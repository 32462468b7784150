//! Everything that is not a trigger.

use expect_test::expect;
use sluice_config::to_json;

use crate::{check, read, shows};

#[test]
fn everything_has_a_default() {
    shows(
        r#"triggers: {}"#,
        "",
        expect![[
            r#"{"admin":{"hosts":[],"listen":"127.0.0.1:8081","open":false},"dead_letters":{},"duplicates":{"entries":1000000,"window":"10m"},"http":{"listen":"127.0.0.1:8080","webhook_origins":[]},"limits":{"batch_bytes":"8MiB","connections":4096,"event_bytes":"1MiB","hops":16,"in_flight_bytes":"64MiB","put_aside_bytes":"16MiB"},"shutdown_timeout":"20s","sources":{},"store":{"dir":"./data","on_damage":"refuse","outstanding":2000000,"removed_grace":"24h","retention":{"age":"7d","size":"10GiB"},"segment":"64MiB","watermark":{"free":"16MiB","resume":"90%","stop":"95%"}},"triggers":{}}"#
        ]],
    );
}

#[test]
fn a_port_with_a_leading_zero() {
    check(
        r#"http: { listen: 127.0.0.1:0777 }"#,
        expect![[r#"
        sluice.yaml:1:17: `http.listen`: expected a port from 0 to 65535, found `127.0.0.1:0777`
            1 | http: { listen: 127.0.0.1:0777 }
              |                 ^^^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn a_port_in_hexadecimal() {
    check(
        r#"http: { listen: 127.0.0.1:0x50 }"#,
        expect![[r#"
        sluice.yaml:1:17: `http.listen`: expected a port from 0 to 65535, found `127.0.0.1:0x50`
            1 | http: { listen: 127.0.0.1:0x50 }
              |                 ^^^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn a_port_with_a_fraction() {
    check(
        r#"http: { listen: 127.0.0.1:8080.0 }"#,
        expect![[r#"
        sluice.yaml:1:17: `http.listen`: expected a port from 0 to 65535, found `127.0.0.1:8080.0`
            1 | http: { listen: 127.0.0.1:8080.0 }
              |                 ^^^^^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn a_port_too_large() {
    check(
        r#"http: { listen: 127.0.0.1:65536 }"#,
        expect![[r#"
        sluice.yaml:1:17: `http.listen`: expected a port from 0 to 65535, found `127.0.0.1:65536`
            1 | http: { listen: 127.0.0.1:65536 }
              |                 ^^^^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn a_port_below_zero() {
    check(
        r#"http: { listen: 127.0.0.1:-1 }"#,
        expect![[r#"
        sluice.yaml:1:17: `http.listen`: expected a port from 0 to 65535, found `127.0.0.1:-1`
            1 | http: { listen: 127.0.0.1:-1 }
              |                 ^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn a_port_with_grouped_digits() {
    check(
        r#"http: { listen: 127.0.0.1:1_000 }"#,
        expect![[r#"
        sluice.yaml:1:17: `http.listen`: expected a port from 0 to 65535, found `127.0.0.1:1_000`
            1 | http: { listen: 127.0.0.1:1_000 }
              |                 ^^^^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn a_port_alone() {
    check(
        r#"http: { listen: 8080 }"#,
        expect![[r#"
        sluice.yaml:1:17: `http.listen`: expected ADDRESS:PORT such as 127.0.0.1:8080, found `8080`
            1 | http: { listen: 8080 }
              |                 ^^^^
    "#]],
    );
}

#[test]
fn a_port_without_address() {
    check(
        r#"http: { listen: ":8080" }"#,
        expect![[r#"
        sluice.yaml:1:17: `http.listen`: the address is missing: write 127.0.0.1:8080, or 0.0.0.0:8080 for every interface, found `:8080`
            1 | http: { listen: ":8080" }
              |                 ^^^^^^^
    "#]],
    );
}

#[test]
fn a_name_to_listen_on() {
    check(
        r#"http: { listen: localhost:8080 }"#,
        expect![[r#"
        sluice.yaml:1:17: `http.listen`: names are not looked up here: write 127.0.0.1:8080, found `localhost:8080`
            1 | http: { listen: localhost:8080 }
              |                 ^^^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn ipv6_to_listen_on() {
    shows(r#"http: { listen: "[::1]:8080" }"#, "/http/listen", expect![[r#""[::1]:8080""#]]);
}

#[test]
fn http_off_loopback_warns() {
    check(
        r#"http: { listen: 0.0.0.0:8080 }"#,
        expect![[r#"
        sluice.yaml:1:17: warning: `http.listen`: 0.0.0.0:8080 is open to the network, and whoever reaches it can publish
            1 | http: { listen: 0.0.0.0:8080 }
              |                 ^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn admin_off_loopback_is_refused() {
    check(
        r#"admin: { listen: 0.0.0.0:8081 }"#,
        expect![[r#"
        sluice.yaml:1:18: `admin.listen`: 0.0.0.0:8081 lets everyone on the network operate the broker: listen on 127.0.0.1, or say `open: true`
            1 | admin: { listen: 0.0.0.0:8081 }
              |                  ^^^^^^^^^^^^
    "#]],
    );
}

#[test]
fn admin_off_loopback_can_be_opened() {
    check(
        r#"admin: { listen: 0.0.0.0:8081, open: true }"#,
        expect![[r#"
        ok
    "#]],
    );
}

#[test]
fn open_is_a_boolean() {
    check(
        r#"admin: { listen: 0.0.0.0:8081, open: yes }"#,
        expect![[r#"
            sluice.yaml:1:18: `admin.listen`: 0.0.0.0:8081 lets everyone on the network operate the broker: listen on 127.0.0.1, or say `open: true`
                1 | admin: { listen: 0.0.0.0:8081, open: yes }
                  |                  ^^^^^^^^^^^^
            sluice.yaml:1:38: `open`: expected true or false, found `yes`
                1 | admin: { listen: 0.0.0.0:8081, open: yes }
                  |                                      ^^^
        "#]],
    );
}

#[test]
fn two_listeners_cannot_share_a_port() {
    check(
        r#"http: { listen: 127.0.0.1:8081 }"#,
        expect![[r#"
        sluice.yaml:1:1: `http` (127.0.0.1:8081) and `admin` (127.0.0.1:8081) listen on the same port
            1 | http: { listen: 127.0.0.1:8081 }
              | ^^^^
    "#]],
    );
}

#[test]
fn origins_are_dns_names() {
    check(
        r#"http: { webhook_origins: [ events.example.com, "https://example.com", "*" ] }"#,
        expect![[r#"
        sluice.yaml:1:48: `webhook_origins`: expected a DNS name such as events.example.com, without scheme and port, found `https://example.com`
            1 | http: { webhook_origins: [ events.example.com, "https://example.com", "*" ] }
              |                                                ^^^^^^^^^^^^^^^^^^^^^
        sluice.yaml:1:71: `webhook_origins`: expected a DNS name such as events.example.com, without scheme and port, found `*`
            1 | http: { webhook_origins: [ events.example.com, "https://example.com", "*" ] }
              |                                                                       ^^^
    "#]],
    );
}

#[test]
fn origins_are_lower_case() {
    shows(
        r#"http: { webhook_origins: [ Events.Example.COM ] }"#,
        "/http/webhook_origins",
        expect![[r#"["events.example.com"]"#]],
    );
}

#[test]
fn sizes_have_binary_units() {
    check(
        r#"limits: { event_bytes: 10Gib, batch_bytes: 5MB }"#,
        expect![[r#"
            sluice.yaml:1:24: `event_bytes`: expected a size in KiB, MiB, GiB or TiB, such as 64MiB (did you mean 10GiB?), found `10Gib`
                1 | limits: { event_bytes: 10Gib, batch_bytes: 5MB }
                  |                        ^^^^^
            sluice.yaml:1:44: `batch_bytes`: expected a size in KiB, MiB, GiB or TiB, such as 64MiB (did you mean 5MiB?), found `5MB`
                1 | limits: { event_bytes: 10Gib, batch_bytes: 5MB }
                  |                                            ^^^
        "#]],
    );
}

#[test]
fn sizes_have_a_range() {
    check(
        r#"limits: { event_bytes: 0, batch_bytes: 99999999999TiB, in_flight_bytes: -1 }"#,
        expect![[r#"
        sluice.yaml:1:24: `event_bytes`: expected a size from 256 to 256MiB, found `0`
            1 | limits: { event_bytes: 0, batch_bytes: 99999999999TiB, in_flight_bytes: -1 }
              |                        ^
        sluice.yaml:1:40: `batch_bytes`: expected a size from 256 to 4GiB, found `99999999999TiB`
            1 | limits: { event_bytes: 0, batch_bytes: 99999999999TiB, in_flight_bytes: -1 }
              |                                        ^^^^^^^^^^^^^^
        sluice.yaml:1:73: `in_flight_bytes`: expected a size in KiB, MiB, GiB or TiB, such as 64MiB, found `-1`
            1 | limits: { event_bytes: 0, batch_bytes: 99999999999TiB, in_flight_bytes: -1 }
              |                                                                         ^^
    "#]],
    );
}

#[test]
fn limits_fit_into_each_other() {
    check(
        r#"limits: { event_bytes: 16MiB, batch_bytes: 32MiB, in_flight_bytes: 20MiB }"#,
        expect![[r#"
        sluice.yaml:1:44: `batch_bytes` (32MiB) is above `in_flight_bytes` (20MiB)
            1 | limits: { event_bytes: 16MiB, batch_bytes: 32MiB, in_flight_bytes: 20MiB }
              |                                            ^^^^^
    "#]],
    );
}

#[test]
fn limits_that_are_not_named_fit_those_that_are() {
    let shown = |event: &str, batch: &str, in_flight: &str| {
        format!(
            r#"{{"batch_bytes":"{batch}","connections":4096,"event_bytes":"{event}","hops":16,"in_flight_bytes":"{in_flight}","put_aside_bytes":"16MiB"}}"#
        )
    };
    for (limits, event, batch, in_flight) in [
        ("event_bytes: 16MiB", "16MiB", "8MiB", "64MiB"),
        ("event_bytes: 100MiB", "100MiB", "8MiB", "100MiB"),
        ("batch_bytes: 64KiB", "1MiB", "64KiB", "64MiB"),
        ("in_flight_bytes: 4MiB", "1MiB", "4MiB", "4MiB"),
        ("in_flight_bytes: 256KiB", "256KiB", "256KiB", "256KiB"),
    ] {
        let text = format!("limits: {{ {limits} }}");
        let loaded = read(&text).unwrap_or_else(|errors| panic!("{limits}: {errors}"));
        assert_eq!(to_json(&loaded.config)["limits"].to_string(), shown(event, batch, in_flight), "{limits}");
    }
}

#[test]
fn plain_bytes_are_a_size() {
    shows(
        r#"limits: { event_bytes: 2048, hops: 3 }"#,
        "/limits",
        expect![[
            r#"{"batch_bytes":"8MiB","connections":4096,"event_bytes":"2KiB","hops":3,"in_flight_bytes":"64MiB","put_aside_bytes":"16MiB"}"#
        ]],
    );
}

#[test]
fn hops_have_a_range() {
    check(
        r#"limits: { hops: 0, connections: 1e309 }"#,
        expect![[r#"
        sluice.yaml:1:17: `hops`: expected a whole number from 1 to 255, found `0`
            1 | limits: { hops: 0, connections: 1e309 }
              |                 ^
        sluice.yaml:1:33: `connections`: expected a whole number from 1 to 1000000, found `1e309`
            1 | limits: { hops: 0, connections: 1e309 }
              |                                 ^^^^^
    "#]],
    );
}

#[test]
fn the_store_is_beside_its_file() {
    shows(r#"store: { dir: sub/data }"#, "/store/dir", expect![[r#""sub/data""#]]);
}

#[test]
fn segments_fit_into_the_store() {
    check(
        r#"store: { retention: { size: 100MiB }, segment: 64MiB }"#,
        expect![[r#"
        sluice.yaml:1:29: `retention.size` (100MiB) holds fewer than two segments (`segment`: 64MiB)
            1 | store: { retention: { size: 100MiB }, segment: 64MiB }
              |                             ^^^^^^
    "#]],
    );
}

#[test]
fn segments_that_have_to_be_larger_are_told() {
    check(
        r#"
store: { retention: { size: 16MiB }, segment: 1MiB }
"#,
        expect![[r#"
            sluice.yaml:2:29: warning: `retention.size` (16MiB) holds fewer than two segments, which have 17MiB, because what is stored at once (`limits.batch_bytes`: 8MiB) has to fit in half of one
                2 | store: { retention: { size: 16MiB }, segment: 1MiB }
                  |                             ^^^^^
            sluice.yaml:2:47: warning: `segment`: segments have 17MiB, because what is stored at once (`limits.batch_bytes`: 8MiB) has to fit in half of one
                2 | store: { retention: { size: 16MiB }, segment: 1MiB }
                  |                                               ^^^^
        "#]],
    );
    check(
        r#"store: { segment: 1MiB, retention: { size: 40MiB } }"#,
        expect![[r#"
        sluice.yaml:1:19: warning: `segment`: segments have 17MiB, because what is stored at once (`limits.batch_bytes`: 8MiB) has to fit in half of one
            1 | store: { segment: 1MiB, retention: { size: 40MiB } }
              |                   ^^^^
    "#]],
    );
    let source = "sources: { daily: { cron: { schedule: '0 0 * * *', timezone: UTC } } }\n";
    check(
        &format!("{source}store: {{ segment: 1MiB }}"),
        expect![[r#"
        sluice.yaml:2:19: warning: `segment`: segments have 33MiB, because what is stored at once (`limits.put_aside_bytes`: 16MiB) has to fit in half of one
            2 | store: { segment: 1MiB }
              |                   ^^^^
    "#]],
    );
    check("limits: { event_bytes: 4KiB, batch_bytes: 4KiB }\nstore: { segment: 1MiB }", expect!["ok\n"]);
    check(r#"store: { retention: { size: 100MiB } }"#, expect!["ok\n"]);
}

#[test]
fn a_small_store_has_small_segments() {
    for (retention, segment) in
        [("10GiB", "64MiB"), ("512MiB", "64MiB"), ("100MiB", "12800KiB"), ("24MiB", "3MiB")]
    {
        let limits = "limits: { event_bytes: 64KiB, batch_bytes: 512KiB }";
        let loaded = read(&format!("{limits}\nstore: {{ retention: {{ size: {retention} }} }}"));
        let loaded = loaded.unwrap_or_else(|errors| panic!("{retention}: {errors}"));
        assert_eq!(to_json(&loaded.config)["store"]["segment"], segment, "{retention}");
    }
}

#[test]
fn a_watermark_is_a_share() {
    check(
        r#"store: { watermark: { stop: 95, resume: 101% } }"#,
        expect![[r#"
        sluice.yaml:1:29: `stop`: expected a share from 1% to 100%, found `95`
            1 | store: { watermark: { stop: 95, resume: 101% } }
              |                             ^^
        sluice.yaml:1:41: `resume`: expected a share from 1% to 100%, found `101%`
            1 | store: { watermark: { stop: 95, resume: 101% } }
              |                                         ^^^^
    "#]],
    );
}

#[test]
fn intake_resumes_below_the_stop() {
    check(
        r#"store: { watermark: { stop: 80% } }"#,
        expect![[r#"
        sluice.yaml:1:29: `resume` (90%) must be below `stop` (80%)
            1 | store: { watermark: { stop: 80% } }
              |                             ^^^
    "#]],
    );
}

#[test]
fn on_damage_is_one_of_two() {
    check(
        r#"store: { on_damage: ignore }"#,
        expect![[r#"
        sluice.yaml:1:21: `on_damage`: expected refuse or skip, found `ignore`
            1 | store: { on_damage: ignore }
              |                     ^^^^^^
    "#]],
    );
}

#[test]
fn unknown_keys_of_sections() {
    check(
        r#"store: { retention: { ages: 7d }, dri: x }
htpp: {}
limits: { events: 1 }"#,
        expect![[r#"
            sluice.yaml:1:23: unknown key `ages` in `store.retention`: did you mean `age`?
                1 | store: { retention: { ages: 7d }, dri: x }
                  |                       ^^^^
            sluice.yaml:1:35: unknown key `dri` in `store`: did you mean `dir`?
                1 | store: { retention: { ages: 7d }, dri: x }
                  |                                   ^^^
            sluice.yaml:2:1: unknown key `htpp` in the file: did you mean `http`?
                2 | htpp: {}
                  | ^^^^
            sluice.yaml:3:11: unknown key `events` in `limits`: known keys are event_bytes, batch_bytes, in_flight_bytes, connections, hops, put_aside_bytes
                3 | limits: { events: 1 }
                  |           ^^^^^^
        "#]],
    );
}

#[test]
fn duplicates_can_be_off() {
    shows(r#"duplicates: off"#, "/duplicates", expect![[r#""off""#]]);
}

#[test]
fn duplicates_can_be_false() {
    shows(r#"duplicates: false"#, "/duplicates", expect![[r#""off""#]]);
}

#[test]
fn duplicates_cannot_be_on() {
    check(
        r#"duplicates: on"#,
        expect![[r#"
        sluice.yaml:1:13: `duplicates`: expected off, or a mapping such as { window: 10m }, found `on`
            1 | duplicates: on
              |             ^^
    "#]],
    );
}

#[test]
fn a_duplicate_window() {
    shows(r#"duplicates: { window: 2s }"#, "/duplicates", expect![[r#"{"entries":1000000,"window":"2s"}"#]]);
}

#[test]
fn dead_letters_can_have_an_age() {
    shows(r#"dead_letters: { age: 30d }"#, "/dead_letters", expect![[r#"{"age":"30d"}"#]]);
}

#[test]
fn shutdown_timeout_is_a_duration() {
    check(
        r#"shutdown_timeout: 20"#,
        expect![[r#"
        sluice.yaml:1:19: `shutdown_timeout`: the unit is missing: write ms, s, m, h or d after the number, found `20`
            1 | shutdown_timeout: 20
              |                   ^^
    "#]],
    );
}

#[test]
fn a_section_is_a_mapping() {
    check(
        r#"http: 127.0.0.1:8080
store: []"#,
        expect![[r#"
            sluice.yaml:1:7: `http`: expected a mapping such as { listen: ... }, found `127.0.0.1:8080`
                1 | http: 127.0.0.1:8080
                  |       ^^^^^^^^^^^^^^
            sluice.yaml:2:8: `store`: expected a mapping such as { dir: ... }, found a list
                2 | store: []
                  |        ^
        "#]],
    );
}
