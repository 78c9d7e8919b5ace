//! `joinload`: fleets of bots that join an authority, and measurements that nobody can doubt.
#![allow(clippy::disallowed_methods, reason = "what measures asks the real clock and the real dice")]

mod administration;
mod append;
mod authority;
mod bench;
mod ceremony;
mod connection;
mod fleet;
mod floor;
mod growth;
mod history;
mod host;
mod import;
mod key;
mod overload;
mod pace;
mod process;
mod remote;
mod report;
mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// As in the service, whose parts are measured here too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Puts load on a join authority, and measures it.
#[derive(Debug, Parser)]
#[command(name = "joinload", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Where report.json, report.html and the plots go.
    #[arg(long, global = true, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Puts one profile on an authority that runs already.
    Run(remote::Options),
    /// Measures everything against a private authority.
    Bench(Bench),
    /// Measures what size costs: a thousand tokens against a million, and a long history. Takes long, and disk.
    Growth(Growth),
}

#[derive(Debug, Args)]
struct Growth {
    #[command(flatten)]
    private: Private,
    /// Tokens of the large authority.
    #[arg(long, default_value_t = 1_000_000)]
    tokens: u64,
    /// Events of its history, about.
    #[arg(long, default_value_t = 50_000_000)]
    events: u64,
    /// Bots that join, for the memory of a node that knows them.
    #[arg(long, default_value_t = 100_000)]
    live_bots: u64,
    /// How often each of what is compared is measured.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

#[derive(Debug, Args)]
struct Bench {
    #[command(flatten)]
    private: Private,
    /// Bots of the main fleet.
    #[arg(long, default_value_t = 2000)]
    bots: u64,
    /// How often each of what is compared is measured.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// One part only: for those who work on it.
    #[arg(long, value_name = "PART")]
    only: Option<bench::Part>,
    /// Set `vm.dirty_background_bytes` of this machine to 16 MB meanwhile, as a database's host should be; root only.
    #[arg(long)]
    early_writeback: bool,
}

/// A private authority.
#[derive(Debug, Args)]
struct Private {
    /// The service's program.
    #[arg(long, value_name = "FILE", default_value_os_t = built("joind"))]
    joind: PathBuf,
    /// The program of load-tests/baseline-cqrs; left out of the comparison when it is not there.
    #[arg(long, value_name = "FILE", default_value_os_t = built("baseline-cqrs"))]
    baseline: PathBuf,
    /// Writers of the service's ledger; its own default when left out.
    #[arg(long)]
    writers: Option<usize>,
    /// The same seed makes the same fleet.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A program of the release build, where cargo puts it.
fn built(program: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").filter(|directory| !directory.is_empty());
    PathBuf::from(target.unwrap_or_else(|| "target".into())).join("release").join(program)
}

impl Private {
    fn setup(&self) -> authority::Setup {
        authority::Setup {
            joind: self.joind.clone(),
            writers: self.writers,
            postgres: authority::postgres_settings(),
            log: true,
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // Dropped when somebody ends it, so that nothing it started is left running.
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        done = run(cli) => done,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        _ = terminated.recv() => anyhow::bail!("terminated"),
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Run(options) => finish(remote::run(&options).await?, &cli.out),
        Command::Bench(args) => {
            let options = bench::Options {
                setup: args.private.setup(),
                baseline: Some(args.private.baseline.clone()).filter(|program| program.exists()),
                seed: args.private.seed,
                bots: args.bots,
                rounds: args.rounds,
                seconds: args.seconds,
                only: args.only,
            };
            let _host = args.early_writeback.then(host::EarlyWriteback::set).transpose().unwrap_or_else(|error| {
                eprintln!("this machine's writeback stays as it is, {}: {error}", host::writeback());
                None
            });
            let mut report = bench::run(&options).await?;
            report.settings(bench::describe(&options));
            finish(report, &cli.out)
        }
        Command::Growth(args) => {
            let options = growth::Options {
                // The log's files of so long a history would be written for as long as it took to make.
                setup: authority::Setup { log: false, ..args.private.setup() },
                seed: args.private.seed,
                tokens: args.tokens,
                events: args.events,
                live_bots: args.live_bots,
                rounds: args.rounds,
                seconds: args.seconds,
            };
            let mut report = growth::run(&options).await?;
            report.settings(growth::describe(&options));
            finish(report, &cli.out)
        }
    }
}

fn finish(mut report: report::Report, directory: &std::path::Path) -> anyhow::Result<()> {
    report.write(directory)?;
    println!("{}\nin {}: report.json, report.html, plots", report.table(), directory.display());
    Ok(())
}
