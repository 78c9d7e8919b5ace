//! `joind serve`: production.

use crate::{
    config::Config,
    service::{self, Parts},
};

pub(super) async fn run(config: Config) -> anyhow::Result<u8> {
    let node = service::start(Parts {
        ledger: super::ledger(&config).await?,
        master: config.master_key()?,
        cluster: Some(config.cluster_name),
        listen: config.listen,
        metrics_listen: config.metrics_listen,
        names: config.public_addresses,
        log_directory: config.log.directory,
        log_origin: config.log.origin,
        witnesses: config.log.witnesses,
        limits: config.limits,
        entropy: None,
    })
    .await?;
    println!("ready {} ca-pin={}", node.address, super::ca_pin(&node)?);
    tracing::info!("ready on {}, metrics on {}", node.address, node.metrics_address);
    super::interrupted().await?;
    tracing::info!("stopping");
    node.stop().await;
    Ok(0)
}
