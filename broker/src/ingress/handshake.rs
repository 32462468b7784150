//! The abuse protection of the CloudEvents webhook specification (section 4), as its target.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, header};

const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// Consents by header, for a listed origin only; the status says nothing. `WebHook-Request-Callback` is not followed:
/// it would let anyone make this broker send requests anywhere.
pub(super) fn answer(request: &HeaderMap, origins: &[String]) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, super::ALLOW);
    let mut asked = request.get_all(REQUEST_ORIGIN).iter();
    if let (Some(origin), None) = (asked.next(), asked.next())
        && origins.iter().any(|listed| listed.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
    {
        headers.insert(ALLOWED_ORIGIN, origin.clone());
        headers.insert(ALLOWED_RATE, HeaderValue::from_static("*"));
    }
    response
}
