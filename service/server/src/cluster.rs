//! The cluster: its creation, its keys and their phases, the identities of its administrators.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context as _, bail};
use chrono::TimeDelta;
use join_credential::{
    AuthorityKeys, Issuer, KeysError, MasterKey, Phase, Purpose, Role, SealedKey, Serial,
    administrator::{AdministratorGrant, AdministratorIdentity},
};
use join_domain::{
    Timestamp,
    envelope::{Origin, StreamId, StreamKind},
    event::{AdministratorIssued, AdministratorRevoked, AuthorityKeyMoved, ClusterCreated, Event, Nothing},
    id::Name,
    key::PublicKey,
    state::AdministratorState,
};
use join_ledger::{Append, AuthorityKey as AuthorityKeyRow, Change, KeyChanges, Ledger, ListFilter, StreamAppend};
use uuid::Uuid;

use crate::entropy::Entropy;

/// How long an administrator's identity lives.
pub const ADMINISTRATOR_LIFE: TimeDelta = TimeDelta::days(365);
/// How long a key is on standby at least. Every node that can reach the database has opened it by then; one that had not
/// would take what the key signs for foreign.
pub const STANDBY: TimeDelta = TimeDelta::minutes(1);
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
    let rows = KeyChanges { put: keys.seal(master).into_iter().map(to_row).collect(), forget: Vec::new() };
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
    let issued = Event::AdministratorIssued(AdministratorIssued {
        name: administrator.to_string(),
        role: role.to_string(),
        serial: serial.to_string(),
        not_after,
    });
    let change = Change { events: vec![issued], decided_at: now, origin: system() };
    let append = StreamAppend::begin(administrator_stream(&serial), change);
    // One that was written and is not on record would look like an identity, and be none.
    AdministratorIdentity::prepare(directory)?;
    ledger.append(append).await.context("the identity could not be recorded")?;
    identity.write(directory)?;
    Ok(())
}

/// The stream of an administrator's identity, by the serial number of its certificate.
pub fn administrator_stream(serial: &Serial) -> StreamId {
    StreamId { kind: StreamKind::Administrator, id: Uuid::from_bytes(*serial.as_bytes()) }
}

/// The identities that were issued and not revoked, expired ones too.
///
/// # Errors
/// When the database can't be read.
pub async fn administrators(ledger: &Ledger) -> anyhow::Result<Vec<AdministratorState>> {
    let mut filter = ListFilter { limit: 1000, ..ListFilter::default() };
    let mut found = Vec::new();
    loop {
        let page = ledger.list(StreamKind::Administrator, &filter).await?;
        found.extend(page.streams.iter().filter_map(|stored| stored.administrator().cloned()));
        match page.next {
            Some(next) => filter.after = Some(next),
            None => return Ok(found),
        }
    }
}

/// Revokes an identity, at once and on every node.
///
/// # Errors
/// When there is none with this serial number, or it was revoked before.
pub async fn revoke_administrator(ledger: &Ledger, serial: &Serial, reason: &str) -> anyhow::Result<()> {
    let stored = ledger.load(administrator_stream(serial)).await?;
    let live = stored.filter(|stored| stored.administrator().is_some_and(|identity| identity.live));
    let stored = live.with_context(|| format!("there is no identity {serial}, or it was revoked before"))?;
    let revoked = Event::AdministratorRevoked(AdministratorRevoked { reason: reason.to_owned() });
    let change = Change { events: vec![revoked], decided_at: ledger.now(), origin: system() };
    let append = ledger.append(StreamAppend::following(&stored, change)).await;
    append.with_context(|| format!("the revocation of {serial} could not be recorded"))?;
    Ok(())
}

/// Lets `act` move keys from phase to phase, and records what it did together with the keys.
///
/// # Errors
/// What `act` says, or that somebody else moved keys at the same moment.
pub async fn move_keys(
    ledger: &Ledger,
    master: &MasterKey,
    reason: Option<&str>,
    act: impl FnOnce(&mut AuthorityKeys, Timestamp) -> Result<(), KeysError>,
) -> anyhow::Result<Vec<AuthorityKeyMoved>> {
    let (cluster, now) = (name(ledger).await?.context("there is no cluster yet")?, ledger.now());
    let stored = ledger.load(StreamId::CLUSTER).await?.context("there is no cluster yet")?;
    let mut keys = AuthorityKeys::open(cluster, self::keys(ledger).await?, master)?;
    let before: BTreeMap<String, (Purpose, Phase)> =
        keys.iter().map(|key| (key.kid().to_owned(), (key.purpose(), key.phase()))).collect();
    act(&mut keys, now)?;
    let moved = |kid: &str, purpose: Purpose, phase: &str| AuthorityKeyMoved {
        kid: kid.to_owned(),
        purpose: purpose.as_str().to_owned(),
        phase: phase.to_owned(),
        reason: reason.map(str::to_owned),
    };
    let changed = keys.iter().filter(|key| before.get(key.kid()) != Some(&(key.purpose(), key.phase())));
    let mut told: Vec<_> = changed.map(|key| moved(key.kid(), key.purpose(), key.phase().as_str())).collect();
    let put: BTreeSet<String> = told.iter().map(|moved| moved.kid.clone()).collect();
    let kept: BTreeSet<&str> = keys.iter().map(|key| key.kid()).collect();
    let gone = before.iter().filter(|(kid, _)| !kept.contains(kid.as_str()));
    let gone: Vec<_> = gone.map(|(kid, (purpose, _))| moved(kid, *purpose, "forgotten")).collect();
    let changes = KeyChanges {
        put: keys.seal(master).into_iter().filter(|key| put.contains(&key.kid)).map(to_row).collect(),
        forget: gone.iter().map(|moved| moved.kid.clone()).collect(),
    };
    told.extend(gone);
    let events = told.iter().cloned().map(Event::AuthorityKeyMoved).collect();
    let change = Change { events, decided_at: now, origin: system() };
    let append = Append::from(StreamAppend::following(&stored, change)).with_keys(changes);
    ledger.append(append).await.context("the keys could not be moved: did somebody else at the same moment?")?;
    Ok(told)
}

/// Seals all keys under another master key.
///
/// # Errors
/// When the present one does not open them, or they can't be stored.
pub async fn change_master_key(ledger: &Ledger, master: &MasterKey, next: &MasterKey) -> anyhow::Result<()> {
    let cluster = name(ledger).await?.context("there is no cluster yet")?;
    let stored = ledger.load(StreamId::CLUSTER).await?.context("there is no cluster yet")?;
    let keys = AuthorityKeys::open(cluster, self::keys(ledger).await?, master)?;
    let change =
        Change { events: vec![Event::MasterKeyChanged(Nothing {})], decided_at: ledger.now(), origin: system() };
    let changes = KeyChanges { put: keys.seal(next).into_iter().map(to_row).collect(), forget: Vec::new() };
    let append = Append::from(StreamAppend::following(&stored, change)).with_keys(changes);
    ledger.append(append).await.context("the keys could not be stored: did somebody else move keys just now?")?;
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
        phase_since: key.phase_since,
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
        phase_since: row.phase_since,
    })
}
