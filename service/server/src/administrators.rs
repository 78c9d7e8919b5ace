//! The identities of administrators: issued, listed, revoked.

use std::path::Path;

use anyhow::{Context as _, ensure};
use chrono::TimeDelta;
use join_credential::{
    Issuer, MasterKey, Role, Serial,
    administrator::{AdministratorGrant, AdministratorIdentity},
};
use join_domain::{
    envelope::{StreamId, StreamKind},
    event::{AdministratorIssued, AdministratorRevoked, Event},
    id::Name,
    resource::Labels,
    state::AdministratorState,
};
use join_ledger::{Change, Ledger, Stored, StreamAppend};
use uuid::Uuid;

use crate::{
    cluster::{self, system},
    entropy::Entropy,
};

/// How long an identity lives.
pub const LIFE: TimeDelta = TimeDelta::days(365);
/// How far before its issue it begins, for clocks that are behind.
const BACKDATED: TimeDelta = TimeDelta::minutes(2);

/// Issues an administrator's identity into a directory, with the keys that the cluster has now, and records it.
///
/// # Errors
/// When the master key is another cluster's, or the directory holds an identity already or can't be written.
pub async fn issue(
    ledger: &Ledger,
    master: &MasterKey,
    administrator: &Name,
    role: Role,
    directory: &Path,
) -> anyhow::Result<()> {
    let issuer = Issuer::new(&cluster::open_keys(ledger, master).await?)?;
    let now = ledger.now();
    let serial = Serial::from_random(Entropy::default().bytes());
    let not_after = now + LIFE;
    let grant = AdministratorGrant { name: administrator, role, serial, not_before: now - BACKDATED, not_after };
    let identity = issuer.generate_administrator(&grant)?;
    let issued = Event::AdministratorIssued(AdministratorIssued {
        name: administrator.to_string(),
        role: role.to_string(),
        serial: serial.to_string(),
        not_after,
    });
    let change = Change { events: vec![issued], decided_at: now, origin: system() };
    let append = StreamAppend::begin(stream(&serial), change);
    // One that was written and is not on record would look like an identity, and be none.
    AdministratorIdentity::prepare(directory)?;
    ledger.append(append).await.context("the identity could not be recorded")?;
    identity.write(directory)?;
    Ok(())
}

/// The stream of an administrator's identity, by the serial number of its certificate.
pub fn stream(serial: &Serial) -> StreamId {
    StreamId { kind: StreamKind::Administrator, id: Uuid::from_bytes(*serial.as_bytes()) }
}

/// The identities that were issued and not revoked, expired ones too.
///
/// # Errors
/// When the database can't be read.
pub async fn list(ledger: &Ledger) -> anyhow::Result<Vec<AdministratorState>> {
    let everyone = Labels::new();
    let identity = |stored: &Stored| stored.administrator().cloned();
    Ok(ledger.list_all(StreamKind::Administrator, everyone, None, identity).await?)
}

/// Every identity that was ever issued, the revoked ones too.
///
/// # Errors
/// When the database can't be read.
pub async fn list_ever(ledger: &Ledger) -> anyhow::Result<Vec<AdministratorState>> {
    let everyone = ledger.load_all(&ledger.streams_ever(StreamKind::Administrator).await?).await?;
    Ok(everyone.iter().filter_map(Stored::administrator).cloned().collect())
}

/// Revokes an identity, at once and on every node.
///
/// # Errors
/// When there is none with this serial number, or it was revoked before.
pub async fn revoke(ledger: &Ledger, serial: &Serial, reason: &str) -> anyhow::Result<()> {
    let stored = ledger.load(stream(serial)).await?;
    let stored = stored.with_context(|| format!("there is no identity {serial}"))?;
    let is_live = stored.administrator().is_some_and(|identity| identity.live);
    ensure!(is_live, "identity {serial} was revoked before");
    let revoked = Event::AdministratorRevoked(AdministratorRevoked { reason: reason.to_owned() });
    let change = Change { events: vec![revoked], decided_at: ledger.now(), origin: system() };
    let append = ledger.append(StreamAppend::following(&stored, change)).await;
    append.with_context(|| format!("the revocation of {serial} could not be recorded"))?;
    Ok(())
}
