use std::process::ExitCode;

use clap::Parser;
use sluice_broker::cli::Cli;

fn main() -> ExitCode {
    let Cli { log, command } = Cli::parse();
    match command.execute(log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report();
            error.exit_code()
        }
    }
}
