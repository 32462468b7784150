//! The whole of routing and delivery on a clock that stands still, against sinks and a disk that do as they are told.

mod damage;
mod descent;
mod hanging;
mod pace;
mod reads;
mod redrives;
mod reload;
mod retries;
pub mod rig;
mod room;
