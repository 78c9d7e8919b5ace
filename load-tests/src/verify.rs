//! What must be true after a run: the ledger says what the bots saw.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use join_domain::{
    envelope::{Entry, StreamId},
    event::Event,
};
use join_ledger::{Ledger, LedgerError};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};

use crate::{fleet::Fleet, import::token_id};

/// Every accepted join of a fleet whose tokens were imported is in the ledger, no other is, and generations
/// are gapless within each lineage.
///
/// # Errors
/// The first bot for which that is not so.
pub(crate) async fn fleet(ledger: &Ledger, fleet: &Fleet) -> anyhow::Result<u64> {
    let seed = fleet.seed.context("the ids of these tokens follow from no seed")?;
    let mut joins = 0;
    for bot in &fleet.bots {
        let state = bot.state.lock().await;
        let recorded = Recorded::of(ledger, token_id(seed, bot.number).into())
            .await
            .with_context(|| format!("token {}", bot.token))?;
        ensure!(
            recorded.accepted == state.accepted,
            "token {}: the ledger holds {} accepted joins, the bot saw {}",
            bot.token,
            recorded.accepted,
            state.accepted
        );
        ensure!(
            recorded.generation == state.generation && recorded.recoveries == state.recoveries,
            "token {}: the ledger is at generation {} of lineage {}, the bot at {} of {}",
            bot.token,
            recorded.generation,
            recorded.recoveries,
            state.generation,
            state.recoveries
        );
        if state.accepted > 0 {
            let certified = state.certified_generation()?;
            ensure!(certified == state.generation, "token {}: its certificate says {certified}", bot.token);
        }
        ensure!(recorded.rotations == state.rotations, "token {}: rotations differ", bot.token);
        joins += recorded.accepted;
    }
    Ok(joins)
}

/// Locks are exactly on these tokens, one on each.
///
/// # Errors
/// When a lock has no clone, or a clone no lock.
pub(crate) async fn locks(superuser: &PgConnectOptions, cloned: &BTreeSet<String>) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect_with(superuser).await?;
    let targets: Vec<String> =
        sqlx::query_scalar("SELECT lock_target FROM folded WHERE kind = 'lock' AND live AND state LIKE '%\"by\":\"system\"%' OR kind = 'lock' AND live AND state NOT LIKE '%\"cause\":null%'")
            .fetch_all(&mut connection)
            .await?;
    connection.close().await?;
    let locked: BTreeSet<String> =
        targets.iter().map(|target| target.strip_prefix("join_token:").unwrap_or(target).to_owned()).collect();
    ensure!(locked.len() == targets.len(), "a token has more than one lock");
    if let Some(token) = locked.difference(cloned).next() {
        anyhow::bail!("token {token} is locked, and was not cloned");
    }
    if let Some(token) = cloned.difference(&locked).next() {
        anyhow::bail!("token {token} was cloned, and is not locked");
    }
    Ok(())
}

/// Guard rows and views are what follows from the entries.
///
/// # Errors
/// The first difference.
pub(crate) async fn rebuilt(ledger: &Ledger) -> anyhow::Result<u64> {
    let comparison = ledger.check(|_| {}).await?;
    if let Some(difference) = comparison.differences.first() {
        anyhow::bail!("{}: {}: {}", difference.table, difference.row, difference.what);
    }
    Ok(comparison.entries)
}

/// What the history of a token says.
#[derive(Default)]
struct Recorded {
    accepted: u64,
    recoveries: u64,
    rotations: u64,
    generation: u64,
    instance: Option<join_domain::id::InstanceId>,
}

impl Recorded {
    async fn of(ledger: &Ledger, stream: StreamId) -> anyhow::Result<Self> {
        let mut recorded = Self::default();
        ledger.replay(stream, |entry| recorded.add(&entry)).await?;
        Ok(recorded)
    }

    /// An error of the ledger's kind, so that a replay can end with it.
    fn add(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        for event in &entry.events {
            match event {
                Event::JoinAccepted(join) => {
                    let expected = if self.instance == Some(join.instance) { self.generation + 1 } else { 1 };
                    if join.generation != expected {
                        return Err(LedgerError::Corrupt(format!(
                            "generation {} follows {}",
                            join.generation, self.generation
                        )));
                    }
                    self.accepted += 1;
                    self.generation = join.generation;
                    self.instance = Some(join.instance);
                }
                Event::RecoveryConsumed(_) => self.recoveries += 1,
                Event::KeypairRotated(_) => self.rotations += 1,
                _ => {}
            }
        }
        Ok(())
    }
}
