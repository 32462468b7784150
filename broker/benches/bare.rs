//! The bare path as a yardstick: axum, one writer with group commit on a growing file, POST to every sink.
//!
//! No checks, retries, index, metrics or back-pressure beyond bounded queues: what the product adds is what the
//! comparison shows.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use clap::Parser;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};

const QUEUE_EVENTS: usize = 4096;
const BATCH_EVENTS_MAX: usize = 1024;
const IN_FLIGHT_PER_SINK: usize = 64;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// Where the log goes
    #[arg(long)]
    dir: PathBuf,
    /// Where every event is delivered
    #[arg(long)]
    sink: Vec<Uri>,
}

struct Event {
    headers: HeaderMap,
    body: Bytes,
}

struct Publish {
    event: Arc<Event>,
    stored: oneshot::Sender<()>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.dir)?;
    let log = File::create(args.dir.join("log"))?;

    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(IN_FLIGHT_PER_SINK).build(connector);
    let mut sinks = Vec::new();
    for sink in args.sink {
        let (queue, events) = mpsc::channel(QUEUE_EVENTS);
        tokio::spawn(deliver(events, client.clone(), sink));
        sinks.push(queue);
    }

    let (queue, publishes) = mpsc::channel(QUEUE_EVENTS);
    thread::spawn(move || {
        if let Err(error) = write(publishes, log, &sinks) {
            // Nothing may be answered after a failed write.
            eprintln!("the log failed: {error}");
            std::process::exit(1);
        }
    });

    let listener = TcpListener::bind(args.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let router = Router::new().route("/events", post(publish)).with_state(queue);
    // A socket that refuses the option still works.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, router).await?;
    Ok(())
}

async fn publish(State(queue): State<mpsc::Sender<Publish>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let (stored, when_stored) = oneshot::channel();
    let publish = Publish { event: Arc::new(Event { headers, body }), stored };
    if queue.send(publish).await.is_err() || when_stored.await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    StatusCode::ACCEPTED
}

/// Takes all that wait, writes them, syncs once, answers all, hands them on.
fn write(
    mut publishes: mpsc::Receiver<Publish>,
    mut log: File,
    sinks: &[mpsc::Sender<Arc<Event>>],
) -> std::io::Result<()> {
    let (mut batch, mut frame) = (Vec::new(), Vec::new());
    while publishes.blocking_recv_many(&mut batch, BATCH_EVENTS_MAX) > 0 {
        frame.clear();
        for publish in &batch {
            append(&mut frame, &publish.event);
        }
        log.write_all(&frame)?;
        log.sync_data()?;
        let mut events = Vec::with_capacity(batch.len());
        for publish in batch.drain(..) {
            // A publisher that has gone does not need the answer.
            let _ = publish.stored.send(());
            events.push(publish.event);
        }
        for event in events {
            for sink in sinks {
                drop(sink.blocking_send(Arc::clone(&event)));
            }
        }
    }
    Ok(())
}

/// One record: its length, then attributes and data.
fn append(frame: &mut Vec<u8>, event: &Event) {
    let at = frame.len();
    frame.extend_from_slice(&[0; 4]);
    for (name, value) in attributes(event) {
        frame.extend_from_slice(name.as_str().as_bytes());
        frame.push(b':');
        frame.extend_from_slice(value.as_bytes());
        frame.push(b'\n');
    }
    frame.push(b'\n');
    frame.extend_from_slice(&event.body);
    let length = (frame.len() - at - 4) as u32;
    frame[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

fn attributes(event: &Event) -> impl Iterator<Item = (&http::HeaderName, &http::HeaderValue)> {
    event.headers.iter().filter(|(name, _)| name.as_str().starts_with("ce-") || *name == "content-type")
}

async fn deliver(
    mut events: mpsc::Receiver<Arc<Event>>,
    client: Client<HttpConnector, Full<Bytes>>,
    sink: Uri,
) {
    let free = Arc::new(Semaphore::new(IN_FLIGHT_PER_SINK));
    while let Some(event) = events.recv().await {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        let mut request = Request::post(sink.clone());
        for (name, value) in attributes(&event) {
            request = request.header(name, value);
        }
        let Ok(request) = request.body(Full::new(event.body.clone())) else { continue };
        let client = client.clone();
        tokio::spawn(async move {
            // The answer is read so that its connection can be used again; whatever it says is fine.
            if let Ok(response) = client.request(request).await {
                drop(response.into_body().collect().await);
            }
            drop(permit);
        });
    }
}
