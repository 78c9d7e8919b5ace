//! `joinload`: fleets of bots that join an authority, and measurements that nobody can doubt.
#![allow(clippy::disallowed_methods, reason = "what measures asks the real clock and the real dice")]

mod administration;
mod append;
mod authority;
mod bench;
mod ceremony;
mod cold;
mod connection;
mod fleet;
mod floor;
mod growth;
mod history;
mod host;
mod import;
mod key;
mod measured;
mod overload;
mod pace;
mod process;
mod profiles;
mod remote;
mod report;
mod verify;

use std::{path::PathBuf, process::ExitCode};

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
    /// Where report.json, report.html and the plots go [default: target/bench, and target/bench/run for `run`].
    #[arg(long, global = true, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
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
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(2000..))]
    tokens: u64,
    /// Events of its history, about.
    #[arg(long, value_name = "COUNT", default_value_t = 50_000_000)]
    events: u64,
    /// Bots that join, for the memory of a node that knows them. Fewer than there are tokens.
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    live_bots: u64,
    #[command(flatten)]
    measuring: Measuring,
}

#[derive(Debug, Args)]
struct Bench {
    #[command(flatten)]
    private: Private,
    /// The program of load-tests/baseline-cqrs; left out of the comparison when it is not there.
    #[arg(long, value_name = "FILE", default_value_os_t = built("baseline-cqrs"))]
    baseline: PathBuf,
    /// Bots of the main fleet: not fewer than join at once.
    #[arg(long, value_name = "COUNT", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(bench::KEPT_AT_ONCE..=1_000_000))]
    bots: u64,
    #[command(flatten)]
    measuring: Measuring,
    /// One part only: for those who work on it.
    #[arg(long, value_name = "PART")]
    only: Option<bench::Part>,
    /// Set `vm.dirty_background_bytes` of this machine to 16 MB meanwhile, as a database's host should be; root only.
    #[arg(long)]
    early_writeback: bool,
}

/// How much is measured.
#[derive(Debug, Args)]
struct Measuring {
    /// How often each of what is compared is measured.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of each measurement. `bench` takes 2 to 4 of them for appends, 4 at most for what is measured once, and twice
    /// as many at half of peak.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

/// A private authority.
#[derive(Debug, Args)]
struct Private {
    /// The service's program.
    #[arg(long, value_name = "FILE", default_value_os_t = built("joind"))]
    joind: PathBuf,
    /// Writers of the service's ledger; its own default when left out.
    #[arg(long, value_name = "COUNT", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
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
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("joinload: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    // Figures of somebody's authority don't go among those of the benchmark.
    let usual = if matches!(cli.command, Command::Run(_)) { "target/bench/run" } else { "target/bench" };
    let out = cli.out.unwrap_or_else(|| usual.into());
    let report = match cli.command {
        // It ends by itself when it is told to, writes what it has, and removes what it made.
        Command::Run(options) => return remote::run(&options, &out).await,
        Command::Bench(args) => until_told_to_end(bench(args)).await?,
        Command::Growth(args) => until_told_to_end(growth(args)).await?,
    };
    finish(report, &out)
}

/// Drops the work when somebody ends it, so that nothing it started is left running.
async fn until_told_to_end<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        why = process::told_to_end() => Err(anyhow::anyhow!(why)),
    }
}

async fn bench(args: Bench) -> anyhow::Result<report::Report> {
    let options = bench::Options {
        setup: args.private.setup(),
        baseline: Some(args.baseline).filter(|program| program.exists()),
        seed: args.private.seed,
        bots: args.bots,
        rounds: args.measuring.rounds,
        seconds: args.measuring.seconds,
        only: args.only,
    };
    let _host = args.early_writeback.then(host::EarlyWriteback::set).transpose().unwrap_or_else(|error| {
        eprintln!("this machine's writeback stays as it is, {}: {error}", host::writeback());
        None
    });
    let mut report = bench::run(&options).await?;
    report.settings(bench::describe(&options));
    Ok(report)
}

async fn growth(args: Growth) -> anyhow::Result<report::Report> {
    let options = growth::Options {
        // The log's files of so long a history would be written for as long as it took to make.
        setup: authority::Setup { log: false, ..args.private.setup() },
        seed: args.private.seed,
        tokens: args.tokens,
        events: args.events,
        live_bots: args.live_bots,
        rounds: args.measuring.rounds,
        seconds: args.measuring.seconds,
    };
    let mut report = growth::run(&options).await?;
    report.settings(growth::describe(&options));
    Ok(report)
}

fn finish(mut report: report::Report, directory: &std::path::Path) -> anyhow::Result<()> {
    report.write(directory)?;
    println!("{}\nin {}: report.json, report.html, plots", report.table(), directory.display());
    Ok(())
}
