//! What administration asks of the guard rows.

use std::collections::HashMap;

use futures::TryStreamExt as _;
use join_domain::{
    Timestamp,
    envelope::{StreamId, StreamKind},
    id::{BotId, GrantId, Name},
    resource::{Labels, LockTarget},
    state::{State, TokenState, token::Grant},
};
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    Cursor, Ledger, LedgerError, ListFilter, Listed, Stored,
    lease::in_time,
    row::{StreamRow, folded, kind, unsigned},
};

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

    /// Live locks on any of these targets, in force or expired.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn locks_on(&self, targets: &[LockTarget]) -> Result<Vec<Stored>, LedgerError> {
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let rows = folded!(r#"WHERE lock_target = ANY($1) AND live ORDER BY stream_id"#, &targets);
        in_time(rows.fetch_all(&mut *self.connection().await?)).await?.into_iter().map(StreamRow::stored).collect()
    }

    /// Names of the live tokens that join a bot; a few are enough to say that there are some.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn tokens_of_bot(&self, bot: BotId) -> Result<Vec<Name>, LedgerError> {
        let names = sqlx::query_scalar!(
            "SELECT name FROM stream WHERE kind = 'token' AND live AND bot_id = $1 ORDER BY name LIMIT 10",
            bot.0
        );
        let names = in_time(names.fetch_all(&mut *self.connection().await?)).await?;
        let name =
            |name: String| name.parse().map_err(|error| LedgerError::Corrupt(format!("a token's name: {error}")));
        names.into_iter().map(name).collect()
    }

    /// The live token that an exemption was granted to. It looks at every token: for people, not for joins.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn token_of_grant(&self, grant: GrantId) -> Result<Option<TokenState>, LedgerError> {
        let row = folded!(
            r#"WHERE kind = 'token' AND live AND strpos(state, $1::text) > 0
                 AND state::jsonb -> 'grants' @> jsonb_build_array(jsonb_build_object('id', $1::text)) LIMIT 1"#,
            grant.to_string()
        );
        let stored =
            in_time(row.fetch_optional(&mut *self.connection().await?)).await?.map(StreamRow::stored).transpose()?;
        Ok(stored.and_then(|stored| stored.token().cloned()))
    }

    /// The names that streams have or had.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn names(&self, streams: &[StreamId]) -> Result<HashMap<StreamId, String>, LedgerError> {
        let ids: Vec<Uuid> = streams.iter().map(|stream| stream.id).collect();
        let rows =
            sqlx::query!("SELECT stream_id, kind, name FROM stream WHERE stream_id = ANY($1) AND name <> ''", &ids);
        let rows = in_time(rows.fetch_all(&mut *self.connection().await?)).await?;
        rows.into_iter().map(|row| Ok((StreamId { kind: kind(&row.kind)?, id: row.stream_id }, row.name))).collect()
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

    /// Every token there ever was, the deleted ones too, page by page.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn tokens_ever(&self, after: Option<&Cursor>, limit: u32) -> Result<Vec<Cursor>, LedgerError> {
        let (name, id) = after.map_or(("", Uuid::nil()), |after| (after.name.as_str(), after.id));
        let rows = sqlx::query!(
            "SELECT stream_id, name FROM stream WHERE kind = 'token' AND (name, stream_id) > ($1, $2)
             ORDER BY name, stream_id LIMIT $3",
            name,
            id,
            i64::from(limit.clamp(1, 1000))
        );
        let rows = in_time(rows.fetch_all(&mut *self.connection().await?)).await?;
        Ok(rows.into_iter().map(|row| Cursor { name: row.name, id: row.stream_id }).collect())
    }

    /// Streams of one kind that were live at a moment, as they were, page by page: each is folded from its entries.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn list_at(&self, kind: StreamKind, filter: &ListFilter, at: Timestamp) -> Result<Listed, LedgerError> {
        let (name, id) = filter.after.as_ref().map_or(("", Uuid::nil()), |after| (after.name.as_str(), after.id));
        let limit = filter.limit.clamp(1, 1000);
        let rows = sqlx::query!(
            "SELECT stream_id, name FROM stream WHERE kind = $1 AND (name, stream_id) > ($2, $3)
             ORDER BY name, stream_id LIMIT $4",
            kind.as_str(),
            name,
            id,
            i64::from(limit)
        );
        let rows = in_time(rows.fetch_all(&mut *self.connection().await?)).await?;
        let more = u32::try_from(rows.len()).is_ok_and(|count| count == limit);
        let mut streams = Vec::new();
        let mut last = None;
        for row in rows {
            let cursor = Cursor { name: row.name, id: row.stream_id };
            if let Some(stored) = self.state_at(StreamId { kind, id: cursor.id }, at).await?
                && stored.state.is_live()
                && has_labels(&stored.state, &filter.selector)
            {
                streams.push(stored);
            }
            last = Some(cursor);
        }
        Ok(Listed { streams, next: last.filter(|_| more) })
    }
}

fn has_labels(state: &State, selector: &Labels) -> bool {
    let labels = match state {
        State::Token(token) => &token.spec.labels,
        State::Bot(bot) => &bot.spec.labels,
        State::Lock(_) | State::Administrator(_) | State::Record => return selector.is_empty(),
    };
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
