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
