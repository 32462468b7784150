//! From an HTTP answer to an outcome (design: Knative's table, with CloudEvents webhook 2.2 for 410 and 429).

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use sluice_config::{Delivery, Limits, Reply};
use sluice_schemas::http as binding;

use super::{Failure, Outcome, Reason};

const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
const BODY_KEPT: usize = 1024;

/// An answer as far as it was read.
#[derive(Clone, Debug)]
pub struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The body is longer than what is kept of it.
    pub is_cut: bool,
}

/// What an answer means. `now_ms` is only for a `Retry-After` that is a date.
pub fn classify(answered: &Answered, delivery: &Delivery, limits: &Limits, now_ms: u64) -> Outcome {
    let status = answered.status.as_u16();
    if answered.status.is_success() {
        return accept(answered, delivery, limits);
    }
    let wait = retry_after(&answered.headers, now_ms);
    let cause = failure(answered, format!("the sink answered {}", describe(answered.status)));
    match status {
        _ if delivery.retry_on.contains(&status) => Outcome::Retriable { cause, retry_after: wait },
        410 => Outcome::Rejected { cause, reason: Reason::Gone },
        404 | 408 | 409 | 425 | 429 | 500.. => Outcome::Retriable { cause, retry_after: wait },
        _ => Outcome::Rejected { cause, reason: Reason::Rejected },
    }
}

/// A 2xx: accepted, unless it claims to be a reply and is none. A 202 is never looked at.
fn accept(answered: &Answered, delivery: &Delivery, limits: &Limits) -> Outcome {
    let none = Outcome::Accepted { reply: Vec::new() };
    if delivery.reply == Reply::Ignore || answered.status == StatusCode::ACCEPTED {
        return none;
    }
    let refused = |detail: String| {
        let cause = failure(answered, detail);
        Outcome::Rejected { cause, reason: Reason::Reply }
    };
    if !binding::claims_to_be_event(&answered.headers) {
        if delivery.reply == Reply::Strict && !answered.body.is_empty() {
            return refused("the answer has a body that is no CloudEvent, and reply is strict".into());
        }
        return none;
    }
    if answered.status != StatusCode::OK {
        return none;
    }
    if answered.is_cut {
        return refused(format!("the reply is larger than {} bytes", answered.body.len()));
    }
    let bounds = binding::Limits { event_bytes_max: limits.event_bytes, batch_bytes_max: limits.batch_bytes };
    match binding::decode(&answered.headers, answered.body.clone(), &bounds) {
        Ok(decoded) => Outcome::Accepted { reply: decoded.events },
        Err(rejection) => refused(format!("the reply is no valid CloudEvent: {rejection}")),
    }
}

fn failure(answered: &Answered, error: String) -> Failure {
    let body = answered.body.slice(..answered.body.len().min(BODY_KEPT));
    Failure { status: Some(answered.status.as_u16()), error, body: Bytes::copy_from_slice(&body) }
}

fn describe(status: StatusCode) -> String {
    status
        .canonical_reason()
        .map_or_else(|| status.as_str().to_owned(), |text| format!("{} {text}", status.as_str()))
}

/// Seconds or a date (RFC 9110, section 10.2.3), capped at an hour; anything else says nothing.
pub fn retry_after(headers: &HeaderMap, now_ms: u64) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(text.parse().ok().or_else(|| (!text.is_empty()).then_some(u64::MAX))?)
    } else {
        let at = httpdate::parse_http_date(text).ok()?;
        at.duration_since(UNIX_EPOCH + Duration::from_millis(now_ms)).ok()?
    };
    (!wait.is_zero()).then(|| wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(retry_after: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, retry_after.parse().expect("a header value"));
        headers
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_capped() {
        let now_ms = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT
        let check = |text: &str| retry_after(&headers(text), now_ms).map(|wait| wait.as_secs());
        assert_eq!(check("2"), Some(2));
        assert_eq!(check("Sun, 06 Nov 1994 08:49:40 GMT"), Some(3));
        // The forms that a recipient has to know besides, and a date that is far away.
        assert_eq!(check("Sunday, 06-Nov-94 08:49:40 GMT"), Some(3));
        assert_eq!(check("Sun Nov  6 08:49:40 1994"), Some(3));
        assert_eq!(check("Fri, 31 Dec 9999 23:59:59 GMT"), Some(3600));
        assert_eq!(check("999999"), Some(3600));
        assert_eq!(check("99999999999999999999999"), Some(3600));
        for nothing in ["banana", "-5", "1.5x", "", "0", "Thu, 01 Jan 1970 00:00:00 GMT"] {
            assert_eq!(check(nothing), None, "{nothing}");
        }
    }
}
