//! What came in by `/events`, for the metrics page.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a request was refused: the label `reason` of `sluice_events_refused_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Malformed,
    Invalid,
    TooLarge,
    MediaType,
    Conflict,
    Busy,
    Full,
    Timeout,
    Unauthorized,
}

impl Reason {
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::Invalid,
        Self::TooLarge,
        Self::MediaType,
        Self::Conflict,
        Self::Busy,
        Self::Full,
        Self::Timeout,
        Self::Unauthorized,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::MediaType => "media_type",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Timeout => "timeout",
            Self::Unauthorized => "unauthorized",
        }
    }
}

/// Counts since the process started. Events where they were taken, requests where they were refused.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    duplicates: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
}

impl Counters {
    /// Events stored.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Events answered with success that were stored before.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Requests refused for a reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize].load(Ordering::Relaxed)
    }

    pub(super) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_duplicate(&self) {
        self.duplicates.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_refused(&self, reason: Reason) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_count_of_its_own() {
        for (position, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, position);
        }
    }
}
