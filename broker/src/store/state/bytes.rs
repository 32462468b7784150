//! The state in the bytes of a snapshot.

use std::collections::BTreeMap;
use std::iter::repeat;
use std::sync::Arc;

use super::{AsideEntry, Books, DeadLetter, Paused, RoutingCount, Slot, State, TriggerState};
use crate::delivery::Reason;
use crate::store::record::{DeliveryId, Digest, Gap, TriggerSet};
use crate::store::{Offset, TriggerId};

#[derive(serde::Serialize, serde::Deserialize)]
struct Head {
    base_ms: u64,
    next_offset: Offset,
    last_received_ms: u64,
    set: TriggerSet,
    unrouted: Vec<(Offset, Offset)>,
    routed_total: u64,
    redrives: u32,
    next_trigger: u32,
    gaps: Vec<[u64; 6]>,
    triggers: Vec<TriggerHead>,
    dead: usize,
    #[serde(default)]
    owed: usize,
    #[serde(default)]
    last_aside: u64,
    #[serde(default)]
    asides: Vec<(u64, u64, Offset, bool, Arc<str>)>,
    /// Of those, in their order.
    #[serde(default)]
    aside_digests: Vec<Option<[u8; 16]>>,
    #[serde(default)]
    marks: BTreeMap<Arc<str>, String>,
    #[serde(default)]
    paused_sources: BTreeMap<Arc<str>, Paused>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct TriggerHead {
    id: TriggerId,
    birth: Offset,
    books: Books,
    routing: RoutingCount,
    history: Option<(Offset, Offset)>,
    behind: Option<Offset>,
    paused: Option<Paused>,
    paused_total_ms: u64,
    last_matched_at_ms: u64,
    outstanding: usize,
    redriven: Vec<u32>,
    ahead: usize,
    #[serde(default)]
    matched_to: Offset,
}

const SLOT_BYTES: usize = 20;

impl State {
    /// Appends the bytes of a snapshot: a head in JSON with its length, then slots and dead letters in fixed width.
    pub fn encode_into(&self, bytes: &mut Vec<u8>) {
        let head = serde_json::to_vec(&self.head()).unwrap_or_default();
        bytes.extend_from_slice(&(head.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&head);
        for trigger in self.triggers.values() {
            trigger.outstanding.iter().for_each(|slot| slot.encode(bytes));
            trigger.redriven.values().for_each(|slot| slot.encode(bytes));
            for (offset, slot) in &trigger.ahead {
                bytes.push(u8::from(slot.is_some()));
                slot.unwrap_or(Slot::new(*offset)).encode(bytes);
            }
        }
        for (id, letter) in &self.dead {
            put_id(bytes, *id);
            bytes.push(letter.reason as u8);
            bytes.extend_from_slice(&letter.at_ms.to_le_bytes());
        }
        self.owed.iter().for_each(|id| put_id(bytes, *id));
    }

    fn head(&self) -> Head {
        let trigger = |(id, trigger): (&TriggerId, &TriggerState)| TriggerHead {
            id: *id,
            birth: trigger.birth,
            books: trigger.books,
            routing: trigger.routing,
            history: trigger.history,
            behind: trigger.behind,
            paused: trigger.paused.clone(),
            paused_total_ms: trigger.paused_total_ms,
            last_matched_at_ms: trigger.last_matched_at_ms,
            outstanding: trigger.outstanding.len(),
            redriven: trigger.redriven.keys().map(|(_, n)| *n).collect(),
            ahead: trigger.ahead.len(),
            matched_to: trigger.matched_to,
        };
        let aside = |(number, entry): (u64, &AsideEntry)| {
            (number, entry.at_ms, entry.near, entry.is_conflict, Arc::clone(&entry.source))
        };
        let gap = |g: &Gap| [g.at_ms, g.from.0, g.to.0, g.segment, g.start, g.end];
        Head {
            base_ms: self.base_ms,
            next_offset: self.next_offset,
            last_received_ms: self.last_received_ms,
            set: self.set.clone(),
            unrouted: self.unrouted.clone(),
            routed_total: self.routed_total,
            redrives: self.redrives,
            next_trigger: self.next_trigger,
            gaps: self.gaps.iter().map(gap).collect(),
            triggers: self.triggers.iter().map(trigger).collect(),
            dead: self.dead.len(),
            owed: self.owed.len(),
            last_aside: self.last_aside,
            asides: self.asides.iter().map(aside).collect(),
            aside_digests: self.asides.iter().map(|(_, entry)| entry.digest.map(|digest| digest.0)).collect(),
            marks: self.marks.clone(),
            paused_sources: self.paused_sources.clone(),
        }
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_at_checked(8)?;
        let (head, mut tail) = rest.split_at_checked(u64::from_le_bytes(length.try_into().ok()?) as usize)?;
        let head: Head = serde_json::from_slice(head).ok()?;
        let mut take = |count: usize| {
            let (taken, rest) = tail.split_at_checked(count)?;
            tail = rest;
            Some(taken)
        };
        let mut state = Self {
            base_ms: head.base_ms,
            next_offset: head.next_offset,
            last_received_ms: head.last_received_ms,
            set: head.set,
            unrouted: head.unrouted,
            routed_total: head.routed_total,
            redrives: head.redrives,
            next_trigger: head.next_trigger,
            last_aside: head.last_aside,
            marks: head.marks,
            paused_sources: head.paused_sources,
            ..Self::default()
        };
        for [at_ms, from, to, segment, start, end] in head.gaps {
            state.gaps.push(Gap { at_ms, from: Offset(from), to: Offset(to), segment, start, end });
        }
        let digests = head.aside_digests.into_iter().map(|digest| digest.map(Digest)).chain(repeat(None));
        for ((number, at_ms, near, is_conflict, source), digest) in head.asides.into_iter().zip(digests) {
            state.asides.insert(number, AsideEntry { source, at_ms, near, is_conflict, digest });
        }
        for known in head.triggers {
            let mut trigger = TriggerState {
                birth: known.birth,
                books: known.books,
                routing: known.routing,
                history: known.history,
                behind: known.behind,
                paused: known.paused,
                paused_total_ms: known.paused_total_ms,
                last_matched_at_ms: known.last_matched_at_ms,
                matched_to: known.matched_to,
                ..TriggerState::default()
            };
            trigger.outstanding.slots.reserve(known.outstanding);
            for _ in 0..known.outstanding {
                trigger.outstanding.push(Slot::decode(take(SLOT_BYTES)?)?);
            }
            for redrive in known.redriven {
                let slot = Slot::decode(take(SLOT_BYTES)?)?;
                trigger.redriven.insert((slot.offset(), redrive), slot);
            }
            for _ in 0..known.ahead {
                let open = take(1)?[0] == 1;
                let slot = Slot::decode(take(SLOT_BYTES)?)?;
                trigger.ahead.insert(slot.offset(), open.then_some(slot));
            }
            state.triggers.insert(known.id, trigger);
        }
        for _ in 0..head.dead {
            let id = take_id(take(ID_BYTES)?)?;
            let reason = Reason::from_code(take(1)?[0])?;
            let at_ms = u64::from_le_bytes(take(8)?.try_into().ok()?);
            state.dead.insert(id, DeadLetter { reason, at_ms });
        }
        for _ in 0..head.owed {
            state.owed.insert(take_id(take(ID_BYTES)?)?);
        }
        Some(state)
    }
}

const ID_BYTES: usize = 16;

fn put_id(bytes: &mut Vec<u8>, id: DeliveryId) {
    bytes.extend_from_slice(&id.trigger.0.to_le_bytes());
    bytes.extend_from_slice(&id.offset.0.to_le_bytes());
    bytes.extend_from_slice(&id.redrive.to_le_bytes());
}

fn take_id(bytes: &[u8]) -> Option<DeliveryId> {
    Some(DeliveryId {
        trigger: TriggerId(u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?)),
        offset: Offset(u64::from_le_bytes(bytes.get(4..12)?.try_into().ok()?)),
        redrive: u32::from_le_bytes(bytes.get(12..ID_BYTES)?.try_into().ok()?),
    })
}

#[cfg(test)]
impl State {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode_into(&mut bytes);
        bytes
    }
}
