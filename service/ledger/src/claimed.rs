//! The states that the authority keeps, as of a size of the log: what it claims, for an auditor to compare with what
//! follows from the entries.

use join_domain::{envelope::StreamId, state::State};
use uuid::Uuid;

use crate::{
    Ledger, LedgerError,
    lease::in_time,
    row::{kind, signed, unsigned},
};

/// The state of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The stream.
    pub stream: StreamId,
    /// Version of the newest event in the state.
    pub version: u64,
    /// The JSON of the fold, as the guard row has it.
    pub state: String,
}

/// A piece of the states.
#[derive(Debug, Clone)]
pub struct ClaimedPage {
    /// In the order of ids.
    pub states: Vec<Claimed>,
    /// After which id to go on; none at the end.
    pub next: Option<Uuid>,
}

impl Ledger {
    /// States of tokens, bots and locks that follow from the first `size` entries of the log. A stream that has moved on
    /// since is folded again up to there; all others are as their guard rows have them.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn claimed_states(&self, size: u64, after: Uuid, limit: u32) -> Result<ClaimedPage, LedgerError> {
        let limit = i64::from(limit.clamp(1, 1000));
        let rows = sqlx::query_file!("sql/views_page.sql", after, signed(size), limit);
        let rows = in_time(rows.fetch_all(&mut *self.connection().await?)).await?;
        let is_last = i64::try_from(rows.len()).is_ok_and(|count| count < limit);
        let next = rows.last().map(|row| row.stream_id).filter(|_| !is_last);
        let mut states = Vec::with_capacity(rows.len());
        for row in rows {
            let stream = StreamId { kind: kind(&row.kind)?, id: row.stream_id };
            let Some(sealed) = row.sealed else { continue };
            let version = unsigned(sealed)?;
            let state = match sealed == row.version {
                true => row.state,
                false => self.folded_to(stream, version).await?,
            };
            states.push(Claimed { stream, version, state });
        }
        Ok(ClaimedPage { states, next })
    }

    async fn folded_to(&self, stream: StreamId, version: u64) -> Result<String, LedgerError> {
        let mut state = None;
        self.replay(stream, |entry| {
            if entry.last_version() <= version {
                state = Some(State::after(state.take(), &entry)?);
            }
            Ok::<_, LedgerError>(())
        })
        .await?;
        serde_json::to_string(&state)
            .map_err(|error| LedgerError::Corrupt(format!("{stream} has no JSON form: {error}")))
    }
}
