//! `joinload run`: one profile against an authority that runs already. It makes bots and tokens of its own there, by
//! the identity of an administrator, and leaves them.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{
    administration::Administrator,
    authority::roots,
    bench::{every_bot_once, recovering, renewing},
    ceremony::Transport,
    connection::Target,
    fleet::{Connections, Fleet},
    import::token_name,
    pace::{Load, Plan, Watched, drive},
    report::Report,
};

const KEPT: usize = 16;

/// What is done again and again.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Profile {
    /// Steady renewals, each over a new connection with the newest certificate.
    Renewals,
    /// Recoveries of a whole fleet, as after an outage.
    Recoveries,
    /// First joins by secret alone.
    Registrations,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The authority, such as `join.example.com:3025`.
    #[arg(long, value_name = "HOST:PORT")]
    addr: String,
    /// An identity with the role admin: the directory with ca.crt, tls.crt and tls.key.
    #[arg(long, value_name = "DIR")]
    identity: PathBuf,
    #[arg(long, value_enum, default_value = "renewals")]
    profile: Profile,
    #[arg(long, default_value_t = 1000)]
    bots: u64,
    /// Joins at once: a closed loop, for the peak.
    #[arg(long, default_value_t = 64, conflicts_with = "rate")]
    at_once: u64,
    /// Joins each second: an open loop, for latency.
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
    #[arg(long, value_enum, default_value = "grpc")]
    transport: Transport,
    /// How joins without a certificate are connected.
    #[arg(long, value_enum, default_value = "kept")]
    connections: Connections,
    /// Number of the first token: another run against the same authority needs others.
    #[arg(long, default_value_t = 0)]
    first: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new("run", options.seed);
    report.settings(json!({ "options": format!("{options:?}") }));
    let (host, _) = options.addr.rsplit_once(':').context("--addr is HOST:PORT")?;
    let address: SocketAddr = options.addr.to_socket_addrs()?.next().context("the host has no address")?;
    let target = || Target::new(address, host, &roots(&options.identity.join("ca.crt"))?);
    let administrator = Administrator::with_identity(&target()?, &options.identity).await?;
    let bot = format!("joinload-{}", options.first);
    administrator.create_bot(&bot).await.context("were these tokens made before? Give another --first")?;
    let secret = |token: &str| format!("secret-of-{token}-{}", options.seed);
    let numbers = options.first..options.first + options.bots;
    for number in numbers.clone() {
        let token = token_name(number);
        administrator.create_token(&token, &bot, &secret(&token)).await?;
    }
    let fleet = Fleet::preregistered(target()?, options.seed, numbers)?;
    let mut fleet = fleet.with_secrets(secret).over(options.transport);
    fleet.keep_connections(KEPT).await?;
    let fleet = Arc::new(fleet);
    let watched = Watched { joind: None, postgres: None };
    let (joined, refused) = every_bot_once("first joins by secret", &watched, &fleet).await?;
    ensure!(joined == options.bots && refused.is_empty(), "registrations were refused: {refused:?}");
    let plan = Plan {
        load: options.rate.map_or(Load::Closed(options.at_once), Load::Open),
        warm_up: Duration::from_secs(options.warm_up),
        measured: Duration::from_secs(options.seconds.max(1)),
    };
    let done = match options.profile {
        Profile::Registrations => None,
        Profile::Renewals => Some(drive("renewals", plan, &watched, renewing(&fleet)).await?),
        Profile::Recoveries => {
            Some(drive("recoveries", plan, &watched, recovering(&fleet, options.connections)).await?)
        }
    };
    done.into_iter().for_each(|done| report.add(done));
    check(&administrator, &fleet).await?;
    report.checked(&format!("the authority knows each join of {} bots", options.bots));
    Ok(report)
}

/// Recovery counts and generations are those that the bots counted.
async fn check(administrator: &Administrator, fleet: &Fleet) -> anyhow::Result<()> {
    for bot in &fleet.bots {
        let state = bot.state.lock().await;
        let token = administrator.get(&format!("/v1/tokens/{}", bot.token)).await?;
        let status = &token["status"]["bound_keypair"];
        let recoveries = status["recovery_count"].as_u64().unwrap_or_default();
        ensure!(recoveries == state.recoveries, "token {}: {recoveries} recoveries are known", bot.token);
        let (generation, expected) = (status["generation"].as_u64().unwrap_or_default(), state.generation);
        ensure!(generation == expected, "token {}: generation {generation}, not {expected}", bot.token);
    }
    Ok(())
}
