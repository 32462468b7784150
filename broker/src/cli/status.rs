//! `sluice status`, `sluice reload` and `sluice config show`.

use clap::Subcommand;
use http::StatusCode;
use serde_json::json;

use super::Error;
use super::admin::{self, Client};
use super::output::{escaped_lines, print_answer};

/// Show the configuration in force.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    #[command(flatten)]
    admin: admin::Access,
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum ConfigCommand {
    /// Show it with its defaults filled in, secrets hidden
    #[command(after_help = "Example:\n  sluice config show --json")]
    Show,
}

pub async fn status(args: admin::Access) -> Result<(), Error> {
    show(
        &args,
        "status",
        &["status", "version", "store", "index", "sources", "triggers", "dead_letters", "name"],
    )
    .await
}

pub async fn config(args: ConfigArgs) -> Result<(), Error> {
    let ConfigCommand::Show = args.command;
    show(&args.admin, "config", &["hash", "http", "admin", "store", "sources", "triggers"]).await
}

/// Asks for a reload and waits for it. What a wrong configuration says is printed as `run` and `check` print it.
pub async fn reload(args: admin::Access) -> Result<(), Error> {
    let mut client = Client::new(&args)?;
    let answer = match client.try_post("config/reload", &json!({})).await? {
        Ok(answer) => answer,
        Err(problem) => {
            return Err(match problem.status {
                StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => {
                    Error::Configuration(escaped_lines(&problem.text))
                }
                _ => problem.into(),
            });
        }
    };
    print_answer(&answer, args.form(), &["added", "changed", "removed"])
}

async fn show(args: &admin::Access, path: &str, fields: &[&str]) -> Result<(), Error> {
    let answer = Client::new(args)?.get(path).await?;
    print_answer(&answer, args.form(), fields)
}
