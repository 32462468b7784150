//! How many events a second the store alone takes from so many publishers, each waiting for its event to be on disk.
//!
//!     cargo run --release -p sluice --example store_rate -- DIR [--publishers 64] [--seconds 3]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use sluice_broker::intake::new_event;
use sluice_broker::store::{self, Options, RealDisk, Upkeep, WindowSize};
use sluice_schemas::{DataForm, Event};

const EVENT_BYTES: usize = 1024;

#[derive(Parser)]
struct Args {
    dir: PathBuf,
    #[arg(long, default_value_t = 64)]
    publishers: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

fn event(publisher: usize, number: u64) -> anyhow::Result<Event> {
    let builder = Event::builder()
        .attribute("specversion", "1.0")
        .attribute("id", &format!("{publisher}-{number}"))
        .attribute("source", "/bench")
        .attribute("type", "com.example.bench");
    Ok(builder.data(vec![b'x'; EVENT_BYTES], DataForm::Opaque).build()?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let options = Options {
        dir: std::path::absolute(&args.dir)?,
        segment_bytes: 128 << 20,
        retention_bytes: 10 << 30,
        retention_age_ms: 3_600_000,
        stop_percent: 99,
        resume_percent: 98,
        free_bytes: 0,
        outstanding: 100_000,
        skip_damage: false,
        window: Some(WindowSize { window_ms: 600_000, entries: 1_000_000 }),
        upkeep: Upkeep::default(),
    };
    let mut opened = tokio::task::block_in_place(|| store::open(Arc::new(RealDisk), &options))?;
    // Nobody routes here.
    tokio::spawn(async move { while opened.tail.recv().await.is_some() {} });
    let (began, lasts) = (Instant::now(), Duration::from_secs_f64(args.seconds));
    let publishers: Vec<_> = (0..args.publishers)
        .map(|publisher| {
            let log = opened.log.clone();
            tokio::spawn(async move {
                let (via, mut number) = (Arc::from("bench"), 0);
                while began.elapsed() < lasts {
                    let entry =
                        sluice_adapters::Entry { event: Arc::new(event(publisher, number)?), trace: None };
                    log.append(vec![new_event(entry, &via)], Vec::new()).await?;
                    number += 1;
                }
                anyhow::Ok(number)
            })
        })
        .collect();
    let mut stored = 0;
    for publisher in publishers {
        stored += publisher.await??;
    }
    println!("{{\"events_per_second\": {:.1}}}", stored as f64 / began.elapsed().as_secs_f64());
    opened.log.stop();
    Ok(opened.ended.await??)
}
