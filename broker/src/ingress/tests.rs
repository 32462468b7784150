use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use sluice_adapters::Receipt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::*;

const KIB: usize = 1 << 10;
const EVENT_BYTES: usize = 1 << 20;
const BUDGET_BYTES: usize = 64 << 20;

/// Routes whose store is in the hands of the test.
struct Stand {
    router: Router,
    store: mpsc::Receiver<sluice_adapters::Request>,
    metrics: Arc<Counters>,
}

struct Queue(mpsc::Sender<sluice_adapters::Request>);

impl sluice_adapters::Intake for Queue {
    fn submit(&self, request: sluice_adapters::Request) {
        self.0.try_send(request).expect("fewer requests than the queue holds");
    }
}

fn stand(in_flight_bytes: usize) -> Stand {
    let (sender, store) = mpsc::channel(2000);
    let metrics = Arc::new(Counters::default());
    let gate = Gate::default();
    gate.set(GateState::Ready);
    let limits = Limits {
        event_bytes: EVENT_BYTES,
        batch_bytes: 8 * EVENT_BYTES,
        in_flight_bytes,
        connections: 1,
        hops: 16,
        put_aside_bytes: 0,
    };
    let router = router(Ingress {
        publisher: Publisher::new("http", Arc::new(Queue(sender))),
        hooks: Hooks::default(),
        limits,
        webhook_origins: Vec::new(),
        gate,
        metrics: Arc::clone(&metrics),
    });
    Stand { router, store, metrics }
}

impl Stand {
    /// What comes to the store, within the time that bodies have.
    async fn stored(&mut self) -> sluice_adapters::Request {
        tokio::time::timeout(body::BODY_DEADLINE, self.store.recv()).await.expect("a request").unwrap()
    }

    fn post(&self, body: Body) -> impl Future<Output = StatusCode> + Send + use<> {
        let request = Request::post("/events")
            .header("ce-specversion", "1.0")
            .header("ce-id", "1")
            .header("ce-source", "/s")
            .header("ce-type", "t")
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .body(body)
            .unwrap();
        let answer = self.router.clone().oneshot(request);
        async { answer.await.unwrap().status() }
    }
}

fn answer(request: sluice_adapters::Request) {
    let receipts = request.entries.iter().map(|_| Receipt { offset: 1, duplicate: false }).collect();
    let _ = request.answer.send(Ok(Published { receipts }));
}

type Until = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A body of the largest size that counts what is read of it, and can be without a length, or stall.
struct Counted {
    frame: Bytes,
    frames_left: usize,
    has_length: bool,
    /// With so many frames left nothing comes until then.
    stall: Option<(usize, Until)>,
    read: Arc<AtomicUsize>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frames_left = self.frames_left;
        if let Some((_, until)) = self.stall.as_mut().filter(|(at, _)| *at == frames_left) {
            std::task::ready!(until.as_mut().poll(cx));
            self.stall = None;
        }
        if self.frames_left == 0 {
            return Poll::Ready(None);
        }
        self.frames_left -= 1;
        self.read.fetch_add(self.frame.len(), Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(self.frame.clone()))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.has_length {
            true => SizeHint::with_exact((self.frames_left * self.frame.len()) as u64),
            false => SizeHint::default(),
        }
    }
}

fn body(frame_bytes: usize, frames_left: usize, has_length: bool, read: &Arc<AtomicUsize>) -> Body {
    let frame = Bytes::from_static(&[0; EVENT_BYTES]).slice(..frame_bytes);
    Body::new(Counted { frame, frames_left, has_length, stall: None, read: Arc::clone(read) })
}

/// A body of the largest size with a length, of which so many KiB come at once and the rest then.
fn stalling(kib: usize, until: impl Future<Output = ()> + Send + 'static) -> Body {
    let frame = Bytes::from_static(&[0; KIB]);
    let stall = Some((KIB - kib, Box::pin(until) as Until));
    Body::new(Counted { frame, frames_left: KIB, has_length: true, stall, read: Arc::default() })
}

/// Posts 1000 bodies to a store that does not answer: what was read of them, and their statuses once it does.
async fn flood(frame_bytes: usize, has_length: bool) -> (usize, usize, usize) {
    let mut stand = stand(BUDGET_BYTES);
    let read = Arc::new(AtomicUsize::new(0));
    let mut answers = JoinSet::new();
    for _ in 0..1000 {
        answers.spawn(stand.post(body(frame_bytes, EVENT_BYTES / frame_bytes, has_length, &read)));
    }
    tokio::time::sleep(body::ROOM_DEADLINE * 2).await;
    let read_before_answers = read.load(Ordering::Relaxed);
    while let Ok(request) = stand.store.try_recv() {
        answer(request);
    }
    let statuses = answers.join_all().await;
    let count = |status| statuses.iter().filter(|answered| **answered == status).count();
    (read_before_answers, count(StatusCode::ACCEPTED), count(StatusCode::SERVICE_UNAVAILABLE))
}

#[tokio::test(start_paused = true)]
async fn a_thousand_bodies_of_the_largest_size_do_not_exceed_the_budget() {
    assert_eq!(flood(EVENT_BYTES, true).await, (BUDGET_BYTES, 64, 936));
    assert_eq!(flood(64 * KIB, true).await, (BUDGET_BYTES, 64, 936));
    let (read, accepted, refused) = flood(64 * KIB, false).await;
    assert!(read <= BUDGET_BYTES, "{read} bytes");
    assert_eq!(accepted + refused, 1000);
}

#[tokio::test(start_paused = true)]
async fn who_announces_much_and_sends_nothing_has_nobody_refused() {
    for kib in [0, 1, 512] {
        let mut stand = stand(BUDGET_BYTES);
        let stalled: Vec<_> = (0..BUDGET_BYTES / EVENT_BYTES)
            .map(|_| tokio::spawn(stand.post(stalling(kib, std::future::pending()))))
            .collect();
        tokio::task::yield_now().await;
        let began = Instant::now();
        let sent = tokio::spawn(stand.post(body(KIB, KIB, true, &Arc::default())));
        answer(stand.stored().await);
        assert_eq!(sent.await.unwrap(), StatusCode::ACCEPTED);
        assert_eq!(began.elapsed(), body::STALL_DEADLINE, "{kib} KiB");
        assert!(stalled.iter().all(|stalled| !stalled.is_finished()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_goes_on_has_its_room_again() {
    let mut stand = stand(EVENT_BYTES);
    let until = tokio::time::sleep(body::STALL_DEADLINE * 20);
    let stalled = tokio::spawn(stand.post(stalling(100, until)));
    let small = || body(KIB, 900, true, &Arc::default());
    let meanwhile = tokio::spawn(stand.post(small()));
    let queued = stand.stored().await;
    assert_eq!(stand.post(small()).await, StatusCode::SERVICE_UNAVAILABLE);
    answer(queued);
    assert_eq!(meanwhile.await.unwrap(), StatusCode::ACCEPTED);
    let whole = stand.stored().await;
    assert_eq!(stand.post(body(KIB, 1, true, &Arc::default())).await, StatusCode::SERVICE_UNAVAILABLE);
    answer(whole);
    assert_eq!(stalled.await.unwrap(), StatusCode::ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_gives_back_no_bytes_that_the_store_still_has() {
    let mut stand = stand(EVENT_BYTES);
    let read = Arc::new(AtomicUsize::new(0));
    let full = || body(EVENT_BYTES, 1, true, &read);
    let left = tokio::spawn(stand.post(full()));
    let queued = stand.store.recv().await.unwrap();
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    assert_eq!(stand.post(full()).await, StatusCode::SERVICE_UNAVAILABLE);
    answer(queued);
    let next = tokio::spawn(stand.post(full()));
    answer(stand.store.recv().await.unwrap());
    assert_eq!(next.await.unwrap(), StatusCode::ACCEPTED);
    assert_eq!((stand.metrics.accepted(), stand.metrics.refused(Reason::Busy)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_body_has_thirty_seconds() {
    let stand = stand(BUDGET_BYTES);
    for has_length in [true, false] {
        let began = Instant::now();
        let frame = Bytes::from_static(b"12345");
        let read = Arc::default();
        let stall = Some((0, Box::pin(std::future::pending()) as Until));
        let body = Counted { frame, frames_left: 1, has_length, stall, read };
        assert_eq!(stand.post(Body::new(body)).await, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(began.elapsed().as_secs(), 30);
    }
    assert_eq!(stand.metrics.refused(Reason::Timeout), 2);
}

#[tokio::test]
async fn the_trace_of_a_request_goes_with_its_event() {
    let mut stand = stand(BUDGET_BYTES);
    let answered = tokio::spawn(stand.post(Body::from("x")));
    let request = stand.store.recv().await.unwrap();
    assert_eq!(&*request.via, "http");
    let trace = request.entries[0].trace.clone().unwrap();
    assert_eq!(&*trace.parent, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    answer(request);
    assert_eq!(answered.await.unwrap(), StatusCode::ACCEPTED);
}

#[test]
fn the_content_type_decides_which_limit_holds() {
    let limits = Limits {
        event_bytes: 1,
        batch_bytes: 2,
        in_flight_bytes: 3,
        connections: 1,
        hops: 1,
        put_aside_bytes: 1,
    };
    for (content_type, expected) in [
        ("application/cloudevents-batch+json", 2),
        ("Application/CloudEvents-Batch+JSON; charset=utf-8", 2),
        ("application/cloudevents+json", 1),
        ("application/json", 1),
        ("", 1),
    ] {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().unwrap())]);
        assert_eq!(body_bytes_max(&headers, &limits), expected, "{content_type}");
    }
    assert_eq!(body_bytes_max(&HeaderMap::new(), &limits), 1);
}
