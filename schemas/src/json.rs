//! The JSON event format (CloudEvents JSON format, sections 2 to 4).
