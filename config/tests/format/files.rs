//! Several files as one configuration, secrets in files, and what a reload changes.

use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use sluice_config::{changes, load};

use crate::{environment, read, report};

/// Writes the files, loads the paths, and reports with the folder's name left out.
#[expect(clippy::needless_pass_by_value, reason = "`expect!` reads better at the call")]
fn check_files(files: &[(&str, &[u8])], paths: &[&str], expected: Expect) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        write(&folder.path().join(name), bytes);
    }
    let paths: Vec<PathBuf> = paths.iter().map(|path| folder.path().join(path)).collect();
    let loaded = load(&paths, &environment);
    let names = |path: &PathBuf| format!("{}\n", path.display());
    let read: String =
        loaded.as_ref().map(|loaded| loaded.files.iter().map(names).collect()).unwrap_or_default();
    let text = read + &report(loaded);
    expected.assert_eq(&text.replace(&format!("{}/", folder.path().display()), ""));
}

fn write(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

const A: &[u8] = b"triggers:\n  a: { sink: http://localhost/ }\n";
const B: &[u8] = b"triggers:\n  b: { sink: http://localhost/ }\n";

#[test]
fn a_directory_is_its_yaml_files_in_order() {
    let files: &[(&str, &[u8])] = &[
        ("conf/2.yml", B),
        ("conf/1.yaml", A),
        ("conf/1_test.yaml", b"no: configuration"),
        ("conf/notes.txt", b"no: configuration"),
        ("conf/below/3.yaml", b"no: configuration"),
    ];
    check_files(
        files,
        &["conf"],
        expect![[r#"
        conf/1.yaml
        conf/2.yml
        ok
    "#]],
    );
}

#[test]
fn a_link_to_nothing_is_an_error_and_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("1.yaml"), A);
    std::os::unix::fs::symlink("nowhere", folder.path().join("2.yaml")).unwrap();
    let text = report(load(&[folder.path().to_owned()], &environment));
    expect![[r#"
        2.yaml: cannot read the file: No such file or directory (os error 2)
    "#]]
    .assert_eq(&text.replace(&format!("{}/", folder.path().display()), ""));
}

#[test]
fn a_file_named_twice_is_read_once() {
    check_files(
        &[("conf/1.yaml", A)],
        &["conf/1.yaml", "conf"],
        expect![[r#"
        conf/1.yaml
        ok
    "#]],
    );
}

#[test]
fn a_trigger_defined_twice_names_both_places() {
    check_files(
        &[("one.yaml", A), ("more/two.yaml", A)],
        &["one.yaml", "more"],
        expect![[r#"
        more/two.yaml:2:3: trigger `a` is already defined at one.yaml:2:3
            2 |   a: { sink: http://localhost/ }
              |   ^
    "#]],
    );
}

#[test]
fn a_section_defined_twice_names_both_places() {
    let files: &[(&str, &[u8])] =
        &[("1.yaml", b"limits: { hops: 3 }\n"), ("2.yaml", b"\nlimits: { hops: 4 }\n")];
    check_files(
        files,
        &["1.yaml", "2.yaml"],
        expect![[r#"
        2.yaml:2:1: `limits` is already defined at 1.yaml:1:1
            2 | limits: { hops: 4 }
              | ^^^^^^
    "#]],
    );
}

#[test]
fn a_missing_file_is_named() {
    check_files(
        &[],
        &["missing.yaml"],
        expect![[r#"
        missing.yaml: cannot read the file: No such file or directory (os error 2)
    "#]],
    );
}

#[test]
fn a_directory_without_yaml_is_named() {
    check_files(
        &[("empty/notes.txt", b"")],
        &["empty"],
        expect![[r#"
        empty: the directory has no *.yaml or *.yml file
    "#]],
    );
}

#[test]
fn a_binary_file_is_named() {
    let bytes: Vec<u8> = (0..=255).collect();
    check_files(
        &[("binary.yaml", &bytes)],
        &["binary.yaml"],
        expect![[r#"
        binary.yaml:2:118: not UTF-8 text: the byte at position 128 is wrong
    "#]],
    );
}

#[test]
fn an_empty_file_is_named() {
    check_files(
        &[("empty.yaml", b"")],
        &["empty.yaml"],
        expect![[r#"
        empty.yaml: the file is empty
    "#]],
    );
}

#[test]
fn a_file_that_somebody_is_about_to_write_takes_nothing_away() {
    check_files(
        &[("a.yaml", A), ("b.yaml", b"\n")],
        &["a.yaml", "b.yaml"],
        expect![[r#"
        b.yaml: the file is empty
    "#]],
    );
}

#[test]
fn a_file_of_comments_beside_others_is_fine() {
    check_files(
        &[("a.yaml", A), ("b.yaml", b"# later\n")],
        &["a.yaml", "b.yaml"],
        expect![[r#"
        a.yaml
        b.yaml
        ok
    "#]],
    );
}

#[test]
fn a_large_file_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.yaml");
    std::fs::File::create(&path).unwrap().set_len(300 << 20).unwrap();
    let began = std::time::Instant::now();
    let text = report(load(&[path], &environment));
    assert!(began.elapsed().as_millis() < 100, "{:?}", began.elapsed());
    expect![[r#"
        large.yaml: larger than 1 MiB: split it into several files of one directory
    "#]]
    .assert_eq(&text.replace(&format!("{}/", folder.path().display()), ""));
}

#[test]
fn errors_of_all_files_come_together() {
    let files: &[(&str, &[u8])] =
        &[("1.yaml", b"limits: { hops: x }\n"), ("2.yaml", b"[\n"), ("3.yaml", b"htpp: {}\n")];
    check_files(
        files,
        &["1.yaml", "2.yaml", "3.yaml", "4.yaml"],
        expect![[r#"
        4.yaml: cannot read the file: No such file or directory (os error 2)
        1.yaml:1:17: `hops`: expected a whole number from 1 to 255, found `x`
            1 | limits: { hops: x }
              |                 ^
        2.yaml:1:1: unclosed bracket '['
            1 | [
              | ^
        3.yaml:1:1: unknown key `htpp` in the file: did you mean `http`?
            1 | htpp: {}
              | ^^^^
    "#]],
    );
}

fn with_secret(secret: &[u8], mode: u32) -> (String, Option<String>) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("conf/sluice.yaml");
    let yaml = br#"triggers: { t: { sink: { http: { url: http://localhost/, headers: { authorization: "Bearer ${file:secret}" } } } } }"#;
    write(&path, yaml);
    write(&folder.path().join("conf/secret"), secret);
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(folder.path().join("conf/secret"), permissions).unwrap();
    let loaded = load(&[path], &environment);
    let header = loaded.as_ref().ok().map(|loaded| match &loaded.config.triggers["t"].sink {
        sluice_config::Sink::Http(http) => http.headers[0].1.expose().to_owned(),
        _ => String::new(),
    });
    (report(loaded).replace(&format!("{}/", folder.path().display()), ""), header)
}

#[test]
fn a_secret_file_loses_one_line_break() {
    let (text, header) = with_secret(b"from-file\n", 0o600);
    assert_eq!((text.as_str(), header.as_deref()), ("ok\n", Some("Bearer from-file")));
}

#[test]
fn a_second_line_break_stays_and_makes_no_header() {
    expect![[r#"
        conf/sluice.yaml:1:84: header `authorization`: the value holds a line break or another control character
    "#]].assert_eq(&with_secret(b"from-file\n\n", 0o600).0);
}

#[test]
fn an_empty_secret_file_is_an_error() {
    expect![[r#"
        conf/sluice.yaml:1:92: `${file:secret}`: `conf/secret` is empty
            1 | nk: { http: { url: http://localhost/, headers: { authorization: "Bearer ${file:secret}" } } } } }
              |                                                                         ^^^^^^^^^^^^^^
    "#]].assert_eq(&with_secret(b"\n", 0o600).0);
}

#[test]
fn a_secret_that_everyone_can_read_warns() {
    expect![[r#"
        conf/sluice.yaml:1:92: warning: every user of this machine can read `conf/secret`: chmod o-r
            1 | nk: { http: { url: http://localhost/, headers: { authorization: "Bearer ${file:secret}" } } } } }
              |                                                                         ^^^^^^^^^^^^^^
    "#]].assert_eq(&with_secret(b"from-file\n", 0o644).0);
}

#[expect(clippy::needless_pass_by_value, reason = "`expect!` reads better at the call")]
fn check_changes(old: &str, new: &str, expected: Expect) {
    let [old, new] = [old, new].map(|yaml| read(yaml).unwrap_or_else(|errors| panic!("{errors}")).config);
    expected.assert_eq(&format!("{:?}", changes(&old, &new)));
}

#[test]
fn a_reload_names_triggers_that_differ() {
    let old = "triggers: { a: { sink: http://a/ }, b: { sink: http://b/ }, c: { sink: http://c/ } }";
    let new = "triggers: { b: { sink: http://b/new }, c: { sink: http://c/ }, d: { sink: http://d/ } }";
    check_changes(
        old,
        new,
        expect![[
            r#"Changes { added: ["d"], changed: ["b"], removed: ["a"], sources_added: [], sources_changed: [], sources_removed: [], refused: [] }"#
        ]],
    );
}

#[test]
fn a_reload_cannot_change_listeners_and_store() {
    let new = "http: { listen: 127.0.0.1:1 }\nadmin: { hosts: [a] }\nstore: { dir: b }\nlimits: { hops: 1 }";
    check_changes(
        "triggers: {}",
        new,
        expect![[
            r#"Changes { added: [], changed: [], removed: [], sources_added: [], sources_changed: [], sources_removed: [], refused: ["http", "admin", "store"] }"#
        ]],
    );
}

#[test]
fn a_secret_that_changed_is_a_change() {
    let yaml = |secret| {
        format!(
            "triggers: {{ t: {{ sink: {{ http: {{ url: http://h/, headers: {{ x-token: {secret} }} }} }} }} }}"
        )
    };
    check_changes(
        &yaml("a"),
        &yaml("b"),
        expect![[
            r#"Changes { added: [], changed: ["t"], removed: [], sources_added: [], sources_changed: [], sources_removed: [], refused: [] }"#
        ]],
    );
}

#[test]
fn the_hash_is_of_the_content() {
    let hash = |yaml: &str| read(yaml).unwrap().hash;
    let one = hash("# a\ntriggers: { a: { sink: http://a/ }, b: { sink: http://b/ } }");
    let same = hash("triggers:\n  b: { sink: { http: { url: http://b/ } } }\n  a: { sink: http://a/ }\n");
    let other = hash("triggers: { a: { sink: http://a/ } }");
    assert_eq!(one, same);
    assert_ne!(one, other);
}
