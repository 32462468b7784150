//! What filters look at.

use std::cell::OnceCell;

use serde_json::Value;
use sluice_schemas::Event;

/// An event, its data parsed as JSON at most once, however many filters look into it.
pub struct Facts<'e> {
    pub event: &'e Event,
    data: OnceCell<Result<Value, NotJson>>,
}

/// The data cannot be looked into: there is none, or it is not JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotJson(pub String);

impl<'e> Facts<'e> {
    pub fn of(event: &'e Event) -> Self {
        Self { event, data: OnceCell::new() }
    }

    pub fn data(&self) -> Result<&Value, &NotJson> {
        let parse = || {
            let Some(data) = self.event.data() else { return Err(NotJson("the event has no data".into())) };
            serde_json::from_slice(&data.bytes)
                .map_err(|error| NotJson(format!("the data is not JSON: {error}")))
        };
        self.data.get_or_init(parse).as_ref()
    }
}
