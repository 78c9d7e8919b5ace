//! What people type.

mod install;
mod keypair;
mod start;
mod status;
mod terminal;

use std::{fs, io::IsTerminal as _, path::Path, process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};
use join_agent::{
    config::{Config, StorageConfig, process_environment},
    storage::{Directory, Memory, Storage},
    vault::Vault,
};
use tracing::warn;
use tracing_subscriber::EnvFilter;

pub(crate) use self::terminal::say;

/// Joins this host's bot to a cluster and keeps its credentials fresh.
#[derive(Debug, Parser)]
#[command(name = "joinbot", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Log more; RUST_LOG says more exactly what.
    #[arg(long, short, global = true)]
    debug: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join, and renew until stopped (SIGUSR1 and SIGHUP renew now, SIGTERM and SIGINT stop)
    Start(start::Start),
    /// Make keypairs to preregister
    #[command(subcommand)]
    Keypair(keypair::Keypair),
    /// Install the daemon
    #[command(subcommand)]
    Install(install::Install),
    /// Show what the storage holds; exit status 0 only with a live certificate
    Status(status::Status),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Runs one command.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.command {
        Command::Start(start) => start.run(arguments.debug),
        Command::Keypair(keypair) => keypair.run(),
        Command::Install(install) => install.run(),
        Command::Status(status) => status.run(),
    }
}

/// One line for each event, on stderr.
fn start_logging(debug: bool) {
    let level = if debug { "debug,h2=info,hyper=info,rustls=info,tower=info" } else { "info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // Its complaint about a line that could not be written would go to stderr too, and panic there.
        .log_internal_errors(false)
        .init();
}

fn load_config(path: &Path) -> Result<Config> {
    parse_config(path, &read_config(path)?)
}

fn read_config(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read the configuration {}", path.display()))
}

fn parse_config(path: &Path, text: &str) -> Result<Config> {
    Config::from_yaml(text, &process_environment).with_context(|| path.display().to_string())
}

/// The storage of an agent that starts. One that can't be written is refused unless it holds what a join brought.
fn open_storage(config: &StorageConfig) -> Result<Arc<dyn Storage>> {
    Ok(match config {
        StorageConfig::Directory(path) => {
            let directory = Directory::hold(path)?;
            if let Some(warning) = directory.warning() {
                warn!("{warning}");
            }
            let probed = directory.probe();
            let directory: Arc<dyn Storage> = Arc::new(directory);
            if let Err(unwritable) = probed {
                // A bot that has joined can go on with that for a while; each join tries to write before it is sent.
                let has_joined = Vault::open(directory.clone()).is_ok_and(|vault| vault.state().accepted.is_some());
                if !has_joined {
                    return Err(unwritable.into());
                }
                warn!("{unwritable}; going on with what is stored, and nothing is renewed before it can be written");
            }
            directory
        }
        StorageConfig::Memory => Arc::new(Memory::default()),
    })
}
