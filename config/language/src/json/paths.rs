//! Many places in data, looked at in one pass.

use std::collections::HashMap;

use super::Json;

/// Paths such as `order.items.sku`, each with a number. A key that has a dot is as many steps, as in event-ruler.
#[derive(Debug)]
pub struct Paths {
    /// The first is the root.
    nodes: Vec<Node>,
    count: usize,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, usize>,
    path: Option<usize>,
}

impl Default for Paths {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], count: 0 }
    }
}

impl Paths {
    /// The path's number: paths are counted from 0 as they come.
    pub fn insert(&mut self, path: &str) -> usize {
        let mut at = 0;
        for step in path.split('.') {
            at = match self.nodes[at].children.get(step) {
                Some(child) => *child,
                None => {
                    self.nodes.push(Node::default());
                    let child = self.nodes.len() - 1;
                    self.nodes[at].children.insert(step.into(), child);
                    child
                }
            };
        }
        let node = &mut self.nodes[at];
        *node.path.get_or_insert_with(|| {
            self.count += 1;
            self.count - 1
        })
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Visits every scalar at a path, elements of arrays included.
    pub(crate) fn visit<'j, 'e>(&self, json: &'j Json<'e>, visit: &mut dyn FnMut(usize, &'j Json<'e>)) {
        if matches!(json, Json::Object(_)) {
            self.visit_below(0, json, visit);
        }
    }

    fn visit_below<'j, 'e>(&self, at: usize, json: &'j Json<'e>, visit: &mut dyn FnMut(usize, &'j Json<'e>)) {
        let node = &self.nodes[at];
        match json {
            Json::Array(elements) => elements.iter().for_each(|element| self.visit_below(at, element, visit)),
            // The fewer are looked up among the more.
            Json::Object(object)
                if node.children.len() < object.members().len() && !object.has_dotted_keys() =>
            {
                for (step, child) in &node.children {
                    object.get(step).iter().for_each(|(_, value)| self.visit_below(*child, value, visit));
                }
            }
            Json::Object(object) => {
                for (key, value) in object.members() {
                    if let Some(child) = self.descend(at, key) {
                        self.visit_below(child, value, visit);
                    }
                }
            }
            scalar => {
                if let Some(path) = node.path {
                    visit(path, scalar);
                }
            }
        }
    }

    fn descend(&self, at: usize, key: &str) -> Option<usize> {
        key.split('.').try_fold(at, |at, step| self.nodes[at].children.get(step).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Document;
    use super::*;

    #[test]
    fn scalars_are_found_through_arrays_and_dotted_keys() {
        let mut paths = Paths::default();
        assert_eq!((paths.insert("a.b"), paths.insert("c"), paths.insert("a.b")), (0, 1, 0));
        let text = br#"{"a":[{"b":1},{"b":[2,[3]]},4],"a.b":5,"c":{"b":6},"d":7,"c":8}"#;
        let document = Document::parse(text).expect("JSON");
        let mut found = Vec::new();
        paths.visit(&document.root, &mut |path, scalar| {
            let Json::Number(number) = scalar else { panic!("{scalar:?}") };
            found.push((path, number.text));
        });
        assert_eq!(found, [(0, "1"), (0, "2"), (0, "3"), (0, "5"), (1, "8")]);
    }
}
