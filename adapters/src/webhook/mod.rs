//! Webhooks: verifying who sent a delivery, and making events of it.

pub(crate) mod form;
mod mac;
mod presets;
mod verify;

pub(crate) use presets::GitSignature;
pub use verify::{Claim, Denied, Verified, Verifier, WrongSecret};
