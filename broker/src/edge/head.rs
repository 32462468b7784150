//! Reads a request head for what decides where its body ends (RFC 9112, sections 2 to 6).
//!
//! What hyper would refuse on its own (control characters, names that are no tokens) is refused here first, because
//! hyper answers without saying why.

use http::{StatusCode, Uri};
use memchr::memchr;

use super::{EdgeLimits, Problem};

/// Longer than any registered method.
const METHOD_BYTES_MAX: usize = 32;
const VERSION_BYTES: usize = " HTTP/1.1".len();
/// As many digits as always fit into a `u64`.
const LENGTH_DIGITS_MAX: usize = 19;

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
}

/// Why a head is refused. The connection ends with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("a line of the request head ends with a bare line feed")]
    BareLineFeed,
    #[error("the first line is not an HTTP request line")]
    RequestLine,
    #[error("the request target is no path, and no other target that HTTP knows")]
    Target,
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
    #[error("the request target is longer than {0} bytes")]
    TargetTooLong(usize),
    #[error("the request has more than {0} headers")]
    TooManyHeaders(usize),
    #[error("the request has more than {0} bytes of headers")]
    HeadersTooLong(usize),
    #[error("a header is folded over several lines")]
    Folded,
    #[error("a header line has no name, or something between its name and the colon")]
    HeaderLine,
    #[error("the name of a header has a character that no name can have")]
    HeaderName,
    #[error("the value of a header has a control character")]
    HeaderValue,
    #[error("a request needs exactly one Host header, with a host and perhaps a port")]
    Host,
    #[error("Content-Length is not one decimal number")]
    ContentLength,
    #[error("Transfer-Encoding is not exactly `chunked`")]
    TransferEncoding,
    #[error("HTTP/1.0 has no Transfer-Encoding")]
    TransferEncodingVersion,
    #[error("Transfer-Encoding and Content-Length exclude each other")]
    TwoFramings,
    #[error("the request head did not come in time")]
    Late,
}

impl Refusal {
    pub(super) fn problem(self) -> Problem {
        let (status, field) = match self {
            Self::TargetTooLong(_) => (StatusCode::URI_TOO_LONG, None),
            Self::TooManyHeaders(_) | Self::HeadersTooLong(_) => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, None)
            }
            Self::Version => (StatusCode::HTTP_VERSION_NOT_SUPPORTED, None),
            Self::Late => (StatusCode::REQUEST_TIMEOUT, None),
            Self::Host => (StatusCode::BAD_REQUEST, Some("Host")),
            Self::ContentLength => (StatusCode::BAD_REQUEST, Some("Content-Length")),
            Self::TransferEncoding | Self::TransferEncodingVersion | Self::TwoFramings => {
                (StatusCode::BAD_REQUEST, Some("Transfer-Encoding"))
            }
            Self::BareLineFeed
            | Self::RequestLine
            | Self::Target
            | Self::Folded
            | Self::HeaderLine
            | Self::HeaderName
            | Self::HeaderValue => (StatusCode::BAD_REQUEST, None),
        };
        let problem = Problem::new(status, self.to_string()).closing();
        match field {
            Some(field) => problem.field(field),
            None => problem,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Call again with the same bytes and more.
    Incomplete,
    /// Nothing but empty lines, which may stand before a request (RFC 9112, section 2.2).
    Blank,
    Complete {
        bytes: usize,
        body: Body,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

/// One head, read as its bytes come in; each byte is looked at once.
#[derive(Debug, Default)]
pub(super) struct Head {
    scanned: usize,
    line_start: usize,
    /// `None` until the request line was seen.
    version: Option<Version>,
    headers_start: usize,
    headers: usize,
    hosts: usize,
    content_length: Option<u64>,
    chunked: bool,
}

impl Head {
    /// Goes on reading; `bytes` begins where the head begins and grows from call to call.
    pub(super) fn scan(&mut self, bytes: &[u8], limits: &EdgeLimits) -> Result<Progress, Refusal> {
        while let Some(found) = memchr(b'\n', &bytes[self.scanned..]) {
            let end = self.scanned + found;
            if end == self.line_start || bytes[end - 1] != b'\r' {
                return Err(Refusal::BareLineFeed);
            }
            let line = &bytes[self.line_start..end - 1];
            self.scanned = end + 1;
            self.line_start = end + 1;
            match (self.version, line.is_empty()) {
                (None, true) => {}
                (None, false) => self.request_line(line, limits)?,
                (Some(version), true) => {
                    return Ok(Progress::Complete { bytes: end + 1, body: self.body(version)? });
                }
                (Some(_), false) => self.header(line, limits)?,
            }
        }
        self.scanned = bytes.len();
        self.unfinished(bytes, limits)
    }

    /// Refuses early what cannot become a head within the limits.
    fn unfinished(&self, bytes: &[u8], limits: &EdgeLimits) -> Result<Progress, Refusal> {
        if self.version.is_some() {
            self.within(bytes.len(), limits)?;
            return Ok(Progress::Incomplete);
        }
        let line = &bytes[self.line_start..];
        let Some(first) = line.first() else { return Ok(Progress::Blank) };
        // A TLS client hello would otherwise be waited for until the deadline.
        if *first != b'\r' && !is_token_byte(*first) {
            return Err(Refusal::RequestLine);
        }
        if line.len() > METHOD_BYTES_MAX + 1 + limits.target_bytes + VERSION_BYTES + 1 {
            return Err(Refusal::TargetTooLong(limits.target_bytes));
        }
        Ok(Progress::Incomplete)
    }

    fn within(&self, end: usize, limits: &EdgeLimits) -> Result<(), Refusal> {
        if end - self.headers_start > limits.header_bytes {
            return Err(Refusal::HeadersTooLong(limits.header_bytes));
        }
        Ok(())
    }

    fn request_line(&mut self, line: &[u8], limits: &EdgeLimits) -> Result<(), Refusal> {
        let space = memchr(b' ', line).ok_or(Refusal::RequestLine)?;
        let (rest, version) =
            line[space + 1..].split_last_chunk::<VERSION_BYTES>().ok_or(Refusal::RequestLine)?;
        self.version = Some(match version {
            b" HTTP/1.1" => Version::Http11,
            b" HTTP/1.0" => Version::Http10,
            _ if version.starts_with(b" HTTP/") => return Err(Refusal::Version),
            _ => return Err(Refusal::RequestLine),
        });
        self.headers_start = self.line_start;
        if rest.len() > limits.target_bytes {
            return Err(Refusal::TargetTooLong(limits.target_bytes));
        }
        if space == 0
            || !line[..space].iter().all(|byte| is_token_byte(*byte))
            || !rest.iter().all(u8::is_ascii_graphic)
        {
            return Err(Refusal::RequestLine);
        }
        // Most targets are plain: only the others are parsed twice, here and by hyper.
        let is_plain = rest.starts_with(b"/") && rest.iter().all(|byte| is_plain_target_byte(*byte));
        if !is_plain && Uri::try_from(rest).is_err() {
            return Err(Refusal::Target);
        }
        Ok(())
    }

    fn header(&mut self, line: &[u8], limits: &EdgeLimits) -> Result<(), Refusal> {
        self.headers += 1;
        if self.headers > limits.headers {
            return Err(Refusal::TooManyHeaders(limits.headers));
        }
        self.within(self.line_start, limits)?;
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Refusal::Folded);
        }
        let colon = memchr(b':', line).ok_or(Refusal::HeaderLine)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if matches!(name.last(), None | Some(b' ' | b'\t')) {
            return Err(Refusal::HeaderLine);
        }
        if !name.iter().all(|byte| is_token_byte(*byte)) {
            return Err(Refusal::HeaderName);
        }
        if has_control(&line[colon + 1..]) {
            return Err(Refusal::HeaderValue);
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if !value.iter().all(|byte| is_host_byte(*byte)) {
                    return Err(Refusal::Host);
                }
                self.hosts += 1;
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = decimal(value).ok_or(Refusal::ContentLength)?;
                if self.content_length.replace(length).is_some_and(|known| known != length) {
                    return Err(Refusal::ContentLength);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::TransferEncoding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Judges what only the whole head tells.
    fn body(&self, version: Version) -> Result<Body, Refusal> {
        if self.hosts > 1 || (version == Version::Http11 && self.hosts == 0) {
            return Err(Refusal::Host);
        }
        match (self.chunked, self.content_length) {
            (true, Some(_)) => Err(Refusal::TwoFramings),
            (true, None) if version == Version::Http10 => Err(Refusal::TransferEncodingVersion),
            (true, None) => Ok(Body::Chunked),
            (false, length) => Ok(Body::Length(length.unwrap_or(0))),
        }
    }
}

/// Whether the byte may stand in a method or the name of a header (RFC 9110, section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether the byte may stand in a path or a query wherever it stands there.
fn is_plain_target_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/?=&%+,:@!$'()*;".contains(&byte)
}

/// Whether the byte may stand in `host[:port]` (RFC 3986, section 3.2.2).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte)
}

/// Whether there is a control character other than the tab. Without an early end, so that many bytes are looked at
/// at once.
fn has_control(value: &[u8]) -> bool {
    value.iter().fold(false, |found, &byte| found | ((byte < b' ') & (byte != b'\t')) | (byte == 0x7f))
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > LENGTH_DIGITS_MAX || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')))
}
