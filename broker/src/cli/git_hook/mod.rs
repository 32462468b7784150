//! `sluice git-hook`: repositories without a host tell the broker of what is pushed to them.
//!
//! `install` writes a `post-receive` hook, and that runs `post-receive`. Names of refs and messages of commits come from
//! whoever may push: they are data. Git gets object ids in hexadecimal and refs behind `--exclude=`, an environment made for
//! the purpose, and no shell is between.

mod install;
mod post_receive;
mod repository;
mod spool;

use std::path::PathBuf;

use super::publish::DEFAULT_URL;
use super::{Error, block_on};

/// Commits that an event tells of.
const COMMITS: usize = 20;

#[derive(Debug, clap::Subcommand)]
pub enum GitHookCommand {
    /// Have a repository tell a broker of every push
    #[command(after_help = "\
Example:
  sluice git-hook install /srv/git/shop.git --url http://127.0.0.1:8080/events

A `post-receive` hook that is there already is kept as `post-receive.kept` and runs after.")]
    Install {
        /// The repository, bare or not
        #[arg(value_name = "REPO")]
        repository: PathBuf,
        #[command(flatten)]
        telling: Telling,
    },
    /// What the installed hook runs: reads `OLD NEW REF` lines from standard input
    #[command(
        after_help = "Example, in a repository's hooks/post-receive:\n  exec sluice git-hook post-receive --url http://127.0.0.1:8080/events"
    )]
    PostReceive {
        #[command(flatten)]
        telling: Telling,
    },
}

/// Whom to tell, and what.
#[derive(Clone, Debug, clap::Args)]
pub struct Telling {
    /// Where the broker takes events
    #[arg(long, env = "SLUICE_URL", default_value = DEFAULT_URL)]
    url: String,
    /// The source of the events, a URI reference; the repository's path as a file URL when there is none
    #[arg(long, value_name = "URI", value_parser = source)]
    source: Option<String>,
    /// How many commits of an update its event tells of
    #[arg(long, value_name = "N", default_value_t = COMMITS, value_parser = commits)]
    commits: usize,
}

const COMMITS_MAX: usize = 200;

fn commits(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count <= COMMITS_MAX => Ok(count),
        Ok(_) | Err(_) => Err(format!("expected a number from 0 to {COMMITS_MAX}, found `{text}`")),
    }
}

/// A source that no event may have is found now, not at the first push.
fn source(text: &str) -> Result<String, String> {
    let builder = sluice_schemas::Event::builder().attribute("specversion", "1.0");
    let event = builder.attribute("id", "i").attribute("source", text).attribute("type", "t").build();
    event.map(|event| event.source().to_owned()).map_err(|invalid| invalid.to_string())
}

impl GitHookCommand {
    pub fn execute(self) -> Result<(), Error> {
        match self {
            Self::Install { repository, telling } => block_on(install::install(&repository, &telling)),
            Self::PostReceive { telling } => block_on(post_receive::post_receive(telling)),
        }
    }
}
