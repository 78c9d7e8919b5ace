//! `joind init` and `joind migrate`.

use std::path::Path;

use anyhow::{Context as _, bail};
use join_credential::{Role, administrator::AdministratorIdentity};
use join_domain::id::Name;
use join_ledger::Schema;

use super::terminal::line;
use crate::{administrators, cluster, config::Config};

/// Who can't use what an earlier command made.
const ANOTHER_IDENTITY: &str =
    "`joind admin issue -c FILE --role admin --name NAME --out DIR` makes an administrator's identity for it";

pub(super) async fn run(config: &Config, identity: &Path) -> anyhow::Result<u8> {
    let master = config.master_key.open().await?;
    if config.database.owner_url.is_some() {
        migrate(config).await?;
    }
    let ledger = super::ledger(config).await;
    let ledger = match &config.database.owner_url {
        Some(_) => ledger?,
        None => ledger.context("database.owner_url is not set, so no schema was made here")?,
    };
    if let Some(existing) = cluster::name(&ledger).await? {
        bail!("the database holds cluster `{existing}` already: it is created once; {ANOTHER_IDENTITY}");
    }
    // A cluster is for good, so nobody is to find out after that what could have been known before.
    AdministratorIdentity::prepare(identity)?;
    cluster::create(&ledger, &config.cluster_name, &master).await?;
    let name: Name = "admin".parse().context("the first administrator's name")?;
    let issued = administrators::issue(&ledger, &master, &name, Role::Admin, identity).await;
    issued.with_context(|| {
        format!("cluster {} is created, but has no administrator; {ANOTHER_IDENTITY}", config.cluster_name)
    })?;
    ledger.close().await;
    line(format_args!(
        "cluster {} is created; the first administrator's identity is in {}",
        config.cluster_name,
        identity.display()
    ))?;
    Ok(0)
}

pub(super) async fn migrate(config: &Config) -> anyhow::Result<u8> {
    line(match join_ledger::migrate(&super::owner(config)?).await? {
        Schema::Own => "the schema is that of this version",
        Schema::Newer => {
            "the schema is newer than this version: nothing is migrated, and nodes of this version serve with it"
        }
    })?;
    Ok(0)
}
