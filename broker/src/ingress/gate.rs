//! Whether events are taken at the moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateState {
    Starting,
    Ready,
    Draining,
    /// There is no room; the reason says of what.
    Full(String),
    /// Nothing is acknowledged any more in this process's life.
    Failed(String),
}

/// Shared between those who know the state and those who ask before every request. Cheap to clone and to ask.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    is_ready: AtomicBool,
    state: Mutex<GateState>,
}

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Inner { is_ready: AtomicBool::new(false), state: Mutex::new(GateState::Starting) }))
    }
}

impl Gate {
    /// Changes the state. There is no way back from `Failed`, and from `Draining` only to `Failed`.
    pub fn set(&self, state: GateState) {
        let mut current = self.current();
        let is_final = match *current {
            GateState::Failed(_) => true,
            GateState::Draining => !matches!(state, GateState::Failed(_)),
            GateState::Starting | GateState::Ready | GateState::Full(_) => false,
        };
        if !is_final {
            self.0.is_ready.store(state == GateState::Ready, Ordering::Release);
            *current = state;
        }
    }

    pub fn state(&self) -> GateState {
        self.current().clone()
    }

    /// `Err` with the state unless it is `Ready`.
    pub fn check(&self) -> Result<(), GateState> {
        if self.0.is_ready.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.state() {
            GateState::Ready => Ok(()),
            state => Err(state),
        }
    }

    fn current(&self) -> MutexGuard<'_, GateState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_store_takes_nothing_ever_again() {
        let gate = Gate::default();
        assert_eq!(gate.check(), Err(GateState::Starting));
        gate.set(GateState::Ready);
        assert_eq!(gate.check(), Ok(()));
        gate.set(GateState::Full("the disk".into()));
        gate.set(GateState::Ready);
        assert_eq!(gate.check(), Ok(()));
        gate.set(GateState::Draining);
        gate.set(GateState::Ready);
        assert_eq!(gate.check(), Err(GateState::Draining));
        gate.set(GateState::Failed("sync".into()));
        gate.set(GateState::Ready);
        assert_eq!(gate.check(), Err(GateState::Failed("sync".into())));
    }
}
