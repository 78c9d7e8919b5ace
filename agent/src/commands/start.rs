//! `joinbot start`

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use clap::{Args, Subcommand};
use join_agent::{
    Agent,
    advice::{Then, advice},
    clock::SystemClock,
    config::{Config, JoinUri, StorageConfig, process_environment},
    entropy::SystemEntropy,
    error::JoinError,
    health::Health,
    output::Identity,
    run::{self, Order},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing::{info, warn};

use super::terminal;

#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(crate) struct Start {
    /// The configuration file
    #[arg(short, long, required = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Join once and end; exit status 0 only when joined
    #[arg(long)]
    oneshot: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Start without a configuration file: one identity from a joining URI
    Identity(IdentityArgs),
}

#[derive(Debug, Args)]
struct IdentityArgs {
    /// tbot+auth+bound-keypair://TOKEN:SECRET@HOST:PORT?ca-pin=sha256:HEX, as `joinctl bots add` prints it
    #[arg(long, env = "JOINBOT_JOIN_URI", hide_env_values = true, value_name = "URI")]
    join_uri: String,
    /// Where the agent keeps its keys and state
    #[arg(long, value_name = "DIR")]
    storage: PathBuf,
    /// Where credentials are written for other programs
    #[arg(long, value_name = "DIR")]
    destination: PathBuf,
    /// How long certificates are asked for
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    certificate_ttl: Option<Duration>,
    /// How often credentials are renewed
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    renewal_interval: Option<Duration>,
    /// Join once and end; exit status 0 only when joined
    #[arg(long)]
    oneshot: bool,
}

impl Start {
    pub(crate) fn run(self, debug: bool) -> Result<ExitCode> {
        let config = match (self.what, self.config) {
            (Some(What::Identity(identity)), _) => identity.into_config()?,
            (None, Some(path)) => {
                let mut config = super::load_config(&path)?;
                config.oneshot |= self.oneshot;
                config.check_renewal().with_context(|| path.display().to_string())?;
                config
            }
            (None, None) => unreachable!("clap requires one of them"),
        };
        super::start_logging(debug || config.debug);
        for warning in &config.warnings {
            warn!("{warning}");
        }
        let storage = super::open_storage(&config.storage)?;
        let token = config.token.clone();
        let mut agent = Agent::new(config, storage, SystemClock, SystemEntropy);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        match runtime.block_on(join(&mut agent)) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(Failure::Join(error)) => {
                terminal::say(format_args!("error: {error}"));
                if let Some(advice) = advice(&error, token.as_str(), Then::Start) {
                    terminal::say(format_args!("what to do: {advice}"));
                }
                Ok(ExitCode::FAILURE)
            }
            Err(Failure::Other(error)) => Err(error),
        }
    }
}

impl IdentityArgs {
    fn into_config(self) -> Result<Config> {
        let uri: JoinUri = self.join_uri.parse()?;
        let mut config = Config::from_uri(uri, &process_environment)?;
        config.oneshot = self.oneshot;
        config.set_times(self.certificate_ttl, self.renewal_interval)?;
        config.check_renewal()?;
        config.set_places(StorageConfig::Directory(self.storage), vec![Identity::new(&self.destination)?])?;
        Ok(config)
    }
}

enum Failure {
    Join(JoinError),
    Other(anyhow::Error),
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        Self::Join(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

async fn join(agent: &mut Agent) -> Result<(), Failure> {
    if agent.config().oneshot {
        run::once(agent).await?;
        return Ok(());
    }
    let mut orders = orders().context("cannot listen to signals")?;
    let health = Health::new(SystemClock);
    if let Some(address) = agent.config().diag_addr {
        let address =
            health.clone().serve(address).await.with_context(|| format!("diag_addr: cannot listen on {address}"))?;
        info!("diagnostics on http://{address}");
    }
    let joined = run::daemon(agent, &health, &mut orders).await?;
    info!("stopped");
    if joined { Ok(()) } else { Err(anyhow!("stopped before it could join").into()) }
}

/// Signals, as orders.
fn orders() -> std::io::Result<mpsc::Receiver<Order>> {
    let (sender, orders) = mpsc::channel(4);
    for (kind, order) in [
        (SignalKind::terminate(), Order::Stop),
        (SignalKind::interrupt(), Order::Stop),
        (SignalKind::user_defined1(), Order::Renew),
        (SignalKind::hangup(), Order::Renew),
    ] {
        let mut signals = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if sender.send(order).await.is_err() {
                    break;
                }
            }
        });
    }
    Ok(orders)
}
