//! What administration asks of the guard rows.

use std::collections::HashMap;

use join_domain::{
    envelope::StreamId,
    id::{BotId, GrantId, Name},
    resource::LockTarget,
    state::TokenState,
};
use uuid::Uuid;

use crate::{
    Ledger, LedgerError, Stored,
    lease::in_time,
    row::{StreamRow, folded, kind},
};

impl Ledger {
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
}
