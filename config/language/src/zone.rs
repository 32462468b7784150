//! Time zones by name.

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// Finds a zone of the IANA database: that of the system where there is one, for its rules are newer, else that which is built in.
pub fn zone(name: &str) -> Option<TimeZone> {
    if name.eq_ignore_ascii_case("utc") {
        return Some(TimeZone::UTC);
    }
    jiff::tz::db().get(name).or_else(|_| TimeZoneDatabase::bundled().get(name)).ok()
}
