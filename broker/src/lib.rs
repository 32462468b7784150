//! Sluice, a CloudEvents event broker: what the binary is made of.

pub mod delivery;
pub mod routing;
pub mod store;
