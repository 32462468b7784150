//! Sluice, a CloudEvents event broker: what the binary is made of. In the order of an event's way through it:

pub mod cli;
pub mod run;

pub mod edge;
pub mod ingress;
pub mod intake;

pub mod store;

pub mod routing;

pub mod explain;

pub mod testing;

pub mod dispatch;

pub mod transform;

pub mod delivery;

pub mod sink;

pub mod sources;

pub mod admin;
