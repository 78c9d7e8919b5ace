//! What a node measures: whether the database answers, how far everything is, how much there is.

use futures::TryStreamExt as _;
use join_domain::{Timestamp, state::token::Grant};
use serde::Deserialize;

use crate::{Ledger, LedgerError, lease::in_time, row::unsigned};

/// How far each part behind the appends is. They stand apart only by lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// The index that the next entry gets.
    pub next_index: u64,
    /// Entries that wait for their index.
    pub unsequenced: u64,
    /// Entries in the verifiable log's tree.
    pub integrated: u64,
    /// Entries under the newest signed checkpoint.
    pub signed: u64,
    /// Entries that the views have seen.
    pub views: u64,
}

/// What a token's state says of exemptions.
#[derive(Deserialize)]
struct Exempted {
    grants: Vec<Grant>,
}

impl Ledger {
    /// Makes sure that the database answers, and takes appends.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`]; [`LedgerError::Unfit`] when it is only for reading.
    pub async fn ping(&self) -> Result<(), LedgerError> {
        let only_reads = sqlx::query_scalar::<_, bool>("SELECT current_setting('transaction_read_only')::boolean");
        match in_time(only_reads.fetch_one(&mut *self.connection().await?)).await? {
            true => {
                Err(LedgerError::Unfit("the database is only for reading: did another server take over?".to_owned()))
            }
            false => Ok(()),
        }
    }

    /// How far each part behind the appends is.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn positions(&self) -> Result<Positions, LedgerError> {
        let row = sqlx::query!(
            r#"SELECT s.next_index, h.integrated_size, h.signed_size,
                 -- The horizon is another server's where a dump was restored: see number.sql.
                 (SELECT coalesce(sum(cardinality(stream_ids)), 0) FROM outbox WHERE xid >= CASE
                     WHEN s.horizon_of = (SELECT system_identifier FROM pg_control_system()) THEN s.horizon
                     ELSE '0' END) AS "unsequenced!",
                 (SELECT next_index FROM view_checkpoint) AS "views!"
             FROM sequencer s, log_head h"#
        );
        let row = in_time(row.fetch_one(&mut *self.connection().await?)).await?;
        Ok(Positions {
            next_index: unsigned(row.next_index)?,
            unsequenced: unsigned(row.unsequenced)?,
            integrated: unsigned(row.integrated_size)?,
            signed: unsigned(row.signed_size)?,
            views: unsigned(row.views)?,
        })
    }

    /// How many there are of each kind that administrators keep: bots, tokens, locks in force.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn live_counts(&self, now: Timestamp) -> Result<(u64, u64, u64), LedgerError> {
        let row = sqlx::query!(
            r#"SELECT count(*) FILTER (WHERE kind = 'bot') AS "bots!", count(*) FILTER (WHERE kind = 'token') AS "tokens!",
                 count(*) FILTER (WHERE kind = 'lock' AND (expires_at IS NULL OR expires_at > $1)) AS "locks!"
             FROM stream WHERE live"#,
            now
        );
        let row = in_time(row.fetch_one(&mut *self.connection().await?)).await?;
        Ok((unsigned(row.bots)?, unsigned(row.tokens)?, unsigned(row.locks)?))
    }

    /// Lineages whose newest certificate has not expired.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn live_instances(&self, now: Timestamp) -> Result<u64, LedgerError> {
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM instance_view WHERE certificate_not_after > $1"#,
            now
        );
        unsigned(in_time(count.fetch_one(&mut *self.connection().await?)).await?)
    }

    /// Exemptions that a join may spend.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn open_exemptions(&self, now: Timestamp) -> Result<u64, LedgerError> {
        // Whoever changes an exemption stores the state, so no later entry tells anything else about it. There may be as
        // many as tokens: one after the other goes through this node's memory.
        let states = sqlx::query_scalar!(
            r#"SELECT p.state FROM stream s JOIN snapshot p USING (stream_id)
               WHERE s.kind = 'token' AND s.live AND strpos(p.state, '"grants":[]') = 0"#
        );
        let mut connection = self.connection().await?;
        let mut states = states.fetch(&mut *connection);
        let mut open = 0_u64;
        while let Some(state) = in_time(states.try_next()).await? {
            let exempted: Exempted = serde_json::from_str(&state)
                .map_err(|error| LedgerError::Corrupt(format!("the exemptions of a token don't read: {error}")))?;
            let grants = exempted.grants.iter().filter(|grant| grant.is_open(now)).count();
            open = open.saturating_add(u64::try_from(grants).unwrap_or(u64::MAX));
        }
        Ok(open)
    }
}
