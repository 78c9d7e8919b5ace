//! `joind admin issue`: an identity for joinctl, made on the server's host.

use std::path::Path;

use join_credential::{AuthorityKeys, Issuer, Role};
use join_domain::id::Name;

use super::Place;
use crate::{cluster, entropy::SystemEntropy};

pub(super) async fn issue(place: &Place, role: Role, name: &Name, out: &Path) -> anyhow::Result<u8> {
    let (ledger, master) = place.ledger().await?;
    let cluster = cluster::name(&ledger).await?.ok_or_else(|| anyhow::anyhow!("there is no cluster yet"))?;
    let keys = AuthorityKeys::open(cluster, cluster::keys(&ledger).await?, &master)?;
    let issuer = Issuer::new(&keys)?;
    cluster::issue_administrator(&ledger, &issuer, &SystemEntropy::default(), name, role, out).await?;
    ledger.close().await;
    println!("the identity of {role} {name} is in {}", out.display());
    Ok(0)
}
