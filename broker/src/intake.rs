//! The receiving end of every [`Publisher`](sluice_adapters::Publisher): requests become appends.

use std::sync::Arc;

use sluice_adapters::{Entry, Request};
use sluice_schemas::Event;
use tokio::sync::mpsc;

use crate::store::{Append, Log, NewEvent, digest};

/// Requests that wait to be handed to the writer.
pub const REQUESTS_MAX: usize = 1024;
const TAKEN_AT_ONCE: usize = 256;

/// Hands requests to the log, until every publisher is gone.
pub async fn run(mut requests: mpsc::Receiver<Request>, log: Log) {
    let mut taken = Vec::with_capacity(TAKEN_AT_ONCE);
    while requests.recv_many(&mut taken, TAKEN_AT_ONCE).await > 0 {
        for Request { via, entries, answer, .. } in taken.drain(..) {
            let events = entries.into_iter().map(|entry| new_event(entry, &via)).collect();
            log.submit(Append { events, records: Vec::new(), answer: Some(answer) });
        }
    }
}

fn new_event(entry: Entry, via: &Arc<str>) -> NewEvent {
    let Entry { event, trace } = entry;
    // The newest events stay in memory for a while: not with the buffers they were received in.
    let event = Arc::new(Arc::unwrap_or_clone(event).detached());
    NewEvent {
        key: digest::key(via, &event),
        content: digest::content(&event),
        unique: is_unique(&event),
        via: Arc::clone(via),
        event,
        trace,
        parent: None,
        hops: 0,
    }
}

/// Dead letters that come back as events share source and id with the event they are of: they are no duplicates.
pub fn is_unique(event: &Event) -> bool {
    event.attribute("knativeerrordest").is_none()
}
