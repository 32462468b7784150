//! The rules of CloudEvents 1.0 for attributes.

use crate::event::Value;

/// An attribute that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attribute `{attribute}` {rule}")]
pub struct Invalid {
    pub attribute: String,
    pub rule: Rule,
}

/// Which rule; its text completes a sentence that begins with the attribute.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    #[error("is required")]
    Required,
}

pub(crate) fn check(_attributes: &[(Box<str>, Value)]) -> Result<(), Invalid> {
    Ok(())
}
