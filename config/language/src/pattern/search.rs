//! The search for elements of arrays in which all fields of a branch hold together.
//!
//! A field is found at a path of keys; arrays on the way are looked through. **Array consistency**: where two fields of a
//! branch lead through the same array of the event, they must hold in the same element of it. So a field may hold in one of
//! several places, each a choice of elements, and a choice binds the fields after it. Fields are taken in order, and a choice
//! is kept only as long as a later field can meet the same array; a choice that has failed is not tried again. That makes
//! the work for an ordinary event the size of the event times the fields. Events made for it (an array under the same key
//! many times over) can ask for more, so steps are counted and the search gives up.
//!
//! `{"exists": false}` holds when there is nothing at the path in the elements that fields before it have chosen.

use std::collections::HashSet;
use std::sync::Arc;

use super::condition::Alternatives;
use crate::json::{Document, Json};

/// One combination of fields, in event-ruler's order.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub fields: Box<[Field]>,
    /// Whether fields may meet the same array.
    is_bound: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    pub name: Box<str>,
    pub alternatives: Arc<Alternatives>,
    /// Where each step of the name ends.
    ends: Box<[usize]>,
    /// For each number of steps, the last field of the branch that begins with the same steps.
    last: Box<[usize]>,
}

/// An element that was gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Choice {
    /// The address of the array, which tells it from others of the event.
    array: usize,
    element: usize,
    /// The last field that could meet this array.
    last: usize,
}

/// The steps allowed are used up.
pub(super) struct Exhausted;

/// Whether the document matches a branch.
pub(super) fn matches(branches: &[Branch], document: &Document<'_>) -> Result<bool, Exhausted> {
    if !matches!(document.root, Json::Object(_)) {
        return Ok(false);
    }
    for branch in branches {
        let mut search = Search::of(branch, document);
        if search.may_hold(branch)? && search.holds(0, Vec::new())? {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Field {
    pub fn of(name: String, alternatives: Arc<Alternatives>) -> Self {
        let dots = name.match_indices('.').map(|(at, _)| at);
        let ends: Box<[usize]> = dots.chain([name.len()]).collect();
        Self { name: name.into(), alternatives, last: vec![0; ends.len()].into(), ends }
    }

    /// The name's steps `from..to`.
    fn steps(&self, from: usize, to: usize) -> &str {
        let start = if from == 0 { 0 } else { self.ends[from - 1] + 1 };
        &self.name[start..self.ends[to - 1]]
    }

    fn begins_with(&self, steps: &str) -> bool {
        self.name.strip_prefix(steps).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// All scalars at the field's path.
    pub fn scalars<'j, 'e>(&self, document: &'j Document<'e>) -> Vec<&'j Json<'e>> {
        let mut found = Vec::new();
        if !matches!(document.root, Json::Object(_)) {
            return found;
        }
        let mut walk = Walk { field: self, chosen: &[], trail: Vec::new(), steps_left: u64::MAX };
        let _ = walk.visit(&document.root, 0, &mut |scalar, _| {
            found.push(scalar);
            false
        });
        found
    }
}

impl Branch {
    pub fn of(mut fields: Box<[Field]>) -> Self {
        for at in 0..fields.len() {
            let field = &fields[at];
            let last_with = |end: &usize| {
                let steps = &field.name[..*end];
                (at..fields.len()).rev().find(|other| fields[*other].begins_with(steps)).unwrap_or(at)
            };
            let last = field.ends.iter().map(last_with).collect();
            fields[at].last = last;
        }
        let is_bound = fields.iter().enumerate().any(|(at, field)| field.last.iter().any(|last| *last > at));
        Self { fields, is_bound }
    }
}

struct Search<'s, 'e> {
    fields: &'s [Field],
    root: &'s Json<'e>,
    /// Fields and choices from which nothing was found.
    failed: HashSet<(usize, Vec<Choice>)>,
    steps_left: u64,
}

impl<'s, 'e> Search<'s, 'e> {
    fn of(branch: &'s Branch, document: &'s Document<'e>) -> Self {
        const STEPS_MIN: u64 = 10_000;
        const VISITS_MAX: u64 = 16;
        let size = document.values as u64 * branch.fields.len() as u64;
        let steps_left = STEPS_MIN + VISITS_MAX * size;
        Self { fields: &branch.fields, root: &document.root, failed: HashSet::new(), steps_left }
    }

    /// Whether each field holds somewhere: cheap to find out, and seldom so.
    fn may_hold(&mut self, branch: &Branch) -> Result<bool, Exhausted> {
        if branch.is_bound {
            for field in self.fields {
                if !field.alternatives.may_be_absent && !self.holds_somewhere(field, &[])? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Whether the fields from this one on hold, given the choices of those before it.
    fn holds(&mut self, mut at: usize, mut chosen: Vec<Choice>) -> Result<bool, Exhausted> {
        while let Some(field) = self.fields.get(at) {
            at += 1;
            let binds_others = field.last.iter().any(|last| *last >= at);
            if !binds_others {
                if !self.holds_somewhere(field, &chosen)? {
                    return Ok(false);
                }
                chosen.retain(|choice| choice.last >= at);
                continue;
            }
            let mut ways = self.ways(field, &chosen, at)?;
            let Some(last) = ways.pop() else { return Ok(false) };
            for way in ways {
                if self.holds_from(at, way)? {
                    return Ok(true);
                }
            }
            chosen = last;
        }
        Ok(true)
    }

    fn holds_from(&mut self, at: usize, chosen: Vec<Choice>) -> Result<bool, Exhausted> {
        if self.failed.contains(&(at, chosen.clone())) {
            return Ok(false);
        }
        let holds = self.holds(at, chosen.clone())?;
        self.failed.insert((at, chosen));
        Ok(holds)
    }

    fn holds_somewhere(&mut self, field: &Field, chosen: &[Choice]) -> Result<bool, Exhausted> {
        let (mut is_present, mut holds) = (false, false);
        let alternatives = &field.alternatives;
        let mut walk = Walk { field, chosen, trail: Vec::new(), steps_left: self.steps_left };
        walk.visit(self.root, 0, &mut |scalar, _| {
            is_present = true;
            holds = alternatives.hold(scalar);
            holds
        })?;
        self.steps_left = walk.steps_left;
        Ok(holds || (alternatives.may_be_absent && !is_present))
    }

    /// The different choices under which the field holds, as far as fields from `next` on can meet them.
    fn ways(&mut self, field: &Field, chosen: &[Choice], next: usize) -> Result<Vec<Vec<Choice>>, Exhausted> {
        let mut is_present = false;
        let mut known = HashSet::new();
        let mut ways = Vec::new();
        let alternatives = &field.alternatives;
        let kept = |trail: &[Choice]| {
            let all = chosen.iter().chain(trail).filter(|choice| choice.last >= next);
            let mut kept: Vec<Choice> = all.copied().collect();
            kept.sort_unstable();
            kept
        };
        let mut walk = Walk { field, chosen, trail: Vec::new(), steps_left: self.steps_left };
        walk.visit(self.root, 0, &mut |scalar, trail| {
            is_present = true;
            if alternatives.hold(scalar) {
                let way = kept(trail);
                if known.insert(way.clone()) {
                    ways.push(way);
                }
            }
            false
        })?;
        self.steps_left = walk.steps_left;
        if alternatives.may_be_absent && !is_present {
            ways.push(kept(&[]));
        }
        Ok(ways)
    }
}

/// A walk to the scalars at a field's path that keeps to the elements chosen before.
struct Walk<'w> {
    field: &'w Field,
    chosen: &'w [Choice],
    /// The elements gone through besides.
    trail: Vec<Choice>,
    steps_left: u64,
}

impl Walk<'_> {
    /// Visits scalars until one is taken, and says whether one was. `at` is the number of steps gone.
    fn visit<'j, 'e>(
        &mut self,
        json: &'j Json<'e>,
        at: usize,
        take: &mut impl FnMut(&'j Json<'e>, &[Choice]) -> bool,
    ) -> Result<bool, Exhausted> {
        self.steps_left = self.steps_left.checked_sub(1).ok_or(Exhausted)?;
        let is_there = at == self.field.ends.len();
        match json {
            Json::Object(_) if is_there => Ok(false),
            Json::Object(object) => {
                let to_max = if object.has_dotted_keys() { self.field.ends.len() } else { at + 1 };
                for to in at + 1..=to_max {
                    for (_, value) in object.get(self.field.steps(at, to)) {
                        if self.visit(value, to, take)? {
                            return Ok(true);
                        }
                    }
                }
                Ok(false)
            }
            Json::Array(elements) => self.visit_elements(elements, at, take),
            scalar => Ok(is_there && take(scalar, &self.trail)),
        }
    }

    /// Scalar elements belong to no element in particular: they go with any choice.
    fn visit_elements<'j, 'e>(
        &mut self,
        elements: &'j Vec<Json<'e>>,
        at: usize,
        take: &mut impl FnMut(&'j Json<'e>, &[Choice]) -> bool,
    ) -> Result<bool, Exhausted> {
        let array = std::ptr::from_ref(elements).addr();
        if let Some(choice) = self.chosen.iter().find(|choice| choice.array == array) {
            // A field that ends at this array comes before those that lead through it: here is no choice to add.
            return elements.get(choice.element).map_or(Ok(false), |value| self.visit(value, at, take));
        }
        let last = self.field.last[at - 1];
        for (element, value) in elements.iter().enumerate() {
            if value.is_scalar() {
                if self.visit(value, at, take)? {
                    return Ok(true);
                }
                continue;
            }
            self.trail.push(Choice { array, element, last });
            let is_taken = self.visit(value, at, take)?;
            self.trail.pop();
            if is_taken {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
