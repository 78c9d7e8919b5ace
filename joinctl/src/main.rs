//! `joinctl`, the command of administrators and auditors: it changes and shows resources, and reads, replays and
//! verifies the ledger. Data goes to stdout, everything else to stderr.
#![warn(clippy::print_stderr, reason = "it panics when nobody reads stderr; `output::say` does not")]

mod audit;
mod bots;
mod cli;
mod connection;
mod exit;
mod explain;
mod interrupt;
mod lock;
mod moment;
mod output;
mod resource;
mod shell;
mod status;
mod token;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(usage) => return exit::usage(&usage),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn run(cli: cli::Cli) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(cli.run())
}
