//! `sluice dlq`: the dead letters.

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::admin::{self, Client, Query};
use super::connection::percent_encoded;
use super::narrowing::Narrowing;
use super::output::{Form, Table, Tone, cell, confirmed, print_answer, print_list};
use super::{Error, usage};

/// List, show, redrive, purge: the dead letters.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice dlq list --trigger big-orders
  sluice dlq show ID
  sluice dlq redrive --trigger big-orders --dry-run
  sluice dlq purge --all --yes")]
pub struct Args {
    #[command(flatten)]
    admin: admin::Access,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the dead letters
    #[command(after_help = "Example:\n  sluice dlq list --trigger big-orders --reason attempts --since 1d")]
    List {
        #[command(flatten)]
        filters: Filters,
        /// List at most this many
        #[arg(long, default_value_t = 1000, value_parser = super::limit)]
        limit: usize,
    },
    /// Show one dead letter: the event, the reason, the attempts
    #[command(after_help = "Example:\n  sluice dlq show ID --json")]
    Show { id: String },
    /// Deliver dead letters again; they leave the list
    #[command(after_help = "\
Examples:
  sluice dlq redrive ID ID
  sluice dlq redrive --trigger big-orders --reason attempts
  sluice dlq redrive --all --to catch-up --dry-run")]
    Redrive {
        #[command(flatten)]
        selection: Selection,
        /// Deliver to this trigger instead of the one each was meant for
        #[arg(long, value_name = "TRIGGER")]
        to: Option<String>,
        /// Only say which would be redriven
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove dead letters for good
    #[command(after_help = "\
Examples:
  sluice dlq purge ID
  sluice dlq purge --trigger big-orders --type com.example.test --dry-run
  sluice dlq purge --all --yes")]
    Purge {
        #[command(flatten)]
        selection: Selection,
        /// Only say which would be purged
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Filters {
    /// Only those of this trigger
    #[arg(long)]
    trigger: Option<String>,
    /// Only those that died of this: attempts, age, rejected, gone, reply, loop, transform, trigger_removed,
    /// discarded, quarantine or conflict
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    narrowing: Narrowing,
}

#[derive(Debug, clap::Args)]
struct Selection {
    /// The ids that `sluice dlq list` shows
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filters: Filters,
    /// All dead letters
    #[arg(long)]
    all: bool,
}

impl Filters {
    fn named(&self) -> Vec<(&'static str, Option<String>)> {
        let own = [("trigger", self.trigger.clone()), ("reason", self.reason.clone())];
        own.into_iter().chain(self.narrowing.named()).collect()
    }
}

impl Selection {
    /// The body that says which; one of ids, filters and --all, and never none of them.
    fn body(&self, verb: &str) -> Result<Map<String, Value>, Error> {
        let mut body = Map::new();
        for (name, value) in self.filters.named() {
            if let Some(value) = value {
                body.insert(name.into(), value.into());
            }
        }
        let wrong = match (self.ids.is_empty(), body.is_empty(), self.all) {
            (true, true, false) => "say which: ids, --trigger or another filter, or --all",
            (false, true, false) => {
                body.insert("ids".into(), json!(self.ids));
                return Ok(body);
            }
            (true, false, false) => return Ok(body),
            (true, true, true) => {
                body.insert("all".into(), true.into());
                return Ok(body);
            }
            (false, _, true) | (false, false, false) => "ids stand alone, without filters and --all",
            (true, false, true) => "--all and filters exclude each other",
        };
        Err(usage(&["dlq", verb], wrong))
    }

    fn describe(&self) -> String {
        if self.all {
            return "all dead letters".into();
        }
        if !self.ids.is_empty() {
            return format!("{} dead letter(s)", self.ids.len());
        }
        let given = self.filters.named().into_iter();
        let given: Vec<_> =
            given.filter_map(|(name, value)| value.map(|value| format!("{name} {value}"))).collect();
        format!("all dead letters with {}", given.join(", "))
    }
}

pub async fn dlq(args: Args) -> Result<(), Error> {
    let mut client = Client::new(&args.admin)?;
    let form = args.admin.form();
    match args.command {
        Command::List { filters, limit } => {
            let query = Query::of(filters.named());
            let list = client.list("dead-letters", &query, limit).await?;
            print_list(&list, form, "no dead letters", dead_letter_table)
        }
        Command::Show { id } => {
            let answer = client.get(&format!("dead-letters/{}", percent_encoded(&id))).await?;
            print_answer(&answer, form, FIELDS)
        }
        Command::Redrive { selection, to, dry_run } => {
            let mut body = selection.body("redrive")?;
            body.extend(to.map(|to| ("to".to_owned(), to.into())));
            act(&mut client, "redrive", body, dry_run, form).await
        }
        Command::Purge { selection, dry_run, yes } => {
            let body = selection.body("purge")?;
            let question = format!("Remove {} for good?", selection.describe());
            if !yes && !dry_run && !confirmed(&question)? {
                return Err(Error::failed("nothing was purged"));
            }
            act(&mut client, "purge", body, dry_run, form).await
        }
    }
}

const FIELDS: &[&str] = &[
    "id",
    "trigger",
    "via",
    "reason",
    "detail",
    "first_at",
    "last_at",
    "specversion",
    "source",
    "type",
    "subject",
    "attempt",
    "at",
    "status",
    "error",
];

/// What is wrong with a sink is said in few words; the rest is in `dlq show`.
const DETAIL_CHARS_MAX: usize = 60;

async fn act(
    client: &mut Client,
    verb: &str,
    mut body: Map<String, Value>,
    dry_run: bool,
    form: Form,
) -> Result<(), Error> {
    if dry_run {
        body.insert("dry_run".into(), true.into());
    }
    let answer = client.post(&format!("dead-letters/{verb}"), &Value::Object(body)).await?;
    print_answer(&answer, form, &["dry_run", "count", "ids"])?;
    match answer.document()?["failed"].as_array().map_or(0, Vec::len) {
        0 => Ok(()),
        count => Err(Error::failed(format!("{count} of the dead letters stay, as said above"))),
    }
}

fn dead_letter_table(items: &[Value]) -> Table {
    let headings =
        &["ID", "TRIGGER", "REASON", "STATUS", "ATTEMPTS", "LAST", "TYPE", "SOURCE", "EVENT", "DETAIL"];
    let mut table = Table::new(headings);
    for item in items {
        let of_delivery = ["id", "trigger", "reason", "status", "attempts", "last_at"];
        let of_event = ["event.type", "event.source", "event.id"];
        let columns = of_delivery.into_iter().chain(of_event).map(|path| cell(item, path));
        let detail: String = cell(item, "detail").chars().take(DETAIL_CHARS_MAX).collect();
        table.row(columns.chain([detail]).map(|text| (text, Tone::Plain)));
    }
    table
}
