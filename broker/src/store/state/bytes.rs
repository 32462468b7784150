//! The state in the bytes of a snapshot.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use super::{AsideEntry, Books, DeadLetter, Paused, RoutingCount, Slot, State, TriggerState};
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
    #[serde(default)]
    owed: usize,
    #[serde(default)]
    last_aside: u64,
    #[serde(default)]
    asides: Vec<(u64, u64, Offset, bool, Arc<str>)>,
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
    /// Writes a head in JSON with its length, then slots and dead letters in fixed width.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let head = serde_json::to_vec(&self.head())?;
        out.write_all(&(head.len() as u64).to_le_bytes())?;
        out.write_all(&head)?;
        for trigger in self.triggers.values() {
            for slot in trigger.outstanding.iter().chain(trigger.redriven.values()) {
                out.write_all(&slot.encode())?;
            }
            for (offset, slot) in &trigger.ahead {
                out.write_all(&[u8::from(slot.is_some())])?;
                out.write_all(&slot.unwrap_or(Slot::new(*offset)).encode())?;
            }
        }
        for (id, letter) in &self.dead {
            out.write_all(&encode_id(*id))?;
            out.write_all(&[letter.reason as u8])?;
            out.write_all(&letter.at_ms.to_le_bytes())?;
        }
        self.owed.iter().try_for_each(|id| out.write_all(&encode_id(*id)))
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
        let aside = |(number, entry): (&u64, &AsideEntry)| {
            (*number, entry.at_ms, entry.near, entry.is_conflict, Arc::clone(&entry.source))
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
            marks: self.marks.clone(),
            paused_sources: self.paused_sources.clone(),
        }
    }

    pub fn decode(input: &mut impl Read) -> io::Result<Self> {
        let mut head = vec![0; u64::from_le_bytes(take(input)?) as usize];
        input.read_exact(&mut head)?;
        let head: Head = serde_json::from_slice(&head)?;
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
        for (number, at_ms, near, is_conflict, source) in head.asides {
            state.asides.insert(number, AsideEntry { source, at_ms, near, is_conflict });
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
                trigger.outstanding.push(Slot::decode(take(input)?));
            }
            for redrive in known.redriven {
                let slot = Slot::decode(take(input)?);
                trigger.redriven.insert((slot.offset(), redrive), slot);
            }
            for _ in 0..known.ahead {
                let [is_open] = take(input)?;
                let slot = Slot::decode(take(input)?);
                trigger.ahead.insert(slot.offset(), (is_open == 1).then_some(slot));
            }
            state.triggers.insert(known.id, trigger);
        }
        for _ in 0..head.dead {
            let id = decode_id(take(input)?);
            let [code] = take(input)?;
            let reason = Reason::from_code(code)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a reason nobody knows"))?;
            state.dead.insert(id, DeadLetter { reason, at_ms: u64::from_le_bytes(take(input)?) });
        }
        for _ in 0..head.owed {
            state.owed.insert(decode_id(take(input)?));
        }
        Ok(state)
    }
}

fn take<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).map(|()| bytes)
}

fn encode_id(id: DeliveryId) -> [u8; 16] {
    let parts = [u128::from(id.trigger.0), u128::from(id.offset.0) << 32, u128::from(id.redrive) << 96];
    (parts[0] | parts[1] | parts[2]).to_le_bytes()
}

fn decode_id(bytes: [u8; 16]) -> DeliveryId {
    let all = u128::from_le_bytes(bytes);
    DeliveryId {
        trigger: TriggerId(all as u32),
        offset: Offset((all >> 32) as u64),
        redrive: (all >> 96) as u32,
    }
}

#[cfg(test)]
impl State {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes).expect("memory takes it");
        bytes
    }
}
