//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tower::ServiceExt as _;
use tracing::{debug, error};

use super::guard::{Exchange, Guard};
use super::{EdgeLimits, Problem, RefusedHeads};

/// What hyper buffers of a connection beyond the largest head.
const BUFFER_BYTES: usize = 56 << 10;

/// Serves requests until the client leaves, breaks a rule or a deadline, or, once `stop` is true or gone, the running
/// request is answered.
pub async fn serve_connection<S>(
    stream: S,
    router: Router,
    limits: EdgeLimits,
    refused: Arc<RefusedHeads>,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let exchange = Arc::new(Exchange::default());
    let io = TokioIo::new(Guard::new(stream, limits, Arc::clone(&exchange)));
    let service = service_fn(move |request| {
        respond(router.clone(), Arc::clone(&exchange), Arc::clone(&refused), request)
    });
    let connection = http1::Builder::new()
        .max_headers(limits.headers)
        .max_buf_size(limits.header_bytes + limits.target_bytes + BUFFER_BYTES)
        // The guard has the deadlines.
        .header_read_timeout(None)
        // A client may end its side of the connection behind its request and still wait for the answer.
        .half_close(true)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut stopping = pin!(async move {
        let _ = stop.wait_for(|stop| *stop).await;
    });
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = &mut stopping => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended with an error");
    }
}

async fn respond(
    router: Router,
    exchange: Arc<Exchange>,
    refused: Arc<RefusedHeads>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let refusal = exchange.begin();
    let answering = Answering(exchange);
    let response = match refusal {
        Some(refusal) => {
            let problem = refusal.problem();
            refused.count(problem.status());
            debug!(request_id = problem.request_id(), %refusal, "refused a request head");
            problem.into_response()
        }
        None => route(router, request.map(Body::new)).await,
    };
    Ok(response.map(|body| Answer { body, _answering: answering }))
}

/// Runs the request; a panic ends it with 500 and nothing else.
async fn route(router: Router, request: Request<Body>) -> Response {
    let mut routed = Box::pin(router.oneshot(request));
    let outcome = std::future::poll_fn(|cx| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| routed.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(response))) => Poll::Ready(Some(response)),
            Err(_) => Poll::Ready(None),
        }
    })
    .await;
    outcome.unwrap_or_else(|| {
        let problem =
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the request met a defect of the broker")
                .closing();
        error!(request_id = problem.request_id(), "a request panicked");
        problem.into_response()
    })
}

/// Lasts as long as a request is being answered.
struct Answering(Arc<Exchange>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answered();
    }
}

/// A body that tells when hyper is through with it.
struct Answer {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    /// A client on paused time, and the connection it talks to.
    struct Client {
        stream: DuplexStream,
        connection: JoinHandle<()>,
        stop: watch::Sender<bool>,
        began: Instant,
    }

    fn connect() -> Client {
        let router = Router::new()
            .route("/", get(async || "ok"))
            .route("/slow", get(async || sleep(Duration::from_secs(300)).await))
            .route("/large", get(async || "x".repeat(1 << 20)))
            .route("/echo", post(async |body: Bytes| body))
            .route("/unread", post(async || StatusCode::PAYLOAD_TOO_LARGE));
        let (stream, far) = duplex(1 << 16);
        let (stop, stopped) = watch::channel(false);
        let connection =
            tokio::spawn(serve_connection(far, router, EdgeLimits::default(), Arc::default(), stopped));
        Client { stream, connection, stop, began: Instant::now() }
    }

    impl Client {
        async fn send(&mut self, bytes: &[u8]) {
            self.stream.write_all(bytes).await.unwrap();
        }

        /// What comes until the connection ends, and after how many seconds that is.
        async fn end(&mut self) -> (String, u64) {
            let mut bytes = Vec::new();
            timeout(Duration::from_secs(9999), self.stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
            let text = String::from_utf8(bytes).unwrap();
            (text.lines().next().unwrap_or_default().to_owned(), self.seconds())
        }

        async fn answer(&mut self, last: &str) {
            let mut answer = Vec::new();
            while !answer.ends_with(last.as_bytes()) {
                answer.push(self.stream.read_u8().await.unwrap());
            }
        }

        fn seconds(&self) -> u64 {
            self.began.elapsed().as_secs()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_ten_seconds_from_its_first_byte() {
        let mut client = connect();
        sleep(Duration::from_secs(9)).await;
        for byte in &REQUEST[..9] {
            client.send(&[*byte]).await;
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(client.end().await, ("HTTP/1.1 408 Request Timeout".into(), 19));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_follows_in_the_same_read_has_its_own_ten_seconds() {
        let mut client = connect();
        client.send(&REQUEST[..5]).await;
        sleep(Duration::from_secs(8)).await;
        client.send(&[&REQUEST[5..], b"GET"].concat()).await;
        client.answer("ok").await;
        assert_eq!(client.end().await, ("HTTP/1.1 408 Request Timeout".into(), 18));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_after_a_minute() {
        let mut client = connect();
        sleep(Duration::from_secs(5)).await;
        client.send(REQUEST).await;
        client.answer("ok").await;
        sleep(Duration::from_secs(5)).await;
        client.send(b"\r\n").await;
        assert_eq!(client.end().await, (String::new(), 70));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_that_sends_no_head_is_closed_after_ten_seconds() {
        assert_eq!(connect().end().await, (String::new(), 10));
        let mut client = connect();
        client.send(b"\r\n").await;
        assert_eq!(client.end().await, (String::new(), 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_request_is_not_idle() {
        let mut client = connect();
        client.send(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        client.answer("\r\n\r\n").await;
        assert_eq!(client.seconds(), 300);
        assert_eq!(client.end().await, (String::new(), 360));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut_off() {
        let mut client = connect();
        client.send(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
        (&mut client.connection).await.unwrap();
        assert_eq!(client.seconds(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn an_early_answer_is_not_lost_in_a_reset() {
        let mut client = connect();
        client.send(b"POST /unread HTTP/1.1\r\nhost: x\r\ncontent-length: 999999\r\n\r\n").await;
        assert_eq!(client.end().await, ("HTTP/1.1 413 Payload Too Large".into(), 0));
        // More than the pipe holds: somebody takes it.
        client.send(&[0; 1 << 17]).await;
        (&mut client.connection).await.unwrap();
        assert_eq!(client.seconds(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_lets_the_running_request_end() {
        let mut client = connect();
        client.send(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        sleep(Duration::from_secs(100)).await;
        client.stop.send(true).unwrap();
        assert_eq!(client.end().await, ("HTTP/1.1 200 OK".into(), 300));
        (&mut client.connection).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_closed_connection_gets_its_answer() {
        let mut client = connect();
        client.send(REQUEST).await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.end().await, ("HTTP/1.1 200 OK".into(), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_answers_are_the_same_however_the_requests_are_cut() {
        let body = "\r\n\r\nGET / HTTP/1.1\nhost : x\n\n";
        let requests = [
            "\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
            format!("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
            format!(
                "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            ),
            "GET / HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        ]
        .concat();
        for piece_bytes in 1..=requests.len() {
            let mut client = connect();
            for piece in requests.as_bytes().chunks(piece_bytes) {
                client.send(piece).await;
                // Lets the connection read before there is more.
                sleep(Duration::from_millis(1)).await;
            }
            let mut answers = String::new();
            client.stream.read_to_string(&mut answers).await.unwrap();
            let statuses = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect::<Vec<_>>();
            assert_eq!(statuses, ["200", "200", "200", "400"], "in pieces of {piece_bytes} bytes");
            assert_eq!(answers.matches(body).count(), 2, "in pieces of {piece_bytes} bytes");
        }
    }
}
