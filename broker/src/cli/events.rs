//! `sluice events`.

use clap::Subcommand;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Error;
use super::admin::{self, Client, Query};
use super::connection::percent_encoded;
use super::narrowing::Narrowing;
use super::output::{Table, Tone, cell, print_answer, print_json, print_list};
use super::time::moment;

/// List and show stored events.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice events list --type com.example.order --since 10m
  sluice events show 1042
  sluice events show /shop 01995a7e-order-17")]
pub struct Args {
    #[command(flatten)]
    admin: admin::Access,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List events, newest first
    #[command(after_help = "\
Examples:
  sluice events list --type com.example.order --since 2h
  sluice events list --source /shop --since 2026-01-31T12:00:00Z --limit 1000 --json")]
    List(Filters),
    /// Show an event and what became of its deliveries
    #[command(after_help = "\
Examples:
  sluice events show 1042
  sluice events show /shop 01995a7e-order-17
  sluice events show --raw 1042 | sluice publish -")]
    Show {
        /// Print the event alone, in the CloudEvents JSON format
        #[arg(long)]
        raw: bool,
        /// An offset, or the source of the event
        #[arg(value_name = "OFFSET|SOURCE")]
        offset_or_source: String,
        /// The id of the event
        id: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Filters {
    /// Only events of this source
    #[arg(long)]
    source: Option<String>,
    /// Only events with this subject
    #[arg(long)]
    subject: Option<String>,
    #[command(flatten)]
    narrowing: Narrowing,
    /// Only events received until then
    #[arg(long, value_name = "DURATION|TIMESTAMP", value_parser = moment)]
    until: Option<Timestamp>,
    /// List at most this many
    #[arg(long, default_value_t = 100, value_parser = super::limit)]
    limit: usize,
}

pub async fn events(args: Args) -> Result<(), Error> {
    let mut client = Client::new(&args.admin)?;
    let form = args.admin.form();
    match args.command {
        Command::List(filters) => {
            let query = Query::of(filters.narrowing.named())
                .with("source", filters.source)
                .with("subject", filters.subject)
                .with("until", filters.until);
            let list = client.list("events", &query, filters.limit).await?;
            print_list(&list, form, "no events", event_table)
        }
        Command::Show { raw, offset_or_source, id } => {
            let path = match id {
                Some(id) => format!(
                    "events/by-id?source={}&id={}",
                    percent_encoded(&offset_or_source),
                    percent_encoded(&id)
                ),
                None => format!("events/{}", percent_encoded(&offset_or_source)),
            };
            let answer = client.get(&path).await?;
            if raw {
                let stored: Stored = answer.read()?;
                return print_json(stored.event.get());
            }
            print_answer(&answer, form, FIELDS)
        }
    }
}

const FIELDS: &[&str] = &[
    "offset",
    "received_at",
    "via",
    "parent",
    "hops",
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "trigger",
    "state",
    "attempt",
    "at",
    "status",
    "error",
];

#[derive(Deserialize)]
struct Stored {
    event: Box<RawValue>,
}

fn event_table(items: &[Value]) -> Table {
    let mut table = Table::new(&["OFFSET", "RECEIVED", "VIA", "TYPE", "SOURCE", "ID"]);
    for item in items {
        let columns = ["offset", "received_at", "via", "type", "source", "id"];
        table.row(columns.map(|path| (cell(item, path), Tone::Plain)));
    }
    table
}
