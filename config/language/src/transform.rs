//! What a trigger makes of an event before its sink gets it.
