//! `sluice sources`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::Error;
use super::admin::{self, Client, Query};
use super::connection::percent_encoded;
use super::output::{Table, Tone, cell, print_answer, print_list};

/// Sources are written by hand.
const SOURCES_MAX: usize = 1_000_000;
const FIELDS: &[&str] =
    &["name", "kind", "state", "error", "since", "position", "accepted", "put_aside", "duplicates"];

/// List, show, pause, resume: the sources.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice sources                       all sources, with their state
  sluice sources show orders
  sluice sources pause orders")]
pub struct Args {
    #[command(flatten)]
    admin: admin::Access,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the sources
    #[command(after_help = "Example:\n  sluice sources list --json")]
    List,
    /// Show one source
    #[command(after_help = "Example:\n  sluice sources show orders")]
    Show { name: String },
    /// Take nothing in, also after a restart
    #[command(after_help = "Example:\n  sluice sources pause orders")]
    Pause { name: String },
    /// Take in again
    #[command(after_help = "Example:\n  sluice sources resume orders")]
    Resume { name: String },
}

pub async fn sources(args: Args) -> Result<(), Error> {
    let mut client = Client::new(&args.admin)?;
    let form = args.admin.form();
    let path = |name: &str, rest: &str| format!("sources/{}{rest}", percent_encoded(name));
    let answer = match args.command.unwrap_or(Command::List) {
        Command::List => {
            let list = client.list("sources", &Query::default(), SOURCES_MAX).await?;
            return print_list(&list, form, "no sources", table);
        }
        Command::Show { name } => client.get(&path(&name, "")).await?,
        Command::Pause { name } => client.post(&path(&name, "/pause"), &json!({})).await?,
        Command::Resume { name } => client.post(&path(&name, "/resume"), &json!({})).await?,
    };
    if let Some(warning) = answer.document()?["warning"].as_str() {
        eprintln!("warning: {warning}");
    }
    print_answer(&answer, form, FIELDS)
}

pub(super) fn table(items: &[Value]) -> Table {
    let mut table = Table::new(&["NAME", "KIND", "STATE", "ACCEPTED", "PUT ASIDE", "DUPLICATES", "ERROR"]);
    for item in items {
        let tone = match item["state"].as_str() {
            Some("down" | "paused" | "starting") => Tone::Warning,
            _ => Tone::Plain,
        };
        let plain = |path: &str| (cell(item, path), Tone::Plain);
        table.row([
            plain("name"),
            plain("kind"),
            (cell(item, "state"), tone),
            plain("accepted"),
            plain("put_aside"),
            plain("duplicates"),
            plain("error"),
        ]);
    }
    table
}
