//! The languages inside the YAML: the filter dialects, templates and transforms. Text is compiled once, when a configuration is
//! read; evaluating does no I/O, reads no clock and cannot panic. What a jq program does is the exception: see
//! [`transform::jq`].

pub mod cel;
pub mod cesql;
mod explain;
mod facts;
mod fields;
mod filter;
mod json;
pub mod pattern;
mod schedule;
mod stored;
mod syntax;
pub mod template;
pub mod transform;
mod zone;

pub use explain::failure;
pub use facts::{Facts, NotJson};
pub use fields::{Draft, EventFields, Unmade, WrongField};
pub use filter::{Errs, Failure, Filter, Subject, Term};
pub use json::Paths;
pub use schedule::Schedule;
pub use syntax::SyntaxError;
pub use zone::zone;
