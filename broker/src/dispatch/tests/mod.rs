//! The whole of routing and delivery on a clock that stands still, against sinks and a disk that do as they are told.

pub mod rig;
mod timelines;
