#![no_main]

#[path = "../../tests/fuzz/pattern.rs"]
mod pattern;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    pattern::check(input);
});
