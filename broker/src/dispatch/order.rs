//! Order by a key: one delivery of a key at a time, in log order.
//!
//! A key is kept as a hash: of two keys that share one, events are held without need and nothing else goes wrong.
//! Events that are not in memory are read for their keys by a task of their own, some at a time, never under the lock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use sluice_config as config;

use super::trigger::Active;
use crate::store::{DeliveryId, Offset, Reader, Record};

/// Keys looked up in one go.
pub const LOOK_UP_MAX: usize = 256;
/// Larger data is not parsed for its key while others wait.
const AT_HAND_BYTES_MAX: usize = 4 << 10;

/// What an event is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Of(u64),
    /// It has none, and goes when it likes.
    None,
    /// It cannot be read at the moment, which its attempt will say. If that can read it, it is put back for its key.
    Unreadable,
}

/// Events whose keys are to be read.
pub struct LookUp {
    pub trigger: Arc<Active>,
    pub hasher: RandomState,
    pub offsets: Vec<Offset>,
}

impl LookUp {
    /// Reads the keys. Blocks on the disk.
    pub fn read(&self, reader: &Reader) -> HashMap<Offset, Key> {
        let key = |offset: Offset| match reader.read(offset) {
            Ok(record) => key(&self.trigger.config.delivery.order, &record, &self.hasher),
            Err(_) => Key::Unreadable,
        };
        self.offsets.iter().map(|offset| (*offset, key(*offset))).collect()
    }

    /// What is known when reading them failed altogether.
    pub fn unreadable(&self) -> HashMap<Offset, Key> {
        self.offsets.iter().map(|offset| (*offset, Key::Unreadable)).collect()
    }
}

/// Keys that are taken, and who waits for them.
#[derive(Default)]
pub struct Order {
    keys: HashMap<DeliveryId, u64>,
    busy: HashMap<u64, VecDeque<Offset>>,
    held: HashSet<Offset>,
    /// What the last look-up brought and nobody has asked for yet.
    known: HashMap<Offset, Key>,
    is_looking_up: bool,
    /// The last delivery that went without its key having been read.
    unsure: Option<DeliveryId>,
}

impl Order {
    pub fn has_key(&self, id: DeliveryId) -> bool {
        self.keys.contains_key(&id)
    }

    pub fn is_held(&self, offset: Offset) -> bool {
        self.held.contains(&offset)
    }

    /// The key that was looked up for an event.
    pub fn known_key(&mut self, offset: Offset) -> Option<Key> {
        self.known.remove(&offset)
    }

    /// Takes a key for a delivery; false when it is taken: then the delivery is held until it is its turn.
    pub fn take(&mut self, id: DeliveryId, key: u64) -> bool {
        if let Some(waiting) = self.busy.get_mut(&key) {
            waiting.push_back(id.offset);
            self.held.insert(id.offset);
            return false;
        }
        self.busy.insert(key, VecDeque::new());
        self.keys.insert(id, key);
        true
    }

    /// Lets a delivery go whose key cannot be read.
    pub fn pass_unsure(&mut self, id: DeliveryId) {
        self.unsure = Some(id);
    }

    /// A delivery that may turn out to have a key when its attempt reads it: what follows could be of the same one.
    pub fn unsure(&self) -> Option<DeliveryId> {
        self.unsure
    }

    /// False when it was not this one.
    pub fn forget_unsure(&mut self, id: DeliveryId) -> bool {
        self.unsure.take_if(|unsure| *unsure == id).is_some()
    }

    /// A delivery is settled: its key goes to the next that waits for it, which is returned.
    pub fn release(&mut self, id: DeliveryId) -> Option<DeliveryId> {
        if id.redrive == 0 && self.held.remove(&id.offset) {
            // It ended without an attempt; whoever has the key passes over it.
            return None;
        }
        let key = self.keys.remove(&id)?;
        let waiting = self.busy.get_mut(&key)?;
        while let Some(offset) = waiting.pop_front() {
            if self.held.remove(&offset) {
                let next = DeliveryId { trigger: id.trigger, offset, redrive: 0 };
                self.keys.insert(next, key);
                return Some(next);
            }
        }
        self.busy.remove(&key);
        None
    }

    /// False when keys are being looked up already.
    pub fn begin_look_up(&mut self) -> bool {
        !std::mem::replace(&mut self.is_looking_up, true)
    }

    pub fn end_look_up(&mut self, keys: HashMap<Offset, Key>) {
        self.is_looking_up = false;
        self.known = keys;
    }
}

/// The key of an event, if it can be had without reading or parsing much.
pub fn key_at_hand(order: &config::Order, record: &Record, hasher: &RandomState) -> Option<Key> {
    let is_large = || record.event.data().is_some_and(|data| data.bytes.len() > AT_HAND_BYTES_MAX);
    match order {
        config::Order::Data(_) if is_large() => None,
        config::Order::None | config::Order::Attribute(_) | config::Order::Data(_) => {
            Some(key(order, record, hasher))
        }
    }
}

/// Whether an event is ordered by something.
pub fn has_key(order: &config::Order, record: &Record) -> bool {
    matches!(key(order, record, &RandomState::new()), Key::Of(_))
}

fn key(order: &config::Order, record: &Record, hasher: &RandomState) -> Key {
    let hash = match order {
        config::Order::None => None,
        config::Order::Attribute(name) => record.event.text(name).map(|text| hasher.hash_one(text)),
        config::Order::Data(path) => data_at(path, record).map(|found| hasher.hash_one(found)),
    };
    hash.map_or(Key::None, Key::Of)
}

fn data_at(path: &[String], record: &Record) -> Option<String> {
    let data: serde_json::Value = serde_json::from_slice(&record.event.data()?.bytes).ok()?;
    let found = path.iter().try_fold(&data, |value, part| value.get(part))?;
    (!found.is_null()).then(|| found.to_string())
}
