//! Why an event did not get into a message system, and what its sinks have in common.

use sluice_language::template::{Document, Root, Scope, Template};
use sluice_schemas::{DataForm, Event};

/// How sending ended when the system does not have the event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// Trying again may help.
    #[error("{0}")]
    Retriable(String),
    /// The event itself is what the system does not take.
    #[error("{0}")]
    Rejected(String),
}

/// Why a sink cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unopened(pub String);

/// Compiles a template over an event.
pub(crate) fn compile(what: &str, text: &str) -> Result<Template, Unopened> {
    Template::compile_text(text, &Root::OF_EVENT).map_err(|error| Unopened(format!("`{what}`: {error}")))
}

/// What a template over an event stands for.
pub(crate) fn render(what: &str, template: &Template, event: &Event) -> Result<String, Unsent> {
    let data = event.data().map(|data| Document::new(&data.bytes));
    let scope = Scope { event: Some(event), data, ..Scope::default() };
    template.render_text(&scope).map_err(|error| Unsent::Rejected(format!("`{what}`: {error}")))
}

/// The content type of the data, also one that the event's format only implied.
pub(crate) fn content_type(event: &Event) -> Option<&str> {
    let implied = event.data().is_some_and(|data| data.form == DataForm::ImpliedJson);
    event.datacontenttype().or(implied.then_some("application/json"))
}
