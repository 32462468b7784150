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
use super::{EdgeLimits, Problem};

/// What hyper buffers of a connection beyond the largest head.
const BUFFER_BYTES: usize = 56 << 10;

/// Serves requests until the client leaves, breaks a rule or a deadline, or, once `stop` is true or gone, the running
/// request is answered.
pub async fn serve_connection<S>(
    stream: S,
    router: Router,
    limits: EdgeLimits,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let exchange = Arc::new(Exchange::default());
    let io = TokioIo::new(Guard::new(stream, limits, Arc::clone(&exchange)));
    let service = service_fn(move |request| respond(router.clone(), Arc::clone(&exchange), request));
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
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let refusal = exchange.begin();
    let answering = Answering(exchange);
    let response = match refusal {
        Some(refusal) => refusal.problem().into_response(),
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
