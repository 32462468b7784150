//! `sluice triggers`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::admin::{self, Client, Query};
use super::connection::percent_encoded;
use super::output::{
    Colours, Form, Table, Tone, cell, confirmed, print, print_answer, print_line, print_list,
};
use super::{Error, usage};

/// Triggers are written by hand: there are at most some ten thousand.
const TRIGGERS_MAX: usize = 1_000_000;
const FIELDS: &[&str] = &[
    "name",
    "sink",
    "paused",
    "paused_reason",
    "seen",
    "matched",
    "unmatched",
    "delivered",
    "dead",
    "pending",
];

/// List, show, pause, resume, retry, discard: the triggers.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice triggers                      all triggers, with what is pending
  sluice triggers show big-orders
  sluice triggers pause big-orders
  sluice triggers --unmatched          what no trigger wants, and triggers that match nothing")]
pub struct Args {
    #[command(flatten)]
    admin: admin::Access,
    /// Show which event types matched no trigger, and which triggers matched nothing
    #[arg(long)]
    unmatched: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the triggers
    #[command(after_help = "Example:\n  sluice triggers list --json")]
    List,
    /// Show one trigger
    #[command(after_help = "Example:\n  sluice triggers show big-orders")]
    Show { name: String },
    /// List the events a trigger still has to deliver
    #[command(after_help = "Example:\n  sluice triggers pending big-orders --limit 10")]
    Pending {
        name: String,
        /// List at most this many
        #[arg(long, default_value_t = 100, value_parser = super::limit)]
        limit: usize,
    },
    /// Stop delivering; what matches is kept
    #[command(after_help = "Example:\n  sluice triggers pause big-orders")]
    Pause { name: String },
    /// Deliver again
    #[command(after_help = "Example:\n  sluice triggers resume big-orders")]
    Resume { name: String },
    /// Try the waiting deliveries now
    #[command(after_help = "Example:\n  sluice triggers retry big-orders")]
    Retry { name: String },
    /// Move everything pending to the dead letters
    #[command(after_help = "Example:\n  sluice triggers discard big-orders --yes")]
    Discard {
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

pub async fn triggers(args: Args) -> Result<(), Error> {
    let mut client = Client::new(&args.admin)?;
    let form = args.admin.form();
    if args.unmatched {
        if matches!(args.command, None | Some(Command::List)) {
            return unmatched(&mut client, form).await;
        }
        return Err(usage(&["triggers"], "--unmatched stands alone"));
    }
    match args.command.unwrap_or(Command::List) {
        Command::List => {
            let list = client.list("triggers", &Query::default(), TRIGGERS_MAX).await?;
            print_list(&list, form, "no triggers", trigger_table)
        }
        Command::Show { name } => {
            let answer = client.get(&path(&name, "")).await?;
            print_answer(&answer, form, FIELDS)
        }
        Command::Pending { name, limit } => {
            let list = client.list(&path(&name, "/pending"), &Query::default(), limit).await?;
            print_list(&list, form, "nothing is pending", pending_table)?;
            if form == Form::Text && !list.more {
                let answer = client.get(&path(&name, "/pending")).await?.document()?;
                if let Some(behind @ 1..) = answer["behind"].as_u64() {
                    eprintln!("{behind} more are behind, in the log only, and are taken up as there is room");
                }
            }
            Ok(())
        }
        Command::Pause { name } => change(&mut client, &name, Change::Pause, form).await,
        Command::Resume { name } => change(&mut client, &name, Change::Resume, form).await,
        Command::Retry { name } => change(&mut client, &name, Change::Retry, form).await,
        Command::Discard { name, yes } => {
            let question = format!("Move all pending deliveries of trigger `{name}` to the dead letters?");
            if !yes && !confirmed(&question)? {
                return Err(Error::failed("nothing was discarded"));
            }
            change(&mut client, &name, Change::Discard, form).await
        }
    }
}

fn path(name: &str, rest: &str) -> String {
    format!("triggers/{}{rest}", percent_encoded(name))
}

#[derive(Clone, Copy)]
enum Change {
    Pause,
    Resume,
    Retry,
    Discard,
}

async fn change(client: &mut Client, name: &str, change: Change, form: Form) -> Result<(), Error> {
    let (verb, done) = match change {
        Change::Pause => ("pause", "paused"),
        Change::Resume => ("resume", "resumed"),
        Change::Retry => ("retry", "waiting deliveries are tried now"),
        Change::Discard => ("discard", "pending deliveries are moved to the dead letters"),
    };
    let answer = client.post(&path(name, &format!("/{verb}")), &json!({})).await?;
    if form == Form::Text {
        print_line(&format!("trigger `{name}`: {done}"))?;
    }
    print_answer(&answer, form, FIELDS)
}

async fn unmatched(client: &mut Client, form: Form) -> Result<(), Error> {
    let answer = client.get("unmatched").await?;
    if form == Form::Json {
        return print_answer(&answer, form, &[]);
    }
    let document = answer.document()?;
    let items = |name: &str| document[name].as_array().cloned().unwrap_or_default();
    let part = |heading: &str,
                nothing: &str,
                items: &[Value],
                columns: &'static [(&str, &str)],
                names: &'static [&str]| {
        if items.is_empty() {
            return print_line(&format!("{heading}: {nothing}"));
        }
        print_line(&format!("{heading}:"))?;
        let mut table = Table::new(names);
        for item in items {
            let text = |(path, absent): &(&str, &str)| match cell(item, path) {
                text if item[path].is_null() => {
                    if absent.is_empty() {
                        text
                    } else {
                        (*absent).to_owned()
                    }
                }
                text => text,
            };
            table.row(columns.iter().map(|column| (text(column), Tone::Plain)));
        }
        print(&table.render(Colours::of_stdout()))
    };
    part(
        "event types of the last hour that no trigger took",
        "none",
        &items("types"),
        &[("type", "(others)"), ("count", ""), ("last_at", "")],
        &["TYPE", "EVENTS", "LAST"],
    )?;
    part(
        "triggers without a match for an hour",
        "none",
        &items("idle"),
        &[("trigger", ""), ("last_matched_at", "never")],
        &["TRIGGER", "LAST MATCH"],
    )?;
    part(
        "named by a filter, and in no event since the broker began",
        "nothing",
        &items("never_seen"),
        &[("trigger", ""), ("field", "")],
        &["TRIGGER", "FIELD"],
    )
}

pub(super) fn trigger_table(items: &[Value]) -> Table {
    let mut table = Table::new(&["NAME", "STATE", "PENDING", "RETRYING", "DEAD", "LAST ERROR", "SINK"]);
    for item in items {
        let flag = |name: &str| item[name] == Value::Bool(true);
        let state = match (flag("removed"), flag("paused")) {
            (true, _) => ("removed", Tone::Warning),
            (false, true) => ("paused", Tone::Warning),
            (false, false) => ("active", Tone::Plain),
        };
        let dead = cell(item, "dead");
        let dead_tone = if matches!(dead.as_str(), "0" | "-") { Tone::Plain } else { Tone::Warning };
        table.row([
            (cell(item, "name"), Tone::Plain),
            (state.0.to_owned(), state.1),
            (cell(item, "pending"), Tone::Plain),
            (cell(item, "retrying"), Tone::Plain),
            (dead, dead_tone),
            (cell(item, "last_error.error"), Tone::Plain),
            (cell(item, "sink"), Tone::Plain),
        ]);
    }
    table
}

fn pending_table(items: &[Value]) -> Table {
    let mut table = Table::new(&["OFFSET", "REASON", "ATTEMPTS", "NEXT"]);
    for item in items {
        let columns = ["offset", "reason", "attempts", "next_at"];
        table.row(columns.map(|path| (cell(item, path), Tone::Plain)));
    }
    table
}
