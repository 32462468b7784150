//! `{path|default}` in strings.
