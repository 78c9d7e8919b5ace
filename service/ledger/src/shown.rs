//! The states that the authority keeps, as of a size of the log: what it shows, for an auditor to compare with what
//! follows from the entries.

use join_domain::{envelope::StreamId, state::State};
use uuid::Uuid;

use crate::{
    Ledger, LedgerError,
    lease::in_time,
    row::{StreamRow, signed, state_text, unsigned},
};

/// The state of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownState {
    /// The stream.
    pub stream: StreamId,
    /// Version of the newest event in the state.
    pub version: u64,
    /// The JSON of the fold.
    pub state: String,
}

/// A piece of the states.
#[derive(Debug, Clone)]
pub struct ShownPage {
    /// In the order of ids.
    pub states: Vec<ShownState>,
    /// After which id to go on; none at the end.
    pub next: Option<Uuid>,
}

impl Ledger {
    /// States of tokens, bots and locks that follow from the first `size` entries of the log. A stream that has moved on
    /// since is folded again up to there; all others are as they are stored.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn shown_states(&self, size: u64, after: Uuid, limit: u32) -> Result<ShownPage, LedgerError> {
        let limit = i64::from(limit.clamp(1, 1000));
        let rows = sqlx::query_file!("sql/shown_page.sql", after, signed(size), limit);
        let rows = in_time(rows.fetch_all(&mut *self.connection().await?)).await?;
        let is_last = i64::try_from(rows.len()).is_ok_and(|count| count < limit);
        let next = rows.last().map(|row| row.stream_id).filter(|_| !is_last);
        let mut states = Vec::with_capacity(rows.len());
        for row in rows {
            let (stream_id, kind, version, fence, state) = (row.stream_id, row.kind, row.version, row.fence, row.state);
            let Some(sealed) = row.sealed else { continue };
            let (snapshot_version, since, server) = (row.snapshot_version, row.since, row.server);
            let stored =
                StreamRow { stream_id, kind, version, fence, state, snapshot_version, since, server }.stored()?;
            let (stream, sealed) = (stored.stream, unsigned(sealed)?);
            let state = match sealed == stored.version {
                true => stored.state,
                false => self.folded_to(stream, sealed).await?,
            };
            states.push(ShownState { stream, version: sealed, state: state_text(&state)? });
        }
        Ok(ShownPage { states, next })
    }

    async fn folded_to(&self, stream: StreamId, version: u64) -> Result<State, LedgerError> {
        let folded = self.fold_while(stream, |entry| entry.last_version() <= version).await?;
        let nothing = || LedgerError::Corrupt(format!("{stream} has no entries up to version {version}"));
        folded.map(|(state, _)| state).ok_or_else(nothing)
    }
}
