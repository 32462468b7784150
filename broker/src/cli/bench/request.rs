//! Requests written out once; only the ids in them change.

use crate::cli::connection::Endpoint;

use super::Mode;

const SEQUENCE_DIGITS: usize = 12;
const DUE_DIGITS: usize = 16;
const STAMP_BYTES: usize = SEQUENCE_DIGITS + 1 + DUE_DIGITS;

/// What the ids of one run have in common, so that no other run's event is taken for one of it.
#[derive(Clone, Debug)]
pub struct Run {
    prefix: String,
}

/// What an id says: the how-manieth event of the run it is, and when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub sequence: u64,
    pub due_ns: u64,
}

impl Run {
    pub fn new() -> Self {
        Self { prefix: format!("bench-{:016x}-", fastrand::u64(..)) }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Reads what follows the prefix of an id.
    pub fn stamp(after_prefix: &[u8]) -> Option<Stamp> {
        let stamp = after_prefix.get(..STAMP_BYTES)?;
        let sequence = number(&stamp[..SEQUENCE_DIGITS])?;
        Some(Stamp { sequence, due_ns: number(&stamp[SEQUENCE_DIGITS + 1..])? })
    }
}

/// A whole HTTP request with places where the ids of its events stand.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    stamps: Vec<usize>,
}

impl Template {
    pub fn new(run: &Run, endpoint: &Endpoint, mode: Mode, data_bytes: usize) -> Self {
        let id = format!("{}{}", run.prefix, "0".repeat(STAMP_BYTES));
        let data = data(data_bytes);
        let event = || {
            let member = if data.is_empty() { String::new() } else { format!(r#","data":{data}"#) };
            format!(
                r#"{{"specversion":"1.0","id":"{id}","source":"/bench","type":"com.example.bench","datacontenttype":"application/json"{member}}}"#
            )
        };
        let (headers, body) = match mode {
            Mode::Binary => (
                format!(
                    "ce-specversion: 1.0\r\nce-id: {id}\r\nce-source: /bench\r\nce-type: com.example.bench\r\n\
                     content-type: application/json\r\n"
                ),
                data,
            ),
            Mode::Structured => {
                ("content-type: application/cloudevents+json; charset=utf-8\r\n".into(), event())
            }
            Mode::Batch(events) => (
                "content-type: application/cloudevents-batch+json; charset=utf-8\r\n".into(),
                format!("[{}]", vec![event(); events].join(",")),
            ),
        };
        let bytes = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\n{headers}content-length: {}\r\n\r\n{body}",
            endpoint.path(),
            endpoint.address(),
            body.len()
        )
        .into_bytes();
        let stamps = memchr::memmem::find_iter(&bytes, &run.prefix).map(|at| at + run.prefix.len()).collect();
        Self { bytes, stamps }
    }

    /// How many events a request carries.
    pub fn events(&self) -> usize {
        self.stamps.len()
    }

    /// The request with its events numbered from `first` on.
    pub fn stamped(&mut self, first: u64, due_ns: u64) -> &[u8] {
        for (sequence, at) in (first..).zip(&self.stamps) {
            let stamp = &mut self.bytes[*at..*at + STAMP_BYTES];
            write(&mut stamp[..SEQUENCE_DIGITS], sequence);
            stamp[SEQUENCE_DIGITS] = b'-';
            write(&mut stamp[SEQUENCE_DIGITS + 1..], due_ns);
        }
        &self.bytes
    }
}

/// JSON of exactly so many bytes.
fn data(bytes: usize) -> String {
    match bytes {
        0 => String::new(),
        1 => "0".into(),
        _ => format!("\"{}\"", "x".repeat(bytes - 2)),
    }
}

fn write(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::{Run, Stamp, Template};
    use crate::cli::bench::Mode;
    use crate::cli::connection::Endpoint;

    fn check(mode: Mode, data_bytes: usize) -> Vec<Stamp> {
        let run = Run::new();
        let endpoint = Endpoint::parse("broker:1/events").unwrap();
        let mut template = Template::new(&run, &endpoint, mode, data_bytes);
        let request = template.stamped(41, 7_000_000_123).to_vec();
        let text = std::str::from_utf8(&request).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /events HTTP/1.1\r\nhost: broker:1\r\n"), "{head}");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        match mode {
            Mode::Binary => assert_eq!(body.len(), data_bytes),
            Mode::Structured | Mode::Batch(_) => {
                serde_json::from_str::<serde_json::Value>(body).unwrap();
            }
        }
        let ids = text.match_indices(run.prefix()).map(|(at, prefix)| &request[at + prefix.len()..]);
        ids.map(|after| Run::stamp(after).unwrap()).collect()
    }

    #[test]
    fn an_id_says_which_event_it_is_and_when_it_was_due() {
        let stamp = |sequence| Stamp { sequence, due_ns: 7_000_000_123 };
        for data_bytes in [0, 1, 2, 1024] {
            assert_eq!(check(Mode::Binary, data_bytes), [stamp(41)]);
            assert_eq!(check(Mode::Structured, data_bytes), [stamp(41)]);
            assert_eq!(check(Mode::Batch(3), data_bytes), [stamp(41), stamp(42), stamp(43)]);
        }
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        assert_eq!(Run::stamp(b"000000000041-00000000000x0123"), None);
        assert_eq!(Run::stamp(b"000000000041"), None);
    }
}
