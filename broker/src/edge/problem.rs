//! Errors as `application/problem+json` (RFC 9457).

use std::fmt::Write as _;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// Bytes of `detail` and `field` in JSON form. With them and the rest a document stays below 1 KiB.
const DETAIL_BYTES_MAX: usize = 640;
const FIELD_BYTES_MAX: usize = 96;
/// Bytes of a `detail` in lines: the errors of a configuration, as many as one looks at.
const LINES_BYTES_MAX: usize = 64 << 10;

/// Why a request is refused, as its sender sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    field: Option<String>,
    retry_after_seconds: Option<u32>,
    closing: bool,
    in_lines: bool,
    request_id: String,
}

impl Problem {
    /// The detail is one sentence for a human; it must hold no secret.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            field: None,
            retry_after_seconds: None,
            closing: false,
            in_lines: false,
            request_id: format!("{:016x}", fastrand::u64(..)),
        }
    }

    /// The attribute or header that is wrong.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>) -> Self {
        self.field = Some(name.into());
        self
    }

    #[must_use]
    pub fn retry_after_seconds(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// The connection ends with this answer: what is left of the request is not read.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.closing = true;
        self
    }

    /// The detail is the broker's own text in lines, for an operator: it keeps its line breaks, and has more room.
    #[must_use]
    pub fn in_lines(mut self) -> Self {
        self.in_lines = true;
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Names this answer in the log.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    pub(super) fn json(&self) -> String {
        let mut json = String::with_capacity(256 + self.detail.len().min(DETAIL_BYTES_MAX));
        json.push_str(r#"{"type":"about:blank","title":""#);
        push_escaped(&mut json, self.status.canonical_reason().unwrap_or("Error"), DETAIL_BYTES_MAX);
        // Writing into a String cannot fail.
        let _ = write!(json, r#"","status":{},"detail":""#, self.status.as_u16());
        match self.in_lines {
            true => push_lines(&mut json, &self.detail, LINES_BYTES_MAX),
            false => push_escaped(&mut json, &self.detail, DETAIL_BYTES_MAX),
        }
        json.push_str(r#"","field":"#);
        match &self.field {
            Some(field) => {
                json.push('"');
                push_escaped(&mut json, field, FIELD_BYTES_MAX);
                json.push('"');
            }
            None => json.push_str("null"),
        }
        let _ = write!(json, r#","request_id":"{}"}}"#, self.request_id);
        json
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.closing {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Appends as much of the text as fits into so many bytes of JSON. Control characters come out visible, so that a
/// terminal that prints the parsed text is safe too.
fn push_escaped(json: &mut String, text: &str, bytes_max: usize) {
    let end = json.len() + bytes_max;
    for character in text.chars() {
        let before = json.len();
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            _ if character.is_control() => {
                let _ = write!(json, "\\\\u{:04x}", u32::from(character));
            }
            _ => json.push(character),
        }
        if json.len() > end - '…'.len_utf8() {
            json.truncate(before);
            json.push('…');
            return;
        }
    }
}

/// As [`push_escaped`], line by line: whole lines, as many as fit.
fn push_lines(json: &mut String, text: &str, bytes_max: usize) {
    let end = json.len() + bytes_max;
    for (number, line) in text.lines().enumerate() {
        let before = json.len();
        if number > 0 {
            json.push_str("\\n");
        }
        push_escaped(json, line, DETAIL_BYTES_MAX);
        if json.len() > end {
            json.truncate(before);
            json.push_str("\\n…");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(detail: &str, expected: &str) {
        let json = Problem::new(StatusCode::BAD_REQUEST, detail).field("id").json();
        assert!(json.len() <= 1024, "{} bytes", json.len());
        let document: serde_json::Value = serde_json::from_str(&json).expect("a JSON document");
        assert_eq!(document["detail"], expected);
        assert_eq!(document["field"], "id");
        assert_eq!(document["status"], 400);
        assert_eq!(document["title"], "Bad Request");
    }

    #[test]
    fn a_detail_is_json_without_control_characters() {
        check("attribute `id` is required", "attribute `id` is required");
        check("a \"b\" \\ c", "a \"b\" \\ c");
        check("x\u{1b}[31m\ny\u{85}", "x\\u001b[31m\\u000ay\\u0085");
    }

    #[test]
    fn a_detail_in_lines_keeps_them_and_nothing_else_that_controls_a_terminal() {
        let text = "a.yaml:1:2: \"x\"\n    1 | \u{1b}[31m\n      | ^".to_owned();
        let json = Problem::new(StatusCode::BAD_REQUEST, text.repeat(2)).in_lines().json();
        let document: serde_json::Value = serde_json::from_str(&json).expect("a JSON document");
        let shown = "a.yaml:1:2: \"x\"\n    1 | \\u001b[31m\n      | ^";
        assert_eq!(document["detail"], shown.repeat(2));
        let json = Problem::new(StatusCode::BAD_REQUEST, "x\n".repeat(1 << 20)).in_lines().json();
        assert!(json.len() < 66 << 10, "{} bytes", json.len());
        let document: serde_json::Value = serde_json::from_str(&json).expect("a JSON document");
        assert!(document["detail"].as_str().is_some_and(|detail| detail.ends_with("x\n…")));
    }

    #[test]
    fn a_document_stays_below_one_kib() {
        check(&"\"".repeat(5000), &format!("{}…", "\"".repeat(318)));
        check(&"é".repeat(5000), &format!("{}…", "é".repeat(318)));
        let json =
            Problem::new(StatusCode::BAD_REQUEST, "\u{1}".repeat(9999)).field("\u{1}".repeat(9999)).json();
        assert!(json.len() <= 1024, "{} bytes", json.len());
    }
}
