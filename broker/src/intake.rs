//! The receiving end of every [`Publisher`](sluice_adapters::Publisher): requests become appends.

use std::collections::HashSet;
use std::sync::Arc;

use sluice_adapters::{Aside, Entry, Published, Refusal, Request};
use sluice_schemas::Event;

use crate::dispatch::Dispatch;
use crate::store::{self, Append, LogRecord, NewEvent, clock, digest};

/// Hands requests to the log. The digests are made on the publisher's task, so that the writer only writes.
pub struct Intake {
    dispatch: Dispatch,
}

impl Intake {
    pub fn new(dispatch: Dispatch) -> Self {
        Self { dispatch }
    }
}

impl sluice_adapters::Intake for Intake {
    fn submit(&self, request: Request) {
        let Request { via, entries, aside, mark, answer } = request;
        let events = entries.into_iter().map(|entry| new_event(entry, &via)).collect();
        if aside.is_empty() && mark.is_none() {
            self.dispatch.log().submit(Append { events, records: Vec::new(), answer: Some(answer) });
            return;
        }
        let dispatch = self.dispatch.clone();
        tokio::spawn(async move {
            let stored = store_with(&dispatch, &via, events, aside, mark).await;
            // Whoever asked may have gone away; what is stored is stored.
            drop(answer.send(stored));
        });
    }
}

/// Stores events together with what a source put aside and where it stands, and folds that in once it is on disk.
async fn store_with(
    dispatch: &Dispatch,
    via: &Arc<str>,
    events: Vec<NewEvent>,
    aside: Vec<Aside>,
    mark: Option<String>,
) -> Result<Published, Refusal> {
    let mut records = Vec::with_capacity(aside.len() + 1);
    {
        let mut core = dispatch.core();
        let mut seen = HashSet::new();
        for aside in aside {
            // Kept before a crash, but not acknowledged any more: it is listed once.
            let digest = digest::aside(via, &aside);
            if core.state.asides.has(&digest) || !seen.insert(digest) {
                continue;
            }
            core.state.last_aside += 1;
            records.push(LogRecord::Aside(store::Aside {
                number: core.state.last_aside,
                at_ms: clock::wall_ms(),
                source: Arc::clone(via),
                near: core.state.next_offset,
                aside,
            }));
        }
    }
    records.extend(mark.map(|text| LogRecord::Mark(store::Mark { source: Arc::clone(via), text })));
    let receipts = dispatch.log().append(events, records.clone()).await?;
    let mut core = dispatch.core();
    records.iter().for_each(|record| core.apply(record));
    Ok(Published { receipts })
}

/// An event as the log takes it.
pub fn new_event(entry: Entry, via: &Arc<str>) -> NewEvent {
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
