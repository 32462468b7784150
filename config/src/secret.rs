//! Values that are never shown.

use crate::diagnostic::Problems;
use crate::keys::wrong;
use crate::model::Secret;
use crate::tree::{Node, Scalar, Value};

/// Reads a secret: never empty, and better not written into the file.
pub(crate) fn read_secret(name: &str, node: &Node, problems: &mut Problems) -> Option<Secret> {
    let Value::Scalar(Scalar { text, reference, .. }) = &node.value else {
        problems.error_unseen(node.at, format!("`{name}`: expected text, found {}", node.kind()));
        return None;
    };
    if node.is_null() {
        wrong(name, node, "expected text", problems);
        return None;
    }
    match (text.is_empty(), reference) {
        (true, None) => {
            problems.error(node.at, format!("`{name}` is empty"));
            return None;
        }
        // The reference could not be expanded, which is reported already.
        (true, Some(_)) => return None,
        (false, None) => warn_of_plain_text(&format!("`{name}`"), node, problems),
        (false, Some(_)) => {}
    }
    Some(Secret::new(text.clone()))
}

pub(crate) fn warn_of_plain_text(what: &str, node: &Node, problems: &mut Problems) {
    let message =
        format!("{what} holds a secret in plain text: write \"${{NAME}}\" or \"${{file:PATH}}\" instead");
    problems.warning_unseen(node.at, message);
}
