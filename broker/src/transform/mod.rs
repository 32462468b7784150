//! What a trigger makes of an event before its sink gets it.
//!
//! Templates are rendered in place: their cost is bounded by their size. A jq program is not bounded by anything in it, and
//! what it works on comes from whoever can publish; so programs run in processes of their own, which end themselves when they
//! use too much ([`worker`]) and of which there are a few at most ([`pool`]).
//!
//! ```text
//! bounded        by                                            over it
//! result         32 MiB, and exactly one                       dead letter
//! processor      1 s of the worker's own time, no wall clock   dead letter
//! memory         512 MiB above what a worker starts with       dead letter
//! recursion      a stack of 256 MiB                            dead letter
//! wall clock     30 s for an answer                            the attempt failed: retried
//! at once        one worker per processor                      waits its turn
//! ```

mod pool;
mod turns;
pub mod worker;

use sluice_language::transform::{self, Transform};
use sluice_schemas::Event;

pub use pool::Pool;

/// Why there is no transformed event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// The transform fails on this event, and would again.
    #[error("{0}")]
    Always(String),
    /// The transform could not be run; trying again may help.
    #[error("the transform could not be run: {0}")]
    NotNow(String),
}

/// Transforms an event. The event itself stays as it is.
pub async fn apply(pool: &Pool, transform: &Transform, event: &Event) -> Result<Event, Failed> {
    match transform {
        Transform::Set(fields) => {
            transform::set(fields, event).map_err(|error| Failed::Always(error.to_string()))
        }
        Transform::Jq(program) => {
            let result = pool.run(program.text(), &transform::to_program(event)).await?;
            transform::from_program(&result.into()).map_err(Failed::Always)
        }
    }
}
