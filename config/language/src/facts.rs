//! What filters look at.

use std::cell::OnceCell;

use serde_json::Value;
use sluice_schemas::Event;

use crate::json::{Document, Paths};

/// An event, its data parsed as JSON at most once in each of two forms, however many filters look into it: as a value for
/// expressions and templates, and with numbers as they were written for patterns.
pub struct Facts<'e> {
    pub event: &'e Event,
    data: OnceCell<Result<Value, NotJson>>,
    document: OnceCell<Result<Document<'e>, NotJson>>,
}

/// The data cannot be looked into: there is none, or it is not JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotJson(pub String);

impl<'e> Facts<'e> {
    pub fn of(event: &'e Event) -> Self {
        Self { event, data: OnceCell::new(), document: OnceCell::new() }
    }

    pub fn data(&self) -> Result<&Value, &NotJson> {
        let parse = || serde_json::from_slice(self.bytes()?).map_err(not_json);
        self.data.get_or_init(parse).as_ref()
    }

    /// Visits the scalars at the paths, elements of arrays included: the path's number, and a text that equals that of a
    /// [`Term`](crate::Term) on this path exactly if the scalar fulfils it.
    pub fn visit_data(&self, paths: &Paths, visit: &mut dyn FnMut(usize, &str)) -> Result<(), &NotJson> {
        let mut key = String::new();
        paths.visit(&self.document()?.root, &mut |path, scalar| {
            key.clear();
            scalar.write_key(&mut key);
            visit(path, &key);
        });
        Ok(())
    }

    pub(crate) fn document(&self) -> Result<&Document<'e>, &NotJson> {
        let parse = || Document::parse(self.bytes()?).map_err(not_json);
        self.document.get_or_init(parse).as_ref()
    }

    fn bytes(&self) -> Result<&'e [u8], NotJson> {
        let data = self.event.data().ok_or_else(|| NotJson("the event has no data".into()))?;
        Ok(&data.bytes)
    }
}

fn not_json(error: impl std::fmt::Display) -> NotJson {
    NotJson(format!("the data is not JSON: {error}"))
}
