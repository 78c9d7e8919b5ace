//! `joind init` and `joind migrate`.

use std::path::Path;

use anyhow::Context as _;
use join_credential::{Issuer, Role};
use join_domain::id::Name;

use crate::{administrators, cluster, config::Config, entropy::SystemEntropy};

pub(super) async fn run(config: &Config, identity: &Path) -> anyhow::Result<u8> {
    let master = config.master_key()?;
    if config.database.owner_url.is_some() {
        migrate(config).await?;
    }
    let ledger = super::ledger(config).await;
    let ledger = match &config.database.owner_url {
        Some(_) => ledger?,
        None => ledger.context("database.owner_url is not set, so no schema was made here")?,
    };
    cluster::create(&ledger, &config.cluster_name, &master).await?;
    let keys = cluster::open_keys(&ledger, &master).await?;
    let administrator: Name = "admin".parse().context("the first administrator's name")?;
    administrators::issue(
        &ledger,
        &Issuer::new(&keys)?,
        &SystemEntropy::default(),
        &administrator,
        Role::Admin,
        identity,
    )
    .await?;
    ledger.close().await;
    println!(
        "cluster {} is created; the first administrator's identity is in {}",
        config.cluster_name,
        identity.display()
    );
    Ok(0)
}

pub(super) async fn migrate(config: &Config) -> anyhow::Result<u8> {
    join_ledger::migrate(&super::owner(config)?).await?;
    println!("the schema is that of this version");
    Ok(0)
}
