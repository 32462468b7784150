//! The outside world becomes CloudEvents. An adapter turns what it receives into events and hands them to a
//! [`Publisher`]; it never sees the store, and acknowledges upstream in the line after `publish` returned `Ok`.

pub mod cron;
mod event_template;
pub mod git;
pub mod hook;
mod look;
mod open;
mod publisher;
mod record;
mod source;
pub mod webhook;

pub use event_template::EventTemplate;
pub use open::{Opened, WrongSource, open};
pub use publisher::{Aside, Entry, Intake, Published, Publisher, Receipt, Refusal, Request, TraceContext};
pub use record::{Record, Unfit};
pub use source::{Context, Down, Health, Outcome, Report, Source, Stop};
