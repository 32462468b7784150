//! The grammars that attributes follow: URI references (RFC 3986), media types (RFC 9110, which refines RFC 2046) and
//! timestamps (RFC 3339). Each says yes or no; none changes the text.

use std::net::Ipv6Addr;

/// Whether the text is a URI-reference (RFC 3986, section 4.1).
///
/// Characters beyond ASCII are taken where the RFC wants them percent-encoded: they are what an IRI (RFC 3987) has there,
/// senders in several languages let them through, and the text is passed on as it came. White space is never taken.
pub(crate) fn is_uri_reference(text: &str) -> bool {
    let (rest, fragment) = split_at_mark(text, b'#');
    let (rest, query) = split_at_mark(rest, b'?');
    if !fragment.is_none_or(is_query) || !query.is_none_or(is_query) {
        return false;
    }
    let hierarchy = match split_scheme(rest) {
        Scheme::Some(hierarchy) => hierarchy,
        Scheme::None => rest,
        Scheme::Malformed => return false,
    };
    let Some(after_slashes) = hierarchy.strip_prefix("//") else { return is_path(hierarchy) };
    let path_start = after_slashes.find('/').unwrap_or(after_slashes.len());
    let (authority, path) = after_slashes.split_at(path_start);
    is_authority(authority) && is_path(path)
}

/// Whether the text is a URI with a scheme. A fragment is taken (schema registries hand out such URIs), though
/// "absolute-URI" of RFC 3986, section 4.3 has none.
pub(crate) fn is_absolute_uri(text: &str) -> bool {
    let (rest, _) = split_at_mark(text, b'#');
    let (rest, _) = split_at_mark(rest, b'?');
    matches!(split_scheme(rest), Scheme::Some(hierarchy) if !hierarchy.is_empty()) && is_uri_reference(text)
}

fn split_at_mark(text: &str, mark: u8) -> (&str, Option<&str>) {
    match memchr::memchr(mark, text.as_bytes()) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

enum Scheme<'a> {
    /// There is one; what follows its colon.
    Some(&'a str),
    None,
    /// The first segment has a colon, but what precedes it is no scheme.
    Malformed,
}

fn split_scheme(text: &str) -> Scheme<'_> {
    let Some(end) = memchr::memchr2(b':', b'/', text.as_bytes()) else { return Scheme::None };
    if text.as_bytes()[end] == b'/' {
        return Scheme::None;
    }
    let scheme = &text.as_bytes()[..end];
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    if scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(legal) {
        return Scheme::Some(&text[end + 1..]);
    }
    Scheme::Malformed
}

fn is_authority(text: &str) -> bool {
    let (user, host_port) = text.rsplit_once('@').unwrap_or(("", text));
    if !is_made_of(user, |byte| is_unreserved_or_delimiter(byte) || byte == b':') {
        return false;
    }
    let (host_is_legal, after_host) = match host_port.strip_prefix('[') {
        Some(literal) => {
            let Some((address, after)) = literal.split_once(']') else { return false };
            (is_ip_literal(address), after)
        }
        None => {
            let end = host_port.find(':').unwrap_or(host_port.len());
            let (name, after) = host_port.split_at(end);
            (is_made_of(name, is_unreserved_or_delimiter), after)
        }
    };
    let port_is_legal = match after_host.strip_prefix(':') {
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()),
        None => after_host.is_empty(),
    };
    host_is_legal && port_is_legal
}

fn is_ip_literal(text: &str) -> bool {
    if text.parse::<Ipv6Addr>().is_ok() {
        return true;
    }
    // IPvFuture: "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )
    let Some((version, address)) = text.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let legal = |byte| byte == b':' || (byte != b'%' && is_unreserved_or_delimiter(byte));
    !version.is_empty()
        && version.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !address.is_empty()
        && address.is_ascii()
        && address.bytes().all(legal)
}

fn is_path(text: &str) -> bool {
    is_made_of(text, |byte| is_unreserved_or_delimiter(byte) || matches!(byte, b':' | b'@' | b'/'))
}

fn is_query(text: &str) -> bool {
    is_made_of(text, |byte| is_unreserved_or_delimiter(byte) || matches!(byte, b':' | b'@' | b'/' | b'?'))
}

fn is_unreserved_or_delimiter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~')
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// Whether each byte is legal, or belongs to a percent escape or to a character beyond ASCII that is no white space.
fn is_made_of(text: &str, is_legal: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if is_legal(byte) || !byte.is_ascii() {
            at += 1;
            continue;
        }
        let escape = bytes.get(at + 1..at + 3);
        if byte != b'%' || !escape.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return false;
        }
        at += 3;
    }
    text.is_ascii() || !text.contains(char::is_whitespace)
}

/// A media type that is known to be well-formed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MediaType<'a> {
    /// `type/subtype`, in the case it was written in.
    essence: &'a str,
    parameters: &'a str,
}

impl<'a> MediaType<'a> {
    /// Reads `type/subtype` and parameters (RFC 9110, section 8.3.1); empty parameters (`text/plain;`) are legal there.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let end = text.find(';').unwrap_or(text.len());
        let essence = text[..end].trim_end_matches([' ', '\t']);
        let (kind, subtype) = essence.split_once('/')?;
        let mut parameters = Parameters(&text[end..]);
        let is_legal = is_token(kind) && is_token(subtype) && parameters.all(|parameter| parameter.is_some());
        is_legal.then_some(Self { essence, parameters: &text[end..] })
    }

    pub(crate) fn is(&self, essence: &str) -> bool {
        self.essence.eq_ignore_ascii_case(essence)
    }

    /// Whether the content is JSON: `*/json` or `*/*+json` (JSON format, section 3.1).
    pub(crate) fn is_json(&self) -> bool {
        self.has_subtype("json", "+json")
    }

    /// Whether the content is text by its name: `text/*`, `*/xml` or `*/*+xml`.
    pub(crate) fn is_text(&self) -> bool {
        let kind = self.essence.split('/').next().unwrap_or_default();
        kind.eq_ignore_ascii_case("text") || self.has_subtype("xml", "+xml")
    }

    /// The first `charset` that is not UTF-8.
    pub(crate) fn foreign_charset(&self) -> Option<&'a str> {
        Parameters(self.parameters)
            .flatten()
            .filter(|(name, _)| name.eq_ignore_ascii_case("charset"))
            .map(|(_, value)| value.trim_matches('"'))
            .find(|charset| !charset.eq_ignore_ascii_case("utf-8"))
    }

    fn has_subtype(&self, whole: &str, suffix: &str) -> bool {
        let subtype = self.essence.split('/').nth(1).unwrap_or_default();
        let tail = subtype.len().checked_sub(suffix.len()).and_then(|at| subtype.get(at..));
        subtype.eq_ignore_ascii_case(whole) || tail.is_some_and(|tail| tail.eq_ignore_ascii_case(suffix))
    }
}

/// `;name=value` pairs, values as written; `None` for what is malformed, then nothing more.
struct Parameters<'a>(&'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = Option<(&'a str, &'a str)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.0 = self.0.trim_start_matches([' ', '\t']);
            if self.0.is_empty() {
                return None;
            }
            let Some(rest) = self.0.strip_prefix(';') else {
                self.0 = "";
                return Some(None);
            };
            let rest = rest.trim_start_matches([' ', '\t']);
            if rest.is_empty() || rest.starts_with(';') {
                self.0 = rest;
                continue;
            }
            let pair = split_parameter(rest);
            self.0 = pair.map_or("", |(_, _, rest)| rest);
            return Some(pair.map(|(name, value, _)| (name, value)));
        }
    }
}

fn split_parameter(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = text.split_once('=')?;
    let end = if rest.starts_with('"') {
        quoted_end(rest)?
    } else {
        rest.find([';', ' ', '\t']).unwrap_or(rest.len())
    };
    let (value, rest) = rest.split_at(end);
    (is_token(name) && (value.starts_with('"') || is_token(value))).then_some((name, value, rest))
}

/// Where a quoted string (RFC 9110, section 5.6.4) at the start of the text ends, if it is printable ASCII and does end.
fn quoted_end(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if !matches!(byte, b' '..=b'~') => return None,
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn is_token(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(legal)
}

/// Whether the text is a timestamp (RFC 3339, section 5.6): `T` and `Z` in either case, any number of fraction digits, a
/// leap second only where one can be (23:59:60 UTC).
pub(crate) fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((date_time, rest)) = bytes.split_at_checked(19) else { return false };
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, separator)| date_time[at] != separator)
        || !matches!(date_time[10], b'T' | b't')
    {
        return false;
    }
    let fields = (|| {
        let number = |from: usize, to: usize| number(&date_time[from..to]);
        Some((
            number(0, 4)?,
            number(5, 7)?,
            number(8, 10)?,
            number(11, 13)?,
            number(14, 16)?,
            number(17, 19)?,
        ))
    })();
    let Some((year, month, day, hour, minute, second)) = fields else { return false };
    let Some(offset_minutes) = skip_fraction(rest).and_then(offset_minutes) else { return false };
    let minute_of_day_utc = (hour * 60 + minute - offset_minutes).rem_euclid(24 * 60);
    let second_max = if minute_of_day_utc == 24 * 60 - 1 { 60 } else { 59 };
    (1..=days_in(year, month)).contains(&day) && hour <= 23 && minute <= 59 && second <= second_max
}

fn number(digits: &[u8]) -> Option<i32> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i32::from(digit - b'0')))
}

fn skip_fraction(text: &[u8]) -> Option<&[u8]> {
    let Some(fraction) = text.strip_prefix(b".") else { return Some(text) };
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (digits > 0).then(|| &fraction[digits..])
}

fn offset_minutes(text: &[u8]) -> Option<i32> {
    match *text {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[h1, h2])?, number(&[m1, m2])?);
            let total = hours * 60 + minutes;
            (hours <= 23 && minutes <= 59).then_some(if sign == b'-' { -total } else { total })
        }
        _ => None,
    }
}

fn days_in(year: i32, month: i32) -> i32 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => 0,
    }
}
