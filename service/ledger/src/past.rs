//! Resources as they were at a moment, those that are gone too.

use join_domain::{
    Timestamp,
    envelope::{StreamId, StreamKind},
    id::Name,
    resource::Labels,
    state::State,
};
use uuid::Uuid;

use crate::{Cursor, Ledger, LedgerError, ListFilter, Listed, Stored, lease::in_time};

impl Ledger {
    /// The state of a stream as of a moment, folded from its entries; none before it began.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn state_at(&self, stream: StreamId, at: Timestamp) -> Result<Option<Stored>, LedgerError> {
        // Clocks of two nodes differ by little: what follows a later entry is later, whatever it says.
        let folded = self.fold_while(stream, |entry| entry.recorded_at <= at).await?;
        Ok(folded.map(|(state, version)| Stored { stream, version, fence: 0, state, server: None }))
    }

    /// Every stream of one kind that ever had a name, the deleted ones too, oldest first.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn namesakes(&self, kind: StreamKind, name: &Name) -> Result<Vec<StreamId>, LedgerError> {
        let ids = sqlx::query_scalar!(
            "SELECT s.stream_id FROM stream s JOIN entry e ON e.stream_id = s.stream_id AND e.first_version = 1
             WHERE s.kind = $1 AND s.name = $2 ORDER BY e.recorded_at, s.stream_id",
            kind.as_str(),
            name.as_str()
        );
        let ids = in_time(ids.fetch_all(&mut *self.connection().await?)).await?;
        Ok(ids.into_iter().map(|id| StreamId { kind, id }).collect())
    }

    /// Every stream of one kind that there ever was, for kinds of which there are few.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn streams_ever(&self, kind: StreamKind) -> Result<Vec<StreamId>, LedgerError> {
        let ids = sqlx::query_scalar!("SELECT stream_id FROM stream WHERE kind = $1 ORDER BY stream_id", kind.as_str());
        let ids = in_time(ids.fetch_all(&mut *self.connection().await?)).await?;
        Ok(ids.into_iter().map(|id| StreamId { kind, id }).collect())
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
        State::Lock(_) | State::Administrator(_) | State::Cluster => return selector.is_empty(),
    };
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
