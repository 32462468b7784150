//! Files that are shipped load.

use std::path::Path;

use expect_test::expect;
use sluice_config::{Sink, load, starter};

use crate::{check, environment, read, report};

#[test]
fn the_starter_loads() {
    check(
        starter(),
        expect![[r#"
        ok
    "#]],
    );
}

#[test]
fn the_starter_loads_with_its_suggestions() {
    // Commented keys are indented by `# ` and nothing more; prose begins with a capital letter.
    let suggestion = |line: &str| {
        let (indent, text) = line.split_once("# ")?;
        let is_key =
            indent.trim().is_empty() && !text.trim_start().starts_with(|c: char| c.is_ascii_uppercase());
        (is_key && !text.contains("sluice ")).then(|| format!("{indent}{text}"))
    };
    let lines = starter().lines().map(|line| suggestion(line).unwrap_or_else(|| line.to_owned()));
    let yaml = lines.collect::<Vec<_>>().join("\n").replace("ORDERS_TOKEN", "TOKEN");
    let yaml = yaml.replace("GITHUB_SECRET", "TOKEN").replace("STRIPE_SECRET", "TOKEN");
    let loaded = read(&yaml).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.config.triggers.keys().collect::<Vec<_>>(), ["big-orders", "everything"]);
    assert_eq!(loaded.config.sources.keys().collect::<Vec<_>>(), ["github", "nightly", "orders", "stripe"]);
}

#[test]
fn every_example_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut names: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["functions.yaml", "quickstart.yaml"]);
    for name in names {
        assert_eq!(report(load(&[folder.join(&name)], &environment)), "ok\n", "{name:?}");
    }
}

#[test]
fn the_quickstart_prints_everything() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart.yaml");
    let config = load(&[path], &environment).unwrap().config;
    assert_eq!(config.triggers["everything"].sink, Sink::Stdout);
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert!(config.store.dir.ends_with("examples/data"), "{:?}", config.store.dir);
}
