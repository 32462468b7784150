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

use bytes::Bytes;
use sluice_schemas::Event;
use tokio::time::Instant;

use crate::{Aside, Context, Down, Entry, Outcome, Record, Report, Unfit};

const BATCH_RECORDS_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 4 << 20;
const WAITING_RECORDS_MAX: usize = 2 * BATCH_RECORDS_MAX;
const WAITING_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

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
    /// Why the rest of a batch is not stored: told once what was stored of it has been.
    rest: Option<Stored<P>>,
}

/// What more may be taken for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub records: usize,
    pub bytes: usize,
}

impl Room {
    pub fn is_none(self) -> bool {
        self.records == 0 || self.bytes == 0
    }
}

struct Flight<P> {
    since: Instant,
    kept: Pin<Box<dyn Future<Output = Kept<P>> + Send>>,
}

/// `None` when it was told to stop before there was room.
type Stored<P> = Result<Option<Vec<P>>, Down>;

/// What of a batch is on disk, from its beginning on, and why the rest is not, if there is one.
struct Kept<P> {
    places: Vec<P>,
    rest: Option<Stored<P>>,
}

impl<P: Send + 'static> Feed<P> {
    pub fn new(context: &Context) -> Self {
        Self {
            context: context.clone(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            flight: None,
            rest: None,
        }
    }

    pub fn push(&mut self, record: Record, made: Result<Event, Unfit>, place: P) {
        self.waiting_bytes += size(&record);
        self.waiting.push_back(Taken { record, made: made.map(Arc::new), place });
    }

    /// Whether no more is to be taken for now.
    pub fn is_full(&self) -> bool {
        self.room().is_none()
    }

    pub fn room(&self) -> Room {
        Room {
            records: WAITING_RECORDS_MAX.saturating_sub(self.waiting.len()),
            bytes: WAITING_BYTES_MAX.saturating_sub(self.waiting_bytes),
        }
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

    /// Returns the places of the next batch once it is on disk; `None` when it was told to stop and there is no room. Of a batch
    /// that cannot be stored whole, the beginning is returned first, so that it does not come again. Dropping the future loses
    /// nothing.
    pub async fn stored(&mut self) -> Stored<P> {
        if let Some(rest) = self.rest.take() {
            // What came after the gap must not be stored before what is in it.
            self.forget();
            return rest;
        }
        if self.flight.is_none() {
            let batch = self.next_batch();
            if batch.is_empty() {
                return pending().await;
            }
            let kept = Box::pin(store(self.context.clone(), batch));
            self.flight = Some(Flight { since: Instant::now(), kept });
        }
        let Some(flight) = &mut self.flight else { return Ok(None) };
        let Kept { places, rest } = flight.kept.as_mut().await;
        self.flight = None;
        match rest {
            Some(rest) if places.is_empty() => rest,
            rest => {
                self.rest = rest;
                Ok(Some(places))
            }
        }
    }

    /// Waits for what is being stored and gives up the rest.
    pub async fn finish(&mut self) -> Stored<P> {
        self.forget();
        if self.flight.is_some() { self.stored().await } else { Ok(None) }
    }

    fn forget(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    fn next_batch(&mut self) -> Vec<Taken<P>> {
        let mut bytes = 0;
        let mut count = 0;
        for taken in self.waiting.iter().take(BATCH_RECORDS_MAX) {
            bytes += size(&taken.record);
            // What cannot even be put aside takes the source down: what came before it is stored first.
            let ends_it = || {
                taken
                    .made
                    .as_ref()
                    .is_err_and(|unfit| self.context.aside(taken.record.clone(), unfit.clone()).is_err())
            };
            if count > 0 && (bytes > BATCH_BYTES_MAX || ends_it()) {
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

/// Stores a batch in order, in as many parts as the store needs.
async fn store<P>(mut context: Context, mut batch: Vec<Taken<P>>) -> Kept<P> {
    // What follows `batch`, the next at the end.
    let mut behind = Vec::new();
    let mut places = Vec::with_capacity(batch.len());
    loop {
        let (entries, aside) = match parts(&context, &batch) {
            Ok(parts) => parts,
            Err(down) => return Kept { places, rest: Some(Err(down)) },
        };
        match context.store(entries, aside, None).await {
            Outcome::Stored(published) => {
                let duplicates = published.receipts.iter().filter(|receipt| receipt.duplicate).count();
                report(&context, &batch, duplicates);
                places.extend(batch.into_iter().map(|taken| taken.place));
                match behind.pop() {
                    Some(next) => batch = next,
                    None => return Kept { places, rest: None },
                }
            }
            Outcome::Conflict { index, offset } => put_aside(&mut batch, index, offset),
            Outcome::TooLarge { .. } if batch.len() > 1 => behind.push(batch.split_off(batch.len() / 2)),
            Outcome::TooLarge { bytes_max } => {
                let position = batch.first().map_or("", |taken| &taken.record.position);
                let down = Context::no_room_ever(position, bytes_max);
                return Kept { places, rest: Some(Err(down)) };
            }
            Outcome::Stopped => return Kept { places, rest: Some(Ok(None)) },
        }
    }
}

fn parts<P>(context: &Context, batch: &[Taken<P>]) -> Result<(Vec<Entry>, Vec<Aside>), Down> {
    let mut entries = Vec::with_capacity(batch.len());
    let mut aside = Vec::new();
    for taken in batch {
        match &taken.made {
            Ok(event) => entries.push(Entry { event: Arc::clone(event), trace: None }),
            Err(unfit) => aside.push(context.aside(taken.record.clone(), unfit.clone())?),
        }
    }
    Ok((entries, aside))
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use sluice_config::Oversize;
    use tokio::sync::watch;

    use super::*;
    use crate::{Health, Intake, Published, Publisher, Receipt, Refusal, Request, Stop};

    /// Refuses the event `twice` as a conflict, `huge` and more than so many records at once as too large, has no room for `full`,
    /// and keeps the rest.
    struct Store(Mutex<Vec<String>>, usize);

    impl Default for Store {
        fn default() -> Self {
            Self(Mutex::default(), usize::MAX)
        }
    }

    impl Intake for Store {
        fn submit(&self, request: Request) {
            let ids: Vec<_> = request.entries.iter().map(|entry| entry.event.id().to_owned()).collect();
            let place_of = |wanted: &str| ids.iter().position(|id| id == wanted);
            let is_large = request.entries.len() + request.aside.len() > self.1;
            let answer = match place_of("twice") {
                _ if is_large || place_of("huge").is_some() => Err(Refusal::TooLarge { bytes_max: 100 }),
                _ if place_of("full").is_some() => Err(Refusal::Full { reason: "no room".into() }),
                Some(index) => Err(Refusal::Conflict { index, offset: 7 }),
                None => {
                    let mut kept = self.0.lock().expect("no panic");
                    kept.extend(ids.iter().cloned());
                    kept.extend(
                        request
                            .aside
                            .iter()
                            .map(|aside| format!("aside {}: {}", aside.record.position, aside.unfit)),
                    );
                    Ok(Published { receipts: vec![Receipt { offset: 0, duplicate: false }; ids.len()] })
                }
            };
            drop(request.answer.send(answer));
        }
    }

    fn feed(store: &Arc<Store>) -> Feed<usize> {
        feed_until(store, watch::channel(false).1)
    }

    fn feed_until(store: &Arc<Store>, stop: watch::Receiver<bool>) -> Feed<usize> {
        let context = Context {
            name: "s".into(),
            publisher: Publisher::new("s", Arc::<Store>::clone(store)),
            health: Health::new(|_| {}),
            stop: Stop::new(stop),
            mark: None,
            put_aside_bytes: 8,
            oversize: Oversize::Stop,
        };
        Feed::new(&context)
    }

    fn push(feed: &mut Feed<usize>, place: usize, id: Option<&str>, body: &'static [u8]) {
        let made = id.map(|id| {
            let event = Event::builder().attribute("specversion", "1.0").attribute("id", id);
            event.attribute("source", "/s").attribute("type", "t").build().expect("valid")
        });
        let record = Record {
            position: format!("p/{place}"),
            body: Some(Bytes::from_static(body)),
            ..Record::default()
        };
        let unfit = Unfit { is_conflict: false, detail: "broken".into() };
        feed.push(record, made.ok_or(unfit), place);
    }

    #[tokio::test]
    async fn a_conflict_and_what_is_broken_are_put_aside_and_the_rest_is_stored() {
        let store = Arc::new(Store::default());
        let mut feed = feed(&store);
        push(&mut feed, 0, Some("one"), b"");
        push(&mut feed, 1, Some("twice"), b"");
        push(&mut feed, 2, None, b"short");
        push(&mut feed, 3, Some("two"), b"");
        assert_eq!(feed.stored().await.expect("stored"), Some(vec![0, 1, 2, 3]));
        let detail = "an event with the same source and id and other content is at offset 7";
        let kept = ["one", "two", &format!("aside p/1: {detail}"), "aside p/2: broken"];
        assert_eq!(*store.0.lock().expect("no panic"), kept);
    }

    #[tokio::test]
    async fn what_no_segment_can_hold_together_is_stored_in_parts_and_in_order() {
        let store = Arc::new(Store(Mutex::default(), 2));
        let mut fed = feed(&store);
        for (place, id) in [Some("a"), Some("b"), None, Some("c"), Some("twice"), Some("d"), Some("e")]
            .into_iter()
            .enumerate()
        {
            push(&mut fed, place, id, b"");
        }
        assert_eq!(fed.stored().await.expect("stored"), Some((0..7).collect()));
        let kept = store.0.lock().expect("no panic").join(" ");
        let detail = "an event with the same source and id and other content is at offset 7";
        assert_eq!(kept, format!("a b aside p/2: broken c aside p/4: {detail} d e"));
        // One alone that has no room is named.
        let mut fed = feed(&Arc::new(Store(Mutex::default(), 0)));
        push(&mut fed, 9, Some("a"), b"");
        let down = fed.stored().await.expect_err("down").reason;
        assert!(down.contains("p/9") && down.contains("`store.segment`"), "{down}");
    }

    #[tokio::test]
    async fn what_was_stored_before_a_record_that_never_has_room_is_acknowledged_and_not_stored_again() {
        let store = Arc::new(Store::default());
        let mut feed = feed(&store);
        for (place, id) in ["a", "b", "c", "huge", "d"].into_iter().enumerate() {
            push(&mut feed, place, Some(id), b"");
        }
        assert_eq!(feed.stored().await.expect("stored"), Some(vec![0, 1, 2]));
        push(&mut feed, 5, Some("e"), b"");
        let down = feed.stored().await.expect_err("down").reason;
        assert!(down.contains("p/3"), "{down}");
        assert_eq!(feed.finish().await.expect("nothing flies"), None);
        assert_eq!(*store.0.lock().expect("no panic"), ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn after_a_stop_amid_a_batch_nothing_behind_it_is_stored() {
        let store = Arc::new(Store(Mutex::default(), 2));
        let (_hold, stop) = watch::channel(true);
        let mut feed = feed_until(&store, stop);
        for (place, id) in ["a", "b", "full", "c"].into_iter().enumerate() {
            push(&mut feed, place, Some(id), b"");
        }
        // Of this, half is stored when the stop is noticed.
        assert_eq!(feed.stored().await.expect("stored"), Some(vec![0, 1]));
        push(&mut feed, 4, Some("d"), b"");
        assert_eq!(feed.stored().await.expect("stopped"), None);
        assert_eq!(*store.0.lock().expect("no panic"), ["a", "b"]);
    }

    #[tokio::test]
    async fn what_comes_before_a_record_too_large_to_put_aside_is_stored_first() {
        let store = Arc::new(Store::default());
        let mut feed = feed(&store);
        push(&mut feed, 0, Some("one"), b"");
        push(&mut feed, 1, None, b"more than eight");
        assert_eq!(feed.stored().await.expect("stored"), Some(vec![0]));
        let down = feed.stored().await.expect_err("down").reason;
        assert!(down.contains("p/1") && down.contains("more than the 8"), "{down}");
    }

    #[tokio::test]
    async fn what_waits_can_be_forgotten_and_is_bounded() {
        let store = Arc::new(Store::default());
        let mut feed = feed(&store);
        for place in 0..WAITING_RECORDS_MAX {
            assert!(!feed.is_full());
            push(&mut feed, place, Some("x"), b"");
        }
        assert!(feed.is_full());
        feed.retain(|place| *place == 5);
        assert!(!feed.is_full());
        assert_eq!(feed.finish().await.expect("nothing flies"), None);
    }
}
