//! Runs every case and says what came of it.

use std::{process::ExitCode, time::Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use join_faults::{
    host::Client,
    kinds, process,
    report::{KindReport, Selection},
};

/// Interrupts every step of every kind of join, and proves that the bot joins all the same.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Only cases whose name contains this, such as `network/grpc/renewal`
    #[arg(default_value = "")]
    containing: String,
    /// At most so many cases of each kind, spread evenly
    #[arg(long, value_name = "N")]
    at_most: Option<usize>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Arguments { containing, at_most } = Arguments::parse();
    process::unless_ended(run(&Selection { containing, at_most })).await
}

async fn run(selection: &Selection) -> Result<ExitCode> {
    let began = Instant::now();
    let lengths = kinds::lengths(&[Client::Grpc, Client::Json]).await?;
    let mut reports: Vec<KindReport> = Vec::new();
    let mut add = |report: KindReport| {
        println!("{report}");
        reports.push(report);
    };
    add(kinds::network::run(selection, &lengths).await?);
    add(kinds::kill_service::run(selection, &lengths).await?);
    add(kinds::kill_agent::run(selection, &lengths).await?);
    add(kinds::kill_database::run(selection, &lengths).await?);
    add(kinds::storage::run(selection).await?);
    add(kinds::clones::run(selection).await?);
    let cases: usize = reports.iter().map(|report| report.cases).sum();
    ensure!(
        reports.iter().any(|report| report.cases + report.not_reached > 0),
        "no case has a name that contains `{}`: names are like network/grpc/renewal",
        selection.containing
    );
    let failures: Vec<String> = reports.iter().flat_map(|report| report.verdict(selection)).collect();
    println!("{cases} cases in {} s, {} failed", began.elapsed().as_secs(), failures.len());
    for failure in &failures {
        println!("FAILED {failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
