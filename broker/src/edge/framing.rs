//! Follows the bytes of a connection through heads and bodies, so that every head is found and nothing else is
//! taken for one.

use super::EdgeLimits;
use super::head::{Body, Head, Progress, Refusal};

/// Bytes of the extensions of one chunk.
const EXTENSION_BYTES_MAX: usize = 1024;
/// Bytes of the trailers of one body.
const TRAILER_BYTES_MAX: usize = 16 << 10;
const SIZE_DIGITS_MAX: u8 = 15;

/// The first `bytes` may go on to hyper; what happens with the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) bytes: usize,
    pub(super) rest: Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// There is none.
    Nothing,
    /// The beginning of a head: to be kept and shown again with what follows.
    Hold,
    /// Empty lines before a head.
    Skip,
    Refuse(Refusal),
    /// A chunked body that is none.
    BadChunk,
}

#[derive(Debug)]
pub(super) struct Framing {
    limits: EdgeLimits,
    state: State,
    heads: u64,
}

#[derive(Debug)]
enum State {
    Head(Head),
    Length(u64),
    Chunked(Chunks),
    /// Refused or broken: nothing that follows means anything.
    Over,
}

impl Framing {
    pub(super) fn new(limits: EdgeLimits) -> Self {
        Self { limits, state: State::Head(Head::default()), heads: 0 }
    }

    /// How many heads were passed.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether the bytes so far end where a request ends, or within a head.
    pub(super) fn is_between_bodies(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    pub(super) fn abandon(&mut self) {
        self.state = State::Over;
    }

    /// Reads on. `bytes` begins with what was to be held the last time.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Pass {
        let mut at = 0;
        while at < bytes.len() {
            let left = &bytes[at..];
            match &mut self.state {
                State::Head(head) => match head.scan(left, &self.limits) {
                    Ok(Progress::Complete { bytes: length, body }) => {
                        at += length;
                        self.heads += 1;
                        self.state = match body {
                            Body::Length(0) => State::Head(Head::default()),
                            Body::Length(length) => State::Length(length),
                            Body::Chunked => State::Chunked(Chunks::default()),
                        };
                    }
                    Ok(Progress::Incomplete) => return Pass { bytes: at, rest: Rest::Hold },
                    Ok(Progress::Blank) => {
                        self.state = State::Head(Head::default());
                        return Pass { bytes: at, rest: Rest::Skip };
                    }
                    Err(refusal) => {
                        self.state = State::Over;
                        return Pass { bytes: at, rest: Rest::Refuse(refusal) };
                    }
                },
                State::Length(length) => {
                    let taken = usize::try_from(*length).map_or(left.len(), |length| length.min(left.len()));
                    at += taken;
                    *length -= taken as u64;
                    if *length == 0 {
                        self.state = State::Head(Head::default());
                    }
                }
                State::Chunked(chunks) => match chunks.advance(left) {
                    Ok(taken) => {
                        at += taken;
                        if *chunks == Chunks::End {
                            self.state = State::Head(Head::default());
                        }
                    }
                    Err(BadChunk) => {
                        self.state = State::Over;
                        return Pass { bytes: at, rest: Rest::BadChunk };
                    }
                },
                State::Over => return Pass { bytes: at, rest: Rest::Skip },
            }
        }
        Pass { bytes: at, rest: Rest::Nothing }
    }
}

#[derive(Debug)]
struct BadChunk;

/// Where in a chunked body (RFC 9112, section 7.1) the next byte stands. Never laxer than hyper: if both accept,
/// both see the same end.
#[derive(Debug, PartialEq, Eq)]
enum Chunks {
    Size {
        digits: u8,
        value: u64,
    },
    Extension {
        bytes: usize,
        value: u64,
    },
    SizeLineFeed {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataReturn,
    DataLineFeed,
    /// In the trailers: bytes so far, bytes of this line, whether the last one was a carriage return.
    Trailers {
        bytes: usize,
        line: usize,
        returned: bool,
    },
    End,
}

impl Default for Chunks {
    fn default() -> Self {
        Self::Size { digits: 0, value: 0 }
    }
}

impl Chunks {
    /// Reads until the body or the bytes end; returns how many were read.
    fn advance(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut at = 0;
        while at < bytes.len() && *self != Self::End {
            if let Self::Data { left } = self {
                let rest = bytes.len() - at;
                let taken = usize::try_from(*left).map_or(rest, |left| left.min(rest));
                at += taken;
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::DataReturn;
                }
                continue;
            }
            self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<(), BadChunk> {
        *self = match (&*self, byte) {
            (&Self::Size { digits, value }, _) if byte.is_ascii_hexdigit() && digits < SIZE_DIGITS_MAX => {
                Self::Size { digits: digits + 1, value: value << 4 | hex(byte) }
            }
            (&Self::Size { digits: 1.., value }, b'\r') => Self::SizeLineFeed { value },
            (&Self::Size { digits: 1.., value }, b';' | b' ' | b'\t') => Self::Extension { bytes: 1, value },
            (&Self::Extension { value, .. }, b'\r') => Self::SizeLineFeed { value },
            (&Self::Extension { bytes, value }, _) if byte != b'\n' && bytes < EXTENSION_BYTES_MAX => {
                Self::Extension { bytes: bytes + 1, value }
            }
            (Self::SizeLineFeed { value: 0 }, b'\n') => Self::Trailers { bytes: 0, line: 0, returned: false },
            (&Self::SizeLineFeed { value }, b'\n') => Self::Data { left: value },
            (Self::DataReturn, b'\r') => Self::DataLineFeed,
            (Self::DataLineFeed, b'\n') => Self::default(),
            (&Self::Trailers { line: 0, returned: true, .. }, b'\n') => Self::End,
            (&Self::Trailers { bytes, returned: true, .. }, b'\n') if bytes < TRAILER_BYTES_MAX => {
                Self::Trailers { bytes: bytes + 1, line: 0, returned: false }
            }
            (&Self::Trailers { bytes, line, returned: false }, _)
                if byte != b'\n' && bytes < TRAILER_BYTES_MAX =>
            {
                let returned = byte == b'\r';
                Self::Trailers { bytes: bytes + 1, line: line + usize::from(!returned), returned }
            }
            _ => return Err(BadChunk),
        };
        Ok(())
    }
}

fn hex(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds pieces the way a guard does; what was passed on, and how it ended.
    fn run<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, String) {
        let mut framing = Framing::new(EdgeLimits {
            headers: 4,
            header_bytes: 60,
            target_bytes: 20,
            ..EdgeLimits::default()
        });
        let (mut passed, mut held) = (Vec::new(), Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            let pass = framing.advance(&held);
            passed.extend(held.drain(..pass.bytes));
            match pass.rest {
                Rest::Hold => continue,
                Rest::Nothing | Rest::Skip => held.clear(),
                Rest::Refuse(refusal) => return (passed, format!("{} heads; {refusal}", framing.heads())),
                Rest::BadChunk => return (passed, format!("{} heads; bad chunk", framing.heads())),
            }
        }
        let place = match (held.is_empty(), framing.is_between_bodies()) {
            (false, _) => "in a head",
            (true, true) => "between requests",
            (true, false) => "in a body",
        };
        (passed, format!("{} heads; {place}", framing.heads()))
    }

    /// The end is the same however the bytes are cut.
    #[track_caller]
    fn check(input: &str, expected: &str) {
        let input = input.as_bytes();
        assert_eq!(run([input].into_iter()).1, expected, "whole");
        assert_eq!(run(input.chunks(1)).1, expected, "byte by byte");
        for at in 0..=input.len() {
            let (first, second) = input.split_at(at);
            assert_eq!(run([first, second].into_iter()).1, expected, "cut at {at}");
        }
    }

    const HEAD: &str = "POST / HTTP/1.1\r\nhost: x\r\n";

    #[test]
    fn heads_are_found_behind_bodies() {
        check("", "0 heads; between requests");
        check("POST", "0 heads; in a head");
        check(&format!("{HEAD}\r\n{HEAD}\r\n"), "2 heads; between requests");
        check(&format!("{HEAD}content-length: 3\r\n\r\nab"), "1 heads; in a body");
        check(&format!("{HEAD}content-length: 3\r\n\r\na\n\n{HEAD}\r\n"), "2 heads; between requests");
        let chunked = format!("{HEAD}transfer-encoding: chunked\r\n\r\n");
        check(&format!("{chunked}A;x=y\r\n0123456789\r\n0\r\n\r\n{HEAD}\r\n"), "2 heads; between requests");
        check(&format!("{chunked}1 \r\na\r\n00\r\nt: 1\r\nu: 2\r\n\r\n{HEAD}"), "1 heads; in a head");
        check(&format!("{chunked}1\r\na\r\n0\r\nt"), "1 heads; in a body");
    }

    #[test]
    fn look_alikes_in_bodies_are_no_heads() {
        let alike = "\r\n\r\nPOST / HTTP/1.1\nTransfer-Encoding: gzip\n\n";
        let length = alike.len();
        check(
            &format!("{HEAD}content-length: {length}\r\n\r\n{alike}{HEAD}\r\n"),
            "2 heads; between requests",
        );
        check(
            &format!("{HEAD}transfer-encoding: chunked\r\n\r\n{length:x}\r\n{alike}\r\n0\r\n\r\n{HEAD}\r\n"),
            "2 heads; between requests",
        );
    }

    #[test]
    fn empty_lines_before_a_request_are_no_head() {
        check("\r\n", "0 heads; between requests");
        check(&format!("\r\n\r\n{HEAD}\r\n\r\n"), "1 heads; between requests");
        check("\n", "0 heads; a line of the request head ends with a bare line feed");
    }

    #[test]
    fn what_is_passed_is_what_came_up_to_a_refusal() {
        let sound = format!("{HEAD}content-length: 2\r\n\r\nab");
        let input = format!("{sound}{HEAD}a : b\r\n\r\n{sound}");
        for pieces in 1..input.len() {
            assert_eq!(run(input.as_bytes().chunks(pieces)).0, sound.as_bytes());
        }
    }

    #[test]
    fn two_framings_are_refused_in_either_order() {
        let expected = "0 heads; Transfer-Encoding and Content-Length exclude each other";
        check(&format!("{HEAD}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n"), expected);
        check(&format!("{HEAD}transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n"), expected);
    }

    #[test]
    fn limits_hold_before_a_head_is_whole() {
        check(
            &format!("{HEAD}a: {}", "b".repeat(60)),
            "0 heads; the request has more than 60 bytes of headers",
        );
        check(&format!("{HEAD}{}", "a: b\r\n".repeat(4)), "0 heads; the request has more than 4 headers");
        check(
            &format!("GET /{} HTTP/1.1\r\n", "a".repeat(20)),
            "0 heads; the request target is longer than 20 bytes",
        );
        check(&format!("GET /{}", "a".repeat(70)), "0 heads; the request target is longer than 20 bytes");
        check("\u{16}\u{3}\u{1}", "0 heads; the first line is not an HTTP request line");
    }

    #[test]
    fn what_hyper_would_refuse_silently_is_refused_with_a_reason() {
        for value in ["a\0b", "a\rb", "\u{1}", "\u{7f}", "\u{1b}[31m"] {
            let expected = "0 heads; the value of a header has a control character";
            check(&format!("{HEAD}a: {value}\r\n\r\n"), expected);
        }
        for name in ["a\0", "a b", "(a)", "é", "a\\b"] {
            let expected = "0 heads; the name of a header has a character that no name can have";
            check(&format!("{HEAD}{name}: b\r\n\r\n"), expected);
        }
        for line in ["POST /\0", "POST /é", "PO(ST /", "POST /a b", "POST \u{7f}"] {
            let expected = "0 heads; the first line is not an HTTP request line";
            check(&format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n"), expected);
        }
        for target in ["http:///x", "?x", "/a?<b>", "x/y", "/\"a`", "/`"] {
            let expected = "0 heads; the request target is no path, and no other target that HTTP knows";
            check(&format!("POST {target} HTTP/1.1\r\nhost: x\r\n\r\n"), expected);
        }
        for target in ["*", "/", "/a%20b?c=d", "/a|b", "/a?{b}", "http://x/y"] {
            check(&format!("POST {target} HTTP/1.1\r\nhost: x\r\n\r\n"), "1 heads; between requests");
        }
        check(&format!("{HEAD}a: \tb\tc é\r\n\r\n"), "1 heads; between requests");
    }

    #[test]
    fn a_host_is_a_host_and_perhaps_a_port() {
        for host in ["", "x", "x:80", "127.0.0.1:8080", "[::1]:8080", "a-b.example.com"] {
            check(&format!("POST / HTTP/1.1\r\nhost: {host}\r\n\r\n"), "1 heads; between requests");
        }
        for host in ["a b", "a/b", "user@x", "x?y", "\"x\"", "é"] {
            let expected = "0 heads; a request needs exactly one Host header, with a host and perhaps a port";
            check(&format!("POST / HTTP/1.1\r\nhost: {host}\r\n\r\n"), expected);
        }
    }

    #[test]
    fn chunks_are_read_strictly() {
        let chunked = format!("{HEAD}transfer-encoding: chunked\r\n\r\n");
        let long = format!("1;{}", "x".repeat(EXTENSION_BYTES_MAX));
        for body in [
            "\r\n",
            "x",
            "-1",
            ";",
            "1\n",
            "1\r\r",
            "1\r\nab",
            "1\r\na\n",
            "0\r\n\n",
            "0\r\na\n",
            "1;\n",
            "0\r\na\rb",
            "1111111111111111",
        ] {
            check(&format!("{chunked}{body}"), "1 heads; bad chunk");
        }
        assert_eq!(run(format!("{chunked}{long}").as_bytes().chunks(7)).1, "1 heads; bad chunk");
    }
}
