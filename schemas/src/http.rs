//! The HTTP protocol binding (CloudEvents HTTP binding, section 3).
