//! How a command ends when it does not do what it was asked.

use std::error::Error as StdError;
use std::process::ExitCode;

use tracing::Level;

use crate::run::log;

/// Why a command failed. The variant decides the exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The words of the command line make no sense together. Exit 2, with the usage.
    #[error("{0}")]
    Usage(#[from] clap::Error),
    /// The configuration is wrong; the text is complete and stands on lines of its own. Exit 78.
    #[error("{0}")]
    Configuration(String),
    /// The store could not be written or synced while the broker ran. Exit 74.
    #[error("{0}")]
    StoreWrite(String),
    /// Anything else. Exit 1.
    #[error("{what}")]
    Failed { what: String, source: Option<Box<dyn StdError + Send + Sync>> },
    /// Who read the output has gone (`sluice events list | head`). That is no failure: exit 0, silently.
    #[error("standard output is closed")]
    OutputClosed,
}

impl Error {
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), source: None }
    }

    pub fn failed_because(
        what: impl Into<String>,
        cause: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::Failed { what: what.into(), source: Some(cause.into()) }
    }

    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Configuration(_) => ExitCode::from(78),
            Self::StoreWrite(_) => ExitCode::from(74),
            Self::Failed { .. } => ExitCode::from(1),
            Self::OutputClosed => ExitCode::SUCCESS,
        }
    }

    /// Says on standard error what went wrong, causes included.
    pub fn report(&self) {
        match self {
            // Nothing is left to do when standard error is closed, too.
            Self::Usage(error) => drop(error.print()),
            Self::Configuration(text) => log::say(Level::ERROR, text.trim_end()),
            Self::StoreWrite(_) | Self::Failed { .. } => {
                log::say(Level::ERROR, &format!("sluice: {}", self.with_causes()));
            }
            Self::OutputClosed => {}
        }
    }

    fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl From<std::io::Error> for Error {
    /// For writes to standard output; other places say what they were doing.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::failed_because("cannot write to standard output", error)
    }
}
