//! What the fuzz targets check, under the stable compiler: each seed of `fuzz/corpus`, and a seeded burst of mutations of it.

mod cesql;
mod pattern;

use std::path::Path;

/// Of each target, in so many inputs a part compiles: the burst goes deeper than the parser.
const INPUTS: usize = 20_000;

/// Pieces that mean something to a parser.
const PIECES: [&str; 24] = [
    "(",
    ")",
    "'",
    "\"",
    "%",
    "_",
    "-",
    "0",
    "2147483648",
    "a",
    "\\",
    "\n",
    "=",
    " ",
    "☃",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "1e400",
    "\u{0}",
    "NOT ",
];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(folder).expect("a corpus");
    let mut paths: Vec<_> = files.map(|file| file.expect("a seed").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a seed")).collect()
}

/// Some cuts, insertions and repetitions in one seed, partly from another.
fn mutated(seeds: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut text = seeds[random.usize(..seeds.len())].clone();
    for _ in 0..random.usize(1..5) {
        let start = random.usize(..=text.len());
        let end = (start + random.usize(..12)).min(text.len());
        match random.u8(..4) {
            0 => drop(text.drain(start..end)),
            1 => {
                let repeated = text[start..end].to_vec();
                text.splice(start..start, repeated);
            }
            2 => {
                let piece = PIECES[random.usize(..PIECES.len())];
                text.splice(start..start, piece.bytes());
            }
            _ => {
                let other = &seeds[random.usize(..seeds.len())];
                let from = random.usize(..=other.len());
                let to = (from + random.usize(..12)).min(other.len());
                text.splice(start..start, other[from..to].iter().copied());
            }
        }
    }
    text
}

/// Runs a check over the corpus and the burst. A panic names its input.
fn burst(target: &str, check: impl Fn(&[u8]) -> bool + std::panic::RefUnwindSafe) {
    let seeds = seeds(target);
    assert!(seeds.len() > 10, "{target}: the corpus is gone");
    let mut random = fastrand::Rng::with_seed(4);
    let inputs: Vec<_> = (0..INPUTS).map(|_| mutated(&seeds, &mut random)).collect();
    let compiled = seeds.iter().chain(&inputs).filter(|input| {
        let outcome = std::panic::catch_unwind(|| check(input));
        outcome.unwrap_or_else(|_| panic!("{target}: {:?}", String::from_utf8_lossy(input)))
    });
    let compiled = compiled.count();
    assert!(compiled > INPUTS / 20, "{target}: of {INPUTS} inputs only {compiled} compile");
}

#[test]
fn cesql_stands_any_text() {
    burst("cesql", |input| std::str::from_utf8(input).is_ok_and(cesql::check));
}

#[test]
fn patterns_stand_any_text() {
    burst("pattern", pattern::check);
}
