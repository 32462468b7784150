//! Times look-ups by scanning and through the index, and building the index, over events of 256 bytes with one outcome each.
//!
//!     cargo run --release -p sluice --example lookups [events]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use sluice_broker::store::{
    Attempted, DeliveryId, IndexState, Log, LogRecord, NewEvent, Next, Offset, Options, RealDisk, TriggerId,
    Wanted, digest, open,
};
use sluice_schemas::{DataForm, Event};

const FRAME_EVENTS: u64 = 2000;
const LOOK: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<()> {
    let events = std::env::args().nth(1).map_or(Ok(1_000_000), |count| count.parse())?;
    let dir = tempfile::tempdir()?;
    let mut opened = open(Arc::new(RealDisk), &Options::bare(dir.path()))?;
    tokio::spawn(async move { while opened.tail.recv().await.is_some() {} });
    let log = opened.log;
    let started = Instant::now();
    for first in (0..events).step_by(FRAME_EVENTS as usize) {
        let new = (first..first + FRAME_EVENTS).map(new_event).collect();
        let before = first.saturating_sub(FRAME_EVENTS)..first;
        log.append(new, vec![LogRecord::Outcomes(before.map(outcome).collect())])
            .await
            .map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    }
    println!("{events} events written: {:?}, {} MiB resident", started.elapsed(), resident_mib()?);
    look_up(&log, "scan")?;

    let started = Instant::now();
    log.index().start();
    while log.index().state() != IndexState::Ready {
        tokio::time::sleep(LOOK).await;
    }
    println!(
        "index built: {:?}, lag {}, {} MiB resident",
        started.elapsed(),
        log.index().lag(),
        resident_mib()?
    );
    look_up(&log, "index")?;
    log.stop();
    opened.ended.await??;
    println!(
        "log {} MiB, index {} MiB",
        mebibytes(&dir.path().join("log"))?,
        mebibytes(&dir.path().join("index"))?
    );
    Ok(())
}

fn look_up(log: &Log, with: &str) -> Result<()> {
    let (index, mut records) = (log.index(), 0);
    let rare = Wanted { ty: Some("rare".into()), limit: 100, ..Wanted::default() };
    let started = Instant::now();
    index.by_id("/orders", "1234")?.context("the event is there")?;
    println!("{with}: by id {:?}", started.elapsed());
    let started = Instant::now();
    let found = index.events(&rare)?.len();
    println!("{with}: {found} of a rare type {:?}", started.elapsed());
    let started = Instant::now();
    index.outcomes(&[Offset(1234)], &mut |_| records += 1)?;
    println!("{with}: outcomes of an event {:?}, {records} records", started.elapsed());
    Ok(())
}

fn new_event(number: u64) -> NewEvent {
    let event = Event::builder()
        .attribute("specversion", "1.0")
        .attribute("id", &number.to_string())
        .attribute("source", "/orders")
        .attribute("type", if number.is_multiple_of(FRAME_EVENTS) { "rare" } else { "order" })
        .data(vec![b'x'; 256], DataForm::Opaque)
        .build()
        .expect("a valid event");
    NewEvent {
        key: digest::key("http", &event),
        content: digest::content(&event),
        event: Arc::new(event),
        via: "http".into(),
        trace: None,
        parent: None,
        hops: 0,
        unique: true,
    }
}

fn outcome(offset: u64) -> Attempted {
    Attempted {
        id: DeliveryId { trigger: TriggerId(1), offset: Offset(offset), redrive: 0 },
        attempt: 1,
        at_ms: 1,
        duration_ms: 1,
        status: Some(200),
        error: None,
        body: Bytes::new(),
        owes_letter: false,
        next: Next::Delivered,
    }
}

fn resident_mib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? >> 10)
}

fn mebibytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes >> 20)
}
