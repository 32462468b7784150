use std::process::ExitCode;

use clap::Parser;
use sluice_broker::cli::Cli;

/// Events are allocated on one thread and freed on another, which the system's allocator pays for dearly: a fifth of
/// the broker's time under load. This one gives back what is free: see `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
