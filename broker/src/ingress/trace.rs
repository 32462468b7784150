//! The trace that a request belongs to (W3C Trace Context, section 3). What is malformed is as good as absent.

use http::{HeaderMap, HeaderName};
use sluice_adapters::TraceContext;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// `00-` trace id `-` parent id `-` flags.
const PARENT_BYTES: usize = 55;
/// Of a later version, whose fields we do not know.
const PARENT_BYTES_MAX: usize = 256;
const STATE_BYTES_MAX: usize = 512;
const STATE_MEMBERS_MAX: usize = 32;
const KEY_BYTES_MAX: usize = 256;

pub(super) fn from_headers(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let parent = parent.to_str().ok().filter(|parent| is_parent(parent))?;
    Some(TraceContext { parent: parent.into(), state: state(headers) })
}

fn is_parent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((known, later)) = bytes.split_at_checked(PARENT_BYTES) else { return false };
    let dashes = [2, 35, 52];
    let is_shaped = known.iter().enumerate().all(|(at, byte)| match dashes.contains(&at) {
        true => *byte == b'-',
        false => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    });
    let is_zero = |id: &[u8]| id.iter().all(|digit| *digit == b'0');
    let is_complete = match &known[..2] {
        b"00" => later.is_empty(),
        b"ff" => false,
        _ => later.is_empty() || (later[0] == b'-' && bytes.len() <= PARENT_BYTES_MAX),
    };
    is_shaped && is_complete && !is_zero(&known[3..35]) && !is_zero(&known[36..52])
}

fn state(headers: &HeaderMap) -> Option<Box<str>> {
    let lines =
        headers.get_all(TRACESTATE).iter().map(|line| line.to_str().ok()).collect::<Option<Vec<_>>>()?;
    let state = lines.join(",");
    let mut members =
        state.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|m| !m.is_empty());
    let is_valid = members.clone().count() <= STATE_MEMBERS_MAX && members.all(is_member);
    (is_valid && !state.is_empty() && state.len() <= STATE_BYTES_MAX).then(|| state.into())
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let is_key = matches!(key.bytes().next(), Some(b'a'..=b'z' | b'0'..=b'9'))
        && key.len() <= KEY_BYTES_MAX
        && key
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@'));
    is_key && !value.is_empty() && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[track_caller]
    fn check(lines: &[(&'static str, &str)], expected: Option<(&str, Option<&str>)>) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let found = from_headers(&headers);
        assert_eq!(found.as_ref().map(|trace| (&*trace.parent, trace.state.as_deref())), expected);
    }

    #[test]
    fn a_valid_parent_is_taken_with_its_state() {
        check(&[("traceparent", VALID)], Some((VALID, None)));
        check(&[("traceparent", VALID), ("tracestate", "a=1, b@c=2")], Some((VALID, Some("a=1, b@c=2"))));
        check(
            &[("traceparent", VALID), ("tracestate", "a=1"), ("tracestate", "b=2")],
            Some((VALID, Some("a=1,b=2"))),
        );
        let later = format!("{}-more", VALID.replacen("00", "01", 1));
        check(&[("traceparent", &later)], Some((&later, None)));
    }

    #[test]
    fn a_malformed_parent_is_as_good_as_none() {
        for parent in [
            "",
            "x",
            &VALID.to_uppercase(),
            &VALID.replacen("00", "ff", 1),
            &format!("{VALID}-more"),
            &VALID.replace('-', "_"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ] {
            check(&[("traceparent", parent), ("tracestate", "a=1")], None);
        }
        check(&[("traceparent", VALID), ("traceparent", VALID)], None);
        check(&[("tracestate", "a=1")], None);
    }

    #[test]
    fn a_malformed_state_leaves_the_parent() {
        for state in ["a", "=1", "A=1", "a=", "a=b=c", &format!("a={}", "x".repeat(600)), &"a=1,".repeat(33)]
        {
            check(&[("traceparent", VALID), ("tracestate", state)], Some((VALID, None)));
        }
    }
}
