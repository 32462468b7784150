//! The store against a disk that loses power, runs full and fails, and beside a naive model of what it promises.

mod crash;
mod damage;
pub mod disk;
mod ending;
mod holding;
mod letters;
mod model;
mod parts;
mod retention;
pub mod rig;
mod sectors;
mod unread;
mod writing;
