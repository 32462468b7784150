//! Sluice, a CloudEvents event broker: what the binary is made of.

pub mod admin;
pub mod delivery;
pub mod dispatch;
pub mod edge;
pub mod ingress;
pub mod intake;
pub mod routing;
pub mod run;
pub mod sink;
pub mod store;
