//! JSON documents one behind the other: one a line as a rule, and over several lines where one is written so. A line that is
//! no JSON is told and passed over.

use std::collections::VecDeque;
use std::io::{BufRead, Cursor, Read};

use serde::Deserialize;
use serde_json::Deserializer;
use serde_json::value::RawValue;

/// What cannot be read as a document.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    #[error("line {line}: not JSON: {message}")]
    Wrong { line: usize, message: String },
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// The documents of a text.
pub struct Documents {
    input: Input,
    /// Lines that were read.
    line: usize,
    /// Those of the line read last.
    ready: VecDeque<Box<RawValue>>,
}

impl Documents {
    pub fn of(reader: Box<dyn BufRead>) -> Self {
        Self {
            input: Input { back: Cursor::default(), reader, taken: Vec::new() },
            line: 0,
            ready: VecDeque::new(),
        }
    }

    /// The next document; `None` at the end.
    pub fn next(&mut self) -> Option<Result<Box<RawValue>, Unread>> {
        loop {
            if let Some(document) = self.ready.pop_front() {
                return Some(Ok(document));
            }
            let line = match self.input.line() {
                Ok(line) if line.is_empty() => return None,
                Ok(line) => line,
                Err(error) => return Some(Err(error.into())),
            };
            self.line += 1;
            if let Err(unread) = self.read(&line) {
                return Some(Err(unread));
            }
        }
    }

    fn read(&mut self, line: &[u8]) -> Result<(), Unread> {
        let mut documents = Deserializer::from_slice(line).into_iter::<Box<RawValue>>();
        let mut start = 0;
        while let Some(document) = documents.next() {
            match document {
                Ok(document) => self.ready.push_back(document),
                Err(error) if error.is_eof() => {
                    let open = self.open(&line[start..]);
                    return open.map_err(|rest| rest.unwrap_or_else(|| wrong(self.line, &error)));
                }
                Err(error) => return Err(wrong(self.line, &error)),
            }
            start = documents.byte_offset();
        }
        Ok(())
    }

    /// Reads a document that goes on behind its line. If it comes to nothing, the lines behind are documents of their own.
    fn open(&mut self, line: &[u8]) -> Result<(), Option<Unread>> {
        self.input.taken.clear();
        let read = {
            let reader = Cursor::new(line).chain(&mut self.input);
            Box::<RawValue>::deserialize(&mut Deserializer::from_reader(reader))
        };
        let taken = std::mem::take(&mut self.input.taken);
        match read {
            Ok(document) => {
                self.line += taken.iter().filter(|byte| **byte == b'\n').count();
                self.ready.push_back(document);
                Ok(())
            }
            Err(error) if error.is_io() => Err(Some(Unread::Io(error.into()))),
            Err(_) => {
                self.input.give_back(taken);
                Err(None)
            }
        }
    }
}

fn wrong(line: usize, error: &serde_json::Error) -> Unread {
    let message = error.to_string();
    let message = match message.split(" at line ").next().unwrap_or_default() {
        message if message.starts_with("EOF while parsing") => "it ends too early".to_owned(),
        "expected ident" => format!("expected a value at column {}", error.column()),
        message => format!("{message} at column {}", error.column()),
    };
    Unread::Wrong { line, message }
}

/// A reader that bytes can be given back to.
struct Input {
    back: Cursor<Vec<u8>>,
    reader: Box<dyn BufRead>,
    /// What was read since this was emptied, lines apart.
    taken: Vec<u8>,
}

impl Input {
    /// The next line, its end included; empty at the end.
    fn line(&mut self) -> std::io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.back.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            self.reader.read_until(b'\n', &mut line)?;
        }
        Ok(line)
    }

    fn give_back(&mut self, mut bytes: Vec<u8>) {
        bytes.extend_from_slice(&self.back.get_ref()[self.back.position() as usize..]);
        self.back = Cursor::new(bytes);
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut count = self.back.read(buffer)?;
        if count == 0 {
            count = self.reader.read(buffer)?;
        }
        self.taken.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::Documents;

    fn read(text: &'static str) -> Vec<String> {
        let mut documents = Documents::of(Box::new(text.as_bytes()));
        let next = || documents.next();
        let shown = std::iter::from_fn(next).map(|document| match document {
            Ok(document) => document.get().to_owned(),
            Err(error) => error.to_string(),
        });
        shown.collect()
    }

    #[test]
    fn documents_stand_on_a_line_or_several_or_several_on_a_line() {
        assert_eq!(read(""), [""; 0]);
        assert_eq!(read("\n\n  \n"), [""; 0]);
        assert_eq!(read("{\"a\":1}\n\n[2]"), ["{\"a\":1}", "[2]"]);
        assert_eq!(read("{}{} {}\n{}"), ["{}"; 4]);
        assert_eq!(read("{} {\n \"a\":\n1\n} {}\n3"), ["{}", "{\n \"a\":\n1\n}", "{}", "3"]);
    }

    #[test]
    fn a_line_that_is_no_json_is_passed_over_alone() {
        let wrong = "line 2: not JSON: expected a value at column 2";
        assert_eq!(read("{}\nnot json\n{}"), ["{}", wrong, "{}"]);
        let cut = "line 2: not JSON: it ends too early";
        assert_eq!(read("{}\n{\"a\":1\n{\"b\":1}\n[3]"), ["{}", cut, "{\"b\":1}", "[3]"]);
        assert_eq!(read("{}\n{\"a\":[\n{\"b\":1}\n{}\n[3]"), ["{}", cut, "{\"b\":1}", "{}", "[3]"]);
        assert_eq!(read("{\"a\":1"), ["line 1: not JSON: it ends too early"]);
    }
}
