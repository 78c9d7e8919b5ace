//! `joind`: starts telemetry, runs a command, flushes even on failure.

use std::process::ExitCode;

use clap::Parser as _;
use join_server::{
    commands::{Cli, say_error},
    telemetry,
};

/// A join allocates on one thread and frees on another. The system's allocator takes a lock for that, and threads waited
/// for each other twice a join.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Printing fails only when nobody reads.
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return report(Err(error.into())),
    };
    runtime.block_on(async {
        let started = match cli.telemetry().and_then(|settings| telemetry::start(&settings)) {
            Ok(started) => started,
            Err(error) => return report(Err(error)),
        };
        let outcome = cli.run().await;
        started.flush();
        report(outcome)
    })
}

fn report(outcome: anyhow::Result<u8>) -> ExitCode {
    match outcome {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            say_error(&error);
            ExitCode::FAILURE
        }
    }
}
