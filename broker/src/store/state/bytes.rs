//! The state in the bytes of a snapshot.

use super::{Books, DeadLetter, Paused, RoutingCount, Slot, State, TriggerState};
use crate::delivery::Reason;
use crate::store::record::{DeliveryId, Gap, TriggerSet};
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
            bytes.extend_from_slice(&id.trigger.0.to_le_bytes());
            bytes.extend_from_slice(&id.offset.0.to_le_bytes());
            bytes.extend_from_slice(&id.redrive.to_le_bytes());
            bytes.push(letter.reason as u8);
            bytes.extend_from_slice(&letter.at_ms.to_le_bytes());
        }
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
            ..Self::default()
        };
        for [at_ms, from, to, segment, start, end] in head.gaps {
            state.gaps.push(Gap { at_ms, from: Offset(from), to: Offset(to), segment, start, end });
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
            let trigger = TriggerId(u32::from_le_bytes(take(4)?.try_into().ok()?));
            let offset = Offset(u64::from_le_bytes(take(8)?.try_into().ok()?));
            let redrive = u32::from_le_bytes(take(4)?.try_into().ok()?);
            let reason = Reason::from_code(take(1)?[0])?;
            let at_ms = u64::from_le_bytes(take(8)?.try_into().ok()?);
            state.dead.insert(DeliveryId { trigger, offset, redrive }, DeadLetter { reason, at_ms });
        }
        Some(state)
    }
}

#[cfg(test)]
impl State {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode_into(&mut bytes);
        bytes
    }
}
