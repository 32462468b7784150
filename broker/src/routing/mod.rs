//! Which triggers an event matches: an index over all filters, so that the cost grows with the triggers that could match, not
//! with all of them.

mod index;

pub use index::{FilterErrors, Rule, Table};
