//! CESQL beside tables of its specification.

mod compare;
mod differences;
mod generate;
mod oracle;
mod tck;

use std::path::Path;

/// Tables of this repository, written from the specification.
const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/cesql");

fn check(dir: &Path) {
    let tally = tck::run(dir);
    assert!(tally.failures.is_empty(), "{} failed:\n{}", tally.failures.len(), tally.failures.join("\n"));
}

#[test]
fn own_tables_pass() {
    check(Path::new(OWN));
}

/// `CESQL_TCK_DIR` names a directory with the public suite, or a part of it.
#[test]
fn the_suite_that_is_given_passes() {
    match std::env::var_os("CESQL_TCK_DIR") {
        Some(dir) => check(Path::new(&dir)),
        None => println!("CESQL_TCK_DIR is not set: the tables of this repository only"),
    }
}
