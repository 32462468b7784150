//! The command line: what the commands are, and those of them that are clients of a running broker.
//!
//! A client command knows the admin API (`/api/v1/...`) and nothing else of the broker. With `--json` it prints the
//! API's own text, so that no number and no field is lost on the way (misleading characters in strings become escapes
//! of the same value); without, a table or a description in which
//! control characters are escaped, because what is shown may come from anybody who can publish.

mod admin;
mod bench;
mod cesql;
mod connection;
mod cron;
mod dlq;
mod documents;
mod error;
mod events;
mod explain;
mod git_hook;
mod narrowing;
mod output;
mod publish;
mod sink;
mod sources;
mod status;
mod test;
mod time;
mod triggers;

use std::future::Future;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use error::Error;

use crate::{run, store, transform};

/// A CloudEvents event broker in one binary.
///
/// Sources and publishers bring events in, a durable log keeps them, triggers filter them and deliver them to sinks.
#[derive(Debug, Parser)]
#[command(
    name = "sluice",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  sluice init && sluice run sluice.yaml
  sluice publish --type com.example.order --source /shop --data '{\"amount\": 120}'
  sluice triggers

Exit codes: 0 done, 1 failed, 2 usage, 74 the store could not be written, 78 wrong configuration."
)]
pub struct Cli {
    /// How log lines on standard error are written; the environment variable SLUICE_LOG filters them
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Common options"
    )]
    pub log: LogFormat,
    #[command(subcommand)]
    pub command: Command,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker
    #[command(after_help = "\
Examples:
  sluice run sluice.yaml
  sluice run base.yaml triggers/      a directory means its *.yaml and *.yml files

SIGHUP reloads the configuration, SIGTERM drains and stops.")]
    Run {
        /// Configuration files, or directories of them
        #[arg(required = true, value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
    },
    /// Check a configuration without running it
    #[command(after_help = "\
Example:
  sluice check sluice.yaml

A mistake is a line FILE:LINE:COLUMN: message, and exit 78.")]
    Check {
        /// Configuration files, or directories of them
        #[arg(required = true, value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
    },
    /// Run the tests of a configuration
    Test(test::Args),
    /// Publish events
    Publish(publish::Args),
    /// Show how the broker is: store, sources, triggers, dead letters
    #[command(after_help = "Example:\n  sluice status --json")]
    Status {
        #[command(flatten)]
        admin: admin::Access,
    },
    /// Have the broker read its configuration again
    #[command(after_help = "\
Example:
  sluice check sluice.yaml && sluice reload

Prints what changed. A wrong configuration changes nothing: its errors, and exit 78.")]
    Reload {
        #[command(flatten)]
        admin: admin::Access,
    },
    /// Show the configuration in force
    #[command(after_help = "Example:\n  sluice config show --json")]
    Config(status::ConfigArgs),
    /// List, show, pause, resume, retry, discard: the triggers
    Triggers(triggers::Args),
    /// List, show, pause, resume: the sources
    Sources(sources::Args),
    /// When schedules of timers are due
    #[command(after_help = "Example:\n  sluice cron next '30 2 * * *' --timezone Europe/Berlin")]
    Cron {
        #[command(subcommand)]
        command: cron::Command,
    },
    /// List and show stored events
    Events(events::Args),
    /// Say why an event goes to a trigger or does not
    Explain(explain::Args),
    /// Evaluate a CESQL expression for an event
    Cesql(cesql::Args),
    /// List, show, redrive, purge: the dead letters
    Dlq(dlq::Args),
    /// Verify or repair a store that is not in use
    #[command(after_help = "\
Examples:
  sluice store verify ./data
  sluice store repair ./data --accept-loss 1200..1207")]
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Have plain git repositories tell the broker of pushes
    #[command(
        after_help = "Example:\n  sluice git-hook install /srv/git/shop.git --url http://localhost:8080/events"
    )]
    GitHook {
        #[command(subcommand)]
        command: git_hook::GitHookCommand,
    },
    /// Run a sink for development: prints what it is sent
    Sink(sink::Args),
    /// Load a broker and report how fast it answers and delivers
    Bench(bench::Args),
    /// Print the JSON Schema of the configuration format
    #[command(after_help = "Example:\n  sluice schema > sluice.schema.json")]
    Schema,
    /// Write a configuration file to start from
    #[command(after_help = "Example:\n  sluice init && sluice run sluice.yaml")]
    Init {
        /// The file; it must not exist yet
        #[arg(default_value = "sluice.yaml", value_name = "FILE")]
        path: PathBuf,
    },
    /// Run jq programs for a broker, which starts this itself
    #[command(hide = true)]
    JqWorker,
    /// Print the completions of a shell
    #[command(after_help = "\
Example:
  sluice completions bash > /etc/bash_completion.d/sluice")]
    Completions {
        #[arg(value_enum, value_name = "SHELL")]
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Read the whole store and report damage; changes nothing
    #[command(after_help = "Example:\n  sluice store verify ./data --json")]
    Verify {
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Record a damaged range as lost, so that the broker starts again; removes nothing
    #[command(after_help = "\
Example:
  sluice store repair ./data --accept-loss 1200..1207

`store verify` and `run` name the range.")]
    Repair {
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// The first and the last offset given up
        #[arg(long, value_name = "A..B", value_parser = offsets)]
        accept_loss: RangeInclusive<u64>,
    },
}

impl Command {
    /// Does what the command says and returns when it is done.
    pub fn execute(self, log: LogFormat) -> Result<(), Error> {
        match self {
            Self::Run { paths } => run::run(paths, log),
            Self::Check { paths } => run::check(&paths),
            Self::Publish(args) => block_on(publish::publish(args)),
            Self::Status { admin } => block_on(status::status(admin)),
            Self::Reload { admin } => block_on(status::reload(admin)),
            Self::Config(args) => block_on(status::config(args)),
            Self::Triggers(args) => block_on(triggers::triggers(args)),
            Self::Sources(args) => block_on(sources::sources(args)),
            Self::Cron { command } => cron::cron(command),
            Self::Events(args) => block_on(events::events(args)),
            Self::Cesql(args) => cesql::cesql(&args),
            Self::Explain(args) => block_on(explain::explain(args)),
            Self::Dlq(args) => block_on(dlq::dlq(args)),
            Self::Store { command: StoreCommand::Verify { dir, json } } => store_verify(&dir, json),
            Self::Store { command: StoreCommand::Repair { dir, accept_loss } } => {
                store_repair(&dir, &accept_loss)
            }
            Self::GitHook { command } => command.execute(),
            Self::Sink(args) => block_on(sink::sink(args)),
            Self::Bench(args) => block_on(bench::bench(args)),
            Self::Schema => schema(),
            Self::Init { path } => init(&path),
            Self::Test(args) => block_on(test::test(args)),
            Self::JqWorker => transform::worker::serve(),
            Self::Completions { shell } => completions(shell),
        }
    }
}

/// Reads a store that is not in use and prints a report; damage is [`Error::Failed`], naming file and offsets.
fn store_verify(dir: &Path, json: bool) -> Result<(), Error> {
    let mut progress = output::Progress::new("verifying");
    let report = store::verify(dir, &mut |percent| progress.show(percent));
    progress.finish();
    let report = report.map_err(|error| store_error(dir, &error.into()))?;
    let damage: Vec<_> = report
        .damage
        .iter()
        .map(|part| {
            serde_json::json!({
                "file": part.file, "start": part.start, "end": part.end,
                "from": part.offsets.0.to_string(), "to": part.offsets.1.to_string(),
                "unreadable": part.is_unreadable,
            })
        })
        .collect();
    if json {
        let text = serde_json::json!({
            "dir": dir, "segments": report.segments, "frames": report.frames, "events": report.events,
            "bytes": report.bytes, "first_offset": report.first_offset.to_string(),
            "next_offset": report.next_offset.to_string(), "closed": report.closed,
            "torn_bytes": report.torn_bytes, "damage": damage, "dead_letter_copies": report.letters,
            "damaged_dead_letters": report.broken_letters, "damaged_snapshots": report.broken_snapshots,
        });
        output::print_bytes(format!("{text}\n").as_bytes())?;
    } else {
        let store::VerifyReport { segments, frames, events, bytes, first_offset, next_offset, .. } = &report;
        let offsets = match next_offset.0.checked_sub(1) {
            Some(last) if *first_offset <= store::Offset(last) => format!("offsets {first_offset} to {last}"),
            Some(_) | None => format!("next offset {next_offset}"),
        };
        let text = format!(
            "{}: {segments} segments, {frames} frames, {events} events, {bytes} bytes, {offsets}\n",
            dir.display()
        );
        output::print_bytes(text.as_bytes())?;
        if report.torn_bytes > 0 {
            let text = format!(
                "{} bytes at the end were torn by a crash; the next start sets them aside\n",
                report.torn_bytes
            );
            output::print_bytes(text.as_bytes())?;
        }
    }
    let mut problems = report.other_problems();
    if !report.damage.is_empty() {
        let error = store::OpenError::Damaged { dir: dir.to_path_buf(), damage: report.damage };
        problems.push(error.to_string());
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::failed(problems.join("\n"))) }
}

/// Records the offsets as lost in a store that is not in use.
fn store_repair(dir: &Path, accept_loss: &RangeInclusive<u64>) -> Result<(), Error> {
    let accepted = *accept_loss.start()..accept_loss.end().saturating_add(1);
    let report = store::repair(dir, accepted).map_err(|error| store_error(dir, &error))?;
    let text = format!(
        "{}: {} damaged places are recorded as gaps; nothing was removed\n",
        dir.display(),
        report.damage.len()
    );
    output::print_bytes(text.as_bytes())
}

/// Names the directory where the error does not, and the cause where there is one.
fn store_error(dir: &Path, error: &store::RepairError) -> Error {
    use store::RepairError as Repair;
    let mut text = match error {
        Repair::Verify(_) | Repair::Open(_) => error.to_string(),
        Repair::Sound | Repair::Wider { .. } | Repair::Unclosed => format!("{}: {error}", dir.display()),
    };
    if let Some(cause) = std::error::Error::source(error) {
        text.push_str(&format!(": {cause}"));
    }
    Error::failed(text)
}

/// Prints the JSON Schema of the configuration format.
fn schema() -> Result<(), Error> {
    let text = serde_json::to_string_pretty(&sluice_config::json_schema()).unwrap_or_default();
    output::print_bytes(format!("{text}\n").as_bytes())
}

/// Writes a starter configuration to a path where nothing is.
fn init(path: &Path) -> Result<(), Error> {
    use std::io::Write as _;
    let because = |error| Error::failed_because(format!("cannot write {}", path.display()), error);
    let mut file = std::fs::File::create_new(path).map_err(because)?;
    file.write_all(sluice_config::starter().as_bytes()).map_err(because)?;
    output::print_bytes(format!("wrote {0}; next: sluice run {0}\n", path.display()).as_bytes())
}

fn completions(shell: Shell) -> Result<(), Error> {
    // Into memory first: the generator panics when its output is closed.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut script);
    output::print_bytes(&script)
}

/// Runs a client command. One thread is enough for it, and leaves the machine to the broker.
fn block_on(command: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::failed_because("cannot start", error))?
        .block_on(command)
}

/// A mistake that clap cannot see; reported as clap reports its own, with the usage of the subcommand.
fn usage(path: &[&str], message: &str) -> Error {
    let mut root = Cli::command();
    // Fills in the names that the usage line shows.
    root.build();
    let mut command = root;
    for name in path {
        if let Some(found) = command.find_subcommand(name) {
            command = found.clone();
        }
    }
    Error::Usage(command.error(clap::error::ErrorKind::ArgumentConflict, message))
}

/// How many items a list may have.
fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if limit > 0 => Ok(limit),
        Ok(_) | Err(_) => Err(format!("expected a number from 1, found `{text}`")),
    }
}

/// `A..B`, both ends included: how `store verify` names a damaged range.
fn offsets(text: &str) -> Result<RangeInclusive<u64>, String> {
    let parsed =
        text.split_once("..").and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    match parsed {
        Some((first, last)) if first <= last => Ok(first..=last),
        Some((first, last)) => Err(format!("{first} is after {last}")),
        None => Err("expected two offsets, as in `1200..1207`".into()),
    }
}

#[cfg(test)]
mod tests;
