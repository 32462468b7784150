//! What an edge refused before a route saw it, for the metrics page.

use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

/// Counts since the process started.
#[derive(Debug, Default)]
pub struct RefusedHeads {
    /// No HTTP as it should be: 400 and 505.
    pub malformed: AtomicU64,
    /// A target or headers over their limits: 414 and 431.
    pub too_large: AtomicU64,
    /// A head that did not come in time: 408.
    pub late: AtomicU64,
    /// Connections over their limit: 503, or no answer at all.
    pub busy: AtomicU64,
}

impl RefusedHeads {
    pub(super) fn count(&self, status: StatusCode) {
        let count = match status {
            StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => &self.too_large,
            StatusCode::REQUEST_TIMEOUT => &self.late,
            StatusCode::SERVICE_UNAVAILABLE => &self.busy,
            _ => &self.malformed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}
