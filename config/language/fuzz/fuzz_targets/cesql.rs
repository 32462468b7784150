#![no_main]

#[path = "../../tests/fuzz/cesql.rs"]
mod cesql;

libfuzzer_sys::fuzz_target!(|input: &str| {
    cesql::check(input);
});
