//! `joind serve`: production.

use std::{pin::pin, time::Duration};

use join_ledger::{Ledger, LedgerError};

use super::terminal::line;
use crate::{
    config::Config,
    entropy::Entropy,
    logbook::Pace,
    service::{self, Node, Parts},
};

/// How long one try to reach the database may take.
const TRY: Duration = Duration::from_secs(20);
/// The longest pauses between tries, the first and the last; each is twice the one before.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

pub(super) async fn run(config: Config) -> anyhow::Result<u8> {
    // One for the whole time: what is told between two of them would be lost.
    let mut interrupted = pin!(super::interrupted()?);
    let node = tokio::select! {
        () = &mut interrupted => {
            tracing::info!("stopping before it was ready");
            return Ok(0);
        }
        node = start(config) => node?,
    };
    line(format_args!("ready {} ca-pin={}", node.address, super::ca_pin(&node)?))?;
    tracing::info!("ready on {}, metrics on {}", node.address, node.metrics_address);
    interrupted.await;
    tracing::info!("stopping");
    node.stop().await;
    Ok(0)
}

async fn start(config: Config) -> anyhow::Result<Node> {
    let master = config.master_key.open().await?;
    let ledger = reached(&config).await?;
    service::start(Parts {
        ledger,
        master,
        cluster: Some(config.cluster_name),
        listen: config.listen,
        metrics_listen: config.metrics_listen,
        names: config.public_addresses,
        log_directory: config.log.directory,
        log_origin: config.log.origin,
        witnesses: config.log.witnesses,
        log_pace: Pace::default(),
        limits: config.limits,
    })
    .await
}

/// The ledger, however long its database is away. Nothing is served meanwhile: the keys, that of the listener's
/// certificate among them, are in the database.
///
/// # Errors
/// What does not pass by itself: a database that lets nobody in, or is not fit.
async fn reached(config: &Config) -> anyhow::Result<Ledger> {
    let entropy = Entropy::default();
    let mut longest = PAUSE.0;
    loop {
        let why = match tokio::time::timeout(TRY, super::ledger(config)).await {
            Ok(Err(error)) if error.downcast_ref().is_some_and(LedgerError::is_outage) => error.to_string(),
            Ok(ended) => return ended,
            Err(_) => format!("it says nothing for {} s", TRY.as_secs()),
        };
        // Nodes that lost the same database do not come back as one.
        let pause = longest.mul_f64(0.5 + entropy.fraction() / 2.0);
        tracing::warn!("waiting for the database: {why}; trying again in {:.1} s", pause.as_secs_f64());
        tokio::time::sleep(pause).await;
        longest = longest.saturating_mul(2).min(PAUSE.1);
    }
}
