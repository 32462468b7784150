//! Deliveries and what came of their attempts, in outcome records.

use bytes::Bytes;

use super::super::fields::{self, Reader, Writer, put_number, take_number};
use super::super::{Offset, TriggerId};
use crate::delivery::Reason;

/// Names a delivery: redrives of one event to one trigger are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    pub trigger: TriggerId,
    pub offset: Offset,
    pub redrive: u32,
}

/// One attempt and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempted {
    pub id: DeliveryId,
    /// From 1; 0 for an ending without an attempt (discarded, trigger removed, too old).
    pub attempt: u32,
    /// The time of day when it began, on the wall's clock.
    pub at_ms: u64,
    pub duration_ms: u32,
    pub status: Option<u16>,
    pub error: Option<Box<str>>,
    /// The first KiB of a refusing answer.
    pub body: Bytes,
    /// The dead-letter sink is still to be told of this ending.
    pub owes_letter: bool,
    pub next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Delivered,
    /// On the clock of waits: when this attempt began, and when the next one is due.
    RetryAt {
        begun_ms: u64,
        due_ms: u64,
    },
    Dead(Reason),
}

pub(super) fn put_id(body: &mut Vec<u8>, id: DeliveryId) {
    put_number(body, u64::from(id.trigger.0));
    put_number(body, id.offset.0);
    put_number(body, u64::from(id.redrive));
}

pub(super) fn take_id(bytes: &mut &[u8]) -> Option<DeliveryId> {
    let trigger = TriggerId(take_number(bytes)? as u32);
    let offset = Offset(take_number(bytes)?);
    Some(DeliveryId { trigger, offset, redrive: take_number(bytes)? as u32 })
}

/// The fixed part first, then fields, so that most attempts (delivered at once) take a dozen bytes.
pub fn put_attempted(body: &mut Vec<u8>, attempted: &Attempted) {
    put_id(body, attempted.id);
    put_number(body, u64::from(attempted.attempt));
    put_number(body, attempted.at_ms);
    put_number(body, u64::from(attempted.duration_ms));
    put_number(body, u64::from(attempted.status.unwrap_or(0)));
    let mut fields = Writer(body);
    match attempted.next {
        Next::Delivered => {}
        Next::RetryAt { begun_ms, due_ms } => {
            fields.number(1, due_ms).number(6, begun_ms);
        }
        Next::Dead(reason) => {
            fields.text(2, reason.as_str());
        }
    }
    if let Some(error) = &attempted.error {
        fields.text(3, error);
    }
    if !attempted.body.is_empty() {
        fields.bytes(4, &attempted.body);
    }
    if attempted.owes_letter {
        fields.number(5, 1);
    }
}

/// Reads an attempt of an outcome record.
pub fn decode_attempted(mut bytes: &[u8]) -> Option<Attempted> {
    let id = take_id(&mut bytes)?;
    let attempt = take_number(&mut bytes)? as u32;
    let at_ms = take_number(&mut bytes)?;
    let duration_ms = take_number(&mut bytes)? as u32;
    let status = Some(take_number(&mut bytes)? as u16).filter(|status| *status != 0);
    let mut attempted = Attempted {
        id,
        attempt,
        at_ms,
        duration_ms,
        status,
        error: None,
        body: Bytes::new(),
        owes_letter: false,
        next: Next::Delivered,
    };
    for (tag, field) in Reader(bytes) {
        match tag {
            // Without field 6, as they were first written, `at_ms` was on the clock of waits.
            1 => attempted.next = Next::RetryAt { begun_ms: at_ms, due_ms: fields::number(field)? },
            2 => attempted.next = Next::Dead(Reason::parse(fields::text(field)?)?),
            3 => attempted.error = fields::text(field).map(Into::into),
            4 => attempted.body = Bytes::copy_from_slice(field),
            5 => attempted.owes_letter = true,
            6 => {
                if let Next::RetryAt { begun_ms, .. } = &mut attempted.next {
                    *begun_ms = fields::number(field)?;
                }
            }
            _ => {}
        }
    }
    Some(attempted)
}
