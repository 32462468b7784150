//! The state in the bytes of a snapshot.

use std::collections::BTreeMap;
use std::io;
use std::iter::repeat;
use std::sync::Arc;

use super::{AsideEntry, Books, DeadLetter, Paused, RoutingCount, Slot, State, TriggerState};
use crate::delivery::Reason;
use crate::store::record::{DeliveryId, Digest, Gap, TriggerSet};
use crate::store::stream::{Input, invalid};
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

impl State {
    /// Puts the bytes of a snapshot: a head in JSON with its length, then slots and dead letters in fixed width.
    pub fn encode_into(&self, put: &mut dyn FnMut(&[u8])) {
        let head = serde_json::to_vec(&self.head()).unwrap_or_default();
        put(&(head.len() as u64).to_le_bytes());
        put(&head);
        for trigger in self.triggers.values() {
            trigger.outstanding.iter().for_each(|slot| put(&slot.encode()));
            trigger.redriven.values().for_each(|slot| put(&slot.encode()));
            for (offset, slot) in &trigger.ahead {
                put(&[u8::from(slot.is_some())]);
                put(&slot.unwrap_or(Slot::new(*offset)).encode());
            }
        }
        for (id, letter) in &self.dead {
            put(&id_bytes(*id));
            put(&[letter.reason as u8]);
            put(&letter.at_ms.to_le_bytes());
        }
        self.owed.iter().for_each(|id| put(&id_bytes(*id)));
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
            set: TriggerSet::clone(&self.set),
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

    /// Reads what a snapshot of this version holds.
    pub fn decode(input: &mut Input<'_>, version: u32) -> io::Result<Self> {
        let head = input.count(1)?;
        let head: Head = serde_json::from_slice(input.take(head)?).map_err(invalid)?;
        let decode = if version == 1 { Slot::decode_version_1 } else { Slot::decode };
        let mut state = Self {
            base_ms: head.base_ms,
            next_offset: head.next_offset,
            last_received_ms: head.last_received_ms,
            set: Arc::new(head.set),
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
            for _ in 0..known.outstanding {
                trigger.outstanding.push(decode(input.array()?));
            }
            for redrive in known.redriven {
                let slot = decode(input.array()?);
                trigger.redriven.insert((slot.offset(), redrive), slot);
            }
            for _ in 0..known.ahead {
                let [open] = input.array()?;
                let slot = decode(input.array()?);
                trigger.ahead.insert(slot.offset(), (open == 1).then_some(slot));
            }
            state.triggers.insert(known.id, trigger);
        }
        for _ in 0..head.dead {
            let id = take_id(input)?;
            let [reason] = input.array()?;
            let reason = Reason::from_code(reason).ok_or_else(|| invalid("a reason that is not known"))?;
            state.dead.insert(id, DeadLetter { reason, at_ms: input.u64()? });
        }
        for _ in 0..head.owed {
            state.owed.insert(take_id(input)?);
        }
        Ok(state)
    }
}

const ID_BYTES: usize = 16;

fn id_bytes(id: DeliveryId) -> [u8; ID_BYTES] {
    let mut bytes = [0; ID_BYTES];
    bytes[..4].copy_from_slice(&id.trigger.0.to_le_bytes());
    bytes[4..12].copy_from_slice(&id.offset.0.to_le_bytes());
    bytes[12..].copy_from_slice(&id.redrive.to_le_bytes());
    bytes
}

fn take_id(input: &mut Input<'_>) -> io::Result<DeliveryId> {
    let trigger = TriggerId(input.u32()?);
    Ok(DeliveryId { trigger, offset: Offset(input.u64()?), redrive: input.u32()? })
}

#[cfg(test)]
impl State {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode_into(&mut |part| bytes.extend_from_slice(part));
        bytes
    }
}
