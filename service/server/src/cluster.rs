//! The cluster: its creation, its keys and their phases.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use chrono::TimeDelta;
use join_credential::{AuthorityKeys, KeysError, MasterKey, Phase, Purpose, SealedKey};
use join_domain::{
    Timestamp,
    envelope::{Origin, StreamId},
    event::{AuthorityKeyMoved, ClusterCreated, Event, Nothing},
    id::Name,
    key::PublicKey,
};
use join_ledger::{Append, Change, KeyChanges, Ledger, StoredKey, StreamAppend};

/// How long a key is on standby at least. Every node that can reach the database has opened it by then; one that had not
/// would take what the key signs for foreign.
pub const STANDBY: TimeDelta = TimeDelta::minutes(1);

/// Creates the cluster, once: [`name`] tells whether there is one.
///
/// # Errors
/// When the database holds a cluster already.
pub async fn create(ledger: &Ledger, cluster: &Name, master: &MasterKey) -> anyhow::Result<()> {
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
        .context("the cluster could not be recorded: is there one already, or did somebody else create it just now?")?;
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

/// The authority's keys, opened.
///
/// # Errors
/// When there is no cluster yet, or the master key does not open them.
pub async fn open_keys(ledger: &Ledger, master: &MasterKey) -> anyhow::Result<AuthorityKeys> {
    let cluster = name(ledger).await?.context("there is no cluster yet")?;
    Ok(AuthorityKeys::open(cluster, keys(ledger).await?, master)?)
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
    let now = ledger.now();
    let stored = ledger.load(StreamId::CLUSTER).await?.context("there is no cluster yet")?;
    let mut keys = open_keys(ledger, master).await?;
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
    let stored = ledger.load(StreamId::CLUSTER).await?.context("there is no cluster yet")?;
    let keys = open_keys(ledger, master).await?;
    let change =
        Change { events: vec![Event::MasterKeyChanged(Nothing {})], decided_at: ledger.now(), origin: system() };
    let changes = KeyChanges { put: keys.seal(next).into_iter().map(to_row).collect(), forget: Vec::new() };
    let append = Append::from(StreamAppend::following(&stored, change)).with_keys(changes);
    ledger.append(append).await.context("the keys could not be stored: did somebody else move keys just now?")?;
    Ok(())
}

/// Who acts where no client and no administrator does: a node, or its command line.
pub(crate) fn system() -> Origin {
    Origin { actor: "system".to_owned(), ..Origin::default() }
}

fn to_row(key: SealedKey) -> StoredKey {
    StoredKey {
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

fn from_row(row: StoredKey) -> anyhow::Result<SealedKey> {
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
