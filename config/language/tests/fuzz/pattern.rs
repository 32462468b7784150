//! Patterns and data of any kind: the pattern on the first line, the data after it. Nothing panics, and what matches has one
//! of the pattern's terms.

use sluice_language::pattern::Pattern;
use sluice_language::{Facts, Paths, Subject};
use sluice_schemas::{DataForm, Event};

/// Whether the pattern compiled.
pub fn check(input: &[u8]) -> bool {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return false };
    let Ok(source) = serde_json::from_slice(&input[..end]) else { return false };
    let Ok(pattern) = Pattern::compile(&source) else { return false };
    let event =
        Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/s");
    let event = event.attribute("type", "t").data(input[end + 1..].to_vec(), DataForm::Opaque);
    let event = event.build().expect("valid");
    let facts = Facts::of(&event);
    let holds = pattern.holds(&facts);
    assert_eq!(pattern.failure(&facts).is_none(), holds == Ok(true));
    let Some(terms) = pattern.terms().filter(|_| holds == Ok(true)) else { return true };
    let mut paths = Paths::default();
    let mut wanted = Vec::new();
    for term in terms {
        let Subject::Data(path) = term.subject else { panic!("a term on an attribute") };
        wanted.push((paths.insert(&path), term.text));
    }
    let mut is_found = false;
    let mut look =
        |path: usize, key: &str| is_found |= wanted.iter().any(|term| term.0 == path && term.1 == key);
    facts.visit_data(&paths, &mut look).expect("JSON");
    assert!(is_found, "a match that no term finds");
    true
}
