//! Which triggers an event matches: filters compiled once, and an index so that the cost grows with the triggers that
//! could match, not with all of them.

mod filter;
mod index;

pub use filter::Filter;
pub use index::{Rule, Table};
