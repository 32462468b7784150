//! Records on their way from a pulling source into the log.
//!
//! One batch is being stored at a time, and what comes meanwhile waits for the next, so the log gets records in the order they
//! were received in, and what is stored is always the contiguous beginning of what was received: a source acknowledges
//! what [`Feed::stored`] returns. A batch that the store has no room for is sent again until it has; what waits is bounded, and
//! a source takes no more while [`Feed::is_full`].

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluice_schemas::Event;
use tokio::time::{Instant, sleep};

use crate::{Aside, Context, Entry, Record, Refusal, Report, Unfit};

const BATCH_RECORDS_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 4 << 20;
const WAITING_RECORDS_MAX: usize = 2 * BATCH_RECORDS_MAX;
const WAITING_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;
/// Between two attempts to store a batch that the store had no room for.
const RETRY: Duration = Duration::from_millis(200);

/// A record, what became of it, and where it is to be acknowledged.
struct Taken<P> {
    record: Record,
    made: Result<Arc<Event>, Unfit>,
    place: P,
}

pub(crate) struct Feed<P> {
    context: Context,
    waiting: VecDeque<Taken<P>>,
    waiting_bytes: usize,
    flight: Option<Flight<P>>,
}

struct Flight<P> {
    since: Instant,
    /// `None` when it was told to stop before there was room.
    stored: Pin<Box<dyn Future<Output = Option<Vec<P>>> + Send>>,
}

impl<P: Send + 'static> Feed<P> {
    pub fn new(context: &Context) -> Self {
        Self { context: context.clone(), waiting: VecDeque::new(), waiting_bytes: 0, flight: None }
    }

    pub fn push(&mut self, record: Record, made: Result<Event, Unfit>, place: P) {
        self.waiting_bytes += size(&record);
        self.waiting.push_back(Taken { record, made: made.map(Arc::new), place });
    }

    /// Whether no more is to be taken for now.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_RECORDS_MAX || self.waiting_bytes >= WAITING_BYTES_MAX
    }

    /// Since when the batch that is being stored has been.
    pub fn storing_since(&self) -> Option<Instant> {
        self.flight.as_ref().map(|flight| flight.since)
    }

    /// What is not being stored yet and what is no longer wanted is forgotten.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(&P) -> bool) {
        self.waiting.retain(|taken| is_wanted(&taken.place));
        self.waiting_bytes = self.waiting.iter().map(|taken| size(&taken.record)).sum();
    }

    /// Returns the places of the next batch once it is on disk; `None` when it was told to stop and there is no room. Dropping the
    /// future loses nothing.
    pub async fn stored(&mut self) -> Option<Vec<P>> {
        if self.flight.is_none() {
            let batch = self.next_batch();
            if batch.is_empty() {
                return pending().await;
            }
            let stored = Box::pin(store(self.context.clone(), batch));
            self.flight = Some(Flight { since: Instant::now(), stored });
        }
        let Some(flight) = &mut self.flight else { return None };
        let stored = flight.stored.as_mut().await;
        self.flight = None;
        stored
    }

    /// Waits for what is being stored and gives up the rest.
    pub async fn finish(&mut self) -> Option<Vec<P>> {
        self.waiting.clear();
        self.waiting_bytes = 0;
        if self.flight.is_some() { self.stored().await } else { None }
    }

    fn next_batch(&mut self) -> Vec<Taken<P>> {
        let mut bytes = 0;
        let mut count = 0;
        for taken in self.waiting.iter().take(BATCH_RECORDS_MAX) {
            bytes += size(&taken.record);
            if count > 0 && bytes > BATCH_BYTES_MAX {
                break;
            }
            count += 1;
        }
        let batch: Vec<_> = self.waiting.drain(..count).collect();
        self.waiting_bytes -= batch.iter().map(|taken| size(&taken.record)).sum::<usize>();
        batch
    }
}

fn size(record: &Record) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    headers + record.body.as_ref().map_or(0, Bytes::len) + record.key.as_ref().map_or(0, Bytes::len)
}

async fn store<P>(mut context: Context, mut batch: Vec<Taken<P>>) -> Option<Vec<P>> {
    let mut was_stalled = false;
    loop {
        let (entries, aside) = parts(&batch);
        let refusal = match context.publisher.publish_all(entries, aside).await {
            Ok(published) => {
                if was_stalled {
                    context.health.tell(Report::Up);
                }
                let duplicates = published.receipts.iter().filter(|receipt| receipt.duplicate).count();
                report(&context, &batch, duplicates);
                return Some(batch.into_iter().map(|taken| taken.place).collect());
            }
            Err(Refusal::Conflict { index, offset }) => {
                put_aside(&mut batch, index, offset);
                continue;
            }
            Err(refusal @ (Refusal::Full { .. } | Refusal::Unavailable { .. })) => refusal,
        };
        was_stalled = true;
        context.health.tell(Report::Stalled(refusal.to_string()));
        tokio::select! {
            () = sleep(RETRY) => {}
            () = context.stop.requested() => return None,
        }
    }
}

fn parts<P>(batch: &[Taken<P>]) -> (Vec<Entry>, Vec<Aside>) {
    let mut entries = Vec::with_capacity(batch.len());
    let mut aside = Vec::new();
    for taken in batch {
        match &taken.made {
            Ok(event) => entries.push(Entry { event: Arc::clone(event), trace: None }),
            Err(unfit) => aside.push(Aside { record: taken.record.clone(), unfit: unfit.clone() }),
        }
    }
    (entries, aside)
}

/// The event at this index of the entries becomes a record to be put aside.
fn put_aside<P>(batch: &mut [Taken<P>], index: usize, offset: u64) {
    let detail = format!("an event with the same source and id and other content is at offset {offset}");
    if let Some(taken) = batch.iter_mut().filter(|taken| taken.made.is_ok()).nth(index) {
        taken.made = Err(Unfit { is_conflict: true, detail });
    }
}

fn report<P>(context: &Context, batch: &[Taken<P>], duplicates: usize) {
    let events = batch.iter().filter(|taken| taken.made.is_ok()).count() - duplicates;
    if events + duplicates > 0 {
        let (events, duplicates) = (events as u64, duplicates as u64);
        context.health.tell(Report::Accepted { events, duplicates });
    }
    for unfit in batch.iter().filter_map(|taken| taken.made.as_ref().err()) {
        context.health.tell(Report::PutAside { is_conflict: unfit.is_conflict });
    }
}
