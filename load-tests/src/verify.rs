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

/// Locks that the authority itself made are exactly on these tokens, one on each.
///
/// # Errors
/// When a lock has no clone, or a clone no lock.
pub(crate) async fn locks(superuser: &PgConnectOptions, cloned: &BTreeSet<String>) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect_with(superuser).await?;
    let made_by_itself =
        "SELECT lock_target FROM folded WHERE kind = 'lock' AND live AND state::jsonb ->> 'cause' IS NOT NULL";
    let targets: Vec<String> = sqlx::query_scalar(made_by_itself).fetch_all(&mut connection).await?;
    connection.close().await?;
    let locked = targets.iter().map(|target| target.strip_prefix("join_token:").unwrap_or(target));
    exactly_the_cloned(locked, cloned)
}

/// Those are locked that were cloned, once each, and no other.
///
/// # Errors
/// The first for which that is not so.
pub(crate) fn exactly_the_cloned<'a>(
    locked: impl Iterator<Item = &'a str>,
    cloned: &BTreeSet<String>,
) -> anyhow::Result<()> {
    let mut once = BTreeSet::new();
    for token in locked {
        ensure!(once.insert(token), "token {token} has more than one lock");
        ensure!(cloned.contains(token), "token {token} is locked, and was not cloned");
    }
    if let Some(token) = cloned.iter().find(|token| !once.contains(token.as_str())) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_too_many_too_few_or_twice_is_found() {
        let cloned = ["one", "two"].map(str::to_owned).into();
        let told = |locked: &[&str]| exactly_the_cloned(locked.iter().copied(), &cloned).map_err(|why| why.to_string());
        assert_eq!(told(&["two", "one"]), Ok(()));
        for (locked, why) in [
            (&["one"][..], "token two was cloned, and is not locked"),
            (&["one", "two", "three"], "token three is locked, and was not cloned"),
            (&["one", "two", "one"], "token one has more than one lock"),
        ] {
            assert_eq!(told(locked), Err(why.to_owned()));
        }
    }
}
