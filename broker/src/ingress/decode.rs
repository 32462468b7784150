//! From a request to events.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use sluice_schemas::{DataForm, Event};

use super::Reason;
use crate::edge::Problem;

#[derive(Debug)]
pub(super) struct Rejection {
    status: u16,
    field: Option<String>,
    detail: String,
}

impl Rejection {
    pub(super) fn reason(&self) -> Reason {
        match self.status {
            413 => Reason::TooLarge,
            415 => Reason::MediaType,
            _ if self.field.is_some() => Reason::Invalid,
            _ => Reason::Malformed,
        }
    }

    pub(super) fn problem(&self) -> Problem {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let problem = Problem::new(status, self.detail.clone());
        match &self.field {
            Some(field) => problem.field(field),
            None => problem,
        }
    }
}

pub(super) fn decode(headers: &HeaderMap, body: Bytes, _event_bytes: usize) -> Result<Vec<Event>, Rejection> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("content-type").is_some_and(|media| media.starts_with("application/cloudevents-batch")) {
        return Ok(Vec::new());
    }
    let mut event = Event::builder();
    for name in ["specversion", "id", "source", "type"] {
        let value =
            text(&format!("ce-{name}")).filter(|value| !value.is_empty()).ok_or_else(|| Rejection {
                status: 400,
                field: Some(name.into()),
                detail: format!("attribute `{name}` is required"),
            })?;
        event = event.attribute(name, value);
    }
    if !body.is_empty() {
        event = event.data(body, DataForm::Opaque);
    }
    event.build().map(|event| vec![event]).map_err(|invalid| Rejection {
        status: 400,
        field: Some(invalid.attribute.clone()),
        detail: invalid.to_string(),
    })
}
