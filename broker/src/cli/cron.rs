//! `sluice cron next`: when a schedule is due, without a broker.

use clap::Subcommand;
use serde_json::json;
use sluice_language::{Schedule, zone};

use super::output::{print_json, print_line};
use super::{Error, usage};

const COUNT_MAX: u64 = 10_000;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print when a schedule is due next
    #[command(after_help = "\
Examples:
  sluice cron next '30 2 * * *' --timezone Europe/Berlin
  sluice cron next @hourly --count 3 --after 2026-03-28T22:00:00Z")]
    Next(NextArgs),
}

#[derive(Debug, clap::Args)]
pub struct NextArgs {
    /// Five fields, six with seconds first, or @daily and the like
    schedule: String,
    /// A time zone of the IANA database
    #[arg(long, default_value = "UTC", value_name = "ZONE")]
    timezone: String,
    /// How many runs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=COUNT_MAX))]
    count: u64,
    /// Begin after this time instead of now
    #[arg(long, value_name = "TIME")]
    after: Option<jiff::Timestamp>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn cron(command: Command) -> Result<(), Error> {
    let Command::Next(args) = command;
    let wrong = |message: String| usage(&["cron", "next"], &message);
    let schedule = Schedule::parse(&args.schedule)
        .map_err(|error| wrong(format!("SCHEDULE, character {}: {}", error.at + 1, error.message)))?;
    let zone = zone(&args.timezone).ok_or_else(|| {
        wrong(format!("--timezone: `{}` is no time zone of the IANA database", args.timezone))
    })?;
    let mut runs = Vec::new();
    let mut last = args.after.unwrap_or_else(jiff::Timestamp::now);
    while (runs.len() as u64) < args.count
        && let Some(next) = schedule.next(&zone, last)
    {
        let local = next.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        runs.push((next.to_string(), local));
        last = next;
    }
    if args.json {
        let items: Vec<_> = runs.iter().map(|(at, local)| json!({ "at": at, "local": local })).collect();
        return print_json(&json!(items).to_string());
    }
    runs.iter().try_for_each(|(_, local)| print_line(local))
}
