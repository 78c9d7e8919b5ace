//! The cluster: its creation, its keys, the identities of its administrators.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, bail};
use chrono::TimeDelta;
use join_credential::{
    AuthorityKeys, Issuer, MasterKey, Purpose, Role, SealedKey, Serial, administrator::AdministratorGrant,
};
use join_domain::{
    envelope::{Origin, StreamId, StreamKind},
    event::{AdministratorIssued, ClusterCreated, Event},
    id::Name,
    key::PublicKey,
};
use join_ledger::{Append, AuthorityKey as AuthorityKeyRow, Change, Ledger, StreamAppend};

use crate::entropy::Entropy;

/// How long an administrator's identity lives.
const ADMINISTRATOR_LIFE: TimeDelta = TimeDelta::days(365);
/// How far before its issue it begins, for clocks that are behind.
const BACKDATED: TimeDelta = TimeDelta::minutes(2);

/// Creates the cluster, once.
///
/// # Errors
/// When the database holds a cluster already.
pub async fn create(ledger: &Ledger, cluster: &Name, master: &MasterKey) -> anyhow::Result<()> {
    if let Some(existing) = name(ledger).await? {
        bail!("the database holds cluster `{existing}` already: it is created once");
    }
    let keys = AuthorityKeys::generate(cluster.clone(), ledger.now());
    let rows = keys.seal(master).into_iter().map(to_row).collect::<Vec<_>>();
    let ids: BTreeMap<String, String> = Purpose::ALL
        .iter()
        .map(|purpose| (purpose.as_str().to_owned(), keys.active(*purpose).kid().to_owned()))
        .collect();
    let created = Event::ClusterCreated(ClusterCreated { name: cluster.clone(), keys: ids });
    let change = Change { events: vec![created], decided_at: ledger.now(), origin: system() };
    ledger
        .append(Append::from(StreamAppend::begin(StreamId::CLUSTER, change)).with_keys(rows))
        .await
        .context("the cluster could not be recorded: was it created at the same moment by somebody else?")?;
    Ok(())
}

/// The name of the database's cluster, from its first event.
///
/// # Errors
/// When the database can't be read.
pub async fn name(ledger: &Ledger) -> anyhow::Result<Option<Name>> {
    let first = ledger.stream(StreamId::CLUSTER, 1, 1).await?;
    let first = first.entries.first().and_then(|entry| entry.events.first());
    Ok(match first {
        Some(Event::ClusterCreated(created)) => Some(created.name.clone()),
        _ => None,
    })
}

/// The log's name in checkpoints, when the configuration gives it none.
pub fn default_origin(cluster: &Name) -> String {
    format!("{cluster}/log")
}

/// The authority's keys as they are stored.
///
/// # Errors
/// When the database can't be read, or a row is damaged.
pub async fn keys(ledger: &Ledger) -> anyhow::Result<Vec<SealedKey>> {
    ledger.authority_keys().await?.into_iter().map(from_row).collect()
}

/// Issues an administrator's identity into a directory, and records it.
///
/// # Errors
/// When the directory holds one already, or can't be written.
pub async fn issue_administrator(
    ledger: &Ledger,
    issuer: &Issuer,
    entropy: &dyn Entropy,
    administrator: &Name,
    role: Role,
    directory: &Path,
) -> anyhow::Result<()> {
    let now = ledger.now();
    let serial = Serial::from_random(entropy.bytes());
    let not_after = now + ADMINISTRATOR_LIFE;
    let grant = AdministratorGrant { name: administrator, role, serial, not_before: now - BACKDATED, not_after };
    let identity = issuer.generate_administrator(&grant)?;
    identity.write(directory)?;
    let issued = Event::AdministratorIssued(AdministratorIssued {
        name: administrator.to_string(),
        role: role.to_string(),
        serial: serial.to_string(),
        not_after,
    });
    let stream = StreamId { kind: StreamKind::Administrator, id: entropy.uuid() };
    let change = Change { events: vec![issued], decided_at: now, origin: system() };
    ledger.append(StreamAppend::begin(stream, change)).await.context("the identity could not be recorded")?;
    Ok(())
}

fn system() -> Origin {
    Origin { actor: "system".to_owned(), ..Origin::default() }
}

fn to_row(key: SealedKey) -> AuthorityKeyRow {
    AuthorityKeyRow {
        kid: key.kid,
        purpose: key.purpose.as_str().to_owned(),
        phase: key.phase.as_str().to_owned(),
        public: key.public.map(|key| key.to_authorized_key().into_bytes()).unwrap_or_default(),
        certificate: key.certificate,
        sealed: key.sealed,
        created_at: key.created_at,
    }
}

fn from_row(row: AuthorityKeyRow) -> anyhow::Result<SealedKey> {
    let public = match row.public.as_slice() {
        [] => None,
        line => Some(PublicKey::from_authorized_key(line).with_context(|| format!("key `{}` is damaged", row.kid))?),
    };
    Ok(SealedKey {
        public,
        purpose: row.purpose.parse()?,
        phase: row.phase.parse()?,
        kid: row.kid,
        certificate: row.certificate,
        sealed: row.sealed,
        created_at: row.created_at,
        // Keys are not moved between phases yet, so they are in theirs since they were made.
        phase_since: row.created_at,
    })
}
