//! Sluice, a CloudEvents event broker: what the binary is made of.

pub mod cli;
