//! What nobody takes and what nobody sends: event types that matched no trigger, fields that filters name and no event has had.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use bytes::Bytes;

use crate::store::Record;

/// The last hour, in pieces that are forgotten one at a time.
const PIECE_MS: u64 = 5 * 60_000;
const PIECES: usize = 12;
/// Types kept in one piece; the rest is a count.
const TYPES_MAX: usize = 500;
/// Longer types are counted with the rest.
const TYPE_BYTES_MAX: usize = 256;
/// Events whose data is looked into for fields that have not been seen, in one second.
const LOOKS_PER_SECOND: u32 = 50;
/// Larger data is not looked into.
const LOOK_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Default)]
pub struct Census {
    pieces: VecDeque<Piece>,
    /// Attributes and fields of data, and whether an event has had them.
    attributes: HashMap<String, bool>,
    data: HashMap<String, bool>,
    unseen_attributes: usize,
    unseen_data: usize,
    looks: (u64, u32),
}

#[derive(Debug, Default)]
struct Piece {
    begin_ms: u64,
    types: HashMap<Box<str>, (u64, u64)>,
    others: (u64, u64),
}

/// A type that no trigger took; `None` stands for those beyond the bound, together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmatchedType {
    pub ty: Option<String>,
    pub count: u64,
    pub last_ms: u64,
}

/// Data to look for fields in, without the lock that the census is under.
#[derive(Debug)]
pub struct Search {
    unseen: Vec<String>,
    data: Vec<Bytes>,
}

impl Search {
    /// The fields that are in some of the data.
    pub fn run(mut self) -> Vec<String> {
        let mut found = Vec::new();
        for data in &self.data {
            let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) else { continue };
            found.extend(self.unseen.extract_if(.., |name| {
                let path = name.strip_prefix("data.").unwrap_or_default();
                path.is_empty() || has(&value, path)
            }));
        }
        found
    }
}

impl Census {
    /// Looks for fields, `data.` before those of the data. What has been seen stays seen as long as a filter names it.
    pub fn look_for(&mut self, fields: BTreeSet<String>) {
        let (data, attributes): (Vec<_>, Vec<_>) =
            fields.into_iter().partition(|field| field == "data" || field.starts_with("data."));
        let kept = |names: Vec<String>, known: &HashMap<String, bool>| -> HashMap<String, bool> {
            let seen = |name: &String| known.get(name).copied().unwrap_or(false);
            names.into_iter().map(|name| (name.clone(), seen(&name))).collect()
        };
        self.attributes = kept(attributes, &self.attributes);
        self.data = kept(data, &self.data);
        self.unseen_attributes = self.attributes.values().filter(|seen| !**seen).count();
        self.unseen_data = self.data.values().filter(|seen| !**seen).count();
    }

    /// Notes an event that was routed; its data is for [`Census::search`].
    pub fn note(&mut self, record: &Record, has_matched: bool) {
        if !has_matched {
            self.note_unmatched(record.event.ty(), record.received_at_ms);
        }
        if self.unseen_attributes > 0 {
            for (name, _) in record.event.attributes() {
                if let Some(seen) = self.attributes.get_mut(name).filter(|seen| !**seen) {
                    *seen = true;
                    self.unseen_attributes -= 1;
                }
            }
        }
    }

    fn note_unmatched(&mut self, ty: &str, at_ms: u64) {
        let begin_ms = at_ms - at_ms % PIECE_MS;
        if self.pieces.back().is_none_or(|piece| piece.begin_ms < begin_ms) {
            self.pieces.push_back(Piece { begin_ms, ..Piece::default() });
            while self.pieces.len() > PIECES + 1 {
                self.pieces.pop_front();
            }
        }
        let Some(piece) = self.pieces.back_mut() else { return };
        let has_room = piece.types.len() < TYPES_MAX && ty.len() <= TYPE_BYTES_MAX;
        let count = match piece.types.get_mut(ty) {
            Some(count) => count,
            None if has_room => piece.types.entry(ty.into()).or_default(),
            None => &mut piece.others,
        };
        *count = (count.0 + 1, at_ms);
    }

    /// What is to be looked into for unseen fields: the data of some events, since parsing that of all would cost more than
    /// routing does. `None` when there is nothing to look for.
    pub fn search<'r>(&mut self, records: impl IntoIterator<Item = &'r Record>) -> Option<Search> {
        if self.unseen_data == 0 {
            return None;
        }
        let data: Vec<Bytes> = records.into_iter().filter_map(|record| self.taken(record)).collect();
        let unseen = self.data.iter().filter(|(_, seen)| !**seen).map(|(name, _)| name.clone());
        (!data.is_empty()).then(|| Search { unseen: unseen.collect(), data })
    }

    /// An event's data, if there is a look left in its second.
    fn taken(&mut self, record: &Record) -> Option<Bytes> {
        let second = record.received_at_ms / 1000;
        if self.looks.0 != second {
            self.looks = (second, 0);
        }
        let data = record.event.data()?;
        if self.looks.1 >= LOOKS_PER_SECOND || data.bytes.len() > LOOK_BYTES_MAX {
            return None;
        }
        self.looks.1 += 1;
        Some(data.bytes.clone())
    }

    /// Takes in what a search has found.
    pub fn found(&mut self, fields: &[String]) {
        for field in fields {
            if let Some(seen) = self.data.get_mut(field).filter(|seen| !**seen) {
                *seen = true;
                self.unseen_data -= 1;
            }
        }
    }

    /// Fields that no event has had since they were first looked for; of the data, no event that was looked into.
    pub fn unseen(&self) -> HashSet<String> {
        let all = self.attributes.iter().chain(&self.data);
        all.filter(|(_, seen)| !**seen).map(|(name, _)| name.clone()).collect()
    }

    /// Types that no trigger took since a time, the most frequent first.
    pub fn unmatched(&self, since_ms: u64) -> Vec<UnmatchedType> {
        let mut sums: HashMap<&str, (u64, u64)> = HashMap::new();
        let mut others = (0, 0);
        let within = self.pieces.iter().filter(|piece| piece.begin_ms + PIECE_MS > since_ms);
        for piece in within {
            for (ty, (count, last_ms)) in &piece.types {
                let sum = sums.entry(ty).or_default();
                *sum = (sum.0 + count, sum.1.max(*last_ms));
            }
            others = (others.0 + piece.others.0, others.1.max(piece.others.1));
        }
        let entry =
            |ty: Option<&str>, (count, last_ms)| UnmatchedType { ty: ty.map(str::to_owned), count, last_ms };
        let mut types: Vec<_> = sums.into_iter().map(|(ty, sum)| entry(Some(ty), sum)).collect();
        types.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.ty.cmp(&b.ty)));
        if others.0 > 0 {
            types.push(entry(None, others));
        }
        types
    }
}

/// Whether there is something at a path of names; elements of lists are looked into, as patterns do.
fn has(value: &serde_json::Value, path: &str) -> bool {
    match value {
        serde_json::Value::Array(items) => items.iter().any(|item| has(item, path)),
        serde_json::Value::Object(members) => {
            let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
            let found = members.get(name).is_some_and(|member| rest.is_none_or(|rest| has(member, rest)));
            found || members.contains_key(path)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sluice_schemas::{DataForm, Event};

    use super::*;
    use crate::store::{Offset, digest};

    fn record(ty: &str, data: &str, received_at_ms: u64) -> Record {
        let event =
            Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/s");
        let event =
            event.attribute("type", ty).data(data.to_owned(), DataForm::Opaque).build().expect("valid");
        Record {
            offset: Offset(0),
            received_at_ms,
            via: "http".into(),
            trace: None,
            parent: None,
            hops: 0,
            key: digest::key("http", &event),
            content: digest::content(&event),
            event: Arc::new(event),
        }
    }

    /// As events are routed: noted, and looked into.
    fn route(census: &mut Census, record: &Record) {
        census.note(record, true);
        let found = census.search([record]).map(Search::run).unwrap_or_default();
        census.found(&found);
    }

    #[test]
    fn types_nobody_took_are_counted_for_an_hour_and_bounded() {
        let mut census = Census::default();
        let start = 1_000_000 * PIECE_MS;
        census.note(&record("old", "", start), false);
        let later = start + 90 * 60_000;
        census.note(&record("taken", "", later), true);
        for _ in 0..3 {
            census.note(&record("often", "", later + 1), false);
        }
        for n in 0..TYPES_MAX + 10 {
            census.note(&record(&format!("type-{n}"), "", later + 2), false);
        }
        let types = census.unmatched(later + 10 - 3_600_000);
        assert_eq!(types[0], UnmatchedType { ty: Some("often".into()), count: 3, last_ms: later + 1 });
        assert_eq!(types.last(), Some(&UnmatchedType { ty: None, count: 11, last_ms: later + 2 }));
        assert_eq!(types.len(), TYPES_MAX + 1);
        for n in 0..100 {
            census.note(&record("x", "", later + n * PIECE_MS), false);
        }
        assert!(census.pieces.len() <= PIECES + 1);
    }

    #[test]
    fn fields_are_unseen_until_an_event_has_them() {
        let mut census = Census::default();
        let fields = ["subject", "type", "data.order.amount", "data.items.sku", "data.never"];
        census.look_for(fields.map(str::to_owned).into());
        route(&mut census, &record("a", "{\"order\": {\"amount\": 1}, \"items\": [{\"sku\": \"x\"}]}", 1));
        let unseen = |census: &Census| {
            let mut fields: Vec<_> = census.unseen().into_iter().collect();
            fields.sort_unstable();
            fields
        };
        assert_eq!(unseen(&census), ["data.never", "subject"]);
        census.look_for(["type", "data.order.amount"].map(str::to_owned).into());
        assert!(unseen(&census).is_empty());
    }

    #[test]
    fn so_many_events_are_looked_into_in_a_second() {
        let mut census = Census::default();
        census.look_for(["data.a".to_owned()].into());
        for _ in 0..LOOKS_PER_SECOND {
            route(&mut census, &record("a", "{}", 5000));
        }
        route(&mut census, &record("a", "{\"a\": 1}", 5999));
        assert!(census.unseen().contains("data.a"));
        route(&mut census, &record("a", "{\"a\": 1}", 6000));
        assert!(census.unseen().is_empty());
    }
}
