//! jq programs, in the dialect of jaq.
//!
//! A program can run for ever, use any amount of memory and recurse without end, and nothing inside the interpreter bounds
//! that. [`Program::run`] bounds what comes out: one result, of a certain size. Whoever runs programs on events has to bound
//! the rest from outside, and does so in a process of their own. What reaches outside the event is not there: no
//! environment, no files, no further input, no exit; `now` is.

use std::io::{self, Write};

use jaq_core::compile::Undefined;
use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Vars, data, load};
use jaq_json::{Val, read, write};

use crate::SyntaxError;

/// A program may have so many bytes.
pub const TEXT_BYTES_MAX: usize = 16 << 10;
/// What a program makes, as JSON text.
pub const RESULT_BYTES_MAX: usize = 32 << 20;
/// For compiling, and for running: nested brackets are nested calls. Only what is touched is ever allocated.
pub const STACK_BYTES: usize = 256 << 20;
/// In messages, a value is cut after this.
const ERROR_CHARS_MAX: usize = 300;

/// Native filters that reach outside the event, and the definitions that are made of them.
const NOT_HERE: [&str; 6] = ["env", "halt", "halt_error", "stderr", "stderr_empty", "input_filename"];

type Data = data::JustLut<Val>;

/// The text of a program that compiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jq {
    text: Box<str>,
}

impl Jq {
    /// Checks that a text is a program.
    pub fn compile(text: &str) -> Result<Self, SyntaxError> {
        if text.len() > TEXT_BYTES_MAX {
            let message = format!("a program of more than {} KiB", TEXT_BYTES_MAX >> 10);
            return Err(SyntaxError { at: 0, message });
        }
        let gone = |_| SyntaxError { at: 0, message: "the program cannot be compiled".into() };
        std::thread::scope(|scope| {
            let compile = || Program::compile(text).map(drop);
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, compile);
            let thread = thread.map_err(|error| SyntaxError {
                at: 0,
                message: format!("the program cannot be compiled now: {error}"),
            })?;
            thread.join().map_err(gone)?
        })?;
        Ok(Self { text: text.into() })
    }

    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A program that is ready to run, on a thread with a stack of [`STACK_BYTES`].
pub struct Program {
    filter: jaq_core::Filter<Data>,
}

impl Program {
    pub fn compile(text: &str) -> Result<Self, SyntaxError> {
        let here = |name: &str| !NOT_HERE.contains(&name);
        let definitions = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        let natives = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
        let arena = Arena::default();
        let modules = Loader::new(definitions.filter(|definition| here(definition.name)))
            .load(&arena, File { path: (), code: text })
            .map_err(|errors| load_error(text, errors))?;
        load::import(&modules, |_| Err("there are no files here".into()))
            .map_err(|errors| load_error(text, errors))?;
        let filter = Compiler::default()
            .with_funs(natives.filter(|(name, ..)| here(name)))
            .compile(modules)
            .map_err(|errors| {
                let first = errors.into_iter().flat_map(|(_, errors)| errors).next();
                let (found, undefined) = first.unwrap_or(("", Undefined::Mod));
                error_at(text, found, missing(found, &undefined))
            })?;
        Ok(Self { filter })
    }

    /// Runs the program on JSON text. An error is for people.
    pub fn run(&self, input: &[u8]) -> Result<Vec<u8>, String> {
        let input = read::parse_single(input).map_err(|error| format!("cannot read the event: {error}"))?;
        let context = Ctx::<Data>::new(&self.filter.lut, Vars::new([]));
        let mut results = self.filter.id.run((context, input)).map(jaq_core::unwrap_valr);
        let result = match results.next() {
            None => return Err("the program has no result, and must have one".into()),
            Some(Err(error)) => return Err(error_text(error)),
            Some(Ok(result)) => result,
        };
        match results.next() {
            None => {}
            Some(Err(error)) => return Err(error_text(error)),
            Some(Ok(_)) => return Err("the program has more than one result".into()),
        }
        let Val::Obj(members) = result else {
            return Err(format!(
                "the result is no event: expected an object, found {}",
                shorten(&result.to_string())
            ));
        };
        let mut members = std::rc::Rc::unwrap_or_clone(members);
        let version = Val::utf8_str("specversion");
        if !members.contains_key(&version) {
            members.insert(version, Val::utf8_str("1.0"));
        }
        let mut json = Bounded(Vec::new());
        write::write(&mut json, &write::Pp::default(), 0, &Val::obj(members))
            .map_err(|_| format!("the result has more than {} MiB", RESULT_BYTES_MAX >> 20))?;
        Ok(json.0)
    }
}

fn load_error(text: &str, errors: load::Errors<&str, ()>) -> SyntaxError {
    let Some((_, error)) = errors.into_iter().next() else {
        return SyntaxError { at: 0, message: "the program cannot be read".into() };
    };
    match error {
        load::Error::Io(errors) => match errors.first() {
            Some((path, why)) => error_at(text, path, why.clone()),
            None => SyntaxError { at: 0, message: "there are no files here".into() },
        },
        load::Error::Lex(errors) => match errors.first() {
            Some((expected, found)) => error_at(text, found, found_instead(expected.as_str(), found)),
            None => SyntaxError { at: 0, message: "the program cannot be read".into() },
        },
        load::Error::Parse(errors) => match errors.first() {
            Some((expected, found)) => error_at(text, found, found_instead(expected.as_str(), found)),
            None => SyntaxError { at: 0, message: "the program cannot be read".into() },
        },
    }
}

fn missing(name: &str, undefined: &Undefined) -> String {
    let name = shorten(name);
    match undefined {
        Undefined::Filter(0) => format!("there is no filter `{name}`"),
        Undefined::Filter(arguments) => format!("there is no filter `{name}` with {arguments} arguments"),
        other => format!("there is no {} `{name}`", other.as_str()),
    }
}

/// The text of an error that the program made, or the interpreter for it.
fn error_text(error: jaq_json::Error) -> String {
    match error.into_val() {
        Val::TStr(text) => shorten(&String::from_utf8_lossy(&text)),
        value => shorten(&value.to_string()),
    }
}

fn found_instead(expected: &str, found: &str) -> String {
    let found = found.split_whitespace().next().unwrap_or("");
    if found.is_empty() {
        return format!("expected {expected}, found the end of the program");
    }
    format!("expected {expected}, found `{}`", shorten(&found.chars().take(20).collect::<String>()))
}

/// `found` is a part of the text, or a text of its own when the fault is at the end.
fn error_at(text: &str, found: &str, message: String) -> SyntaxError {
    let offset = found.as_ptr().addr().wrapping_sub(text.as_ptr().addr());
    let is_within = offset <= text.len() && text.is_char_boundary(offset);
    SyntaxError { at: if is_within { offset } else { text.len() }, message }
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(ERROR_CHARS_MAX).collect();
    if text.chars().nth(ERROR_CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > RESULT_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(programs: &[&str], expected: &Expect) {
        let shown = |text: &&str| match Jq::compile(text) {
            Ok(_) => format!("{text}  ->  ok\n"),
            Err(error) => format!("{text}  ->  {}: {error}\n", error.at),
        };
        expected.assert_eq(&programs.iter().map(shown).collect::<String>());
    }

    #[test]
    fn errors_have_a_place_and_say_what_was_expected() {
        check(
            &[
                ".",
                "",
                ".data | {",
                ".data | frobnicate",
                ".data +",
                ".data ]",
                "\"abc",
                ".a as $x | $y",
                "include \"x\"; .",
                "import \"x\" as $x; .",
                "map(1; 2)",
            ],
            &expect![[r#"
                .  ->  ok
                  ->  0: expected term, found the end of the program
                .data | {  ->  9: expected closing brace, found the end of the program
                .data | frobnicate  ->  8: there is no filter `frobnicate`
                .data +  ->  7: expected term, found the end of the program
                .data ]  ->  6: expected token, found `]`
                "abc  ->  4: expected closing quote, found the end of the program
                .a as $x | $y  ->  11: there is no variable `$y`
                include "x"; .  ->  9: module loading not supported
                import "x" as $x; .  ->  8: there are no files here
                map(1; 2)  ->  0: there is no filter `map` with 2 arguments
            "#]],
        );
    }

    #[test]
    fn nothing_outside_the_event_can_be_reached() {
        check(
            &[
                "env",
                "$ENV",
                "$__prog_args",
                "halt",
                "halt_error",
                "input",
                "inputs",
                "stderr",
                "input_filename",
                "now",
                "debug",
            ],
            &expect![[r#"
                env  ->  0: there is no filter `env`
                $ENV  ->  0: there is no variable `$ENV`
                $__prog_args  ->  0: there is no variable `$__prog_args`
                halt  ->  0: there is no filter `halt`
                halt_error  ->  0: there is no filter `halt_error`
                input  ->  0: there is no filter `input`
                inputs  ->  0: there is no filter `inputs`
                stderr  ->  0: there is no filter `stderr`
                input_filename  ->  0: there is no filter `input_filename`
                now  ->  ok
                debug  ->  ok
            "#]],
        );
    }

    #[test]
    fn a_program_that_nests_as_deep_as_its_length_allows_does_not_overflow() {
        for (open, close) in [("(", ")"), ("[", "]"), ("{a:", "}")] {
            let depth = TEXT_BYTES_MAX / (open.len() + close.len()) - 1;
            let text = format!("{}.{}", open.repeat(depth), close.repeat(depth));
            assert!(Jq::compile(&text).is_ok());
        }
        let others = ["-", "try ", "if . then ", "def f: ", ". as $x | ", ".|", "reduce . as $x ("];
        for other in others {
            let _ = Jq::compile(&other.repeat(TEXT_BYTES_MAX / other.len()));
        }
        assert!(Jq::compile(&".".repeat(TEXT_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_result_that_is_too_large_is_an_error() {
        let program = Program::compile("{id: (\"x\" * 33554432)}").expect("compiles");
        assert_eq!(program.run(b"null"), Err("the result has more than 32 MiB".into()));
    }
}
