//! Runs a command with a private PostgreSQL beside it.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use join_embedded::{Cluster, Options, TEST_SERVER_VARIABLE};

const USAGE: &str = "\
usage: private-postgres run [--durable] [--dir DIR] [--] COMMAND [ARGUMENT...]

Starts a private PostgreSQL, runs COMMAND, stops PostgreSQL, and exits with COMMAND's status.
COMMAND finds the socket directory in JOIN_TEST_POSTGRES and a URL of the superuser in JOIN_TEST_POSTGRES_URL.

  --durable  force every commit to the disk, as in production (default: nothing is forced)
  --dir DIR  keep the cluster in DIR (default: a temporary one)";

/// What was asked for.
struct Run {
    durable: bool,
    directory: Option<PathBuf>,
    command: Vec<String>,
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if matches!(arguments.first().map(String::as_str), Some("-h" | "--help" | "help")) {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let outcome = match arguments.is_empty() || arguments.remove(0) != "run" {
        true => Err(USAGE.to_owned()),
        false => parse(arguments).and_then(|asked| run(&asked)),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("{message}");
        ExitCode::from(2)
    })
}

fn parse(arguments: Vec<String>) -> Result<Run, String> {
    let mut asked = Run { durable: false, directory: None, command: Vec::new() };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--durable" => asked.durable = true,
            "--dir" => asked.directory = Some(arguments.next().ok_or("--dir needs a directory")?.into()),
            "--" => break,
            option if option.starts_with('-') => return Err(format!("unknown option {option}\n\n{USAGE}")),
            _ => {
                asked.command.push(argument);
                break;
            }
        }
    }
    asked.command.extend(arguments);
    if asked.command.is_empty() { Err(format!("no command given\n\n{USAGE}")) } else { Ok(asked) }
}

fn run(asked: &Run) -> Result<ExitCode, String> {
    let options = if asked.durable { Options::durable() } else { Options::fast() };
    let cluster = match &asked.directory {
        Some(directory) => Cluster::start(directory, &options),
        None => Cluster::temporary(&options),
    };
    let cluster = cluster.map_err(|error| error.to_string())?;
    let address = cluster.address();
    let status = Command::new(&asked.command[0])
        .args(&asked.command[1..])
        .env(TEST_SERVER_VARIABLE, address.socket_dir())
        .env("JOIN_TEST_POSTGRES_URL", address.url("postgres", "postgres"))
        .status()
        .map_err(|error| format!("cannot run {}: {error}", asked.command[0]))?;
    cluster.stop().map_err(|error| error.to_string())?;
    // A shell tells of a deadly signal in the same way.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
