//! `sluice status`, `sluice reload` and `sluice config show`.

use clap::Subcommand;
use http::StatusCode;
use serde_json::{Value, json};

use super::admin::{self, Client};
use super::output::{Colours, Form, Table, describe, escaped_lines, print, print_answer, print_json};
use super::{Error, sources, triggers};

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

/// Sources and triggers are a table each: a line for one, not twenty.
pub async fn status(args: admin::Access) -> Result<(), Error> {
    let answer = Client::new(&args)?.get("status").await?;
    if args.form() == Form::Json {
        return print_json(&answer.text);
    }
    let mut document = answer.document()?;
    let mut text = String::new();
    if let Some(members) =
        document.as_object_mut().filter(|members| members.get("reason").is_some_and(Value::is_null))
    {
        members.remove("reason");
    }
    for (name, table) in
        [("sources", sources::table as fn(&[Value]) -> Table), ("triggers", triggers::trigger_table)]
    {
        let items = document.as_object_mut().and_then(|members| members.remove(name));
        let items = items.as_ref().and_then(Value::as_array).filter(|items| !items.is_empty());
        match items {
            Some(items) => text.push_str(&format!("{name}:\n{}", table(items).render(Colours::of_stdout()))),
            None => text.push_str(&format!("{name}: none\n")),
        }
    }
    print(&(describe(&document, &["status", "reason", "store", "index", "dead_letters"]) + &text))
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
    if args.form() == Form::Json {
        return print_answer(&answer, args.form(), &[]);
    }
    let mut document = answer.document()?;
    let warnings = document.as_object_mut().and_then(|members| members.remove("warnings"));
    for warning in warnings.as_ref().and_then(Value::as_array).into_iter().flatten() {
        eprintln!("{}", escaped_lines(warning["text"].as_str().unwrap_or_default()));
    }
    print(&describe(&document, &["added", "changed", "removed"]))
}

async fn show(args: &admin::Access, path: &str, fields: &[&str]) -> Result<(), Error> {
    let answer = Client::new(args)?.get(path).await?;
    print_answer(&answer, args.form(), fields)
}
