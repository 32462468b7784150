//! Reads bodies within bounds of bytes and time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::refusal::Refused;

/// For a whole body.
pub const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// For other requests to give back bytes.
pub(super) const ROOM_DEADLINE: Duration = Duration::from_secs(1);
/// A body that has sent nothing for so long holds room for what it has sent, and gets the rest again when it goes on. Less
/// than others wait for room: who announces much and sends nothing delays them, and has none of them refused.
pub(super) const STALL_DEADLINE: Duration = Duration::from_millis(500);
/// It may hold so much in any case. All connections that `limits` allows by default have half of the budget then.
const STALLED_BYTES: usize = 8 << 10;
/// What a body without a length takes from the budget ahead of each read. No less than hyper reads at a time.
const STEP_BYTES: usize = 128 << 10;

/// The bytes that all bodies together may hold, from before they are read until the store has answered.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    free: Arc<Semaphore>,
    bytes: usize,
}

/// A part of the budget; given back when dropped.
#[derive(Debug, Default)]
pub(super) struct Share {
    permit: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        let bytes = bytes.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Self { free: Arc::new(Semaphore::new(bytes)), bytes }
    }

    /// Grows a share, waiting for a moment if there is no room. A share never exceeds the whole budget, so that a
    /// body larger than it can still pass, alone.
    async fn grow(&self, share: &mut Share, bytes: usize) -> Result<(), Refused> {
        let more = bytes.min(self.bytes).saturating_sub(share.bytes);
        let Ok(permits) = u32::try_from(more) else { return Err(Refused::Busy) };
        if permits == 0 {
            return Ok(());
        }
        let permit = match Arc::clone(&self.free).try_acquire_many_owned(permits) {
            Ok(permit) => permit,
            Err(_) => timeout(ROOM_DEADLINE, Arc::clone(&self.free).acquire_many_owned(permits))
                .await
                .ok()
                .and_then(Result::ok)
                .ok_or(Refused::Busy)?,
        };
        share.bytes += more;
        match &mut share.permit {
            Some(known) => known.merge(permit),
            None => share.permit = Some(permit),
        }
        Ok(())
    }
}

impl Share {
    /// Gives back what is above so many bytes.
    fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        drop(self.permit.as_mut().and_then(|permit| permit.split(less)));
        self.bytes -= less;
    }
}

/// Reads a body of at most so many bytes; what is known to be too large is not read at all.
pub(super) async fn read(body: Body, bytes_max: usize, budget: &Budget) -> Result<(Bytes, Share), Refused> {
    let mut share = Share::default();
    if body.is_end_stream() {
        return Ok((Bytes::new(), share));
    }
    let length = body.size_hint().exact();
    if length.is_some_and(|length| length > bytes_max as u64) {
        return Err(Refused::TooLarge { bytes_max });
    }
    let length = length.and_then(|length| usize::try_from(length).ok());
    let read = collect(body, length, bytes_max, budget, &mut share);
    let bytes = timeout(BODY_DEADLINE, read).await.map_err(|_| Refused::Late)??;
    Ok((bytes, share))
}

async fn collect(
    mut body: Body,
    length: Option<usize>,
    bytes_max: usize,
    budget: &Budget,
    share: &mut Share,
) -> Result<Bytes, Refused> {
    let mut first: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    loop {
        let before = first.as_ref().map_or(0, Bytes::len) + whole.len();
        budget.grow(share, length.unwrap_or(before + STEP_BYTES).min(bytes_max)).await?;
        let Some(frame) = next(&mut body, share, before.max(STALLED_BYTES)).await else { break };
        // Trailers mean nothing here.
        let Ok(data) = frame.map_err(|_| Refused::BrokenBody)?.into_data() else { continue };
        let after = before + data.len();
        if after > bytes_max {
            return Err(Refused::TooLarge { bytes_max });
        }
        // Most events come in one piece, which then is not copied.
        if before == 0 {
            first = Some(data);
            continue;
        }
        if let Some(first) = first.take() {
            // No more than has come: room for the rest may be given to others meanwhile.
            whole.reserve(after);
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&data);
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}

/// What comes next of a body; while nothing does, its share is no more than so many bytes.
async fn next(
    body: &mut Body,
    share: &mut Share,
    stalled_bytes: usize,
) -> Option<Result<Frame<Bytes>, axum::Error>> {
    if share.bytes > stalled_bytes {
        if let Ok(frame) = timeout(STALL_DEADLINE, body.frame()).await {
            return frame;
        }
        share.shrink(stalled_bytes);
    }
    body.frame().await
}
