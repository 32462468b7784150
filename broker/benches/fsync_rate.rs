//! How often a second a directory takes a small append and an fdatasync, one after the other.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;

#[derive(Parser)]
struct Args {
    dir: PathBuf,
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let path = args.dir.join("fsync_rate");
    let mut file = File::create(&path)?;
    let append = vec![b'x'; args.bytes];
    let (began, mut syncs) = (Instant::now(), 0_u64);
    while began.elapsed() < Duration::from_secs_f64(args.seconds) {
        file.write_all(&append)?;
        file.sync_data()?;
        syncs += 1;
    }
    println!("{{\"syncs_per_second\": {:.1}}}", syncs as f64 / began.elapsed().as_secs_f64());
    fs::remove_file(path)?;
    Ok(())
}
