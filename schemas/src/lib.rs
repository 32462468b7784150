//! What an event is: the CloudEvent type and its wire formats.
//!
//! An [`Event`] keeps the text of its attributes and the bytes of its data as they came in; nothing on the way
//! through re-serialises them.

mod event;
pub mod http;
pub mod json;
mod rules;
#[cfg(feature = "sdk")]
mod sdk;
mod syntax;

pub use event::{Builder, Data, DataForm, Event, Kind, Value};
pub use rules::{Invalid, NAME_BYTES_MAX, Rule};
