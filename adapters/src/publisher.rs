//! The one way into the log.

use std::sync::Arc;

use bytes::Bytes;
use sluice_config::Oversize;
use sluice_schemas::Event;
use tokio::sync::oneshot;

use crate::{Record, Unfit};

/// An event and what came with it that is no attribute of it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub event: Arc<Event>,
    pub trace: Option<TraceContext>,
}

/// The HTTP `traceparent` and `tracestate` of the hop that brought an event (W3C Trace Context, section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub parent: Box<str>,
    pub state: Option<Box<str>>,
}

/// What the receiving end gets: entries that are stored together or not at all.
#[derive(Debug)]
pub struct Request {
    /// The entry point: `http`, or the name of a source. Part of the key of a duplicate.
    pub via: Arc<str>,
    pub entries: Vec<Entry>,
    /// Records that became no event and are kept with their reason.
    pub aside: Vec<Aside>,
    /// Where the source stands once this is stored, in its own words: the latest is in the source's [`Context`] at its next
    /// start.
    pub mark: Option<String>,
    pub answer: oneshot::Sender<Result<Published, Refusal>>,
}

/// A record that cannot become an event, kept whole as far as there is room for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Aside {
    pub record: Record,
    pub unfit: Unfit,
    /// Bytes of the body as it was received: more than there are when only its beginning is kept.
    pub size: usize,
}

/// A body has more bytes than are kept, and its source does not let it be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsideTooLarge {
    pub size: usize,
}

impl Aside {
    /// Keeps a record, and of a body that is too large the beginning, if the source says so.
    pub fn new(
        mut record: Record,
        unfit: Unfit,
        bytes_max: usize,
        oversize: Oversize,
    ) -> Result<Self, AsideTooLarge> {
        let size = record.body.as_ref().map_or(0, Bytes::len);
        if let Some(body) = record.body.as_mut().filter(|body| body.len() > bytes_max) {
            match oversize {
                Oversize::Truncate => body.truncate(bytes_max),
                Oversize::Stop => return Err(AsideTooLarge { size }),
            }
        }
        Ok(Self { record, unfit, size })
    }

    /// Whether only the beginning of the body is there.
    pub fn is_cut(&self) -> bool {
        self.record.body.as_ref().map_or(0, Bytes::len) < self.size
    }
}

/// What became of each entry, in the order of the request. All of it is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub receipts: Vec<Receipt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Where the event is in the log; that of the first one when this is a duplicate.
    pub offset: u64,
    pub duplicate: bool,
}

/// Why nothing of a request was stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Same source and id as an event within the duplicate window, other content. Sending it again is no use.
    #[error("{}source and id were used before, at offset {offset}, with other content", in_batch(*index))]
    Conflict { index: usize, offset: u64 },
    /// There is no room; try again later.
    #[error("the store is full: {reason}")]
    Full { reason: String },
    /// What is to be stored together is more than one segment of the store can hold. Sending it again is no use.
    #[error("this is more than the {bytes_max} bytes that a segment of the store holds (`store.segment`)")]
    TooLarge { bytes_max: usize },
    /// The store is starting, draining or has failed; try again later.
    #[error("the store does not take events: {reason}")]
    Unavailable { reason: String },
}

/// The first event may be the only one.
fn in_batch(index: usize) -> String {
    match index {
        0 => String::new(),
        _ => format!("event {index} of the batch: "),
    }
}

/// The receiving end of every publisher: the store's, or a double in tests. What bounds the requests that wait is what
/// bounds their senders, which wait for the answers.
pub trait Intake: Send + Sync + 'static {
    /// Takes a request and answers it later. Does not block.
    fn submit(&self, request: Request);
}

/// A handle that publishes events as one entry point. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    via: Arc<str>,
    intake: Arc<dyn Intake>,
}

impl Publisher {
    pub fn new(via: &str, intake: Arc<dyn Intake>) -> Self {
        Self { via: via.into(), intake }
    }

    /// Stores the entries together and returns once they are on disk.
    pub async fn publish(&self, entries: Vec<Entry>) -> Result<Published, Refusal> {
        self.send(entries, Vec::new(), None).await
    }

    /// Like `publish`, with where the source stands once these are stored.
    pub async fn publish_with(&self, entries: Vec<Entry>, mark: String) -> Result<Published, Refusal> {
        self.send(entries, Vec::new(), Some(mark)).await
    }

    /// Keeps a record that cannot become an event, with the reason, and returns once it is on disk.
    pub async fn put_aside(&self, aside: Aside) -> Result<(), Refusal> {
        self.send(Vec::new(), vec![aside], None).await.map(drop)
    }

    pub(crate) async fn send(
        &self,
        entries: Vec<Entry>,
        aside: Vec<Aside>,
        mark: Option<String>,
    ) -> Result<Published, Refusal> {
        let (answer, answered) = oneshot::channel();
        let request = Request { via: Arc::clone(&self.via), entries, aside, mark, answer };
        self.intake.submit(request);
        answered.await.map_err(|_| Refusal::Unavailable { reason: "the broker is stopping".into() })?
    }
}
