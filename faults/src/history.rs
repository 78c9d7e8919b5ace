//! What the ledger says of one token, and that it is as if the join had happened once.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use join_domain::{
    Timestamp,
    envelope::Entry,
    event::{Event, JoinAccepted},
    resource::LockTarget,
    state::{Namespace, TokenState},
};
use join_ledger::LedgerError;
use serde::Deserialize;

use crate::{
    host::{Disk, Host},
    scenario::Scenario,
    world::World,
};

/// How often, and how long apart, a database that was just killed is asked.
const ASK: (u32, Duration) = (100, Duration::from_millis(50));

/// A token and everything that happened to it.
pub struct History {
    /// The token as the guard row has it.
    pub token: TokenState,
    /// Its entries, oldest first.
    pub entries: Vec<Entry>,
    /// Locks on it.
    pub locks: usize,
}

impl History {
    /// Reads it, and makes sure that the guard row is what its entries fold to.
    ///
    /// # Errors
    /// When it is not, or the database does not come back.
    pub async fn read(world: &World, name: &str) -> Result<Self> {
        once_back(async || Self::read_once(world, name).await).await
    }

    async fn read_once(world: &World, name: &str) -> Result<Self> {
        let ledger = &world.ledger;
        let stored = ledger.find(Namespace::TokenName, name).await?.context("the token is gone")?;
        let token = stored.token().context("it is no token")?.clone();
        let mut entries = Vec::new();
        ledger
            .replay(stored.stream, |entry| {
                entries.push(entry);
                Ok::<_, LedgerError>(())
            })
            .await?;
        let folded = ledger.state_at(stored.stream, Timestamp::MAX_UTC).await?.context("the token has no entries")?;
        // An entry that came in between is no difference: whoever reads while something goes on reads again.
        ensure!(
            folded.version != stored.version || folded.state == stored.state,
            "the guard row of {name} is not the fold of its entries"
        );
        let locks = ledger.locks_on(&[LockTarget::JoinToken(name.parse()?)]).await?.len();
        Ok(Self { token, entries, locks })
    }

    /// Everything that happened, with its entry.
    pub fn events(&self) -> impl Iterator<Item = (&Entry, &Event)> {
        self.entries.iter().flat_map(|entry| entry.events.iter().map(move |event| (entry, event)))
    }

    /// Accepted joins, with their entries.
    pub fn accepted(&self) -> impl Iterator<Item = (&Entry, &JoinAccepted)> {
        self.events().filter_map(|(entry, event)| match event {
            Event::JoinAccepted(join) => Some((entry, &**join)),
            _ => None,
        })
    }

    fn count(&self, kind: &str) -> usize {
        self.events().filter(|(_, event)| event.kind().0 == kind).count()
    }

    fn last(&self, kind: &str) -> Option<Timestamp> {
        self.events().filter(|(_, event)| event.kind().0 == kind).map(|(entry, _)| entry.decided_at).last()
    }

    fn generation(&self) -> u64 {
        self.token.latest().map_or(0, |latest| latest.join.generation)
    }

    /// How often a recorded answer was given again.
    pub fn resumed(&self) -> usize {
        self.count("join.resumed")
    }

    /// Whether a join was accepted since `before`.
    pub fn has_joined_since(&self, before: &Self) -> bool {
        self.accepted().count() > before.accepted().count()
    }
}

/// Asks the database until it is there again: one whose process was killed ends all connections a moment later.
///
/// # Errors
/// Those of the question, or that the database does not come back.
pub async fn once_back<T>(ask: impl AsyncFn() -> Result<T>) -> Result<T> {
    let is_away = |error: &LedgerError| matches!(error, LedgerError::Unavailable(_));
    let mut asked = 0;
    loop {
        match ask().await {
            Err(error) if asked < ASK.0 && error.downcast_ref().is_some_and(is_away) => asked += 1,
            answered => return answered,
        }
        tokio::time::sleep(ASK.1).await;
    }
}

/// The bot has joined, and it is as if the scenario's join had happened once, and `renewals` ordinary ones after it.
///
/// # Errors
/// Says what is otherwise.
pub async fn happened_once(
    world: &World,
    host: &Host,
    scenario: Scenario,
    before: &History,
    renewals: usize,
) -> Result<History> {
    let after = History::read(world, &host.name).await?;
    let (was, is) = (&before.token, &after.token);
    ensure!(after.locks == 0, "the token is locked");

    let joins = after.accepted().count() - before.accepted().count();
    ensure!(joins == 1 + renewals, "{joins} joins were accepted, {renewals} of them meant as renewals");
    let recoveries = was.recovery_count + u32::from(scenario.costs_recovery());
    ensure!(is.recovery_count == recoveries, "recoveries: {} instead of {recoveries}", is.recovery_count);
    let generation = if scenario.costs_recovery() { 1 } else { before.generation() + 1 } + renewals as u64;
    ensure!(after.generation() == generation, "generation {} instead of {generation}", after.generation());
    let rotations = after.count("keypair.rotated") - before.count("keypair.rotated");
    ensure!(rotations == usize::from(scenario.rotates()), "the key was rotated {rotations} times");
    ensure!(is.last_rotated_at == after.last("keypair.rotated"), "last_rotated_at: {:?}", is.last_rotated_at);
    ensure!(is.last_recovered_at == after.last("recovery.consumed"), "last_recovered_at: {:?}", is.last_recovered_at);
    ensure!(is.secret.is_none(), "the registration secret can still be used");

    holds_what_counts(host, is)?;
    holds_nothing_half(host)?;
    Ok(after)
}

/// The host holds the bound key, the newest certificate and the newest join state, and nothing is pending.
fn holds_what_counts(host: &Host, token: &TokenState) -> Result<()> {
    #[derive(Deserialize)]
    struct Claims {
        recovery_sequence: u32,
        bot_instance_id: String,
    }

    let state = host.state()?;
    ensure!(state.pending.is_none(), "an attempt is still pending");
    let binding = token.binding.as_ref().context("no key is bound")?;
    let latest = token.latest().context("no join was accepted")?;
    let keys: Vec<_> = state.keys.iter().map(|key| key.public()).collect();
    ensure!(keys == [&binding.key], "the host holds other keys than the bound one");
    let accepted = state.accepted.context("the host holds no result")?;
    ensure!(accepted.bound_key == binding.key, "the result names another key than the bound one");
    let facts = accepted.credentials.facts().context("the stored certificate does not read")?;
    ensure!(facts.serial == latest.join.serial, "certificate {} instead of {}", facts.serial, latest.join.serial);
    ensure!(facts.generation == Some(latest.join.generation), "generation in the certificate: {:?}", facts.generation);
    let payload = accepted.join_state.split('.').nth(1).context("the join state is no JWT")?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?;
    ensure!(claims.recovery_sequence == token.recovery_count, "the join state is outdated");
    ensure!(claims.bot_instance_id == latest.join.instance.to_string(), "the join state is of another instance");
    Ok(())
}

/// No file is left of a write that was broken off.
fn holds_nothing_half(host: &Host) -> Result<()> {
    let Disk::Directory(path) = &host.disk else { return Ok(()) };
    let mut files: Vec<String> = std::fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    files.sort();
    ensure!(files == ["lock", "state.json", "tlscert"], "the storage holds {files:?}");
    let state = host.state()?.accepted.context("the host holds no result")?;
    let certificate = std::fs::read_to_string(path.join("tlscert"))?;
    ensure!(certificate == state.credentials.tls_cert, "the certificate's file is not the newest certificate");
    Ok(())
}
