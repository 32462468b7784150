//! The outside world becomes CloudEvents. An adapter turns what it receives into events and hands them to a
//! [`Publisher`]; it never sees the store, and acknowledges upstream in the line after `publish` returned `Ok`.

mod publisher;

pub use publisher::{Entry, Published, Publisher, Receipt, Refusal, Request, TraceContext};
