//! joinbot, the agent on a bot's host.

mod commands;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = match commands::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(usage) => {
            let _ = usage.print();
            return if usage.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match commands::run(arguments) {
        Ok(code) => code,
        Err(error) => {
            commands::say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
