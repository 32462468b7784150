//! The outside world becomes CloudEvents. An adapter turns what it receives into events and hands them to a
//! [`Publisher`]; it never sees the store, and acknowledges upstream in the line after `publish` returned `Ok`.

#[cfg(feature = "amqp")]
pub mod amqp;
pub mod cron;
mod event_template;
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
mod feed;
pub mod git;
pub mod hook;
#[cfg(feature = "kafka")]
pub mod kafka;
mod look;
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
mod message;
#[cfg(feature = "nats")]
pub mod nats;
mod open;
mod publisher;
mod record;
mod source;
mod tls;
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
mod unsent;
pub mod webhook;

pub use event_template::EventTemplate;
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
pub use message::Mapping;
pub use open::{Opened, WrongSource, open};
pub use publisher::{
    Aside, AsideTooLarge, Entry, Intake, Published, Publisher, Receipt, Refusal, Request, TraceContext,
};
pub use record::{Record, Unfit};
pub use source::{Context, Down, Health, Outcome, Report, Source, Stop};
pub use tls::explained as explained_tls;
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
pub use unsent::{Unopened, Unsent};
